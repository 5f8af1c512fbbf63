"""`rlred export`: an adapter folder that is ready for the Hub, and `--push`.

Copied from a run's output: the adapter (safetensors), tokenizer or processor and chat template, run.json, the tables
and pictures of what was measured. Written anew: README.md, the model card, from what was measured. Nothing else is
taken along: no optimizer state, no pickle, no traces.
"""

import json
import shutil
import tempfile
import textwrap
from pathlib import Path

from huggingface_hub import HfApi, ModelCardData
from transformers import AutoTokenizer

from rlred.evaluation.report import number, percent, to_markdown
from rlred.prompts import Prompts, prompts_of_record, snippet
from rlred.vision import card

TAKEN = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "adherence.json",
    "adherence.md",
    "adherence.png",
    "processor_config.json",
    "preprocessor_config.json",
    "visual.json",
    "visual.md",
    "visual.png",
    "positions.png",
    "run.json",
)
NEEDED = ("adapter_model.safetensors", "adapter_config.json", "run.json")


def export(run: Path, output: Path, *, base_model: str | None = None, merge: bool = False) -> Path:
    """Makes the folder `output` from the run's and returns it; with `merge`, whole weights lie in `output`/merged.

    `base_model` names the base for those who download the adapter: a Hub id; by default the one it was trained on.
    Raises `ValueError` for a run without an adapter and for an output folder that exists.
    """
    for name in NEEDED:
        if not (run / name).is_file():
            raise ValueError(f"{run}: there is no {name}; export the output folder of a finished recipe")
    if output.exists():
        raise ValueError(f"{output} exists and is not written over; name another folder with --output")
    config = json.loads((run / "adapter_config.json").read_text())
    trained_on = config["base_model_name_or_path"]
    output.parent.mkdir(parents=True, exist_ok=True)
    # Made beside its place and moved there whole: a crash leaves no half of an adapter.
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as temporary:
        folder = Path(temporary) / "adapter"
        folder.mkdir()
        for name in TAKEN:
            if (run / name).is_file():
                shutil.copyfile(run / name, folder / name)
        if base_model:
            (folder / "adapter_config.json").write_text(
                json.dumps({**config, "base_model_name_or_path": base_model}, indent=2) + "\n"
            )
        (folder / "README.md").write_text(model_card(run, output.name, base_model or trained_on), encoding="utf-8")
        if merge:
            merge_adapter(run, trained_on, folder / "merged")
        folder.rename(output)
    return output


def base_is_local(run: Path) -> bool:
    """Whether the adapter was trained on a folder of this machine, which nobody else could load."""
    config = run / "adapter_config.json"
    return config.is_file() and Path(json.loads(config.read_text())["base_model_name_or_path"]).exists()


def merge_adapter(run: Path, base: str, folder: Path) -> None:
    """Saves base and adapter as one model."""
    if card.sees(run):
        card.merge_adapter(run, base, folder)
        return
    from rlred.evaluation.sweep import load_for_evaluation

    dtype = json.loads((run / "run.json").read_text())["model"].get("dtype") or "auto"
    model, tokenizer = load_for_evaluation(base, str(run), dtype)
    model.merge_and_unload().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def model_card(run: Path, name: str, base_model: str) -> str:
    """The text of README.md: metadata, how to ask, what was measured, how it was trained."""
    if card.sees(run):
        return card.model_card(run, name, base_model)
    settings = json.loads((run / "run.json").read_text())
    arguments, training = settings["arguments"], settings["training"]
    report_path = run / "adherence.json"
    report = json.loads(report_path.read_text()) if report_path.is_file() else None
    on_hub = not Path(base_model).exists()
    questions = arguments["questions"]
    data = ModelCardData(
        base_model=base_model if on_hub else None,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["rlred", "trl", "grpo", "lora", "length-control", "reasoning"],
        datasets=[questions] if "/" in questions and not Path(questions).exists() else None,
    )
    asked = prompts_of_record(settings)
    modes = [mode for mode, weight in arguments["modes"].items() if weight > 0]
    budget = report["trained"]["rows"][-1]["budget"] if report and report.get("trained") else arguments["budget_high"]
    prompts = [asked.wording.ask("{question}", None if mode == "none" else budget, mode) for mode in modes]
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {name}",
        f"A LoRA adapter for `{base_model}` that thinks for as long as it is told. Made with rlred.",
        "## How to ask",
        "The control is bound to these words; put the number of tokens where the number stands.",
        "\n\n".join(f"    {prompt}" for prompt in prompts),
        *beside(asked),
        f"Budgets from {arguments['budget_low']} to {arguments['budget_high']} tokens were trained.",
        "## How to load",
        usage(name, base_model, asked.fitted(AutoTokenizer.from_pretrained(run)), prompts[0]),
    ]
    if report and report.get("trained"):
        before, after = report["baseline"], report["trained"]
        mean = next(iter(after["overall"].values()))
        parts += [
            "## What was measured",
            f"Rank correlation of budget and length within a question: {number(before['rank_correlation'], 3)} before, "
            f"{number(after['rank_correlation'], 3)} after. Mean absolute error {percent(mean['mean_abs_error'])} % of "
            f"the budget, over budget in {percent(mean['over_budget'])} % of completions.",
            "![Asked against used, and accuracy against tokens](adherence.png)",
            to_markdown({**report, "adapter": name}).replace("\n## ", "\n### ").partition("\n\n")[2].strip(),
        ]
    parts += [
        "## How it was trained",
        f"GRPO (TRL) with LoRA on `{questions}`, {training['max_steps']} steps, seed {training['seed']}, "
        f"{'after' if arguments['hindsight'] else 'without'} a hindsight start. Every setting is in run.json.",
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


def usage(name: str, base_model: str, asked: Prompts, prompt: str) -> str:
    """Three ways to load the adapter, asked as it was in training."""
    return f"""```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{name}")
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base_model}"), "{name}")
{snippet(asked, asked.conversation(prompt))}
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=512)[0]))
```

Merged into the base: `model = model.merge_and_unload()`. With vLLM:

    vllm serve {base_model} --enable-lora --lora-modules {name}={name}"""


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
