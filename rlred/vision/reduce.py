"""Which K of N image features stay, and what becomes of the others: score x strategy (2505.18227, appendix A).

Everything here is a pure function of one image's projected features, (N, width) to (K, width): no model, no state. So a
row gives the same K features in `generate` and in the training forward. A score says how much each token should stay; a
strategy says what happens to those that do not:

    maxmin       far from those already kept (DivPrune, 2503.02175)      prune     they are dropped
    similarity   unlike its neighbours in bipartite halves (ToMe,        package   their mean is one more token
                 2210.09461)                                             merge     each is averaged into its likest
    attention    attention received inside the vision tower              pool      no score: the cells of a grid
    norm         L2 norm of the feature
    entropy      entropy of the feature's softmax
    random       control; the seed comes from the picture

A score of one's own, a learned predictor say, is a function `(features, k) -> (N,)`. Kept tokens keep their order.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from rlred.vision.grid import grid_of

Score = Callable[[torch.Tensor, int], torch.Tensor]
STRATEGIES = ("prune", "package", "merge", "pool", "downsample")


def keep_count(n: int, ratio: float) -> int:
    """K of n tokens at a keep ratio: its share, rounded up, at least 1. Raises `ValueError` for a ratio outside (0, 1].

    >>> keep_count(64, 0.25), keep_count(9, 0.5), keep_count(4, 0.01)
    (16, 5, 1)
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"keep_ratio must be above 0 and at most 1, got {ratio!r}; a row without a picture has no K")
    return max(1, math.ceil(ratio * n - 1e-9))


def maxmin(features: torch.Tensor, k: int) -> torch.Tensor:
    """k, k-1, ..., 1 for the tokens in the order of a greedy farthest-point choice by cosine distance, 0 for the rest.

    The first is the one that is on average farthest from all; a duplicate of a kept token comes last.

    >>> maxmin(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), 2).tolist()
    [1.0, 0.0, 2.0]
    """
    unit = F.normalize(features.float(), dim=-1)
    distance = 1 - unit @ unit.T  # (N, N)
    scores = distance.new_zeros(len(unit))
    nearest = distance.mean(-1)  # of the first choice; then the distance to the nearest kept token
    for rank in range(k, 0, -1):
        choice = int(nearest.masked_fill(scores > 0, -math.inf).argmax())
        scores[choice] = rank
        nearest = distance[choice].clone() if rank == k else torch.minimum(nearest, distance[choice])
    return scores


def similarity(features: torch.Tensor, k: int) -> torch.Tensor:
    """The round in which ToMe's bipartite matching would merge a token away; infinite for those that stay.

    Each round takes the remaining tokens in turn as halves A and B and gives up the tokens of A that are likest to one
    of B: as many as needed, at most half. So of two alike one stays, wherever in the picture they are.

    >>> similarity(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [1.0, 1.0]]), 3).tolist()
    [0.0, inf, inf, inf]
    """
    unit = F.normalize(features.float(), dim=-1)
    scores = torch.full((len(unit),), math.inf, device=unit.device)
    left = torch.arange(len(unit), device=unit.device)
    rounds = 0
    while len(left) > k:
        a, b = left[::2], left[1::2]
        likest = (unit[a] @ unit[b].T).max(-1).values
        gone = a[torch.sort(likest, descending=True, stable=True).indices[: min(len(left) - k, len(left) // 2)]]
        scores[gone] = rounds
        left, rounds = left[~torch.isin(left, gone)], rounds + 1
    return scores


def norm(features: torch.Tensor, k: int) -> torch.Tensor:
    """The L2 norm of each token."""
    return features.float().norm(dim=-1)


def entropy(features: torch.Tensor, k: int) -> torch.Tensor:
    """The entropy, in nats, of the softmax over each token's channels."""
    log_shares = features.float().log_softmax(-1)
    return -(log_shares.exp() * log_shares).sum(-1)


SCORES: dict[str, Score] = {"maxmin": maxmin, "similarity": similarity, "norm": norm, "entropy": entropy}
GIVEN = ("attention", "random")  # scores that need more than the features


@dataclass(frozen=True)
class Plan:
    """How K tokens are made of N: `index` (K,), their positions in order, and `weights` (K, N) where they are means."""

    index: torch.Tensor
    weights: torch.Tensor | None = None

    def apply(self, features: torch.Tensor) -> torch.Tensor:
        """(N, width) to (K, width); the same plan cuts deepstack features."""
        return features[self.index] if self.weights is None else self.weights.to(features.dtype) @ features


@dataclass(frozen=True)
class Reducer:
    """A score and a strategy. Raises `ValueError` for a name that is neither, and for a count outside 1..N.

    >>> features = torch.tensor([[3.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.0, 1.0]])
    >>> Reducer(score="norm").plan(features, 2).apply(features).tolist()
    [[3.0, 0.0], [0.0, 2.0]]
    >>> Reducer(score="norm", strategy="merge").plan(features, 2).apply(features).tolist()
    [[2.0, 0.0], [0.0, 1.5]]
    """

    score: str | Score = "maxmin"
    strategy: str = "prune"

    def __post_init__(self):
        if not callable(self.score) and self.score not in (*SCORES, *GIVEN):
            raise ValueError(f"score must be one of {', '.join((*SCORES, *GIVEN))}, or a function; got {self.score!r}")
        if self.strategy not in STRATEGIES:
            raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}; got {self.strategy!r}")

    @torch.no_grad()
    def plan(
        self,
        features: torch.Tensor,
        k: int,
        grid: tuple[int, int] | None = None,
        received: torch.Tensor | None = None,
        seed: int = 0,
    ) -> Plan:
        """One image's plan: `grid` is its rows and columns (pool), `received` (N,) its attention, `seed` for random."""
        n = len(features)
        if not 1 <= k <= n:
            raise ValueError(f"an image of {n} features cannot be reduced to {k}; ask for 1 to {n}")
        everything = torch.arange(n, device=features.device)
        if k == n:
            return Plan(everything)
        if self.strategy == "downsample":
            raise ValueError("strategy='downsample' shrinks the picture before the tower, not its features")
        if self.strategy == "pool":
            return pooled(k, grid, features)
        scores = self._scores(features, k, received, seed)
        order = torch.sort(scores, descending=True, stable=True).indices
        if self.strategy == "prune":
            return Plan(order[:k].sort().values)
        # One more token than is kept whole stands for all that is dropped (package).
        index = order[:k].sort().values
        weights = torch.zeros(k, n, device=features.device)
        if self.strategy == "package":
            dropped = order[k - 1 :]
            weights[torch.arange(k, device=features.device), index] = 1.0
            weights[index == order[k - 1]] = torch.isin(everything, dropped) / len(dropped)
        else:
            unit = F.normalize(features.float(), dim=-1)
            owner = (unit @ unit[index].T).argmax(-1)
            owner[index] = torch.arange(k, device=features.device)
            weights[owner, everything] = 1.0
            weights /= weights.sum(-1, keepdim=True)
        return Plan(index, weights)

    def _scores(self, features, k, received, seed) -> torch.Tensor:
        if callable(self.score):
            return self.score(features, k)
        if self.score == "attention":
            if received is None:
                raise ValueError("score='attention' needs the vision tower's attentions; load it with eager attention")
            return received
        if self.score == "random":
            return torch.rand(len(features), generator=torch.Generator().manual_seed(seed)).to(features.device)
        return SCORES[self.score](features, k)


def pooled(k: int, grid: tuple[int, int] | None, features: torch.Tensor) -> Plan:
    """Uniform average pooling to k cells; a cell's position is that of the token in its middle."""
    n = len(features)
    rows, columns = grid or (math.isqrt(n), math.isqrt(n))
    if rows * columns != n:
        raise ValueError(f"strategy='pool' needs the image's grid; {n} features are no square")
    height, width = grid_of(k, rows, columns)
    # As adaptive_avg_pool2d cuts them: from floor(i * rows / height) to ceil((i + 1) * rows / height).
    weights = torch.zeros(k, rows, columns, device=features.device)
    middles = []
    for cell in range(k):
        i, j = divmod(cell, width)
        top, bottom = i * rows // height, -(-(i + 1) * rows // height)
        left, right = j * columns // width, -(-(j + 1) * columns // width)
        weights[cell, top:bottom, left:right] = 1 / ((bottom - top) * (right - left))
        middles.append((top + bottom - 1) // 2 * columns + (left + right - 1) // 2)
    return Plan(torch.tensor(middles, device=features.device), weights.reshape(k, n))
