"""Token selection: exact shares, and gradients that do not depend on how a rollout batch is cut up."""

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from rewards import Correctness
from rlred.selection import SelectedTokensGRPOTrainer, TokenSelection, select


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


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"keep": "middle"}, "selection.keep must be one of"),
        ({"fraction": 0}, "selection.fraction"),
        ({"fraction": 1.1}, "selection.fraction"),
        ({"divide_by": "kept"}, "selection.divide_by"),
    ],
)
def test_wrong_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        TokenSelection(**fields)


@pytest.fixture(scope="module")
def make_trainer(random_model, tmp_path_factory):
    """A trainer of the random model as a function of its class and settings."""

    def make(kind, *, quantile=1.0, config=None, **settings):
        args = GRPOConfig(
            output_dir=str(tmp_path_factory.mktemp("run")),
            use_cpu=True,
            bf16=False,
            report_to="none",
            per_device_train_batch_size=8,
            num_generations=4,
            max_completion_length=16,
            loss_type="dapo",
            scale_rewards="none",
            beta=0.0,
            top_entropy_quantile=quantile,
            **(config or {}),
        )
        tokenizer = AutoTokenizer.from_pretrained(random_model)
        rows = Dataset.from_list([{"prompt": [{"role": "user", "content": "1+1=?"}], "solution": "2"}] * 4)
        model = AutoModelForCausalLM.from_pretrained(random_model)
        trainer = kind(
            model=model,
            reward_funcs=[Correctness()],
            args=args,
            train_dataset=rows,
            processing_class=tokenizer,
            **settings,
        )
        trainer.model.train()
        return trainer

    return make


def rollouts(trainer, seed=0):
    """Eight made-up completions with 100 tokens in all, as the trainer would hand them to its loss."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([16, 16, 14, 14, 12, 12, 10, 6])
    ids = torch.randint(10, 300, (8, 16), generator=generator)
    mask = (torch.arange(16)[None] < lengths[:, None]).long()
    return {
        "prompt_ids": torch.randint(10, 300, (8, 5), generator=generator),
        "prompt_mask": torch.ones(8, 5, dtype=torch.long),
        "completion_ids": ids,
        "completion_mask": mask,
        "advantages": torch.randn(8, generator=generator),
        "num_items_in_batch": mask.sum(),
    }


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
    entropies, log_probs = trainer._score(batch)
    kept = select(selection, entropies, log_probs, batch["completion_mask"])
    scale = 100 / 20 if selection.divide_by == "selected" else 1.0
    return {**batch, "token_weights": kept * scale}


def test_one_micro_batch_has_trls_gradient_and_any_number_has_it_too(make_trainer):
    selection = TokenSelection(fraction=0.2)
    ours, theirs = make_trainer(SelectedTokensGRPOTrainer, selection=selection), make_trainer(GRPOTrainer, quantile=0.2)
    batch = rollouts(ours)
    weighted = with_weights(ours, batch, selection)
    assert weighted["token_weights"].sum() == 20
    whole = gradient(theirs, batch)
    assert torch.allclose(gradient(ours, weighted), whole, atol=1e-7) and whole.abs().max() > 1e-4
    for pieces in (2, 4, 8):
        assert torch.allclose(gradient(ours, weighted, pieces), whole, atol=1e-6)
    # TRL ranks each micro-batch by itself: what it trains on changes with the size of the pieces.
    drift = (gradient(theirs, batch, 4) - whole).norm() / whole.norm()
    assert drift > 0.05


def test_divided_by_the_selected_tokens_the_gradient_is_five_times_as_large(make_trainer):
    selections = [TokenSelection(fraction=0.2, divide_by=name) for name in ("all", "selected")]
    trainer = make_trainer(SelectedTokensGRPOTrainer, selection=selections[0])
    batch = rollouts(trainer)
    by_all, by_selected = (gradient(trainer, with_weights(trainer, batch, selection)) for selection in selections)
    assert torch.allclose(by_selected, 5 * by_all, atol=1e-6)


def test_everything_kept_is_the_plain_loss(make_trainer):
    selection = TokenSelection(fraction=1.0)
    ours, plain = make_trainer(SelectedTokensGRPOTrainer, selection=selection), make_trainer(GRPOTrainer)
    batch = rollouts(ours)
    assert torch.allclose(gradient(ours, with_weights(ours, batch, selection)), gradient(plain, batch), atol=1e-7)


def test_trls_own_masking_beside_it_is_refused(make_trainer):
    with pytest.raises(ValueError, match="top_entropy_quantile=0.2"):
        make_trainer(SelectedTokensGRPOTrainer, quantile=0.2, selection=TokenSelection())


def test_a_training_run_logs_what_it_selects(make_trainer):
    selection = TokenSelection(fraction=0.25, divide_by="selected")
    config = {"max_steps": 2, "logging_steps": 1, "log_completions": True}
    trainer = make_trainer(SelectedTokensGRPOTrainer, selection=selection, config=config)
    trainer.train()
    entry = trainer.state.log_history[0]
    assert float(entry["selection/kept_fraction"]) == pytest.approx(0.25, abs=0.01)
    assert float(entry["selection/gradient_scale"]) == pytest.approx(4, abs=0.2)
    assert 0 <= float(entry["selection/in_thinking"]) <= 1 and float(entry["selection/threshold"]) > 0
    assert len(trainer._logs["extra"]["forking_tokens"]) > 0
