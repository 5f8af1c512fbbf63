"""Publishing a run on pictures: the model card with its visual report."""

import json
from pathlib import Path

from huggingface_hub import ModelCardData

from rlred.data.prompts import Prompts, prompts_of_record
from rlred.files import read_record
from rlred.publish.measured import measured
from rlred.publish.names import Base


def sees(run: Path) -> bool:
    """Whether a run's folder is one of rlred.runs.visual."""
    return "budget_tokens" in read_record(run / "run.json")["arguments"]


def model_card(run: Path, name: str, base: Base) -> str:
    """The text of README.md: metadata, what it does, how to load it, what was measured, how it was trained."""
    settings = read_record(run / "run.json")
    arguments = settings["arguments"]
    parts = [
        metadata(arguments, base),
        f"# {name}",
        f"A LoRA adapter for `{base.name}` that {does(arguments)}. Made with rlred.",
        *base.said(),
        "## How to load",
        usage(name, base.name, arguments, prompts_of_record(settings), base.revision),
    ]
    parts += measured(run, name)
    parts += [
        "## How it was trained",
        training_of(settings),
    ]
    return "\n\n".join(parts) + "\n"


def metadata(arguments: dict, base: Base, library: str | None = "peft") -> str:
    """The YAML block of the card."""
    questions = arguments["questions"]
    data = ModelCardData(
        base_model=base.name if base.public else None,
        library_name=library,
        pipeline_tag="image-text-to-text",
        tags=["rlred", "trl", "grpo", *(["lora"] if library == "peft" else []), "visual-tokens"],
        datasets=[questions] if "/" in questions and not Path(questions).exists() else None,
    )
    return f"---\n{data.to_yaml()}\n---"


def training_of(settings: dict, what: str = "with LoRA") -> str:
    """One sentence on how it was trained."""
    arguments, training = settings["arguments"], settings["training"]
    reward = arguments["reward"]
    return (
        f"GRPO (TRL) {what} on `{arguments['questions']}`, "
        f"reward `{reward if isinstance(reward, str) else reward['name']}`, "
        f"{training['max_steps']} steps, seed {training['seed']}. Every setting is in run.json."
    )


def does(arguments: dict) -> str:
    """What the policy of a run does, after "that"."""
    tokens = ", ".join(f"`{token}` {100 * ratio:g} %" for token, ratio in arguments["budget_tokens"].items())
    if not tokens:
        return "thinks about a picture for as long as the question is hard"
    if arguments.get("on_request"):
        shown = f"{100 * arguments['thumbnail']:g} % of a picture's tokens"
        return f"answers from {shown}, or asks for more ({tokens}) where that is not enough"
    return f"chooses how many of a picture's tokens to use ({tokens})"


def usage(
    name: str, base_model: str, arguments: dict, prompts: Prompts | None = None, revision: str | None = None
) -> str:
    """How to load the adapter and ask about a picture."""
    policy = {"budget_tokens": arguments["budget_tokens"], "thumbnail": arguments["thumbnail"]}
    policy |= {"on_request": arguments.get("on_request", False)}
    given = ", ".join(f"{key}={value!r}" for key, value in policy.items())
    prompts = prompts or Prompts()
    asked = {name: value for name, value in prompts.described().items() if value}
    told, needed = "", ""
    if prompts.system_prompt or prompts.chat_template_kwargs:
        told = f", prompts=Prompts({', '.join(f'{name}={value!r}' for name, value in asked.items())})"
        needed = "\nfrom rlred.data.prompts import Prompts"
    question = (
        "question" if not arguments["instruction"] else f'question + "\\n" + {json.dumps(arguments["instruction"])}'
    )
    suppressed = arguments.get("suppress_tokens") or []
    suppress = (
        f"\nmodel.generation_config.suppress_tokens += policy.tokenizer.convert_tokens_to_ids({suppressed})"
        if suppressed
        else ""
    )
    return f"""```python
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor{needed}
from rlred.vision.budget_policy import VisualBudgetPolicy
from rlred.vision.model import SparseVision
from rlred.vision.reduce import Reducer

policy = VisualBudgetPolicy(AutoProcessor.from_pretrained("{name}"), {given}{told})
model = AutoModelForImageTextToText.from_pretrained({Base(base_model, True, revision).code})
reducer = Reducer(score="{arguments["score"]}", strategy="{arguments["strategy"]}")
SparseVision(model, reducer, images_per_row=policy.images_per_row){suppress}
model = PeftModel.from_pretrained(model, "{name}").eval()
prompt = [{{"role": "user", "content": {question}}}]
[rollout] = policy(model, [prompt], [image], temperature=0, max_answer={arguments["max_answer"]})
print(rollout.budget_token, rollout.visual_tokens, rollout.answer)
```"""
