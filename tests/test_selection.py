"""Token selection: exact shares, and gradients that do not depend on how a rollout batch is cut up."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig
from safetensors.torch import load_file
from trl import GRPOTrainer
from trl.trainer import utils

from rlred.runs.arguments import LengthControlArguments
from rlred.training.token_selection import TokenSelection, micro_step, select
from rlred.training.trainer import ComposedGRPOTrainer, Rollouts
from tests.benchmarks import forking_table
from tests.paths import ROOT
from tests.selection_step import make_trainer, own_rollouts, rollouts, step


def picked(selection, entropies, mask, **settings):
    return select(selection, entropies, entropies, mask, **settings)


@given(st.integers(1, 6), st.integers(1, 20), st.floats(0.01, 1), st.sampled_from(["top", "bottom", "random"]))
def test_the_share_is_exact_even_where_all_entropies_are_equal(rows, width, fraction, keep):
    entropies, mask = torch.zeros(rows, width), torch.ones(rows, width)
    mask[0, width // 2 :] = 0
    kept = picked(TokenSelection(keep, fraction), entropies, mask)
    assert kept.sum() == round(fraction * int(mask.sum())) and not (kept & ~mask.bool()).any()


def test_top_and_bottom_part_the_tokens():
    entropies, mask = torch.rand(4, 25, generator=torch.Generator().manual_seed(0)), torch.ones(4, 25)
    top, bottom = (picked(TokenSelection(keep, f), entropies, mask) for keep, f in (("top", 0.2), ("bottom", 0.8)))
    assert (top ^ bottom).all() and entropies[top].min() > entropies[bottom].max()


def test_random_is_another_fifth_each_step_and_the_same_for_the_same_step():
    selection, entropies, mask = TokenSelection("random", 0.2), torch.zeros(4, 25), torch.ones(4, 25)
    one, again, other = (picked(selection, entropies, mask, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)


@pytest.mark.parametrize("keep", ["top", "bottom", "random"])
@pytest.mark.parametrize("cut", [1, 3, 5])
def test_two_processes_keep_what_one_would(keep, cut):
    entropies, mask = torch.rand(6, 10, generator=torch.Generator().manual_seed(0)).round(decimals=1), torch.ones(6, 10)
    mask[2, 4:] = 0
    selection = TokenSelection(keep, 0.3)
    whole = picked(selection, entropies, mask, seed=3)
    parts = [entropies[:cut][mask[:cut].bool()], entropies[cut:][mask[cut:].bool()]]
    first = picked(selection, entropies[:cut], mask[:cut], gather=lambda _: parts, rank=0, seed=3)
    second = picked(selection, entropies[cut:], mask[cut:], gather=lambda _: parts, rank=1, seed=3)
    assert torch.equal(torch.cat([first, second]), whole)


def test_a_selector_of_ones_own_sees_no_padding_into_the_loss():
    selection = TokenSelection(keep=lambda entropies, log_probs, mask: torch.ones_like(mask))
    mask = torch.tensor([[1, 1, 0]])
    assert torch.equal(picked(selection, torch.zeros(1, 3), mask), mask.bool())


def likely(entropies, log_probs, mask):
    """A selector of one's own: the tokens that the policy was surer of than not."""
    return log_probs > -0.7


def test_a_selector_is_named_in_yaml_by_its_import_path():
    arguments = LengthControlArguments(selection='{"keep": "tests.test_selection:likely"}')
    selection, log_probs = arguments.make_parts()[0], torch.tensor([[-0.1, -3.0, -0.2]])
    assert select(selection, log_probs, log_probs, torch.tensor([[1, 1, 0]])).tolist() == [[True, False, False]]


def test_a_selector_must_return_a_mask_of_the_same_shape():
    selection = TokenSelection(keep=lambda entropies, log_probs, mask: mask[0])
    with pytest.raises(ValueError, match=r"a mask of shape \(3,\); it must be \(1, 3\)"):
        picked(selection, torch.zeros(1, 3), torch.ones(1, 3))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"keep": "middle"}, "selection.keep must be one of"),
        ({"fraction": 0}, "selection.fraction"),
        ({"fraction": 1.1}, "selection.fraction"),
        ({"divide_by": "kept"}, "selection.divide_by"),
        ({"head": "none"}, "selection.head"),
        ({"keep": "no_such_module:f"}, "selection.keep='no_such_module:f': No module named"),
        ({"keep": "tests.test_selection:no_such_name"}, "no_such_name"),
    ],
)
def test_wrong_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        TokenSelection(**fields)


def gradient(trainer, batch, pieces=1):
    """The gradient of the loss of a rollout batch that is trained on in `pieces` micro-batches."""
    trainer.args.steps_per_generation = trainer.current_gradient_accumulation_steps = pieces
    trainer.model.zero_grad()
    size = 8 // pieces
    for start in range(0, 8, size):
        piece = {k: v[start : start + size] if v.dim() else v for k, v in batch.items()}
        trainer._compute_loss(trainer.model, piece).backward()
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])


def with_weights(trainer, batch, selection):
    """A rollout batch with what the trainer adds to it."""
    rollouts = Rollouts(trainer, [{}] * 8, dict(batch))
    weights = selection.token_weights(rollouts)
    advantages = batch["advantages"].unsqueeze(1) * weights
    return {**rollouts.output, "token_weights": weights, "advantages": advantages}


def test_one_micro_batch_has_trls_gradient_and_any_number_has_it_too(random_model):
    selection = TokenSelection(fraction=0.2)
    ours, theirs = (
        make_trainer(random_model, ComposedGRPOTrainer, parts=[selection]),
        make_trainer(random_model, config={"top_entropy_quantile": 0.2}),
    )
    batch = rollouts()
    weighted = with_weights(ours, batch, selection)
    assert weighted["token_weights"].sum() == 20
    whole = gradient(theirs, batch)
    assert torch.allclose(gradient(ours, weighted), whole, atol=1e-7) and whole.abs().max() > 1e-4
    for pieces in (2, 4, 8):
        assert torch.allclose(gradient(ours, weighted, pieces), whole, atol=1e-6)
    # TRL ranks each micro-batch by itself: what it trains on changes with the size of the pieces.
    drift = (gradient(theirs, batch, 4) - whole).norm() / whole.norm()
    assert drift > 0.05


def test_divided_by_the_selected_tokens_the_gradient_is_five_times_as_large(random_model):
    selections = [TokenSelection(fraction=0.2, divide_by=name) for name in ("all", "selected")]
    trainer = make_trainer(random_model, ComposedGRPOTrainer, parts=selections[:1])
    batch = rollouts()
    by_all, by_selected = (gradient(trainer, with_weights(trainer, batch, selection)) for selection in selections)
    assert torch.allclose(by_selected, 5 * by_all, atol=1e-6)


def test_everything_kept_is_the_plain_loss(random_model):
    selection = TokenSelection(fraction=1.0)
    ours, plain = make_trainer(random_model, ComposedGRPOTrainer, parts=[selection]), make_trainer(random_model)
    batch = rollouts()
    assert torch.allclose(gradient(ours, with_weights(ours, batch, selection)), gradient(plain, batch), atol=1e-7)


LORA = LoraConfig(target_modules="all-linear", r=4, init_lora_weights="gaussian")


@pytest.mark.parametrize("peft_config", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("pieces", [1, 4])
def test_the_head_on_selected_positions_has_the_loss_and_gradient_of_masking_afterwards(
    random_model, peft_config, pieces
):
    found = {}
    for head in ("selected", "all"):
        torch.manual_seed(0)
        selection = TokenSelection(fraction=0.2, divide_by="selected", head=head)
        trainer = make_trainer(random_model, ComposedGRPOTrainer, parts=[selection], peft_config=peft_config)
        batch = with_weights(trainer, rollouts(), selection)
        # Off policy, as in a second step on the same rollouts: ratios and clipping count.
        log_probs, _ = trainer.score(batch)
        noise = torch.randn(log_probs.shape, generator=torch.Generator().manual_seed(1))
        batch["old_per_token_logps"] = log_probs + 0.3 * noise
        found[head] = gradient(trainer, batch, pieces), trainer._metrics["train"]
    (kept, metrics), (whole, expected) = found["selected"], found["all"]
    assert (kept - whole).norm() <= 1e-6 * whole.norm() and whole.norm() > 1e-4
    for name in ("entropy", "clip_ratio/region_mean"):
        assert metrics[name] == pytest.approx(expected[name], rel=1e-5) and metrics[name][0] > 0


def test_trap_the_head_sees_the_kept_positions_and_no_others(random_model, monkeypatch):
    selection = TokenSelection(fraction=0.2)
    trainer = make_trainer(random_model, ComposedGRPOTrainer, parts=[selection])
    batch = with_weights(trainer, rollouts(), selection)
    head, seen = utils._ChunkedLogProbFunction.apply, []
    monkeypatch.setattr(
        utils._ChunkedLogProbFunction, "apply", lambda hidden, *rest: seen.append(len(hidden)) or head(hidden, *rest)
    )
    gradient(trainer, batch, pieces=4)
    assert sum(seen) == 20  # of 8 x 20: prompts, completions and padding


def test_a_micro_batch_without_kept_tokens_gives_a_zero_gradient(random_model):
    trainer = make_trainer(random_model, ComposedGRPOTrainer, parts=[TokenSelection()])
    batch = with_weights(trainer, rollouts(), TokenSelection())
    batch["advantages"], batch["selected"] = batch["advantages"] * 0, torch.zeros_like(batch["selected"])
    assert gradient(trainer, batch).abs().max() == 0


def test_with_a_kl_term_the_head_runs_on_all_tokens_and_the_gradient_is_trls(random_model, caplog):
    config = {"beta": 0.1}
    selection = TokenSelection(fraction=0.2)
    ours = make_trainer(random_model, ComposedGRPOTrainer, config=config, parts=[selection])
    assert "with this beta the loss reads all tokens" in caplog.text
    theirs = make_trainer(random_model, config={**config, "top_entropy_quantile": 0.2})
    batch = rollouts()
    batch["ref_per_token_logps"] = ours.score(batch)[0] + 0.5
    expected = gradient(theirs, batch)
    assert torch.allclose(gradient(ours, with_weights(ours, batch, selection)), expected, atol=1e-7)
    batch["ref_per_token_logps"] = ours.score(batch)[0]
    assert not torch.allclose(gradient(theirs, batch), expected, atol=1e-5)  # the KL term is a part of it


def launch_step(model, path, *words):
    """The weights after `step` in two processes."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "accelerate_configs/ddp_cpu.yaml"]
    command += ["tests/selection_step.py", str(model), str(path), *map(str, words)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return load_file(path)


def distance(one, two, start):
    """How far two steps from `start` are apart, as a share of the first."""
    apart, length = (torch.cat([(one[n] - other[n]).flatten() for n in one]).norm() for other in (two, start))
    return (apart / length).item()


@pytest.mark.slow
def test_two_processes_with_micro_batches_take_the_step_of_one(random_model, tmp_path, monkeypatch):
    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", own_rollouts)
    start = load_file(random_model / "model.safetensors")
    one = step(random_model, "ours", 8, 1)
    assert float(one["kept"]) == pytest.approx(0.2)
    assert distance(one["weights"], step(random_model, "ours", 2, 4)["weights"], start) < 1e-5
    two = launch_step(random_model, tmp_path / "two.safetensors", "ours", 2, 2)
    assert distance(one["weights"], two, start) < 1e-5


@pytest.mark.slow
def test_trap_trls_masking_takes_another_step_in_micro_batches(random_model, monkeypatch, tmp_path):
    monkeypatch.setattr(GRPOTrainer, "_generate_and_score_completions", own_rollouts)
    start = load_file(random_model / "model.safetensors")
    one = step(random_model, "trl", 8, 1)["weights"]
    assert distance(one, step(random_model, "ours", 8, 1)["weights"], start) < 1e-5
    assert distance(one, launch_step(random_model, tmp_path / "two.safetensors", "trl", 2, 2), start) > 0.05


def test_trls_own_masking_beside_it_is_refused(random_model):
    with pytest.raises(ValueError, match="top_entropy_quantile=0.2"):
        make_trainer(random_model, ComposedGRPOTrainer, config={"top_entropy_quantile": 0.2}, parts=[TokenSelection()])


def test_a_training_run_logs_what_it_selects(random_model):
    selection = TokenSelection(fraction=0.25, divide_by="selected")
    config = {"max_steps": 2, "logging_steps": 1, "log_completions": True}
    trainer = make_trainer(random_model, ComposedGRPOTrainer, parts=[selection], config=config)
    trainer.train()
    entry = trainer.state.log_history[0]
    assert float(entry["selection/selected_fraction"]) == pytest.approx(0.25, abs=0.01)
    assert float(entry["selection/gradient_scale"]) == pytest.approx(4, abs=0.2)
    assert 0 <= float(entry["selection/in_thinking"]) <= 1 and float(entry["selection/threshold"]) > 0
    assert len(trainer._logs["extra"]["forking_tokens"]) > 0


def test_a_rollout_that_trl_has_scored_is_not_scored_again(random_model, monkeypatch):
    config = {"max_steps": 2, "logging_steps": 1, "steps_per_generation": 2, "gradient_accumulation_steps": 1}
    config |= {"per_device_train_batch_size": 4, "save_strategy": "no"}
    trainer = make_trainer(random_model, ComposedGRPOTrainer, config=config, parts=[TokenSelection()])
    prepare, made = GRPOTrainer._prepare_inputs, []

    def keep(self, inputs):
        made.append(prepare(self, inputs))
        return made[-1]

    monkeypatch.setattr(GRPOTrainer, "_prepare_inputs", keep)
    passes, forward = [], GRPOTrainer._get_per_token_logps_and_entropies

    def count(self, *args, **kwargs):
        passes.append(torch.is_grad_enabled())
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", count)
    trainer.train()
    assert passes.count(False) == 1  # one rollout, scored once
    assert torch.equal(made[0]["sampled_log_probs"], made[0]["old_per_token_logps"])
    fresh = make_trainer(random_model, ComposedGRPOTrainer, parts=[TokenSelection()])
    _, entropies = fresh.score({k: v for k, v in made[0].items() if k != "old_per_token_logps"})
    assert torch.allclose(made[0]["sampled_entropies"], entropies, atol=1e-5)


@pytest.mark.slow
def test_the_rows_of_the_table_begin_from_one_start_and_differ_by_their_selection(tmp_path, monkeypatch, capsys):
    small = {"num_samples": 64, "max_updates": 2, "batch_size": 8, "probe_every": 2, "num_probe_questions": 2}
    small["cooldown_updates"] = 0
    words = f"x --folder {tmp_path} --rows all bottom_80 --blocks 2 --max_steps 2 --num_questions 64 --lora_r 4"
    words += " --per_device_train_batch_size 8 --num_generations 4 --learning_rate 0.01 --warmup_steps 0"
    monkeypatch.setattr(sys, "argv", [*words.split(" "), "--hindsight_settings", json.dumps(small)])
    assert forking_table.main() == 0
    every, bottom = (json.loads((tmp_path / f"{row}-0" / "result.json").read_text()) for row in ("all", "bottom_80"))
    assert every["curves"]["reward"][0] == bottom["curves"]["reward"][0]  # the same start and the same rollouts
    assert every["curves"]["grad_norm"][0] != bottom["curves"]["grad_norm"][0]
    assert every["selected_fraction"] == 1 and bottom["selected_fraction"] == pytest.approx(0.8, abs=0.01)
    table = capsys.readouterr().out
    assert "## mean_abs_error\n\n| | steps 1-1 | steps 2-2 |" in table and (tmp_path / "table.md").read_text() in table


def test_trap_random_draws_go_on_where_a_resumed_run_stopped():
    def at(global_step, step):
        args = SimpleNamespace(gradient_accumulation_steps=4)
        return micro_step(SimpleNamespace(args=args, state=SimpleNamespace(global_step=global_step), _step=step))

    unbroken = [at(step // 4, step) for step in range(12)]
    assert unbroken == list(range(12)) and [at(2 + step // 4, step) for step in range(4)] == unbroken[8:]
