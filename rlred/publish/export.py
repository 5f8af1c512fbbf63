"""`rlred export`: an adapter folder that is ready for the Hub, and `--push`.

Copied from a run's output: the adapter (safetensors), tokenizer or processor, run.json, the tables and pictures of what
was measured. Written anew: README.md, the model card, from what was measured, and the chat template, which words a
budget that comes as a variable. Nothing else is taken along: no optimizer state, no pickle, no traces, and no path of
this machine.
"""

import json
import shutil
import tempfile
import textwrap
from pathlib import Path

from huggingface_hub import HfApi, ModelCardData
from transformers import AutoProcessor, AutoTokenizer

from rlred.compression.arguments import UNASKED
from rlred.compression.rows import make_ratio_format
from rlred.data.budgets import EFFORTS, asks_tokens, effort_of, make_wording
from rlred.data.markers import Markers
from rlred.data.models import Loading, load_model
from rlred.data.prompts import Prompts, prompts_of_record, snippet
from rlred.evaluation.evaluate import range_of_record
from rlred.evaluation.results import read_result
from rlred.files import read_record
from rlred.publish import visual_card as card
from rlred.publish.measured import eval_results, measured
from rlred.publish.names import Base, remove_paths, revision_of
from rlred.publish.serving import Served, runs_code, served, vllm
from rlred.publish.space import write_space

# What a run has recorded and measured, which names paths of its machine.
RECORDS = (
    "run.json",
    "result.json",
    "adherence.json",
    "adherence.md",
    "interruptions.json",
    "interruptions.md",
    "ratios.json",
    "ratios.md",
    "visual.json",
    "visual.md",
)
PICTURES = ("adherence.png", "interruptions.png", "ratios.png", "visual.png", "positions.png")
# What the weights are read with: taken byte for byte. A path-like text in it is a rule, a token or a template.
READ = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)
TAKEN = (*READ, *RECORDS, *PICTURES)
NEEDED = ("adapter_model.safetensors", "adapter_config.json", "run.json")


def export(run: Path, output: Path, *, base_model: str | None = None, merge: bool = False, space: bool = False) -> Path:
    """Makes the folder `output` from the run's and returns it; with `merge`, whole weights lie in `output`/merged.

    With `space`, `output`/space is a Hub Space that asks the adapter for budgets (rlred/publish/space.py).

    `base_model` names the base for those who download the adapter: a Hub id; by default the one it was trained on.
    Raises `ValueError` for a run without an adapter and for an output folder that exists.
    """
    for name in NEEDED:
        if not (run / name).is_file():
            raise ValueError(f"{run}: there is no {name}; {instead_of(run)}")
    if output.exists():
        raise ValueError(f"{output} exists and is not written over; name another folder with --output")
    read_record(run / "run.json")  # before anything is copied: what is no record is an error
    config = json.loads((run / "adapter_config.json").read_text())
    trained_on, base = config["base_model_name_or_path"], base_of(run, base_model)
    output.parent.mkdir(parents=True, exist_ok=True)
    # Made beside its place and moved there whole: a crash leaves no half of an adapter.
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as temporary:
        folder = Path(temporary) / "adapter"
        folder.mkdir()
        # A tokenizer's own code lies beside it; it is taken along where the run was allowed to run it.
        code = [path.name for path in run.glob("*.py")] if runs_code(read_record(run / "run.json")) else []
        for name in (*TAKEN, *code):
            if (run / name).is_file():
                shutil.copyfile(run / name, folder / name)
        config = {**config, "base_model_name_or_path": base.name, "revision": base.revision}
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
        remove_paths(folder, RECORDS)
        template = Served.of(run, trained_on)
        (folder / "README.md").write_text(model_card(folder, output.name, base, template), encoding="utf-8")
        if merge:
            merge_adapter(run, trained_on, folder / "merged")
        for place in (folder, folder / "merged"):
            if template and place.is_dir():
                template.write(place)
        if space:
            write_space(folder, folder / "space", base, template, output.name)
        folder.rename(output)
    return output


def instead_of(run: Path) -> str:
    """What to export in the place of a folder that holds no run with an adapter."""
    variants = sorted(path.parent for path in run.glob("*/result.json"))
    adapters = [variant.name for variant in variants if (variant / NEEDED[0]).is_file()]
    if adapters:
        return f"export one of its variants: {', '.join(adapters)}"
    whole = [folder.name for folder in (run, *variants) if (folder / "model.safetensors").is_file()]
    if whole:
        return f"all weights were trained: {', '.join(whole)} is a model by itself, and needs no export"
    return "export the output folder of a finished recipe"


def base_of(run: Path, given: str | None = None) -> Base:
    """The base of a run's adapter, called `given` where that is told."""
    config = json.loads((run / "adapter_config.json").read_text())
    return Base.of(config["base_model_name_or_path"], given, revision_of(read_record(run / "run.json"), config))


def base_is_local(run: Path, given: str | None = None) -> bool:
    """Whether the adapter of a run was trained on what nobody else could load by its name."""
    return all((run / name).is_file() for name in NEEDED) and not base_of(run, given).public


def merge_adapter(run: Path, base: str, folder: Path) -> None:
    """Saves base and adapter as one model."""
    settings = read_record(run / "run.json")
    told = settings.get("model") or settings["arguments"]  # of TALE, whose arguments say how its base is read
    trusted = runs_code(settings)
    # Merged at the precision of training: into quantised weights an adapter could not be folded.
    loading = Loading.of(
        told, dtype=told.get("dtype") or "auto", trust_remote_code=trusted, load_in_4bit=False, load_in_8bit=False
    )
    model, tokenizer = load_model(base, str(run), loading, pictures=card.sees(run))
    model.merge_and_unload().save_pretrained(folder)
    processor = AutoProcessor.from_pretrained(run, trust_remote_code=trusted) if card.sees(run) else tokenizer
    processor.save_pretrained(folder)


def model_card(run: Path, name: str, base: Base, template: Served | None) -> str:
    """The text of README.md from an exported folder: metadata, how to ask, what was measured, how it was trained."""
    if card.sees(run):
        return card.model_card(run, name, base)
    settings = read_record(run / "run.json")
    budgets = "modes" in settings["arguments"]  # a length-control run; the others are SFT
    tags = ["grpo", "lora", "length-control"] if budgets else ["sft", "lora"]
    does, prompts, how = asked_budgets(run, settings) if budgets else asked_otherwise(settings["arguments"])
    tokenizer = AutoTokenizer.from_pretrained(run, trust_remote_code=runs_code(settings))
    asked, rank = prompts_of_record(settings), json.loads((run / "adapter_config.json").read_text())["r"]
    parts = [
        metadata(run, name, settings["arguments"], base, tags),
        f"# {name}",
        f"A LoRA adapter for `{base.name}` that {does}. Made with rlred.",
        *base.said(),
        "## How to ask",
        how,
        "\n\n".join(f"    {line}" for prompt in prompts for line in prompt.splitlines()),
        *beside(asked),
        *(counted(asked.markers, settings) if budgets and settings["arguments"].get("hindsight") else []),
        *([trained_budgets(settings)] if budgets else []),
        *(served(template, name, base, rank) if template else []),
        "## How to load",
        usage(asked.fitted(tokenizer), prompts[0], name, base, rank, cap_of(settings)),
        *measured(run, name),
        "## How it was trained",
        training_of(settings, budgets),
    ]
    return "\n\n".join(parts) + "\n"


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


def metadata(run: Path, name: str, arguments: dict, base: Base, tags: list[str]) -> str:
    """The YAML block of a text adapter's card, with what was measured."""
    questions, figures = source_of(arguments), eval_results(run, arguments)
    data = ModelCardData(
        base_model=base.name if base.public else None,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["rlred", "trl", *tags, "reasoning"],
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
    return "thinks for as long as it is told", prompts, how


def trained_budgets(settings: dict) -> str:
    """The range of budgets, in tokens, and of efforts."""
    arguments, (low, high) = settings["arguments"], range_of_record(settings)
    modes = [mode for mode, weight in arguments["modes"].items() if weight > 0]
    efforts = [effort_of(effort) for effort in arguments.get("efforts") or [arguments.get("effort_low", 1.0), 1.0]]
    told = f"Efforts from {min(efforts):g} to {max(efforts):g} were trained."
    if "effort" in modes and not asks_tokens(modes):
        return told
    told = f" {told}" if "effort" in modes else ""
    return f"Budgets from {low} to {high} tokens were trained.{told}"


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


def training_of(settings: dict, budgets: bool) -> str:
    """One sentence on how it was trained."""
    arguments, training = settings["arguments"], settings.get("training") or settings["arguments"]
    start = f", {'after' if arguments['hindsight'] else 'without'} a hindsight start" if budgets else ""
    steps = f"{training['max_steps']} steps" if training.get("max_steps", -1) > 0 else "whole epochs"
    method = "GRPO" if budgets else "SFT"
    return (
        f"{method} (TRL) with LoRA on `{source_of(arguments)}`, {steps}, seed {training['seed']}{start}. Every setting "
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


def push(folder: Path, repo: str, *, private: bool = False, endpoint: str | None = None) -> str:
    """Uploads an exported folder to the Hub repository `repo` and returns its address.

    Raises `ValueError` with one line where the Hub cannot be reached or refuses; the folder stays as it is.
    """
    api = HfApi(endpoint=endpoint)
    try:
        url = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload an adapter made with rlred")
    except Exception as error:  # whatever the Hub, the network or the HTTP library raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"--push {repo}: {reason}; {folder} is complete: hf upload {repo} {folder}") from error
    return str(url)
