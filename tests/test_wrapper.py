"""What spreads the training over processes: told from what was asked for, and gathered for as long as it samples."""

import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from peft import LoraConfig, get_peft_model
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModelForCausalLM, LlamaConfig
from trl import GRPOConfig

from rlred.checks.audit_devices import audit_shares
from rlred.evaluation.shares import gathered
from rlred.training.callbacks import CheckWrapper
from rlred.training.merged_rollouts import MergedRollouts
from rlred.wrapper import asked_wrapper, check_wrapper, described, fsdp_without_gpus, mismatch, model_wrapper

FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
DEEPSPEED = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}


@pytest.fixture
def training(tmp_path):
    yield GRPOConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none", num_generations=2)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def group():
    """A process group of this process alone: real wrappers, without a launcher."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def model_of(**lora):
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=32, num_key_value_heads=2, tie_word_embeddings=True, eos_token_id=31, **shape)
    model = AutoModelForCausalLM.from_config(config)
    return get_peft_model(model, LoraConfig(target_modules="all-linear", init_lora_weights=False, r=2, **lora))


def sharded():
    model = model_of()
    for layer in model.get_base_model().model.layers:
        fully_shard(layer, reshard_after_forward=True)
    return fully_shard(model)


@pytest.mark.parametrize("environment, asked", [({}, "one process"), (FSDP, "fsdp2"), (DEEPSPEED, "zero3")])
def test_trap_a_wrapper_that_use_cpu_leaves_out(environment, asked, training, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert asked_wrapper(training) == asked
    assert described(training) == {"asked": asked, "found": "one process", "processes": 1, "device": "cpu"}
    found = mismatch(training)
    assert found is None if asked == "one process" else found[:2] == ("use_cpu", True)
    if found:
        with pytest.raises(ValueError, match=f"use_cpu=True: {asked} was asked for, .* train with one process; set it"):
            check_wrapper(training)


def test_trap_two_processes_of_which_each_is_alone(training, monkeypatch):
    # Told of no backend, accelerate takes each process for the only one.
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert mismatch(training)[:2] == ("ddp_backend", None)
    training.ddp_backend = "gloo"
    assert mismatch(training)[0] == "ACCELERATE_TORCH_DEVICE"


def test_fsdp_is_entered_without_gpus(group, tmp_path, monkeypatch):
    for name, value in {**FSDP, "ACCELERATE_TORCH_DEVICE": "cpu", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(PartialState, "_prepare_backend", PartialState._prepare_backend)  # put back afterwards
    settings = {"use_cpu": False, "ddp_backend": "gloo", "bf16": False, "report_to": "none", "num_generations": 2}
    assert mismatch(GRPOConfig(str(tmp_path), **settings))[0] == "num_processes"
    fsdp_without_gpus()
    training = GRPOConfig(str(tmp_path), **settings)
    assert described(training) == {"asked": "fsdp2", "found": "fsdp2", "processes": 1, "device": "cpu"}
    check_wrapper(training)
    with pytest.raises(ValueError, match="fsdp2: this recipe samples from whole weights; launch it with ddp or zero2"):
        check_wrapper(training, shares=False)
    AcceleratorState._reset_state(reset_partial_state=True)


def test_trap_an_adapter_that_is_merged_in_shares(training, monkeypatch):
    MergedRollouts().check(training, ())
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    with pytest.raises(ValueError, match="leave it out beside zero3"):
        MergedRollouts().check(training, ())


def test_the_class_of_the_wrapped_model_is_told(group):
    assert model_wrapper(model_of()) == "one process"
    assert model_wrapper(DistributedDataParallel(model_of())) == "ddp"
    assert model_wrapper(sharded()) == "fsdp2"


def test_trap_training_that_begins_in_another_wrapper_is_ended(group, training, monkeypatch):
    class Trainer:
        model = model_wrapped = sharded()

    with pytest.raises(ValueError, match="one process was asked for, and the model is wrapped by fsdp2"):
        CheckWrapper(Trainer).on_train_begin(training, None, None)
    for name, value in FSDP.items():
        monkeypatch.setenv(name, value)
    CheckWrapper(Trainer).on_train_begin(training, None, None)


def test_shares_are_whole_while_they_are_gathered(group):
    whole, shares = model_of(), sharded()
    ids = torch.arange(8).unsqueeze(0)
    layer = shares.get_base_model().model.layers[0].self_attn.q_proj
    expected = whole(ids).logits
    with torch.no_grad():
        shares(ids)
        with gathered(shares):
            assert type(layer.base_layer.weight) is torch.nn.Parameter
            assert torch.equal(shares(ids).logits, expected)
            assert type(layer.base_layer.weight) is torch.nn.Parameter  # the forward pass has not dropped it
            layer.merge()  # forgotten afterwards
            layer.unmerge()
        assert type(layer.base_layer.weight) is not torch.nn.Parameter
        shares(ids)
        assert type(layer.base_layer.weight) is not torch.nn.Parameter  # as it was before
    assert torch.equal(shares(ids).logits, expected)


def test_what_is_whole_is_left_alone():
    model = model_of()
    with gathered(model), gathered(object()):
        assert model(torch.arange(4).unsqueeze(0)).logits.isfinite().all()


@pytest.mark.parametrize(
    "environment, changes, fields",
    [
        ({}, {"range_test": True}, []),
        (FSDP, {}, []),
        (FSDP, {"samples": False, "range_test": True}, []),
        (FSDP, {"range_test": True}, ["hindsight_settings.learning_rate"]),
        ({**FSDP, "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}, {}, ["fsdp_cpu_ram_efficient_loading"]),
        ({**FSDP, "FSDP_VERSION": "1"}, {}, ["fsdp_version"]),
        ({**FSDP, "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"}, {"samples": False}, ["fsdp_state_dict_type"]),
        ({**FSDP, "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"}, {}, []),
        (DEEPSPEED, {"range_test": True}, ["hindsight_settings.learning_rate"]),
    ],
)
def test_what_shares_cannot_do_is_said(environment, changes, fields, training, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = audit_shares(training, **{"samples": True, "range_test": False, **changes})
    assert [finding.field for finding in found] == fields
