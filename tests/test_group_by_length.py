"""Micro-batches of rows of like length: the same updates with less padding; refused where they would be others."""

import itertools
import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoProcessor
from trl import GRPOConfig

from rlred.tiny import resolve_model
from rlred.training.early_stop import EarlyStop
from rlred.training.group_by_length import GroupByLength, grouped, padding
from rlred.training.token_selection import TokenSelection
from rlred.training.trainer import Part
from tests.test_trainer import trainer_of


def rows_of(batches: list[dict]) -> list[tuple]:
    """What each row of some micro-batches holds, without its padding."""
    found = []
    for batch in batches:
        for at in range(len(batch["advantages"])):
            own = batch["completion_mask"][at].bool()
            names = ("completion_ids", "old_per_token_logps")
            tokens = [tuple(batch[name][at][own].tolist()) for name in names]
            prompt = tuple(batch["prompt_ids"][at][batch["prompt_mask"][at].bool()].tolist())
            found.append((prompt, *tokens, batch["advantages"][at].item(), batch["texts"][at]))
    return found


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9)), min_size=4, max_size=4), st.sampled_from([1, 2, 4]))
@settings(max_examples=60, deadline=None)
def test_each_row_is_there_once_and_no_column_is_padding_alone(lengths, number):
    prompts, answers = zip(*lengths, strict=True)
    before = torch.stack([torch.cat([torch.zeros(4 - n), torch.ones(n)]) for n in prompts]).long()
    after = torch.stack([torch.cat([torch.ones(n), torch.zeros(9 - n)]) for n in answers]).long()
    random = torch.Generator().manual_seed(0)
    whole = {"prompt_ids": torch.randint(5, 50, (4, 4), generator=random), "prompt_mask": before}
    whole |= {"completion_ids": torch.randint(5, 50, (4, 9), generator=random), "completion_mask": after}
    whole |= {"old_per_token_logps": torch.rand(4, 9, generator=random), "importance_sampling_ratio": torch.ones(4, 1)}
    whole |= {"advantages": torch.arange(4.0), "texts": list("abcd"), "nothing": None}
    parts = [
        {name: None if rows is None else rows[at : at + 4 // number] for name, rows in whole.items()}
        for at in range(0, 4, 4 // number)
    ]
    for part in parts:
        part["num_items_in_batch"] = torch.tensor(20)
    found = grouped(parts)
    assert sorted(rows_of(found)) == sorted(rows_of(parts)) and padding(found) <= padding(parts)
    for batch in found:
        assert batch["num_items_in_batch"] == 20 and batch["nothing"] is None
        assert batch["prompt_mask"][:, 0].any() and batch["importance_sampling_ratio"].size(1) == 1
        assert batch["completion_mask"].size(1) == max(1, batch["completion_mask"].sum(1).max().item())
    lasts = [[len(row[0]) + len(row[1]) for row in rows_of([batch])] for batch in found]
    assert all(max(one) <= min(other) for one, other in itertools.pairwise(lasts))


JOB = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "optim": "sgd", "learning_rate": 1.0}
JOB |= {"max_steps": 2, "report_to": "none", "max_grad_norm": 1e9}


@pytest.mark.parametrize(
    "changes",
    [
        {"loss_type": "grpo"},
        {"loss_type": "dapo"},
        {"loss_type": "dr_grpo", "beta": 0.0},
        {"loss_type": "dapo", "steps_per_generation": 8},
        {"loss_type": "dapo", "num_iterations": 2},
        {"loss_type": "luspo", "importance_sampling_level": "sequence"},
    ],
    ids=lambda value: "-".join(map(str, value.values())),
)
def test_an_update_is_the_same_with_less_padding(changes, random_model, tmp_path):
    found = {}
    for parts in ([EarlyStop()], [EarlyStop(), GroupByLength()]):
        torch.manual_seed(0)
        trainer = trainer_of(random_model, tmp_path / str(len(parts)), parts, **JOB, **changes)
        before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
        trainer.train()
        found[len(parts)] = {name: value - before[name] for name, value in trainer.model.named_parameters()}
    log = trainer.state.log_history[0]
    assert 0 <= log["padding/after"] < log["padding/before"] < 1
    assert max(value.abs().max() for value in found[1].values()) > 1e-4
    for name, value in found[1].items():
        torch.testing.assert_close(found[2][name], value, atol=1e-6, rtol=1e-3)


def test_the_weights_of_tokens_stay_with_their_tokens(random_model, tmp_path):
    found = {}
    for more in ([], [GroupByLength()]):
        torch.manual_seed(0)
        parts = [EarlyStop(), TokenSelection(fraction=0.5), *more]
        trainer = trainer_of(random_model, tmp_path / str(len(parts)), parts, **{**JOB, "beta": 0.0})
        trainer.train()
        found[len(parts)] = dict(trainer.model.named_parameters())
    for name, value in found[2].items():
        torch.testing.assert_close(found[3][name], value, atol=1e-6, rtol=1e-3)


def test_what_would_be_another_loss_is_refused(random_model, tmp_path):
    with pytest.raises(ValueError, match="group_by_length: the loss 'bnpo' is a mean over a micro-batch"):
        GroupByLength().check(GRPOConfig(str(tmp_path), loss_type="bnpo", use_cpu=True, bf16=False), ())
    for changes, told in (
        ({"top_entropy_quantile": 0.3}, "chooses within a micro"),
        ({"pad_to_multiple_of": 8}, "fixed"),
    ):
        with pytest.raises(ValueError, match=told):
            GroupByLength().check(GRPOConfig(str(tmp_path), use_cpu=True, bf16=False, **changes), ())
    trainer = trainer_of(random_model, tmp_path, [])
    trainer.aux_loss_enabled = True
    with pytest.raises(ValueError, match="router_aux_loss_coef to 0"):
        GroupByLength().check_trainer(trainer)
    with pytest.raises(ValueError, match="leave it out beside entropy_coef"):
        trainer_of(random_model, tmp_path, [GroupByLength()], entropy_coef=0.1)
    seeing = types.SimpleNamespace(processing_class=AutoProcessor.from_pretrained(resolve_model("tiny_vlm")))
    with pytest.raises(ValueError, match="leave it out where a model sees them"):
        GroupByLength().check_trainer(seeing)


def test_two_parts_cannot_both_make_the_micro_batches(random_model, tmp_path):
    class Same(Part):
        def micro_batches(self, trainer, batches):
            return batches

    with pytest.raises(ValueError, match="2 of them give micro_batches"):
        trainer_of(random_model, tmp_path, [Same(), GroupByLength()]).train()
