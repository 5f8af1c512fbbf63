"""Laser-D's search for its targets: the choice by hand, and a run that sets, logs and resumes them."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from trl.rewards import think_format_reward

from rlred.rewards import ByMode, LengthBonus, MaxLength, make_reward
from rlred.rewards.length_bonus import LOGGED_TARGETS
from rlred.runs.arguments import parse
from rlred.runs.grpo import run
from rlred.tiny import resolve_model
from rlred.training.target_search import SearchTargets, TargetSearch, choose_targets
from tests.paths import ROOT
from tests.test_reward_protocol import RIGHT

GRID = range(20, 101, 20)
# Of 8 rollouts an easy group has 5 right or more, a medium one 2, a hard one 1: coverage must be 1/5, 1/2 and 1.
TABLE = [
    ([(1.0, [10, 50, 50, 50, 50])], (20, 100, 100)),
    ([(1.0, [10, 50, 50, 50, 50, 50])], (60, 100, 100)),  # 1 of 6 is not enough
    ([(1.0, [90]), (0.7, [30, 90, 90, 90])], (40, 100, 100)),  # all easy questions together
    ([(0.5, [20, 21])], (100, 20, 100)),
    ([(2 / 3, [40, 90]), (1 / 3, [20, 60])], (40, 20, 100)),  # the bounds belong to the easier side, as in the reward
    ([(0.66, [40, 90]), (0.33, [20, 60])], (100, 40, 60)),
    ([(0.0, [20, 81])], (100, 100, 100)),
    ([], (100, 100, 100)),
]


@pytest.mark.parametrize("groups, targets", TABLE)
def test_the_targets_are_the_least_lengths_within_which_one_right_answer_is_expected(groups, targets):
    assert choose_targets(groups, GRID, group_size=8, longest=100) == targets


@pytest.mark.parametrize("name", ["num_questions", "every", "low", "step"])
def test_counts_below_one_are_named(name):
    with pytest.raises(ValueError, match=f"target_search.{name} must be 1 or more, got 0"):
        TargetSearch(**{name: 0})


def test_a_search_without_a_reward_for_it_or_questions_to_train_on_is_refused():
    for reward in (make_reward("correctness"), LengthBonus(targets=(30,))):
        with pytest.raises(ValueError, match="needs the reward length_bonus with three targets"):
            TargetSearch(num_questions=4).check(reward, 64, 4096)
    with pytest.raises(ValueError, match="target_search.num_questions=64: there are 64 training questions"):
        TargetSearch(num_questions=64).check(LengthBonus(targets=(1, 2, 3)), 64, 4096)


@pytest.mark.parametrize("low, refused", [(2048, True), (1500, True), (1499, False), (16, False)])
def test_a_grid_without_a_length_is_refused(low, refused):
    told = pytest.raises(ValueError, match=f"target_search.low={low} .*max_completion_length=1500")
    with told if refused else nullcontext():
        TargetSearch(num_questions=4, low=low).check(LengthBonus(targets=(1, 2, 3)), 64, 1500)


@pytest.mark.parametrize("right", range(1, 7))
def test_trap_the_search_and_the_reward_call_the_same_questions_easy(right):
    targets = (10, 20, 30)
    texts = {"prompts": ["q"] * 6, "completions": [RIGHT] * right + ["\\boxed{5}"] * (6 - right), "solution": ["4"] * 6}
    reward = LengthBonus(targets=targets, group_size=6)
    aim = max(n for n in targets if reward(completion_ids=[[7] * n] * 6, **texts)[0] == 1.5)
    found = choose_targets([(right / 6, [15] * 6)], [15], group_size=6, longest=99)
    assert found.index(15) == targets.index(aim)


def test_laser_finds_its_targets_while_it_trains_and_again_when_it_resumes(tmp_path):
    search = {"num_questions": 4, "every": 2, "low": 16, "step": 4}
    words = "--num_questions 16 --evaluate false --per_device_train_batch_size 8 --num_generations 4 --lora_r 4"
    words += " --logging_steps 1 --save_steps 1 --lr_scheduler_type constant --warmup_steps 0"
    base = ["--model_name_or_path", resolve_model("tiny_reasoner"), "--output_dir", str(tmp_path / "run")]
    words = [*words.split(), *base, "--target_search", json.dumps(search)]

    def logged(*more):
        run(*parse(ROOT / "recipes" / "laser.yaml", [*words, *more]), tmp_path)
        log = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
        return [
            (entry["step"], tuple(entry[name] for name in LOGGED_TARGETS))
            for entry in log
            if "target_search/easy" in entry
        ]

    first = logged("--max_steps", "3")
    assert [step for step, _ in first] == [0, 2]
    assert all(16 <= target <= 90 for _, targets in first for target in targets)
    assert first[0][1] != (25, 40, 60)  # those of the YAML
    again = logged("--max_steps", "5", "--resume_from_checkpoint", "true")
    assert again[:2] == first and [step for step, _ in again] == [0, 2, 4]


class TestTargets:
    LOGGED = {"target_search/easy": 5, "target_search/medium": 20, "target_search/hard": 40}

    @pytest.mark.parametrize(
        "targets, log, expected",
        [
            ((25, 40, 60), [], (25, 40, 60)),
            ((25, 40, 60), [{"step": 1, "loss": 0.1}], (25, 40, 60)),
            ((25, 40, 60), [{"step": 0, **LOGGED}], (5, 20, 40)),
            ((25, 40, 60), [{"step": 0, **LOGGED}, {"step": 1, "loss": 0.1}], (5, 20, 40)),
            ((25, 40, 60), [{"step": 0, **LOGGED}, {"step": 2, **LOGGED, "target_search/easy": 9}], (9, 20, 40)),
            ((25,), [{"step": 0, **LOGGED}], (25,)),  # Laser has one target, which nobody searches for
        ],
    )
    def test_the_last_logged_targets_hold(self, targets, log, expected):
        state = SimpleNamespace(log_history=log)
        reward = LengthBonus(targets=targets)
        assert reward.targets_at(state) == expected and reward.targets_at(None) == targets
        same = LengthBonus(targets=expected)
        texts = {"prompts": ["q"] * 2, "completions": [RIGHT] * 2, "completion_ids": [[7] * 8, [7] * 30]}
        for kind, other in ((reward, same), (ByMode(free=reward), ByMode(free=same))):
            columns = {**texts, "solution": ["4"] * 2, "mode": ["free"] * 2}
            assert kind(**columns, trainer_state=state) == other(**columns)

    def test_a_search_is_for_the_rows_without_a_budget_wherever_their_reward_stands(self):
        search, reward = TargetSearch(num_questions=4), LengthBonus(targets=(1, 2, 3))
        search.check(reward, 64, 4096)
        search.check(ByMode(free=reward), 64, 4096)
        for other in (ByMode(exact=reward), ByMode(free=LengthBonus(targets=(9,))), MaxLength(), think_format_reward):
            with pytest.raises(ValueError, match="needs the reward length_bonus with three targets"):
                search.check(other, 64, 4096)

    def test_a_resumed_run_goes_on_with_its_targets_and_does_not_search_again(self):
        asked = []
        args = SimpleNamespace(max_completion_length=60, num_generations=8)

        def answer(model):
            asked.append(model)
            return [{"question_id": 0, "correct": 1.0, "length": 20}]

        search = SearchTargets(TargetSearch(num_questions=1, every=2, low=10, step=10), answer)
        fresh = SimpleNamespace(log_history=[], global_step=0, max_steps=9)
        search.on_train_begin(args, fresh, None, model="first")
        assert asked == ["first"] and LengthBonus(targets=(1, 2, 3)).targets_at(fresh) == (20, 60, 60)
        resumed = SimpleNamespace(log_history=json.loads(json.dumps(fresh.log_history)), global_step=2, max_steps=9)
        search.on_train_begin(args, resumed, None, model="second")
        assert asked == ["first"] and LengthBonus(targets=(1, 2, 3)).targets_at(resumed) == (20, 60, 60)
