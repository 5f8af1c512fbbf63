"""The HTML page: everything in it, nothing loaded from elsewhere, and a real browser renders it without complaint."""

import json
import shutil
import subprocess

import matplotlib.image
import pytest

from rlred.cli import main as rlred
from rlred.evaluation.measures import measure
from rlred.evaluation.report import adherence
from rlred.evaluation.results import Result, write_result
from rlred.evaluation.visual_report import visual
from rlred.files import write_json

HOSTILE = "<script>console.error('ran')</script> & 3 < 4"


@pytest.fixture
def run(tmp_path):
    """The output folder of a run with hostile text in every place where text comes from outside."""
    folder = tmp_path / "run"
    folder.mkdir()
    about = {"mode": "exact", "correct": 1.0, "truncated": False, "completion": HOSTILE}
    outcomes = [{**about, "question_id": q, "budget": b, "length": b + q} for q in range(3) for b in (10, 20)]
    block = measure(outcomes)
    block["examples"] = [{**outcome, "question": HOSTILE} for outcome in outcomes[:2]]
    labels = {"model": HOSTILE, "adapter": "a", "seed": 0, "n_questions": 3, "temperature": 1.0}
    start = {"rank_correlation": [[40, 0.1], [80, 0.96]], "shortest_trace": 1, "longest_trace": 30}
    result = adherence(labels, {"baseline": block, "trained": block}, details={"hindsight_start": start})
    write_json(folder / "adherence.json", result.plain())
    steps = [{"step": step, "reward": 0.1 * step, "entropy": "0.5"} for step in range(1, 4)]
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": [*steps, {"train_runtime": 1.0}]}))
    (folder / "run.json").write_text(json.dumps({"questions": HOSTILE}))
    return folder


def test_the_page_holds_everything_and_escapes_it(run, tmp_path):
    assert rlred(["report", str(run), str(run), "--output", str(tmp_path / "page")]) == 0
    page = (tmp_path / "page" / "report.html").read_text()
    assert page.count("<script") == 1 and HOSTILE not in page and "3 &lt; 4" in page
    assert "http" not in page.replace("http://www.w3.org/", "")  # namespaces of SVG are names, nothing is fetched
    for part in ("after RL", "0.96 after 80", "run.json", "currentColor", "color-scheme"):
        assert part in page
    assert page.count("<svg") == 4
    assert sorted(path.name for path in (tmp_path / "page").glob("*.png")) == [
        f"{number}-run-{picture}.png" for number in (1, 2) for picture in ("adherence", "training")
    ]


def test_a_page_is_not_written_over_another(run, tmp_path, capsys):
    command = ["report", str(run), "--output", str(tmp_path / "page")]
    assert rlred(command) == 0 and rlred(command) == 2
    assert "is not written over" in capsys.readouterr().err
    assert rlred(["report", str(tmp_path)]) == 2
    assert "there is no adherence.json" in capsys.readouterr().err


ACCURACY = {"n": 4, "accuracy": 0.25, "accuracy_low": 0.1, "accuracy_high": 0.5, "mean_length": 9.0, "truncated": 0.0}
RATIO = {**ACCURACY, "ratio": 1.0, "achieved": 1.0, "gap": 0.0, "mean_thinking_length": 5.0, "mean_answer_length": 4.0}
RATIO |= {"seconds": None, "less_than_full": None}
SEEN = {**ACCURACY, "keep_ratio": 0.5, "visual_tokens": 32.0, "budget_tokens": {HOSTILE: 1.0}}
SEEN |= {"stage": "base", "choice": HOSTILE, "decoding": "greedy", "wordings": "test"}
LABELS = {"model": HOSTILE, "adapter": "a", "seed": 0, "n_questions": 4, "temperature": 0.0, "visual_weight": 0.2}
LABELS |= {"max_completion_length": 9, "batch_size": 4, "trained_ratios": [1.0], "wordings": "test"}
RESULTS = {  # of runs that have measured no adherence, with hostile text in them
    "ratios": Result("ratios", LABELS, {"base": {"title": HOSTILE, "rows": [RATIO]}}),
    "visual": visual(LABELS, [{**SEEN, "by_level": {HOSTILE: SEEN}}], [], details={"positions": [[0.5, 1.5]] * 2}),
}
TABLES = {"comparison": ("table.md", None), "board": ("board.md", "board.png")}  # over many runs


def left_by(kind, folder):
    """The output folder of a run that has measured no adherence, with hostile text in its table."""
    folder.mkdir()
    if kind in RESULTS:
        write_result(RESULTS[kind], folder)
    else:
        page, picture = TABLES[kind]
        cells = f"| | a |\n|---|---|\n| {HOSTILE} | 25.0 (10.0-50.0) |"
        (folder / page).write_text(f"# {kind} of `{HOSTILE}`\n\n{cells}\n")
        if picture:
            matplotlib.image.imsave(folder / picture, [[0.0, 1.0]])
    steps = [{"step": step, "loss": 1 / step, "grad_norm": 0.5} for step in (1, 2)]
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": steps}))
    return folder


@pytest.mark.parametrize("kind", [*RESULTS, *TABLES])
def test_a_run_without_adherence_shows_what_it_has(kind, tmp_path):
    folder = left_by(kind, tmp_path / kind)
    assert rlred(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert page.count("<img ") == (kind == "board")
    heading = {"ratios": "Thinking by ratio", "visual": "Visual tokens and accuracy"}.get(kind, f"{kind} of")
    assert f"<h3>{heading}" in page and "<td>25.0 (10.0-50.0)</td>" in page
    assert page.count("<script") == 1 and HOSTILE not in page and "3 &lt; 4" in page
    own = {"ratios": 1, "visual": 2}.get(kind, 0)  # accuracy against tokens, and where they lie
    assert "Training: the supervised steps" in page and page.count("<svg") == 1 + own
    assert "Gradient norm" in page and "Token accuracy" not in page  # a panel for what was logged, and no empty one


def test_runs_of_different_kinds_share_a_page(run, tmp_path):
    other = left_by("ratios", tmp_path / "tokenskip")
    assert rlred(["report", str(run), str(other), "--output", str(tmp_path / "page")]) == 0
    page = (tmp_path / "page" / "report.html").read_text()
    assert "<h1>Runs</h1>" in page and "after RL" in page and "Thinking by ratio" in page


def test_the_figures_of_one_arm_are_a_table(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"accuracy": 0.5, "loss_by_step": [[1, 2.0]]}))
    assert rlred(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "<td>accuracy</td><td>0.5</td>" in page and "loss_by_step" not in page


def browser():
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no headless browser: apt-get install chromium")
    return [found, "--headless", "--no-sandbox", "--disable-gpu"]


def test_tables_are_sorted_and_filtered_in_a_browser(tmp_path):
    rows = [f"| {name} | {cell} |" for name, cell in zip("abcdefghi", "9 1,200 - 30 4 -5 6.5 7 8".split(), strict=True)]
    (tmp_path / "board.md").write_text("\n".join(["| name | tokens |", "|---|---|", *rows]) + "\n")
    assert rlred(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    shown = (
        "[...document.querySelectorAll('tbody tr')].filter((row) => !row.hidden).map((row) => row.cells[0].innerText)"
    )
    for act, expected in (
        ("heads[1].click()", "bdaihgefc"),  # the largest first, and what was not measured last
        ("heads[1].click(); heads[1].click()", "feghiadbc"),
        ("heads[0].click()", "abcdefghi"),
        ("heads[0].click(); heads[0].click()", "ihgfedcba"),
        ("field.value = '1,2'; field.dispatchEvent(new Event('input'))", "b"),
    ):
        found = "const heads = document.querySelectorAll('th'), field = document.querySelector('input');"
        script = (
            f"<script>addEventListener('load', () => {{{found} {act}; document.title = {shown}.join('')}})</script>"
        )
        (tmp_path / "acted.html").write_text(page.replace("</body>", f"{script}</body>"))
        command = [*browser(), f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
        done = subprocess.run(
            [*command, (tmp_path / "acted.html").as_uri()], capture_output=True, text=True, timeout=120
        )
        assert f"<title>{expected}</title>" in done.stdout, act


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_renders_it_without_complaint(run, tmp_path, width):
    assert rlred(["report", str(run), "--output", str(tmp_path / "page")]) == 0
    flags = [*browser(), "--enable-logging=stderr", f"--window-size={width},900"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={tmp_path / 'page.png'}"]
    page = (tmp_path / "page" / "report.html").as_uri()
    done = subprocess.run([*flags, page], capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr, done.stderr
    assert (tmp_path / "page.png").stat().st_size > 20_000
