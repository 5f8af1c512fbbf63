"""The probe: a real tiny model end to end, taken up after a kill, taken by a recipe, and heard by the audit."""

import json
import re
import runpy
import shutil
import sys

import pytest
import torch
import yaml
from trl import GRPOConfig

from rlred.checks.audit import enforce
from rlred.checks.audit_probe import audit_probe
from rlred.checks.probe import Probing, binned, found_range, learnable, report_of, settings_of, suggested
from rlred.checks.probe_file import read_probe
from rlred.checks.probe_report import to_markdown, to_yaml
from rlred.checks.word_counts import WordCounts, advice, ask_counts, times_written
from rlred.cli import main as rlred
from rlred.data.budgets import BudgetSampler, Wording
from rlred.data.models import load_model
from rlred.data.prompts import Prompts
from rlred.evaluation.row_limits import ShowTokens
from rlred.evaluation.sampling import Sampling
from rlred.evaluation.trace_sources import Bins
from rlred.rewards import ByMode, ExactLength, MaxLength
from rlred.runs.arguments import parse
from rlred.runs.config_files import over
from tests.paths import ROOT

FLAGS = "--num_questions 6 --num_samples 4 --num_traces 12 --max_completion_length 90 --batch_size 12 --seed 3".split()


def probed(folder, *more):
    return rlred(["probe", *FLAGS, "--min_correct", "1", "--output", str(folder), *more])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a probe of the embedded reasoner."""
    folder = tmp_path_factory.mktemp("probe") / "done"
    assert probed(folder, "--config", str(ROOT / "recipes" / "l1_exact.yaml")) == 0
    return folder


def test_a_probe_of_the_reasoner_says_what_it_does_by_itself(done):
    report = json.loads((done / "probe.json").read_text())
    assert list(report["sources"]) == ["free", "brief", "stopped", "continued"]
    assert [one["n"] for one in report["sources"].values()] == [24, 12, 12, 12]
    assert [len(row["lengths"]) for row in report["by_question"]] == [4] * 6
    natural = sorted(length for row in report["by_question"] for length in row["lengths"])
    free = report["sources"]["free"]
    assert (free["lengths"]["0"], free["lengths"]["100"]) == (natural[0], natural[-1]) and natural[-1] <= 90
    assert free["accuracy"] > 0.5 and free["ungraded"] == 0
    ended = sum(round(one["n"] * (1 - one["cut"])) for one in report["sources"].values())
    assert sum(row["completions"] for row in report["bins"]) + report["outside_bins"] == ended
    for row in report["bins"]:
        assert sum(row["sources"].values()) == row["kept"] <= row["completions"]
    assert report["tokens_per_second"] > 0
    assert (done / "probe.png").read_bytes()[:4] == b"\x89PNG"
    page = (done / "probe.md").read_text()
    assert page == to_markdown(report)
    assert "| free | 24 |" in page and "GiB at the peak" in page and "tokens a second" in page


def test_the_yaml_holds_what_the_page_suggests(done):
    report, probe = json.loads((done / "probe.json").read_text()), read_probe(done)
    assert (done / "probe.yaml").read_text() == to_yaml(report)
    assert probe == read_probe(done / "probe.yaml") and probe.settings == report["settings"]
    low, high = probe.settings["budget_low"], probe.settings["budget_high"]
    correct = [row for row in report["bins"] if row["kept"]]
    assert correct[0]["from"] <= low < high <= correct[-1]["to"]
    assert probe.settings["max_completion_length"] >= 1.25 * high
    assert probe.settings["max_completion_length"] > report["sources"]["free"]["lengths"]["95"]


def test_a_probe_that_was_killed_goes_on_and_finds_the_same(done, tmp_path):
    cut = tmp_path / "cut"
    (cut / "completions").mkdir(parents=True)
    for name, lines in (("free", 2), ("brief", 1)):  # the header and a batch; a batch
        kept = (done / "completions" / f"{name}.jsonl").read_text().splitlines(keepends=True)
        (cut / "completions" / f"{name}.jsonl").write_text("".join(kept[:lines]) + kept[-1][:7])
    asked = (done / "completions" / "asked.json").read_text()
    (cut / "completions" / "asked.json").write_text(asked)
    assert probed(cut) == 0
    for path in sorted((done / "completions").iterdir()):
        assert (cut / "completions" / path.name).read_text() == path.read_text(), path.name
    one, other = (json.loads((folder / "probe.json").read_text()) for folder in (done, cut))
    for report in (one, other):
        report.pop("tokens_per_second"), report.pop("plan", None)
    assert one == other


def test_trap_completions_of_other_settings_are_not_gone_on_with(done, tmp_path, capsys):
    assert probed(done) == 2
    assert "holds a probe and is not written over" in capsys.readouterr().err
    (tmp_path / "completions").mkdir()
    asked = (done / "completions" / "asked.json").read_text()
    (tmp_path / "completions" / "asked.json").write_text(asked)
    shutil.copy(done / "completions" / "free.jsonl", tmp_path / "completions")
    assert probed(tmp_path, "--temperature", "1.0") == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --temperature 1.0, but the completions in ") and "sampled with 0.7" in line


@pytest.mark.parametrize(
    "words, message",
    [
        (["--num_questions", "0"], "--num_questions must be 1 or more, got 0"),
        (["--num_traces", "-1"], "--num_traces must be 1 or more, got -1"),
        (["--temperature", "-0.5"], "--temperature must be 0 or more, got -0.5"),
        (["--shortest", "90"], "--max_completion_length must be above --shortest (90), got 90"),
        (["--config", "nowhere.yaml"], "--config: no such file: nowhere.yaml"),
        (["--config", str(ROOT / "recipes" / "tokenskip.yaml")], "is no recipe that asks for budgets"),
        (["--model", "./nowhere/to-be-found"], "--model='./nowhere/to-be-found' cannot be loaded"),
        (["--wording", "l2"], "wording: no preset named 'l2'"),
        (["--counts", "4"], "--counts must be two different numbers or more, each 1 or more, got [4]"),
        (["--counts", "0", "4"], "each 1 or more, got [0, 4]"),
        (["--count_word", "two words"], "--count_word must be one word, got 'two words'"),
        (["--count_request", "Write {word}."], "--count_request needs the placeholder {count}: 'Write {word}.'"),
    ],
)
def test_a_wrong_flag_is_one_line_that_names_it(words, message, tmp_path, capsys):
    assert probed(tmp_path / "new", *words) == 2
    [line] = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("error: ") and message in line


def test_answers_that_nobody_can_grade_are_refused(tmp_path, capsys):
    source = tmp_path / "ungraded.jsonl"
    source.write_text("".join(json.dumps({"question": f"{n}+1+2=?", "solution": None}) + "\n" for n in range(3)))
    assert probed(tmp_path / "new", "--questions", str(source)) == 2
    assert "error: " in capsys.readouterr().err


GOOD = "model: m, max_completion_length: 9, lengths: [[1]]"
RECIPE = ROOT / "recipes" / "l1_exact.yaml"


def written(folder, settings=None, **measured):
    """A probe.yaml of one's own."""
    told = {"model": "tiny_reasoner", "max_completion_length": 90, "lengths": [[40, 60], [50, 70]], **measured}
    told.setdefault("bins", [{"from": 20, "to": 40, "sources": {"free": 9}}])
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"settings": settings or {}, "measured": told}))
    return path


def test_flags_stand_over_the_probe_and_the_probe_over_the_yaml(tmp_path):
    probed = {"budget_low": 20, "budget_high": 60, "hindsight_settings": {"sources": {"brief": 128}, "num_bins": 3}}
    path = written(tmp_path, {**probed, "max_completion_length": 77})
    flags = ["--budget_high", "50", "--use_cpu", "true", "--output_dir", str(tmp_path)]
    for words in (["--probe", str(path)], [f"--probe={path}"]):
        arguments, training, _ = parse(RECIPE, [*words, *flags])
        assert (arguments.budget_low, arguments.budget_high, training.max_completion_length) == (20, 50, 77)
        start = arguments.make_hindsight()
        assert (start.sources, start.num_bins, start.learning_rate) == ({"brief": 128}, 3, 2e-3)
        assert arguments.probe == str(path)
    without, training, _ = parse(RECIPE, flags)
    assert (without.budget_low, training.max_completion_length, without.probe) == (16, 95, None)
    named = tmp_path / "recipe.yaml"
    named.write_text(f"probe: {path}\nbudget_low: 18\nbudget_high: 70\n")
    assert parse(named, flags[2:])[0].budget_low == 20


def test_what_is_printed_is_what_will_be_used(tmp_path, capsys):
    path = written(tmp_path, {"budget_low": 20, "hindsight_settings": {"num_bins": 3}})
    with pytest.raises(SystemExit):
        parse(RECIPE, ["--probe", str(path), "--budget_high", "70", "--print_config"])
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    shown = yaml.safe_load((tmp_path / "printed.yaml").read_text())
    assert (shown["budget_low"], shown["budget_high"]) == (20, 70)
    again = parse(tmp_path / "printed.yaml", ["--output_dir", str(tmp_path)])[0]
    assert (again.budget_low, again.budget_high, again.hindsight_settings["num_bins"]) == (20, 70, 3)
    assert (shown["hindsight_settings"]["num_bins"], shown["hindsight_settings"]["num_samples"]) == (3, 2048)


def test_tokens_are_counted_and_nothing_is_stopped():
    shown = ShowTokens(5)
    for _ in range(3):
        assert shown(torch.zeros(2, 7), None).tolist() == [False, False]
    assert (shown.bar.n, shown.bar.total) == (3, 5)
    shown.bar.close()


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "probe: no such file"),
        ("a: [1\n", "not YAML"),
        ("settings: {}\n", "has no mapping 'measured'"),
        ("budget_low: 3\n", "has no mapping 'settings'"),
        ("- 3\n", "has no mapping 'settings'"),
        ("settings: {learning_rate: 1}\nmeasured: {}\n", "settings: 'learning_rate' is none of budget_low, "),
        ("settings: {}\nmeasured: {model: m}\n", "measured: 'max_completion_length' is missing"),
        (
            "settings: {}\nmeasured: {model: m, max_completion_length: 0, lengths: [[1]], bins: []}\n",
            "must be 1 or more, got 0",
        ),
        ("settings: {}\nmeasured: {model: m, max_completion_length: 9, lengths: [[]], bins: []}\n", "measured.lengths"),
        ("settings: {}\nmeasured: {model: m, max_completion_length: 9, lengths: [[1]], bins: [3]}\n", "measured.bins"),
        (
            f"settings: {{}}\nmeasured: {{{GOOD}, bins: [{{from: a, to: 3, sources: {{}}}}]}}\n",
            "measured.bins must be a list",
        ),
        (f"settings: {{}}\nmeasured: {{{GOOD}, bins: [{{from: 1, to: 3, sources: {{free: x}}}}]}}\n", "measured.bins"),
        (
            f"settings: {{hindsight_settings: 3}}\nmeasured: {{{GOOD}, bins: [{{from: 1, to: 3, sources: {{}}}}]}}\n",
            "settings.hindsight_settings must be a mapping, got 3",
        ),
    ],
)
def test_a_wrong_probe_is_one_line_that_names_the_file(text, message, tmp_path):
    path = tmp_path / "wrong.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError) as raised:
        parse(RECIPE, ["--probe", str(path), "--use_cpu", "true"])
    said = str(raised.value)
    assert said.startswith("probe: ") and message in said and str(path) in said and "\n" not in said


def test_the_first_step_of_a_recipe_takes_what_the_probe_found(done, tmp_path, monkeypatch, capsys):
    start = '{"num_samples":64,"sources":{"stopped":32},"num_bins":1,"max_updates":1,"batch_size":8,"probe_every":1,'
    start += '"num_probe_questions":2,"cooldown_updates":0,"empty_bins":"warn"}'
    words = [
        "--max_steps",
        "1",
        "--per_device_train_batch_size",
        "8",
        "--num_generations",
        "4",
        "--num_questions",
        "16",
    ]
    words += ["--evaluate", "false", "--lora_r", "4", "--hindsight_settings", start]
    output = tmp_path / "run"
    told = [str(ROOT / "recipes" / "l1_exact.py"), "--probe", str(done), *words, "--output_dir", str(output)]
    monkeypatch.setattr(sys, "argv", told)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(told[0], run_name="__main__")
    assert ended.value.code == 0, capsys.readouterr().err
    run, probe = json.loads((output / "run.json").read_text()), read_probe(done).settings
    assert run["arguments"]["probe"] == str(done)
    assert {name: run["arguments"][name] for name in ("budget_low", "budget_high", "eval_budgets")} == {
        name: probe[name] for name in ("budget_low", "budget_high", "eval_budgets")
    }
    assert run["training"]["max_completion_length"] == probe["max_completion_length"]
    assert (output / "adapter_model.safetensors").is_file()


# What the audit hears.

BINS = [{"from": low, "to": 2 * low, "sources": {"free": 5, "stopped": 2}} for low in (16, 32, 64)]


def heard(tmp_path, sampler, reward=None, sources=("free",), model="tiny_reasoner", **measured):
    """The findings about a probe whose lengths are 40 to 70 and whose bins are all full, unless told otherwise."""
    told = {"lengths": [[40, 60, 45, 70], [70, 50, 65, 42]], "bins": BINS, **measured}
    probe = read_probe(written(tmp_path, **told))
    training = GRPOConfig(str(tmp_path), num_generations=8, per_device_train_batch_size=8, use_cpu=True, bf16=False)
    found = audit_probe(probe, training, sampler, [reward or ExactLength(alpha=0.05)], model=model, sources=sources)
    return [(finding.level, finding.field, finding.value, finding.advice) for finding in found]


def test_budgets_around_the_natural_lengths_are_left_in_peace(tmp_path):
    assert heard(tmp_path, BudgetSampler(16, 110)) == []
    assert heard(tmp_path, BudgetSampler(40, 80, modes={"max": 1}), MaxLength(alpha=0.05)) == []
    assert heard(tmp_path, BudgetSampler(1, 2, modes={"free": 1}), model="data/tiny_reasoner") == []


def test_trap_budgets_below_the_natural_lengths_cost_next_to_nothing_to_ignore(tmp_path):
    thousands = [[3000, 2500], [4000, 3500]]
    bins = [{"from": 100, "to": 5000, "sources": {"free": 9}}]
    sampler = BudgetSampler(500, 900)
    [below, whole] = heard(tmp_path, sampler, ExactLength(alpha=3e-4), lengths=thousands, bins=bins)
    assert below[:3] == ("warning", "budget_high", 900)
    assert "costs at most 0.030 on average ((high - low) / 4 * alpha, " in below[3]  # 400 / 4 * 3e-4
    relative = ExactLength(alpha=2.0, deviation="relative")  # (sqrt 900 - sqrt 500) / (sqrt 900 + sqrt 500) * 2
    told = heard(tmp_path, sampler, relative, lengths=thousands, bins=bins)[0][3]
    assert "costs at most 0.29" in told and "(alpha * mean distance, " in told
    assert whole[1] == "budget_low"
    wide = BudgetSampler(500, 3100)  # reaches into the natural lengths
    assert [one[1] for one in heard(tmp_path, wide, ExactLength(alpha=3e-4), lengths=thousands, bins=bins)] == [
        "budget_low"
    ]
    both = ByMode(exact=ExactLength(alpha=3e-4), max=MaxLength(alpha=0.05))
    assert "budget_high" in [one[1] for one in heard(tmp_path, sampler, both, lengths=thousands, bins=bins)]


def test_trap_groups_that_overshoot_as_a_whole_have_no_gradient_towards_the_number(tmp_path):
    long, short = [[60, 45, 70, 55], [70, 50, 65, 43], [80, 64, 52, 48]], [[18, 20, 17, 19], [16, 18, 20, 17]]
    [found] = heard(tmp_path, BudgetSampler(16, 41), lengths=[*long, *short])
    assert found[:3] == ("warning", "budget_low", 16)
    assert "of the groups of 8 overshoot as a whole" in found[3] and "does not depend on N inside a group" in found[3]
    maximum = BudgetSampler(16, 41, modes={"max": 1})
    assert [one[1] for one in heard(tmp_path, maximum, MaxLength(alpha=0.05), lengths=[*long, *short])] == [
        "budget_low"
    ]
    # One of four completions is short: of eight, hardly ever all are longer than the budget.
    mixed = [[10, *own[1:]] for own in long]
    assert not [one for one in heard(tmp_path, BudgetSampler(16, 41), lengths=mixed) if "overshoot" in one[3]]


def test_trap_budgets_of_which_there_is_no_trace(tmp_path):
    none_short = [{"from": 16, "to": 32, "sources": {}}, *BINS[1:]]
    [found] = heard(tmp_path, BudgetSampler(20, 110), bins=none_short)
    assert found[:3] == ("warning", "budget_low", 20) and "found no correct trace of 20 to 32 tokens (free)" in found[3]
    assert heard(tmp_path, BudgetSampler(32, 110), bins=none_short) == []
    # Traces of a source that the run does not sample are none.
    only_stopped = [{"from": 16, "to": 32, "sources": {"stopped": 7}}, *BINS[1:]]
    assert [one[1] for one in heard(tmp_path, BudgetSampler(20, 110), bins=only_stopped)] == ["budget_low"]
    assert heard(tmp_path, BudgetSampler(20, 110), bins=only_stopped, sources=("free", "stopped")) == []
    # Beyond the bins nobody has looked.
    [found] = heard(tmp_path, BudgetSampler(20, 200))
    assert found[:3] == ("warning", "budget_high", 200) and "did not sample 128 to 200 tokens" in found[3]
    [found] = heard(tmp_path, BudgetSampler(8, 110))
    assert found[:3] == ("warning", "budget_low", 8)


def test_a_probe_of_another_model_is_said_and_warnings_stop_nothing(tmp_path, caplog):
    found = heard(tmp_path, BudgetSampler(16, 110), model="Qwen/Qwen3-0.6B")
    assert [one[:2] for one in found] == [("warning", "probe")] and "tiny_reasoner" in found[0][3]
    probe = read_probe(written(tmp_path, bins=BINS))
    training = GRPOConfig(str(tmp_path), use_cpu=True, bf16=False)
    told = {"model": "other", "sources": ("free",)}
    enforce(audit_probe(probe, training, BudgetSampler(16, 110), [ExactLength()], **told))
    assert re.search("audit: probe=.*tiny_reasoner", caplog.text)


# From outcomes to settings, by hand.


def outcome(source, length, correct, question=0, truncated=False):
    return {"question_id": question, "source": source, "length": length, "correct": correct, "truncated": truncated}


def test_the_range_is_that_of_correct_completions_that_ended(tmp_path):
    bins = Bins(16, 128, 3)  # 16, 32, 64, 128
    outcomes = [outcome("free", length, 1.0) for length in (40, 50, 70, 80)]
    outcomes += [outcome("stopped", 20, 0.0), outcome("brief", 24, 1.0, truncated=True), outcome("brief", 30, None)]
    rows = binned(outcomes, bins)
    assert [(row["completions"], row["kept"], row["accuracy"]) for row in rows] == [(2, 0, 0.0), (2, 2, 1), (2, 2, 1)]
    assert [row["free"]["completions"] for row in rows] == [0, 2, 2]
    assert found_range(outcomes, bins, rows, 2) == (40, 80) and found_range(outcomes, bins, rows, 3) is None
    told = settings_of(outcomes, bins, rows, 2)
    assert (told["budget_low"], told["budget_high"], told["max_completion_length"]) == (40, 80, 100)
    assert told["hindsight_settings"] == {"num_samples": 128, "sources": {}, "num_bins": 2}
    outcomes += [outcome("free", 126, 0.0, truncated=True)]
    assert settings_of(outcomes, bins, binned(outcomes, bins), 2)["max_completion_length"] == 127


def test_a_model_without_correct_completions_gets_no_settings_and_is_told_so(tmp_path):
    outcomes = [outcome(source, 100, 0.0, truncated=True) for source in ("free", "brief", "stopped", "continued")]
    report = report_of(outcomes, Sampling(100), Probing(1))
    assert report["settings"] == {}
    report |= {"model": "m", "questions": "q", "n_questions": 1, "tokens_per_second": None}
    page = to_markdown(report)
    assert "No range of budgets" in page and "100 % of the free completions were cut at 100" in page
    path = tmp_path / "probe.yaml"
    path.write_text(to_yaml(report))
    assert over({"budget_low": 16}, read_probe(path).settings) == {"budget_low": 16}
    with pytest.raises(ValueError, match="--questions: no question has an answer that can be graded"):
        report_of([outcome("free", 10, None)], Sampling(100), Probing(1))


def test_the_longest_row_of_bins_is_taken_and_rare_traces_are_sampled_more():
    assert learnable([4, 9, 0, 4, 4, 4], 4) == (3, 5)
    assert learnable([4, 4, 0, 9, 9], 4) == (3, 4)  # of two as long, the one with more
    assert learnable([4, 4, 0, 4, 4], 4) == (0, 1)
    assert learnable([], 4) is None
    sampled = {"free": 100, "stopped": 100}
    assert suggested([{"free": 50}, {"free": 1, "stopped": 2}], sampled) == {"free": 128, "stopped": 3200}
    assert suggested([{"stopped": 1}], {"stopped": 100_000}) == {"free": 64, "stopped": 8192}  # never without an end


@pytest.mark.parametrize(
    "text, times",
    [
        ("check check check", 3),
        ("Check, check. CHECK!", 3),
        ("checked checks recheck check_ che ck", 0),  # other words are none
        ("They want check 3 times.</think>check\ncheck\ncheck", 3),  # the answer, not what is said of it before
        (" check check</think>\\boxed{2}", 2),  # the words are in the thinking, and the answer is another
        ("", 0),
    ],
)
def test_a_word_is_counted_where_it_is_written(text, times):
    assert times_written(text, "check", "</think>") == times


@pytest.mark.parametrize(
    "written, correlation, error, follows",
    [
        ([4, 8, 16, 32], 1.0, 0.0, True),
        ([4, 9, 17, 30], 1.0, 0.0625, True),  # nearly
        ([10, 10, 10, 10], 0.0, 0.703, False),  # the same whatever it is told
        ([2, 3, 4, 5], 1.0, 0.680, False),  # more for more, and far off
        ([5, 3, 16, 32], 0.8, 0.219, False),  # near, and not in order
    ],
)
def test_what_was_written_decides_the_advice(written, correlation, error, follows):
    found = {"rank_correlation": correlation, "mean_abs_error": error}
    assert advice(found).startswith("It follows" if follows else "It does not follow")
    assert advice(found).count(". ") == 0  # one sentence

    _, tokenizer = load_model("tiny_reasoner")

    class Writes:
        stops = {1}

        def complete_batch(self, prompt_ids, limits, temperature, seed):
            assert temperature == 0
            return [tokenizer(" check" * n, add_special_tokens=False)["input_ids"] + [1] for n in written]

    told = ask_counts(Writes(), tokenizer, Prompts().fitted(tokenizer), WordCounts(), Sampling(64), None)
    assert told["written"] == written and told["truncated"] == [False] * 4
    assert told["rank_correlation"] == pytest.approx(correlation)
    assert told["mean_abs_error"] == pytest.approx(error, abs=6e-4)


def test_a_probe_says_whether_the_model_follows_a_count(done):
    report, page = json.loads((done / "probe.json").read_text()), (done / "probe.md").read_text()
    found = report["counting"]
    assert found["counts"] == [4, 8, 16, 32] and len(found["written"]) == 4
    assert advice(found) in page and "| 32 | " in page.partition("follow a count?")[2]
    kept = (done / "completions" / "counting.jsonl").read_text().splitlines()
    assert json.loads(kept[0])["temperature"] == 0 and len(json.loads(kept[1])) == 4
    older = {name: value for name, value in report.items() if name != "counting"}
    assert "follow a count?" not in to_markdown(older)


def test_a_model_that_practised_writing_words_follows_a_count():
    model, sorter = load_model("tiny_sorter")
    practised = Wording().ask("Write {word} {count} times.", None, "free")  # the words of rlred/tiny/sorting.py
    asked = WordCounts((3, 6, 12, 24), request=practised)
    found = ask_counts(model, sorter, Prompts().fitted(sorter), asked, Sampling(64), None)
    assert found["written"] == [3, 6, 12, 24] and advice(found).startswith("It follows")
