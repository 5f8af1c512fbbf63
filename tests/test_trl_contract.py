"""What rlred stands on in TRL, transformers, PEFT and accelerate beyond their documented interfaces.

An upgrade that breaks one of these fails here, with the files that stand on it and what to do, before it is a traceback
(or worse, a loss that is silently another one). Four tables: imports from modules that are not public; signatures of
what is overridden or called; lines of code that a behaviour of ours follows from; and calls that are made for real.

The last tests keep the tables complete: a new import from a private module, or a new private name of theirs that is
used in rlred/, rewards/ or recipes/, fails until it stands in a table; an entry that nobody uses any more fails too.
"""

import ast
import functools
import importlib
import inspect
import re
import sys
import types
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tests.paths import ROOT

LIBRARIES = ("trl", "transformers", "peft", "accelerate", "datasets", "math_verify")
SOURCES = [path for folder in ("rlred", "rewards", "recipes") for path in sorted((ROOT / folder).rglob("*.py"))]
FSDP = "torch.distributed.fsdp.FSDPModule"
GRPO, SFT, TRAINER = "trl.GRPOTrainer", "trl.SFTTrainer", "transformers.Trainer"
VLLM, CLIENT = "trl.generation.vllm_generation.VLLMGeneration", "trl.generation.vllm_client.VLLMClient"

# module, name, what to do without it
IMPORTS = [
    ("trl.trainer.utils", "add_fused_lm_head", "score with log_softmax over model(...).logits"),
    ("trl.trainer.sft_trainer", "DataCollatorForLanguageModeling", "pad input_ids and labels (-100) by hand"),
    ("trl.models.utils", "unwrap_model_for_generation", "use accelerator.unwrap_model, and gather under ZeRO-3"),
    ("trl.generation.vllm_client", "VLLMClient", "ask the server of vLLM by requests: POST /v1/completions"),
    (
        "trl.generation.vllm_generation",
        "VLLMGeneration",
        "start vLLM as TRL does now, and share it",
    ),
    ("trl.import_utils", "is_vllm_available", "ask importlib.util.find_spec for vllm"),
    ("trl.trainer", "grpo_trainer", "the trainer must take over a vLLM that runs already"),
    ("trl.rewards", "get_soft_overlong_punishment", "the formula stands in rewards/soft_overlong.py: write it out"),
    ("peft.tuners.lora", "LoraLayer", "find LoRA layers by their `lora_A`"),
    (
        "transformers.models.siglip.image_processing_pil_siglip",
        "SiglipImageProcessorPil",
        "make the tiny VLM's image processor with AutoImageProcessor",
    ),
    ("transformers.integrations", "get_available_reporting_integrations", "ask importlib.util.find_spec for a tracker"),
    (
        "transformers.integrations.integration_utils",
        "INTEGRATION_TO_CALLBACK",
        "name the trackers' callbacks in rlred/training/trackers.py",
    ),
    ("transformers.hf_argparser", "string_to_bool", "read 'true' and 'false' by hand"),
    ("transformers.utils", "is_torch_bf16_gpu_available", "ask torch.cuda.is_bf16_supported()"),
    ("transformers.utils", "is_torch_xla_available", "ask importlib.util.find_spec for torch_xla"),
    (
        "transformers.cli.serving.utils",
        "get_response_template",
        "write the template of <think> and </think> in rlred/publish/server.py",
    ),
    ("transformers.cli.serve", "Serve", "start `transformers serve` as a program, and refuse nothing"),
    ("transformers.generation.streamers", "BaseStreamer", "stream with TextIteratorStreamer, and count its texts"),
    ("transformers.utils.chat_template_utils", "_compile_jinja_template", "compile the template by jinja2's sandbox"),
    ("transformers.utils.import_utils", "is_serve_available", "ask importlib.util.find_spec for fastapi and uvicorn"),
    ("accelerate.commands.launch", "launch_command", "start `accelerate launch` as a program"),
    ("accelerate.commands.launch", "launch_command_parser", "start `accelerate launch` as a program"),
    ("accelerate.utils", "DistributedType", "compare its names, which are strings"),
    ("accelerate.state", "AcceleratorState", "give a second trainer of a process its own plugin in another way"),
    ("trl.models.utils", "add_hooks", "a sweep under ZeRO-3 must be free of the engine's hooks, and put them back"),
    ("trl.models.utils", "remove_hooks", "a sweep under ZeRO-3 must be free of the engine's hooks, and put them back"),
    ("accelerate.utils", "gather_object", "use torch.distributed.all_gather_object"),
    ("accelerate.utils", "broadcast_object_list", "use torch.distributed.broadcast_object_list"),
]

# object, its parameters ("..." for any others), what to do when they change
SIGNATURES = [
    (f"{GRPO}._generate_and_score_completions", "self inputs", "wrap the method that now makes a batch of rollouts"),
    (
        f"{GRPO}._generate_single_turn",
        "self prompt_ids images multimodal_fields num_generations has_tool_images",
        "hand on new parameters with *args; one completion per prompt must still come back as ids and log-probs",
    ),
    (f"{GRPO}._generate", "self prompts", "wrap what now samples a batch: dynamic sampling calls it for other prompts"),
    (f"{GRPO}._prepare_inputs", "self generation_batch", "wrap the method that now splits a batch into micro-batches"),
    (f"{GRPO}._compute_loss", "self model inputs", "wrap the method that now turns a micro-batch into a loss"),
    (
        f"{GRPO}._get_per_token_logps_and_entropies",
        "self model input_ids attention_mask logits_to_keep batch_size compute_entropy compute_aux_loss pixel_values"
        " image_grid_thw num_images pixel_attention_mask spatial_shapes num_tiles image_sizes token_type_ids"
        " mm_token_type_ids image_position_ids",
        "_score hands these image fields on by name: bring its list up to date",
    ),
    (f"{GRPO}.create_model_card", "self model_name dataset_name tags", "OwnCard writes the README.md of a run here"),
    (f"{SFT}.create_model_card", "self model_name dataset_name tags", "OwnCard writes the README.md of a run here"),
    (f"{GRPO}._log_metric", "self name value", "log through the `log_metric` that TRL hands to rewards"),
    (
        f"{GRPO}.__init__",
        "self model reward_funcs args train_dataset processing_class callbacks peft_config rollout_func ...",
        "make_trainer and the visual run name these",
    ),
    (f"{SFT}.__init__", "self model args train_dataset processing_class callbacks peft_config ...", "rename there"),
    (f"{SFT}._get_train_sampler", "self train_dataset", "SupervisedTrainer gives its `sampler` here"),
    (f"{TRAINER}._get_train_sampler", "self train_dataset", "SupervisedTrainer gives its `sampler` here"),
    (f"{TRAINER}._load_from_checkpoint", "self resume_from_checkpoint model", "read the adapter's weights by hand"),
    (f"{TRAINER}.get_batch_samples", "self epoch_iterator num_batches device", "all batches of an update are cut here"),
    (f"{TRAINER}._get_num_items_in_batch", "self batch_samples device", "count the labels that are not -100"),
    (f"{SFT}._prepare_inputs", "self inputs", "move the batch to the device by hand"),
    (f"{TRAINER}.create_scheduler", "self num_training_steps optimizer", "SupervisedTrainer sets its `rate` here"),
    ("trl.trainer.utils.add_fused_lm_head", "model temperature cast_lm_head_to_fp32 outputs", "see kept.py"),
    ("trl.models.utils.unwrap_model_for_generation", "model accelerator ...", "the policy generates under it"),
    ("trl.trainer.sft_trainer.DataCollatorForLanguageModeling", "pad_token_id ...", "static_labels names it"),
    ("trl.TrlParser.set_defaults_with_config", "self kwargs", "arguments.parse hands it the merged YAML"),
    ("trl.rewards.get_soft_overlong_punishment", "max_completion_len soft_punish_cache", "soft_overlong names these"),
    (
        "trl.generation.vllm_generation.VLLMGeneration.__init__",
        "self model accelerator processing_class mode server_base_url server_host server_port server_timeout group_port"
        " tensor_parallel_size gpu_memory_utilization max_model_length max_num_seqs enable_sleep_mode model_impl"
        " trust_remote_code ...",
        "RunEngine starts it with these, most of which are GRPOConfig's vllm_*",
    ),
    (
        f"{CLIENT}.generate",
        "self prompts logprobs generation_kwargs ...",
        "a row is asked so",
    ),
    (f"{CLIENT}.__init__", "self base_url connection_timeout ...", "made in each process"),
    (
        "accelerate.PartialState._prepare_backend",
        "self cpu sagemaker_dp backend",
        "fsdp_without_gpus changes the kind that it returns; try without, several CPU processes may do now",
    ),
    ("accelerate.state.AcceleratorState._reset_state", "reset_partial_state", "a second trainer gets its own plugin"),
    ("peft.tuners.lora.LoraLayer.get_base_layer", "self", "the sweep keeps a copy of its weight"),
    ("peft.tuners.lora.layer.Linear.merge", "self safe_merge adapter_names", "the sweep merges for speed"),
    ("peft.tuners.lora.layer.Linear.unmerge", "self", "the sweep unmerges, then puts the exact weight back"),
    ("transformers.GenerationMixin.generate", "self inputs ... stopping_criteria ...", "stopping_at adds a criterion"),
    ("transformers.StoppingCriteria.__call__", "self input_ids scores kwargs", "StopAt ends row by row"),
]

# object, pattern in its source, word by which our files are found, what follows from it
LINES = [
    (f"{FSDP}.set_reshard_after_forward", r"state = module\._get_fsdp_state\(\)",
     "_get_fsdp_state", "gathered puts back what this sets"),
    (f"{FSDP}.set_reshard_after_forward", r"state\._auto_reshard_after_forward = False",
     "_auto_reshard_after_forward", "gathered puts it back"),
    *((f"{FSDP}.set_reshard_after_forward", r"in state\._fsdp_param_groups|:= state\._fsdp_param_group:",
       word, "gathered puts back what this sets") for word in ("_fsdp_param_groups", "_fsdp_param_group")),
    (f"{FSDP}.set_reshard_after_forward", r"fsdp_param_group\.post_forward_mesh_info = ",
     "post_forward_mesh_info", "gathered puts it back"),
    ("accelerate.state.AcceleratorState.__init__", r"elif self\.distributed_type in \[\s+DistributedType\.MULTI_GPU",
     "_prepare_backend", "FSDP is entered for several GPUs alone"),
    ("transformers.generation.utils.GenerationMixin._extract_generation_mode_kwargs",
     r"is_deepspeed_zero3_enabled\(\) or is_fsdp_managed_module\(self\)",
     "synced_gpus", "a sweep on one process must say that it is not in step with others"),
    ("transformers.cli.serve.Serve.__init__", r"self\._chat_handler = ", "_chat_handler",
     "`rlred serve` refuses wrong budgets in front of it"),
    ("transformers.cli.serve.Serve.__init__", r"self\._model_manager = ", "_model_manager",
     "`rlred serve` reads from it which model is served"),
    (f"{GRPO}._compute_loss", r"if advantages\.dim\(\) == 1:\s+advantages = advantages\.unsqueeze\(1\)", "advantages",
     "advantages of shape (B, T) are read as weights of single tokens (think_or_not: decoupled)"),
    (f"{GRPO}._compute_loss", r"per_token_loss = per_token_loss \+ self\.beta \* per_token_kl", "_PerRow",
     "the KL weight stands on the left of a product, where an object with weights per row can stand"),
    (f"{GRPO}._compute_loss", r"if self\.beta != 0\.0:", "_PerRow", "TRL asks by `!=` whether there is a KL term"),
    (f"{GRPO}._compute_loss", r'inputs\.get\("old_per_token_logps"\)', "old_per_token_logps",
     "the forced first token's own log-probability is read from here"),
    (f"{GRPO}._compute_loss", r'completion_mask \* inputs\["tool_mask"\]', "env_mask",
     "tokens with env_mask 0 (pictures) carry no loss"),
    (f"{GRPO}._get_per_token_logps_and_entropies", r"model\(\*\*model_inputs, labels=labels, fused_lm_head=True\)",
     "fused_lm_head", "kept.py takes the place of `model` in this call"),
    (f"{GRPO}._get_per_token_logps_and_entropies", r"outputs\.log_probs\[:, -logits_to_keep:\]", "log_probs",
     "kept.py gives log-probabilities of the completion in the last columns"),
    (f"{GRPO}._generate_and_score_completions", r'output\["old_per_token_logps"\] = old_per_token_logps',
     "old_per_token_logps", "left out where the policy itself sampled, so that we score it then"),
    (f"{GRPO}._generate_and_score_completions", r"self\._get_per_token_logps_and_entropies\(\s+self\.model,",
     "_get_per_token_logps_and_entropies", "the policy's scores are told by `model is self.model`"),
    (f"{GRPO}._generate", r"self\._generate_single_turn\(\s+prompt_ids, images, multimodal_fields, num_generations\s",
     "_generate_single_turn", "the four arguments are given in this order"),
    (f"{GRPO}._generate",
     r"return prompt_ids, completion_ids, tool_mask, completions, logprobs, extra_fields, images, tool_images",
     "resample", "lists with one entry per completion, of which the second are ids and the fourth texts"),
    (f"{GRPO}._generate_and_score_completions", r'prompts = \[x\["prompt"\] for x in inputs\]', "resample",
     "the list of prompts that is handed to _generate is read again afterwards, as are the rows"),
    (f"{GRPO}._generate_and_score_completions", r"\) = self\._generate\(prompts\)", "resample", "that very list"),
    (f"{GRPO}._generate", r'self\.rollout_func\(prompts, self\)', "rollout_func", "prompts and trainer"),
    (f"{GRPO}._generate", r'\{"prompt_ids", "completion_ids", "logprobs"\}', "rollout_func", "its keys"),
    (f"{GRPO}._generate", r'extra_fields\.pop\("env_mask", None\)', "env_mask", "the mask of what the policy wrote"),
    (f"{GRPO}._generate_and_score_completions", r"extra_fields", "visual_tokens",
     "other keys of a rollout reach the rewards as columns"),
    (f"{GRPO}._calculate_rewards", r'reward_kwargs\["trainer_state"\] = self\.state', "trainer_state",
     "rewards with a schedule read the step from it"),
    (f"{GRPO}._calculate_rewards", r'reward_kwargs\["log_metric"\] = self\._log_metric', "_log_metric",
     "a reward can log figures of its own"),
    (f"{GRPO}.__init__", r"self\.eos_token_ids = eos_token_ids", "eos_token_ids", "the ids that end a completion"),
    (f"{GRPO}.__init__", r"self\._tokenizer = ", "_tokenizer", "the tokenizer of a tokenizer or processor"),
    (f"{GRPO}.__init__", r"self\._step = 0", "_step", "seeds the random selection"),
    (f"{GRPO}.training_step", r"self\._step \+= 1", "_step", "seeds the random selection anew for each rollout"),
    (f"{GRPO}.__init__", r'self\._metrics = \{"train": defaultdict\(list\), "eval": defaultdict\(list\)\}', "_metrics",
     "selection/* are appended to lists"),
    (f"{GRPO}._generate_and_score_completions", r'_logs\["rewards"\]\[name\]\.extend\(rewards_per_func', "_logs",
     "the rewards of all processes, in order, from which parts read them"),
    (f"{GRPO}._calculate_rewards", r"prompts=prompts, completions=completions, completion_ids=completion_ids_list",
     "log_metric", "all rewards get the same list, and the first one restores the thinking in it"),
    (f"{GRPO}._prepare_inputs", r"self\._buffered_inputs\[self\._step % self\.args\.steps_per_generation\]",
     "_buffered_inputs", "the micro-batches of a generation, in the order in which they are trained on"),
    (f"{GRPO}.__init__", r"_entropy_bonus_enabled = ", "_entropy_bonus_enabled", "the loss reads all entropies"),
    (f"{GRPO}.__init__", r'"extra": defaultdict\(', "_logs", "the column of forking tokens in the completions table"),
    (f"{VLLM}.__init__", r"self\._dist = DistributedBackend\(accelerator\)",
     "_dist", "a push of weights in shares is refused after a restart"),
    (f"{GRPO}.__init__", r"self\.vllm_generation = VLLMGeneration\(", "vllm_generation", "early stops in vLLM"),
    ("trl.generation.vllm_generation.VLLMGeneration", r"self\.llm = ", "vllm_generation",
     "the engine of colocated vLLM, whose `generate` gets a limit per prompt"),
    (f"{VLLM}.__init__", r"self\._init_vllm\(\)", "_init_vllm", "Generation takes over an engine there"),
    (f"{VLLM}.__init__", r"DistributedBackend\(accelerator\)", "_accelerator", "it reads state.deepspeed_plugin"),
    (f"{VLLM}._init_vllm", r"self\.vllm_client = ", "vllm_client", "what an engine is besides llm"),
    (f"{VLLM}._init_vllm", r"self\._llm_weights_sleeping = ", "_llm_weights_sleeping", "what goes with llm"),
    (f"{VLLM}.sync_weights", r"self\._iter_named_params\(\)", "_iter_named_params", "the weights of a push"),
    (f"{VLLM}._iter_named_params", r"model\.merge_adapter\(\)[\s\S]*model\.unmerge_adapter\(\)", "_iter_named_params",
     "TRL merges and unmerges while it hands out the parameters"),
    (f"{CLIENT}.generate", r"sampling_params\.update\(generation_kwargs", "generation_kwargs",
     "the limit, temperature, seed and stop ids of a row stand over the other arguments"),
    (f"{CLIENT}._post", r'raise Exception\(f"Request failed: ', "Request failed",
     "all that is known of a refused request"),
    (f"{GRPO}._generate_single_turn", r"unwrap_model_for_generation\(\s+self\.model_wrapped,", "model_wrapped",
     "the model that generates is the unwrapped `model_wrapped`"),
    (f"{GRPO}.__init__", r"self\.reward_func_names\.append\(get_callable_name\(", "reward_func_names",
     "a reward is called by its __name__"),
    (f"{SFT}.compute_loss", r"fused_lm_head", "add_fused_lm_head", "TRL's SFT model has the fused head already"),
    (f"{TRAINER}._run_epoch", r"self\.get_batch_samples\(", "get_batch_samples",
     "every batch of an update passes through it"),
    (f"{TRAINER}.get_train_dataloader", r"self\._get_train_sampler", "_get_train_sampler", "asked for the sampler"),
]  # fmt: skip


def resolve(dotted: str):
    """The object behind a dotted name: the longest importable module, then attributes."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        return functools.reduce(getattr, parts[end:], found)
    raise ImportError(dotted)


def users(word: str) -> list[str]:
    """Our files that hold a word."""
    pattern = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")
    return [str(path.relative_to(ROOT)) for path in SOURCES if pattern.search(path.read_text())]


def broken(what: str, word: str, mend: str) -> str:
    """The message of a broken clause."""
    return f"{what}; {', '.join(users(word)) or 'no file'} stands on it: {mend}"


@pytest.mark.parametrize("module, name, mend", IMPORTS, ids=lambda value: str(value)[:40])
def test_an_import_from_a_module_that_is_not_public(module, name, mend):
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError:
        found = None
    assert found is not None, broken(f"{module} has no {name}", name, mend)


@pytest.mark.parametrize("dotted, expected, mend", SIGNATURES, ids=[dotted for dotted, *_ in SIGNATURES])
def test_a_signature(dotted, expected, mend):
    name = dotted.rpartition(".")[2]
    try:
        found = list(inspect.signature(resolve(dotted)).parameters)
    except AttributeError as error:
        pytest.fail(broken(f"{dotted} is gone ({error})", name, mend))
    names = expected.split()
    if "..." in names:
        found = [parameter for parameter in found if parameter in names]
        names = [parameter for parameter in names if parameter != "..."]
        assert set(found) == set(names), broken(f"{dotted} has only {found} of {names}", name, mend)
    else:
        assert found == names, broken(f"{dotted} takes {found}, not {names}", name, mend)


@pytest.mark.parametrize("dotted, pattern, word, meaning", LINES, ids=[f"{a}-{c}" for a, _, c, _ in LINES])
def test_a_line_that_a_behaviour_follows_from(dotted, pattern, word, meaning):
    try:
        source = inspect.getsource(resolve(dotted))
    except (AttributeError, ImportError) as error:
        pytest.fail(broken(f"{dotted} is gone ({error})", word, meaning))
    assert re.search(pattern, source), broken(f"{dotted} has no {pattern!r} any more", word, meaning)


@pytest.fixture(scope="module")
def model(random_model):
    return AutoModelForCausalLM.from_pretrained(random_model)


def test_the_fused_head_gives_log_probs_and_entropies_of_labels(model):
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    ids = torch.randint(10, 40, (2, 6), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[0, :3] = -100
    reference = model(input_ids=ids).logits.log_softmax(-1)  # without the flag: the stock forward
    output = model(input_ids=ids, labels=labels, fused_lm_head=True)
    mend = "labels are shifted by the head, log_probs are (rows, tokens - 1), and 0 where the label is -100"
    expected = reference[:, :-1].gather(-1, ids[:, 1:, None])[..., 0].masked_fill(labels[:, 1:] == -100, 0.0)
    message = broken("model(labels=, fused_lm_head=True).log_probs is another", "fused_lm_head", mend)
    torch.testing.assert_close(output.log_probs, expected, msg=message)
    entropies = -(reference.exp() * reference).sum(-1)[:, :-1].masked_fill(labels[:, 1:] == -100, 0.0)
    torch.testing.assert_close(
        output.entropy, entropies, msg=broken("the fused head's .entropy is another", "fused_lm_head", mend)
    )
    shifted = model(input_ids=ids, shift_labels=ids.roll(-1, 1), fused_lm_head=True)
    torch.testing.assert_close(
        shifted.log_probs[:, :-1],
        reference[:, :-1].gather(-1, ids[:, 1:, None])[..., 0],
        msg=broken("model(shift_labels=) shifts them", "shift_labels", "kept.py hands over shifted labels"),
    )


def test_a_hook_on_the_backbone_may_cut_what_the_head_reads(model):
    """What masked_head.py does: `base_model` is called by the fused forward, and its hidden states may get fewer."""
    seen = []
    hook = model.base_model.register_forward_hook(lambda module, args, output: seen.append(output.last_hidden_state))
    model(input_ids=torch.tensor([[11, 12, 13]]), labels=torch.tensor([[11, 12, 13]]), fused_lm_head=True)
    hook.remove()
    message = broken(
        "the fused forward passes by model.base_model", "score_selected", "hook what makes the hidden states"
    )
    assert [tuple(hidden.shape[:2]) for hidden in seen] == [(1, 3)], message


def test_lora_layers_merge_and_unmerge_in_place(random_model):
    from peft.tuners.lora import LoraLayer

    model = get_peft_model(AutoModelForCausalLM.from_pretrained(random_model), LoraConfig(target_modules="all-linear"))
    layer = next(module for module in model.modules() if isinstance(module, LoraLayer))
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    before = layer.get_base_layer().weight.detach().clone()
    assert not layer.disable_adapters and not layer.merged
    layer.merge()
    message = broken("LoraLayer.merge does not change the base layer's weight", "LoraLayer", "sweep unmerged")
    assert layer.merged and not layer.get_base_layer().weight.equal(before), message
    layer.unmerge()
    message = broken("LoraLayer.unmerge does not take it back", "LoraLayer", "sweep unmerged")
    assert not layer.merged, message
    torch.testing.assert_close(layer.get_base_layer().weight, before, msg=message)


def test_models_that_look_take_features_that_are_made_outside():
    """rlred/vision/model.py hands them over as `mm_encoder_outputs`, in a forward and in `generate`."""
    mend = "hand image features over as inputs_embeds"
    for kind in ("Llava", "Qwen2_5_VL", "Qwen3VL", "SmolVLM", "Idefics3"):
        core = getattr(importlib.import_module("transformers"), f"{kind}Model")
        source = inspect.getsource(core.forward)
        message = broken(f"{kind}Model.forward does not read mm_encoder_outputs", "mm_encoder_outputs", mend)
        assert "mm_encoder_outputs" in source, message
        assert hasattr(core, "get_image_features"), broken(f"{kind}Model", "get_image_features", mend)


def test_a_cached_step_is_told_from_a_prefill_by_the_name_of_its_cache():
    """rlred/vision/model.py reads `cache` (transformers 5.24) or `past_key_values` (before) in front of a forward."""
    for kind in ("Llava", "Qwen2_5_VL", "Qwen3VL", "SmolVLM", "Idefics3"):
        forward = inspect.unwrap(resolve(f"transformers.{kind}Model").forward)
        message = broken(f"{kind}Model.forward has no cache by a known name", "past_key_values", "add the new name")
        assert {"cache", "past_key_values"} & set(inspect.signature(forward).parameters), message


def test_what_the_trainers_metrics_are_called():
    """Names in `trainer_state.json` that callbacks, charts and reports read."""
    source = inspect.getsource(resolve(GRPO))
    for name in ("reward", "reward_std", "frac_reward_zero_std", "completions/mean_length", "completions/clipped_ratio",
                 "entropy"):  # fmt: skip
        message = broken(f"TRL logs no {name!r}", name, "rename it in callbacks, page and goldens")
        assert f'"{name}"' in source, message


def test_every_import_from_a_private_module_stands_in_the_table():
    found = {
        (node.module, alias.name)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in LIBRARIES
        for alias in node.names
        if "." in node.module
    }
    table = {(module, name) for module, name, _ in IMPORTS}
    assert found - table == set(), "imported from a module that is not public: add it to IMPORTS"
    assert table - found == set(), "imported by nobody any more: take it out of IMPORTS"


def test_every_private_name_of_theirs_that_is_used_stands_in_a_table():
    described = {dotted.rpartition(".")[2] for dotted, *_ in SIGNATURES} | {word for _, _, word, _ in LINES}
    for path in SOURCES:
        foreign = foreign_names(path)
        assert foreign <= described, f"{path.relative_to(ROOT)} uses {sorted(foreign - described)}: add them to a table"


def test_every_clause_has_a_user():
    words = [dotted.rpartition(".")[2] for dotted, *_ in SIGNATURES] + [word for _, _, word, _ in LINES]
    unused = {word for word in words if word not in ("__init__", "__call__") and not users(word)}
    assert unused == set(), "nobody stands on these any more: take them out of the tables"


PLAIN = {"_asdict", "_replace", "_exit", "_metavar_formatter"}  # of namedtuple, os and argparse


def foreign_names(path: Path) -> set[str]:
    """Private names that a file uses and does not define, and private methods of theirs that its trainers override."""
    tree = ast.parse(path.read_text())
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} - own - PLAIN
    theirs = resolve(GRPO), resolve(SFT)
    overridden = {
        method.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Trainer") for base in node.bases)
        for method in node.body
        if isinstance(method, ast.FunctionDef) and any(hasattr(kind, method.name) for kind in theirs)
    }
    private = {name for name in used if name.startswith("_") and not name.startswith("__")}
    return private | {name for name in overridden if name != "__init__"}


def test_the_tables_notice_a_break(monkeypatch):
    """A renamed parameter, a missing line, a missing import: each is named with the files that stand on it."""
    monkeypatch.setattr(resolve(GRPO), "_compute_loss", lambda self, model, batch: None)
    with pytest.raises(AssertionError, match=r"_compute_loss takes .*'batch'.*rlred/.* stands on it"):
        test_a_signature(f"{GRPO}._compute_loss", "self model inputs", "wrap it")
    with pytest.raises(AssertionError, match="has no 'advantages' any more"):
        test_a_line_that_a_behaviour_follows_from(f"{GRPO}._compute_loss", "advantages", "advantages", "weights")
    monkeypatch.setitem(sys.modules, "trl.trainer.utils", types.ModuleType("trl.trainer.utils"))
    with pytest.raises(AssertionError, match="trl.trainer.utils has no add_fused_lm_head; rlred/.*: score it"):
        test_an_import_from_a_module_that_is_not_public("trl.trainer.utils", "add_fused_lm_head", "score it")
