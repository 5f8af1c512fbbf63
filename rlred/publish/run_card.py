"""README.md of a run's own folder: what was trained, what was measured, and the commands that go on from there.

TRL writes a template there at every checkpoint and PEFT adds the base's path; here the parts of the export's card stand
in its place (rlred/publish/text_card.py, visual_card.py), and what an export has instead of commands is left to it.

    OwnCard       a trainer whose card is ours, at each checkpoint and before a push to the Hub
    write_cards   the cards of a run that has ended, one for each folder in it that can be exported
"""

import json
import shlex
from pathlib import Path

from rlred.data.budgets import EFFORTS, asks_tokens
from rlred.evaluation.evaluate import range_of_record
from rlred.evaluation.markdown import table
from rlred.evaluation.results import read_result
from rlred.files import read_record, write_text
from rlred.publish import text_card, visual_card
from rlred.publish.measured import measured
from rlred.publish.names import Base, revision_of, without_paths

WEIGHTS = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")
# What a run is told apart by, from its run.json; empty ones are left out.
SHOWN = (
    *("model_name_or_path", "model_revision", "model", "student", "adapter", "questions", "questions_config", "corpus"),
    *("num_questions", "reward", "parts", "modes", "budget_low", "budget_high", "budget_choices", "efforts", "budgets"),
    *("budget_tokens", "ratios", "scorer", "hindsight", "max_steps", "num_train_epochs", "learning_rate", "beta"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "batch_size", "num_generations"),
    *("max_completion_length", "temperature", "use_peft", "lora_r", "lora_alpha", "seed"),
)


class OwnCard:
    """Mixed into a trainer of TRL's: its README.md is that of a run, and there is none where no run.json lies."""

    def create_model_card(self, model_name=None, dataset_name=None, tags=None) -> None:
        """Writes the card of the run in the output folder."""
        if self.is_world_process_zero():
            write_card(Path(self.args.output_dir))


def write_cards(output: Path) -> None:
    """Writes the cards of the runs in a folder that has ended, and removes the templates of TRL and PEFT below it."""
    for folder in (output, *(path.parent for path in sorted(output.glob("*/run.json")))):
        write_card(folder)
    for path in output.glob("**/README.md"):
        if "# Model Card for " in path.read_text(encoding="utf-8"):
            path.unlink()


def write_card(folder: Path) -> None:
    """Writes README.md of a run's folder; nothing where there is no run.json."""
    if (folder / "run.json").is_file():
        write_text(folder / "README.md", run_card(folder))


def run_card(run: Path) -> str:
    """The text of README.md of a run's folder. No path of this machine stands in it."""
    record, name = read_record(run / "run.json"), run.resolve().name
    base, settings = base_of(run, record), without_paths(record, {})
    whole = (settings.get("model") or {}).get("use_peft") is False
    library, what = (None, "of all weights") if whole else ("peft", "with LoRA")
    if visual_card.sees(run):
        does, asking = visual_card.does(settings["arguments"]), []
        top, trained = visual_card.metadata(settings["arguments"], base, library), visual_card.training_of
    else:
        about = text_card.About.of(run, settings)
        does, asking, trained = about.does, about.asking, text_card.training_of
        top = text_card.metadata(run, name, settings["arguments"], base, about.tags, library)
    ended = any((run / name).is_file() for name in WEIGHTS)
    parts = [
        top,
        f"# {name}",
        f"{f'`{base.name}`, trained so that it' if whole else f'A LoRA adapter for `{base.name}` that'} {does}. "
        "This is the output folder of a run of rlred.",
        *base.said(),
        "## What to do next",
        *(next_steps(run, record, whole) if ended else unfinished()),
        *asking,
        *(without_paths(part, {}) for part in measured(run, name)),
        "## How it was trained",
        trained(settings, what),
        "\n".join(table(["setting", "value"], shown(settings))),
    ]
    return "\n\n".join(parts) + "\n"


def base_of(run: Path, record: dict) -> Base:
    """What a run trained: as its adapter says, or as it was told."""
    path, told = run / "adapter_config.json", record.get("model") or {}
    own = told.get("model_name_or_path") or record["arguments"].get("student") or record["arguments"].get("model")
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"base_model_name_or_path": own}
    return Base.of(config["base_model_name_or_path"] or "its base", revision=revision_of(record, config))


def shown(settings: dict) -> list[list[str]]:
    """The settings that tell a run from another, each with its value as YAML has it."""
    parts = [settings.get("training") or {}, settings.get("model") or {}, settings["arguments"]]
    told = {"recipe": settings.get("recipe"), **{name: value for part in parts for name, value in part.items()}}
    if (told.get("max_steps") or -1) > 0:  # which then end the training
        told.pop("num_train_epochs", None)
    rows = [(name, told.get(name)) for name in ("recipe", *SHOWN)]
    return [[f"`{name}`", plain(value)] for name, value in rows if value not in (None, "", [], {}, -1)]


def plain(value) -> str:
    """A value as YAML has it on a line.

    >>> plain("l1"), plain(True), plain({"exact": 1.0})
    ('l1', 'true', '{"exact": 1.0}')
    """
    return value if isinstance(value, str) else json.dumps(value)


def unfinished() -> list[str]:
    """What to do with a run whose end has not come."""
    return [
        "This run has not ended: its checkpoints lie in checkpoint-*. In this folder, `rlred status .` says how far it "
        "is. The command that started it goes on from the last checkpoint, given `--resume_from_checkpoint true` and "
        "this folder as `--output_dir`."
    ]


def next_steps(run: Path, record: dict, whole: bool) -> list[str]:
    """The commands that measure, serve, show and publish what was trained; `record` may name paths."""
    settings, name, sees = without_paths(record, {}), shlex.quote(run.resolve().name), visual_card.sees(run)
    modes = [mode for mode, weight in (settings["arguments"].get("modes") or {}).items() if weight > 0]
    lines, asked = [], [] if whole or sees else evaluation(run, settings, modes)
    if asked:
        lines.append(("measure it again", f"rlred evaluate {shlex.join(asked)} --output ../{name}-measured"))
    if not sees:
        lines.append(("answer requests, until Ctrl-C", "rlred serve ."))
    if asks_tokens(modes) and not whole:
        lines.append(("ask it for three budgets on a page", "rlred play ."))
    lines.append(("put what was measured on a page", "rlred report ."))
    if not whole:
        lines.append(("make a folder for the Hub", f"rlred export . --output ../{name}-export"))
    told = ["In this folder:", "\n".join(f"    # {about}\n    {line}" for about, line in lines)]
    source = held_out(record["arguments"])
    if asked and source and held_out(settings["arguments"]) != source:
        told.append(f"The held-out questions lay in `{held_out(settings['arguments'])}`: put its path in its place.")
    return told


def held_out(arguments: dict) -> str | None:
    """The source of a run's held-out questions."""
    return arguments.get("eval_questions") or arguments.get("questions")


def evaluation(run: Path, settings: dict, modes: list[str]) -> list[str]:
    """The words after `rlred evaluate` that measure an adapter as its run has measured it."""
    arguments, words = settings["arguments"], ["--adapter", "."]
    if (source := held_out(arguments)) not in (None, "sums"):
        words += ["--questions", source]
    own = arguments.get("eval_config") or (not arguments.get("eval_questions") and arguments.get("questions_config"))
    words += ["--questions_config", own] if own else []
    if not arguments.get("eval_questions"):
        for name in ("question_column", "solution_column"):
            words += [f"--{name}", arguments[name]] if arguments.get(name) else []
    words += ["--split", arguments["eval_split"]] if arguments.get("eval_split", "test") != "test" else []
    words += ["--num_questions", str(arguments.get("num_eval_questions") or 64)]
    if arguments.get("eval_temperature", 1.0) != 1.0:
        words += ["--temperature", f"{arguments['eval_temperature']:g}"]
    cap = ["--max_completion_length", str(cap_of(settings))]
    if "ratio_format" in arguments:
        return [*words, "--ratios", *(f"{ratio:g}" for ratio in sorted(arguments["ratios"])), *cap]
    swept = arguments.get("eval_modes") or modes or ["free"]
    if asks_tokens(swept):
        words += ["--budgets", *map(str, budgets_of(run, settings))]
    if "effort" in swept:
        words += ["--efforts", *EFFORTS]
    return [*words, "--modes", *swept, *cap]


def budgets_of(run: Path, settings: dict) -> list[int]:
    """The budgets that a run was measured at, or else three over those that it was trained on."""
    rows = read_result(run).rows("trained") if (run / "adherence.json").is_file() else []
    found = sorted({row["budget"] for row in rows if row["budget"] is not None})
    low, high = range_of_record(settings)
    return found or sorted({low, (low + high) // 2, high})


def cap_of(settings: dict) -> int:
    """The tokens at which a completion is cut: as in training, or twice the largest budget that was asked for."""
    asked = settings["arguments"].get("budgets")
    return 2 * max(asked) if asked else text_card.cap_of(settings)
