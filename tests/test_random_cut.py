"""Rows cut at a random point: what is inserted stands in the ids, and only the answer after it is in the loss."""

import json

import pytest
from transformers import AutoTokenizer

from rlred.cli import main as rlred
from rlred.compression.random_cut import WITHOUT_END, make_cut_rows
from rlred.compression.rows import RATIO_FORMATS, features
from rlred.data.prompts import Prompts
from rlred.runs.compression import run
from tests.paths import ROOT
from tests.test_tokenskip import recipe

WORDS = RATIO_FORMATS["words"]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(ROOT / "data" / "tiny_reasoner")


def traces(number=30, **changes):
    """Traces of two steps that end in their answer."""
    own = {"opening": "", "thinking": "2+3=5 6+4=9 11 check", "separator": "</think>", "answer": "\\boxed{9}"}
    return [{"question": f"{i}+3+4=?", **own, **changes} for i in range(number)]


def parts(row, tokenizer):
    """The ids of a row that are not trained on, without the prompt, and those that are."""
    [one] = features([row], tokenizer)
    prompt = len(tokenizer(row["prompt"], add_special_tokens=False)["input_ids"])
    pairs = list(zip(one["input_ids"], one["completion_mask"], strict=True))
    assert not any(trained for _, trained in pairs[:prompt])
    own = pairs[prompt:]
    assert [trained for _, trained in own] == sorted(trained for _, trained in own)  # the answer comes last
    return [i for i, trained in own if not trained], [i for i, trained in own if trained]


def test_only_the_answer_after_the_inserted_end_is_trained_on(tokenizer):
    rows, report = make_cut_rows(traces(), tokenizer, WORDS)
    assert len(rows) == report["rows"] == report["cut"] == 30 and report["dropped"] == {}
    end = tokenizer("</think>", add_special_tokens=False)["input_ids"]
    answer = tokenizer("\\boxed{9}", add_special_tokens=False)["input_ids"]
    whole = tokenizer(traces(1)[0]["thinking"], add_special_tokens=False)["input_ids"]
    lengths = set()
    for row in rows:
        given, trained = parts(row, tokenizer)
        assert trained == [*answer, tokenizer.eos_token_id]
        thinking = given[: -len(end)]
        assert given[len(thinking) :] == end and thinking == whole[: len(thinking)] and len(thinking) < len(whole)
        assert row["achieved"] == len(thinking) / len(whole)
        assert "tokens" not in row["prompt"] and row["completion"].endswith("</think>\\boxed{9}")
        lengths.add(len(thinking))
    assert len(lengths) > 8  # of the 20 places, at random


def test_rows_depend_on_the_seed_alone(tokenizer):
    once, again, other = (make_cut_rows(traces(), tokenizer, WORDS, seed=seed)[0] for seed in (1, 1, 2))
    assert once == again != other


def test_spaces_around_the_end_stay_with_the_answer(tokenizer):
    """A server inserts the mark alone: what stood before it goes with the thinking, what follows is the answer's."""
    [row], _ = make_cut_rows(traces(1, separator=" \n</think>\n\n", opening="<think>"), tokenizer, WORDS)
    start, stop = row["inserted"]
    assert row["completion"][start:] == "</think>\n\n\\boxed{9}" and row["completion"][start:stop] == "</think>"
    assert row["completion"].startswith("<think>") and start >= len("<think>")


def test_a_trace_gives_as_many_different_cuts_as_told_and_what_is_missing_is_counted(tokenizer):
    short, long = traces(1, thinking="2+3=5"), [{**traces(1)[0], "question": "7+3+4=?"}]
    tokens = len(tokenizer("2+3=5", add_special_tokens=False)["input_ids"])
    rows, report = make_cut_rows([*long, *short], tokenizer, WORDS, draws=tokens + 2)
    assert len({row["completion"] for row in rows if row["question"] == "7+3+4=?"}) == tokens + 2
    assert report["rows"] == 2 * tokens + 2 and report["dropped"] == {"cuts, of traces with fewer tokens": 2}


def test_traces_without_an_end_are_dropped_and_counted(tokenizer):
    rows, report = make_cut_rows([*traces(2), *traces(3, separator=" ")], tokenizer, WORDS)
    assert len(rows) == 2 and report["dropped"] == {WITHOUT_END: 3}


def test_whole_rows_beside_the_cut_ones(tokenizer):
    rows, report = make_cut_rows(traces(12), tokenizer, WORDS, draws=2, short_share=0.75)
    assert (report["rows"], report["cut"]) == (32, 24) and report["dropped"] == {"rows, for a short_share of 0.75": 4}
    for row in rows:
        given, trained = parts(row, tokenizer)
        assert bool(given) == ("inserted" in row) == (row["ratio"] < 1)
        if row["ratio"] == 1:
            assert tokenizer.decode(trained[:-1]) == row["completion"]


def test_trap_a_row_without_an_insertion_has_the_ids_of_its_whole_text(tokenizer):
    """Cutting the text of other rows into parts would change their tokens."""
    row = {"prompt": "1+1=?", "completion": "1+1=2</think>\\boxed{2}"}
    [one] = features([row], tokenizer)
    both = [tokenizer(row[name], add_special_tokens=False)["input_ids"] for name in ("prompt", "completion")]
    assert one["input_ids"] == [*both[0], *both[1], tokenizer.eos_token_id]
    assert one["completion_mask"] == [0] * len(both[0]) + [1] * (len(both[1]) + 1)


@pytest.mark.parametrize(
    "settings, ratio_format, own, message",
    [
        ({"draws": 0}, WORDS, traces(2), "ratios_per_question must be 1 or more, got 0"),
        ({"short_share": 1}, WORDS, traces(2), "short_share must be above 0 and below 1"),
        ({}, RATIO_FORMATS["tokenskip_qwen"], traces(2), "ratio_format: writes its own answer"),
        ({}, WORDS.fitted(None, Prompts(end_of_thinking="")), traces(2), "end_of_thinking='' says that there is none"),
        ({}, WORDS, traces(2, separator=" "), "none of 2 traces has the end of thinking '</think>'"),
    ],
)
def test_what_cannot_be_cut_is_an_error_of_one_line(settings, ratio_format, own, message, tokenizer):
    with pytest.raises(ValueError, match="^[^\n]*$") as raised:
        make_cut_rows(own, tokenizer, ratio_format, **settings)
    assert message in str(raised.value)


def test_as_commands(tmp_path, capsys):
    kept, rows = tmp_path / "traces.jsonl", tmp_path / "rows.jsonl"
    base = f"compress rows --traces {kept} --tokenizer tiny_reasoner --cut random"
    for command in (
        f"compress traces --model tiny_reasoner --questions sums --num_questions 8 --temperature 1 "
        f"--max_completion_length 96 --output {kept}",
        f"{base} --ratios_per_question 2 --output {rows}",
    ):
        assert rlred(command.split()) == 0, capsys.readouterr().err
    report = json.loads(rows.with_suffix(".json").read_text())
    assert report["rows"] == 2 * len(kept.read_text().splitlines()) and 0 < report["achieved"] < 1
    capsys.readouterr()
    for words, message in (
        (f"--alpaca {tmp_path / 'a.json'}", "--cut: leave out"),
        ("--difficulty length", "--cut: leave out"),
        ("--ratios 1.0 0.5", "--cut: these rows have no ratio; leave out --ratios, --tolerance and --unasked"),
        ("--tolerance 0.1", "--cut: these rows have no ratio; leave out --ratios, --tolerance and --unasked"),
        ("--levels 1 0 0 0 0", "give one of --scores, --levels and --cut random"),
    ):
        assert rlred([*base.split(), *words.split(), "--output", str(tmp_path / "x")]) == 2
        assert message in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_the_recipe_trains_on_random_cuts(tmp_path):
    settings = {"model_name_or_path": "tiny_reasoner", "questions": "sums", "num_questions": 24, "max_steps": 2}
    settings |= {"scorer": "random_cut", "evaluate": "false", "output_dir": tmp_path / "run"}
    settings["ratios"] = "1.0 0.9 0.8 0.7 0.6 0.5"  # the default: its rows have none of their own
    run(*recipe(**settings), tmp_path)
    assert (tmp_path / "run" / "adapter_model.safetensors").exists()
    assert json.loads((tmp_path / "run" / "rows.random_cut.json").read_text())["cut"] > 8
