"""Reductions of image features: by hand, as properties, and against the definitions that they cite."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from rlred.vision.grid import downsample, grid_of
from rlred.vision.reduce import GIVEN, SCORES, STRATEGIES, Reducer, keep_count, maxmin, similarity

FEATURE_STRATEGIES = [strategy for strategy in STRATEGIES if strategy != "downsample"]


def features_of(n, width=8, seed=0):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def every_reducer():
    for strategy in FEATURE_STRATEGIES:
        for score in ["norm"] if strategy == "pool" else [*SCORES, *GIVEN]:
            yield Reducer(score, strategy)


def plan_of(reducer, features, k, **given):
    given = {"received": features.abs().sum(-1), "seed": 3, **given}
    return reducer.plan(features, k, **given)


@pytest.mark.parametrize("reducer", every_reducer(), ids=lambda r: f"{r.score}-{r.strategy}")
def test_every_reduction_gives_k_tokens_in_order_and_all_at_k_equal_n(reducer):
    features = features_of(16)
    for k in (1, 2, 4, 8):
        plan = plan_of(reducer, features, k)
        assert plan.apply(features).shape == (k, 8)
        assert plan.index.tolist() == sorted(set(plan.index.tolist()))
        assert torch.equal(plan.apply(features), plan_of(reducer, features, k).apply(features))
    assert torch.equal(plan_of(reducer, features, 16).apply(features), features)


@pytest.mark.parametrize("strategy", ["package", "merge", "pool"])
def test_means_take_every_dropped_token_in(strategy):
    features = features_of(16)
    weights = Reducer("norm", strategy).plan(features, 4).weights
    assert torch.allclose(weights.sum(-1), torch.ones(4))
    assert (weights > 0).any(0).all()
    constant = torch.ones(16, 8)
    assert torch.allclose(Reducer("norm", strategy).plan(features, 4).apply(constant), torch.ones(4, 8))


def test_package_keeps_k_minus_one_tokens_whole_and_the_mean_of_the_rest():
    features = torch.tensor([[5.0], [1.0], [4.0], [3.0]])
    plan = Reducer("norm", "package").plan(features, 3)
    assert plan.index.tolist() == [0, 2, 3]  # the package stands where the best of its tokens was
    assert plan.apply(features).tolist() == [[5.0], [4.0], [2.0]]


def test_maxmin_is_the_greedy_farthest_point_choice():
    features = features_of(20)
    unit = F.normalize(features, dim=-1)
    distance = 1 - unit @ unit.T
    kept = [int(distance.mean(-1).argmax())]
    while len(kept) < 6:
        nearest = distance[kept].min(0).values
        nearest[kept] = -1
        kept.append(int(nearest.argmax()))
    scores = maxmin(features, 6)
    assert scores.argsort(descending=True)[:6].tolist() == kept
    assert (scores > 0).sum() == 6


def test_similarity_gives_up_the_half_of_a_pair_of_twins():
    features = torch.eye(4).repeat_interleave(2, 0)  # twins side by side
    kept = torch.isinf(similarity(features, 4)).nonzero().flatten().tolist()
    assert kept == [1, 3, 5, 7]
    assert torch.isinf(similarity(features_of(9), 2)).sum() == 2  # several rounds


def test_pool_is_adaptive_average_pooling():
    features = features_of(8 * 12)
    pool = Reducer(strategy="pool").plan(features, 24, grid=(8, 12)).apply(features)
    picture = features.T.reshape(1, 8, 8, 12)
    expected = F.adaptive_avg_pool2d(picture, (4, 6)).flatten(2)[0].T
    assert torch.allclose(pool, expected, atol=1e-6)
    five = Reducer(strategy="pool").plan(features, 35, grid=(8, 12)).apply(features)  # 5 x 7: uneven cells
    assert torch.allclose(five, F.adaptive_avg_pool2d(picture, (5, 7)).flatten(2)[0].T, atol=1e-6)


def test_random_depends_on_the_picture_and_nothing_else():
    features = features_of(64)
    first = Reducer("random").plan(features, 8, seed=1).index
    torch.manual_seed(5)
    assert torch.equal(first, Reducer("random").plan(features, 8, seed=1).index)
    assert not torch.equal(first, Reducer("random").plan(features, 8, seed=2).index)


def test_a_learned_predictor_is_a_score_like_any_other():
    predictor = torch.nn.Linear(8, 1)
    features = features_of(16)
    index = Reducer(lambda x, k: predictor(x)[:, 0]).plan(features, 3).index
    assert index.tolist() == sorted(predictor(features)[:, 0].topk(3).indices.tolist())


def test_gradients_flow_to_the_features_through_every_strategy():
    for strategy in FEATURE_STRATEGIES:
        features = features_of(16).requires_grad_()
        Reducer("maxmin", strategy).plan(features, 4).apply(features).sum().backward()
        assert features.grad.abs().sum() > 0


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.01, 1.0))
def test_a_keep_ratio_is_met_from_above_by_less_than_one_token(rows, columns, ratio):
    n = rows * columns
    k = keep_count(n, ratio)
    assert 1 <= k <= n
    assert ratio * n - 1e-6 <= k < ratio * n + 1 + 1e-6


@pytest.mark.parametrize("k, rows, columns, expected", [(64, 8, 8, (8, 8)), (8, 8, 8, (4, 2)), (2, 8, 8, (2, 1))])
def test_rectangles_keep_the_proportions(k, rows, columns, expected):
    assert grid_of(k, rows, columns) == expected


def test_downsample_averages_areas():
    picture = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert downsample(picture, (1, 1), 2).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert downsample(picture, (2, 2), 2) is picture


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Reducer(score="magic"), "score must be one of maxmin, .*, or a function; got 'magic'"),
        (lambda: Reducer(strategy="fold"), "strategy must be one of prune"),
        (lambda: Reducer().plan(features_of(4), 0), "4 features cannot be reduced to 0"),
        (lambda: Reducer().plan(features_of(4), 5), "4 features cannot be reduced to 5"),
        (lambda: Reducer(score="attention").plan(features_of(4), 2), "eager attention"),
        (lambda: Reducer(strategy="downsample").plan(features_of(4), 2), "before the tower"),
        (lambda: Reducer(strategy="pool").plan(features_of(6), 2), "needs the image's grid"),
        (lambda: Reducer(strategy="pool").plan(features_of(16), 11), "11 tokens form no rectangle within 4 x 4"),
        (lambda: keep_count(64, 0), "keep_ratio must be above 0 and at most 1, got 0"),
        (lambda: keep_count(64, 1.5), "keep_ratio must be above 0"),
    ],
)
def test_a_reduction_that_cannot_be_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)
