"""The field's length rewards, against values worked out by hand from each paper's equation, and their known traps."""

import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trl.rewards import get_cosine_scaled_reward

from rlred.rewards import (
    REWARDS,
    CosineLength,
    FormatDiversity,
    Gr3,
    GroupSigmoid,
    GrpoLead,
    KimiLength,
    Lead,
    LengthBonus,
    LengthEfficiency,
    ShortestCorrect,
    SlackLength,
    SoftOverlong,
    SolveRatePenalty,
    Truncation,
    TurnCost,
    make_reward,
)

RIGHT, WRONG, NO_BOX = "</think>\\boxed{4}", "</think>\\boxed{5}", "</think>four"
GROUP_RELATIVE = [GroupSigmoid(), KimiLength(), ShortestCorrect(), SolveRatePenalty(), SlackLength(), FormatDiversity()]
GROUP_RELATIVE += [LengthBonus(targets=(10, 20, 30)), Gr3(), GrpoLead(), Lead(low=1, high=300), TurnCost()]


def scores(reward, texts, lengths, **columns):
    """The rewards of one group."""
    return reward(
        prompts=["q"] * len(texts),
        completions=texts,
        completion_ids=[[7] * n for n in lengths],
        solution=["4"] * len(texts),
        **columns,
    )


@pytest.mark.parametrize(
    "reward, text, n, reference, expected",
    [
        (LengthEfficiency(), RIGHT, 20, (40, 0.5), 2.0),  # 40/20 - 1 + 2 * (1 - 0.5)
        (LengthEfficiency(), WRONG, 20, (40, 0.5), 0.0),  # 1 - 1
        (LengthEfficiency(), RIGHT, 80, (40, 1.0), -0.5),
        (LengthEfficiency(), RIGHT, 40, (40, 1.0), 0.0),
        (LengthEfficiency(accuracy_weight=0), WRONG, 10, (40, 0.0), 3.0),
        (LengthEfficiency(), RIGHT, 0, (40, 1.0), 39.0),  # an empty completion counts as one token
        (LengthEfficiency.preset("released"), RIGHT, 20, (40, 0.5), 3.0),  # 20/40 + 5 * 0.5
        (LengthEfficiency.preset("released"), WRONG, 80, (40, 0.9), -2.0),  # -1 - 4.5, clipped
        (LengthEfficiency.preset("released"), RIGHT, 1, (40, 0.0), 4.0),  # 0.975 + 5, clipped
    ],
)
def test_length_efficiency(reward, text, n, reference, expected):
    columns = {"reference_length": [reference[0]], "reference_accuracy": [reference[1]]}
    assert scores(reward, [text], [n], **columns) == pytest.approx([expected])


@pytest.mark.parametrize("missing", ["reference_length", "reference_accuracy"])
def test_length_efficiency_names_the_column_that_is_missing(missing):
    columns = {"reference_length": [40.0], "reference_accuracy": [0.5]}
    for absent in ({}, {missing: [None]}):
        with pytest.raises(ValueError, match=f"needs the column '{missing}'.*rlred reference"):
            scores(LengthEfficiency(), [RIGHT], [9], **{**{k: v for k, v in columns.items() if k != missing}, **absent})


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    "alpha, texts, lengths, expected",
    [
        (0.2, [RIGHT, WRONG], [50, 10], [0.9, 0.0]),  # the only right one: 1 - alpha / 2
        (0.2, [RIGHT, RIGHT], [10, 10], [0.9, 0.9]),  # no spread
        (0.2, [RIGHT, RIGHT], [10, 30], [1 - 0.2 * sigmoid(-1), 1 - 0.2 * sigmoid(1)]),  # population std 10
        (0.4, [RIGHT, RIGHT, WRONG], [10, 30, 900], [1 - 0.4 * sigmoid(-1), 1 - 0.4 * sigmoid(1), 0.0]),
        (0.0, [RIGHT, RIGHT], [10, 30], [1.0, 1.0]),
        (0.2, [WRONG, WRONG], [10, 30], [0.0, 0.0]),  # all wrong
    ],
)
def test_group_sigmoid(alpha, texts, lengths, expected):
    assert scores(GroupSigmoid(alpha=alpha), texts, lengths) == pytest.approx(expected, abs=1e-6)


def test_group_sigmoid_gives_a_truncated_completion_nothing():
    assert scores(GroupSigmoid(alpha=0.2, ends=(7,)), [RIGHT, RIGHT], [10, 10]) == pytest.approx([0.9, 0.9])
    assert scores(GroupSigmoid(alpha=0.2, ends=(2,)), [RIGHT, RIGHT], [10, 10]) == [0.0, 0.0]


@pytest.mark.parametrize(
    "formats, grades, step, expected",
    [
        ("aaab", "1111", 0, [4 / 3, 4 / 3, 4 / 3, 4.0]),  # G / F at first
        ("aaab", "1111", 50, [7 / 6, 7 / 6, 7 / 6, 2.5]),  # half of the bonus in the middle
        ("aaab", "1111", 100, [1.0] * 4),  # none at the end
        ("aaab", "0110", 0, [0.0, 4 / 3, 4 / 3, 0.0]),  # a rare wrong answer earns nothing, and counts in F
        ("aaaa", "1100", 0, [1.0, 1.0, 0.0, 0.0]),  # one format: plain correctness
        ("a-b-", "1111", 0, [4.0, 2.0, 4.0, 2.0]),  # no marker at all is a format too
        ("ab", "00", 0, [0.0, 0.0]),
    ],
)
def test_format_diversity(formats, grades, step, expected):
    texts = [f"{mark} {RIGHT if grade == '1' else WRONG}" for mark, grade in zip(formats, grades, strict=True)]
    state = SimpleNamespace(global_step=step, max_steps=100)
    reward = FormatDiversity(markers=("a ", "b "))
    assert scores(reward, texts, [9] * len(texts), trainer_state=state) == pytest.approx(expected)


@pytest.mark.parametrize(
    "weight, texts, lengths, expected",
    [
        (1.0, [RIGHT, RIGHT, RIGHT], [10, 20, 30], [1.5, 1.0, 0.5]),
        (1.0, [WRONG, WRONG, WRONG], [10, 20, 30], [0.0, 0.0, -0.5]),  # a short wrong answer earns nothing
        (0.2, [RIGHT, WRONG], [10, 30], [1.1, -0.1]),
        (0.2, [RIGHT, WRONG], [30, 10], [0.9, 0.0]),  # min and max are over all, right and wrong
        (1.0, [RIGHT, WRONG], [20, 20], [1.0, 0.0]),  # max == min
    ],
)
def test_kimi_length(weight, texts, lengths, expected):
    assert scores(KimiLength(weight=weight), texts, lengths) == pytest.approx(expected)


def test_kimi_length_warms_up_without_the_penalty():
    reward = KimiLength(weight=1.0, warmup_steps=5)
    for step, expected in ((4, [1.0, 1.0]), (5, [1.5, 0.5])):
        assert scores(reward, [RIGHT, RIGHT], [10, 30], trainer_state=SimpleNamespace(global_step=step)) == expected


@pytest.mark.parametrize(
    "reward, text, n, expected",
    [
        (CosineLength(100), RIGHT, 0, 1.0),
        (CosineLength(100), RIGHT, 50, 0.75),
        (CosineLength(100), RIGHT, 100, 0.5),
        (CosineLength(100), RIGHT, 300, 0.5),  # a cosine that is not clamped would rise again
        (CosineLength(100), WRONG, 0, -1.0),
        (CosineLength(100), WRONG, 50, -0.75),
        (CosineLength(100), WRONG, 100, -0.5),
        (CosineLength.preset("paper", max_length=100), RIGHT, 50, 1.5),
        (CosineLength.preset("paper", max_length=100), WRONG, 50, -5.0),
        (CosineLength.preset("paper", max_length=100), RIGHT, 100, -10.0),  # exceeding costs, right or wrong
        (CosineLength.preset("paper", max_length=100), WRONG, 99, 5 * (-1 - math.cos(0.99 * math.pi))),
    ],
)
def test_cosine_length(reward, text, n, expected):
    assert scores(reward, [text], [n]) == pytest.approx([expected])


@pytest.mark.parametrize("n", [0, 1, 33, 64, 100, 250])
@pytest.mark.parametrize("answer", ["4", "5"])
def test_cosine_length_is_trls_curve(n, answer):
    text = [[{"role": "assistant", "content": f"\\boxed{{{answer}}}"}]]
    theirs = get_cosine_scaled_reward(max_len=100)(completions=text, solution=["4"], completion_ids=[[1] * n])
    assert CosineLength(100)(completions=text, solution=["4"], completion_ids=[[1] * n]) == pytest.approx(theirs)


@pytest.mark.parametrize(
    "text, n, expected",
    [(RIGHT, 80, 1.0), (RIGHT, 90, 0.5), (RIGHT, 100, 0.0), (RIGHT, 101, 0.0), (WRONG, 85, -0.25), (WRONG, 500, -1.0)],
)
def test_soft_overlong(text, n, expected):
    assert scores(SoftOverlong(max_length=100, cache=20), [text], [n]) == pytest.approx([expected])


@pytest.mark.parametrize(
    "texts, lengths, expected",
    [
        ([RIGHT, RIGHT], [100, 300], [2.0, 1.8]),  # aim 100
        ([RIGHT, WRONG], [300, 100], [2.0, -0.2]),  # a shorter wrong one is no aim
        ([WRONG, WRONG], [100, 300], [-0.1, -0.1]),  # none right: the mean, 200
        ([WRONG, WRONG], [200, 200], [0.0, 0.0]),
        ([RIGHT, RIGHT, WRONG], [500, 500, 0], [2.0, 2.0, -0.5]),
    ],
)
def test_shortest_correct(texts, lengths, expected):
    assert scores(ShortestCorrect(), texts, lengths) == pytest.approx(expected)


@pytest.mark.parametrize(
    "reward, texts, lengths, expected",
    [
        (LengthBonus(targets=(20,)), [RIGHT, RIGHT], [20, 21], [1.5, 1.0]),
        (LengthBonus(targets=(20,)), [WRONG, NO_BOX], [5, 5], [-0.5, -1.0]),
        (LengthBonus(targets=(10, 20, 30)), [RIGHT, RIGHT, RIGHT], [10, 11, 30], [1.5, 1.0, 1.0]),  # easy: 10
        (LengthBonus(targets=(10, 20, 30)), [RIGHT, WRONG], [15, 15], [1.5, -0.5]),  # medium: 20
        (LengthBonus(targets=(10, 20, 30)), [RIGHT, WRONG, WRONG, WRONG], [25, 9, 9, 9], [1.5, -0.5, -0.5, -0.5]),
        (LengthBonus(targets=(20,), explore=True, ngram=30), [WRONG, WRONG], [21, 20], [0.0, -0.5]),
        (LengthBonus(targets=(20,), explore=True, ngram=4), [WRONG], [21], [-0.5]),  # the same id again and again
    ],
)
def test_length_bonus(reward, texts, lengths, expected):
    assert scores(reward, texts, lengths) == pytest.approx(expected)


@pytest.mark.parametrize(
    "reward, text, n, expected",
    [
        (Truncation(limit=20), RIGHT, 20, 1.0),
        (Truncation(limit=20), RIGHT, 21, 0.0),
        (Truncation(limit=20), WRONG, 5, 0.0),
        (Truncation(limit=20, beyond=0.1), RIGHT, 21, 0.1),
        (Truncation(ends=(2,)), RIGHT, 5, 0.0),  # its last id is 7: it was cut
        (Truncation(ends=(2, 7)), RIGHT, 5, 1.0),
        (Truncation(ends=(7,)), RIGHT, 0, 0.0),
        (Truncation(), RIGHT, 5000, 1.0),  # the cap does the cutting
    ],
)
def test_truncation(reward, text, n, expected):
    assert scores(reward, [text], [n]) == pytest.approx([expected])


def test_trap_dler_a_truncated_answer_is_never_cheaper_than_a_finished_wrong_one():
    # DLER's code multiplies by 0.1; with a scorer of -1 for wrong answers that would pay for truncation.
    reward = Truncation.preset("dler_released")
    for text in (RIGHT, WRONG):
        cut = Truncation(limit=1, beyond=reward.beyond)
        assert scores(cut, [text], [9])[0] >= scores(cut, [WRONG], [1])[0] == 0


@pytest.mark.parametrize(
    "texts, lengths, expected",
    [
        ([RIGHT, RIGHT], [10, 20], [0.9, 0.8]),  # always solved: the whole price
        ([RIGHT, WRONG], [10, 20], [0.95, -0.1]),  # half solved: half
        ([WRONG, WRONG], [10, 20], [-0.05, -0.1]),  # never solved: 1 / K
        ([RIGHT, WRONG, WRONG, WRONG], [40, 40, 40, 0], [0.9, -0.1, -0.1, 0.0]),
        ([RIGHT, RIGHT, RIGHT, WRONG], [20, 0, 40, 20], [0.85, 1.0, 0.7, -0.15]),
    ],
)
def test_solve_rate_penalty(texts, lengths, expected):
    assert scores(SolveRatePenalty(alpha=0.01), texts, lengths) == pytest.approx(expected)


@pytest.mark.parametrize(
    "slack, texts, lengths, expected",
    [
        (5, [RIGHT, RIGHT, RIGHT], [10, 15, 30], [1.5, 1.5, 0.5]),
        (0, [RIGHT, RIGHT, RIGHT], [10, 20, 30], [1.5, 1.0, 0.5]),
        (5, [RIGHT, WRONG], [30, 10], [1.5, 0.0]),  # min and max are over right ones
        (5, [WRONG, WRONG], [30, 10], [0.0, 0.0]),
        (100, [RIGHT, RIGHT], [10, 110], [1.5, 1.5]),
        (0, [RIGHT, RIGHT], [10, 10], [1.5, 1.5]),  # max == min
    ],
)
def test_slack_length(slack, texts, lengths, expected):
    assert scores(SlackLength(slack=slack), texts, lengths) == pytest.approx(expected)


@pytest.mark.parametrize("best, open_", [(0.5, True), (0.55, True), (0.56, False), (1.0, False)])
def test_slack_length_closes_when_accuracy_falls(best, open_):
    log = [{"rewards/correctness/mean": 0.1}, {"rewards/correctness/mean": best}, {"loss": 0.0}]
    state = SimpleNamespace(log_history=log)
    expected = [1.5, 0.0] if open_ else [1.0, 0.0]  # the batch's accuracy is 0.5
    assert scores(SlackLength(), [RIGHT, WRONG], [10, 20], trainer_state=state) == expected


@pytest.mark.parametrize("reward", GROUP_RELATIVE, ids=lambda reward: reward.__name__)
class TestGroups:
    def test_a_group_of_one_is_an_error(self, reward):
        with pytest.raises(ValueError, match="needs 2 or more completions of each prompt"):
            scores(reward, [RIGHT], [10])

    def test_groups_do_not_see_each_other(self, reward):
        texts, lengths = [RIGHT, WRONG, RIGHT, RIGHT], [10, 20, 400, 40]
        together = reward(
            prompts=["a", "a", "b", "b"],
            completions=texts,
            completion_ids=[[7] * n for n in lengths],
            solution=["4"] * 4,
        )
        assert together == scores(reward, texts[:2], lengths[:2]) + scores(reward, texts[2:], lengths[2:])

    def test_the_size_parts_the_same_prompt_asked_twice(self, reward):
        sized = type(reward)(**{**vars(reward), "group_size": 2})
        texts, lengths = [RIGHT, WRONG, RIGHT, RIGHT], [10, 20, 400, 40]
        apart = scores(reward, texts[:2], lengths[:2]) + scores(reward, texts[2:], lengths[2:])
        assert scores(sized, texts, lengths) == apart
        with pytest.raises(ValueError, match="needs 2 completions of each prompt"):
            scores(sized, texts[:3], lengths[:3])

    def test_the_order_within_a_group_does_not_matter(self, reward):
        texts, lengths = [RIGHT, WRONG, RIGHT], [10, 20, 30]
        assert scores(reward, texts[::-1], lengths[::-1]) == scores(reward, texts, lengths)[::-1]

    def test_an_unreadable_solution_is_no_opinion(self, reward):
        values = reward(prompts=["q"] * 2, completions=[RIGHT] * 2, completion_ids=[[1]] * 2, solution=["", "4"])
        assert values[0] is None and values[1] is not None

    def test_the_audit_can_tell_that_it_needs_whole_groups(self, reward):
        assert reward.group_relative


group = st.lists(st.tuples(st.booleans(), st.integers(1, 300)), min_size=2, max_size=8)


@given(group)
def test_a_longer_right_answer_never_earns_more(rows):
    texts, lengths = [RIGHT if right else WRONG for right, _ in rows], [n for _, n in rows]
    shortening = (GroupSigmoid(), KimiLength(), SlackLength(slack=20), ShortestCorrect(), SolveRatePenalty())
    for reward in (*shortening, Gr3(), GrpoLead(), TurnCost()):
        values = scores(reward, texts, lengths)
        paid = sorted((n, -value) for (right, n), value in zip(rows, values, strict=True) if right)
        assert all(a[1] <= b[1] + 1e-9 for a, b in zip(paid, paid[1:], strict=False))


@given(group)
def test_wrong_answers_never_earn_more_than_right_ones_of_their_length(rows):
    for name in sorted(set(REWARDS) - {"by_mode", "exact_length", "max_length"}):
        needed = {"cosine_length": {"max_length": 100}, "soft_overlong": {"max_length": 100, "cache": 20}}
        reward = make_reward({"name": name, **({"targets": [20]} if name == "length_bonus" else needed.get(name, {}))})
        columns = {"reference_length": [50.0] * len(rows), "reference_accuracy": [0.5] * len(rows)}
        columns |= {"reference_correct_lengths": [[40, 60]] * len(rows)}
        columns |= {"visual_tokens": [9] * len(rows), "full_visual_tokens": [64] * len(rows)}
        columns |= {"requested": [n > 50 for _, n in rows], "difficulty": [n % 10 for _, n in rows]}
        columns |= {"effort": [0.5] * len(rows)}
        for index, (_, n) in enumerate(rows):
            pair = []
            for text in (RIGHT, WRONG):
                texts = [RIGHT if right else WRONG for right, _ in rows]
                texts[index] = text
                pair.append(scores(reward, texts, [length for _, length in rows], **columns)[index])
            assert pair[0] >= pair[1], (name, n)


@pytest.mark.parametrize(
    "spec, message",
    [
        ({"name": "length_efficiency", "accuracy_weight": -1}, "length_efficiency.accuracy_weight"),
        ({"name": "length_efficiency", "normalise": "both"}, "length_efficiency.normalise"),
        ({"name": "length_efficiency", "low": 1, "high": 0}, "low must not be above high"),
        ({"name": "group_sigmoid", "alpha": 1.5}, "group_sigmoid.alpha"),
        ({"name": "kimi_length", "group_size": 1}, "kimi_length.group_size must be 2 or more"),
        ({"name": "cosine_length"}, "max_length"),
        ({"name": "cosine_length", "max_length": 0}, "cosine_length.max_length"),
        ({"name": "soft_overlong", "max_length": 10, "cache": 10}, "soft_overlong.cache"),
        ({"name": "length_bonus", "targets": [1, 2]}, "one length, or three"),
        ({"name": "length_bonus", "targets": []}, "one length, or three"),
        ({"name": "format_diversity", "markers": []}, "format_diversity.markers"),
        ({"name": "truncation", "limit": 0}, "truncation.limit"),
        ({"name": "truncation", "beyond": 2}, "truncation.beyond"),
        ({"name": "solve_rate_penalty", "alpha": float("inf")}, "solve_rate_penalty.alpha"),
        ({"name": "slack_length", "tolerance": -0.1}, "slack_length.tolerance"),
        ({"name": "shorter_better"}, "no reward is named 'shorter_better'"),
    ],
)
def test_a_wrong_reward_in_yaml_is_one_clear_line(spec, message):
    with pytest.raises(ValueError, match=message) as raised:
        make_reward(spec)
    assert "\n" not in str(raised.value)
