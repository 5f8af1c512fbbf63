"""The audit of runs that ask for efforts: rewards that do not read them, lengths that drift or cannot be seen."""

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

from trl import GRPOConfig

from rlred.checks.findings import Finding, error, warning
from rlred.data.asked import without_prompts
from rlred.data.budgets import hundredths
from rlred.rewards.base import Reward
from rlred.rewards.effort_length import natural_length

Scored = Iterable[tuple[Reward, Collection[str]]]  # rewards with the modes of the rows that they score
MANY = 0.5  # share of rows from which a lack is said
HEADROOM = 1.1  # a completion cap leaves room over an own length as over a budget


def audit_efforts(scored: Scored, scoring: Sequence[Reward]) -> Iterator[Finding]:
    """Findings that need no data: of the `scored` rewards `effort_length`, and of all that score effort rows."""
    if scoring and not any("effort" in reward.needs for reward in scoring):
        # By a reward that does not read the effort, the best completion is the same for all efforts.
        names = ", ".join(reward.__name__ for reward in scoring)
        advice = "no reward of the rows that ask for an effort reads it; use effort_length, or by_mode"
        yield error("reward", names, advice)
    for reward, modes in scored:
        if numbered := sorted(set(modes) & {"exact", "max"}):
            # These rows have a number of tokens in the column `budget`, and None in `effort`.
            advice = f"scores rows of mode {numbered[0]} by correctness alone, for they have no effort; use by_mode"
            yield error("reward", "effort_length", advice)
        if reward.alpha is not None and reward.alpha < reward.delta:
            # At n = 2 T the ramp is at delta - alpha.
            advice = "a completion of twice the limit still earns a reward; raise alpha"
            yield warning("reward.alpha", reward.alpha, advice)
        if reward.over < 0:
            # L1, appendix A.7: where a short incorrect answer is worth more than a long one, the policy turns short.
            advice = (
                f"an incorrect answer within the limit earns {-reward.over:g} more than one beyond it: questions that "
                "are hardly ever solved teach to be short; watch their accuracy at the largest effort, or set 0"
            )
            yield warning("reward.over", reward.over, advice)


def audit_start(scored: Scored, quantile: float | None) -> Iterator[Finding]:
    """Findings about the `effort_quantile` of the hindsight start."""
    for reward, _ in scored:
        if reward.of == "reference" and reward.quantile != quantile:
            # Own lengths by two definitions are two limits for one effort: first one is taught, then the other.
            advice = f"the reward takes {reward.quantile!r}, and RL would move what the start has taught; say the same"
            yield warning("hindsight_settings.effort_quantile", quantile, advice)


def audit_effort_rows(rows, tokenizer, scored: Scored, training: GRPOConfig) -> Iterator[Finding]:
    """Findings about the rows that ask for an effort, the first 20,000 where there are more."""
    if "effort" not in rows.column_names:
        return
    asking = [row for row in without_prompts(rows) if row["mode"] == "effort"]
    for reward, _ in scored if asking else ():
        if reward.of == "group":
            yield from _side_by_side(asking, training)
        elif all(row.get("reference_correct_lengths") is not None for row in asking):
            owns = [natural_length(row["reference_correct_lengths"], reward.quantile) for row in asking]
            yield from _own_lengths([own for own in owns if own is not None], len(asking), training)
    efforts = sorted({row["effort"] for row in asking})
    if len(set(map(hundredths, efforts))) > 1:
        ends = [tokenizer(f" {hundredths(effort)} of")["input_ids"] for effort in (efforts[0], efforts[-1])]
        if ends[0] == ends[1]:
            # An effort is written in hundredths; without these digits the prompts are the same.
            advice = f"its tokenizer encodes the efforts {efforts[0]} and {efforts[-1]} alike"
            yield error("model_name_or_path", tokenizer.name_or_path, advice)


def _side_by_side(asking: list[dict], training: GRPOConfig) -> Iterator[Finding]:
    by_visit = itertools.groupby(asking, lambda row: row.get("question_id"))
    visits = [[row["effort"] for row in visit] for _, visit in by_visit]
    alone = sum(len(set(visit)) == 1 for visit in visits)
    if alone > MANY * len(visits):
        # With one effort e in a batch, its own rollouts set T, and the limit e * T falls by e from visit to visit.
        advice = (
            f"{alone} of {len(visits)} visits ask a question for one effort alone, whose rollouts then set their own "
            "limit: lengths shrink without end; raise budgets_per_question (rows of other modes do not count), or "
            "set `of` to reference"
        )
        yield error("reward.of", "group", advice)
    # The most common size: where an epoch ends with a question and the next begins with it, two visits look like one.
    each = Counter(map(len, visits)).most_common(1)[0][0] * training.num_generations
    local = training.per_device_train_batch_size * training.steps_per_generation
    if local % each:
        # TRL 1.16 calls the rewards of each process with its own completions alone.
        advice = (
            f"the {each} completions of a question would straddle batches or processes, each with a mean of its own"
        )
        yield warning("per_device_train_batch_size", training.per_device_train_batch_size, advice)


def _own_lengths(owns: list[float], count: int, training: GRPOConfig) -> Iterator[Finding]:
    if count - len(owns) > MANY * count:
        # The limit of an effort is a share of a correct answer's length: without one there is no limit.
        advice = (
            f"{count - len(owns)} of {count} rows have no correct answer of the reference, and train no effort; take "
            "easier questions, or raise reference_samples"
        )
        yield warning("rows", "reference_correct_lengths", advice)
    high = sum(HEADROOM * own > training.max_completion_length for own in owns)
    if high > MANY * len(owns):
        # A completion that is cut at the cap has the cap for its length, however far it would have gone.
        advice = (
            f"the own lengths of {high} of {len(owns)} rows reach it: an overrun at effort 1 is never seen; raise it"
        )
        yield warning("max_completion_length", training.max_completion_length, advice)
