"""Interruptions: the cut is where it is said to be, and accuracy, leak and panic are what their formulas say."""

import json

import pytest

from rlred.cli import main as rlred
from rlred.data.models import load_model
from rlred.data.prompts import Prompts
from rlred.data.questions import load_questions
from rlred.evaluation.conditions import budget_conditions
from rlred.evaluation.interruptions import interrupt, measure_interruptions, uninterrupted
from rlred.evaluation.results import read_result, to_markdown
from rlred.evaluation.sampling import Grading, Sampling
from rlred.evaluation.sweep import sweep

SHARES, CAP = [0.5, 0.0], 80


@pytest.fixture(scope="module")
def reasoner():
    return load_model("tiny_reasoner")


@pytest.fixture(scope="module")
def questions():
    return list(load_questions("sums", split="test", limit=6))


@pytest.fixture(scope="module")
def natural(reasoner, questions):
    model, tokenizer = reasoner
    conditions = budget_conditions(Prompts().fitted(tokenizer), modes=["free"])
    sampling = Sampling(CAP, temperature=0.7, num_samples=2)
    outcomes = sweep(model, tokenizer, questions, conditions, sampling=sampling)
    return uninterrupted(tokenizer, questions, conditions, outcomes)


class Scripted:
    """An engine that writes one text after whatever it is given: a model that leaks is not among the embedded ones."""

    def __init__(self, tokenizer, text):
        self.ids, self.stops = tokenizer(text, add_special_tokens=False)["input_ids"], {tokenizer.eos_token_id}
        self.ids.append(tokenizer.eos_token_id)
        self.asked = []

    def complete_batch(self, prompt_ids, limits, temperature, seed):
        self.asked += list(zip(prompt_ids, limits, strict=True))
        return [self.ids[:limit] for limit in limits]


def cut(engine, tokenizer, natural, shares=SHARES, path=None):
    grading = Grading().fitted("</think>", tokenizer)
    return interrupt(engine, tokenizer, natural, shares, sampling=Sampling(CAP, 0.0), grading=grading, path=path)


def test_a_cut_keeps_the_share_of_the_thinking_and_ends_it_as_the_model_does(reasoner, natural):
    tokenizer = reasoner[1]
    engine = Scripted(tokenizer, "\\boxed{5}")
    outcomes = cut(engine, tokenizer, natural)
    end = tokenizer("</think>", add_special_tokens=False)["input_ids"]
    asked = iter(engine.asked)
    for share in sorted(SHARES):
        for one in natural:
            ids, (prompt, limit) = one.outcome["completion_ids"], next(asked)
            kept = int(share * one.outcome["thinking_length"])
            given = prompt[len(one.prompt) :]
            assert prompt[: len(one.prompt)] == one.prompt and given == [*ids[:kept], *end]
            assert limit == CAP - len(given)
    assert [one["fraction"] for one in outcomes[:: len(natural)]] == [0.0, 0.5, 1.0]
    uncut = [one["completion_ids"] for one in outcomes if one["fraction"] == 1]
    assert uncut == [one.outcome["completion_ids"] for one in natural]


def test_answering_in_the_same_number_of_tokens_is_no_leak_and_a_wrong_answer_at_once_is_panic(reasoner, natural):
    outcomes = cut(Scripted(reasoner[1], "\\boxed{0}"), reasoner[1], natural)
    rows = measure_interruptions(outcomes)
    assert [row["fraction"] for row in rows] == [0.0, 0.5, 1.0] and all(row["n"] == len(natural) for row in rows)
    uncut = rows[-1]
    assert uncut["accuracy"] > 0.5 and (uncut["leak"], uncut["panic"], uncut["leak_share"]) == (0, 0, None)
    for row in rows[:-1]:
        assert row["accuracy"] == 0 and row["leak"] <= 0
        assert row["panic"] == pytest.approx(uncut["accuracy"])
        assert row["less_than_uncut"]["difference"] == pytest.approx(-uncut["accuracy"])


def test_thinking_on_in_the_answer_is_a_leak_and_no_panic(reasoner, natural):
    more = "1+1=2 3+1=4 check 2+2=4 check\\boxed{999}"
    engine = Scripted(reasoner[1], more)
    rows = measure_interruptions(cut(engine, reasoner[1], natural))
    for row in rows[:-1]:
        extra = [len(engine.ids) - one.answer_length for one in natural]
        away = [one.border[0] - int(row["fraction"] * one.border[0]) for one in natural]
        assert row["leak"] == pytest.approx(sum(extra) / len(extra)) and row["leak"] > 5
        assert row["leak_share"] == pytest.approx(sum(extra) / sum(away))
        assert row["panic"] == 0 and row["less_than_uncut"]["difference"] < 0
    assert rows[0]["mean_answer_length"] == len(engine.ids) and rows[0]["truncated"] == 0


def test_an_answer_without_an_end_stops_at_the_cap_and_is_truncated(reasoner, natural):
    engine = Scripted(reasoner[1], "1+1=2 " * 60)
    [row, _] = measure_interruptions(cut(engine, reasoner[1], natural, [0.5]))
    assert row["truncated"] == 1 and row["mean_length"] == CAP


def test_an_interrupted_measurement_goes_on(reasoner, natural, tmp_path):
    path, tokenizer = tmp_path / "kept.jsonl", reasoner[1]
    once = cut(Scripted(tokenizer, "\\boxed{5}"), tokenizer, natural, path=path)
    silent = Scripted(tokenizer, "never asked")
    assert cut(silent, tokenizer, natural, path=path) == once and silent.asked == []


def test_without_an_end_of_thinking_there_is_nothing_to_cut(reasoner, questions):
    conditions = budget_conditions(Prompts().fitted(reasoner[1]), modes=["free"])
    outcomes = [{"completion_ids": [7, 8], "mode": "free", "budget": None} for _ in questions]
    with pytest.raises(ValueError, match="none of 6 completions ended its thinking with '</think>'"):
        uninterrupted(reasoner[1], questions, conditions, outcomes)


def test_they_stand_in_a_result_of_their_own(tmp_path, capsys):
    words = "evaluate --modes free max effort --budgets 24 40 --efforts low high --num_questions 3 --temperature 0.7"
    words += " --interruptions 0.25 0.75"
    assert rlred([*words.split(), "--output", str(tmp_path / "out")]) == 0
    result = read_result(tmp_path / "out", "interruptions")
    rows = result.rows("baseline")
    asked = [("free", None, None), ("max", 40, None), ("effort", None, 1.0)]  # of a mode's, the largest
    found = [(row["mode"], row["budget"], row.get("effort")) for row in rows]
    assert found == [one for one in asked for _ in range(3)]
    assert [row["fraction"] for row in rows] == [0.25, 0.75, 1.0] * 3
    assert sum(row["n"] for row in rows[::3]) + result.blocks["baseline"]["left_out"] == 9
    page = (tmp_path / "out" / "interruptions.md").read_text()
    assert (
        page == to_markdown(result)
        and "| free | - | 25 % |" in page
        and "| effort | 1 (high) | 75 % |" in page
        and page in capsys.readouterr().out
    )
    assert (tmp_path / "out" / "interruptions.png").read_bytes()[:4] == b"\x89PNG"
    kept = json.loads((tmp_path / "out" / "adherence.json").read_text())
    [free] = [row for row in kept["blocks"]["baseline"]["rows"] if row["mode"] == "free"]
    assert rows[2]["accuracy"] == free["accuracy"] or rows[2]["n"] < 3  # the very completions of the sweep


@pytest.mark.parametrize(
    "words, message",
    [
        ("--interruptions 1.0", "--interruptions must be shares of the thinking, 0 to below 1, got 1.0"),
        ("--interruptions 0.5 -0.1", "--interruptions must be shares of the thinking, 0 to below 1, got -0.1"),
        ("--interruptions 50", "got 50.0"),
        ("--interruptions 0.5 --ratios 0.5 --adapter x", "--interruptions: changes nothing with --ratios"),
    ],
)
def test_a_wrong_share_is_one_line(words, message, tmp_path, capsys):
    assert rlred(["evaluate", "--budgets", "16", *words.split(), "--output", str(tmp_path / "x")]) == 2
    [line] = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("error: ") and message in line and not (tmp_path / "x").exists()
