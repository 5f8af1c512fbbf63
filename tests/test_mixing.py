"""Neighbours of TokenSkip: rows by difficulty, re-weighted rows, dropped levels, pruned shots, search over steps."""

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlred.cli import main as rlred
from rlred.compression.arguments import CompressionArguments
from rlred.compression.cut import render
from rlred.compression.levels import drop_level, make_level_rows
from rlred.compression.mixing import Bounds, difficulties, mix, reweight, wanted_ratio
from rlred.compression.reweighting import Reweight, ShareSampler
from rlred.compression.rows import RATIO_FORMATS, Cutting, counter_of, make_rows, to_alpaca
from rlred.compression.scores import Random, SelfInformation, make_scorer
from rlred.compression.search import search_order
from rlred.compression.shots import prune_shots, shot
from rlred.compression.spans import split_spans
from rlred.compression.traces import load_traces
from rlred.runs.arguments import SFT_KINDS, parse
from rlred.runs.compression import run
from tests.paths import ROOT
from tests.test_tokenskip import RATIOS, flags, talked

BASE = ROOT / "data" / "tiny_verbose"
WORDS = RATIO_FORMATS["words"]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BASE)


def test_a_question_is_as_hard_as_its_samples_fail(tmp_path):
    """Three samples of one question, of which one is right; one of another, which is."""
    rows = [
        {"question": "3+4=?", "answer": "7", "output": f"So {n}.\n\\boxed{{{n}}}"}
        for n in (7, 8, 9)
    ] + [{"question": "1+1=?", "answer": "2", "output": "So 2.\n\\boxed{2}"}]  # fmt: skip
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    traces, _ = load_traces(tmp_path / "p.jsonl")
    assert [trace["failure_rate"] for trace in traces] == pytest.approx([2 / 3, 0])
    assert difficulties(traces, "failures", len) == pytest.approx([2 / 3, 0])


def test_longer_traces_are_harder_and_get_larger_ratios(tokenizer):
    traces = talked(60)
    spans = [Random()(trace["thinking"]) for trace in traces]
    settings = {"difficulty": "length", "ratios_per_question": 1, "tolerance": 0.1}
    rows, report = make_rows(traces, spans, Cutting([1.0, 0.8, 0.6], **settings), tokenizer, WORDS)
    assert len(rows) == 60
    for row in rows:  # whatever can be reached, the nearest to the wanted one was taken
        assert abs(row["ratio"] - wanted_ratio(row["difficulty"], [1.0, 0.8, 0.6])) <= 0.2 + 1e-9
    hardness = [line["difficulty"] for line in report["by_ratio"]]
    assert hardness == sorted(hardness, reverse=True) and hardness[0] > 0.7 and hardness[-1] < 0.3


@given(st.lists(st.integers(1, 9), min_size=2, max_size=12).filter(lambda found: len(set(found)) > 1))
def test_ranks_of_length_keep_the_order_and_ties(lengths):
    found = difficulties([{"thinking": "a" * n} for n in lengths], "length", len)
    assert all(0 <= d <= 1 for d in found)
    for a, d in zip(lengths, found, strict=True):
        for b, e in zip(lengths, found, strict=True):
            assert (a < b) == (d < e)


@given(st.integers(1, 30), st.integers(1, 30), st.floats(0.05, 0.95), st.integers(0, 9))
def test_a_mix_has_its_share_and_no_row_twice(short, whole, share, seed):
    rows = [{"ratio": 0.5, "id": n} for n in range(short)] + [{"ratio": 1.0, "id": -n - 1} for n in range(whole)]
    found = mix(rows, share, random.Random(seed))
    assert len({row["id"] for row in found}) == len(found)
    assert abs(sum(row["ratio"] < 1 for row in found) - share * len(found)) <= 1


def test_rows_can_be_mixed_and_ask_for_nothing(tokenizer):
    traces = talked(80)
    spans = [Random()(trace["thinking"]) for trace in traces]
    settings = {"short_share": 0.5, "ask_ratio": False, "ratios_per_question": 2}
    rows, _ = make_rows(traces, spans, Cutting(RATIOS, **settings), tokenizer, WORDS)
    assert sum(row["ratio"] < 1 for row in rows) == len(rows) / 2 > 10
    prompts = {WORDS.prompt_text(trace["question"], 1.0, tokenizer) for trace in traces}
    assert {row["prompt"] for row in rows} <= prompts
    assert all("tokens." not in row["input"] for row in to_alpaca(rows, WORDS))


BOUNDS = Bounds(short_tokens=20, long_tokens=60, short_accuracy=0.4, long_accuracy=0.8)


@pytest.mark.parametrize(
    "share, tokens, accuracy, odds",
    [
        (0.5, 60, 0.8, math.exp(4)),  # as long as it was, as good as it was: shorten
        (0.5, 20, 0.4, math.exp(-4)),  # short, and no better than cut off: lengthen
        (0.5, 10, 0.9, 1.0),  # beyond both bounds: nothing to gain on either side
        (0.2, 40, 0.6, 0.25),  # halfway on both: stays
        (0.2, 40, 0.8, 0.25 * math.exp(2)),
    ],
)
def test_the_share_moves_as_tldrs_rule_says(share, tokens, accuracy, odds):
    """exp(4 * benefit) each, from the formula of 2506.02678's released code, and its mixing with 1e-4."""
    expected = (1 - 1e-4) * odds / (1 + odds) + 1e-4 / 2
    assert reweight(share, tokens, accuracy, BOUNDS) == pytest.approx(expected, rel=1e-6)


@given(st.floats(0.001, 0.999), st.floats(0, 1e6), st.floats(0, 1))
def test_a_share_never_leaves_a_side_without_rows(share, tokens, accuracy):
    assert 0 < reweight(share, tokens, accuracy, BOUNDS) < 1
    assert 0 < reweight(share, tokens, accuracy, Bounds(5, 5, 1, 1)) < 1


def test_the_sampler_follows_its_share_while_it_runs():
    sampler = ShareSampler([0.5, 1.0] * 500, share=0.8)
    drawn = []
    for number, index in enumerate(sampler):
        if number == 500:
            sampler.share = 0.1
        drawn.append(index % 2 == 0)
    assert sum(drawn[:500]) == pytest.approx(400, abs=40)
    assert sum(drawn[501:]) == pytest.approx(50, abs=30)


def test_a_resumed_training_has_the_share_of_its_checkpoint(tmp_path):
    class State:
        global_step, is_world_process_zero = 4, True

    def callback():
        return Reweight(ShareSampler([0.5, 1.0], 0.5), lambda _: (60, 0.8), BOUNDS, tmp_path / "s.json", steps=2)

    first = callback()
    for State.global_step in (1, 2, 3, 4, 5, 6):
        first.on_step_end(None, State, None)
    assert [entry["step"] for entry in first.history] == [2, 4, 6]
    State.global_step = 4  # the checkpoint; what was measured after it is measured again
    again = callback()
    again.on_train_begin(None, State, None)
    assert again.history == first.history[:2] and again.sampler.share == first.history[1]["short_share"]


TEXT = "Let me think.\nShe has 3 + 4 = 7 eggs, I see.\nWell, well.\nSo 7 - 2 = 5 are left.\nDone"


@pytest.mark.parametrize(
    "level, expected",
    [
        (0, TEXT),
        (1, "She has 3 + 4 = 7 eggs, I see.\nSo 7 - 2 = 5 are left."),
        (2, "3 + 4 = 7\n7 - 2 = 5"),
        (4, ""),
    ],
)
def test_what_a_level_leaves(level, expected):
    spans = split_spans(TEXT)
    assert render(TEXT, spans, drop_level(TEXT, level, random.Random(0))) == expected


@given(st.text(alphabet="ab 12+=.\n", max_size=60), st.integers(0, 5))
def test_levels_are_nested_and_the_third_drops_whole_lines_of_the_second(text, seed):
    kept = [set(drop_level(text, level, random.Random(seed))) for level in range(5)]
    assert kept[0] >= kept[1] >= kept[2] >= kept[3] >= kept[4] == set()
    assert set(drop_level(text, 3, random.Random(seed), drop=0.0)) == kept[2]
    assert drop_level(text, 3, random.Random(seed), drop=1.0) == ()


def test_a_third_of_the_lines_go_at_level_three():
    text = "\n".join(f"{n} + 1 = {n + 1}" for n in range(2000))
    spans, kept = split_spans(text), drop_level(text, 3, random.Random(0))
    lines = sum(spans[index].kind != "newline" for index in kept)
    assert lines / 2000 == pytest.approx(0.7, abs=0.04)


def test_level_rows_ask_for_nothing_and_come_as_often_as_told(tokenizer):
    traces, levels = talked(100), [0.5, 0.1, 0.2, 0.1, 0.1]
    rows, report = make_level_rows(traces, levels, tokenizer, WORDS, draws=4)
    assert len(rows) == 400 and all(row["asked_ratio"] == 1 for row in rows)
    for line, probability in zip(report["by_level"], levels, strict=True):
        assert line["n"] / 400 == pytest.approx(probability, abs=0.08)
    achieved = [line["achieved"] for line in report["by_level"]]
    assert achieved == sorted(achieved, reverse=True) and achieved[0] == 1 and achieved[4] == 0
    answers = {trace["question"]: trace["separator"] + trace["answer"] for trace in traces}
    for row in rows:
        assert row["completion"].endswith(answers[row["question"]])
        assert row["level"] != 4 or row["completion"] == answers[row["question"]]


@pytest.mark.parametrize("budget, shots, whole", [(40, 1, 0), (80, 2, 1), (200, 4, 2), (100_000, 40, 40)])
def test_shots_fit_their_budget_and_more_of_them_than_whole_ones(budget, shots, whole, tokenizer):
    traces, count = talked(40), counter_of(tokenizer)
    spans = [Random()(trace["thinking"]) for trace in traces]
    text, report = prune_shots(traces, spans, budget, count, keep=0.6)
    assert count(text) == report["tokens"] <= budget
    assert (report["shots"], report["shots_that_fit_whole"]) == (shots, whole)
    by_question, uncut = {trace["question"]: trace for trace in traces}, ""
    for number, one in enumerate(text.strip().split("\n\n"), start=1):
        question, _, rest = one.partition("\n")
        trace = by_question[question]
        uncut += shot(trace, trace["thinking"])
        assert (count(uncut) <= budget) == (number <= whole)
        assert rest.endswith(trace["answer"]) and rest.count("=") == trace["thinking"].count("=")
    if budget == 200:
        assert report["shots"] > report["shots_that_fit_whole"] and report["tokens_whole"] > budget
        assert report["tokens"] > 190  # the words fill what is left
    if budget == 100_000:  # all of them, whole
        assert report["tokens"] == report["tokens_whole"] and report["shots"] == len(by_question)


def test_trap_an_example_with_a_placeholder_of_the_wording_is_left_out(tokenizer):
    traces = [{"question": f"{n}+1=?", "thinking": f"so {n}+1={n + 1}", "answer": "{question}" * n} for n in (0, 1)]
    text, report = prune_shots(traces, [[(0, 2, 1.0)]] * 2, 1000, counter_of(tokenizer))
    assert report["shots"] == 1 and "{question}" not in text


def test_shots_come_by_score_and_a_question_once(tokenizer):
    traces = [{"question": f"{n}+1=?", "thinking": f"so {n}+1={n + 1}", "answer": str(n + 1)} for n in (1, 2, 3, 3)]
    spans = [[(0, 9, score)] for score in (0.1, 0.3, 0.2, 0.25)]
    text, report = prune_shots(traces, spans, 1000, counter_of(tokenizer))
    assert [line for line in text.split("\n") if line.endswith("?")] == ["2+1=?", "3+1=?", "1+1=?"]
    assert prune_shots(traces, spans, 1000, counter_of(tokenizer), num_shots=2)[1]["shots"] == 2


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda t: difficulties(t, "mood", len), "difficulty: none is called 'mood'; there are failures, length"),
        (lambda t: difficulties(t, "failures", len), "the traces have no failure_rate"),
        (lambda t: difficulties([{"failure_rate": 0.0}] * 2, "failures", len), "all questions are equally hard"),
        (lambda t: mix([{"ratio": 1.0}], 0.5, random.Random()), "0 rows are cut and 1 whole"),
        (lambda t: mix([], 1.0, random.Random()), "short_share must be above 0 and below 1"),
        (lambda t: ShareSampler([0.5, 0.6], 0.5), "2 rows are cut and 0 whole"),
        (lambda t: ShareSampler([0.5, 1.0], 0), "short_share must be above 0 and below 1"),
        (lambda t: make_level_rows(t, [1, 1], None, WORDS), "levels must be 5 probabilities"),
        (lambda t: make_level_rows(t, [0.5] * 5, None, WORDS), "that add up to 1"),
        (lambda t: make_level_rows(t, [1.5, -0.5, 0, 0, 0], None, WORDS), "levels must be 5 probabilities"),
        (lambda t: make_level_rows(t, [1, 0, 0, 0, 0], None, WORDS, draws=0), "ratios_per_question must be 1 or more"),
        (lambda t: prune_shots(t, [[]] * 3, 3, len), "no example fits 3 tokens; the shortest at 0.5 takes"),
        (lambda t: prune_shots(t, [[]] * 3, 0, len), "budget must be 1 or more"),
        (lambda t: prune_shots(t, [[]] * 3, 9, len, num_shots=0), "num_shots must be 1 or more"),
        (lambda t: prune_shots(t, [[]] * 3, 9, len, keep=0), "ratio must be above 0"),
    ],
)
def test_bad_input_is_one_clear_line(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make(talked(3))
    assert "\n" not in str(error.value)


@given(st.lists(st.floats(0, 1), max_size=12), st.integers(1, 3))
def test_the_search_takes_every_step_and_begins_with_the_most_important(importance, width):
    rounds = search_order(importance, cost=lambda path: sum(path), width=width)
    assert sorted(set(rounds)) == list(range(len(set(rounds)))) and len(rounds) == len(importance)
    if importance:
        best = importance.index(max(importance))
        assert {step for step, number in enumerate(rounds) if number == 0} == {
            step for step in (best - 1, best, best + 1) if 0 <= step < len(rounds)
        }


def test_astar_takes_the_path_that_costs_least():
    """The second round of the search, against the costs of both open paths from plain forward passes."""
    text = "3+7=10\nLet me check\n10+2=12\nthe final answer\nso 12\nand check 12\ncheck"
    steps, question, answer = text.split("\n"), "3+7+2=?", "12"
    scorer = make_scorer("astar", "tiny_verbose")
    spans = scorer(text, question=question, answer=answer)
    assert [text[start:end] for start, end, _ in spans] == steps
    importance = [score for _, _, score in scorer.importance(text, question, answer)]
    rounds = [-int(score) for _, _, score in spans]
    best = importance.index(max(importance))
    path = {step for step in (best - 1, best, best + 1) if 0 <= step < len(steps)}
    assert {step for step, number in enumerate(rounds) if number == 0} == path

    tokens = SelfInformation(AutoModelForCausalLM.from_pretrained(BASE), AutoTokenizer.from_pretrained(BASE))

    def cost(path):
        thought = "\n".join(steps[step] for step in sorted(path)) + "\n"
        found = tokens.log_probs(thought + answer, question)
        n = len(tokens.tokenizer(thought, add_special_tokens=False)["input_ids"])
        of_steps, of_answer = ([score for _, _, score in part] for part in (found[:n], found[n:]))
        return -0.1 * sum(of_steps) / len(of_steps) - sum(of_answer) / len(of_answer)

    opened = []
    for step in sorted(range(len(steps)), key=lambda step: -importance[step]):
        with_it = path | ({step - 1, step, step + 1} & set(range(len(steps))))
        if with_it != path:
            opened.append(with_it)
    cheapest = min(opened[:2], key=cost)
    assert {step for step, number in enumerate(rounds) if number == 1} == cheapest - path
    assert cost(opened[0]) != pytest.approx(cost(opened[1]))


def recipe(**settings):
    kinds = (CompressionArguments, *SFT_KINDS)
    return parse(ROOT / "recipes" / "tokenskip.yaml", flags(**settings), kinds)


REWEIGHTED = {"scorer": "random", "controls": "random-unprotected", "difficulty": "length", "ask_ratio": "false"}
REWEIGHTED |= {"short_share": 0.5, "reweight_steps": 1, "num_dev_questions": 4, "num_eval_questions": 2}


def test_the_recipe_sets_the_share_while_it_trains(tmp_path):
    result = run(*recipe(output_dir=tmp_path / "run", **REWEIGHTED), tmp_path)
    assert result.labels["trained_ratios"] == [1.0]  # nothing else was asked for
    assert [row["ratio"] for row in result.rows("random")] == [1.0, 0.3]
    shares = json.loads((tmp_path / "run" / "shares.json").read_text())
    assert [entry["step"] for entry in shares] == [1, 2] and all(0 < entry["short_share"] < 1 for entry in shares)
    assert shares[0]["short_share"] != 0.5
    rows = [json.loads(line) for line in (tmp_path / "run" / "rows.random.jsonl").read_text().splitlines()]
    assert {row["asked_ratio"] for row in rows} == {1.0} and {row["ratio"] for row in rows} == {1.0, 0.7, 0.5}
    assert (tmp_path / "run" / "controls" / "random-unprotected" / "shares.json").exists()


def test_the_recipe_trains_on_dropped_levels(tmp_path):
    settings = {"scorer": "random", "controls": "levels", "levels": "0.2 0.2 0.2 0.2 0.2", "evaluate": "false"}
    run(*recipe(output_dir=tmp_path / "run", **settings), tmp_path)
    assert (tmp_path / "run" / "controls" / "levels" / "adapter_model.safetensors").exists()
    found = json.loads((tmp_path / "run" / "rows.levels.json").read_text())
    assert sum(line["n"] for line in found["by_level"]) == found["rows"] > 0


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"difficulty": "mood"}, "difficulty: none is called 'mood'"),
        ({"difficulty": "failures"}, "num_samples must be 2 or more, got 1"),
        ({"short_share": 1.5}, "short_share must be above 0 and below 1"),
        ({"levels": "0.5 0.5"}, "levels must be 5 probabilities"),
        ({"reweight_steps": 10}, "set short_share, to begin with, and ask_ratio to false"),
        ({**REWEIGHTED, "reweight_steps": 0}, "reweight_steps must be 1 or more"),
        ({**REWEIGHTED, "reweight_rate": 0}, "reweight_rate must be above 0"),
        ({**REWEIGHTED, "ratios": "1.0"}, "ratios must hold one below 1"),
        ({**REWEIGHTED, "controls": "levels"}, "rows of the scorer 'levels' have no ratio"),
        ({**REWEIGHTED, "num_dev_questions": 0}, "num_dev_questions must be 1 or more"),
        ({**REWEIGHTED, "num_dev_questions": 40}, "leaves no training question"),
        ({**REWEIGHTED, "packing": "true"}, "set packing to false"),
        ({"scorer": "levels-unprotected"}, "none is called 'levels'"),
    ],
)
def test_bad_settings_of_the_recipe_are_errors_before_training(settings, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(*recipe(output_dir=tmp_path / "run", **settings), tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_traces_of_several_processes_are_read_by_the_last_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("rlred.evaluation.sampling.SHARD", 4)
    command = "compress traces --num_questions 6 --batch_size 4 --max_completion_length 64 --output".split()
    path = tmp_path / "traces.jsonl"
    assert rlred([*command, str(path), "--share", "2/2"]) == 0 and not path.exists()
    assert "share 2/2: {'sampled': 2" in capsys.readouterr().out
    assert rlred([*command, str(path)]) == 0
    assert rlred([*command, str(tmp_path / "alone.jsonl")]) == 0
    assert path.read_text() == (tmp_path / "alone.jsonl").read_text()
    assert rlred([*command, str(tmp_path / "x"), "--from_file", str(path), "--share", "1/2"]) == 2


@pytest.mark.slow
def test_the_neighbours_as_commands(tmp_path, capsys):
    traces, scores = tmp_path / "traces.jsonl", tmp_path / "scores.jsonl"
    base = f"compress rows --traces {traces}"
    for command in (
        f"compress traces --num_questions 16 --num_samples 3 --temperature 1 "
        f"--max_completion_length 96 --output {traces}",
        f"compress scores --traces {traces} --scorer astar --scorer_model tiny_verbose --output {scores}",
        f"{base} --scores {scores} --difficulty length --unasked --output {tmp_path / 'litecot.jsonl'}",
        f"{base} --scores {scores} --short_share 0.7 --ratios_per_question 3 --output {tmp_path / 'tldr.jsonl'}",
        f"{base} --levels 0.4 0.2 0.2 0.1 0.1 --alpaca {tmp_path / 'a.json'} --output {tmp_path / 'levels.jsonl'}",
        f"compress shots --traces {traces} --scores {scores} --budget 120 --output {tmp_path / 'shots.json'}",
    ):
        assert rlred(command.split()) == 0, capsys.readouterr().err
    found = [json.loads(line) for line in traces.read_text().splitlines()]
    right = {trace["question"]: sum(other["question"] == trace["question"] for other in found) for trace in found}
    for trace in found:  # wrong ones and those that were cut off count alike
        assert trace["failure_rate"] == pytest.approx(1 - right[trace["question"]] / 3)
    assert all("Think within" not in row["input"] for row in json.loads((tmp_path / "a.json").read_text()))
    report = json.loads((tmp_path / "shots.report.json").read_text())
    assert report["tokens"] <= 120 < report["tokens_whole"]

    capsys.readouterr()
    wording = (tmp_path / "shots.json").read_text()
    command = (
        "evaluate --model tiny_verbose --questions short_sums --modes free --num_questions 4 --max_completion_length 64"
    )
    assert rlred([*command.split(), "--wording", wording, "--output", str(tmp_path / "eval")]) == 0
    assert (tmp_path / "eval" / "adherence.md").exists()

    capsys.readouterr()
    x = tmp_path / "x"
    for words, message in (
        (f"rows --traces {traces} --output {x}", "give one of --scores, --levels and --cut random"),
        (f"rows --traces {traces} --levels 1 1 --output {x}", "levels must be 5 probabilities"),
        (
            f"rows --traces {traces} --levels 1 0 0 0 0 --short_share 0.5 --output {x}",
            "--levels: leave out --difficulty",
        ),
        (
            f"rows --traces {traces} --levels 1 0 0 0 0 --ratios 1.0 0.5 --output {x}",
            "--levels: these rows have no ratio; leave out --ratios",
        ),
        (
            f"rows --traces {traces} --levels 1 0 0 0 0 --unasked --output {x}",
            "--levels: these rows have no ratio; leave out --ratios",
        ),
        (f"rows --traces {traces} --scores {scores} --short_share 2 --output {x}", "short_share must be above 0"),
        (f"shots --traces {traces} --scores {scores} --budget 3 --output {x}", "no example fits 3 tokens"),
        (f"shots --traces {traces} --scores {scores} --budget 99 --output {tmp_path / 'shots.json'}", "exists"),
    ):
        assert rlred(["compress", *words.split()]) == 2
        assert message in capsys.readouterr().err
