"""A length-control run from arguments to a measured adapter: the way of the data in one page.

recipes/l1_exact.py and recipes/l1_maxlen.py call `run`; they differ in their YAML. Everything the run leaves behind is
in its output folder:

    adapter_model.safetensors ...   the adapter and the tokenizer      checkpoint-*/     to resume from
    adherence.json .md .png         before and after                   hindsight/        traces and the first adapter
    run.json                        every setting                      measures/         a sweep per stage
    trainer_state.json              the training curves             best/             the adapter of the best checkpoint
"""

import dataclasses
import functools
import gc
import logging
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from datasets import Dataset
from peft import get_peft_model
from trl import GRPOConfig, GRPOTrainer, ModelConfig

from rlred.checks.advantages import audit_advantages
from rlred.checks.audit import (
    audit_config,
    audit_epochs,
    audit_rows,
    enforce,
    length_rewards,
    longest_prompt,
    sampled_modes,
)
from rlred.checks.audit_devices import audit_shares
from rlred.checks.audit_efforts import audit_start
from rlred.checks.audit_hindsight import audit_hindsight
from rlred.checks.audit_probe import audit_probe
from rlred.checks.audit_room import audit_room
from rlred.checks.probe_file import read_probe
from rlred.data.adapters import continue_adapter
from rlred.data.budgets import BudgetSampler, training_rows
from rlred.data.models import context_of
from rlred.data.prompts import Prompts, end_of_rewards, tell_end
from rlred.data.questions import load_questions
from rlred.evaluation.calibration import calibration
from rlred.evaluation.conditions import free
from rlred.evaluation.references import COLUMNS, sample_references, write_references
from rlred.evaluation.results import Result
from rlred.evaluation.sampling import Grading, Sampling
from rlred.evaluation.shares import gathered
from rlred.evaluation.stage_evaluation import StageEvaluation, budgets_of, cap_of
from rlred.evaluation.sweep import stop_ids, sweep
from rlred.evaluation.vllm import Engines, check_vllm
from rlred.files import write_json
from rlred.output import check_output_dir, checkpoint_of, prepare_output_dir
from rlred.rewards import Correctness, EffortLength, make_reward
from rlred.rewards.base import bind, columns_of, correctness_of, declared, length_of, masking
from rlred.runs.arguments import KINDS, LengthControlArguments
from rlred.runs.audit_only import Audit
from rlred.runs.chassis import (
    add_to_record,
    check_adapter,
    check_same_model,
    command,
    describe,
    load_both,
    load_model,
    load_outline,
    lora_of,
    num_rows,
    watchers,
)
from rlred.runs.spent import cost
from rlred.training.adherence import LogsAdherence
from rlred.training.callbacks import CheckWrapper
from rlred.training.gathered_rollouts import GatheredRollouts
from rlred.training.hindsight import Start, hindsight_start
from rlred.training.target_search import SearchTargets
from rlred.training.trackers import guard_trackers
from rlred.training.trainer import ComposedGRPOTrainer, Part, PlainGRPOTrainer, check_parts
from rlred.wrapper import asked_wrapper, restart_state

logger = logging.getLogger(__name__)


def run(
    arguments: LengthControlArguments, training: GRPOConfig, model_config: ModelConfig, default_output: Path
) -> Result | None:
    """Trains a length-controlled adapter and returns what was measured (None with evaluate=False)."""
    start, sampler, rewards = time.monotonic(), arguments.make_sampler(), make_rewards(arguments, training)
    prompts = arguments.make_prompts(training.chat_template_kwargs, end_of_rewards(rewards))
    arguments = dataclasses.replace(arguments, end_of_thinking=prompts.end_of_thinking)  # a reward may have brought it
    search, parts = arguments.make_target_search(), arguments.make_parts()
    audit(arguments, training, model_config, rewards, parts)
    for part in parts:
        part.check(training, parts)
    if training.use_vllm:
        check_vllm()

    questions, held_out = load_both(arguments, training.seed)
    if search:
        search.check(rewards[0], len(questions), training.max_completion_length)
        split = questions.train_test_split(test_size=search.num_questions, seed=training.seed)
        questions, monitor = split["train"], split["test"]
    model, tokenizer = load_model(model_config, training)
    engines, prompts = Engines(training, tokenizer), prompts.fitted(tokenizer)
    rewards[:] = [tell_end(reward, prompts.end, tokenizer) for reward in rewards]
    check_parts([part.bind(prompts.end) for part in parts], rewards, training, tokenizer)
    output = prepare_output_dir(training, default_output)
    check_same_model(output, model, model_config, arguments.adapter)
    reward = rewards[0] = bind(rewards[0], training.num_generations, stop_ids(model, tokenizer))
    grading = Grading(correctness_of(reward, Correctness()), length_of(reward))
    needed = columns_of(reward, sampled_modes(sampler)).union(*(part.needs for part in parts))
    if set(COLUMNS) & needed - set(questions.column_names):
        asked = dataclasses.replace(prompts, wording=arguments.make_reference_wording())
        with gathered(model):
            told = (tokenizer, arguments, training, grading, asked, output)
            questions = referenced(questions, engines.of(model), *told)
    rows = asked_rows(questions, prompts, arguments, training, parts)
    audit_asked(rows, tokenizer, model, rewards, arguments, training, prompts)
    if PartialState().is_main_process:
        write_json(output / "run.json", describe(default_output.name, arguments, training, model_config, model))

    evaluation = StageEvaluation(arguments, training, held_out, tokenizer, prompts, grading, output, engines.of)
    evaluation.measure("baseline", model)
    model = with_adapter(model, model_config, training.seed)
    hindsight = None
    if arguments.hindsight:
        cap = training.max_completion_length
        sampling = Sampling(cap, training.temperature, arguments.eval_batch_size, training.seed)
        first = Start(arguments.make_hindsight(), prompts, sampler, sampling, grading, engines.of, arguments.adapter)
        folder = output / "hindsight"
        hindsight = hindsight_start(model, tokenizer, questions, first, training=training, output=folder)
        if asked_wrapper(training) not in ("one process", "ddp"):
            model = None  # with all that DeepSpeed or FSDP has put into it
            model = reloaded(training, model_config, folder / "adapter")
        evaluation.measure("hindsight", model, hindsight["num_updates"])
        if "budgets" in hindsight:
            learned = sampler.within(*hindsight["budgets"])
            add_to_record(output, trained_budgets=learned.bounds)
            rows = asked_rows(questions, prompts, arguments, training, parts, sampler=learned)
    elif arguments.adapter:
        continue_adapter(model, arguments.adapter)

    ends = tuple(sorted(stop_ids(model, tokenizer)))
    told = (tokenizer, prompts.end, grading.length, prompts.markers)
    rewards[0] = LogsAdherence(reward, training.max_completion_length, ends, *told)
    training.num_train_epochs = 1  # the rows of all epochs, budgets drawn afresh in each, are one long one
    with engines.shared():
        trainer = make_trainer(
            [part.bind(prompts.end) for part in parts],
            model=model,
            reward_funcs=rewards,
            args=training,
            train_dataset=rows,
            processing_class=tokenizer,
            callbacks=make_callbacks(arguments, training, output),
        )
    if search:
        trainer.add_callback(SearchTargets(search, answers(evaluation, monitor, training), engines.of))
    train(trainer, output)
    report = finish(trainer, evaluation, hindsight, model_config.model_name_or_path, start)
    close(trainer)
    return report


def audit(
    arguments: LengthControlArguments, training: GRPOConfig, model_config: ModelConfig, rewards, parts: Sequence[Part]
) -> None:
    """What needs no data and no model, and what a probe of the model says; errors are raised, warnings logged."""
    arguments.check_markers()
    check_adapter(arguments, model_config, training)
    sampler, begun = arguments.make_sampler(), bool(arguments.hindsight or arguments.adapter)
    started = {"hindsight": begun, "use_peft": model_config.use_peft, "eval_budgets": arguments.eval_budgets}
    unset = arguments.hindsight and arguments.make_hindsight().learning_rate is None
    found = [*audit_config(training, sampler, rewards, **started), *audit_advantages(training, rewards, parts)]
    found += audit_shares(training, arguments.hindsight or arguments.evaluate, unset)
    if arguments.hindsight:
        asked = length_rewards(rewards, sampler, EffortLength)
        found += audit_start(asked, arguments.make_hindsight().effort_quantile)
        found += audit_hindsight(arguments.make_hindsight(), sampler.modes, training.world_size)
    enforce(found)
    if arguments.probe:
        sources = {"free", *arguments.make_hindsight().sources} if arguments.hindsight else {"free"}
        probe, name = read_probe(arguments.probe), model_config.model_name_or_path
        enforce(audit_probe(probe, training, sampler, rewards, model=name, sources=sources))


def audit_asked(
    rows,
    tokenizer,
    model,
    rewards,
    arguments: LengthControlArguments,
    training: GRPOConfig,
    prompts: Prompts,
    sampled: Collection[str] = (),
) -> None:
    """What the asked rows say, as in `audit_rows`, and what is known with them; errors are raised, warnings logged."""
    sampler = arguments.make_sampler()
    enforce(audit_rows(rows, tokenizer, model, rewards, sampler, training, prompts, sampled))
    cap = cap_of(arguments, training.max_completion_length) if arguments.evaluate else 0
    room = longest_prompt(rows, tokenizer, prompts), context_of(model.config)
    found = [*audit_room(*room, training, cap, budgets_of(arguments))]
    enforce([*found, *audit_epochs(training, sampler, bool(arguments.hindsight or arguments.adapter), len(rows))])


def audit_only(
    checks: Audit,
    arguments: LengthControlArguments,
    training: GRPOConfig,
    model_config: ModelConfig,
    default_output: Path,
) -> None:
    """The checks of `run` in its order, and nothing that samples or needs weights."""
    parts, search = arguments.make_parts(), arguments.make_target_search()
    checks.step("output folder", check_output_dir, training, default_output)
    rewards = checks.step("rewards", make_rewards, arguments, training)
    checks.step("rewards", lambda own: audit(arguments, training, model_config, own, parts), rewards)
    for part in parts:
        checks.step("parts", part.check, training, parts)
    both = checks.step("questions", load_both, arguments, training.seed)
    if search:
        cap = training.max_completion_length
        checks.step("target_search", lambda own, loaded: search.check(own[0], len(loaded[0]), cap), rewards, both)
    prompts = checks.step(
        "prompts", lambda own: arguments.make_prompts(training.chat_template_kwargs, end_of_rewards(own)), rewards
    )
    outline = checks.step("tokenizer", load_outline, model_config, training)

    def check_bound(own: list, prompts: Prompts, outline) -> None:
        end = prompts.fitted(outline[1]).end
        check_parts([part.bind(end) for part in parts], own, training, outline[1])

    if parts:
        checks.step("parts and rewards", check_bound, rewards, prompts, outline)

    def check_rows(own: list, loaded, prompts: Prompts, outline) -> None:
        (questions, _), (model, tokenizer), sampler = loaded, outline, arguments.make_sampler()
        prompts = prompts.fitted(tokenizer)
        own = [tell_end(reward, prompts.end, tokenizer) for reward in own]
        needed = columns_of(own[0], sampled_modes(sampler)).union(*(part.needs for part in parts))
        sampled = set(COLUMNS) & needed - set(questions.column_names)
        # Parts order questions by columns that may not be there before the run has sampled them.
        rows = asked_rows(questions, prompts, arguments, training, () if sampled else parts)
        audit_asked(rows, tokenizer, model, own, arguments, training, prompts, sampled)

    checks.step("rows and prompts", check_rows, rewards, both, prompts, outline)


def asked_rows(
    questions,
    prompts: Prompts,
    arguments: LengthControlArguments,
    training: GRPOConfig,
    parts: Sequence[Part] = (),
    sampler: BudgetSampler | None = None,
) -> Dataset:
    """The rows of the whole run, in the order in which they are trained on; a part may say which questions come first.

    `sampler` is that of the arguments, or a narrower one. A phase has whole generation batches, one at least. Raises
    `ValueError` where two parts order the questions.
    """
    sampler, each = sampler or arguments.make_sampler(), arguments.budgets_per_question
    asked = {"budgets_per_question": each}
    total, batch = num_rows(training, len(questions) * each), training.generation_batch_size // training.num_generations
    orders = [order for part in parts if (order := part.phases(questions)) is not None]
    if len(orders) > 1:
        raise ValueError(f"parts: {len(orders)} of them order the questions, and only one can; leave the others out")
    phases, made, left = orders[0] if orders else [(questions, 1.0)], [], total
    for number, (own, share) in enumerate(phases, 1):
        whole = max(1, round(share * total / batch)) * batch
        count = left if number == len(phases) else min(left, whole)
        if count:
            asked["seed"] = training.seed + 1_000_003 * (number - 1)  # a phase does not repeat the draws of another
            made.append(training_rows(own, prompts, sampler, num_rows=count, **asked))
        left -= count
    return made[0] if len(made) == 1 else Dataset.from_list([row for rows in made for row in rows])


def with_adapter(model, model_config: ModelConfig, seed: int):
    """The model with a fresh adapter, if one is trained; seeded, so that every process has the same."""
    peft_config = lora_of(model_config)
    if peft_config is None:
        return model
    torch.manual_seed(seed)
    return get_peft_model(model, peft_config)


def reloaded(training: GRPOConfig, model_config: ModelConfig, adapter: Path):
    """The base read again, with a saved adapter to train on: as in a run that begins after its hindsight start."""
    gc.collect()
    restart_state(training)
    model = with_adapter(load_model(model_config, training)[0], model_config, training.seed)
    model.load_adapter(adapter, adapter_name="default", is_trainable=True)
    return model


def answers(evaluation: StageEvaluation, questions, training: GRPOConfig):
    """A function from the policy to its outcomes on the monitor's questions, asked for nothing."""
    return functools.partial(
        sweep,
        tokenizer=evaluation.tokenizer,
        questions=list(questions),
        conditions=free(evaluation.prompts),
        sampling=evaluation.sampling.at(temperature=training.temperature, num_samples=training.num_generations),
        grading=evaluation.grading,
        description="searching targets",
    )


def train(trainer: GRPOTrainer, output: Path) -> None:
    """Trains, from a checkpoint where there is one to go on from, and saves what came of it."""
    trainer.train(resume_from_checkpoint=checkpoint_of(trainer.args))
    trainer.save_model(str(output))
    trainer.save_state()


def finish(
    trainer: GRPOTrainer, evaluation: StageEvaluation, hindsight: dict | None, name: str, start: float
) -> Result | None:
    """Measures what was trained and returns the run's result; `start` is when the run began."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    for stage in ("trained", "control_constant_length"):
        evaluation.measure(stage, model, trainer.state.global_step)
    spent = cost(trainer, hindsight, *map(evaluation.rank_correlation, ("hindsight", "trained")), start)
    report = evaluation.report(name, spent, hindsight)
    efforts = calibration(report.blocks["trained"]) if report and "trained" in report.blocks else []
    if efforts:  # what a server maps an effort to
        add_to_record(evaluation.output, efforts=efforts)
    return report


def close(trainer: GRPOTrainer) -> None:
    """Ends the process group.

    DDP's reducer goes first: as the last to hold the group, it waits for gloo's thread with Python's lock in its hand,
    while that thread waits for the lock (torch 2.13; seen once on a busy machine, and for ever).
    """
    trainer.model_wrapped = trainer.accelerator.unwrap_model(trainer.model)
    trainer.accelerator.free_memory()
    trainer.end()


def make_rewards(arguments: LengthControlArguments, training: GRPOConfig) -> list:
    """The reward that is trained on, and correctness logged raw beside it with weight 0, where both may stand."""
    reward = make_reward(arguments.reward)
    if declared(reward).grades or masking(reward):
        return [reward]
    if training.reward_weights is None:
        training.reward_weights = [1.0, 0.0]
    return [reward, correctness_of(reward, Correctness())]


def make_trainer(parts: Sequence[Part], **settings) -> GRPOTrainer:
    """TRL's own trainer, or the one that is composed of parts; its trackers cannot stop it, its wrapper is checked."""
    training = settings["args"]
    if asked_wrapper(training) == "fsdp2" and not training.use_vllm:
        parts = [GatheredRollouts(), *parts]
    trainer = ComposedGRPOTrainer(parts=parts, **settings) if parts else PlainGRPOTrainer(**settings)
    guard_trackers(trainer)
    trainer.add_callback(CheckWrapper(trainer))
    return trainer


def make_callbacks(arguments: LengthControlArguments, training: GRPOConfig, output: Path) -> list:
    """The callbacks of every run, and the early end where it is asked for."""
    stop = arguments.make_stop()
    return [*watchers(output, training), *([stop] if stop else [])]


def referenced(questions, model, tokenizer, arguments, training: GRPOConfig, grading, prompts: Prompts, output: Path):
    """The questions with the base's own length and accuracy, sampled once and kept in the run's folder."""
    path, state = output / "reference.jsonl", PartialState()
    if state.is_main_process and not path.exists():
        rows = sample_references(
            model,
            tokenizer,
            questions,
            prompts=prompts,
            sampling=Sampling(
                training.max_completion_length,
                temperature=training.temperature,
                batch_size=arguments.eval_batch_size,
                seed=training.seed,
                num_samples=arguments.reference_samples,
            ),
            grading=grading,
            path=output / "measures" / "reference.completions.jsonl",
        )
        write_references(rows, path)
    state.wait_for_everyone()
    return load_questions(str(path))


def main(recipe: Path) -> int:
    """The command line of a length-control recipe."""
    return command(recipe, run, KINDS, "adherence.md", audit_only, shares=True)
