"""`rlred evaluate --as_task`: the folder is complete, its figures are those of the report, the harnesses agree."""

import json
import os
import random
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rlred.cli import main
from rlred.evaluation.harness import Task, correlation, root_mean_square
from rlred.evaluation.measures import measure
from rlred.evaluation.results import read_result
from rlred.evaluation.sampling import Grading
from rlred.evaluation.sweep import outcomes_of
from rlred.rewards import Correctness
from tests.paths import ROOT

ADAPTER = str(ROOT / "data" / "l1_exact")
ASKED = "--budgets 16 32 --modes exact max free --num_questions 6 --temperature 0 --max_completion_length 80".split()


def evaluate(*words):
    return main(["evaluate", "--adapter", ADAPTER, *map(str, words)])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A task for each harness."""
    root = tmp_path_factory.mktemp("tasks")
    for harness in ("lm_eval", "lighteval"):
        assert evaluate(*ASKED, "--as_task", harness, "--output", root / harness) == 0
    return root


@pytest.fixture(scope="module")
def task(folders):
    return Task.read(folders / "lm_eval")


def rows_of(folder):
    return [json.loads(line) for line in (folder / "questions" / "test.jsonl").read_text().splitlines()]


def completions(task, rows):
    """Ids of made-up completions, some correct, some cut at the cap."""
    rng, made = random.Random(0), []
    for number, row in enumerate(rows):
        answer = json.loads(row["solution"]) if number % 3 else "999"
        text = "".join(f"{rng.randint(1, 9)}+" for _ in range(rng.randint(1, 30))) + rf"</think>\boxed{{{answer}}}"
        ids = task.tokenizer(text, add_special_tokens=False)["input_ids"][: task.cap]
        made.append(ids if len(ids) == task.cap else [*ids, task.stops[0]])
    return made


def test_the_folder_has_every_question_under_every_condition_once(folders):
    for harness in ("lm_eval", "lighteval"):
        rows = rows_of(folders / harness)
        asked = {(row["question_id"], row["mode"], row["budget"]) for row in rows}
        assert len(rows) == len(asked) == 6 * 5 and len({row["prompt"] for row in rows}) == 30
        assert all((f"{row['budget']} tokens" in row["prompt"]) == (row["mode"] != "free") for row in rows)
    read = yaml.BaseLoader(folders.joinpath("lm_eval", "rlred_adherence.yaml").read_text().replace("!function ", ""))
    told = read.get_single_data()
    assert told["generation_kwargs"] == {"until": ["<|im_end|>"], "max_gen_toks": "80", "do_sample": "false"}
    assert [metric["metric"] for metric in told["metric_list"]] == Task.read(folders / "lm_eval").names()
    compile(folders.joinpath("lighteval", "rlred_adherence.py").read_text(), "task", "exec")


def test_the_figures_are_those_of_the_report(folders, task):
    rows = rows_of(folders / "lm_eval")
    made = completions(task, rows)
    found: dict[str, list] = {}
    for row, ids in zip(rows, made, strict=True):
        for name, value in task.values(row, ids).items():
            found.setdefault(name, []).append(value)
    grading = Grading(Correctness()).fitted(task.end_of_thinking, task.tokenizer)
    asked = [{**row, "solution": json.loads(row["solution"])} for row in rows]
    block = measure(outcomes_of(asked, made, tokenizer=task.tokenizer, stops=set(task.stops), grading=grading))
    assert set(found) == set(task.names())
    assert correlation(found["rank_correlation"]) == pytest.approx(block["rank_correlation"])
    for line in block["rows"]:
        label = "free" if line["budget"] is None else f"{line['mode']}_{line['budget']}"
        for name in ("accuracy", "mean_length", "truncated", "mean_error", "mean_abs_error", "over_budget", "rmse"):
            if line[name] is None:
                assert f"{label}_{name}" not in found
                continue
            values = found[f"{label}_{name}"]
            figure = root_mean_square(values) if name == "rmse" else sum(values) / len(values)
            assert figure == pytest.approx(line[name])
    assert 0 < block["rows"][0]["accuracy"] < 1


def test_a_text_has_its_ids_back_and_padding_is_no_length(folders, task):
    rows = rows_of(folders / "lm_eval")
    for ids in completions(task, rows):
        text = task.tokenizer.decode(ids, skip_special_tokens=True)
        assert task.ids_of(text) == ids
        assert task.whole([*ids, task.tokenizer.pad_token_id, task.tokenizer.pad_token_id][: task.cap + 2]) == ids
    own = runpy.run_path(str(folders / "lm_eval" / "rlred_adherence.py"))
    found = own["process_results"](rows[0], [r"1+1</think>\boxed{" + json.loads(rows[0]["solution"]) + "}"])
    assert found["exact_16_accuracy"] == 1.0 and found["exact_16_truncated"] == 0.0


def test_a_completion_without_a_grade_adds_nothing_to_the_accuracy(folders, task):
    row = {**rows_of(folders / "lm_eval")[0], "solution": json.dumps(None)}
    found = task.values(row, [task.stops[0]])
    assert "exact_16_accuracy" not in found and found["exact_16_mean_length"] == 1.0


@pytest.mark.parametrize(
    "words, message",
    [
        (["--num_samples", "2"], "--num_samples: a task asks one model for budgets, once each"),
        (["--baselines", "brevity"], "--baselines: a task asks one model"),
        (["--per_prompt_cap", "1.5", "--modes", "max"], "--per_prompt_cap: a task asks one model"),
        (["--ratios", "0.5"], "--ratios: a task asks a model for budgets"),
        (["--adapter", ADAPTER, "other"], "--as_task: name one model or one adapter"),
        (["--as_task", "helm"], "--as_task: .*helm"),
    ],
)
def test_what_a_harness_does_not_measure_is_refused(words, message, tmp_path, capsys):
    assert evaluate("--budgets", 16, "--as_task", "lm_eval", "--output", tmp_path / "task", *words) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert re.search(message, line) and not (tmp_path / "task").exists()


def test_a_task_is_not_written_over_and_needs_a_folder(folders, capsys):
    assert evaluate(*ASKED, "--as_task", "lm_eval", "--output", folders / "lm_eval") == 2
    assert evaluate(*ASKED, "--as_task", "lm_eval") == 2
    said = capsys.readouterr().err
    assert "task.json exists and is not written over" in said and "--output: name the folder" in said


HARNESS = Path(os.environ.get("RLRED_HARNESS_BIN", "/nowhere"))


@pytest.mark.slow
@pytest.mark.parametrize("harness", ["lm_eval", "lighteval"])
@pytest.mark.skipif(not HARNESS.is_dir(), reason="RLRED_HARNESS_BIN names no bin folder with lm_eval and lighteval")
def test_the_harness_gives_the_figures_of_rlred_evaluate(harness, tmp_path, capsys):
    asked = "--budgets 16 32 64 --num_questions 32 --temperature 0".split()
    assert evaluate(*asked, "--output", tmp_path / "ours") == 0
    capsys.readouterr()
    assert evaluate(*asked, "--as_task", harness, "--output", tmp_path / "task") == 0
    command = capsys.readouterr().out.splitlines()[-1] + (" --device cpu" if harness == "lm_eval" else "")
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    offline["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), str(HARNESS), os.environ["PATH"]])
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env={**os.environ, **offline})
    assert done.returncode == 0, done.stderr[-2000:]
    [path] = (tmp_path / "task" / "results").rglob("results*.json")
    found = figures(json.loads(path.read_text())["results"])
    result = read_result(tmp_path / "ours")
    for line in result.rows("trained"):
        for name in ("accuracy", "mean_length", "truncated", "mean_error", "mean_abs_error", "over_budget", "rmse"):
            assert found[f"exact_{line['budget']}_{name}"] == pytest.approx(line[name], abs=1e-4), (
                line["budget"],
                name,
            )
    assert found["rank_correlation"] == pytest.approx(result.blocks["trained"]["rank_correlation"], abs=1e-4)


def figures(results: dict) -> dict:
    """The task's figures by their own names: lm_eval adds its filter, lighteval its number of shots to the task."""
    [own] = [values for name, values in results.items() if name.partition("|")[0] == "rlred_adherence"]
    return {name.partition(",")[0]: value for name, value in own.items() if not isinstance(value, str)}
