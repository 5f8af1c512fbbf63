"""Which completions answer the same prompt: rewards that compare a completion with its group ask here."""

from collections.abc import Sequence


def groups_of(prompts: Sequence, size: int | None = None) -> list[list[int]]:
    """The indices of each group: neighbours with the same prompt, `size` at a time where it is given.

    TRL hands a reward the completions of one process, those of a prompt side by side; with the same prompt twice in a
    row, only `size` (its `num_generations`) tells the two groups apart. Raises `ValueError` for a group of one, which
    has nothing to be compared with, and for one that is not whole.

    >>> groups_of(["a", "a", "b", "b", "b", "b"], size=2)
    [[0, 1], [2, 3], [4, 5]]
    """
    groups: list[list[int]] = []
    for index, prompt in enumerate(prompts):
        full = size is not None and groups and len(groups[-1]) == size
        if groups and not full and prompts[groups[-1][-1]] == prompt:
            groups[-1].append(index)
        else:
            groups.append([index])
    for group in groups:
        if len(group) < 2 or (size is not None and len(group) != size):
            wanted = f"{size}" if size else "2 or more"
            raise ValueError(
                f"a group-relative reward needs {wanted} completions of each prompt side by side, got {len(group)}; "
                "set num_generations to 2 or more, and let no group straddle two processes"
            )
    return groups


def check_group_size(name: str, size: int | None) -> None:
    """Raises `ValueError` unless `size` is None or 2 or more."""
    if size is not None and size < 2:
        raise ValueError(f"{name}.group_size must be 2 or more, got {size!r}")


def check_ends(name: str, ends: tuple[int, ...]) -> None:
    """Raises `ValueError` for an id of the end of a sequence that no token has."""
    if wrong := [token for token in ends if token < 0]:
        raise ValueError(f"{name}.ends must be ids of tokens, 0 or more, got {wrong[0]!r}")
