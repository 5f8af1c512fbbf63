"""The sweep: one that was interrupted goes on, and its table is that of one that was not."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from rlred.data.budgets import Wording
from rlred.data.markers import Markers
from rlred.data.models import NEUTRAL, load_model
from rlred.data.prompts import Prompts
from rlred.data.questions import load_questions
from rlred.evaluation.conditions import budget_conditions, free
from rlred.evaluation.measures import measure
from rlred.evaluation.sampling import Grading, Sampling
from rlred.evaluation.sweep import outcomes_of, sweep

WORDING = Wording()


@pytest.fixture(scope="module")
def ask_reasoner():
    """A sweep of the embedded model in batches of 4, as a function of its changes."""
    model, tokenizer = load_model("tiny_reasoner")
    questions = list(load_questions("sums", split="test", limit=3))

    def asked(*, modes=("exact", "free"), prompts=WORDING, per_prompt_cap=None, path=None, grading=None, **changes):
        conditions = budget_conditions(prompts, [16, 32], modes, per_prompt_cap=per_prompt_cap)
        sampling = Sampling(**{"max_completion_length": 40, "batch_size": 4, **changes})
        return sweep(model, tokenizer, questions, conditions, sampling=sampling, grading=grading, path=path)

    return asked


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("max_completion_length", 0, "max_completion_length must be 1 or more, got 0"),
        ("max_completion_length", None, "max_completion_length must be 1 or more, got None"),
        ("batch_size", -1, "batch_size must be 1 or more, got -1"),
        ("num_samples", 2.0, "num_samples must be 1 or more, got 2.0"),
        ("num_samples", True, "num_samples must be 1 or more, got True"),
        ("temperature", -0.1, "temperature must be 0 or more, got -0.1"),
        ("temperature", float("nan"), "temperature must be 0 or more, got nan"),
        ("temperature", "1", "temperature must be a number, 0 or more, got '1'"),
        ("seed", None, "seed must be a whole number, got None"),
    ],
)
def test_a_sampling_that_means_nothing_is_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**{"max_completion_length": 8, field: value})
    assert Sampling(1, temperature=0, batch_size=1, seed=-1, num_samples=1).seed == -1  # the least that means something


def test_conditions_that_end_the_thinking_in_two_ways_are_refused():
    one, two = (free(Prompts(end_of_thinking=end))[0] for end in ("</think>", "<done>"))
    for conditions, got in (([one, two], "'</think>', '<done>'"), ([], "none")):
        with pytest.raises(ValueError, match=f"one end of thinking for all, got .*{got}"):
            sweep(None, None, [], conditions, sampling=Sampling(8))


def test_conditions_with_two_kinds_of_markers_are_refused():
    one, two = (free(Prompts(end_of_thinking="</think>", markers=markers))[0] for markers in (None, Markers(8)))
    with pytest.raises(ValueError, match=r"one kind of markers for all, got .*Markers\(every=8"):
        sweep(None, None, [], [one, two], sampling=Sampling(8))


def test_a_constant_budget_is_asked_for_and_held_against_the_conditions_own():
    conditions = budget_conditions(Wording(), [16, 32], ["max", "free"], constant_budget=24)
    asked = [one.prompt({"question": "3+4=?"}, None).turns[0]["content"] for one in conditions]
    assert [one.labels()["budget"] for one in conditions] == [16, 32, None]
    assert asked[0] == asked[1] and "24 tokens" in asked[0] and "token" not in asked[2]


def test_without_grades_no_answer_is_compared_and_the_lengths_are_the_same(ask_reasoner):
    outcomes = ask_reasoner()
    ungraded = ask_reasoner(grading=Grading(grades=False))
    assert {one["correct"] for one in ungraded} == {None} != {one["correct"] for one in outcomes}
    assert [one["length"] for one in ungraded] == [one["length"] for one in outcomes]


def test_every_question_is_asked_at_every_budget_and_sampled_as_often_as_asked_for(ask_reasoner):
    outcomes = ask_reasoner(num_samples=2)
    asked = [(outcome["question_id"], outcome["mode"], outcome["budget"]) for outcome in outcomes]
    assert len(asked) == 18 and all(asked.count(one) == 2 for one in asked)
    assert {one[1:] for one in asked} == {("exact", 16), ("exact", 32), ("free", None)}


@pytest.mark.parametrize("kept", [1, 2, 3, 4])
def test_a_sweep_that_was_interrupted_goes_on(ask_reasoner, tmp_path, kept):
    whole = ask_reasoner(path=tmp_path / "whole.jsonl")
    lines = (tmp_path / "whole.jsonl").read_text().splitlines()
    assert len(lines) == 4  # settings and three batches
    torn = lines[kept][: len(lines[kept]) // 2] if kept < 4 else ""
    (tmp_path / "parts.jsonl").write_text("\n".join([*lines[:kept], torn]))
    assert ask_reasoner(path=tmp_path / "parts.jsonl") == whole == ask_reasoner()
    assert (tmp_path / "parts.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()


def test_completions_of_another_sweep_are_refused_and_kept(ask_reasoner, tmp_path):
    path = tmp_path / "completions.jsonl"
    ask_reasoner(path=path)
    before = path.read_text()
    for changes in ({"seed": 1}, {"temperature": 0.5}, {"prompts": Wording(exact="{question} {budget}")}):
        with pytest.raises(ValueError, match="other prompts or settings"):
            ask_reasoner(path=path, **changes)
    assert path.read_text() == before


@pytest.mark.slow
def test_a_killed_evaluation_gives_the_same_table_when_it_is_started_again(tmp_path):
    words = "-m rlred.cli evaluate --budgets 16 32 64 --num_questions 16 --batch_size 4 --output".split()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def start(name):
        command = [sys.executable, *words, str(tmp_path / name)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    killed = start("killed")
    completions = tmp_path / "killed" / "measures" / "baseline.completions.jsonl"
    while not (completions.exists() and completions.read_text().count("\n") > 2):
        assert killed.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "adherence.json").exists()
    done = completions.read_text().count("\n")
    assert start("killed").wait() == 0 and completions.read_text().count("\n") > done
    assert start("whole").wait() == 0
    one, two = (json.loads((tmp_path / name / "adherence.json").read_text()) for name in ("killed", "whole"))
    assert one == two


@pytest.fixture(scope="module")
def cut_and_not(ask_reasoner, tmp_path_factory):
    """One sweep of maxima and free rows, without a row cap and with it, and the ids that the second generated."""
    path = tmp_path_factory.mktemp("per_prompt_cap") / "completions.jsonl"
    settings = {"modes": ["max", "free"], "max_completion_length": 64, "num_samples": 4, "batch_size": 12}
    whole, short = ask_reasoner(**settings), ask_reasoner(**settings, per_prompt_cap=1.25, path=path)
    return whole, short, [ids for line in path.read_text().splitlines()[1:] for ids in json.loads(line)]


def test_a_per_prompt_cap_saves_tokens_and_bounds_what_it_does_not_leave_alone(cut_and_not):
    whole, short, generated = cut_and_not
    for before, after in zip(whole, short, strict=True):
        same = {name: value for name, value in after.items() if name != "cut"}
        if not after["cut"]:
            assert same == before
            continue
        assert before["mode"] == "max" and before["length"] >= 1.25 * before["budget"]
        assert before["completion"].startswith(after["completion"])
        assert (after["correct"], after["length"], after["truncated"]) == (0, 64, True)
    asked = sum(outcome["mode"] == "max" for outcome in whole)  # they come first
    assert sum(map(len, generated[:asked])) < 0.8 * sum(outcome["length"] for outcome in whole[:asked])
    full, bound = (measure(outcomes)["overall"]["max"] for outcomes in (whole, short))
    share = sum(outcome["cut"] for outcome in short) / asked
    assert bound["over_budget"] == full["over_budget"] > 0
    assert bound["accuracy"] < full["accuracy"] <= bound["accuracy"] + share
    assert all(bound[name] >= full[name] for name in ("mean_length", "mean_error", "mean_abs_error", "rmse"))


def test_trap_lengths_that_a_per_prompt_cap_cuts_do_not_look_like_obedience(cut_and_not):
    whole, short, _ = cut_and_not
    as_cut = [{**row, "length": 1.25 * row["budget"] if row["cut"] else row["length"]} for row in short]
    obedience = [measure(outcomes)["rank_correlation"] for outcomes in (whole, short, as_cut)]
    assert obedience[2] > obedience[0] + 0.1 > obedience[1]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_trap_a_models_own_generation_settings_do_not_change_what_is_measured(temperature):
    model, tokenizer = load_model("tiny_reasoner")
    conditions, questions = free(Prompts(Wording())), list(load_questions("sums", split="test", limit=4))
    found = []
    hostile = {"repetition_penalty": 1.5, "no_repeat_ngram_size": 3, "min_p": 0.9, "typical_p": 0.2, "top_k": 1}
    hostile |= {"top_h": 0.1, "epsilon_cutoff": 0.5, "eta_cutoff": 0.5, "encoder_repetition_penalty": 1.5}
    hostile |= {"exponential_decay_length_penalty": (2, 3.0), "min_new_tokens": 39, "num_beams": 2, "top_p": 0.1}
    hostile |= {"bad_words_ids": [[7], [9]], "sequence_bias": {(8,): 9.0}}
    assert set(NEUTRAL) <= set(hostile)
    for own in ({}, hostile):
        for name, value in own.items():
            setattr(model.generation_config, name, value)
        outcomes = sweep(model, tokenizer, questions, conditions, sampling=Sampling(40, temperature))
        found.append([outcome["completion_ids"] for outcome in outcomes])
    assert found[0] == found[1]


def test_an_answer_is_what_stands_after_the_thinking():
    _, tokenizer = load_model("tiny_reasoner")
    texts = ["so \\boxed{5} </think> \\boxed{7}", "so \\boxed{5} </think> 7", "\\boxed{5}"]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    rows = [{"question_id": n, "solution": "8"} for n in range(3)]
    grading = Grading().fitted("</think>", tokenizer)
    outcomes = outcomes_of(rows, ids, tokenizer=tokenizer, stops=set(), grading=grading)
    assert [one["answer"] for one in outcomes] == ["7", None, "5"]
