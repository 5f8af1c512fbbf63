"""Rollouts from merged weights: the same rollouts, a base that does not move, a clear refusal beside vLLM."""

import pytest
import torch

from rlred.runs.arguments import RLConfig
from rlred.training.merged_rollouts import MergedRollouts
from tests.pairwise import trainer_of_job


def test_merged_rollouts_are_those_of_the_unmerged_policy_and_the_base_stays(tmp_path):
    found = {}
    for merged in ("true", "false"):
        words = ["--max_steps", "2", "--per_device_train_batch_size", "16", "--num_generations", "4", "--lora_r", "4"]
        words += ["--merged_rollouts", merged, "--output_dir", str(tmp_path / merged), "--logging_steps", "1"]
        trainer = trainer_of_job(words)
        parameters = dict(trainer.model.named_parameters())
        before = {name: value.detach().clone() for name, value in parameters.items()}
        trainer.train()
        moved = {name for name, value in parameters.items() if not torch.equal(value, before[name])}
        assert moved and all("lora_" in name for name in moved)
        names = ("completions/mean_length", "reward", "loss")
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        found[merged] = [[entry[name] for name in names] for entry in logs]
    assert len(found["true"]) == 2
    for own, stock in zip(found["true"], found["false"], strict=True):
        assert own == pytest.approx(stock, abs=1e-4)


def test_merged_rollouts_are_refused_beside_vllm(tmp_path):
    training = RLConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False)
    training.use_vllm = True
    with pytest.raises(ValueError, match="merged_rollouts: vLLM gets merged weights from TRL already"):
        MergedRollouts().check(training, ())
