"""What a reward declares (rewards/base.py): true of every reward, the same inside by_mode, and asked nowhere else."""

import ast
import functools
import importlib
import inspect
import json
import math
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from types import SimpleNamespace

import pytest
from datasets import Dataset
from trl import GRPOConfig
from trl.rewards import think_format_reward

from rlred.checks.audit import audit_columns, audit_rewards
from rlred.rewards import (
    REWARDS,
    ByMode,
    Correctness,
    EffortLength,
    ExactLength,
    ExactMatch,
    GroupSigmoid,
    Length,
    LengthBonus,
    MaxLength,
    ShortestCorrect,
    SlackLength,
    Thinkless,
    Truncation,
    VisualSparsity,
    make_reward,
)
from rlred.rewards.base import Grader, Reward, bind, correctness_of, declared, find, length_of, names_twice
from rlred.runs.grpo import make_rewards, run
from rlred.runs.visual import check_rewards
from rlred.training.early_stop import decided_after
from tests.paths import ROOT
from tests.test_recipes import arguments
from tests.test_rewards import NEEDED

RIGHT, WRONG = "2+2</think>\\boxed{4}", "</think>\\boxed{5}"
SLOTS = ("exact", "max", "effort", "free")
DEFAULT = {"exact", "max", "free"}  # those for which by_mode has a reward by itself
EVERY = [make_reward({"name": name, **NEEDED.get(name, {})}) for name in sorted(REWARDS)]
EVERY += [
    EffortLength(of="group"),
    LengthBonus(targets=(20,)),
    VisualSparsity(assigned=True),
    ByMode(max=ShortestCorrect()),
]
RELATIVE = [reward for reward in EVERY if reward.group_relative]  # the last is by_mode
OPTIONAL = {"solution", "budget", "mode", "effort"}  # of these, None says something
NEEDY = [reward for reward in EVERY if set(reward.needs) - OPTIONAL]
COLUMNS = {
    "solution": ["4"] * 4,
    "budget": [10, 20, 30, 40],
    "mode": ["max"] * 4,
    "effort": [0.25, 0.5, 0.75, 1.0],
    "reference_length": [40.0] * 4,
    "reference_accuracy": [0.5] * 4,
    "reference_correct_lengths": [[10, 20]] * 4,
    "difficulty": [1, 4, 7, 9],
    "requested": [True, False, True, False],
    "visual_tokens": [16, 16, 64, 64],
    "full_visual_tokens": [64] * 4,
}
by_name = pytest.mark.parametrize("reward", EVERY, ids=lambda reward: reward.__name__)


def score(reward, rows=range(4), **columns):
    """The values of these rows of a group of four."""
    texts, lengths = [RIGHT, RIGHT, WRONG, WRONG], [10, 30, 20, 50]
    return reward(
        prompts=["q" for _ in rows],
        completions=[texts[row] for row in rows],
        completion_ids=[[7] * lengths[row] for row in rows],
        **{name: [values[row] for row in rows] for name, values in {**COLUMNS, **columns}.items()},
    )


class TestEveryReward:
    @by_name
    def test_it_declares_what_the_protocol_knows_in_the_types_it_has(self, reward):
        assert isinstance(reward, Reward) and isinstance(reward.__name__, str)
        assert type(reward.group_relative) is bool and type(reward.grades) is bool
        assert isinstance(reward.needs, tuple) and all(isinstance(name, str) for name in reward.needs)
        parts = list(reward.parts())
        assert parts[0] is reward and all(isinstance(part, Reward) for part in parts)
        assert not {"decided_at", "needs_reference"} & set(dir(reward))
        assert pickle.loads(pickle.dumps(reward)) == reward

    @by_name
    def test_it_needs_the_columns_that_its_call_takes_and_cannot_do_without(self, reward):
        if not isinstance(reward, ByMode):
            taken = inspect.signature(type(reward).__call__).parameters
            assert set(reward.needs) <= set(taken)
            given = {"self", "prompts", "completions", "completion_ids"}
            forced = {name for name, one in taken.items() if one.default is one.empty and one.kind != one.VAR_KEYWORD}
            assert forced - given <= set(reward.needs)
        assert len(score(reward)) == 4
        for name in {"mode", *reward.for_mode("max").needs} & set(reward.needs):
            with pytest.raises((ValueError, TypeError), match=name):
                lacking = {key: values for key, values in COLUMNS.items() if key != name}
                ids = [[7] * 9] * 4
                reward(prompts=["q"] * 4, completions=[RIGHT] * 4, completion_ids=ids, **lacking)

    @by_name
    def test_it_is_group_relative_exactly_where_the_group_matters(self, reward):
        if reward.group_relative:
            with pytest.raises(ValueError, match="group-relative|2 rollouts or more"):
                score(reward, rows=[0])
        else:
            assert [score(reward, rows=[row])[0] for row in range(4)] == score(reward)

    @by_name
    def test_bind_tells_what_has_a_field_for_it_and_leaves_the_rest_as_it_is(self, reward):
        bound = reward.bind(group_size=4, ends=(3, 2))
        assert type(bound) is type(reward)
        for before, after in zip(reward.parts(), bound.parts(), strict=True):
            known, told = {field.name for field in fields(before)}, {"group_size": 4, "ends": (2, 3)}
            told = {name: value for name, value in told.items() if name in known}
            assert isinstance(before, ByMode) or after == replace(before, **told)
        assert bound.bind(group_size=8, ends=(9,)) == bound  # what is set stays
        assert reward.bind(group_size=None, ends=()) == reward

    @pytest.mark.parametrize("slot", SLOTS)
    @by_name
    def test_inside_by_mode_it_declares_what_it_declares_alone(self, reward, slot):
        if isinstance(reward, ByMode) and slot == "effort":
            return  # it has no reward for such rows
        nested = ByMode(**{slot: ByMode(**{slot: reward})})
        assert any(part is reward for part in nested.parts())
        assert nested.for_mode(slot) == reward.for_mode(slot)
        assert set(reward.needs) <= set(nested.needs) and "mode" in nested.needs
        assert nested.group_relative == reward.group_relative
        assert nested.bind(4, (2,)).for_mode(slot) == reward.bind(4, (2,)).for_mode(slot)
        row = {name: values[0] for name, values in COLUMNS.items()}
        row |= {"mode": slot, "trainer_state": SimpleNamespace(global_step=0)}
        assert nested.decided_after(row) == reward.decided_after(row)
        if not isinstance(reward, ByMode):
            columns = {"mode": [slot] * 4}
            assert score(nested.bind(4, ()), **columns) == score(reward.bind(4, ()), **columns)


def config(folder, local_batch, num_generations=4):
    training = GRPOConfig(
        str(folder),
        per_device_train_batch_size=num_generations,
        num_generations=num_generations,
        use_cpu=True,
        bf16=False,
        report_to="none",
    )
    training.per_device_train_batch_size = local_batch  # as on each of several processes
    return training


class TestTheAudit:
    @pytest.mark.parametrize("slot", SLOTS)
    @pytest.mark.parametrize("reward", RELATIVE[:-1], ids=lambda reward: reward.__name__)
    def test_trap_a_group_that_straddles_processes_is_refused_inside_by_mode_as_alone(self, tmp_path, reward, slot):
        training, nested = config(tmp_path, local_batch=2), ByMode(**{slot: reward})
        alone = list(audit_rewards(training, [reward], {slot}))
        assert list(audit_rewards(training, [nested, Correctness()], {slot})) == alone
        [finding] = alone
        assert finding.level == "error" and finding.field == "per_device_train_batch_size" and finding.value == 2
        assert f"straddle processes, but {reward.__name__} needs whole ones" in finding.advice
        others = DEFAULT - {slot}
        assert list(audit_rewards(training, [nested], others)) == []  # no row of that mode is drawn
        assert list(audit_rewards(config(tmp_path, local_batch=8), [nested], {slot})) == []

    def test_rewards_that_look_at_one_completion_may_straddle(self, tmp_path):
        training = config(tmp_path, local_batch=2)
        for reward in set(EVERY) - set(RELATIVE):
            found = audit_rewards(training, [reward], DEFAULT)
            assert [one for one in found if one.field == "per_device_train_batch_size"] == []

    @pytest.mark.parametrize("slot", SLOTS)
    @pytest.mark.parametrize("reward", NEEDY, ids=lambda reward: reward.__name__)
    def test_a_column_that_rows_lack_is_named_with_the_reward_that_needs_it(self, reward, slot):
        whole = {"prompt": ["q"] * 4, **COLUMNS, "mode": [slot] * 4}
        for kind in (reward, ByMode(**{slot: reward})):
            assert list(audit_columns([kind], Dataset.from_dict(whole), {slot})) == []
            for name in set(reward.needs) - OPTIONAL:
                [finding] = audit_columns([kind], Dataset.from_dict(whole).remove_columns(name), {slot})
                assert f"the column {name!r} is missing, which {reward.__name__} needs" in finding.advice
                holes = {**whole, name: [None, *whole[name][1:]]}
                [finding] = audit_columns([kind], Dataset.from_dict(holes), {slot})
                assert (finding.field, finding.value) == ("rows", name)
                assert f"1 of 4 rows have no value in this column, which {reward.__name__}" in finding.advice

    def test_only_rows_that_the_reward_scores_need_its_column(self):
        rows = Dataset.from_dict({**COLUMNS, "mode": ["max", "exact"] * 2, "difficulty": [1, None, 2, None]})
        needs = make_reward("uncertainty_budget")
        assert list(audit_columns([ByMode(max=needs)], rows, {"exact", "max"})) == []
        [finding] = audit_columns([ByMode(exact=needs)], rows, {"exact", "max"})
        assert "2 of 2 rows" in finding.advice
        assert list(audit_columns([ByMode(free=needs)], rows.remove_columns("difficulty"), {"exact", "max"})) == []

    def test_rewards_of_one_name_are_refused(self, tmp_path):
        training = config(tmp_path, local_batch=4)
        [finding] = audit_rewards(training, [MaxLength(), Correctness(), MaxLength(alpha=0.1)], {"max"})
        assert (finding.level, finding.field, finding.value) == ("error", "reward", "max_length")
        twice_inside = ByMode(exact=ExactLength(), max=ExactLength(alpha=1e-3))  # one name in the logs: by_mode
        assert list(audit_rewards(training, [twice_inside, Correctness()], {"exact", "max"})) == []
        assert names_twice(["a", "b"]) == names_twice([]) == []

    def test_pictures_are_checked_as_text_is(self, tmp_path):
        check_rewards([VisualSparsity(), ExactMatch()], config(tmp_path, 2))
        with pytest.raises(ValueError, match="groups of 4 would straddle processes, but request_threshold"):
            check_rewards([make_reward("request_threshold")], config(tmp_path, 2))
        check_rewards([make_reward("request_threshold")], config(tmp_path, 8))
        for name, column in (("uncertainty_budget", "difficulty"), ("exact_length", "budget"), ("by_mode", "mode")):
            with pytest.raises(ValueError, match=f"reward: {name} needs the column '{column}'"):
                check_rewards([make_reward(name)], config(tmp_path, 8))


def test_trap_half_a_group_inside_by_mode_is_not_scored_in_silence():
    reward = bind(ByMode(max=ShortestCorrect()), group_size=4, ends=())
    assert reward.max.group_size == 4 and reward.exact == ExactLength()
    assert len(score(reward)) == 4
    with pytest.raises(ValueError, match="needs 4 completions of each prompt side by side, got 2"):
        score(reward, rows=[0, 1])


def test_ends_reach_a_reward_inside_by_mode():
    reward = bind(ByMode(max=Truncation(limit=40), free=GroupSigmoid()), group_size=4, ends={7, 2})
    assert reward.max.ends == reward.free.ends == (2, 7)
    assert score(reward)[:2] == [1.0, 1.0]  # they end in 7
    assert score(bind(ByMode(max=Truncation(limit=40)), 4, {2}))[:2] == [0.0, 0.0]


class TestForeign:
    def test_a_function_declares_nothing_unless_it_carries_it(self):
        def brief(completions, **kwargs):
            return [1.0 for _ in completions]

        foreign = declared(brief)
        assert (foreign.__name__, foreign.needs, foreign.group_relative, foreign.grades) == ("brief", (), False, False)
        assert foreign.decided_after({}) is None and foreign(["a"]) == [1.0]
        assert list(foreign.parts()) == [foreign] and foreign.for_mode("max") is foreign
        assert bind(brief, 4, (2,)) is brief  # TRL sees the function itself
        brief.group_relative, brief.needs, brief.decided_after = True, ["hint"], lambda row: 9
        assert declared(brief).group_relative and list(declared(brief).needs) == ["hint"]
        assert declared(functools.partial(brief, scale=2)).decided_after({}) == 9
        assert declared(functools.partial(brief, scale=2)).__name__ == "brief"

    def test_trls_own_rewards_and_coroutines_are_asked_as_they_are(self):
        async def later(completions, **kwargs):
            return [0.0 for _ in completions]

        for function in (think_format_reward, later):
            assert bind(function, 4, ()) is function and not declared(function).group_relative
            assert decided_after([MaxLength(alpha=0.5), function], [1.0, 1.0], {"solution": "4", "budget": 9}, 90) == 90

    def test_a_dataclass_of_ones_own_is_told_and_audited(self, tmp_path):
        bound = bind(functools.partial(Own(), extra=1), 4, (2,))
        assert bound.func == Own(group_size=4) and bound.keywords == {"extra": 1}
        nested = bind(ByMode(max=Own()), 4, (2,))
        assert nested.max == Own(group_size=4)
        [finding] = audit_rewards(config(tmp_path, 2), [ByMode(max=Own())], {"max"})
        assert "but Own needs whole ones" in finding.advice
        assert length_of(Own()) == Length("thinking", 5) and correctness_of(Own(), None) == Correctness(seconds=0.5)

    @pytest.mark.parametrize("old, new", [("decided_at", "decided_after"), ("needs_reference", "needs")])
    def test_an_attribute_of_the_old_protocol_is_refused_with_its_new_name(self, old, new):
        def mine(completions, **kwargs):
            return [0.0 for _ in completions]

        setattr(mine, old, True)
        with pytest.raises(ValueError, match=f"reward: mine declares {old}, which is now {new}") as raised:
            declared(mine)
        assert "\n" not in str(raised.value)

    def test_a_subclass_without_a_name_has_that_of_its_class_as_in_trl(self):
        @dataclass(frozen=True)
        class Mine(Reward):
            def __call__(self, completions, **kwargs):
                return [0.0 for _ in completions]

        assert declared(Mine()).__name__ == "Mine" and Mine().bind(4, (2,)) == Mine()


@dataclass(frozen=True)
class Own:
    """A reward of a user who has not heard of `Reward`."""

    group_size: int | None = None
    correctness: Correctness = Correctness(seconds=0.5)
    length: Length = Length("thinking", 5)
    group_relative = True

    def __call__(self, completions, extra=0, **kwargs):
        return [float(extra) for _ in completions]


STRICT, THINKING = Correctness(require_end_of_thinking=True), Length("thinking", 5)


@pytest.mark.parametrize(
    "reward, correctness, length",
    [
        (Correctness(seconds=0.5), Correctness(seconds=0.5), Length()),
        (ExactMatch(), ExactMatch(), Length()),
        (MaxLength(correctness=STRICT, length=THINKING), STRICT, THINKING),
        (Thinkless(correctness=STRICT), STRICT, Length()),
        (ByMode(), Correctness(), Length()),
        (ByMode(exact=ExactLength(correctness=STRICT), max=MaxLength(correctness=STRICT)), STRICT, Length()),
        (ByMode(exact=think_format_reward, max=MaxLength(correctness=STRICT, length=THINKING)), STRICT, THINKING),
        (ByMode(exact=think_format_reward, max=think_format_reward, free=STRICT), STRICT, Length()),
        (VisualSparsity(correctness=ExactMatch()), ExactMatch(), Length()),
        (think_format_reward, "the default", Length()),
    ],
)
def test_the_grade_and_the_length_of_a_reward_are_those_of_its_first_part_that_has_them(reward, correctness, length):
    assert correctness_of(reward, "the default") == correctness and length_of(reward) == length


def test_find_looks_into_by_mode():
    inner = LengthBonus(targets=(1, 2, 3))
    assert find(ByMode(free=inner), LengthBonus) == [inner] and find(MaxLength(), LengthBonus, MaxLength) == [
        MaxLength()
    ]
    assert find(think_format_reward, MaxLength) == []


@pytest.mark.parametrize("correctness", [Correctness(), ExactMatch()])
def test_a_grader_stands_wherever_a_reward_takes_a_correctness(correctness):
    assert isinstance(correctness, Grader) and correctness.grades
    assert correctness.reads("4") and not correctness.reads("")
    for reward in EVERY:
        if "correctness" in {field.name for field in fields(reward)}:
            swapped = replace(reward, correctness=correctness)
            row = {name: values[0] for name, values in COLUMNS.items()}
            assert swapped.decided_after({**row, "trainer_state": None}) == reward.decided_after(
                {**row, "trainer_state": None}
            )
            assert score(swapped) == score(reward)


def test_short_rls_gate_reads_the_accuracy_of_what_grades_it():
    state = SimpleNamespace(log_history=[{"rewards/exact_match/mean": 0.9}])
    assert SlackLength(correctness=ExactMatch()).is_open([0.0, 1.0], state) is False
    assert SlackLength().is_open([0.0, 1.0], state) is True


def test_a_grade_is_trained_on_alone_and_others_have_it_beside_them(tmp_path):
    training = config(tmp_path, 4)
    asked = {
        "correctness": ["correctness"],
        "exact_match": ["exact_match"],
        "max_length": ["max_length", "correctness"],
    }
    for name, names in asked.items():
        found = make_rewards(SimpleNamespace(reward=name), training)
        assert [reward.__name__ for reward in found] == names
    inside = {"name": "max_length", "correctness": {"name": "exact_match"}}
    assert make_rewards(SimpleNamespace(reward=inside), training)[1] == ExactMatch()


def test_a_reward_inside_by_mode_is_given_its_reference_columns(tmp_path):
    needs = {"name": "by_mode", "free": {"name": "length_efficiency", "accuracy_weight": 1.0}}
    flags = {"reward": json.dumps(needs), "modes": '{"free":1}', "hindsight": False, "evaluate": False}
    flags |= {"num_questions": 4, "reference_samples": 2, "max_steps": 1, "save_steps": 1}
    run(*arguments("l1_maxlen", "tiny_reasoner", output_dir=tmp_path / "run", **flags), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "run" / "reference.jsonl").read_text().splitlines()]
    assert len(rows) == 4 and all(row["reference_length"] > 0 for row in rows)
    log = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    assert math.isfinite(log[0]["rewards/by_mode/mean"])


def test_no_reference_is_sampled_for_a_part_that_scores_no_row(tmp_path):
    unused = {"name": "by_mode", "max": {"name": "max_length"}, "free": {"name": "adapt_think"}}
    flags = {"reward": json.dumps(unused), "hindsight": False, "evaluate": False, "max_steps": 1, "save_steps": 1}
    run(*arguments("l1_maxlen", "tiny_reasoner", output_dir=tmp_path / "run", **flags), tmp_path)
    assert not (tmp_path / "run" / "reference.jsonl").exists()


def test_trap_nobody_else_guesses_at_a_reward():
    guessed = []
    for path in sorted((ROOT / "rlred").rglob("*.py")) + sorted((ROOT / "recipes").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
                continue
            if node.func.id in ("getattr", "hasattr", "isinstance") and "reward" in ast.unparse(node).lower():
                guessed.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}")
    assert [line for line in guessed if "isinstance(reward, str)" not in line] == []  # the card's, of a name in YAML


def test_the_folder_is_imported_relatively():
    for path in (ROOT / "rewards").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                assert node.module.split(".")[0] not in ("rewards", "rlred"), path
    assert importlib.import_module("rlred.rewards").REWARDS is REWARDS


def test_a_reward_in_the_folder_where_a_run_is_started_is_found(tmp_path):
    (tmp_path / "here.py").write_text("def short(completions, **kwargs):\n    return [1.0] * len(completions)\n")
    command = [sys.executable, str(ROOT / "recipes" / "l1_exact.py"), "--audit_only", "--reward", "here.short"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=started(), timeout=300)
    assert done.returncode == 0 and "rewards" in done.stdout, done.stdout + done.stderr


def started() -> dict:
    return {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
