"""The audit of budgets beside a probe: which lengths the model has by itself, and which it was never seen to have."""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from statistics import fmean

from trl import GRPOConfig

from rlred.checks.audit import length_rewards, sampled_modes
from rlred.checks.findings import Finding, warning
from rlred.checks.probe_file import ProbeFile
from rlred.data.budgets import BudgetSampler, asks_tokens
from rlred.rewards import ExactLength, MaxLength

OVERSHOOT = 0.5  # share of groups that are longer than their budget as a whole, above which that is said


def audit_probe(
    probe: ProbeFile,
    training: GRPOConfig,
    sampler: BudgetSampler,
    rewards: Sequence[Callable],
    *,
    model: str,
    sources: Collection[str],
) -> Iterator[Finding]:
    """Findings about budgets beside what `model` does by itself; `sources` make the traces that it learns from."""
    if Path(probe.model).name != Path(model).name:
        # A probe holds the lengths of one model's own completions, and says nothing of another's.
        yield warning("probe", str(probe.path), f"is of {probe.model}, and this run trains {model}; probe that")
    if not asks_tokens(sampled_modes(sampler)):
        return
    for reward, _ in length_rewards(rewards, sampler, ExactLength):
        yield from _below_natural(probe, reward, sampler)
    if length_rewards(rewards, sampler, ExactLength, MaxLength):
        yield from _overshoot(probe, training, sampler)
    yield from _no_traces(probe, sampler, sources)


def ignoring(reward: ExactLength, sampler: BudgetSampler) -> float:
    """What the best constant length costs on average, which a policy that ignores the number settles at.

    (high - low) / 4 * alpha for absolute deviations from uniform budgets.

    >>> round(ignoring(ExactLength(alpha=3e-4), BudgetSampler(100, 500)), 3)
    0.03
    """
    budgets = sampler.grid(101)
    return min(fmean(1 - reward.score(1.0, constant, budget) for budget in budgets) for constant in budgets)


def _below_natural(probe: ProbeFile, reward: ExactLength, sampler: BudgetSampler) -> Iterator[Finding]:
    low, high = sampler.bounds
    natural = sorted(length for own in probe.lengths for length in own)
    quarter, median = (natural[len(natural) * part // 4] for part in (1, 2))
    if high < quarter:
        plain = reward.deviation == "absolute" and sampler.distribution == "uniform"
        how = "(high - low) / 4 * alpha" if plain else "alpha * mean distance"
        # A public LoRA replication of L1 at 1.5B: natural lengths of 3,000 above its budgets, and a slope of .013.
        advice = (
            f"three of four natural lengths are above it (25 %: {quarter}, 50 %: {median} tokens), and ignoring the "
            f"number costs at most {ignoring(reward, sampler):.3f} on average ({how}, at one constant length between "
            "the budgets); ask for budgets around the natural lengths, or raise alpha"
        )
        yield warning("budget_high", high, advice)


def _overshoot(probe: ProbeFile, training: GRPOConfig, sampler: BudgetSampler) -> Iterator[Finding]:
    budgets, size = sampler.grid(21), training.num_generations
    shares = [fmean(length > budget for length in own) for budget in budgets for own in probe.lengths]
    whole = fmean(share**size for share in shares)
    if whole > OVERSHOOT:
        # alpha * |n - N| = alpha * n - alpha * N where n > N, and the second term is the same for the whole group.
        advice = (
            f"{100 * whole:.0f} % of the groups of {size} overshoot as a whole while the model ignores the number: "
            "alpha |n - N| then does not depend on N inside a group, so that no gradient leads to the number; ask for "
            "budgets on both sides of the natural lengths, and let a hindsight start move the lengths first"
        )
        yield warning("budget_low", sampler.bounds[0], advice)


def _no_traces(probe: ProbeFile, sampler: BudgetSampler, sources: Collection[str]) -> Iterator[Finding]:
    low, high = sampler.bounds
    inside = [row for row in probe.bins if row["from"] < high and low < row["to"]]
    lacking = [(row["from"], row["to"]) for row in inside if not sum(row["sources"].get(name, 0) for name in sources)]
    first, last = min(row["from"] for row in probe.bins), max(row["to"] for row in probe.bins)
    empty = [(max(low, start), min(high, end)) for start, end in lacking]
    unknown = [(low, min(high, first))] if low < first else []
    unknown += [(max(low, last), high)] if high > last else []
    for ranges, what in ((empty, "the probe found no correct trace of"), (unknown, "the probe did not sample")):
        if ranges:
            # Of a budget that no trace has, neither a start nor a group of rollouts can learn anything.
            said = ", ".join(f"{start} to {end}" for start, end in ranges)
            advice = f"{what} {said} tokens ({', '.join(sorted(sources))}); narrow the budgets, or add other sources"
            below = ranges[0][0] == low and ranges[-1][1] < high
            yield warning(*(("budget_low", low) if below else ("budget_high", high)), advice)
