"""The rewards of visual sparsity and multimodal length, against values worked out by hand, and their known traps."""

from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlred.evaluation.visual import blind_accuracy, optima
from rlred.rewards import (
    Correctness,
    DifficultyLength,
    ExactMatch,
    RequestThreshold,
    UncertaintyBudget,
    VisualSparsity,
    make_reward,
)

RIGHT, WRONG = "\\boxed{4}", "\\boxed{5}"


def scores(reward, texts, lengths=None, prompts=None, **columns):
    """The rewards of one group, or of the groups that `prompts` names."""
    return reward(
        prompts=prompts or ["q"] * len(texts),
        completions=texts,
        completion_ids=[[7] * n for n in lengths or [10] * len(texts)],
        solution=["4"] * len(texts),
        **columns,
    )


def looked(reward, texts, visual, full=64, **columns):
    return scores(reward, texts, visual_tokens=visual, full_visual_tokens=[full] * len(texts), **columns)


@pytest.mark.parametrize(
    "reward, text, visual, n, expected",
    [
        (VisualSparsity(), RIGHT, 64, 10, 1.0),  # the full budget
        (VisualSparsity(), RIGHT, 16, 10, 1.15),  # 1 + 0.2 * 48/64
        (VisualSparsity(), RIGHT, 4, 10, 1.1875),
        (VisualSparsity(), RIGHT, 0, 10, 1.2),  # never looked
        (VisualSparsity(), RIGHT, 80, 10, 1.0),  # low first, then high: 125 % is clipped
        (VisualSparsity(), WRONG, 4, 10, 0.0),
        (VisualSparsity(visual_weight=0.3), RIGHT, 32, 10, 1.15),
        (VisualSparsity(visual_weight=0.2, text_weight=0.1, reference_length=20), RIGHT, 64, 5, 1.075),
        (VisualSparsity(visual_weight=0.2, text_weight=0.1, reference_length=20), RIGHT, 32, 10, 1.15),
        (VisualSparsity(visual_weight=0.2, text_weight=0.1, reference_length=20), RIGHT, 64, 90, 1.0),  # clipped
        (VisualSparsity(visual_weight=0.0), RIGHT, 4, 10, 1.0),
    ],
)
def test_visual_sparsity(reward, text, visual, n, expected):
    assert looked(reward, [text], [visual], lengths=[n]) == pytest.approx([expected])


def test_visual_sparsity_counts_text_without_visual_tokens_where_a_column_says_so():
    reward = VisualSparsity(text_weight=0.1, reference_length=20)
    assert looked(reward, [RIGHT], [64], lengths=[74]) == [1.0]
    assert looked(reward, [RIGHT], [64], lengths=[74], text_tokens=[10]) == pytest.approx([1.05])


def test_trap_an_assigned_full_budget_is_not_punished_for_what_it_was_given():
    visual = [64, 64, 16, 16]
    chosen = looked(VisualSparsity(), [RIGHT] * 4, visual)
    assert chosen[0] < fmean(chosen)  # all right, and yet below its group
    assert looked(VisualSparsity.preset("ladder"), [RIGHT] * 4, visual) == pytest.approx([0.0] * 4)
    # One of two right at 16: the rung's mean is 1.15 / 2.
    mixed = looked(VisualSparsity.preset("ladder"), [RIGHT, RIGHT, RIGHT, WRONG], visual)
    assert mixed == pytest.approx([0.0, 0.0, 0.575, -0.575])


def test_each_group_has_rungs_of_its_own():
    prompts = ["a", "a", "b", "b"]
    values = looked(VisualSparsity(assigned=True), [RIGHT, WRONG, RIGHT, RIGHT], [64] * 4, prompts=prompts)
    assert values == pytest.approx([0.5, -0.5, 0.0, 0.0])


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([4, 16, 64])), min_size=1, max_size=8))
def test_centred_rungs_have_mean_zero(rows):
    rows = rows * 2  # two of each
    texts, visual = [RIGHT if right else WRONG for right, _ in rows], [k for _, k in rows]
    values = looked(VisualSparsity(assigned=True), texts, visual)
    for rung in set(visual):
        assert sum(v for v, k in zip(values, visual, strict=True) if k == rung) == pytest.approx(0, abs=1e-9)


def test_a_rung_of_one_rollout_is_refused():
    with pytest.raises(ValueError, match="2 rollouts or more of each budget in a group, got 1 at 16 visual tokens"):
        looked(VisualSparsity(assigned=True), [RIGHT] * 3, [64, 64, 16])


@pytest.mark.parametrize("missing", ["visual_tokens", "full_visual_tokens"])
def test_visual_sparsity_names_the_column_that_is_missing(missing):
    columns = {"visual_tokens": [4], "full_visual_tokens": [64], missing: None}
    with pytest.raises(ValueError, match=f"needs the column '{missing}'"):
        scores(VisualSparsity(), [RIGHT], **columns)


@pytest.mark.parametrize(
    "reward, texts, requested, expected",
    [
        # Of three right answers two are direct: above the threshold, a request was a waste.
        (RequestThreshold(), [RIGHT, RIGHT, RIGHT], [False, False, True], [1.0, 1.0, 0.9]),
        # One of six right ones is direct: luck. The penalty on requests is really lifted.
        (RequestThreshold(), [RIGHT] * 6, [False] + [True] * 5, [0.9] + [1.0] * 5),
        (RequestThreshold.preset("released"), [RIGHT] * 6, [False] + [True] * 5, [0.9] * 6),
        # One of five is exactly the threshold: no luck.
        (RequestThreshold(), [RIGHT] * 5, [False] + [True] * 4, [1.0] + [0.9] * 4),
        # Only requests were right: nothing to punish, but for the released code.
        (RequestThreshold(), [WRONG, RIGHT, RIGHT], [False, True, True], [0.0, 1.0, 1.0]),
        (RequestThreshold.preset("released"), [WRONG, RIGHT, RIGHT], [False, True, True], [0.0, 0.9, 0.9]),
        (RequestThreshold(), [WRONG, WRONG], [False, True], [0.0, 0.0]),
        (RequestThreshold(penalty=0.3), [RIGHT, RIGHT], [False, True], [1.0, 0.7]),
    ],
)
def test_request_threshold(reward, texts, requested, expected):
    assert scores(reward, texts, requested=requested) == pytest.approx(expected)


def test_request_threshold_names_the_column_that_is_missing():
    with pytest.raises(ValueError, match="needs the column 'requested'"):
        scores(RequestThreshold(), [RIGHT, RIGHT])


def test_difficulty_length_pays_brevity_where_it_is_easy_and_length_where_it_is_hard():
    prompts = ["easy"] * 2 + ["hard"] * 2
    texts, lengths = [RIGHT, RIGHT, WRONG, WRONG], [10, 30, 10, 30]  # the mean is 20
    # Difficulties 0 and 1; their 0.8 quantile is 0.8.
    expected = [1 + 0.5 * 0.5, 1 - 0.5 * 0.5, 0 - 0.5 * 0.5, 0.5 * 0.5]
    assert scores(DifficultyLength(), texts, lengths, prompts) == pytest.approx(expected)
    # A simple picture makes the second question easy as well: no length term for wrong answers.
    easy = scores(DifficultyLength(), texts, lengths, prompts, complexity=[1.0, 1.0, 0.0, 0.0])
    assert easy == pytest.approx([1.25, 0.75, 0.0, 0.0])


def test_trap_a_long_right_answer_still_earns_more_than_a_wrong_one():
    texts, lengths = [RIGHT, RIGHT, WRONG, WRONG], [160, 0, 0, 0]  # four times the mean
    unclipped = 1 + 0.5 * (1 - 160 / 40)
    assert unclipped == -0.5  # the released code
    assert scores(DifficultyLength(), texts, lengths, ["a", "a", "b", "b"]) == pytest.approx([0.75, 1.5, -0.5, -0.5])


@pytest.mark.parametrize(
    "text, n, difficulty, uncertainty, expected",
    [
        (RIGHT, 96, 1.0, 0.0, 1.0),  # easy: budget 96
        (RIGHT, 346, 1.0, 0.9, 0.5),  # uncertainty does not stretch it
        (RIGHT, 596, 1.0, 0.0, 0.0),
        (RIGHT, 9999, 4.0, 0.0, 1.0),  # in between: no length term
        (RIGHT, 256, 5.0, 0.0, 1.0),  # hard: budget 256
        (RIGHT, 516, 8.0, 0.4, 0.5),  # 256 + 25 * 0.4 = 266
        (RIGHT, 20, 8.0, 0.4, 1.0),  # no bonus below the budget
        (RIGHT, 281, 8.0, 7.0, 1.0),  # uncertainty is clipped to 1
        (WRONG, 10, 1.0, 0.0, 0.0),
    ],
)
def test_uncertainty_budget(text, n, difficulty, uncertainty, expected):
    columns = {"difficulty": [difficulty], "uncertainty": [uncertainty]}
    assert scores(UncertaintyBudget(), [text], [n], **columns) == pytest.approx([expected])


def test_uncertainty_budget_needs_a_difficulty_in_every_row():
    with pytest.raises(ValueError, match="needs the column 'difficulty'"):
        scores(UncertaintyBudget(), [RIGHT, RIGHT], difficulty=[1.0, None])


@pytest.mark.parametrize(
    "text, gold, expected",
    [
        ("red", "red", 1.0),
        (" Red. ", "red", 1.0),
        ("<think>blue?</think>the red", "red", 1.0),
        ("dark red", "red", 0.0),
        ("\\boxed{Red} or so", "red", 1.0),
        ("3.5", "3.5", 1.0),
        ("35", "3.5", 0.0),
        ("", "red", 0.0),
        ("red", " ", None),
    ],
)
def test_exact_match(text, gold, expected):
    assert ExactMatch()([text], solution=[gold]) == [expected]


def test_a_reward_in_yaml_takes_exact_match_for_its_correctness():
    reward = make_reward({"name": "visual_sparsity", "correctness": {"name": "exact_match"}})
    assert reward.correctness == ExactMatch()
    assert make_reward({"name": "visual_sparsity", "correctness": {"seconds": 2}}).correctness == Correctness(seconds=2)


@pytest.mark.parametrize(
    "spec, message",
    [
        ({"name": "visual_sparsity", "visual_weight": -0.1}, "visual_sparsity.visual_weight"),
        ({"name": "visual_sparsity", "visual_weight": 0.4, "text_weight": 0.2}, "must be at most 0.5, got 0.6"),
        ({"name": "visual_sparsity", "text_weight": 0.1}, "needs reference_length"),
        (
            {"name": "visual_sparsity", "text_weight": 0.1, "reference_length": 0},
            "reference_length must be 1 or more, got 0",
        ),
        ({"name": "visual_sparsity", "preset": "paper"}, "no preset 'paper'"),
        ({"name": "request_threshold", "penalty": 2}, "request_threshold.penalty"),
        ({"name": "request_threshold", "threshold": -1}, "request_threshold.threshold"),
        ({"name": "difficulty_length", "quantile": 2}, "difficulty_length.quantile"),
        ({"name": "difficulty_length", "low": -3}, "difficulty_length.low"),
        ({"name": "uncertainty_budget", "span": 0}, "uncertainty_budget.span"),
        ({"name": "uncertainty_budget", "easy": 6}, "easy must not be above hard"),
        ({"name": "uncertainty_budget", "hard_budget": -1}, "uncertainty_budget.hard_budget"),
    ],
)
def test_a_wrong_visual_reward_in_yaml_is_one_clear_line(spec, message):
    with pytest.raises(ValueError, match=message) as raised:
        make_reward(spec)
    assert "\n" not in str(raised.value)


def test_exact_match_takes_any_of_several_solutions_and_has_no_opinion_without_one():
    match = ExactMatch()
    assert match(["Blue."] * 4, solution=[["red", "blue"], ["red", "green"], None, [None, ""]]) == [
        1.0,
        0.0,
        None,
        None,
    ]


def test_a_choice_without_a_graded_answer_is_left_out():
    low, high = {"keep_ratio": 0.25, "accuracy": None}, {"keep_ratio": 1.0, "accuracy": 0.9}
    assert blind_accuracy([low, high], 1.0) == 0.9 and blind_accuracy([low], 1.0) == 0.0
    fixed = [{"choice": name, "by_level": {"dot": line}} for name, line in (("low", low), ("high", high))]
    assert optima(fixed, 0.2) == {"dot": {"high": 0.9}}
