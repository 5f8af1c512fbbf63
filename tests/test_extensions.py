"""One file and one line: a reward, a part, a measure, a format of questions and a command of somebody's own."""

import pytest

from rlred.cli import COMMANDS
from rlred.cli import main as rlred
from rlred.data.questions import load_questions
from rlred.data.table_files import FORMATS
from rlred.evaluation.measures import MEASURES, measure
from rlred.evaluation.report import adherence
from rlred.evaluation.results import to_markdown
from rlred.rewards import REWARDS, make_reward
from rlred.runs.arguments import LengthControlArguments
from rlred.training.early_stop import EarlyStop
from rlred.training.parts import PARTS, make_part
from rlred.training.token_selection import TokenSelection
from tests.paths import ROOT

OWN = '''
from dataclasses import dataclass
from rlred.flags import required
from rlred.training.trainer import Part

@dataclass(frozen=True)
class Halved(Part):
    share: float = 0.5
    def advantages(self, rollouts):
        return self.share * rollouts.output["advantages"]

def peak(outcomes):
    return float(max(outcome["length"] for outcome in outcomes))

def rows(text, path, split):
    return [dict(zip(("question", "answer"), line.split("\\t"))) for line in text.splitlines()]

@dataclass(frozen=True)
class Hello:
    """Greet.

    rlred hello Ada
    """
    name: str = required("Who.", positional=True)
    def run(self):
        print("hello", self.name)
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_things.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)


def test_a_reward_is_named_like_its_file():
    for name, kind in REWARDS.items():
        assert (ROOT / "rewards" / f"{name}.py").is_file() and kind.__name__.lower() == name.replace("_", "")
    assert type(make_reward("max_length")) is REWARDS["max_length"]


@pytest.mark.parametrize("name, registered", [("halved", True), ("own_things:Halved", False)])
def test_a_part_of_ones_own_is_reached_from_a_yaml(name, registered, own, monkeypatch):
    if registered:
        monkeypatch.setitem(PARTS, name, "own_things:Halved")
    parts = LengthControlArguments(
        selection={"fraction": 0.5}, parts={name: {"share": 0.25}, "early_stop": None}
    ).make_parts()
    assert parts[0] == TokenSelection(fraction=0.5) and parts[1].share == 0.25 and parts[2] == EarlyStop()


@pytest.mark.parametrize(
    "name, settings, message",
    [
        ("halve", {}, "parts.halve: no part is called 'halve'; there are selection, think_or_not, difficulty_kl"),
        ("own_things:Nothing", {}, "no part is called 'own_things:Nothing'"),
        (
            "selection",
            {"share": 1},
            "parts.selection: no field is called 'share'; there are divide_by, end_of_thinking",
        ),
    ],
)
def test_a_part_that_there_is_not_is_one_clear_line(name, settings, message, own):
    with pytest.raises(ValueError, match=message):
        make_part(name, settings)
    with pytest.raises(ValueError, match="parts: EarlyStop is given twice"):
        LengthControlArguments(early_stop_rollouts=True, parts={"early_stop": {}})


def test_a_measure_is_a_column_of_every_report(own, monkeypatch):
    about = {"mode": "exact", "correct": 1.0, "truncated": False, "completion": ""}
    outcomes = [{**about, "question_id": q, "budget": b, "length": b + q} for q in (0, 2) for b in (10, 20)]
    labels = {"model": "m", "adapter": None, "seed": 0, "n_questions": 2, "temperature": 1.0}
    before = to_markdown(adherence(labels, {"baseline": measure(outcomes)}))
    monkeypatch.setitem(MEASURES, "peak", "own_things:peak")
    block = measure(outcomes)
    assert [row["peak"] for row in block["rows"]] == [12.0, 22.0] and block["overall"]["exact"]["peak"] == 17.0
    after = to_markdown(adherence(labels, {"baseline": block}))
    assert "| accuracy | peak |" in after and " 12.00 |" in after and "peak" not in before


def test_a_format_of_questions_is_read(own, tmp_path, monkeypatch):
    (tmp_path / "sums.tsv").write_text("1+1=?\t2\n2+3=?\t5\n")
    with pytest.raises(ValueError):
        load_questions(str(tmp_path / "sums.tsv"))
    monkeypatch.setitem(FORMATS, ".tsv", "own_things:rows")
    rows = load_questions(str(tmp_path / "sums.tsv"))
    assert [(row["question"], row["solution"]) for row in rows] == [("1+1=?", "2"), ("2+3=?", "5")]


def test_a_command_is_run_and_listed(own, monkeypatch, capsys):
    monkeypatch.setitem(COMMANDS, "hello", "own_things:Hello")
    assert rlred(["hello", "Ada"]) == 0 and rlred(["--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("hello Ada") and "  hello            Greet" in out
