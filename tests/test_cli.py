"""The command line: flags are made from dataclasses, help is quick and short, and a wrong word is one clear line."""

import dataclasses
import os
import shlex
import shutil
import subprocess
import sys

import pytest

from rlred.cli import COMMANDS, FAMILIES, command_of, find, listing
from rlred.cli import main as rlred
from rlred.data.models import Loading
from rlred.evaluation.settings import Evaluation
from rlred.flags import described, flags_of, option, parse, required
from tests.paths import ROOT

HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "matplotlib", "math_verify", "sympy", "accelerate")
# What users have written since before flags were made from dataclasses; a name that goes from here breaks scripts.
FLAGS = {
    "evaluate": "model adapter questions questions_config split question_column solution_column more_questions "
    "num_questions num_samples budgets modes baselines wording system_prompt chat_template_kwargs end_of_thinking "
    "paraphrase out_of_range max_completion_length per_prompt_cap require_end_of_thinking temperature batch_size dtype "
    "seed vllm output as_task trust_remote_code predictions columns ratios prediction_budgets tokenizer",
    "generate": "model adapter budgets mode wording system_prompt chat_template_kwargs end_of_thinking "
    "max_completion_length temperature dtype seed trust_remote_code",
    "reference": "output model questions questions_config split question_column solution_column num_questions "
    "num_samples max_completion_length wording temperature batch_size dtype seed trust_remote_code",
    "plan": "config model devices strategy prompt_length tflops",
    "report": "output",
    "export": "output base_model merge push private",
    "compress traces": "output from_file columns model questions questions_config split num_questions ratio_format "
    "system_prompt max_completion_length num_samples temperature batch_size dtype seed",
    "compress scores": "traces output scorer scorer_model dtype seed share",
    "compress rows": "traces scores output tokenizer ratios ratio_format ratios_per_question difficulty short_share "
    "unasked levels tolerance unprotected alpaca seed",
    "compress shots": "traces scores output tokenizer budget keep num_shots",
    "make tiny_verbose": "output max_steps batch_size learning_rate seed",
    "make tiny_vlm": "output steps batch_size learning_rate seed",
    "make tiny_reasoner": "output batch_size seed first_stage skip_steps init",
}
FIELDS = [name for name in COMMANDS if name != "train"]  # whose words are accelerate's and the recipe's


@pytest.mark.parametrize("words", [["--help"], ["compress", "--help"], *([name, "--help"] for name in ("evaluate",))])
def test_help_does_not_wait_for_the_libraries(words):
    code = (
        "import sys\nfrom rlred.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        f"print('loaded', [name for name in {HEAVY} if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "loaded []" in done.stdout


@pytest.mark.parametrize("name", FIELDS)
def test_the_help_of_a_command_fits_a_screen_and_ends_with_examples(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    with pytest.raises(SystemExit) as ended:
        rlred([*name.split(), "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 0 and len(lines) <= 60
    place = lines.index("for example:")
    examples = [line for line in lines[place + 1 :] if line.startswith("  rlred ")]
    assert len(examples) == 2 and all(f"{line} ".startswith(f"  rlred {name} ") for line in examples)
    assert lines[-1].startswith("  ") and not any("`ValueError`" in line for line in lines)


def test_the_help_of_train_fits_a_screen_and_ends_with_examples(capsys):
    assert rlred(["train", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = lines.index("for example:")
    assert len(lines) <= 60 and len(lines) == place + 3
    assert all(line.startswith("  rlred train ") for line in lines[place + 1 :])


@pytest.mark.parametrize("name", FIELDS)
def test_the_example_of_a_help_text_is_understood(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind = command_of(name)
    text = "\n".join(described(kind)[1]).replace("\\\n", " ")
    for line in text.splitlines():
        found, words = find(shlex.split(line)[1:])
        assert found == name and isinstance(parse(kind, words, name), kind)


@pytest.mark.parametrize("name", FLAGS)
def test_the_flags_that_users_know_are_there(name):
    assert {f"--{flag}" for flag in FLAGS[name].split()} <= set(flags_of(command_of(name)))


@pytest.mark.parametrize("name", FIELDS)
def test_a_command_is_a_frozen_dataclass_whose_flags_all_have_a_text(name):
    kind = command_of(name)
    assert kind.__dataclass_params__.frozen
    told = [item.metadata["help"] for item in dataclasses.fields(kind) if "help" in item.metadata]
    assert told and all(0 < len(text) < 120 for text in told)


def test_every_command_is_listed_by_itself_or_in_its_family():
    text = listing()
    for name in COMMANDS:
        first, _, second = name.partition(" ")
        assert first in text and (not second or (first in FAMILIES and f"  {second}" in listing(first)))


WRONG = [
    (
        ["compress", "traces", "--output", "t.jsonl", "--from_file", "f", "--columns", "foo"],
        "--columns must be NAME=COLUMN",
    ),
    ([], "name a command; there are train, evaluate, "),
    (["evaluat"], "'evaluat': there is no such command; there are train, evaluate, "),
    (["compress"], "compress: name a command; there are traces, scores, rows, shots"),
    (["compress", "trace"], "compress: 'trace': there is no such command; there are traces, "),
    (["evaluate", "--budgets", "eight"], "--budgets: 'eight' is not a whole number"),
    (["evaluate", "--budget", "8"], "--budget: there is no such flag; did you mean --budgets?"),
    (["evaluate", "--budgets"], "--budgets: expected at least one argument"),
    (["evaluate", "--budgets", "8", "--temperature", "hot"], "--temperature: 'hot' is not a number"),
    (["evaluate", "--budgets", "8", "--modes", "least"], "--modes: invalid choice: 'least'"),
    (["evaluate", "--budgets", "8", "--dtype", "float31"], "dtype must be float32, bfloat16, float16, auto, got"),
    (["evaluate", "--budgets", "8", "--load_in_4bit", "--load_in_8bit"], "load_in_4bit and load_in_8bit are both set"),
    (["evaluate", "--budgets", "8", "--load_in_4bit", "--vllm"], "--load_in_4bit: vLLM does not quantise"),
    (["evaluate", "8"], "'8': nothing takes this word"),
    (["generate"], "QUESTION: required"),
    (["reference", "--output", "x.jsonl"], "--max_completion_length: required"),
    (["table"], "RUN: required"),
]


@pytest.mark.parametrize("words, message", WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_wrong_word_is_one_line_and_status_2(words, message, capsys):
    assert rlred(words) == 2
    told = capsys.readouterr()
    [line] = told.err.splitlines()
    assert line.startswith("error: ") and message in line and told.out == ""


def test_flags_are_made_from_the_fields():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mine:
        """Do it.

        rlred mine 3
        """

        number: int = required("How many.", positional=True)
        names: list[str] = option([], "Who.")
        share: float | None = option(None, "Of what.")
        loud: bool = option(False, "Whether.")
        silent: int = 7  # no help text: not a flag

        def run(self):
            return self.number

    assert flags_of(Mine) == ["--names", "--share", "--loud"]
    assert parse(Mine, ["3", "--loud", "--names", "a", "b", "--share", "-0.5"], "mine") == Mine(
        number=3, names=["a", "b"], share=-0.5, loud=True
    )
    with pytest.raises(ValueError, match="--silent: there is no such flag"):
        parse(Mine, ["3", "--silent", "8"], "mine")


def test_how_a_model_is_read_reaches_the_evaluation():
    told = Evaluation(budgets=[8], model_revision="v2", load_in_8bit=True, dtype="bfloat16")
    assert Loading.of(told) == Loading("bfloat16", "v2", load_in_8bit=True)


def test_trap_a_path_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    found = ["report", str(ROOT / "data" / "l1_exact"), "--output", str(tmp_path / "file" / "page")]
    assert rlred(found) == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "file" in line


def test_a_record_that_is_none_is_one_line(tmp_path, capsys):
    run = shutil.copytree(ROOT / "data" / "l1_maxlen", tmp_path / "run")
    for text in ("[]", "{", "3"):
        (run / "run.json").write_text(text)
        assert rlred(["export", str(run), "--output", str(tmp_path / "out")]) == 2
        assert "run.json" in capsys.readouterr().err


def test_traces_and_rows_take_no_place_of_other_files(tmp_path, capsys):
    (tmp_path / "t.json").write_text("precious")
    for command in ("compress traces", f"compress rows --traces {tmp_path / 'a.jsonl'} --cut random"):
        for name, message in (
            ("t.jsonl", "t.json exists and is not written over"),
            ("u.json", "the report has this name"),
        ):
            assert rlred([*command.split(), "--output", str(tmp_path / name)]) == 2
            assert message in capsys.readouterr().err
    assert (tmp_path / "t.json").read_text() == "precious" and not (tmp_path / "u.json").exists()


def test_a_free_completion_needs_a_cap(capsys):
    for flags in ("--mode free", "--efforts low", "--mode effort"):
        assert rlred(["generate", "1+1?", *flags.split()]) == 2
        assert "--max_completion_length is missing" in capsys.readouterr().err


def test_ctrl_c_is_one_line_and_status_130(capsys, monkeypatch):
    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr("rlred.cli.call", interrupted)
    assert rlred(["status"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
