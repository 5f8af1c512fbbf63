"""A*-Thought's search over the steps of a trace (2505.24550), as the order in which it takes them up."""

from collections.abc import Callable, Sequence


def search_order(importance: Sequence[float], cost: Callable[[set[int]], float], width: int = 2) -> list[int]:
    """The round in which the search takes up each step.

    It begins with the most important step and its two neighbours. Then the `width` most important steps that would add
    something are open, each with its neighbours, and the one whose path (all that is taken, with it) costs least is
    taken. The paper stops where a model solves the question from the path; here the ratio that is asked for stops it.
    Width 2 and the neighbours are those of the released code (AI9Stars/AStar-Thought, a_star.py), which looks back no
    further: a path that was not taken is not returned to.

    >>> search_order([0, 9, 0, 0, 8, 0, 0, 7], cost=lambda path: 4 in path)  # step 4 is shunned while another is open
    [0, 0, 0, 2, 3, 3, 1, 1]
    """
    queue = sorted(range(len(importance)), key=lambda step: (-importance[step], step))
    around = {step: {step - 1, step, step + 1} & set(queue) for step in queue}
    rounds, path = [0] * len(queue), set()
    for number in range(len(queue)):
        opened = [path | around[step] for step in queue if not around[step] <= path]
        if not opened:
            break
        best = min(opened[:width], key=cost) if path else opened[0]
        for step in best - path:
            rounds[step] = number
        path = best
    return rounds
