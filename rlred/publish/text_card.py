"""The model card of an adapter on text: what it does, how it is asked, served and loaded, what was measured.

rlred/publish/export.py writes it into an export, and rlred/publish/run_card.py takes its parts for a run's folder.
"""

import json
import textwrap
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCardData
from transformers import AutoTokenizer

from rlred.compression.arguments import UNASKED
from rlred.compression.rows import make_ratio_format
from rlred.data.budgets import EFFORTS, asks_tokens, make_wording
from rlred.data.markers import Markers
from rlred.data.prompts import Prompts, prompts_of_record, snippet
from rlred.evaluation.evaluate import efforts_of_record, range_of_record
from rlred.evaluation.results import read_result, results_in
from rlred.files import read_record
from rlred.publish.measured import eval_results, measured
from rlred.publish.names import Base
from rlred.publish.serving import Served, runs_code, served, vllm
from rlred.tiny import QUESTIONS


def model_card(run: Path, name: str, base: Base, template: Served | None) -> str:
    """The text of README.md from an exported folder: metadata, how to ask, what was measured, how it was trained."""
    settings = read_record(run / "run.json")
    about, tokenizer = (
        About.of(run, settings),
        AutoTokenizer.from_pretrained(run, trust_remote_code=runs_code(settings)),
    )
    asked, rank = prompts_of_record(settings), json.loads((run / "adapter_config.json").read_text())["r"]
    parts = [
        metadata(run, name, settings["arguments"], base, about.tags),
        f"# {name}",
        f"A LoRA adapter for `{base.name}` that {about.does}. Made with rlred.",
        *base.said(),
        *about.asking,
        *(served(template, name, base, rank) if template else []),
        "## How to load",
        usage(asked.fitted(tokenizer), prompt_of(run, about, settings), name, base, rank, cap_of(settings)),
        *measured(run, name),
        "## How it was trained",
        training_of(settings),
    ]
    return "\n\n".join(parts) + "\n"


@dataclass(frozen=True)
class About:
    """What a text model does, and how it is asked."""

    does: str
    """After "that"."""
    prompts: list[str]
    """User turns, with {question} where the question stands."""
    asking: list[str]
    """The card's section: the words, and what belongs to them."""
    tags: list[str]

    @classmethod
    def of(cls, run: Path, settings: dict) -> "About":
        """What the record `settings` of a run in the folder `run` says."""
        budgets, asked = follows_budgets(settings), prompts_of_record(settings)
        does, prompts, how = asked_budgets(run, settings) if budgets else asked_otherwise(settings["arguments"])
        asking = [
            "## How to ask",
            how,
            "\n\n".join(f"    {line}" for prompt in prompts for line in prompt.splitlines()),
            *beside(asked),
            *(counted(asked.markers, settings) if budgets and settings["arguments"].get("hindsight") else []),
            *([trained_budgets(settings)] if budgets else []),
        ]
        return cls(does, prompts, asking, ["grpo", "lora", "length-control"] if budgets else ["sft", "lora"])


def follows_budgets(settings: dict) -> bool:
    """Whether a record is of a length-control run; the others on text are SFT."""
    return "modes" in settings["arguments"]


def beside(asked: Prompts) -> list[str]:
    """What belongs to the words: the system prompt and the settings of the chat template, where there are some."""
    told = []
    if asked.system_prompt:
        told.append(f"The system prompt was:\n\n{textwrap.indent(asked.system_prompt, '    ')}")
    if asked.chat_template_kwargs:
        told.append(f"The chat template was given `{json.dumps(asked.chat_template_kwargs)}`.")
    return told


def counted(markers: Markers | None, settings: dict) -> list[str]:
    """How the markers of counted thinking look; nothing where there are none."""
    if markers is None:
        return []
    _, high = range_of_record(settings)
    spent = min(markers.every, high)
    where = "at the end of a step" if markers.before is None else f"in front of what `{markers.before}` finds"
    return [
        f"Asked for a number of tokens, it counts them aloud: `{markers.write(spent, high)}` in its thinking says that "
        f"{spent} of {high} tokens have been spent. Such a marker stands {where}, {markers.every} tokens or more after "
        "the one before. The numbers are its own and can be wrong. Markers count as tokens, here and in the tables "
        "below; leave them out of what you show, and of what you grade, with this regular expression:",
        f"    {markers.pattern.pattern}",
    ]


def metadata(run: Path, name: str, arguments: dict, base: Base, tags: list[str], library: str | None = "peft") -> str:
    """The YAML block of a text adapter's card, with what was measured."""
    questions, figures = source_of(arguments), eval_results(run, arguments)
    data = ModelCardData(
        base_model=base.name if base.public else None,
        library_name=library,
        pipeline_tag="text-generation",
        tags=["rlred", "trl", *(tag for tag in tags if tag != "lora" or library == "peft"), "reasoning"],
        datasets=[questions] if "/" in questions and not Path(questions).exists() else None,
        model_name=name if figures else None,
        eval_results=figures,
    )
    return f"---\n{data.to_yaml()}\n---"


def source_of(arguments: dict) -> str:
    """What a run was trained on: its questions, or its corpus of text."""
    return arguments.get("questions") or arguments.get("corpus") or "its questions"


def asked_budgets(run: Path, settings: dict) -> tuple[str, list[str], str]:
    """What a length-control adapter does, the prompts that ask it for a budget, and a sentence about them."""
    arguments = settings["arguments"]
    rows = read_result(run).rows("trained") if (run / "adherence.json").is_file() else []
    budgets = [row["budget"] for row in rows if row["budget"] is not None]
    budget = budgets[-1] if budgets else range_of_record(settings)[1]
    wording = make_wording(arguments["wording"])
    modes = [mode for mode, weight in arguments["modes"].items() if weight > 0]
    asked = {"free": None, "effort": EFFORTS["low"]}
    prompts = [wording.ask("{question}", asked.get(mode, budget), mode) for mode in modes]
    how = "The control is bound to these words; "
    how += "put the number of tokens where the number stands." if asks_tokens(modes) else "put another number there."
    if "effort" in modes:
        how += " An effort is written in hundredths, the share of what a question takes by itself."
    if any(":03}" in getattr(wording, mode) for mode in modes):
        how += " Write it in three digits: 025 and not 25."
    return "thinks for as long as it is told", prompts, how


def trained_budgets(settings: dict) -> str:
    """The range of budgets, in tokens, and of efforts."""
    (low, high), efforts = range_of_record(settings), efforts_of_record(settings)
    modes = [mode for mode, weight in settings["arguments"]["modes"].items() if weight > 0]
    told = [f"Efforts from {efforts[0]:g} to {efforts[1]:g} were trained."] if efforts else []
    if asks_tokens(modes) or not efforts:
        told = [f"Budgets from {low} to {high} tokens were trained.", *told]
    return " ".join(told)


def asked_otherwise(arguments: dict) -> tuple[str, list[str], str]:
    """The same of an adapter that SFT has made: one that is asked for a ratio, or one that is only asked."""
    if "ratio_format" not in arguments:
        prompt = make_wording(arguments.get("wording", "l1")).ask("{question}", None, "free")
        does = "chooses by itself how long to think" if "budgets" in arguments else "reasons"
        return does, [prompt], "It was trained and measured in these words."
    ratio_format = make_ratio_format(arguments["ratio_format"])
    asks = arguments.get("ask_ratio", True) and arguments.get("scorer") not in UNASKED
    ratios = [1.0, min(arguments["ratios"])] if asks else [1.0]
    how = "The ratio is bound to these words; without them it thinks at full length." if asks else "No ratio is asked."
    prompts = [ratio_format.user_turn("{question}", ratio) for ratio in dict.fromkeys(ratios)]
    does = "thinks in fewer tokens"
    if asks:
        does = "thinks with the share of its tokens that it is asked for"
    elif arguments.get("scorer") == "random_cut":
        does = "answers where its thinking is cut"
    return does, prompts, how


def training_of(settings: dict, what: str = "with LoRA") -> str:
    """One sentence on how it was trained."""
    arguments, training = settings["arguments"], settings.get("training") or settings["arguments"]
    budgets = follows_budgets(settings)
    start = f", {'after' if arguments['hindsight'] else 'without'} a hindsight start" if budgets else ""
    start += ", from a saved adapter" if arguments.get("adapter") and budgets else ""
    steps = f"{training['max_steps']} steps" if training.get("max_steps", -1) > 0 else "whole epochs"
    method = "GRPO" if budgets else "SFT"
    return (
        f"{method} (TRL) {what} on `{source_of(arguments)}`, {steps}, seed {training['seed']}{start}. Every setting "
        "is in run.json."
    )


def cap_of(settings: dict) -> int:
    """The most tokens that a run let a completion have; where it does not say, room for twice its largest budget.

    >>> cap_of({"arguments": {}, "training": {"max_completion_length": 4096}}), cap_of({"arguments": {}})
    (4096, 2048)
    """
    told = [part.get("max_completion_length") for part in (settings.get("training") or {}, settings["arguments"])]
    largest = range_of_record(settings)
    return next((cap for cap in told if isinstance(cap, int)), 2 * largest[1] if largest else 2048)


def prompt_of(run: Path, about: About, settings: dict) -> str:
    """The first prompt of a card with a question in it: the shortest of those that the run has kept as examples."""
    blocks = [block for result in results_in(run) for block in result.blocks.values()]
    asked = [example["question"] for block in blocks for example in block.get("examples") or []]
    if not asked and (source := source_of(settings["arguments"])) in QUESTIONS:
        asked = [row["question"] for row in QUESTIONS[source](1, "test", 0)]
    return about.prompts[0].replace("{question}", min(asked, key=len, default="What is 2+2?"))


def usage(asked: Prompts, prompt: str, name: str, base: Base, rank: int, cap: int) -> str:
    """Three ways to load the adapter, asked as it was in training, for as many tokens as it had there."""
    return f"""```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base.code}), "{name}")
{snippet(asked, asked.conversation(prompt))}
print(tokenizer.decode(model.generate(**inputs, max_new_tokens={cap})[0]))
```

Merged into the base: `model = model.merge_and_unload()`. With vLLM:

{textwrap.indent(vllm(name, base, rank), "    ")}"""
