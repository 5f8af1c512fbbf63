"""The baselines: what they do to a completion, on the embedded model."""

import pytest

from rlred.cli import main as rlred
from rlred.data.budgets import Wording
from rlred.data.models import load_model
from rlred.data.questions import load_questions
from rlred.evaluation.baselines import Baselines, Forcing
from rlred.evaluation.conditions import budget_conditions
from rlred.evaluation.measures import measure
from rlred.evaluation.results import read_result
from rlred.evaluation.sampling import Sampling


@pytest.fixture(scope="module")
def baselines():
    model, tokenizer = load_model("tiny_reasoner")
    questions = list(load_questions("sums", split="test", limit=24))
    conditions = budget_conditions(Wording(), [16, 32, 64])
    return Baselines(model, tokenizer, questions, conditions, sampling=Sampling(128))


def test_truncation_is_never_over_and_what_was_cut_has_no_answer(baselines):
    outcomes = baselines.truncation()
    assert all(outcome["length"] <= outcome["budget"] for outcome in outcomes)
    assert all(outcome["correct"] == 0 for outcome in outcomes if outcome["truncated"])
    accuracies = [row["accuracy"] for row in measure(outcomes)["rows"]]
    assert accuracies[0] < accuracies[-1] and any(outcome["truncated"] for outcome in outcomes)


def test_brevity_is_one_completion_for_every_budget(baselines):
    report = measure(baselines.brevity())
    assert report["rank_correlation"] == 0 and report["spread_ratio"] == 1


def test_forcing_cuts_what_is_long_with_an_answer_and_makes_the_short_go_on(baselines):
    outcomes = baselines.s1_forcing()
    small = [outcome for outcome in outcomes if outcome["budget"] == 16]
    assert all("\\boxed{" in outcome["completion"] for outcome in small)
    assert all(outcome["length"] <= 16 + baselines.forcing.answer_tokens for outcome in small)
    assert sum("</think>\\boxed{" in outcome["completion"] for outcome in small) == len(small)
    large = [outcome for outcome in outcomes if outcome["budget"] == 64]
    assert any(" Wait" in outcome["completion"] for outcome in large)
    free = [len(ids) for ids in baselines.free]
    assert sum(outcome["length"] for outcome in large) > sum(min(length, 64) for length in free)


def test_forcing_refuses_limits_that_mean_nothing():
    with pytest.raises(ValueError, match="max_waits must be 0 or more"):
        Forcing(max_waits=-1)


def test_they_stand_in_one_report_with_the_model(tmp_path):
    words = "evaluate --modes max --budgets 16 48 --num_questions 4".split()
    words += "--baselines truncation brevity s1_forcing --output".split()
    assert rlred([*words, str(tmp_path / "out")]) == 0
    result = read_result(tmp_path / "out")
    for name in ("baseline", "truncation", "brevity", "s1_forcing"):
        rows = [(row["mode"], row["budget"], row["n"]) for row in result.rows(name)]
        assert rows == [("max", 16, 4), ("max", 48, 4)]
    assert "S1 budget forcing" in (tmp_path / "out" / "adherence.md").read_text()


def test_forcing_goes_on_before_the_end_of_the_sequence(baselines):
    own, stop = baselines, next(iter(baselines.stops))
    assert own._thinking([5, 6, stop], []) == [5, 6] == own._thinking([5, 6], [])  # a model without an end of thinking
    assert own._thinking([5, 9, 6, stop], [(9,)]) == [5]
