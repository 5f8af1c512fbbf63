"""What every run stands on: its command line, its model, its questions, its record.

command         the command line of a recipe: YAML, flags, clear errors, exit status
experiment      that of many runs in one table
load_model      the base model and its tokenizer, as ModelConfig says
load_both       training questions, and held-out ones that are never trained on
num_rows        the asked rows that a whole GRPO run needs
check_adapter      refuses an adapter to go on with that does not fit, before anything is sampled
check_same_model   refuses to go on with another model, or another adapter, in the folder of a run
describe        every setting, for run.json
"""

import dataclasses
import json
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainingArguments
from trl import GRPOConfig, ModelConfig, get_peft_config

from rlred import hosts
from rlred.data import adapters, models
from rlred.data.prompts import prompts_of_record
from rlred.data.question_table import shared_questions
from rlred.data.questions import load_questions
from rlred.evaluation.sweep import sample_of
from rlred.files import read_record, write_json
from rlred.flags import parse_known
from rlred.heartbeat import WARNINGS, beat
from rlred.output import external_failure, resume_hint
from rlred.publish.run_card import write_cards
from rlred.runs.arguments import LengthControlArguments, parse
from rlred.runs.audit_only import Audit, audited
from rlred.runs.help import help_asked, help_text
from rlred.tiny import QUESTIONS
from rlred.train import audit_of
from rlred.training.callbacks import (
    BoundedFiles,
    CheckpointsInOrder,
    CollapseAlarm,
    Heartbeat,
    KeepBest,
    SkipBadUpdates,
)
from rlred.training.trackers import check_trackers
from rlred.wrapper import check_wrapper, described, fsdp_without_gpus

logger = logging.getLogger(__name__)


def load_both(arguments: LengthControlArguments, seed: int):
    """Training questions, and the held-out ones that are never trained on."""
    columns = {"question_column": arguments.question_column, "solution_column": arguments.solution_column}
    questions = load_questions(
        arguments.questions,
        split=arguments.questions_split,
        config=arguments.questions_config,
        limit=arguments.num_questions,
        seed=seed,
        streaming=arguments.questions_streaming,
        **columns,
    )
    if not arguments.evaluate:
        return questions, []
    source = arguments.eval_questions or arguments.questions
    # The same held-out questions for every seed, so that seeds can be compared.
    streaming = arguments.questions_streaming and source == arguments.questions
    held_out = load_questions(
        source,
        split=arguments.eval_split,
        config=arguments.eval_config or (arguments.questions_config if source == arguments.questions else None),
        limit=arguments.num_eval_questions if streaming or source in QUESTIONS else None,
        streaming=streaming,
        **(columns if source == arguments.questions else {}),
    )
    check_held_out(questions, held_out, source, arguments.eval_split)
    if len(held_out) < arguments.num_eval_questions:
        asked = "num_eval_questions=%d: there are only %d held-out questions, and all of them are asked"
        logger.warning(asked, arguments.num_eval_questions, len(held_out))
    return questions, sample_of(held_out, arguments.num_eval_questions)


def check_held_out(questions, held_out, source: str, split: str) -> None:
    """Raises `ValueError` where held-out questions are training questions too, as in a file without splits."""
    if shared := shared_questions(questions, held_out):
        raise ValueError(
            f"eval_questions: {shared} of {len(held_out)} held-out questions are training questions too; name another "
            f"file in eval_questions or another eval_split (now {source!r}, split {split!r})"
        )


def load_model(model_config: ModelConfig, training, pictures: bool = False):
    """The base model of a run on this process's device, and its tokenizer; with `pictures` its processor."""
    loading = models.Loading.of(model_config, trust_remote_code=training.trust_remote_code)
    name, device = model_config.model_name_or_path, training.device
    return models.load_model(name, None, loading, device=device, pictures=pictures, field="model_name_or_path")


def load_outline(model_config: ModelConfig, training, pictures: bool = False):
    """The same of the model's shape and its tokenizer or processor: what an audit needs."""
    loading = models.Loading.of(model_config, trust_remote_code=training.trust_remote_code)
    return models.load_outline(model_config.model_name_or_path, loading, pictures=pictures, field="model_name_or_path")


def lora_of(model_config: ModelConfig, target_modules: str | None = None):
    """The LoRA settings of a run, None without `use_peft`; `target_modules` stands where the run names none."""
    config = get_peft_config(model_config)
    if config is not None and not model_config.lora_target_modules and target_modules is not None:
        config.target_modules = target_modules
    return config


def watchers(output: Path, training: GRPOConfig) -> list:
    """The callbacks of every GRPO run: alarms, bad updates left out, its best adapter, its heartbeat, bounded files."""
    gib = getattr(training, "disk_budget_gib", None)
    bounded = BoundedFiles(output, getattr(training, "keep_completions", None), gib and gib * 2**30)
    kept = [CheckpointsInOrder(), KeepBest(output / "best"), bounded]
    return [CollapseAlarm(), SkipBadUpdates(), Heartbeat(output), *kept]


def num_rows(training: GRPOConfig, rows_per_epoch: int) -> int:
    """Asked rows that the whole run needs: one per group, each group in one generation batch."""
    groups_per_batch = training.generation_batch_size // training.num_generations
    if training.max_steps > 0:
        micro_steps = training.max_steps * training.gradient_accumulation_steps
        batches = -(-micro_steps // (training.steps_per_generation * training.num_iterations))
        return batches * groups_per_batch
    return max(groups_per_batch, int(training.num_train_epochs * rows_per_epoch))


def check_adapter(arguments: LengthControlArguments, model_config: ModelConfig, training) -> None:
    """Raises `ValueError` for an adapter to go on with that does not fit; warns where it was asked in other words."""
    if not arguments.adapter:
        return
    lora = lora_of(model_config)
    folder = adapters.check_adapter(arguments.adapter, lora, lora and load_outline(model_config, training)[0])
    record = read_record(folder / "run.json") if (folder / "run.json").is_file() else {}
    if record:
        was, now = prompts_of_record(record), (arguments.make_wording(), arguments.make_hindsight().markers)
        for what, its, own in zip(("wording", "markers"), (was.wording, was.markers), now, strict=True):
            if its != own:
                logger.warning("adapter=%r was trained with another %s: %s, here %s", arguments.adapter, what, its, own)


def check_same_model(output: Path, model, model_config: ModelConfig, adapter: str | None = None) -> None:
    """Raises `ValueError` where a run is to go on in the folder of a run of another model, or of another `adapter`."""
    path, name = output / "run.json", model_config.model_name_or_path
    record = read_record(path) if path.exists() else {}
    before, now = record.get("weights"), models.fingerprint(model)
    if before and now and before != now:
        was = record.get("model", {}).get("model_name_or_path")
        raise ValueError(
            f"model_name_or_path={name!r}: {output} holds a run of {was!r}, whose weights are others; name another "
            "output_dir, or go on with that model"
        )
    if record and (was := (record.get("arguments") or {}).get("adapter")) != adapter:
        raise ValueError(f"adapter={adapter!r}: {output} holds a run of adapter={was!r}; name another output_dir")


def describe(
    recipe: str, arguments: LengthControlArguments, training: GRPOConfig, model_config: ModelConfig, model=None
) -> dict:
    """The recipe's name, every setting of the run, as it was used, and the fingerprint of the base's weights."""
    plain = json.loads(json.dumps(dataclasses.asdict(model_config), default=str))
    trained = training.to_sanitized_dict()
    if hasattr(training, "chat_template_kwargs"):
        trained["chat_template_kwargs"] = training.chat_template_kwargs  # a mapping, that can be read again
    own = {"weights": found} if (found := models.fingerprint(model)) else {}
    told = {"recipe": recipe, "arguments": dataclasses.asdict(arguments)}
    settings = {**told, "training": trained, "model": plain, **own}
    return {**settings, "wrapper": described(training)}


def add_to_record(output: Path, **found) -> None:
    """Adds to run.json what a run has found out by itself."""
    if PartialState().is_main_process:
        write_json(output / "run.json", {**read_record(output / "run.json"), **found})


def use_all_cores() -> None:
    """Shares this machine's cores among its processes: `accelerate launch` gives each one thread unless told."""
    cores = len(os.sched_getaffinity(0))
    threads = max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    torch.set_num_threads(threads)
    if PartialState().is_main_process and threads > 1 and (said := crowded(os.getloadavg()[0], cores)):
        logger.info(said)


def crowded(load: float, cores: int) -> str | None:
    """What to do where other programs use the cores of a run: threads spin while they wait for one that has no core.

    >>> crowded(load=4.0, cores=2)
    'the load of this machine is 4.0 on 2 cores: `taskset -c 0 COMMAND` is faster here (docs/performance.md)'
    >>> crowded(load=0.6, cores=2)
    """
    if load <= cores / 2:
        return None
    found = f"the load of this machine is {load:.1f} on {cores} cores"
    return f"{found}: `taskset -c 0 COMMAND` is faster here (docs/performance.md)"


def command(
    recipe: Path,
    run: Callable[..., dict],
    kinds: tuple[type, ...],
    page: str,
    audit: Callable[..., None],
    shares: bool = False,
) -> int:
    """The command line of a recipe: its YAML, then flags; a wrong value is one clear line and exit status 2.

    `run` takes the arguments, one of each of the `kinds`, and the default output folder; when it returns a report, the
    `page` that it left in the output folder is printed. With `--audit_only` nothing is run: `audit` takes an Audit and
    the arguments, and what it has found is printed. `shares` says that `run` works without the whole weights on every
    process (ZeRO-3, FSDP).
    """

    def work() -> str | None:
        sys.path.append(os.getcwd())  # a reward or a part may lie in a file where the run is started
        if help_asked(sys.argv[1:]) is not None:
            return help_text(recipe, kinds, sys.argv[1:])
        processes, argv = audit_of(sys.argv[1:])
        if processes:
            return said_by(audited(recipe, kinds, audit, argv, processes))
        fsdp_without_gpus()
        told = parse(recipe.with_suffix(".yaml"), argv, kinds)
        placed = next(part for part in told if hasattr(part, "output_dir"))
        if getattr(placed, "use_cpu", False):
            use_all_cores()
        if isinstance(placed, TrainingArguments):
            check_trackers(placed)
            check_wrapper(placed, shares)
        try:
            report = run(*told, Path("outputs") / recipe.stem)
        except BaseException as error:
            if placed.output_dir:
                said = external_failure(error) or " ".join(str(error).split())[:500] or type(error).__name__
                beat(Path(placed.output_dir), state="failed", error=said)
            if isinstance(placed, TrainingArguments) and isinstance(error, Exception):
                error.add_note(resume_hint(placed))
            raise
        if PartialState().is_main_process:
            write_cards(Path(placed.output_dir))
        beat(Path(placed.output_dir), state="finished")
        return (Path(placed.output_dir) / page).read_text(encoding="utf-8") if report else None

    return ended(work)


def said_by(audit: Audit) -> str:
    """The report of an audit. Raises `ValueError`, once it is printed, where the run would be refused."""
    if not audit.errors:
        return audit.report()
    if PartialState().is_main_process:
        print(audit.report())
    raise ValueError(
        f"--audit_only: {len(audit.errors)} of the findings above would end this run before its first step"
    )


def experiment(kind: type, run: Callable[[Any, list[str]], str]) -> int:
    """The command line of many runs in one table: flags of the dataclass `kind`; the others are those of each run."""

    def work() -> str:
        told, others = parse_known(kind, sys.argv[1:], Path(sys.argv[0]).name)
        use_all_cores()
        return run(told, others)

    return ended(work)


def ended(work: Callable[[], str | None]) -> int:
    """The exit status of `work`, whose text is printed: 2 for a wrong value, 1 where something outside ended it.

    Either is one clear line. The notes of an exception say how to go on.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger().addHandler(WARNINGS)  # once: a handler that is there already is not added again
    # TRL 1.16 sets options that transformers 5.23 has renamed; that is between the two of them.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    # Not asked of accelerate: its state must not be set up before the arguments say on which device.
    logging.getLogger("rlred").setLevel(logging.INFO if os.environ.get("RANK", "0") == "0" else logging.ERROR)
    finished = False
    try:
        hosts.choose_interface()
        text, finished = work(), True
    except ValueError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2
    except Exception as error:
        cause = external_failure(error)
        if cause is None:
            raise
        print("; ".join([f"error: {cause}", *getattr(error, "__notes__", [])]), file=sys.stderr)
        return 1
    finally:
        hosts.leave(farewell=finished)
    if text and PartialState().is_main_process:
        print(text)
    return 0
