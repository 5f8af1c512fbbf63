"""The one trainer: parts compose by multiplication, or are refused for what they would mean together."""

import itertools
import math

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from rlred.rewards import Correctness
from rlred.training.adherence import LogsAdherence
from rlred.training.difficulty_kl import DifficultyKL
from rlred.training.early_stop import EarlyStop
from rlred.training.think_or_not import ThinkOrNot, control_weights
from rlred.training.token_selection import TokenSelection
from rlred.training.trainer import ComposedGRPOTrainer, Opening, Part, joined


def evenness(completion_ids, solution, **columns):
    """A reward that differs between rollouts of a model that says nothing; no opinion where there is no solution."""
    shares = [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]
    return [None if gold == "" else share for share, gold in zip(shares, solution, strict=True)]


evenness.decided_after = lambda row: row["budget"]  # not so: a stand-in by which rollouts are cut
PARTS = {
    "selection": TokenSelection(fraction=0.5),
    "think_or_not": ThinkOrNot(baseline="group"),
    "control_weight": ThinkOrNot(forced=False, baseline="group", control_weight=0.1),
    "beta_solved": DifficultyKL(0.01),
    "early_stop": EarlyStop(),
}
TOGETHER = [
    names
    for size in range(1, len(PARTS) + 1)
    for names in itertools.combinations(PARTS, size)
    if not {"think_or_not", "control_weight"} <= set(names)
]


def trainer_of(folder, output, parts, kind=ComposedGRPOTrainer, solutions=("2",), **changes):
    rows = [
        {
            "prompt": [{"role": "user", "content": f"{n}+1=?"}],
            "solution": solutions[n % len(solutions)],
            "budget": 3 + n,
            "mode": "max",
            "question_id": n,
        }
        for n in range(8)
    ]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    settings = {
        "output_dir": str(output),
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 12,
        "max_steps": 1,
        "logging_steps": 1,
        "scale_rewards": "none",
        "loss_type": "grpo",
        "beta": 0.001,
        "epsilon_high": 1.0,
        "learning_rate": 1e-3,
        "reward_weights": [1.0, 0.0],
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        **changes,
    }
    return kind(
        model=AutoModelForCausalLM.from_pretrained(folder),
        reward_funcs=[LogsAdherence(evenness, 12, (tokenizer.eos_token_id,)), Correctness()],
        args=GRPOConfig(**settings),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        **({"parts": parts} if kind is ComposedGRPOTrainer else {}),
    )


@pytest.mark.parametrize("names", TOGETHER, ids=" ".join)
def test_every_combination_of_parts_trains_or_is_refused_for_what_it_means(names, random_model, tmp_path):
    parts = [PARTS[name] for name in names]
    if "selection" in names and {"think_or_not", "control_weight"} & set(names):
        with pytest.raises(ValueError, match="the first token carries the choice"):
            trainer_of(random_model, tmp_path, parts)
        return
    if {"beta_solved", "early_stop"} <= set(names):
        with pytest.raises(ValueError, match="a stopped rollout is graded as incorrect"):
            trainer_of(random_model, tmp_path, parts)
        return
    trainer = trainer_of(random_model, tmp_path, parts)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    assert any(not torch.equal(before[name], value) for name, value in trainer.model.named_parameters())
    log = trainer.state.log_history[0]
    assert all(math.isfinite(float(value)) for value in log.values())
    shown = {"selection": "selection/selected_fraction", "early_stop": "adherence/stopped"}
    shown |= dict.fromkeys(("think_or_not", "control_weight"), "think_or_not/skipped")
    assert {shown[name] for name in names if name in shown} <= set(log)
    if "early_stop" in names:
        assert log["adherence/stopped"] > 0 and log["completions/max_length"] <= 10
    if "think_or_not" in names:
        assert log["think_or_not/skipped"] == 0.5
    if "selection" in names:
        assert log["selection/selected_fraction"] == pytest.approx(0.5, abs=0.05)


def batch_of(trainer):
    torch.manual_seed(0)
    trainer.model.train()
    return trainer._generate_and_score_completions([trainer.train_dataset[i // 4] for i in range(8)])


def test_the_weights_of_two_parts_are_multiplied(random_model, tmp_path):
    class Halves(Part):
        def token_weights(self, rollouts):
            return torch.full_like(rollouts.output["completion_mask"], 2).float()

    thinkless = ThinkOrNot(forced=False, baseline="group", control_weight=0.25)
    batch = batch_of(trainer_of(random_model, tmp_path, [Halves(), thinkless]))
    plain = batch_of(trainer_of(random_model, tmp_path, [], GRPOTrainer))
    weights = 2 * control_weights(batch["completion_mask"], 0.25)
    assert torch.equal(batch["completion_ids"], plain["completion_ids"])
    torch.testing.assert_close(batch["advantages"], plain["advantages"].unsqueeze(1) * weights)


def test_two_parts_cannot_both_replace_the_advantages(random_model, tmp_path):
    class Ones(Part):
        def advantages(self, rollouts):
            return torch.ones(len(rollouts.rows))

    with pytest.raises(ValueError, match="2 of them give advantages"):
        batch_of(trainer_of(random_model, tmp_path, [Ones(), Ones()]))


def test_without_parts_the_run_is_trls(random_model, tmp_path):
    """The same rollouts, losses and weights as stock GRPOTrainer's, to the bit."""
    found = {}
    for kind in (GRPOTrainer, ComposedGRPOTrainer):
        torch.manual_seed(0)
        trainer = trainer_of(random_model, tmp_path / kind.__name__, [], kind)
        trainer.train()
        found[kind] = [entry.get("loss") for entry in trainer.state.log_history], dict(trainer.model.named_parameters())
    (losses, weights), (own_losses, own_weights) = found.values()
    assert losses == own_losses and all(torch.equal(weights[name], own_weights[name]) for name in weights)


def test_a_given_first_token_counts_towards_the_limit(random_model, tmp_path):
    trainer = trainer_of(random_model, tmp_path, [ThinkOrNot(baseline="group"), EarlyStop()])
    lengths = batch_of(trainer)["completion_mask"].sum(1).tolist()
    assert all(n <= limit for n, limit in zip(lengths, trainer._limits, strict=True))
    assert max(lengths) == max(trainer._limits) > 1


def test_an_opening_that_ends_the_sequence_is_all_there_is():
    ids, log_probs = joined(Opening([7, 8], [-1.0, -2.0], torch.zeros(2)), [[1, 2], [3]], [[-0.1, -0.2], [-0.3]])
    assert ids == [[7, 1, 2], [8, 3]] and log_probs == [[-1.0, -0.1, -0.2], [-2.0, -0.3]]
    assert joined(Opening([7], [-1.0], torch.zeros(1)), [[1]], None) == ([[7, 1]], None)


@pytest.mark.parametrize(
    "part", [ThinkOrNot(end_of_thinking="</think>"), EarlyStop()], ids=lambda part: type(part).__name__
)
def test_a_rollout_function_of_ones_own_is_refused_beside_what_it_would_not_heed(part, random_model, tmp_path):
    trainer = trainer_of(random_model, tmp_path, [])
    trainer.rollout_func = lambda prompts, trainer: {}
    with pytest.raises(ValueError, match="rollout"):
        part.check_trainer(trainer)


def test_trap_a_row_of_which_no_reward_has_an_opinion_stays_out_of_its_group(random_model, tmp_path):
    # A logging reward of weight 0 with a number for every row would bring it back, as a 0 among its group's rewards.
    trainer = trainer_of(random_model, tmp_path, [], GRPOTrainer, solutions=("", "2"), beta=0.0)
    advantages = batch_of(trainer)["advantages"]
    assert advantages[:4].abs().max() == 0 and advantages[4:].abs().max() > 0
    assert trainer._metrics["train"]["adherence/mean_abs_error"]  # and its length is logged all the same
