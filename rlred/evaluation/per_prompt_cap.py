"""A cap of its own for each row of a sweep: a completion ends at `per_prompt_cap` times the maximum it was asked for.

Only rows of mode `max` are cut; an exact length is measured by how far it was missed. The rows that end before their
cap are the same token by token. A row that is cut counts as incorrect, and as long as the sweep's cap: it could have
gone on that far, and lengths cut in proportion to the budget would look like obedience. What a report then says:

    over budget                              the same: a cut row has more than N tokens
    accuracy                                 a lower bound; adding `cut`, the share of the rows, makes an upper one
    mean length, errors, RMSE, truncated     upper bounds
    rank correlation, spread, full length,   neither: compare them only with reports of the same `per_prompt_cap`
    quantiles, paired differences
"""

from collections.abc import Sequence

from rlred.rewards import Length


def check_per_prompt_cap(per_prompt_cap: float | None, modes: Sequence[str], field: str) -> None:
    """Raises `ValueError` for a `per_prompt_cap` below 1, or where no row asks for a maximum; `field` is its name."""
    if per_prompt_cap is None:
        return
    if per_prompt_cap < 1:
        raise ValueError(f"{field} must be 1 or more times the budget, got {per_prompt_cap}")
    if "max" not in modes:
        raise ValueError(
            f"{field}={per_prompt_cap:g}: only rows that ask for a maximum are cut, and the modes are {modes}"
        )


def limit_of(mode: str, budget: int | None, per_prompt_cap: float | None) -> int | None:
    """The tokens at which a completion that was asked for a budget ends, at least one past it; None for no such end.

    >>> limit_of("max", 16, per_prompt_cap=1.5), limit_of("max", 16, per_prompt_cap=1.0)
    (24, 17)
    >>> limit_of("exact", 16, per_prompt_cap=1.5) is None
    True
    """
    if per_prompt_cap is None or mode != "max":
        return None
    return max(budget + 1, int(per_prompt_cap * budget))


def longest(ids: list[int], cap: int, length: Length) -> int:
    """The length of a cut completion, had it gone on to the cap without an end: the most that it could have been.

    >>> longest([5, 6, 7], 90, Length()), longest([5, 99, 7], 90, Length(count="thinking", end_of_thinking=99))
    (90, 1)
    """
    return length([*ids, *ids[-1:] * (cap - len(ids))])
