"""The audit: before the first step, the known ways in which a length-control run fails.

Each check reads configuration and data alone and yields findings: the field, its value and what to do. Errors stop
the run; warnings are logged. The evidence for a trap stands beside its check.
"""

import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from trl import GRPOConfig

from rlred.checks.audit_devices import audit_devices
from rlred.checks.audit_efforts import audit_effort_rows, audit_efforts
from rlred.checks.audit_weights import audit_weights
from rlred.checks.findings import Finding, error, warning
from rlred.data.asked import lacking
from rlred.data.budgets import BudgetSampler, asks_tokens, check_headroom
from rlred.data.markers import marker_ids
from rlred.data.models import context_of
from rlred.data.prompts import Prompts, parts_of, prompt_ids, prompt_text, text_in
from rlred.rewards import EffortLength, ExactLength, Laconic, Lead, LengthMask, MaxLength
from rlred.rewards.base import Foreign, Reward, declared, find, masking, names_twice

logger = logging.getLogger(__name__)

ROW = ("prompt", "solution", "budget", "mode")  # columns of every row of a length-control run
SAMPLED_ROWS = 256  # rows whose prompts are tokenised for the audit


def enforce(findings: Iterable[Finding]) -> None:
    """Logs the warnings; raises one `ValueError` that lists every error, a line each."""
    findings = list(findings)
    for finding in findings:
        if finding.level == "warning":
            logger.warning("audit: %s", finding)
    errors = [str(finding) for finding in findings if finding.level == "error"]
    if errors:
        raise ValueError("\n".join(errors))


def audit_config(
    training: GRPOConfig,
    sampler: BudgetSampler,
    rewards: Sequence[Callable],
    *,
    hindsight: bool,
    use_peft: bool,
    eval_budgets: Sequence[int] = (),
) -> Iterator[Finding]:
    """Findings that need no data and no model."""
    yield from audit_devices(training)
    yield from _rollouts(training, sampler)
    yield from _sweep(sampler, eval_budgets)
    yield from _scaling(training, rewards, sampled_modes(sampler))
    yield from audit_rewards(training, rewards, sampled_modes(sampler))
    for reward, modes in length_rewards(rewards, sampler, ExactLength):
        yield from _exact(reward, modes, sampler)
    for reward, modes in length_rewards(rewards, sampler, MaxLength):
        yield from _maximum(reward, modes, sampler)
    of_efforts = [reward.for_mode("effort") for reward in map(declared, rewards) if "effort" in sampled_modes(sampler)]
    yield from audit_efforts(length_rewards(rewards, sampler, EffortLength), of_efforts)
    for reward, _ in length_rewards(rewards, sampler, EffortLength, ExactLength, MaxLength):
        if reward.length.count == "thinking":
            # A public LCPO port: thinking fell from 8045 to 3 tokens while the answer grew from 399 to 1376.
            advice = "a policy penalised for its thinking alone moves the reasoning into the answer; count completions"
            yield warning("reward.length.count", "thinking", advice)
    for mode in sorted(sampled_modes(sampler) & {"exact", "max"}):
        scoring = [reward.for_mode(mode) for reward in map(declared, rewards)]
        told = [one.needs for one in scoring]  # of a function of one's own nothing is known
        if all(told) and not any({"budget", "effort"} & {*needs} for needs in told):
            # Nothing then tells a completion that keeps its budget from one that does not.
            name = ", ".join(one.__name__ for one in scoring)
            advice = (
                f"no reward of the rows of mode {mode} reads the budget; add one that does, or set modes to {{free: 1}}"
                " and hindsight to false"
            )
            yield warning("reward", name, advice)
    yield from _start(training, hindsight, use_peft, bool(sampled_modes(sampler) - {"free"}))


def sampled_modes(sampler: BudgetSampler) -> set[str]:
    """The modes that can be drawn."""
    return {mode for mode, weight in sampler.modes.items() if weight > 0}


def length_rewards(rewards: Sequence[Callable], sampler: BudgetSampler, *kinds: type) -> list[tuple[Reward, set[str]]]:
    """Every reward of these kinds with the modes of the rows that it will score, those inside another included."""
    found: dict[Reward, set[str]] = {}
    for reward in map(declared, rewards):
        for mode in sorted(sampled_modes(sampler)):
            for part in find(reward.for_mode(mode), *kinds):
                found.setdefault(part, set()).add(mode)
    return list(found.items())


def audit_rewards(training: GRPOConfig, rewards: Sequence[Callable], modes: Collection[str]) -> Iterator[Finding]:
    """Findings about the rewards of rows of these modes: those that need whole groups get them, names are unique."""
    local_batch = training.per_device_train_batch_size * training.steps_per_generation
    scoring = [reward.for_mode(mode) for reward in map(declared, rewards) for mode in sorted(modes)]
    relative = dict.fromkeys(part.__name__ for part in scoring if part.group_relative)
    if local_batch % training.num_generations:
        for name in relative:
            # TRL 1.16 calls the rewards of each process with its own completions alone.
            advice = f"groups of {training.num_generations} would straddle processes, but {name} needs whole ones"
            yield error("per_device_train_batch_size", training.per_device_train_batch_size, advice)
    for name in names_twice(declared(reward).__name__ for reward in rewards):
        # TRL 1.16 logs a reward as rewards/NAME/mean.
        yield error(
            "reward", name, "two rewards of the run have this name, and would be logged as one; rename one of them"
        )
    for part in [part for reward in rewards for part in masking(reward) if len(rewards) > 1]:
        # TRL 1.16 adds the rewards up by nansum, in which a None beside a number is a 0.
        advice = "masks completions by None, which counts as 0 beside another reward; train on this reward alone"
        yield error("reward", part.__name__, advice)
    yield from audit_weights(scoring, training.max_completion_length)
    for part in dict.fromkeys(part for reward in scoring for part in find(reward, LengthMask)):
        yield from _mask(part)
    if training.steps_per_generation * training.num_iterations > training.gradient_accumulation_steps:
        for name in dict.fromkeys(part.__name__ for reward in scoring for part in find(reward, Laconic, Lead)):
            # They go on from what the log holds last (rewards/logged.py): an entry for each optimiser step, not batch.
            advice = (
                f"{name} adapts once for each batch, and here several optimiser steps train on one batch; set "
                "num_iterations to 1 and steps_per_generation to gradient_accumulation_steps"
            )
            yield error("num_iterations", training.num_iterations, advice)


def audit_columns(
    rewards: Sequence[Callable], rows, modes: Collection[str], sampled: Collection[str] = ()
) -> Iterator[Finding]:
    """Findings about the columns that rewards need in the rows of these modes; those `sampled` are yet to be made."""
    needed: dict[tuple[str, str], set[str]] = {}
    for reward in map(declared, rewards):
        for mode in sorted(modes):
            part = reward.for_mode(mode)
            for column in part.needs:
                if column not in sampled:
                    needed.setdefault((column, part.__name__), set()).add(mode)
    for (column, name), asking in needed.items():
        if column not in rows.column_names:
            # TRL passes a row's columns to its reward by name; without this one, the first step is a TypeError.
            yield error("rows", rows.column_names, f"the column {column!r} is missing, which {name} needs")
        elif column not in (*ROW, "effort"):  # of these, None says something: no opinion, no budget
            without, asked = lacking(rows, column, asking)
            if without:
                # A reward would read None for a number, in the step in which such a row comes first.
                advice = f"{without:,} of {asked:,} rows have no value in this column, which {name} needs in each"
                yield error("rows", column, advice)


def _rollouts(training: GRPOConfig, sampler: BudgetSampler) -> Iterator[Finding]:
    if asks_tokens(sampled_modes(sampler)):
        try:
            check_headroom(sampler.bounds[1], training.max_completion_length)
        except ValueError as problem:
            # What reaches the cap has its length: with the cap at the budget, an overrun is never seen.
            yield error("max_completion_length", training.max_completion_length, str(problem))
    if sampled_modes(sampler) - {"free"}:
        if training.mask_truncated_completions:
            # TRL zeroes the loss of truncated rows: exactly the gradient that a length penalty needs.
            advice = "every overlong completion would lose its gradient; set it to false"
            yield error("mask_truncated_completions", True, advice)
    if training.shuffle_dataset:
        # `training_rows` puts the budgets of one visit side by side, so that one batch compares a question at several.
        advice = "the rows are already in a seeded order that keeps a question's budgets together; set it to false"
        yield error("shuffle_dataset", True, advice)
    if training.temperature <= 0:
        # The advantage is a rollout's reward less its group's mean: 0 for all of them where all are the same.
        yield error("temperature", training.temperature, "all rollouts of a group would be the same; use 1.0")


def _scaling(training: GRPOConfig, rewards: Sequence[Callable], modes: Collection[str]) -> Iterator[Finding]:
    weights = training.reward_weights or [1.0] * len(rewards)
    weighed = [declared(reward) for reward, weight in zip(rewards, weights, strict=False) if weight]
    scoring = [part for reward in weighed for mode in sorted(modes) for part in reward.for_mode(mode).parts()]
    counted = any(part.length is not None and not part.without_length for part in scoring)
    unknown = any(not one.grades for part in scoring for one in find(part, Foreign))  # a function of one's own
    if training.scale_rewards == "group" and (counted or unknown):
        # Arora & Zanette (2502.04463): in an all-correct group the std turns any length term into a fixed-size push.
        advice = "the group's std makes the weight of length meaningless where all answers are correct; use 'none'"
        yield warning("scale_rewards", "group", advice)


def _mask(reward: LengthMask) -> Iterator[Finding]:
    # 2602.20945, section 5: collapse after 400 steps, and long completions that are nearly all incorrect after 200.
    if "incorrect_short" in reward.masked:
        advice = (
            "no short completion is ever incorrect, so the policy learns 'short is correct'; mask correct_long alone"
        )
        yield warning("reward.masked", reward.masked, advice)
    elif {"correct_long", "incorrect_long"} <= set(reward.masked):
        # 2602.20945, section 5: long completions are nearly all incorrect after 200 steps.
        advice = "nothing is learned from a long completion, so nothing holds long ones back; mask correct_long alone"
        yield warning("reward.masked", reward.masked, advice)


def _exact(reward: ExactLength, modes: set[str], sampler: BudgetSampler) -> Iterator[Finding]:
    if "max" in modes:
        # |n - N| is as large for n = N - 100, which a maximum allows, as for n = N + 100.
        advice = "rows that ask for a maximum would be penalised for being short; use by_mode or max_length"
        yield error("reward", "exact_length", advice)
    low, high = sampler.bounds
    price = reward.alpha * (1.0 if reward.deviation == "relative" else high - low)
    if "exact" in modes and low != high and price < 0.05:
        # The reward of a correct answer is 1: this is the share of it that the whole range of lengths is worth.
        advice = (
            f"the worst deviation inside the budgets {low}..{high} costs {price:.3f}, and a correct answer is worth 1; "
            "raise alpha above the accuracy that a token over the budget gains, or budgets will not be kept"
        )
        yield warning("reward.alpha", reward.alpha, advice)


def _maximum(reward: MaxLength, modes: set[str], sampler: BudgetSampler) -> Iterator[Finding]:
    if "exact" in modes:
        # clip(alpha * (N - n) + delta, 0, 1) is largest for the shortest completion.
        advice = "rows that ask for an exact length would not be penalised for being short; use by_mode or exact_length"
        yield error("reward", "max_length", advice)
    high = sampler.bounds[1]
    drop = reward.alpha * (1.0 if reward.deviation == "relative" else high)
    if "max" in modes and drop < reward.delta:
        # At n = 2 N the ramp is at delta - alpha * N, or delta - alpha where deviations are relative.
        advice = f"a completion of twice the largest budget ({high}) still gets a reward; raise alpha"
        yield warning("reward.alpha", reward.alpha, advice)
    if "max" in modes and reward.over_penalty > 1:
        # L1 (2503.04697), appendix A.7: what is added to correctness rewards the short incorrect completion.
        advice = (
            "an overrun costs more than a correct answer gives, so a short incorrect completion gets more than every "
            "overlong correct one; use 1 or less"
        )
        yield warning("reward.over_penalty", reward.over_penalty, advice)


def _start(training: GRPOConfig, hindsight: bool, use_peft: bool, asks_length: bool) -> Iterator[Finding]:
    if hindsight and not use_peft:
        # rlred/training/hindsight.py trains, saves and loads the adapter alone.
        yield error(
            "use_peft", False, "the hindsight start trains a LoRA adapter; set it to true, or hindsight to false"
        )
    if use_peft and training.learning_rate < 1e-5:
        # TRL's own default is 1e-6, for whole weights; an adapter begins as zero.
        advice = "a LoRA adapter hardly moves at this rate (a public run at 5e-6 ended at a KL of 6e-4); try 2e-5"
        yield warning("learning_rate", training.learning_rate, advice)
    if asks_length and not hindsight:
        yield from _rollouts_without_start(rollouts_per_step(training) * max(training.max_steps, 0))


def audit_epochs(training: GRPOConfig, sampler: BudgetSampler, hindsight: bool, num_rows: int) -> Iterator[Finding]:
    """Findings about a run whose length is known with its rows: one by epochs, and each row is asked of one group."""
    if training.max_steps <= 0 and not hindsight and sampled_modes(sampler) - {"free"}:
        yield from _rollouts_without_start(num_rows * training.num_generations)


def _rollouts_without_start(rollouts: int) -> Iterator[Finding]:
    if 0 < rollouts < 200_000:
        # GRPO improves a control that is faintly there (docs/how-it-works.md); what was counted is in the text.
        advice = (
            f"{rollouts:,} rollouts of a base that may ignore budgets: expect one constant length, for GRPO found no "
            "length control in a prototype's 19,200 rollouts, nor in a public replication; L1 used 1.4 million"
        )
        yield warning("hindsight", False, advice)


def _sweep(sampler: BudgetSampler, budgets: Sequence[int]) -> Iterator[Finding]:
    """Findings about the budgets that the run measures."""
    low, high = sampler.bounds
    if outside := [budget for budget in budgets if asks_tokens(sampled_modes(sampler)) and not low <= budget <= high]:
        # What is asked for beyond the range was not trained, and its errors are averaged with those of the range.
        advice = f"{outside} are outside the trained range of {low} to {high}; leave them out, or change the range"
        yield warning("eval_budgets", list(budgets), advice)


def rollouts_per_step(training: GRPOConfig) -> int:
    """Completions sampled per optimiser step, over all processes."""
    micro_steps = training.steps_per_generation * training.num_iterations
    return training.generation_batch_size * training.gradient_accumulation_steps // micro_steps


def audit_rows(
    rows,
    tokenizer,
    model,
    rewards,
    sampler: BudgetSampler,
    training: GRPOConfig,
    prompts: Prompts | None = None,
    sampled: Collection[str] = (),
) -> Iterator[Finding]:
    """Findings about the asked rows, made by `prompts`, as the tokenizer and the model will see them.

    The columns `sampled` are made by the run itself, and need not be there yet.
    """
    missing = [column for column in ROW if column not in rows.column_names]
    if missing:
        # rlred.data.budgets.ask gives every row these columns; rows of one's own lack them.
        yield error("rows", rows.column_names, f"the column {missing[0]!r} is missing")
        return
    yield from audit_columns(rewards, rows, sampled_modes(sampler), sampled)
    if tokenizer.chat_template is None:
        # Rows are conversations, and TRL renders them by the template: a base model has none.
        yield error(
            "model_name_or_path",
            tokenizer.name_or_path,
            "the tokenizer has no chat template; name a model that has one",
        )
        return
    if tokenizer.eos_token_id is None:
        # A completion that does not end is as long as the cap, whatever was asked for.
        yield error(
            "eos_token", None, "the tokenizer has none, so a completion could never end; name a model that has one"
        )
    sample = rows.select(range(min(len(rows), SAMPLED_ROWS)))
    prompts = prompts or Prompts(chat_template_kwargs=training.chat_template_kwargs or {}).fitted(tokenizer)
    asked = [prompts.asked(row["prompt"]) for row in sample]
    try:
        texts = [prompt_text(tokenizer, one) for one in asked]
    except ValueError as problem:
        # Templates raise an exception of their own for turns or settings that they do not take.
        yield error("chat_template", tokenizer.chat_template[:80], str(problem).removeprefix("chat_template: "))
        return
    system = next((row["system"] for row in sample if row.get("system")), prompts.system_prompt)
    if prompts.folds_system and system:
        # Gemma 2 and the Mistral 7B models refuse a system turn, or drop it.
        advice = "the chat template takes no system turn; the text is put at the head of the user turn"
        yield warning("system_prompt", system[:80], advice)
    yield from _template(prompts, tokenizer, asked, texts, rewards)

    yield from audit_effort_rows(rows, tokenizer, length_rewards(rewards, sampler, EffortLength), training)
    low, high = sampler.bounds
    if low != high and tokenizer(f" {low} tokens")["input_ids"] == tokenizer(f" {high} tokens")["input_ids"]:
        # A tokenizer without these digits writes the unknown token for both, and the model cannot tell them apart.
        yield error(
            "model_name_or_path",
            tokenizer.name_or_path,
            f"the tokenizer encodes {low} and {high} alike, so the model cannot tell them apart",
        )
    if prompts.markers:
        try:
            marker_ids(tokenizer, prompts.markers.write(0, 123456789))
        except ValueError as problem:
            advice = str(problem).removeprefix("markers.text: ")
            # A marker that is cut into a token with its neighbours could not be told from other text.
            yield error("hindsight_settings.markers.text", prompts.markers.text, advice)
    longest, context = max(len(prompt_ids(tokenizer, one)) for one in asked), context_of(model.config)
    if context is not None and longest + training.max_completion_length > context:
        # Beyond its positions a model writes without sense, and an engine refuses the prompt.
        advice = (
            f"with prompts of up to {longest} tokens, completions exceed the model's context of {context}; set it to "
            f"{max(1, context - longest)} or less, and budgets well below it"
        )
        yield error("max_completion_length", training.max_completion_length, advice)
    for reward, _ in length_rewards(rewards, sampler, EffortLength, ExactLength, MaxLength):
        end = reward.length.end_of_thinking
        if any(not 0 <= token < len(tokenizer) for ids in reward.length.ends for token in ids):
            # Thinking that is never seen to end counts to the end of the completion.
            yield error(
                "reward.length.end_of_thinking", end, f"this tokenizer of {len(tokenizer)} tokens has no such id"
            )


def longest_prompt(rows, tokenizer, prompts: Prompts) -> int:
    """The most tokens of a prompt of the first rows, as many as `audit_rows` looks at."""
    sample = rows.select(range(min(len(rows), SAMPLED_ROWS)))
    return max(len(prompt_ids(tokenizer, prompts.asked(row["prompt"]))) for row in sample)


def _template(prompts: Prompts, tokenizer, asked, texts: list[str], rewards) -> Iterator[Finding]:
    """What the chat template does to the rows' turns."""
    template = tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else str(tokenizer.chat_template)
    for turn in asked[0].turns:
        if text_in(turn).strip() not in texts[0]:  # many templates trim a turn
            # L1 issue 14: the control is bound to the wording, so a template that edits the turn breaks it.
            yield error(
                "chat_template",
                texts[0][:80],
                f"the template changes the text of the {turn['role']} turn; use one that keeps it",
            )
    for name, value in prompts.chat_template_kwargs.items():
        if not re.search(rf"\b{re.escape(name)}\b", template):
            # Jinja takes every variable, and says nothing of those that no line reads.
            advice = "the chat template reads no setting of this name, so it changes nothing; check the spelling"
            yield warning(f"chat_template_kwargs.{name}", value, advice)
    if "strftime_now" in template and "date_string" not in prompts.chat_template_kwargs:
        # Llama 3's template writes "Today Date: ...": the prompt of a later day is another than that of training.
        advice = (
            "writes today's date into every prompt; set date_string in chat_template_kwargs, if the template reads it"
        )
        yield warning("chat_template", "strftime_now", advice)
    opened = texts[0].rpartition(text_in(asked[0].turns[-1]))[2]
    for reward in rewards:
        for part in parts_of(reward):
            if prompts.end and prompts.end in opened and getattr(part, "require_end_of_thinking", False):
                # Qwen3 with enable_thinking=False: no completion ends what the prompt has ended already.
                advice = "the prompt already ends the thinking, so every completion would be incorrect; set it to false"
                yield error("correctness.require_end_of_thinking", True, advice)
                return
