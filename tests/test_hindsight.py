"""The hindsight start: relabelled rows are the sampled tokens, lengths are mixed, and nothing is done twice."""

import dataclasses
import json
import random
import re
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlred.data.budgets import BudgetSampler, Wording
from rlred.data.prompts import Prompts
from rlred.data.questions import load_questions
from rlred.evaluation.conditions import budget_conditions
from rlred.evaluation.sampling import Grading, Sampling
from rlred.evaluation.sweep import complete, merged_adapter, stop_ids, sweep
from rlred.evaluation.trace_sources import SOURCES, Bins, Material, read_traces, sample, spread, whole_lines
from rlred.rewards import Correctness, Length
from rlred.runs import grpo
from rlred.tiny import resolve_model
from rlred.training.hindsight import Start, advice, digits_hint, end_of, judged, too_faint
from rlred.training.hindsight_settings import Hindsight
from rlred.training.relabelling import correct, find_traces, learned_range, relabel, rivals_of, within
from tests.test_recipes import arguments

SETTINGS = Hindsight(num_samples=40, max_updates=2, cooldown_updates=1, batch_size=8, max_slack=4)
# Two updates teach nothing.
NOT_LEARNED = {"num_samples": 64, "max_updates": 1, "cooldown_updates": 1, "batch_size": 8, "num_probe_questions": 2}
NOT_LEARNED |= {"only_correct": False, "required_correlation": 0.99}
SAMPLER = BudgetSampler(low=8, high=16, modes={"exact": 1, "max": 1, "free": 1})


@pytest.fixture(scope="module")
def reasoner():
    """The embedded model and its tokenizer."""
    folder = resolve_model("tiny_reasoner")
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def questions():
    return list(load_questions("sums", limit=32))


def material_of(reasoner, questions, cap=80, batch_size=64, **changes) -> Material:
    model, tokenizer = reasoner
    prompts, sampling = Prompts().fitted(tokenizer), Sampling(cap, batch_size=batch_size)
    return Material(tokenizer, prompts, questions, SAMPLER, stop_ids(model, tokenizer), sampling, **changes)


def sampled(reasoner, questions, path, count=40, batch_size=64):
    material = material_of(reasoner, questions, batch_size=batch_size)
    traces = sample("free", reasoner[0], material, count, path)
    return [trace for trace in traces if not trace.get("truncated")]


@pytest.mark.parametrize("max_slack", [4, None])
def test_relabelled_rows_ask_for_the_length_they_have(reasoner, questions, tmp_path, max_slack):
    _, tokenizer = reasoner
    traces = sampled(reasoner, questions, tmp_path / "traces.jsonl")
    settings = dataclasses.replace(SETTINGS, max_slack=max_slack)
    rows = relabel(traces, tokenizer, Wording(), SAMPLER, settings, Length(), seed=0)
    assert len(rows) == 24
    own = [trace["completion_ids"] for trace in traces]
    seen = set()
    for row in rows:
        start = row["completion_mask"].index(1)
        completion = row["input_ids"][start:]
        thinking = completion.index(tokenizer.convert_tokens_to_ids("</think>")) + 1
        assert row["completion_mask"] == [0] * start + [1] * thinking + [0] * (len(completion) - thinking)
        assert completion in own  # the very tokens that were sampled
        assert completion[-1] == tokenizer.eos_token_id
        prompt = tokenizer.decode(row["input_ids"][:start])
        assert prompt.endswith("<|assistant|><think>")
        n = len(completion)
        if "exactly" in prompt:
            seen.add("exact")
            assert f"Think for exactly {n} tokens." in prompt
        elif "maximum" in prompt:
            seen.add("max")
            asked = int(re.search(r"maximum (\d+) tokens", prompt)[1])
            # A bound lies within the budgets, or is the length of a trace that is longer than all of them.
            assert n <= asked <= (max(n, 16) if max_slack is None else n + max_slack)
        else:
            seen.add("free")
    assert seen == {"exact", "max", "free"}


LENGTHS = [30, 10, 20, 70, 15]
OF = ["a", "b", "a", "a", "b"]  # the questions of these traces


def test_rivals_are_the_traces_of_a_question_shortest_first():
    traces = [{"question": question} for question in OF]
    assert rivals_of(traces, LENGTHS) == [[2, 0, 3], [1, 4], [2, 0, 3], [2, 0, 3], [1, 4]]
    traces[3]["system"] = "Be brief."  # another prompt is another question
    assert rivals_of(traces, LENGTHS)[3] == [3]


@pytest.mark.parametrize(
    "budget, rivals, sampler, indices, budgets",
    [
        (35, [2, 0, 3], BudgetSampler(8, 64), {2, 0}, {35}),  # what is drawn stays, and what is longer is no answer
        (64, [2, 0, 3], BudgetSampler(8, 64), {2, 0}, {64}),
        (20, [2, 0, 3], BudgetSampler(8, 64), {2}, {20}),  # a budget of just that length is kept
        (9, [1, 4], BudgetSampler(8, 12), {1}, {10, 11, 12}),  # drawn again among those that a trace keeps
        (9, [2, 0, 3], BudgetSampler(8, 16), {2}, {20}),  # no budget does: the shortest trace and its length
        (9, [1, 4], BudgetSampler(distribution="choices", choices=(9, 12)), {1}, {12}),
    ],
)
def test_a_maximum_is_a_bound_and_no_target(budget, rivals, sampler, indices, budgets):
    rng = random.Random(0)
    found = [within(budget, rivals, LENGTHS, sampler, rng) for _ in range(200)]
    assert {index for index, _ in found} == indices
    assert {asked for _, asked in found} == budgets
    assert all(LENGTHS[index] <= asked for index, asked in found)


def test_a_maximum_prefers_short_answers_and_does_not_take_them_alone():
    rng = random.Random(0)
    found = [within(64, [2, 0], LENGTHS, BudgetSampler(8, 64), rng)[0] for _ in range(1000)]
    assert 700 < found.count(2) < 800  # the shorter of two of two: three in four


def test_a_question_is_sampled_several_times_side_by_side(reasoner, questions):
    jobs = SOURCES["free"](material_of(reasoner, questions, samples_per_question=4), 10, random.Random(0))
    asked = [job.row["question"] for job in jobs]
    assert len(asked) == 10
    assert all(len(set(asked[start : start + 4])) == 1 for start in (0, 4, 8))


def test_trap_batches_bucketed_by_length_have_no_contrast(reasoner, questions, tmp_path):
    # Length-bucketed batches gave a correlation of 0.03 where mixed ones gave 0.95 (reference: dial-experiments).
    _, tokenizer = reasoner
    traces = sampled(reasoner, questions, tmp_path / "traces.jsonl")
    rows = relabel(traces, tokenizer, Wording(), SAMPLER, SETTINGS, Length(), seed=0)
    everything = [len(trace["completion_ids"]) for trace in traces]
    for start in range(0, len(rows), SETTINGS.batch_size):
        batch = rows.select(range(start, start + SETTINGS.batch_size))
        lengths = [len(mask) - mask.index(1) for mask in batch["completion_mask"]]
        assert max(lengths) - min(lengths) > 0.4 * (max(everything) - min(everything))
        totals = [len(ids) for ids in batch["input_ids"]]
        assert totals == sorted(totals)  # inside an update, neighbours in length share a micro-batch


def test_right_traces_are_those_that_say_the_answer(reasoner, questions):
    tokenizer = reasoner[1]
    row = questions[0]
    says = {
        right: tokenizer(f"</think>\\boxed{{{int(row['solution']) + (not right)}}}")["input_ids"]
        for right in (True, False)
    }
    traces = [{"question": row["question"], "completion_ids": says[right]} for right in (False, True, False, True)]
    assert correct(traces, material_of(reasoner, questions), Correctness()) == [False, True, False, True]


def test_sampling_goes_on_where_it_was_cut_off(reasoner, questions, tmp_path, monkeypatch):
    monkeypatch.setattr("rlred.evaluation.trace_sources.CHUNK", 10)
    whole = sampled(reasoner, questions, tmp_path / "whole.jsonl", batch_size=10)
    sampled(reasoner, questions, tmp_path / "parts.jsonl", count=20, batch_size=10)
    with open(tmp_path / "parts.jsonl", "a") as file:
        file.write('{"sampled": 30, "traces": [{"questi')  # the process was killed while writing
    assert read_traces(whole_lines(tmp_path / "parts.jsonl"))[1] == 20
    assert sampled(reasoner, questions, tmp_path / "parts.jsonl", batch_size=10) == whole
    assert (tmp_path / "parts.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()


def test_a_model_that_never_ends_is_refused(random_model, questions, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(random_model)
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    with pytest.raises(ValueError, match="ended before max_completion_length=1"):
        find_traces(
            model,
            material_of((model, tokenizer), questions, cap=1),
            SETTINGS,
            Grading(),
            tmp_path,
        )


def test_the_embedded_base_is_deaf_and_its_thinking_buys_accuracy(reasoner):
    questions = list(load_questions("sums", split="test", limit=96))
    conditions = budget_conditions(Wording(), [16, 32, 48, 64])
    outcomes = sweep(*reasoner, questions, conditions, sampling=Sampling(80, seed=1))
    from rlred.evaluation.measures import measure

    assert abs(measure(outcomes)["rank_correlation"]) < 0.15
    necessary = {row["question_id"]: 5 * row["question"].count("+") + 1 for row in questions}
    full = [o["correct"] for o in outcomes if o["length"] - 5 >= necessary[o["question_id"]]]
    early = [o["correct"] for o in outcomes if o["length"] - 5 < necessary[o["question_id"]]]
    assert sum(full) / len(full) > 0.7 > 0.5 > sum(early) / len(early)


def test_merging_for_generation_leaves_no_trace(reasoner):
    model, tokenizer = reasoner
    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prompt = [{"role": "user", "content": Wording().ask("1+2+3=?", 16, "exact")}]
    with merged_adapter(model):
        assert any((before[name] != tensor).any() for name, tensor in model.state_dict().items())
    merged = complete(model, tokenizer, [prompt], Sampling(30, temperature=0))
    inputs = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    plain = model.generate(**inputs, do_sample=False, max_new_tokens=30)[0, inputs["input_ids"].shape[1] :].tolist()
    assert merged[0] == plain[: len(merged[0])]
    after = model.state_dict()
    assert all((before[name] == after[name]).all() for name in before)
    model.unload()


def test_trap_prompts_are_padded_on_the_left_whatever_the_tokenizer_does(reasoner):
    model, tokenizer = reasoner
    prompts = [
        [{"role": "user", "content": Wording().ask(question, 16, "exact")}] for question in ("1+2+3=?", "4+5+6+7+8+9=?")
    ]
    greedy = Sampling(20, temperature=0)
    alone = [complete(model, tokenizer, [prompt], greedy)[0] for prompt in prompts]
    tokenizer.padding_side = "right"
    together = complete(model, tokenizer, prompts, greedy)
    tokenizer.padding_side = "left"
    assert together == alone


def test_traces_are_plain_json(reasoner, questions, tmp_path):
    sampled(reasoner, questions, tmp_path / "traces.jsonl")
    for line in (tmp_path / "traces.jsonl").read_text().splitlines():
        assert set(json.loads(line)) == {"sampled", "traces"}


@pytest.mark.parametrize("source", [name for name in SOURCES if name != "free"])
def test_every_source_makes_traces_that_begin_with_what_was_given(reasoner, questions, tmp_path, source):
    model, tokenizer = reasoner
    free = sampled(reasoner, questions, tmp_path / "free.jsonl")
    material = material_of(reasoner, questions, batch_size=24, free=free)
    jobs = SOURCES[source](material, 24, random.Random(f"{source}/0/0"))
    assert len(jobs) == 24
    traces = sample(source, model, material, 24, tmp_path / "own.jsonl")
    assert {trace["source"] for trace in traces} == {source}
    assert all(len(trace["completion_ids"]) <= material.sampling.max_completion_length for trace in traces)
    texts = tokenizer.batch_decode([trace["completion_ids"] for trace in traces])
    for job, trace in zip(jobs, traces, strict=True):
        assert trace["completion_ids"][: len(job.given)] == list(job.given)
        assert len(job.given) < len(trace["completion_ids"]) <= len(job.given) + job.limit
    if source == "stopped":
        assert all("</think>" in text and text.rpartition("</think>")[2].count("\\boxed{") for text in texts)
        assert len({len(job.given) for job in jobs}) > 5  # of many lengths
    if source == "continued":
        assert all("Wait" in text.partition("</think>")[0] for text in texts)
    again = sample(source, model, material, 24, tmp_path / "again.jsonl")
    assert again == traces


@given(lengths=st.lists(st.integers(1, 200), max_size=60), count=st.integers(1, 6))
def test_an_epoch_visits_the_bins_evenly_and_leaves_out_what_is_outside(lengths, count):
    bins = Bins(16, 128, count)
    epoch = spread(lengths, bins, random.Random(0))
    visits = Counter(bins.of(lengths[index]) for index in epoch)
    assert set(visits) == {bins.of(length) for length in lengths} - {None}
    assert max(Counter(epoch).values(), default=0) <= 4
    sizes = Counter(bins.of(length) for length in lengths)
    quota = -(-sum(n for found, n in sizes.items() if found is not None) // max(1, len(visits)))
    assert all(number == min(quota, 4 * sizes[found]) for found, number in visits.items())


def test_an_empty_bin_stops_the_start_and_names_its_lengths(reasoner, questions, tmp_path):
    model, tokenizer = reasoner
    sampler = BudgetSampler(low=8, high=4000)
    material = dataclasses.replace(material_of(reasoner, questions, batch_size=24), sampler=sampler)
    settings = Hindsight(num_samples=24, sources={"stopped": 24}, batch_size=8, num_bins=4)
    with pytest.raises(ValueError, match="no trace of 179 to 846, 846 to 4000 tokens"):
        find_traces(model, material, settings, Grading(), tmp_path)
    warning = dataclasses.replace(settings, empty_bins="warn")
    traces, rows = find_traces(model, material, warning, Grading(), tmp_path)
    assert [bool(row["kept"]) for row in rows] == [True, True, False, False]
    assert sum(row["kept"] for row in rows) == len(traces)
    assert set(rows[0]["sources"]) | set(rows[1]["sources"]) == {"free", "stopped"}
    shrinking = dataclasses.replace(settings, empty_bins="shrink")
    assert find_traces(model, material, shrinking, Grading(), tmp_path) == (traces, rows)  # they were all below 179
    assert learned_range(rows) == (8, 178)


def test_bins_with_enough_correct_traces_keep_those_alone(reasoner, questions, tmp_path, caplog):
    model, tokenizer = reasoner
    material = dataclasses.replace(material_of(reasoner, questions), sampler=BudgetSampler(low=8, high=76))
    settings = Hindsight(num_samples=48, sources={"stopped": 48}, batch_size=8, num_bins=4, empty_bins="warn")
    grading = Grading().fitted("</think>", tokenizer)
    every, table = find_traces(model, material, settings, grading, tmp_path)
    right, bins = correct(every, material, grading.correctness), Bins(8, 76, 4)
    found = [one["completion_ids"] for one, is_right in zip(every, right, strict=True) if is_right]
    counts = Counter(bins.of(len(ids)) for ids in found)
    enough = max(counts.values())
    with caplog.at_level("INFO", "rlred.training.relabelling"):
        preferring = dataclasses.replace(settings, prefer_correct=enough)
        kept, preferred = find_traces(model, material, preferring, grading, tmp_path)
    assert "completions are kept (prefer_correct)" in caplog.text
    for place in range(4):
        assert preferred[place]["completions"] == table[place]["completions"]
        full = counts[place] >= enough
        assert preferred[place]["kept"] == (counts[place] if full else table[place]["kept"])
    assert len(kept) == sum(row["kept"] for row in preferred) < len(every)
    assert any(counts[place] >= enough for place in range(4)) and any(counts[place] < enough for place in range(4))


@pytest.mark.parametrize("empty_bins", ["warn", "shrink"])
def test_trap_traces_outside_every_budget_end_the_start_and_not_its_progress(reasoner, questions, tmp_path, empty_bins):
    material = dataclasses.replace(material_of(reasoner, questions, batch_size=24), sampler=BudgetSampler(2000, 4000))
    settings = Hindsight(num_samples=24, sources={"stopped": 24}, batch_size=8, empty_bins=empty_bins)
    with pytest.raises(ValueError, match="only 0 of 4. sampled completions have a length within the budgets"):
        find_traces(reasoner[0], material, settings, Grading(), tmp_path)


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ([1, 1, 1, 1], (8, 128)),
        ([0, 1, 1, 0], (16, 63)),
        ([1, 0, 0, 1], (64, 128)),  # two runs of one bin: the longer lengths
        ([3, 3, 0, 9], (8, 31)),  # two bins side by side count more than one with many traces
    ],
)
def test_the_learned_range_is_the_most_bins_side_by_side(kept, expected):
    edges = [8, 16, 32, 64, 128]
    rows = [{"from": a, "to": b, "kept": n} for a, b, n in zip(edges, edges[1:], kept, strict=False)]
    assert learned_range(rows) == expected


def test_a_run_shrinks_to_the_budgets_that_there_are_traces_for(tmp_path, monkeypatch):
    make, seen = grpo.make_trainer, []

    def watched(parts, **settings):
        seen.extend(row["budget"] for row in settings["train_dataset"])
        return make(parts, **settings)

    monkeypatch.setattr(grpo, "make_trainer", watched)
    start = {"num_samples": 32, "sources": {"stopped": 32}, "answer_cue": "", "num_bins": 4, "empty_bins": "shrink"}
    start |= {
        "max_updates": 1,
        "cooldown_updates": 1,
        "batch_size": 8,
        "num_probe_questions": 2,
        "num_probe_budgets": 2,
    }
    flags = {"budget_low": 8, "budget_high": 400, "max_completion_length": 441, "evaluate": False, "max_steps": 1}
    flags |= {"hindsight_settings": json.dumps(start), "output_dir": tmp_path / "run", "num_generations": 4}
    grpo.run(*arguments("l1_exact", resolve_model("tiny_reasoner"), **flags), tmp_path)
    low, high = json.loads((tmp_path / "run" / "hindsight" / "hindsight.json").read_text())["budgets"]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["trained_budgets"] == [low, high] and record["arguments"]["budget_high"] == 400
    assert low == 8 and 20 < high < 200 and seen and all(low <= budget <= high for budget in seen)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": {"free": 3}}, "no source is called 'free'; there are brief, stopped, continued"),
        ({"sources": {"brief": 0}}, "hindsight_settings.sources.brief must be a whole number, 1 or more, got 0"),
        ({"empty_bins": "fill"}, "hindsight_settings.empty_bins must be stop, warn or shrink, got 'fill'"),
        ({"num_bins": 0}, "hindsight_settings.num_bins must be 1 or more, got 0"),
        ({"samples_per_question": 0}, "hindsight_settings.samples_per_question must be 1 or more, got 0"),
        ({"required_correlation": 2}, "hindsight_settings.required_correlation must be in [0, 1], got 2"),
        ({"prefer_correct": -1}, "hindsight_settings.prefer_correct must be 0 or more, got -1"),
        ({"prefer_correct": 8}, "prefer_correct must be 0 without sources, which have bins; got 8"),
        ({"modes": {"maximum": 1}}, "hindsight_settings.modes: must be among exact, max, effort, free, got 'maximum'"),
    ],
)
def test_settings_of_the_sources_are_checked(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Hindsight(**changes)


@pytest.mark.parametrize(
    "correlations, losses, expected",
    [
        ([0.1, 0.92, 0.91], [1.0, 0.5], None),
        ([0.0, 0.05], [1.0, 1.0, 1.0, 1.0], "raise learning_rate"),
        ([0.0, 0.05], [1.0, 0.9, 0.6, 0.5], "markers"),
        ([0.1, 0.3, 0.5], [1.0, 0.9, 0.6, 0.5], "raise max_updates"),
        ([0.1, 0.7, 0.3], [1.0, 0.9, 0.6, 0.5], "lower learning_rate"),
        ([0.0, 0.0], [1.0, 2.0, 3.0, 4.0], "lower learning_rate"),
        ([0.0, 0.0], [1.0, float("nan"), float("nan"), float("nan")], "lower learning_rate"),
    ],
)
def test_a_start_says_what_to_change(correlations, losses, expected):
    told = advice(correlations, losses, Hindsight())
    assert (told is None) == (expected is None)
    assert expected is None or expected in told


@pytest.mark.parametrize(
    "base, sampler, wording, expected",
    [
        (
            "tiny_sorter",
            BudgetSampler(17, 104),
            Wording(),
            "writes 17 in 2 tokens and 104 in 3: write {budget:03} in wording.exact",
        ),
        (
            "tiny_sorter",
            BudgetSampler(modes={"effort": 1}),
            Wording(),
            "10 in 2 tokens and 100 in 3: write {effort:03} in wording.effort",
        ),
        ("tiny_sorter", BudgetSampler(16, 76, modes={"max": 1, "effort": 1}), Wording(), "write {effort:03}"),
        (
            "tiny_sorter",
            BudgetSampler(17, 104, modes={"exact": 0, "max": 1}),
            Wording(),
            "write {budget:03} in wording.max",
        ),
        ("tiny_sorter", BudgetSampler(modes={"effort": 1}, efforts=("low", "medium")), Wording(), ""),
        ("tiny_sorter", BudgetSampler(16, 76), Wording(), ""),
        ("tiny_sorter", BudgetSampler(17, 2000), Wording(), ""),
        ("tiny_sorter", BudgetSampler(17, 104), Wording(exact="{question} Spend {budget:03}."), ""),
        ("tiny_reasoner", BudgetSampler(17, 104, modes={"max": 1, "effort": 1}), Wording(), ""),
    ],
)
def test_a_start_says_where_numbers_are_written_in_different_numbers_of_digits(base, sampler, wording, expected):
    told = digits_hint(AutoTokenizer.from_pretrained(resolve_model(base)), sampler, wording)
    assert expected in told if expected else told == ""


@pytest.mark.parametrize(
    "correlation, required, ends",
    [(-1.0, 0.0, False), (0.0, 0.0, False), (-0.2, 0.3, True), (0.29, 0.3, True), (0.3, 0.3, False)],
)
def test_a_start_ends_the_run_only_where_something_is_required(correlation, required, ends):
    assert too_faint(correlation, Hindsight(required_correlation=required)) == ends


def test_a_start_that_did_not_work_ends_the_run_before_rl(tmp_path):
    flags = ["--hindsight_settings", json.dumps(NOT_LEARNED), "--max_steps", "1", "--evaluate", "false"]
    run = subprocess.run(
        [sys.executable, "recipes/l1_exact.py", *flags, "--output_dir", str(tmp_path / "run")],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2
    assert "required_correlation=0.99" in run.stderr.splitlines()[-1]
    assert not (tmp_path / "run" / "adapter_model.safetensors").exists()
    assert (tmp_path / "run" / "hindsight" / "traces.jsonl").exists()


def test_what_is_said_of_digits_reaches_the_one_who_runs_it(tmp_path):
    flags = "--model_name_or_path tiny_sorter --questions sorting --budget_low 17 --budget_high 104".split()
    flags += ["--max_completion_length", "140", "--max_steps", "1", "--evaluate", "false"]
    flags += ["--hindsight_settings", json.dumps(NOT_LEARNED)]
    command = [sys.executable, "recipes/l1_exact.py", *flags, "--output_dir", str(tmp_path / "run")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2 and "write {budget:03} in wording.exact" in run.stderr.splitlines()[-1]


def test_a_start_may_draw_the_modes_in_other_shares_than_the_run():
    sampler = BudgetSampler(modes={"exact": 1, "max": 1})
    drawn = Start(Hindsight(modes={"exact": 1}), Prompts(), sampler, Sampling(90)).sampler
    assert drawn.modes == {"exact": 1} and drawn.bounds == sampler.bounds
    assert Start(Hindsight(), Prompts(), sampler, Sampling(90)).sampler == sampler


@pytest.fixture(scope="module")
def traces(reasoner, questions, tmp_path_factory):
    """The model's own completions that ended."""
    return sampled(reasoner, questions, tmp_path_factory.mktemp("traces") / "traces.jsonl")


def graded(traces, wrong=0):
    """Traces that are said to be correct, but for the first of them."""
    return [{**trace, "correct": number >= wrong} for number, trace in enumerate(traces)]


def test_cut_rows_end_early_ask_for_the_whole_length_and_train_the_answer_alone(reasoner, traces):
    _, tokenizer = reasoner
    [end] = tokenizer("</think>", add_special_tokens=False)["input_ids"]
    opened = tokenizer("<|assistant|><think>", add_special_tokens=False)["input_ids"]
    given = (Wording(), BudgetSampler(low=8, high=16), dataclasses.replace(SETTINGS, cut_fraction=0.5), Length())
    own, places, cut = [trace["completion_ids"] for trace in traces], set(), 0
    for row in relabel(graded(traces), tokenizer, *given, seed=0):
        ids, mask = row["input_ids"], row["completion_mask"]
        start, border = ids.index(opened[-1]) + 1, ids.index(end)
        asked = int(re.search(r"exactly (\d+) tokens", tokenizer.decode(ids[:start]))[1])
        if mask[border]:  # a whole row: what it asks for is what it has
            assert ids[start:] in own and asked == len(ids) - start
            continue
        cut += 1
        assert mask == [0] * (border + 1) + [1] * (len(ids) - border - 1)
        thinking, answer = ids[start:border], ids[border:]
        whole = [one for one in own if one[: len(thinking)] == thinking and one[-len(answer) :] == answer]
        assert any(len(one) == asked > len(thinking) + len(answer) for one in whole)
        places.add(len(thinking))
    assert 6 <= cut <= 18 and len(places) > 4


def test_incorrect_traces_are_not_cut_and_counted(reasoner, traces, caplog):
    _, tokenizer = reasoner
    [end] = tokenizer("</think>", add_special_tokens=False)["input_ids"]
    settings = dataclasses.replace(SETTINGS, cut_fraction=0.5)
    with caplog.at_level("INFO", "rlred.training.relabelling"):
        rows = relabel(graded(traces, len(traces) // 2), tokenizer, Wording(), SAMPLER, settings, Length(), seed=0)
    masks = [dict(zip(row["input_ids"], row["completion_mask"], strict=True))[end] for row in rows]
    [told] = re.findall(r"(\d+) of 24 rows are cut at a random point; (\d+) more", caplog.text)
    assert masks.count(0) == int(told[0]) and int(told[1]) > 4
    with pytest.raises(
        ValueError, match=r"hindsight_settings.cut_fraction=0.5: none of \d+ traces is correct and ends"
    ):
        relabel(graded(traces, len(traces)), tokenizer, Wording(), SAMPLER, settings, Length(), seed=0)


def test_trap_without_a_cut_fraction_no_row_changes(reasoner, traces):
    """Published starts are resumed by their rows: the new draws must not move the old ones."""
    _, tokenizer = reasoner
    given = (tokenizer, Wording(), SAMPLER)
    none = list(relabel(graded(traces), *given, SETTINGS, Length(), seed=0))
    some = relabel(graded(traces), *given, dataclasses.replace(SETTINGS, cut_fraction=0.4), Length(), seed=0)
    assert none == list(relabel(traces, *given, SETTINGS, Length(), seed=0))
    prompts = [
        sorted(tokenizer.decode(row["input_ids"]).partition("<|assistant|>")[0] for row in r) for r in (none, some)
    ]
    assert prompts[0] == prompts[1]  # the same questions, modes and budgets; only completions are shorter


def test_traces_are_graded_where_rows_are_to_be_cut_and_all_of_them_kept(reasoner, questions, tmp_path):
    settings = dataclasses.replace(SETTINGS, cut_fraction=0.5)
    material = material_of(reasoner, questions)
    traces, _ = find_traces(reasoner[0], material, settings, Grading().fitted("</think>", reasoner[1]), tmp_path)
    told = [trace["correct"] for trace in traces]
    assert told == correct(traces, material, Correctness()) and 0 < sum(told) <= len(told)
    ungraded, _ = find_traces(reasoner[0], material, SETTINGS, Grading(), tmp_path)
    assert [one["completion_ids"] for one in ungraded] == [one["completion_ids"] for one in traces]


@pytest.mark.parametrize("value", [-0.1, 1.0])
def test_a_cut_fraction_is_a_share(value):
    with pytest.raises(
        ValueError, match=f"hindsight_settings.cut_fraction must be a share of the rows, 0 to below 1, got {value}"
    ):
        Hindsight(cut_fraction=value)


@pytest.mark.parametrize(
    "probes, end",
    [
        ([], 460),
        ([(360, 0.95)], 420),
        ([(400, 0.95)], 460),
        ([(360, 0.5), (440, 0.95)], 460),  # inside the cool-down: it begins no other
        ([(360, 0.91), (400, 0.2), (420, 0.95)], 420),
    ],
)
def test_the_cool_down_ends_once(probes, end):
    log = [{"step": step, "probe_rank_correlation": value} for step, value in probes]
    settings = Hindsight(max_updates=400, cooldown_updates=60, target_correlation=0.9)
    assert end_of(log, settings) == end <= settings.max_updates + settings.cooldown_updates


def test_a_start_that_fell_from_its_target_ends_the_run_where_something_is_required():
    required, losses = Hindsight(required_correlation=0.5), [1.0] * 4
    with pytest.raises(ValueError, match="reached 0.950 and fell to 0.100"):
        judged([0.2, 0.95, 0.1], losses, required)
    assert judged([0.2, 0.95], losses, required) is None
    assert judged([0.2, 0.95, 0.1], losses, Hindsight()) is None


@given(st.integers(1, 60), st.integers(0, 12), st.integers(1, 8))
def test_every_bin_can_be_reached(low, width, count):
    bins = Bins(low, low + width, count)
    assert {bins.of(length) for length in range(low, low + width + 1)} == set(range(len(bins.edges) - 1))
