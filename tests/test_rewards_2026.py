"""The length rewards of 2026 against values worked out by hand, the traps of their papers, and what they remember."""

import json
import math
from types import SimpleNamespace

import pytest
from trl import GRPOConfig

from rlred.checks.audit import audit_rewards
from rlred.rewards import (
    ByMode,
    Correctness,
    DuplicatedReasoning,
    Gr3,
    GrpoLead,
    Laconic,
    Lead,
    LengthMask,
    Toggle,
    TurnCost,
    make_reward,
)
from rlred.runs.arguments import parse
from rlred.runs.grpo import make_rewards, run
from rlred.tiny import resolve_model
from tests.paths import ROOT
from tests.test_length_rewards import NO_BOX, RIGHT, WRONG, scores


def at(step):
    return {"trainer_state": SimpleNamespace(global_step=step, log_history=[])}


def ungraded(reward, **columns):
    """The values of a group of which nothing can be graded."""
    rows = {"prompts": ["q"] * 2, "completions": [RIGHT, WRONG], "completion_ids": [[7] * 9, [7] * 90]}
    return reward(**rows, solution=[""] * 2, **columns)


@pytest.mark.parametrize(
    "texts, lengths, reference, step, expected",
    [
        ([RIGHT, RIGHT], [20, 21], [10, 20], 0, [1.0, 0.0]),  # n = budget is within it
        ([RIGHT, RIGHT], [20, 21], [10, 20], 19, [1.0, 0.0]),
        ([RIGHT, RIGHT], [20, 21], [10, 20], 20, [1.0, 1.0]),  # the phase without a budget
        ([RIGHT, RIGHT], [20, 21], [10, 20], 40, [1.0, 0.0]),
        ([RIGHT, WRONG], [99, 5], [20], 0, [0.0, 0.0]),  # half are correct: not below the threshold
        ([RIGHT, WRONG, WRONG], [99, 5, 5], [20], 0, [1.0, 0.0, 0.0]),  # mostly incorrect: no budget
        ([WRONG, WRONG], [99, 5], [20], 0, [0.0, 0.0]),  # all incorrect
        ([RIGHT, RIGHT], [99, 999], [], 0, [1.0, 1.0]),  # never solved by the reference: no budget
        ([RIGHT, RIGHT], [900, 999], [20], 0, [0.0, 0.0]),  # all correct, all too long
    ],
)
def test_toggle(texts, lengths, reference, step, expected):
    reward = Toggle(quantile=1.0)
    columns = {"reference_correct_lengths": [reference] * len(texts), **at(step)}
    assert scores(reward, texts, lengths, **columns) == expected


@pytest.mark.parametrize("quantile, budget", [(0.0, 10), (0.5, 20), (0.75, 30), (1.0, 50)])
def test_toggles_budget_is_a_percentile_of_the_correct_lengths(quantile, budget):
    columns = {"reference_correct_lengths": [[10, 20, 50, 10, 30]] * 2, **at(0)}  # 10 10 20 30 50
    assert scores(Toggle(quantile=quantile), [RIGHT] * 2, [budget, budget + 1], **columns) == [1.0, 0.0]


def test_toggle_names_the_column_that_is_missing():
    for absent in ({}, {"reference_correct_lengths": [None, [3]]}):
        with pytest.raises(ValueError, match="needs the column 'reference_correct_lengths'.*rlred reference"):
            scores(Toggle(), [RIGHT] * 2, [9, 9], **absent)
    assert ungraded(Toggle(), reference_correct_lengths=[[9]] * 2) == [None, None]


@pytest.mark.parametrize(
    "alpha, texts, lengths, expected",
    [
        (1.0, [RIGHT, RIGHT], [10, 30], [2 / 3, 0.4]),  # 1 / (1 + 10/20), 1 / (1 + 30/20)
        (0.33, [RIGHT, RIGHT], [20, 20], [1 / 1.33, 1 / 1.33]),
        (1.0, [RIGHT, WRONG], [10, 30], [2 / 3, 0.0]),  # the mean is over all
        (1.0, [WRONG, WRONG], [1, 30], [0.0, 0.0]),  # trap: a short incorrect answer earns nothing
        (0.0, [RIGHT, RIGHT], [10, 30], [1.0, 1.0]),
        (1.0, [RIGHT, RIGHT], [0, 0], [1.0, 1.0]),  # all of them empty
    ],
)
def test_gr3(alpha, texts, lengths, expected):
    assert scores(Gr3(alpha=alpha), texts, lengths) == pytest.approx(expected)
    assert ungraded(Gr3()) == [None, None]


E = math.e
Z = 1 / math.sqrt(2)  # of two: the sample std of 9 and 11 is sqrt(2)


@pytest.mark.parametrize(
    "alpha, texts, lengths, expected",
    [
        (1.0, [RIGHT, RIGHT], [9, 11], [E**Z, E**-Z]),
        (1.0, [RIGHT, RIGHT, WRONG], [9, 11, 500], [E**Z, E**-Z, -1.0]),  # incorrect ones do not count in the mean
        (1.0, [RIGHT, RIGHT, RIGHT], [10, 20, 30], [E, 1.0, 1 / E]),  # z = -1, 0, 1
        (0.05, [RIGHT, WRONG], [900, 5], [1.0, -1.0]),  # the only correct one
        (1.0, [RIGHT, RIGHT], [20, 20], [1.0, 1.0]),  # no spread
        (1.0, [WRONG, WRONG], [5, 900], [-1.0, -1.0]),  # all incorrect: no length in it
        (0.0, [RIGHT, RIGHT], [9, 11], [1.0, 1.0]),
    ],
)
def test_grpo_lead(alpha, texts, lengths, expected):
    assert scores(GrpoLead(alpha=alpha), texts, lengths) == pytest.approx(expected, rel=1e-5)
    assert ungraded(GrpoLead()) == [None, None]


def test_grpo_leads_first_version_has_no_penalty():
    assert scores(GrpoLead(incorrect=0.0), [RIGHT, WRONG], [9, 9]) == [1.0, 0.0]


S3 = 1 / math.sqrt(3)


@pytest.mark.parametrize(
    "initial, texts, lengths, expected",
    [
        # L = 20, e = 0.5, 1, 0.5, of mean 2/3 and std 0.2887; all correct, so that z(c) = 0.
        (0.5, [RIGHT] * 3, [10, 20, 30], [-S3 / 2, S3, -S3 / 2]),
        (0.5, [RIGHT, WRONG], [20, 20], [Z / 2, -Z / 2]),  # e is the same
        (0.5, [RIGHT, WRONG], [20, 30], [Z, -Z]),  # e = 1 and 0.5
        (0.5, [WRONG, WRONG], [40, 80], [-Z / 2, Z / 2]),  # all incorrect: L = high, and longer is nearer
        (1.0, [RIGHT, RIGHT], [10, 30], [0.0, 0.0]),  # all correct, and the weight of e is 0
        (0.0, [RIGHT, WRONG], [20, 20], [0.3 * Z, -0.3 * Z]),  # the floor
        (0.5, [RIGHT, RIGHT], [2, 2], [0.0, 0.0]),  # below `low`: L = 10, both e = 0.2
    ],
)
def test_lead(initial, texts, lengths, expected):
    reward = Lead(low=10, high=80, initial=initial)
    assert scores(reward, texts, lengths) == pytest.approx(expected, abs=1e-4)
    assert ungraded(reward) == [None, None]


def test_leads_target_is_that_of_its_released_code_by_hand():
    # One group: grades 1, 0, of mean 0.5 and std 0.5; e of the correct one 0.5, whose std is the code's floor, 1e-4.
    # CV 1 and 2e-4: shares 0.9998 and 0.0002; potentials 0.5 and 0.25.
    expected = 0.9998 * 0.5 / (0.9998 * 0.5 + 0.0002 * 0.25)
    assert Lead().target_weight([[1.0, 0.0]], [[0.5]]) == pytest.approx(expected, abs=1e-6)
    # Two groups, all correct in one: means 1 and 0.5, variances 0 and 0.25: std sqrt(0.125 + 0.0625). e: means 0.5, 1.
    cv_c, cv_e = math.sqrt(0.1875) / 0.75, math.sqrt(0.0625) / 0.75
    d_c, d_e = cv_c * 0.25, cv_e * (1 - 1.75 / 2)
    found = Lead().target_weight([[1.0, 1.0], [1.0, 0.0]], [[0.5, 0.5], [1.0]])
    assert found == pytest.approx(d_c / (d_c + d_e), abs=1e-4)
    assert Lead().target_weight([[0.0, 0.0]], []) == pytest.approx(1, abs=1e-6)  # none correct
    assert Lead().target_weight([[1.0, 1.0]], [[1.0, 1.0]]) == 0  # nothing left to gain in either


@pytest.mark.parametrize(
    "log, expected",
    [
        ([], 0.5),
        ([{"step": 1, "loss": 0.1}], 0.5),
        ([{"step": 1, "lead/correctness_weight": 0.5, "lead/target_weight": 1.0}], 0.525),  # .95 * .5 + .05
        ([{"step": 2, "lead/correctness_weight": 0.5, "lead/target_weight": 1.0}], 0.54875),  # of two steps
        (
            [
                {"step": 1, "lead/correctness_weight": 0.5, "lead/target_weight": 0.0},
                {"step": 2, "lead/correctness_weight": 0.475, "lead/target_weight": 0.0},
                {"step": 2, "loss": 0.1},
            ],
            0.45125,
        ),
    ],
)
def test_lead_remembers_its_weight_in_the_log(log, expected):
    state = SimpleNamespace(log_history=json.loads(json.dumps(log)))
    assert Lead().weight_at(state) == pytest.approx(expected)


def test_lead_logs_the_weight_that_it_had_and_where_it_is_to_go():
    logged = {}
    scores(Lead(low=1), [RIGHT, WRONG], [9, 9], log_metric=logged.__setitem__)
    assert logged == {"lead/correctness_weight": 0.5, "lead/target_weight": pytest.approx(1.0, abs=1e-3)}
    ungraded(Lead(), log_metric=lambda *_: pytest.fail("nothing was graded"))


@pytest.mark.parametrize(
    "multiplier, text, n, expected",
    [
        (0.5, RIGHT, 20, 1.0),  # n = budget is free
        (0.5, RIGHT, 21, 1 - 0.5 / 20),
        (0.5, RIGHT, 40, 0.5),  # twice the budget: all of lambda
        (0.5, WRONG, 40, -0.5),
        (0.5, WRONG, 5, 0.0),  # trap: a linear cost would pay a short incorrect answer
        (0.5, RIGHT, 5, 1.0),
        (0.0, RIGHT, 900, 1.0),  # before the controller has moved
        (1.0, RIGHT, 80, -2.0),
    ],
)
def test_laconic(multiplier, text, n, expected):
    assert scores(Laconic(budget=20, initial=multiplier), [text], [n]) == pytest.approx([expected])
    assert ungraded(Laconic(budget=20, initial=1.0)) == [None, None]


def entry(step, multiplier, ratio):
    return {"step": step, "laconic/20/multiplier": multiplier, "laconic/20/length_ratio": ratio}


@pytest.mark.parametrize(
    "log, expected",
    [
        ([], 0.1),
        ([entry(1, 0.1, 3.0)], 0.3),  # too long by two budgets: + 0.1 * 2
        ([entry(1, 0.1, 3.0), entry(2, 0.3, 0.5), {"step": 2, "loss": 0.1}], 0.25),
        ([entry(1, 0.1, 3.0), entry(5, 0.3, 1.5)], 0.5),  # four steps in one entry
        ([entry(1, 0.1, 0.0)], 0.0),
        ([entry(1, 0.05, 0.0)], 0.0),  # not below 0
        ([entry(1, 0.9, 9.0)], 1.0),  # not above the ceiling
        ([{"step": 1, "laconic/30/multiplier": 0.9, "laconic/30/length_ratio": 9.0}], 0.1),  # another budget's
    ],
)
def test_laconics_price_is_in_the_log(log, expected):
    state = SimpleNamespace(log_history=json.loads(json.dumps(log)))
    assert Laconic(budget=20, rate=0.1, initial=0.1).multiplier_at(state) == pytest.approx(expected)


def test_two_budgets_in_one_run_have_a_price_each():
    logged = {}
    reward = ByMode(exact=Laconic(budget=20), max=Laconic(budget=40, initial=0.5))
    columns = {"solution": ["4"] * 2, "mode": ["exact", "max"], "budget": [9, 9]}
    values = reward([RIGHT] * 2, [[7] * 30, [7] * 60], **columns, log_metric=logged.__setitem__)
    assert values == [1.0, 0.75]
    assert logged == {
        "laconic/20/multiplier": 0.0,
        "laconic/20/length_ratio": 1.5,
        "laconic/40/multiplier": 0.5,
        "laconic/40/length_ratio": 1.5,
    }


@pytest.mark.parametrize(
    "completion, expected",
    [
        ("so \\boxed{4}</think>so \\boxed{4}", 0.0),
        ("<think>\n\\boxed{4}\n</think>\n\n\\boxed{4}\n", 0.0),  # white space and the opening tag do not count
        ("2+2=4 </think>\\boxed{4}", 1.0),
        ("\\boxed{5}</think>\\boxed{5}", 0.0),  # incorrect anyway
        ("</think>\\boxed{4}", 1.0),  # no thinking, nothing said twice
        ("\\boxed{4}", 1.0),  # no end of thinking
        ("\\boxed{4}</think>", 0.0),  # trap: an empty answer is no duplicate; it is incorrect
        ([{"role": "assistant", "content": "\\boxed{4}", "reasoning_content": " \\boxed{4}"}], 0.0),
        ([{"role": "assistant", "content": "\\boxed{4}", "reasoning_content": "2+2"}], 1.0),
        ([{"role": "assistant", "content": "a \\boxed{4}</think>a \\boxed{4}"}], 0.0),
        ([], 0.0),
    ],
)
def test_duplicated_reasoning(completion, expected):
    reward = DuplicatedReasoning()
    assert reward([completion], solution=["4"]) == [expected]
    assert reward([completion], solution=[""]) == [None]


def test_duplicated_reasoning_follows_the_end_of_thinking_of_its_correctness():
    reward = DuplicatedReasoning(correctness=Correctness(end_of_thinking="[/THINK]"))
    texts = ["[THINK]\\boxed{4}[/THINK]\\boxed{4}", "\\boxed{4}</think>\\boxed{4}"]
    assert reward(texts, solution=["4"] * 2) == [0.0, 1.0]


@pytest.mark.parametrize(
    "texts, lengths, columns, expected",
    [
        ([RIGHT, RIGHT], [10, 20], {}, [1 - 0.325, 1 - 0.45]),  # input and turns are alike: 0.1 each
        ([RIGHT, WRONG], [10, 20], {}, [1 - 0.325 / 2, -0.45 / 2]),  # half solved
        ([WRONG, WRONG], [10, 20], {}, [0.0, 0.0]),  # never solved: no cost
        ([RIGHT, RIGHT], [10, 20], {"input_tokens": [5, 10]}, [1 - 0.275, 1 - 0.45]),
        ([RIGHT, RIGHT], [20, 20], {"turns": [1, 4]}, [1 - 0.375, 1 - 0.45]),
        ([RIGHT, RIGHT], [0, 0], {}, [0.8, 0.8]),  # nothing written
        ([RIGHT, RIGHT], [20, 20], {"input_tokens": [0, 0]}, [0.65, 0.65]),
    ],
)
def test_turn_cost(texts, lengths, columns, expected):
    assert scores(TurnCost(), texts, lengths, **columns) == pytest.approx(expected)
    assert ungraded(TurnCost()) == [None, None]


def test_turns_are_counted_from_the_messages():
    once = [{"role": "assistant", "content": RIGHT}]
    twice = [{"role": "assistant", "content": "?"}, {"role": "tool", "content": "4"}, *once]
    reward, rows = TurnCost(output=0, turns=0.2), {"solution": ["4"] * 2, "input_tokens": [10, 20]}
    assert reward(["q"] * 2, [once, twice], [[7]] * 2, **rows) == pytest.approx([1 - 0.05 - 0.1, 1 - 0.1 - 0.2])
    with pytest.raises(ValueError, match="needs the column 'input_tokens' where completions hold tools' messages"):
        reward(["q"] * 2, [once, twice], [[7]] * 2, solution=["4"] * 2)
    unread = TurnCost(output=0, input=0, turns=0.2)
    assert unread(["q"] * 2, [once, twice], [[7]] * 2, solution=["4"] * 2) == [0.9, 0.8]


GROUP = ([RIGHT, RIGHT, WRONG, WRONG], [20, 21, 20, 21])  # the paper's columns: correct short, long; incorrect ...


@pytest.mark.parametrize(
    "masked, expected",
    [
        ((), [1.0, 0.0, 0.0, 0.0]),  # vanilla
        (("incorrect_short", "incorrect_long"), [1.0, 0.0, None, None]),
        (("correct_long",), [1.0, None, 0.0, 0.0]),
        (("correct_long", "incorrect_short"), [1.0, None, None, 0.0]),
        (("correct_long", "incorrect_long"), [1.0, None, 0.0, None]),
    ],
)
def test_length_mask_is_the_table_of_its_paper(masked, expected):
    reward = LengthMask(limit=20, masked=masked)
    assert scores(reward, *GROUP) == expected
    assert scores(reward, [NO_BOX], [20]) == [expected[2]]
    assert ungraded(reward) == [None, None]


def findings(rewards, tmp_path):
    training = GRPOConfig(
        str(tmp_path), per_device_train_batch_size=4, num_generations=4, use_cpu=True, bf16=False, report_to="none"
    )
    return [(one.level, one.field, one.value) for one in audit_rewards(training, rewards, {"free", "max"})]


@pytest.mark.parametrize(
    "masked, expected",
    [
        ((), []),
        (("correct_long",), []),
        (("incorrect_long",), []),
        (("incorrect_short", "incorrect_long"), ["reward.masked"]),
        (("correct_long", "incorrect_short"), ["reward.masked"]),
        (("correct_long", "incorrect_long"), ["reward.masked"]),
    ],
)
def test_trap_the_audit_says_what_a_mask_teaches(masked, expected, tmp_path):
    reward = LengthMask(limit=20, masked=masked)
    for one in (reward, ByMode(max=reward)):
        assert [field for _, field, _ in findings([one], tmp_path)] == expected
    assert findings([ByMode(exact=reward)], tmp_path) == []  # no row of that mode is drawn


def test_trap_a_second_opinion_would_bring_masked_completions_back(tmp_path):
    mask, vanilla = LengthMask(limit=20), LengthMask(limit=20, masked=())
    for reward in (mask, ByMode(max=mask)):
        assert ("error", "reward", "length_mask") in findings([reward, Correctness()], tmp_path)
        assert findings([reward], tmp_path) == []
    assert findings([vanilla, Correctness()], tmp_path) == []
    names = {"length_mask": 1, '{"name":"length_mask","masked":[]}': 2, "gr3": 2}
    for spec, count in names.items():
        arguments = SimpleNamespace(reward=json.loads(spec) if spec.startswith("{") else spec)
        assert len(make_rewards(arguments, GRPOConfig(str(tmp_path), use_cpu=True, bf16=False))) == count
    logged = {}
    scores(mask, *GROUP, log_metric=logged.__setitem__)
    assert logged == {"rewards/correctness/mean": 0.5}


@pytest.mark.parametrize(
    "spec, message",
    [
        ({"name": "toggle", "accuracy": 2}, "toggle.accuracy must be between 0 and 1, got 2"),
        ({"name": "toggle", "quantile": -1}, "toggle.quantile"),
        ({"name": "toggle", "every": 0}, "toggle.every must be 1 or more, got 0"),
        ({"name": "gr3", "alpha": -1}, "gr3.alpha"),
        ({"name": "gr3", "group_size": 1}, "gr3.group_size must be 2 or more"),
        ({"name": "grpo_lead", "incorrect": 0.5}, "grpo_lead.incorrect"),
        ({"name": "lead", "low": 9, "high": 8}, "lead.low must be above 0 and at most lead.high, got 9 and 8"),
        ({"name": "lead", "momentum": 1.5}, "lead.momentum"),
        ({"name": "laconic", "budget": 0}, "laconic.budget"),
        ({"name": "laconic", "initial": 2.0}, r"laconic.initial must be between 0 and laconic.ceiling \(1.0\)"),
        ({"name": "laconic", "rate": float("nan")}, "laconic.rate"),
        ({"name": "turn_cost", "turns": -0.1}, "turn_cost.turns"),
        ({"name": "length_mask", "masked": ["correct_short"]}, "length_mask.masked must name some of correct_long"),
        ({"name": "length_mask", "limit": 0}, "length_mask.limit"),
    ],
)
def test_a_wrong_parameter_is_one_clear_line(spec, message):
    with pytest.raises(ValueError, match=message) as raised:
        make_reward(spec)
    assert "\n" not in str(raised.value)


def trained(tmp_path, reward, *more):
    words = "--num_questions 16 --evaluate false --hindsight false --per_device_train_batch_size 8 --num_generations 4"
    words += (
        ' --lora_r 4 --logging_steps 1 --save_steps 1 --warmup_steps 0 --modes {"free":1} --max_completion_length 80'
    )
    base = ["--model_name_or_path", resolve_model("tiny_reasoner"), "--output_dir", str(tmp_path / "run")]
    flags = [*words.split(), *base, "--lr_scheduler_type", "constant", "--reward", json.dumps(reward), *more]
    run(*parse(ROOT / "recipes" / "l1_maxlen.yaml", flags), tmp_path)
    return json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]


def test_laconics_price_moves_by_its_rule_and_goes_on_after_a_resume(tmp_path):
    reward = {"name": "by_mode", "free": {"name": "laconic", "budget": 20, "rate": 0.1}}
    multiplier, ratio = Laconic(budget=20).logged

    def prices(log):
        return [(one["step"], one[multiplier], one[ratio]) for one in log if multiplier in one]

    first = prices(trained(tmp_path, reward, "--max_steps", "2"))
    again = prices(trained(tmp_path, reward, "--max_steps", "4", "--resume_from_checkpoint", "true"))
    assert [step for step, *_ in again] == [1, 2, 3, 4] and again[:2] == first and first[0][1] == 0
    for (_, before, used), (_, after, _) in zip(again, again[1:], strict=False):
        assert used > 1 and after == pytest.approx(before + 0.1 * (used - 1), abs=1e-6)


def test_toggle_trains_on_the_lengths_that_the_run_samples_for_it(tmp_path):
    log = trained(tmp_path, {"name": "toggle", "every": 1}, "--max_steps", "2", "--reference_samples", "2")
    assert [one["step"] for one in log if "rewards/toggle/mean" in one] == [1, 2]
    rows = [json.loads(line) for line in (tmp_path / "run" / "reference.jsonl").read_text().splitlines()]
    for row in rows:
        lengths = row["reference_correct_lengths"]
        assert len(lengths) == 2 * row["reference_accuracy"] and lengths == sorted(lengths)


def test_a_masked_run_trains_alone_and_logs_its_accuracy(tmp_path):
    log = trained(tmp_path, {"name": "length_mask", "limit": 30}, "--max_steps", "1")
    [one] = [one for one in log if "rewards/length_mask/mean" in one]
    assert 0 <= one["rewards/correctness/mean"] <= 1
