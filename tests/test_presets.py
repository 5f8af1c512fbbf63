"""Ready instances: named as TRL's command line names a reward, with the constants that their lines say."""

import importlib
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from rlred.rewards import REWARDS, AdaptThink, ExactLength, LengthEfficiency, MaxLength, make_reward, presets
from rlred.rewards.base import Reward
from tests.paths import ROOT
from tests.test_reward_protocol import score

PRESETS = {name: value for name, value in vars(presets).items() if isinstance(value, Reward)}


def test_presets_are_ready_for_a_command_line_that_takes_names():
    assert {"l1_exact", "l1_max", "correctness", "shortest_correct"} <= set(PRESETS)
    for name, reward in PRESETS.items():
        # As TRL 1.16 resolves --reward_funcs.
        module, attribute = f"rlred.rewards.presets.{name}".rsplit(".", 1)
        assert getattr(importlib.import_module(module), attribute) is reward is make_reward(f"{module}.{attribute}")
        assert pickle.loads(pickle.dumps(reward)) == reward
        assert len(score(reward)) == 4
        assert not set(reward.needs) & {"requested", "visual_tokens"}  # which only a rollout of ours brings
    assert presets.l1_exact == ExactLength(alpha=3e-4) and presets.l1_exact_released == ExactLength(alpha=1 / 3000)
    assert presets.l1_max == MaxLength(alpha=1e-3, delta=0.5) and presets.l1_max_paper == MaxLength(alpha=3e-4)
    assert presets.o1_pruner == LengthEfficiency.preset("released") and presets.adapt_think == AdaptThink(delta=0.05)
    kinds = {type(reward) for reward in PRESETS.values()}
    left_out = {name for name, kind in REWARDS.items() if kind not in kinds}
    assert left_out == {"length_bonus", "request_threshold", "toggle", "visual_sparsity"}  # the module says why


@pytest.mark.slow
def test_trls_own_command_line_trains_on_a_preset(random_model, tmp_path):
    rows = [
        {"prompt": [{"role": "user", "content": f"{n}+1=?"}], "solution": str(n + 1), "budget": 9} for n in range(8)
    ]
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = f"--model_name_or_path {random_model} --dataset_name {tmp_path / 'rows'} --output_dir {tmp_path / 'run'}"
    flags += " --reward_funcs rlred.rewards.presets.l1_max rlred.rewards.presets.correctness --reward_weights 1.0 0.0"
    flags += " --max_steps 1 --per_device_train_batch_size 4 --num_generations 4 --max_completion_length 12"
    flags += " --use_cpu true --bf16 false --report_to none --logging_steps 1 --save_steps 1 --dtype float32"
    done = subprocess.run(
        [Path(sys.executable).with_name("trl"), "grpo", *flags.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    state = json.loads((tmp_path / "run" / "checkpoint-1" / "trainer_state.json").read_text())
    assert {"rewards/max_length/mean", "rewards/correctness/mean"} <= set(state["log_history"][0])
