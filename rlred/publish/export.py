"""`rlred export`: an adapter folder that is ready for the Hub, and `--push`.

Copied from a run's output: the adapter (safetensors), tokenizer or processor, run.json, the tables and pictures of what
was measured. Written anew: README.md, the model card, from what was measured, and the chat template, which words a
budget that comes as a variable. Nothing else is taken along: no optimizer state, no pickle, no traces, and no path of
this machine.
"""

import json
import shutil
import tempfile
from pathlib import Path

from huggingface_hub import HfApi
from transformers import AutoProcessor

from rlred.data.models import Loading, load_model
from rlred.files import read_record
from rlred.publish import text_card, visual_card
from rlred.publish.names import Base, remove_paths, revision_of
from rlred.publish.serving import Served, runs_code
from rlred.publish.space import check_space, write_space

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
    template = Served.of(run, trained_on)
    if space:
        check_space(base, template, output.name)
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
        (folder / "README.md").write_text(card_of(folder, output.name, base, template), encoding="utf-8")
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
    model, tokenizer = load_model(base, str(run), loading, pictures=visual_card.sees(run))
    model.merge_and_unload().save_pretrained(folder)
    processor = AutoProcessor.from_pretrained(run, trust_remote_code=trusted) if visual_card.sees(run) else tokenizer
    processor.save_pretrained(folder)


def card_of(folder: Path, name: str, base: Base, template: Served | None) -> str:
    """The text of README.md of an exported folder."""
    if visual_card.sees(folder):
        return visual_card.model_card(folder, name, base)
    return text_card.model_card(folder, name, base, template)


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
