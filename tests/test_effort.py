"""Efforts: worded, drawn, rewarded, relabelled, measured and audited; the traps of a length without a number."""

import json
import random
import re

import pytest
from datasets import Dataset
from transformers import AutoTokenizer
from trl import GRPOConfig

from rlred.checks.audit import audit_config
from rlred.checks.audit_efforts import audit_effort_rows, audit_start
from rlred.cli import main as rlred
from rlred.data.budgets import EFFORTS, BudgetSampler, Wording, ask, effort_of, make_wording, training_rows
from rlred.data.prompts import Prompts
from rlred.evaluation.calibration import calibration
from rlred.evaluation.conditions import budget_conditions
from rlred.evaluation.measures import measure, step_metrics
from rlred.evaluation.report import adherence
from rlred.evaluation.results import to_markdown
from rlred.evaluation.settings import Evaluation
from rlred.publish.template import Variables, budget_template
from rlred.rewards import ByMode, Correctness, EffortLength, ExactLength, Length, MaxLength, make_reward
from rlred.runs.arguments import parse
from rlred.tiny import resolve_model
from rlred.training.hindsight_settings import Hindsight
from rlred.training.relabelling import check_traces_per_question, efforts_of, own_lengths, relabel
from tests.paths import ROOT
from tests.test_prompts import byte_tokenizer
from tests.test_template import CHAT, text_of

RIGHT, WRONG = "2+2</think>\\boxed{4}", "</think>\\boxed{5}"
QUESTIONS = Dataset.from_list([{"question_id": i, "question": f"{i}+1=?", "solution": str(i + 1)} for i in range(10)])


# --- words and rows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "effort, written",
    [("low", 25), ("medium", 50), ("high", 100), (" High ", 100), (0.37, 37), ("0.37", 37), (1, 100), (0.001, 1)],
)
def test_an_effort_is_worded_in_whole_hundredths(effort, written):
    assert Wording().ask("1+1=?", effort, "effort").endswith(f" Think with effort {written} of 100.")


@pytest.mark.parametrize(
    "effort", [0, -0.1, 1.01, 50, True, None, "extreme", "", float("nan"), float("inf"), [0.5], "-1"], ids=repr
)
def test_what_is_no_effort_is_refused_in_one_line(effort):
    with pytest.raises(
        ValueError, match="effort must be low, medium, high, or a number above 0 and at most 1"
    ) as raised:
        Wording().ask("1+1=?", effort, "effort")
    assert repr(effort) in str(raised.value) and "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="effort must be"):
        effort_of(effort)


@pytest.mark.parametrize(
    "templates, message",
    [
        ({"effort": "{question} Try hard."}, r"wording.effort needs the placeholder \{effort\}"),
        ({"effort": "{question} {budget} {effort}"}, r"wording.effort must not contain the placeholder \{budget\}"),
        ({"exact": "{question} {budget} {effort}"}, r"wording.exact must not contain the placeholder \{effort\}"),
        ({"free": "{question} {effort}"}, r"wording.free must not contain the placeholder \{effort\}"),
        ({"effort": "{effort}"}, r"wording.effort has no \{question\}"),
        ({"free": "{question} {effort:03}"}, r"wording.free must not contain the placeholder \{effort\}"),
        ({"effort": "{question} {effort:02}"}, r"wording.effort needs the placeholder \{effort\}"),
    ],
)
def test_a_wording_of_efforts_says_the_effort_and_no_other_does(templates, message):
    with pytest.raises(ValueError, match=message):
        make_wording(templates)


@pytest.mark.parametrize("effort, told", [(0.001, "001"), (0.1, "010"), ("low", "025"), (1, "100")])
def test_three_digits_tell_a_tenth_from_the_whole_by_the_first_of_them(effort, told):
    assert Wording(effort="{question} Spend {effort:03}.").ask("1+1=?", effort, "effort") == f"1+1=? Spend {told}."


@pytest.mark.parametrize("budget, told", [(7, "007"), (17, "017"), (104, "104"), (4096, "4096")])
def test_a_budget_of_three_digits_or_more(budget, told):
    assert Wording(max="{question} Spend {budget:03}.").ask("1+1=?", budget, "max") == f"1+1=? Spend {told}."


def test_a_question_that_holds_the_placeholder_keeps_its_text():
    assert "what is {effort} of {budget}?" in Wording().ask("what is {effort} of {budget}?", 0.5, "effort")


def test_efforts_are_drawn_afresh_side_by_side_and_beside_budgets():
    sampler = BudgetSampler(16, 64, modes={"effort": 2, "max": 1}, effort_low=0.2)
    rows = training_rows(QUESTIONS, Wording(), sampler, num_rows=60, budgets_per_question=3, seed=0)
    assert rows["question_id"][::3] == rows["question_id"][1::3] == rows["question_id"][2::3]
    efforts = [row["effort"] for row in rows if row["mode"] == "effort"]
    assert 25 < len(efforts) < 55 and min(efforts) >= 0.2 and max(efforts) <= 1 and len(set(efforts)) > 15
    for row in rows:
        assert (row["budget"] is None) == (row["mode"] == "effort") != (row["effort"] is None)
        number = round(100 * row["effort"]) if row["effort"] else row["budget"]
        assert re.search(rf"\b{number}\b", row["prompt"][0]["content"].rpartition("Think")[2])


def test_named_efforts_are_drawn_and_a_run_without_efforts_has_no_column_of_them():
    sampler = BudgetSampler(modes={"effort": 1}, efforts=("low", "high", 0.7))
    assert {sampler.draw(random.Random(seed)) for seed in range(40)} == {("effort", e) for e in (0.25, 0.7, 1.0)}
    assert sampler.effort_grid(3) == [0.25, 0.7, 1.0]
    assert "effort" not in training_rows(QUESTIONS, Wording(), BudgetSampler(), num_rows=4).column_names
    [row] = ask([{"question": "1+1=?"}], Wording(), [("effort", "medium")])
    assert (row["effort"], row["budget"], row["mode"]) == (0.5, None, "effort")
    with pytest.raises(ValueError, match="^efforts must be"):
        BudgetSampler(efforts=("low", "hard"))


# --- the reward -------------------------------------------------------------------------------------------------------


def scores(reward, texts, lengths, efforts, own=(), questions=None):
    """The values of completions of these lengths; `own` are the reference's correct lengths, of all of them."""
    return reward(
        prompts=["q"] * len(texts),
        completions=texts,
        completion_ids=[[7] * n for n in lengths],
        solution=["4"] * len(texts),
        effort=efforts,
        reference_correct_lengths=[list(own)] * len(texts),
        question_id=questions,
    )


E1, K3 = EffortLength.preset("e1"), EffortLength.preset("kimi_k3")
SMOOTH = EffortLength(alpha=2.0, quantile=None)  # own 40, effort 0.5: 20 tokens; 1 at 15 and below, 0 from 25 on


@pytest.mark.parametrize(
    "reward, texts, lengths, efforts, own, expected",
    [
        # The reference: T = 40.
        (EffortLength(quantile=None), [RIGHT] * 2, [20, 21], [0.5, 0.5], [30, 50], [1.0, 0.0]),  # n = e T is within
        (EffortLength(quantile=None), [RIGHT] * 3, [20] * 3, [0.25, 0.5, 1.0], [40], [0.0, 1.0, 1.0]),  # mixed
        (EffortLength(quantile=None), [RIGHT] * 2, [7, 8], [0.7, 0.7], [10], [1.0, 0.0]),  # 0.7 * 10 = 6.99...
        (EffortLength(), [RIGHT] * 2, [40, 41], [1, 1], [10, 20, 30, 40, 50], [1.0, 0.0]),  # the third quartile
        (EffortLength(quantile=None), [WRONG] * 2, [5, 900], [0.5, 0.5], [40], [0.0, 0.0]),  # trap: all incorrect
        (EffortLength(quantile=None), [RIGHT, WRONG], [900, 900], [None, None], [40], [1.0, 0.0]),  # no effort
        (EffortLength(quantile=None), [RIGHT, WRONG], [900, 900], [0.1, 0.1], [], [1.0, 0.0]),  # trap: T missing
        # The group: T = the mean of all.
        (E1, [RIGHT] * 2, [10, 30], [1.0, 1.0], [], [1.0, 0.0]),  # T = 20
        (E1, [RIGHT] * 4, [10, 10, 30, 30], [0.5, 1.0, 0.5, 1.0], [], [1.0, 1.0, 0.0, 0.0]),  # mixed in one group
        (E1, [RIGHT, WRONG], [10, 30], [0.5, 0.5], [], [1.0, 0.0]),  # incorrect ones count in the mean: T = 20
        (E1, [WRONG] * 2, [1, 99], [0.5, 0.5], [], [0.0, 0.0]),  # trap: short and incorrect earns nothing
        (E1, [RIGHT] * 2, [10, 30], [None, 0.5], [], [1.0, 0.0]),  # a row without one, in the same group
        # Kimi K3: -1 beyond the limit, for correct and incorrect alike.
        (K3, [RIGHT, RIGHT, WRONG, WRONG], [20, 21, 20, 21], [0.5] * 4, [40], [1.0, -1.0, 0.0, -1.0]),
        (K3, [RIGHT, WRONG], [99, 99], [0.5, 0.5], [], [1.0, 0.0]),  # T missing: no -1 either
        # The ramp: 2 (1 - n / 20) + 1 / 2.
        (SMOOTH, [RIGHT] * 5, [10, 15, 20, 22, 25], [0.5] * 5, [40], [1.0, 1.0, 0.5, 0.3, 0.0]),
        (SMOOTH, [WRONG] * 2, [10, 25], [0.5] * 2, [40], [0.0, 0.0]),
        (EffortLength(alpha=2.0, over=-1.0), [RIGHT, WRONG], [20, 20], [0.5] * 2, [40], [0.0, -0.5]),  # half way to -1
    ],
)
def test_effort_length(reward, texts, lengths, efforts, own, expected):
    assert scores(reward, texts, lengths, efforts, own) == pytest.approx(expected)


def test_the_group_is_the_question_and_not_the_prompt():
    lengths, efforts = [10, 10, 40, 40], [0.5, 0.5, 1.0, 1.0]
    told = {"texts": [RIGHT] * 4, "lengths": lengths, "efforts": efforts}
    assert scores(E1, **told, questions=[3, 3, 3, 3]) == [1.0, 1.0, 0.0, 0.0]  # T = 25
    assert scores(E1, **told, questions=[3, 3, 4, 4]) == [0.0, 0.0, 1.0, 1.0]  # T = 10 and 40: each sets its own


def test_what_cannot_be_graded_is_none_and_a_missing_column_is_named():
    reward = EffortLength()
    rows = {"prompts": ["q"] * 2, "completions": [RIGHT] * 2, "completion_ids": [[7] * 9] * 2, "effort": [0.5, 0.5]}
    assert reward(**rows, solution=["", ""], reference_correct_lengths=[[40]] * 2) == [None, None]
    for absent in ({}, {"reference_correct_lengths": [[40], None]}):
        with pytest.raises(ValueError, match="needs the column 'reference_correct_lengths'.*rlred reference"):
            reward(**rows, solution=["4"] * 2, **absent)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"of": "batch"}, "effort_length.of must be 'reference' or 'group', got 'batch'"),
        ({"quantile": 1.5}, "effort_length.quantile must be between 0 and 1, got 1.5"),
        ({"delta": -0.1}, "effort_length.delta must be between 0 and 1"),
        ({"over": 0.5}, "effort_length.over must be between -1 and 0, got 0.5"),
        ({"over": -2}, "effort_length.over"),
        ({"alpha": -1}, "effort_length.alpha"),
        ({"preset": "k4"}, "effort_length has no preset 'k4'"),
    ],
)
def test_a_reward_of_wrong_constants_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_reward({"name": "effort_length", **changes})


def test_one_adapter_takes_efforts_beside_budgets():
    reward = make_reward({"name": "by_mode", "effort": "effort_length", "max": {"name": "max_length", "alpha": 0.05}})
    assert reward.for_mode("effort") == EffortLength() and "reference_correct_lengths" in reward.needs
    columns = {"solution": ["4"] * 3, "budget": [None, 10, None], "effort": [0.5, None, None]}
    columns |= {"mode": ["effort", "max", "free"], "reference_correct_lengths": [[40]] * 3}
    assert reward(prompts=["q"] * 3, completions=[RIGHT] * 3, completion_ids=[[7] * 21] * 3, **columns) == [0, 0, 1]
    assert "effort" not in ByMode().needs  # a run without efforts needs none of their columns
    with pytest.raises(ValueError, match="by_mode.effort: rows ask for an effort, and no reward is named"):
        ByMode().for_mode("effort")


# --- the hindsight start ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "traces, lengths, quantile, owns, efforts",
    [
        ([{"question": "a"}] * 3, [10, 20, 40], 1.0, [40.0] * 3, [0.25, 0.5, 1.0]),
        ([{"question": "a"}] * 3, [10, 20, 30], None, [20.0] * 3, [0.5, 1.0, None]),  # longer than its own length
        ([{"question": "a"}, {"question": "b"}], [10, 40], 1.0, [10.0, 40.0], [1.0, 1.0]),
        ([{"question": "a", "reference_correct_lengths": [50, 100]}], [25], 1.0, [100.0], [0.25]),
        ([{"question": "a", "reference_correct_lengths": []}], [25], 1.0, [25.0], [1.0]),  # never solved: its own
        # What was stopped is no natural length, unless there is nothing else.
        (
            [{"question": "a", "source": "free"}, {"question": "a", "source": "stopped"}],
            [40, 4],
            0.0,
            [40] * 2,
            [1, 0.1],
        ),
        ([{"question": "a", "source": "stopped"}], [4], 0.0, [4.0], [1.0]),
        ([{"question": "a"}, {"question": "a", "system": "Be brief."}], [40, 4], 1.0, [40.0, 4.0], [1.0, 1.0]),
    ],
)
def test_the_effort_of_a_trace_is_its_share_of_the_questions_own_length(traces, lengths, quantile, owns, efforts):
    assert own_lengths(traces, lengths, quantile) == owns
    assert efforts_of(traces, lengths, Hindsight(effort_quantile=quantile, batch_size=1)) == efforts


def test_a_little_more_than_the_own_length_is_effort_1_with_slack():
    traces = [{"question": "a", "reference_correct_lengths": [40]}] * 4
    settings = Hindsight(effort_slack=0.25, batch_size=1)
    assert efforts_of(traces, [20, 40, 50, 51], settings) == [0.5, 1, 1, None]
    with pytest.raises(ValueError, match="hindsight_settings.effort_slack must be 0 or more, got -0.1"):
        Hindsight(effort_slack=-0.1)


def test_trap_a_start_whose_traces_are_alone_would_teach_one_effort():
    alone, both = [{"question": str(n)} for n in range(4)], [{"question": "a"}] * 4
    with pytest.raises(ValueError, match="hindsight_settings.samples_per_question=1: 4 of 4 traces are the only one"):
        check_traces_per_question(alone, Hindsight())
    check_traces_per_question([*both, *alone], Hindsight())
    check_traces_per_question([{**one, "reference_correct_lengths": [9]} for one in alone], Hindsight())


def test_relabelled_rows_ask_for_the_effort_they_have():
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("tiny_reasoner"))
    end = tokenizer("</think>\\boxed{4}<|im_end|>")["input_ids"]
    traces = [{"question": "1+3=?", "completion_ids": [30] * (n - len(end)) + end} for n in (10, 16, 20, 40, 50)]
    settings = Hindsight(max_updates=8, cooldown_updates=0, batch_size=4, effort_quantile=0.75, train_answer=True)
    sampler = BudgetSampler(16, 64, modes={"effort": 1, "free": 1})
    rows = relabel(traces, tokenizer, Wording(), sampler, settings, Length(), seed=0)
    seen = set()
    for row in rows:
        start = row["completion_mask"].index(1)
        prompt, n = tokenizer.decode(row["input_ids"][:start]), len(row["input_ids"]) - start
        asked = re.search(r"effort (\d+) of 100", prompt)
        if asked:
            seen.add((n, int(asked[1])))
        else:
            seen.add((n, None))
    # T is the third quartile, 40: the trace of 50 has no effort and stands in free rows alone.
    assert {pair for pair in seen if pair[1]} == {(10, 25), (16, 40), (20, 50), (40, 100)} and (50, None) in seen


def test_trap_a_start_whose_traces_are_all_longer_than_their_own_length_ends_with_a_reason():
    traces = [{"question": "a", "reference_correct_lengths": [10]}] * 4
    with pytest.raises(ValueError, match="effort_quantile=0.75: only 1 of 4 traces are within"):
        efforts_of(traces, [10, 11, 12, 13], Hindsight(batch_size=2))


# --- measures ---------------------------------------------------------------------------------------------------------


def outcome(question, effort, length, correct=1.0, level="easy"):
    about = {"mode": "effort", "budget": None, "truncated": False, "completion": "x", "level": level}
    return {**about, "question_id": question, "effort": effort, "length": length, "correct": correct}


OUTCOMES = [outcome(0, 0.25, 10, 0.0), outcome(0, 0.5, 20), outcome(0, 1.0, 40)]
OUTCOMES += [outcome(1, effort, n, level="hard") for effort, n in ((0.25, 30), (0.5, 50), (1.0, 80))]


def test_efforts_are_measured_by_rank_and_have_no_error():
    found = measure(OUTCOMES)
    assert found["rank_correlation"] == 1.0 and found["spread_ratio"] == 3.0 and found["asked_spread_ratio"] == 4.0
    assert [row["effort"] for row in found["rows"]] == [0.25, 0.5, 1.0]
    assert {row["over_budget"] for row in found["rows"]} == {None} == {row["budget"] for row in found["rows"]}
    deaf = measure([{**one, "length": 40 + one["question_id"]} for one in OUTCOMES])
    assert deaf["rank_correlation"] == 0.0
    mixed = measure(
        [
            *OUTCOMES,
            *(
                {**one, "mode": "max", "budget": b, "effort": None, "length": 9 - b}
                for b in (1, 5)
                for one in OUTCOMES[:1]
            ),
        ]
    )
    assert mixed["rank_correlation"] == pytest.approx(1 / 3)  # modes apart: 1, 1 and -1


def test_the_calibration_is_tokens_and_accuracy_by_effort_and_difficulty():
    table = calibration(measure(OUTCOMES))
    assert [(row["effort"], row["mean_length"], row["accuracy"]) for row in table] == [
        (0.25, 20.0, 0.5),
        (0.5, 35.0, 1.0),
        (1.0, 60.0, 1.0),
    ]
    assert table[0]["of_largest"] == pytest.approx(1 / 3)
    assert table[0]["by_level"]["easy"]["mean_length"] == 10 and table[0]["by_level"]["hard"]["accuracy"] == 1.0
    labels = {"model": "tiny_reasoner", "adapter": "a", "seed": 0, "n_questions": 2}
    page = to_markdown(adherence(labels, {"trained": measure(OUTCOMES)}))
    assert "| after RL | 0.25 (low) | 20.0 | 33 | 50.0" in page and "| 10.0 (0) | 30.0 (100) |" in page
    assert "By difficulty at the largest maximum" not in page
    assert calibration(measure([{**one, "mode": "free", "effort": None} for one in OUTCOMES])) == []


def test_a_training_step_logs_the_rank_of_efforts_beside_the_errors_of_budgets():
    budgets = [{"question_id": 0, "mode": "max", "budget": b, "length": b} for b in (10, 20)]
    efforts = [{"question_id": 0, "mode": "effort", "budget": None, "effort": e, "length": 40 * e} for e in (0.5, 1.0)]
    efforts = [{**one, "own": 40} for one in efforts]
    alone, both = step_metrics(efforts), step_metrics([*budgets, *efforts])
    assert alone["adherence/batch_rank_correlation"] == alone["adherence/spread_ratio"] == 1.0
    assert not any("error" in name or "over" in name for name in alone)
    assert both["adherence/max/mean_abs_error"] == both["adherence/mean_abs_error"] == 0.0
    assert both["adherence/effort/rank_correlation"] == 1.0


def test_conditions_ask_for_efforts_and_the_control_for_one():
    asked = budget_conditions(Wording(), [16], ["max", "effort"], efforts=[0.25, 1.0], constant_effort=0.5)
    assert [one.labels() for one in asked] == [
        {"mode": "max", "budget": 16},
        {"mode": "effort", "budget": None, "effort": 0.25},
        {"mode": "effort", "budget": None, "effort": 1.0},
    ]
    prompts = [one.prompt({"question": "1+1=?"}, None).turns[0]["content"] for one in asked]
    assert "maximum 16" in prompts[0] and prompts[1] == prompts[2] and "effort 50 of 100" in prompts[1]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"efforts": ["extreme"]}, "--efforts: effort must be low, medium, high"),
        ({"efforts": []}, "--efforts: name those to ask for"),
        ({"efforts": ["low"], "modes": ["max"], "budgets": [8]}, "--efforts needs --modes effort"),
        ({"efforts": ["low"], "max_completion_length": None}, "--max_completion_length: without --budgets"),
        ({"efforts": ["low"], "baselines": ["truncation"]}, "--budgets: baselines"),
    ],
)
def test_evaluate_refuses_what_is_no_effort(settings, message):
    with pytest.raises(ValueError, match=message):
        Evaluation(**{"modes": ["effort"], "max_completion_length": 90, **settings})


def test_evaluate_measures_a_model_at_efforts(tmp_path):
    words = "evaluate --modes effort --efforts low 0.5 high --num_questions 2 --max_completion_length 30 --output"
    assert rlred([*words.split(), str(tmp_path)]) == 0
    assert "## Calibration of the efforts" in (tmp_path / "adherence.md").read_text()
    rows = json.loads((tmp_path / "adherence.json").read_text())["blocks"]["baseline"]["rows"]
    assert [row["effort"] for row in rows] == [EFFORTS["low"], 0.5, EFFORTS["high"]]


# --- the audit --------------------------------------------------------------------------------------------------------


def config(folder, **changes):
    told = {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 90, "learning_rate": 1e-3}
    told |= {"use_cpu": True, "bf16": False, "report_to": "none", "scale_rewards": "none", "shuffle_dataset": False}
    return GRPOConfig(str(folder), **{**told, **changes})


EFFORT = BudgetSampler(16, 64, modes={"effort": 1})


@pytest.mark.parametrize(
    "reward, sampler, found",
    [
        (EffortLength(), EFFORT, []),
        (EffortLength(alpha=2.0), EFFORT, []),
        (ByMode(effort=EffortLength(), max=MaxLength(alpha=0.05)), BudgetSampler(modes={"effort": 1, "max": 1}), []),
        (Correctness(), EFFORT, [("error", "reward", "reads it")]),
        (ExactLength(), EFFORT, [("error", "reward", "reads it")]),
        (
            EffortLength(),
            BudgetSampler(modes={"effort": 1, "max": 1}),
            [("error", "reward", "mode max by correctness")],
        ),
        (EffortLength(alpha=0.2), EFFORT, [("warning", "reward.alpha", "twice the limit")]),
        (K3, EFFORT, [("warning", "reward.over", "earns 1 more")]),
        (
            EffortLength(length=Length("thinking", 5)),
            EFFORT,
            [("warning", "reward.length.count", "a policy penalised for its thinking alone")],
        ),
    ],
)
def test_the_audit_of_a_reward_that_does_not_fit_efforts(reward, sampler, found, tmp_path):
    told = list(audit_config(config(tmp_path), sampler, [reward], hindsight=True, use_peft=True))
    assert [(one.level, one.field) for one in told] == [(level, field) for level, field, _ in found]
    assert all(words in one.advice for one, (_, _, words) in zip(told, found, strict=True))


def test_the_start_and_the_reward_take_one_own_length():
    assert list(audit_start([(EffortLength(), {"effort"})], 0.75)) == list(audit_start([(E1, {"effort"})], 0.5)) == []
    [finding] = audit_start([(EffortLength(), {"effort"})], None)
    assert (finding.level, finding.field) == ("warning", "hindsight_settings.effort_quantile")


@pytest.mark.parametrize(
    "reward, each, own, cap, found",
    [
        (E1, 2, [40], 90, []),
        (E1, 1, [40], 90, ["reward.of"]),  # trap: one effort in a batch sets its own limit
        (E1, 3, [40], 90, ["per_device_train_batch_size"]),
        (EffortLength(), 1, [40], 90, []),
        (EffortLength(), 2, [], 90, ["rows"]),  # never solved: nothing is trained
        (EffortLength(), 2, [40], 43, ["max_completion_length"]),
    ],
)
def test_trap_the_audit_of_rows_whose_own_length_drifts_or_is_not_seen(reward, each, own, cap, found, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(resolve_model("tiny_reasoner"))
    questions = QUESTIONS.add_column("reference_correct_lengths", [list(own)] * len(QUESTIONS))
    rows = training_rows(questions, Wording(), EFFORT, num_rows=30, budgets_per_question=each)
    told = list(audit_effort_rows(rows, tokenizer, [(reward, {"effort"})], config(tmp_path, max_completion_length=cap)))
    assert [one.field for one in told] == found
    assert all(one.level == ("error" if one.field == "reward.of" else "warning") for one in told)


def test_a_tokenizer_that_reads_all_efforts_alike_is_refused(tmp_path):
    class Deaf:
        name_or_path = "deaf"

        def __call__(self, text):
            return {"input_ids": [1, 2]}

    rows = training_rows(QUESTIONS, Wording(), EFFORT, num_rows=8)
    [finding] = audit_effort_rows(rows, Deaf(), [], config(tmp_path))
    assert finding.level == "error" and "alike" in finding.advice


@pytest.mark.parametrize("name", ["l1_effort", "l1_effort_sorter", "l1_maxlen_effort"])
def test_a_recipe_of_efforts_takes_one_own_length_and_measures_its_names(name):
    arguments, _, _ = parse(ROOT / "recipes" / f"{name}.yaml", [])
    assert arguments.make_sampler().modes["effort"] and "effort" in arguments.eval_modes
    assert set(EFFORTS.values()) <= set(arguments.make_eval_efforts())
    reward = make_reward(arguments.reward).for_mode("effort")
    assert list(audit_start([(reward, {"effort"})], arguments.make_hindsight().effort_quantile)) == []


# --- published --------------------------------------------------------------------------------------------------------


def rendered(settings, modes=("effort", "max"), base=CHAT, **changes) -> str:
    """What a server renders of a short question, or the words in which the template refuses."""
    tokenizer = byte_tokenizer(base)
    made = budget_template(base, Prompts().fitted(tokenizer), modes, **changes)
    return text_of(tokenizer, made, [{"role": "user", "content": "1+1?"}], settings)


@pytest.mark.parametrize("effort", ["low", "medium", "high", 0.37, 0.125, 0.285, 0.001, 1, 1.0])
def test_the_template_words_an_effort_as_training_does(effort):
    assert f"<user>{Wording().ask('1+1?', effort, 'effort')}<assistant>" == rendered({"reasoning_effort": effort})
    asked = rendered({"reasoning_effort": effort, "budget_mode": "effort"}, modes=("effort",))
    assert asked == rendered({"reasoning_effort": effort})


@pytest.mark.parametrize("base", [CHAT, CHAT + "{% if reasoning_effort %}{% endif %}"])
def test_without_an_effort_and_where_none_was_trained_the_template_is_the_bases(base):
    plain = "<user>1+1?<assistant>"
    assert rendered({}, base=base) == rendered({"reasoning_effort": None}, base=base) == plain
    assert rendered({"reasoning_effort": "extreme"}, modes=("max",), base=base) == plain
    name = Variables.beside(base).effort
    assert "25 of 100" in rendered({name: "low"}, base=base)
    assert (name == "reasoning_effort") == (base == CHAT)


@pytest.mark.parametrize(
    "effort", [0, -5, "many", "extreme", 2, 10**9, 1.5, True, "", [0.5], float("nan"), float("inf")], ids=repr
)
def test_the_template_refuses_what_is_no_effort(effort):
    said = rendered({"reasoning_effort": effort}, efforts=(0.2, 1.0))
    assert f"reasoning_effort={json.dumps(effort)} is no effort" in said
    assert said.endswith("give low, medium, high, or a number above 0 and at most 1 (trained: 0.2 to 1)")


@pytest.mark.parametrize("budget", [64, 0, "many", float("nan")], ids=repr)
@pytest.mark.parametrize("beside", [{}, {"budget_mode": "max"}, {"budget_mode": "free"}, {"reasoning_effort": "low"}])
def test_trap_where_efforts_alone_were_trained_a_number_of_tokens_is_told_so(budget, beside):
    for name in ("thinking_budget", "thinking_token_budget"):
        assert rendered({name: budget, **beside}, modes=("effort", "free"), efforts=(0.2, 1.0)).endswith(
            f"{name}={json.dumps(budget)}: this model was trained for efforts, not for numbers of tokens; leave it out "
            "and give reasoning_effort, low, medium, high, or a number above 0 and at most 1 (trained: 0.2 to 1)"
        )
        assert rendered({name: None, "reasoning_effort": "low"}, modes=("effort",)).count("effort 25 of 100") == 1


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"reasoning_effort": "medium", "thinking_budget": 64}, "maximum 64 tokens"),  # SGLang sends one by itself
        ({"reasoning_effort": "medium", "budget_mode": "free"}, "\\boxed{}.<assistant>"),
        ({"budget_mode": "effort"}, 'budget_mode="effort" needs reasoning_effort, low'),
        ({"budget_mode": "effort", "thinking_budget": 64}, 'budget_mode="effort" needs reasoning_effort'),
        ({"budget_mode": "exact", "thinking_budget": 64}, 'give "effort" with reasoning_effort or "max" with'),
    ],
)
def test_a_number_of_tokens_wins_over_an_effort_and_a_mode_needs_its_own(settings, words):
    assert words in rendered(settings)
