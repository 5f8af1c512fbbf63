"""A cap of its own for each row of a sweep: a completion ends at `row_cap` times the maximum that it was asked for.

Only rows of mode `max` are cut; an exact length is measured by how far it was missed. The rows that end before their
cap are the same token by token. A row that is cut counts as wrong, and as long as the sweep's cap: it could have gone
on that far, and lengths cut in proportion to the budget would look like obedience. What a report then says:

    over budget                              the same: a cut row has more than N tokens
    accuracy                                 a lower bound; adding `cut`, the share of the rows, makes an upper one
    mean length, errors, RMSE, truncated     upper bounds
    rank correlation, spread, full length,   neither: compare them only with reports of the same `row_cap`
    quantiles, paired differences
"""

from collections.abc import Sequence

from rlred.rewards import Length


def check_row_cap(row_cap: float | None, modes: Sequence[str], field: str) -> None:
    """Raises `ValueError` for a `row_cap` below 1, or where no row asks for a maximum; `field` is its name."""
    if row_cap is None:
        return
    if row_cap < 1:
        raise ValueError(f"{field} must be 1 or more times the budget, got {row_cap}")
    if "max" not in modes:
        raise ValueError(f"{field}={row_cap:g}: only rows that ask for a maximum are cut, and the modes are {modes}")


def limit_of(mode: str, budget: int | None, row_cap: float | None) -> int | None:
    """The tokens at which a completion that was asked for a budget ends, at least one past it; None for no such end.

    >>> limit_of("max", 16, row_cap=1.5), limit_of("max", 16, row_cap=1.0), limit_of("exact", 16, row_cap=1.5)
    (24, 17, None)
    """
    if row_cap is None or mode != "max":
        return None
    return max(budget + 1, int(row_cap * budget))


def longest(ids: list[int], cap: int, length: Length) -> int:
    """The length of a cut completion, had it gone on to the cap without an end: the most that it could have been.

    >>> longest([5, 6, 7], 90, Length()), longest([5, 99, 7], 90, Length(count="thinking", end_of_thinking=99))
    (90, 1)
    """
    return length([*ids, *ids[-1:] * (cap - len(ids))])
