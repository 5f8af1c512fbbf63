"""Parts on the side of the advantages: each against a group worked by hand, in a trainer's batch, and in a recipe."""

import itertools
import json
import logging
import math
import sys
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig

from recipes import shorter_better
from rlred.checks.advantages import audit_advantages
from rlred.rewards import Correctness, GroupSigmoid, Truncation
from rlred.runs.grpo import main
from rlred.training.ddca import DDCA, decoupled
from rlred.training.difficulty_kl import DifficultyKL
from rlred.training.difficulty_weight import DifficultyWeight
from rlred.training.drpo import DRPO, discriminative
from rlred.training.early_stop import EarlyStop
from rlred.training.parts import make_part
from rlred.training.think_or_not import ThinkOrNot
from rlred.training.token_selection import TokenSelection
from rlred.training.trainer import ComposedGRPOTrainer

NAN = math.nan
SIGMOID_1 = 0.7310585786300049  # sigmoid(1); of -1 it is 1 minus this
GAP = 2 * SIGMOID_1 - 1

# grades, lengths, A with beta 0.2 against the others, A against the group.
# Two correct lengths a < b have z = -1 and 1. Each is compared with the other: A_len = n/N * (-GAP, GAP). Against
# their mean, 0.5, it is half of that. Accuracy against the group is (c - p) / sqrt(p (1 - p)).
DDCA_TABLE = {
    "two of four": (
        [1, 1, 0, 0],
        [10, 20, 5, 40],
        [2 / 3 + 0.1 * GAP, 2 / 3 - 0.1 * GAP, -2 / 3, -2 / 3],
        [1 + 0.05 * GAP, 1 - 0.05 * GAP, -1, -1],
    ),
    "incorrect lengths do not count": (
        [1, 1, 0, 0],
        [10, 20, 5000, 1],
        [2 / 3 + 0.1 * GAP, 2 / 3 - 0.1 * GAP, -2 / 3, -2 / 3],
        [1 + 0.05 * GAP, 1 - 0.05 * GAP, -1, -1],
    ),
    "all correct": ([1, 1], [30, 31], [0.2 * GAP, -0.2 * GAP], [0.1 * GAP, -0.1 * GAP]),
    "all correct, one length": ([1, 1, 1], [7, 7, 7], [0, 0, 0], [0, 0, 0]),
    "all incorrect": ([0, 0, 0], [7, 9, 30], [0, 0, 0], [0, 0, 0]),
    "one correct": ([1, 0], [500, 9], [1, -1], [1, -1]),
    "one without a grade": (
        [1, 1, NAN, 0],
        [10, 20, 15, 40],
        [1 / 2 + 2 / 15 * GAP, 1 / 2 - 2 / 15 * GAP, 0, -1],
        [1 / 2**0.5 + 1 / 15 * GAP, 1 / 2**0.5 - 1 / 15 * GAP, 0, -(2**0.5)],
    ),
    "one graded": ([1, NAN], [10, 20], [0, 0], [0, 0]),
    "none graded": ([NAN, NAN], [10, 20], [0, 0], [0, 0]),
    "group of one": ([1], [10], [0], [0]),
}


@pytest.mark.parametrize("name", DDCA_TABLE)
def test_ddca_is_the_value_worked_by_hand(name):
    grades, lengths, others, whole = (torch.tensor([row], dtype=torch.float64) for row in DDCA_TABLE[name])
    torch.testing.assert_close(decoupled(grades, lengths, 0.2, "leave_one_out"), others)
    torch.testing.assert_close(decoupled(grades, lengths, 0.2, "group"), whole)
    assert decoupled(grades, lengths, 0.0, "leave_one_out").abs().max() <= 1  # accuracy alone


def test_trap_an_incorrect_completion_does_not_dilute_the_length_baseline():
    # With r = c (1 - 0.2 sigmoid(z)) and GRPO's mean, a long correct answer falls behind in an easy group alone.
    grades = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    found = decoupled(grades, torch.tensor([[10.0, 20.0, 90.0, 4.0]]), 0.2, "leave_one_out")[0]
    assert found[0] > found[1] > found[2] > 0 > found[3]
    correct = found[:3] - (1 - 2 / 3)
    assert correct.sum().abs() < 1e-12  # the length term sums to 0 among the correct ones


# grades, lengths as shares of the longest, mean log-probabilities, A; length_weight 1 / ln 2: w = 2 ** (1 - share).
DRPO_TABLE = {
    "two of four": ([1, 1, 0, 0], [0, 1, 0.5, 0.5], [0] * 4, [8 / 3, 4 / 3, -2, -2]),
    "three lengths": ([1, 1, 1, 0], [0, 0, 1, 0], [0] * 4, [8 / 5, 8 / 5, 4 / 5, -4]),
    # exp(s / tau) is 2 and 1 with tau 1 / ln 2.
    "a likelier incorrect one": ([1, 0, 0], [0.3, 0, 1], [-9, -1, -2], [3, -2, -1]),
    "all correct": ([1, 1], [0, 1], [0, 0], [0, 0]),
    "all incorrect": ([0, 0], [0, 1], [0, 0], [0, 0]),
    "one without a grade": ([1, NAN, 0], [0.5, 0, 1], [0] * 3, [3, 0, -3]),
    "none graded": ([NAN, NAN], [0, 1], [0, 0], [0, 0]),
    "group of one": ([1], [0.5], [0], [0]),
}


@pytest.mark.parametrize("name", DRPO_TABLE)
def test_drpo_is_the_value_worked_by_hand(name):
    *told, expected = (torch.tensor([row], dtype=torch.float64) for row in DRPO_TABLE[name])
    found = discriminative(*told, 1 / math.log(2), 1 / math.log(2))
    torch.testing.assert_close(found, expected)


def test_trap_a_long_correct_answer_has_a_positive_advantage_with_drpo():
    grades, shares = torch.tensor([[1.0] * 3 + [0.0]]), torch.tensor([[0.01, 0.02, 0.99, 0.01]])
    found = discriminative(grades, shares, torch.zeros(1, 4), 0.1, 10.0)[0]
    assert 0 < found[2] < 1e-3 < found[1] < found[0] and found.sum().abs() < 1e-12


# p, weight of a positive advantage, weight of another one: 0.4 + 1.1 / (1 + exp(10 (x - 0.75))), x = p and 1 - p.
LEAD_TABLE = [
    (0.0, 0.4 + 1.1 / (1 + math.exp(-7.5)), 0.4 + 1.1 / (1 + math.exp(2.5))),
    (0.25, 0.4 + 1.1 / (1 + math.exp(-5)), 0.95),
    (0.5, 0.4 + 1.1 / (1 + math.exp(-2.5)), 0.4 + 1.1 / (1 + math.exp(-2.5))),
    (0.75, 0.95, 0.4 + 1.1 / (1 + math.exp(-5))),
    (1.0, 0.4 + 1.1 / (1 + math.exp(2.5)), 0.4 + 1.1 / (1 + math.exp(-7.5))),
]


@pytest.mark.parametrize("share, positive, other", LEAD_TABLE)
def test_leads_weight_is_the_value_worked_by_hand(share, positive, other):
    weight = DifficultyWeight().weight(torch.tensor([share, 1 - share], dtype=torch.float64))
    torch.testing.assert_close(weight, torch.tensor([positive, other], dtype=torch.float64))


def first_is_even(completion_ids, solution, **columns):
    """A grade that differs between rollouts of a model that says nothing; none where there is no solution."""
    return [None if gold == "" else float(ids[0] % 2 == 0) for ids, gold in zip(completion_ids, solution, strict=True)]


first_is_even.__name__ = "correctness"  # as rewards.Correctness is called


def shortness(completion_ids, **columns):
    """A length term of next to nothing."""
    return [-1e-6 * len(ids) for ids in completion_ids]


def trainer_of(folder, output, parts, rewards=(first_is_even,), solutions=("2",), **changes):
    rows = [
        {"prompt": [{"role": "user", "content": f"{n}+1=?"}], "solution": solutions[n % len(solutions)], "budget": 3}
        for n in range(8)
    ]
    settings = {
        "output_dir": str(output),
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 12,
        "max_steps": 1,
        "logging_steps": 1,
        "scale_rewards": "none",
        "loss_type": "grpo",
        "learning_rate": 1e-3,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        **changes,
    }
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.generation_config.eos_token_id = [model.generation_config.eos_token_id, *range(0, len(rows) * 40, 5)]
    return ComposedGRPOTrainer(
        model=model,
        reward_funcs=list(rewards),
        args=GRPOConfig(**settings),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
        parts=parts,
    )


def batch_of(trainer, seed=0):
    """Two groups of four, as TRL makes them."""
    torch.manual_seed(seed)
    trainer.model.train()
    return trainer._generate_and_score_completions([trainer.train_dataset[i // 4] for i in range(8)])


def told_of(batch):
    """Grades and lengths (2, 4) of the batch's own ids."""
    lengths = batch["completion_mask"].sum(1).view(2, 4)
    return (batch["completion_ids"][:, 0] % 2 == 0).double().view(2, 4), lengths.double()


@pytest.fixture(scope="module")
def folder(random_model):
    return random_model


def test_in_a_batch_padding_is_no_length_and_a_row_without_a_grade_has_no_advantage(folder, tmp_path):
    part, plain = DDCA(beta=0.5), trainer_of(folder, tmp_path, [], solutions=("2", ""))
    trainer = trainer_of(folder, tmp_path, [part], solutions=("2", ""))
    batch, stock = batch_of(trainer), batch_of(plain)
    assert torch.equal(batch["completion_ids"], stock["completion_ids"])
    grades, lengths = told_of(batch)
    assert len(set(lengths[0].tolist())) > 1 and lengths.max() > lengths.min()  # rows are padded
    grades[1] = NAN
    expected = decoupled(grades, lengths, 0.5, "leave_one_out").flatten().float()
    torch.testing.assert_close(batch["advantages"], expected)
    assert batch["advantages"][4:].abs().max() == 0 < batch["advantages"][:4].abs().max()


def test_drpos_gradient_is_that_of_its_objective(folder, tmp_path):
    trainer = trainer_of(folder, tmp_path, [DRPO(length_weight=0.5, tau=0.1)])
    batch = next(
        one for one in (batch_of(trainer, seed) for seed in range(20)) if one["advantages"].view(2, 4).any(1).all()
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer._compute_loss(trainer.model, batch).backward()
    found = {name: value.grad.clone() for name, value in trainer.model.named_parameters()}
    trainer.model.zero_grad()
    grades, lengths = told_of(batch)
    inputs = (torch.cat([batch[f"{name}_{what}"] for name in ("prompt", "completion")], 1) for what in ("ids", "mask"))
    log_probs = trainer._get_per_token_logps_and_entropies(trainer.model, *inputs, batch["completion_ids"].size(1))[0]
    mask = batch["completion_mask"]
    scores, loss = ((log_probs * mask).sum(1) / mask.sum(1)).view(2, 4), 0.0
    for grade, length, score in zip(grades, lengths, scores, strict=True):
        weights = torch.exp((1 - length[grade == 1] / 12) / 0.5)
        push = 0.1 * (score[grade == 0] / 0.1).exp().mean().log()
        loss = loss - ((weights * score[grade == 1]).sum() / weights.sum() - push) / 2
    loss.backward()
    for name, value in trainer.model.named_parameters():
        torch.testing.assert_close(found[name], value.grad, rtol=1e-4, atol=1e-6)


def test_the_difficulty_weight_multiplies_the_advantages_of_another_part(folder, tmp_path):
    batch = batch_of(trainer_of(folder, tmp_path, [DDCA(), DifficultyWeight(), TokenSelection(keep="random")]))
    grades, lengths = told_of(batch)
    plain = decoupled(grades, lengths, 0.2, "leave_one_out")
    share = grades.mean(1, keepdim=True)
    weights = DifficultyWeight().weight(torch.where(plain > 0, share, 1 - share))
    expected = (plain * weights).view(8, 1).float() * batch["selected"]
    torch.testing.assert_close(batch["advantages"], expected)
    assert len(set(share.flatten().tolist())) == 2 and batch["advantages"].any()


GIVING = {"ddca": DDCA(), "drpo": DRPO(), "think_or_not": ThinkOrNot(forced=False)}


@pytest.mark.parametrize("names", itertools.combinations(GIVING, 2), ids=" ".join)
def test_trap_two_parts_that_give_the_advantages_are_an_error(names, tmp_path):
    training = GRPOConfig(str(tmp_path), use_cpu=True, bf16=False, scale_rewards="none")
    parts = [GIVING[name] for name in names]
    [found] = audit_advantages(training, [Correctness()], [*parts, DifficultyWeight(), DifficultyKL()])
    assert found.level == "error" and "keep one of them" in found.advice
    rest = [parts[0], ThinkOrNot(forced=False, baseline="group"), DifficultyWeight()]
    assert not list(audit_advantages(training, [Correctness()], rest))


LENGTH, GRADE = GroupSigmoid(), Correctness()


@pytest.mark.parametrize(
    "rewards, weights, parts, changes, expected",
    [
        ([LENGTH, GRADE], [1.0, 0.0], [], {}, []),
        ([LENGTH, GRADE], [1.0, 0.0], [], {"gdpo": True}, ["multi_objective_aggregation", "reward_weights"]),
        ([LENGTH, GRADE], [1.0, 1.0], [], {"gdpo": True}, ["reward_weights"]),
        ([Truncation(), GRADE], None, [], {"gdpo": True}, ["reward_weights"]),
        ([LENGTH, GRADE], [0.0, 1.0], [], {"gdpo": True}, []),
        ([GRADE], None, [], {"gdpo": True}, []),
        ([LENGTH, GRADE], [1.0, 0.0], [DDCA()], {"gdpo": True}, ["multi_objective_aggregation"]),
        ([LENGTH, GRADE], [1.0, 0.0], [DDCA()], {"scale_rewards": "batch"}, ["scale_rewards"]),
        ([LENGTH, GRADE], [1.0, 0.0], [DifficultyWeight()], {"scale_rewards": "batch"}, []),
        ([LENGTH, GRADE], [1.0], [], {"gdpo": True}, ["reward_weights"]),
    ],
)
def test_the_audit_says_when_a_std_makes_a_length_term_whole(tmp_path, rewards, weights, parts, changes, expected):
    changes = {"scale_rewards": "none", **changes}
    if changes.pop("gdpo", False):
        changes["multi_objective_aggregation"] = "normalize_then_sum"
    training = GRPOConfig(str(tmp_path), use_cpu=True, bf16=False, reward_weights=weights, **changes)
    found = list(audit_advantages(training, rewards, parts))
    assert [finding.field for finding in found] == expected
    assert all("\n" not in str(finding) for finding in found)


def test_trap_gdpo_makes_a_length_term_of_a_millionth_as_strong_as_correctness(folder, tmp_path):
    def always(completion_ids, **columns):
        return [1.0] * len(completion_ids)

    told = {"rewards": (shortness, always), "reward_weights": [1.0, 1.0]}
    summed = batch_of(trainer_of(folder, tmp_path, [], **told))["advantages"]
    gdpo = batch_of(trainer_of(folder, tmp_path, [], multi_objective_aggregation="normalize_then_sum", **told))
    assert summed.abs().max() < 1e-5 < 0.5 < gdpo["advantages"].abs().max()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: DDCA(beta=-1), "ddca.beta must be a finite number, 0 or more, got -1"),
        (lambda: DDCA(baseline="mean"), "ddca.baseline must be one of leave_one_out, group, got 'mean'"),
        (lambda: DRPO(length_weight=0), "drpo.length_weight must be a finite number above 0, got 0"),
        (lambda: DRPO(tau=math.inf), "drpo.tau must be a finite number above 0, got inf"),
        (lambda: DifficultyWeight(low=2.0), "difficulty_weight.low must be at most high=1.5, got 2.0"),
        (lambda: DifficultyWeight(steepness=-1), "difficulty_weight.steepness must be a finite number, 0 or more"),
        (lambda: DifficultyWeight(midpoint=NAN), "difficulty_weight.midpoint must be a finite number, got nan"),
        (lambda: make_part("ddca", {"alpha": 1}), "parts.ddca: no field is called 'alpha'; there are baseline, beta"),
    ],
)
def test_a_value_out_of_range_is_one_line(make, message):
    with pytest.raises(ValueError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("part", [DDCA(), DRPO()], ids=lambda part: type(part).__name__)
@pytest.mark.parametrize(
    "changes, parts, message",
    [
        ({"mask_truncated_completions": True}, [], "mask_truncated_completions=True: .* has 0 tokens"),
        ({}, [EarlyStop()], "early_stop_rollouts=True: .* a stopped rollout has none"),
        ({"rewards": (shortness,)}, [], "needs the reward 'correctness' beside"),
    ],
)
def test_what_hides_a_length_or_a_grade_is_refused(part, changes, parts, message, folder, tmp_path):
    with pytest.raises(ValueError, match=message):
        trainer_of(folder, tmp_path, [part, *parts], **changes)


@pytest.mark.parametrize("part", [DifficultyWeight(), DifficultyKL(1.0)], ids=lambda part: type(part).__name__)
def test_trap_a_stopped_rollout_has_no_grade_for_a_part_that_reads_it(part, tmp_path):
    training = GRPOConfig(str(tmp_path), use_cpu=True, bf16=False, beta=0.5)
    part.check(training, [part])
    with pytest.raises(ValueError, match="early_stop_rollouts=True: .* a stopped rollout is graded as incorrect"):
        part.check(training, [part, EarlyStop()])


def test_drpo_refuses_a_loss_that_is_no_mean_of_completions(folder, tmp_path):
    with pytest.raises(ValueError, match="loss_type='dapo': drpo compares completions by the mean over their tokens"):
        trainer_of(folder, tmp_path, [DRPO()], loss_type="dapo")


def recipe(monkeypatch, output, *flags):
    small = "--num_questions 16 --per_device_train_batch_size 8 --num_generations 4 --max_steps 1 --logging_steps 1"
    small += " --lora_r 4 --evaluate false --hindsight false --save_strategy no"
    monkeypatch.setattr(sys, "argv", ["recipe.py", *small.split(), "--output_dir", str(output), *flags])
    return main(Path(shorter_better.__file__))


@pytest.mark.parametrize(
    "parts, flags, shown",
    [
        ({"ddca": {"beta": 0.3}, "difficulty_weight": {}, "easy_first": {"share": 1.0}}, [], "difficulty_weight"),
        (
            {"drpo": {"length_weight": 0.5}, "dynamic_sampling": {"max_rounds": 1}},
            ["--loss_type", "grpo"],
            "dynamic_sampling/sampled",
        ),
    ],
    ids=["ddca, difficulty_weight and easy_first", "drpo and dynamic_sampling"],
)
def test_a_recipe_trains_with_the_part(parts, flags, shown, tmp_path, monkeypatch):
    rows = [{"question": f"{n}+{n}=?", "answer": str(2 * n), "reference_accuracy": 0.1 * n} for n in range(1, 10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = ["--questions", str(tmp_path / "rows.jsonl"), "--log_completions", "true"]
    assert recipe(monkeypatch, tmp_path / "run", "--parts", json.dumps(parts), *told, *flags) == 0
    entry = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"][0]
    assert shown in entry and math.isfinite(entry["loss"]) and math.isfinite(entry["grad_norm"])
    assert json.loads((tmp_path / "run" / "run.json").read_text())["arguments"]["parts"] == parts


def test_a_recipe_refuses_two_that_give_advantages_and_warns_of_gdpo(tmp_path, monkeypatch, capsys, caplog):
    gdpo = ["--multi_objective_aggregation", "normalize_then_sum"]
    with caplog.at_level(logging.WARNING):
        assert recipe(monkeypatch, tmp_path, "--parts", '{"ddca": {}, "drpo": {}}', "--loss_type", "grpo") == 2
        assert recipe(monkeypatch, tmp_path, "--parts", '{"ddca": {}}', *gdpo) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "parts=['DDCA', 'DRPO']" in lines[0] and "DDCA gives the advantages" in lines[1]
    assert not list(tmp_path.rglob("*.safetensors"))
