"""One form of results: read as it was written, older files too; a file that is none is refused."""

import json

import pytest

from rlred.evaluation.markdown import table, table_of
from rlred.evaluation.measures import measure
from rlred.evaluation.report import adherence
from rlred.evaluation.results import (
    FORMAT,
    KINDS,
    Result,
    kind_of,
    read_result,
    results_in,
    to_markdown,
    write_result,
)
from rlred.evaluation.visual import POLICY
from tests.paths import ROOT

LABELS = {"model": "m", "n_questions": 2}


def outcomes(budgets=(10, 20)):
    about = {"mode": "exact", "correct": 1.0, "truncated": False, "completion": "x"}
    return [{**about, "question_id": q, "budget": b, "length": b + q} for q in (0, 2) for b in budgets]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_names_its_pictures_after_its_files(kind):
    assert f"{kind}.png" in kind_of(Result(kind, LABELS, {})).pictures


def test_a_result_is_read_as_it_was_written(tmp_path):
    blocks = {"trained": measure(outcomes()), "model-1": {**measure(outcomes()), "title": "another"}}
    result = adherence(LABELS, blocks, cost={"minutes": 1.5})
    write_result(result, tmp_path)
    assert read_result(tmp_path) == result and results_in(tmp_path) == [result]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"adherence.{end}" for end in ("json", "md", "png")]
    told = json.loads((tmp_path / "adherence.json").read_text())
    assert list(told) == ["format", "kind", "labels", "blocks", "details", "cost"] and told["format"] == FORMAT
    page = (tmp_path / "adherence.md").read_text()
    assert page == to_markdown(result) and "## Another" in page and "- minutes: 1.5" in page


def test_the_json_is_written_last(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("rlred.evaluation.results.save_figure", full)
    with pytest.raises(OSError):
        write_result(adherence(LABELS, {"trained": measure(outcomes())}), tmp_path)
    assert not (tmp_path / "adherence.json").exists()  # nobody takes the run for a finished one


@pytest.mark.parametrize("adapter", ["l1_exact", "l1_maxlen"])
def test_published_adapters_have_results_of_the_first_form_and_show_what_they_showed(adapter):
    folder = ROOT / "data" / adapter
    assert "format" not in json.loads((folder / "adherence.json").read_text())
    result = read_result(folder)
    assert list(result.blocks) == ["baseline", "hindsight", "trained", "control_constant_length"]
    assert to_markdown(result) == (folder / "adherence.md").read_text()


def test_further_models_of_the_first_form_keep_their_names(tmp_path):
    block = measure(outcomes())
    others = {"b": {**block, "title": "other questions: b", "comparable": False}, "trained": block}
    (tmp_path / "adherence.json").write_text(json.dumps({**LABELS, "trained": block, "others": others}))
    result = read_result(tmp_path)
    assert {name: one["title"] for name, one in result.blocks.items()} == {
        "trained": "after RL",
        "b": "other questions: b",
        "model-1": "trained",  # a folder of that name is not the stage
    }
    assert result.blocks["b"]["comparable"] is False


def test_ratios_of_the_first_form_are_read(tmp_path):
    row = {"ratio": 1.0, "n": 4, "achieved": 1.0, "gap": 0.0, "tokens": 40.0, "thinking_tokens": 30.0}
    row |= {"answer_tokens": 10.0, "accuracy": 0.5, "accuracy_low": 0.2, "accuracy_high": 0.8, "truncated": 0.0}
    row |= {"seconds": None, "less_than_full": None}
    old = {**LABELS, "adapter": "a", "seed": 0, "temperature": 0.0, "max_completion_length": 96, "batch_size": 8}
    old |= {"trained_ratios": [1.0], "minutes": 2.0, "blocks": {"base": {"title": "base", "rows": [row]}}}
    (tmp_path / "ratios.json").write_text(json.dumps(old))
    result = read_result(tmp_path, "ratios")
    [found] = result.rows("base")
    assert (found["mean_length"], found["mean_thinking_length"], found["mean_answer_length"]) == (40.0, 30.0, 10.0)
    assert result.cost == {"minutes": 2.0} and "tokens" not in found
    assert "| 1 | 1.000 | 40.0 | 30.0 | 10.0 | 50.0 (20.0-80.0) |" in to_markdown(result)


def test_a_run_on_pictures_of_the_first_form_is_read(tmp_path):
    line = {"n": 4, "accuracy": 0.5, "interval": [0.2, 0.8], "ratio": 0.25, "tokens": 16.0, "said": 3.0}
    line["looks"] = {"<a>": 1.0}
    lines = {"all": line, "dot": {**line, "accuracy": 1.0}}
    old = {"model": "m", "n": 4, "wordings": "test", "seed": 0, "visual_weight": 0.2, "steps": 3, "minutes": 1.0}
    old |= {"fixed": {"base, <a>": {**lines, "seconds": 0.5}}, "optima": {"dot": {"<a>": 1.15}}}
    old |= {"gates": {"base, gate sampled, train wordings": lines}}
    (tmp_path / "visual.json").write_text(json.dumps(old))
    result = read_result(tmp_path, "visual")
    [fixed], [policy] = result.rows("fixed"), result.rows(POLICY)
    assert (fixed["stage"], fixed["choice"], fixed["wordings"], fixed["seconds"]) == ("base", "<a>", "test", 0.5)
    assert (policy["choice"], policy["decoding"], policy["wordings"]) == (POLICY, "sampled", "train")
    assert policy["blind_accuracy"] == 0.5 and policy["budget_tokens"] == {"<a>": 1.0}
    assert (policy["keep_ratio"], policy["visual_tokens"], policy["mean_length"]) == (0.25, 16.0, 3.0)
    page = to_markdown(result)
    assert "| base | `<a>` | test | 0.250 | 50.0 (20.0-80.0) | | 16.0 tokens, 100.0 % | 3.0 |" in page
    assert "- dot: `<a>` 1.150" in page


TODAY = {"format": FORMAT, "kind": "adherence", "labels": LABELS, "blocks": {}, "details": {}, "cost": {}}


@pytest.mark.parametrize(
    "told, message",
    [
        (None, "there is no adherence.json"),
        ("{", "cannot be read as JSON"),
        ([], "an object is expected, as a run writes it, and it holds a list"),
        ({}, "labels: 'model' is missing"),
        ({"model": "m"}, "labels: 'n_questions' is missing"),
        ({**LABELS, "others": ["a"]}, "is no result of this version or an older one"),
        ({**TODAY, "format": FORMAT + 1}, f"format: {FORMAT + 1} cannot be read, only {FORMAT}; a newer rlred"),
        ({**TODAY, "kind": "ratios"}, "kind: 'ratios' in a file for 'adherence'"),
        ({name: TODAY[name] for name in TODAY if name != "cost"}, "'cost' is missing"),
        ({**TODAY, "blocks": []}, "blocks: must be a mapping, got list"),
        ({**TODAY, "blocks": {"a": {"title": "a"}}}, "blocks: 'a' needs a title and a list of rows"),
        ({**TODAY, "blocks": {"a": {"rows": []}}}, "blocks: 'a' needs a title and a list of rows"),
    ],
)
def test_a_file_that_is_no_result_is_one_clear_line(told, message, tmp_path):
    if told is not None:
        text = told if isinstance(told, str) else json.dumps(told)
        (tmp_path / "adherence.json").write_text(text)
    with pytest.raises(ValueError) as raised:
        read_result(tmp_path)
    assert message in str(raised.value) and "\n" not in str(raised.value) and str(tmp_path) in str(raised.value)


def test_a_result_of_today_goes_through(tmp_path):
    (tmp_path / "adherence.json").write_text(json.dumps(TODAY))
    assert read_result(tmp_path) == Result("adherence", LABELS, {})


@pytest.mark.parametrize("cell", ["a | b", "a\nb", "<b>", "`a`", "", r"a \| b", "||"])
def test_no_cell_breaks_a_table(cell):
    lines = table(["one", "two"], [[cell, 1], ["x", 2]])
    assert len(lines) == 4
    page = table_of("\n".join(lines))
    assert page.count("<tr>") == 3 and page.count("<td>") == 4 and "<b>" not in page
    with pytest.raises(ValueError, match="1 cells for 2 columns"):
        table(["one", "two"], [[cell]])
