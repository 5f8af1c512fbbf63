"""`rlred compress` over many traces: what is not needed is not in memory, and shares make what one process makes."""

import json
import tracemalloc

import pytest
from transformers import AutoTokenizer

from rlred.cli import main
from rlred.compression import stages
from rlred.compression.levels import make_level_rows
from rlred.compression.random_cut import make_cut_rows
from rlred.compression.rows import RATIO_FORMATS, Cutting, make_rows
from rlred.compression.scores import Head, Random
from rlred.compression.spool import Spool
from rlred.compression.stages import read_lines, read_scores, scores_stage, write_rows
from rlred.data.models import resolve_model
from rlred.files import mended_length
from rlred.tiny import TINY_VERBOSE


def written(count: int, words: int = 12) -> list[dict]:
    """Traces of different lengths, of which every third has failed more often."""
    return [
        {
            "question": f"What is {n}+{n}?",
            "opening": "",
            "thinking": "wait so we see that " + "now again " * (n % words + 1) + f"{n}+{n}={2 * n}",
            "separator": "</think>",
            "answer": f"\\boxed{{{2 * n}}}",
            "failure_rate": n % 3 / 2,
        }
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(resolve_model(TINY_VERBOSE))


@pytest.fixture
def shards(monkeypatch):
    monkeypatch.setattr(stages, "SHARD", 128)


def file_of(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("cut_off", [0, 1, 40])
def test_shares_and_a_last_run_make_the_file_of_one_process(cut_off, shards, tmp_path):
    traces, path = written(300), tmp_path / "shared" / "scores.jsonl"
    scores_stage(tmp_path / "alone.jsonl", traces, Random(), "random")
    for share in ("1/2", "2/2"):
        assert scores_stage(path, traces, Random(), "random", stages.Share(share)) is None
    files = [path.with_name(f"scores-0000{n}.jsonl") for n in range(3)]
    assert [file.exists() for file in files] == [True] * 3 and not path.exists()
    if cut_off:  # one share was killed while it wrote its last line
        files[1].write_bytes(files[1].read_bytes()[:-cut_off])
    scored = []

    def scorer(text, question="", answer=""):
        scored.append(text)
        return Random()(text)

    found = scores_stage(path, traces, scorer, "random")
    assert path.read_bytes() == (tmp_path / "alone.jsonl").read_bytes() and len(found) == 300
    assert len(scored) == (64 if cut_off > 1 else 0)  # a line of the shard alone, where more than its newline is gone


def test_a_share_that_is_called_again_scores_nothing_again(shards, tmp_path):
    traces, path = written(300), tmp_path / "scores.jsonl"
    scores_stage(path, traces, Random(), "random", stages.Share("1/1"))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    scores_stage(path, traces, None, "random", stages.Share("1/1"))  # there is no scorer to call
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_shards_of_other_texts_are_refused(shards, tmp_path):
    scores_stage(tmp_path / "scores.jsonl", written(300), Random(), "random", stages.Share("1/1"))
    with pytest.raises(ValueError, match="scores-00000.jsonl holds scores of other texts or by another scorer"):
        scores_stage(tmp_path / "scores.jsonl", written(300, words=5), Random(), "random")


def test_scores_are_read_from_any_place_and_counted(tmp_path):
    traces, path = written(150), tmp_path / "scores.jsonl"
    scores_stage(path, traces, Head(), "head")
    found, wanted = read_scores(path, traces), [[list(span) for span in Head()(trace["thinking"])] for trace in traces]
    assert list(found) == wanted and [found[n] for n in (149, 0, 64, 63)] == [wanted[n] for n in (149, 0, 64, 63)]
    for damaged in ("5\n", "[[[0, 1"):
        path.write_text(path.read_text() + damaged)
        with pytest.raises(ValueError, match="does not hold the scores of these 150 traces"):
            read_scores(path, traces)


@pytest.mark.parametrize(
    "said, lines, kept, copies",
    [
        ("[1]\n[2]\n", 2, "[1]\n[2]\n", 0),
        ("[1]\n[2", 1, "[1]\n", 0),  # cut off by a crash
        ("[1]\n[2]", 1, "[1]\n", 0),  # whole, and nobody can know
        ("[1]\n{\n[3]\n", 1, "[1]\n", 1),
        ("[1]\n{\n[3", 1, "[1]\n", 1),
        ("[1]\n\0\0\0", 1, "[1]\n", 0),
        ("", 0, "", 0),
    ],
)
def test_a_large_file_is_mended_as_a_small_one(said, lines, kept, copies, tmp_path):
    path = tmp_path / "scores.jsonl"
    path.write_text(said)
    assert mended_length(path, lambda value: isinstance(value, list)) == lines and path.read_text() == kept
    assert [file.read_text() for file in tmp_path.glob("*.damaged-*")] == [said] * copies


@pytest.mark.parametrize("way", ["ratios", "levels", "cut"])
def test_rows_on_disk_are_those_in_memory(way, tokenizer, tmp_path):
    traces, words = written(60), RATIO_FORMATS["words"].fitted(tokenizer)

    def make(keep=dict):
        if way == "levels":
            return make_level_rows(traces, [0.4, 0.3, 0.1, 0.1, 0.1], tokenizer, words, draws=2, keep=keep)
        if way == "cut":
            return make_cut_rows(traces, tokenizer, words, draws=2, short_share=0.5, keep=keep)
        spans = [Random()(trace["thinking"]) for trace in traces]
        cutting = Cutting([1.0, 0.8, 0.7], 2, tolerance=0.2, difficulty="failures", short_share=0.5)
        return make_rows(traces, spans, cutting, tokenizer, words, keep)

    rows, report = make()
    write_rows(tmp_path / "rows.jsonl", make)
    assert (tmp_path / "rows.jsonl").read_text() == "".join(json.dumps(row) + "\n" for row in rows)
    assert json.loads((tmp_path / "rows.json").read_text()) == json.loads(json.dumps(report)) and len(rows) > 30


def test_a_row_that_is_spooled_has_its_numbers_alone():
    spool, row = Spool(), {"prompt": "p" * 999, "completion": "c", "question": "q", "ratio": 0.5, "inserted": [0, 1]}
    kept = spool.row(row)
    assert set(kept) == {"ratio", "inserted", "spooled"} and json.loads(spool.line(kept)) == row


def test_the_stages_of_a_large_file_are_those_of_a_small_one(tmp_path, monkeypatch, capsys):
    """Every command, with the traces in memory and read as they are asked for."""
    traces, found = file_of(tmp_path / "traces.jsonl", written(70)), {}
    for name, large in {"held": 2**30, "asked": 0}.items():
        monkeypatch.setattr("rlred.cli.compress_shared.LARGE", large)
        monkeypatch.setattr("rlred.cli.compress_rows.LARGE", large)
        folder = tmp_path / name
        scores, told = folder / "scores.jsonl", ["--traces", str(traces)]
        assert main(["compress", "scores", *told, "--scorer", "random", "--output", str(scores)]) == 0
        told += ["--scores", str(scores)]
        more = ["--ratios", "1", "0.8", "--tolerance", "0.2", "--alpaca", str(folder / "alpaca.json")]
        assert main(["compress", "rows", *told, "--output", str(folder / "rows.jsonl"), *more]) == 0
        assert main(["compress", "shots", *told, "--output", str(folder / "shots.json"), "--budget", "200"]) == 0
        found[name] = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    assert found["held"] == found["asked"] and len(found["held"]) == 6
    alpaca = json.loads(found["held"]["alpaca.json"])
    assert found["held"]["alpaca.json"].decode() == json.dumps(alpaca, indent=2) + "\n" and len(alpaca) > 50
    assert "Traceback" not in capsys.readouterr().err


def test_a_column_that_some_rows_lack_is_named(tmp_path):
    path = file_of(tmp_path / "traces.jsonl", [{"question": "1+1", "thinking": "2"}, {"question": "1+2"}])
    for at_least in (None, 0):
        with pytest.raises(ValueError, match="every row needs 'thinking'; there are question, thinking"):
            read_lines(path, ("question", "thinking"), at_least)


class Sparse:
    """Some parts of a text have a score."""

    def __call__(self, text, question="", answer=""):
        return [(start, start + 2, 1.0) for start in range(0, len(text), 400)]


def test_trap_scoring_holds_a_few_texts_alone(tmp_path):
    # 600 traces of 8 kB; with their scores some 10 MiB of Python objects.
    path = file_of(tmp_path / "traces.jsonl", ({**row, "thinking": "so it is 4 " * 800} for row in written(600)))
    assert path.stat().st_size > 5e6
    tracemalloc.start()
    found = scores_stage(tmp_path / "scores.jsonl", read_lines(path, ("thinking",), 0), Sparse(), "sparse")
    assert sum(len(spans) == 22 for spans in found) == 600
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * 2**20, peak
