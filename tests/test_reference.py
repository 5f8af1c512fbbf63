"""The base's own length and accuracy, and the rewards and runs that are made from them."""

import json

import pytest

from rlred.cli import main as rlred
from rlred.data.questions import load_questions
from rlred.evaluation.report import adherence
from rlred.evaluation.results import read_result, write_result
from rlred.runs.arguments import parse
from rlred.runs.grpo import run
from tests.benchmarks.reward_board import BASES, METHODS, flags_of, main, pareto, share_base
from tests.paths import ROOT, real_data

SMALL = "--max_steps 2 --per_device_train_batch_size 8 --num_generations 4 --num_questions 16 --num_eval_questions 8"
SMALL += " --lora_r 4 --logging_steps 1"


def reference(output, *flags):
    return rlred(["reference", "--max_completion_length", "80", "--output", str(output), *flags])


def test_questions_get_the_mean_length_and_the_accuracy_of_their_own_samples(tmp_path, capsys):
    path = tmp_path / "reference.jsonl"
    assert reference(path, "--num_questions", "6", "--num_samples", "4") == 0
    rows = load_questions(str(path))
    assert len(rows) == 6 and {"easy", "medium", "hard"} >= set(rows["level"])
    assert all(accuracy in (0, 0.25, 0.5, 0.75, 1) for accuracy in rows["reference_accuracy"])
    lines = path.with_suffix(".completions.jsonl").read_text().splitlines()
    lengths = [len(ids) for line in lines[1:] for ids in json.loads(line)]
    assert [sum(lengths[i : i + 4]) / 4 for i in range(0, 24, 4)] == list(rows["reference_length"])
    assert "6 of 6 questions" in capsys.readouterr().out

    # Interrupted before the file was written: it goes on from the completions, to the same rows; and keeps them.
    first = path.read_text()
    path.unlink()
    assert reference(path, "--num_questions", "6", "--num_samples", "4") == 0 and path.read_text() == first
    assert reference(path, "--num_questions", "6") == 2 and path.read_text() == first


def test_many_questions_are_sampled_part_by_part_as_if_at_once_and_go_on_where_they_stopped(tmp_path, monkeypatch):
    flags = ["--num_questions", "9", "--num_samples", "2", "--batch_size", "4"]
    assert reference(tmp_path / "whole.jsonl", *flags) == 0
    monkeypatch.setattr("rlred.evaluation.sampling.SHARD", 4)
    assert reference(tmp_path / "parts.jsonl", *flags) == 0
    assert (tmp_path / "parts.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    files = sorted(tmp_path.glob("parts.completions-*.jsonl"))
    assert [path.name[-11:] for path in files] == ["00000.jsonl", "00001.jsonl", "00002.jsonl"]
    (tmp_path / "parts.jsonl").unlink()
    files[2].unlink()  # it was killed in the third part
    kept = [path.stat().st_mtime_ns for path in files[:2]]
    assert reference(tmp_path / "parts.jsonl", *flags) == 0
    assert (tmp_path / "parts.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    assert [path.stat().st_mtime_ns for path in files[:2]] == kept


def test_shares_of_several_processes_are_read_by_the_last_run(tmp_path, monkeypatch, capsys):
    flags = ["--num_questions", "9", "--num_samples", "2", "--batch_size", "4"]
    monkeypatch.setattr("rlred.evaluation.sampling.SHARD", 4)
    assert reference(tmp_path / "whole.jsonl", *flags) == 0
    path = tmp_path / "shares.jsonl"
    assert reference(path, *flags, "--share", "2/2") == 0 and not path.exists()
    assert [file.name[-11:-6] for file in tmp_path.glob("shares.completions-*.jsonl")] == ["00001"]
    assert "share 2/2: 4 of 9 questions; without --share" in capsys.readouterr().out
    assert reference(path, *flags, "--share", "1/2") == 0 and not path.exists()
    files = sorted(tmp_path.glob("shares.completions-*.jsonl"))
    sampled = [file.stat().st_mtime_ns for file in files]
    assert reference(path, *flags) == 0 and path.read_text() == (tmp_path / "whole.jsonl").read_text()
    assert len(files) == 3 and [file.stat().st_mtime_ns for file in files] == sampled
    assert reference(tmp_path / "few.jsonl", *flags, "--share", "4/4") == 2
    assert "take N = 3 or less" in capsys.readouterr().err


def test_real_questions_keep_what_cannot_be_sampled_out(tmp_path):
    path = tmp_path / "reference.jsonl"
    flags = ["--questions", str(real_data("gsm8k/test.jsonl")), "--num_questions", "3", "--num_samples", "2"]
    assert reference(path, *flags) == 0
    assert [row["reference_accuracy"] for row in map(json.loads, path.read_text().splitlines())] == [0, 0, 0]


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--num_samples 0", "--num_samples must be 1 or more"),
        ("--share 0/2", "--share must be K/N with 1 <= K <= N, as 2/4, got '0/2'"),
        ("--share half", "--share must be K/N"),
        ("--questions nowhere.csv", "no such file"),
        ("--wording l3", "no preset named"),
        ("--split dev", "splits 'train' and 'test'"),
    ],
)
def test_bad_flags_are_one_clear_line(flags, message, tmp_path, capsys):
    assert reference(tmp_path / "r.jsonl", *flags.split(" ")) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line and not (tmp_path / "r.jsonl").exists()


def test_o1_pruner_samples_its_own_reference_and_trains(tmp_path):
    arguments = parse(ROOT / "recipes" / "o1_pruner.yaml", [*SMALL.split(" "), "--output_dir", str(tmp_path / "run")])
    result = run(*arguments, tmp_path)
    rows = load_questions(str(tmp_path / "run" / "reference.jsonl"))
    assert len(rows) == 16 and min(rows["reference_length"]) > 5
    assert (tmp_path / "run" / "adapter_model.safetensors").exists()
    assert "control_constant_length" not in result.blocks  # nobody asks for a length
    trained = result.blocks["trained"]
    assert set(trained["overall"]) == {"free"} and trained["by_level"]
    assert "## By difficulty" in (tmp_path / "run" / "adherence.md").read_text()


@pytest.mark.slow
def test_o1_pruner_takes_a_reference_that_was_made_before(tmp_path):
    path = tmp_path / "reference.jsonl"
    assert reference(path, "--num_questions", "16", "--num_samples", "2") == 0
    words = [*SMALL.split(" "), "--questions", str(path), "--evaluate", "false", "--output_dir", str(tmp_path / "run")]
    run(*parse(ROOT / "recipes" / "o1_pruner.yaml", words), tmp_path)
    assert not (tmp_path / "run" / "reference.jsonl").exists()


def test_a_board_that_was_interrupted_goes_on_and_says_what_it_has(tmp_path, monkeypatch, capsys):
    board = ["board", "--folder", str(tmp_path), "--model", "tiny_reasoner", "--seeds", "0", *SMALL.split(" ")]
    for name in ("correctness", "constant_length"):
        monkeypatch.setattr("sys.argv", [*board, "--only", name])
        assert main() == 0
    rows = json.loads((tmp_path / "board.json").read_text())
    assert list(rows) == ["base", "correctness", "constant_length"]
    assert rows["base"][0]["over_budget"] is None and rows["constant_length"][0]["over_budget"] is not None
    assert (
        rows["correctness"][0]["rollout_tokens"] > 0 and rows["correctness"][0]["hard"] > rows["correctness"][0]["easy"]
    )
    written = (tmp_path / "correctness-0" / "adherence.json").stat().st_mtime_ns
    monkeypatch.setattr("sys.argv", [*board, "--only", "correctness"])
    assert main() == 0 and (tmp_path / "correctness-0" / "adherence.json").stat().st_mtime_ns == written
    assert "| base | 1 |" in capsys.readouterr().out
    assert (tmp_path / "board.png").stat().st_size > 10_000
    # The base is the same for all that ask for no length: the next row takes its measures over.
    measures = tmp_path / "correctness-0" / "measures" / "baseline.json"
    measures.write_text(json.dumps({**json.loads(measures.read_text()), "mark": 1}))
    monkeypatch.setattr("sys.argv", [*board, "--only", "group_sigmoid"])
    assert main() == 0
    assert read_result(tmp_path / "group_sigmoid-0").blocks["baseline"]["mark"] == 1


def test_the_second_base_of_the_board_is_asked_its_own_questions_and_no_folder_mixes_two(tmp_path, monkeypatch, capsys):
    words = ["board", "--folder", str(tmp_path), "--base", "tiny_sorter", *SMALL.split(" ")]
    monkeypatch.setattr("sys.argv", [*words, "--only", "gdpo"])
    assert main() == 0
    arguments = json.loads((tmp_path / "gdpo-0" / "run.json").read_text())["arguments"]
    assert (arguments["questions"], read_result(tmp_path / "gdpo-0").labels["model"]) == ("sorting", "tiny_sorter")
    told = f"reward_board.py --base tiny_sorter --folder {tmp_path} --seeds 0"
    assert told in (tmp_path / "board.md").read_text()
    monkeypatch.setattr("sys.argv", [*words, "--only", "tale"])
    assert main() == 2 and "--only tale: its teacher" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", [*words, "--only", "gdpo", "--model", "tiny_reasoner"])
    assert main() == 2 and "gdpo-0 is a run of tiny_sorter, not of tiny_reasoner" in capsys.readouterr().err


def test_a_base_is_shared_with_rows_of_the_same_model_that_ask_alike(tmp_path):
    measures = tmp_path / "correctness-0" / "measures"
    measures.mkdir(parents=True)
    (measures / "baseline.json").write_text("{}")
    (measures / "trained.json").write_text("{}")
    write_result(adherence({"model": "mine", "n_questions": 1}, {}), tmp_path / "correctness-0")
    for name, seed, model in (("laser", 0, "other"), ("laser", 1, "mine"), ("constant_length", 0, "mine")):
        share_base(tmp_path, name, seed, model)
        assert not (tmp_path / f"{name}-{seed}").exists()
    share_base(tmp_path, "laser", 0, "mine")
    assert [file.name for file in (tmp_path / "laser-0" / "measures").iterdir()] == ["baseline.json"]


def test_the_pareto_front():
    assert pareto({"a": (10, 0.5), "b": (20, 0.9), "c": (30, 0.8), "d": (5, 0.5), "e": (20, 0.7)}) == ["d", "b"]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_of_the_board_passes_the_audit(name, base, tmp_path):
    from rlred.checks.audit import audit_config
    from rlred.rewards import make_reward

    flags = flags_of(BASES[base].method(name), 0, tmp_path / "run", BASES[base].flags)
    parsed, training, model = parse(ROOT / "tests" / "benchmarks" / "reward_board.yaml", flags)
    reward = [make_reward(parsed.reward)]
    found = audit_config(training, parsed.make_sampler(), reward, hindsight=parsed.hindsight, use_peft=model.use_peft)
    expected = {"constant_length": ["hindsight"]}.get(name, [])
    assert [finding.field for finding in found] == expected


@pytest.mark.parametrize(
    "command, flag",
    [
        ("reference --max_completion_length 8 --num_questions 1 --output {tmp}/reference.jsonl", "--wording"),
        ("evaluate --budgets 8 --output {tmp}", "--wording"),
        ("evaluate --budgets 8 --output {tmp}", "--paraphrase"),
        ("generate 3+4=? --budgets 8", "--wording"),
    ],
)
@pytest.mark.parametrize(
    "value, message",
    [
        ('{"max', "is not JSON: Unterminated string"),
        (' {"max":}', "is not JSON"),
        ('{"max": 3}', "wording.max must be a text"),
        ('{"maximum": "{question}"}', "unknown mode 'maximum'"),
        ("l3", "no preset named 'l3'"),
    ],
)
def test_a_malformed_wording_is_named_with_its_flag(command, flag, value, message, tmp_path, capsys):
    assert rlred([*command.format(tmp=tmp_path).split(" "), flag, value]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line
    if "not JSON" in message:
        assert line.startswith(f"error: {flag} {value!r} is not JSON")
