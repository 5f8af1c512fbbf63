"""One optimizer step on made-up rollouts: in this process, or as a script in two; what is left is the weights.

accelerate launch --config_file accelerate_configs/ddp_cpu.yaml tests/selection_step.py MODEL FILE ours 2 2
"""

import sys
import tempfile

import torch
from datasets import Dataset
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from rlred.rewards import Correctness
from rlred.training.token_selection import TokenSelection
from rlred.training.trainer import ComposedGRPOTrainer

NUM_COMPLETIONS = 8


def rollouts(seed=0):
    """Eight made-up completions with 100 tokens in all, as the trainer would hand them to its loss."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([16, 16, 14, 14, 12, 12, 10, 6])
    ids = torch.randint(10, 300, (NUM_COMPLETIONS, 16), generator=generator)
    mask = (torch.arange(16)[None] < lengths[:, None]).long()
    return {
        "prompt_ids": torch.randint(10, 300, (NUM_COMPLETIONS, 5), generator=generator),
        "prompt_mask": torch.ones(NUM_COMPLETIONS, 5, dtype=torch.long),
        "completion_ids": ids,
        "completion_mask": mask,
        "advantages": torch.randn(NUM_COMPLETIONS, generator=generator),
        "num_items_in_batch": mask.sum(),
    }


def own_rollouts(trainer, inputs):
    """In the place of generation: this process's share of them."""
    size = NUM_COMPLETIONS // trainer.accelerator.num_processes
    start = size * trainer.accelerator.process_index
    return {name: value[start : start + size] if value.dim() else value for name, value in rollouts().items()}


def make_trainer(model_folder, kind=GRPOTrainer, *, config=None, peft_config=None, **settings):
    """A trainer of the model in a folder on rows that no reward is asked about."""
    args = GRPOConfig(
        **{
            "output_dir": tempfile.mkdtemp(),
            "use_cpu": True,
            "bf16": False,
            "report_to": "none",
            "per_device_train_batch_size": NUM_COMPLETIONS,
            "num_generations": 4,
            "max_completion_length": 16,
            "loss_type": "dapo",
            "scale_rewards": "none",
            "beta": 0.0,
            "disable_tqdm": True,
            **(config or {}),
        }
    )
    trainer = kind(
        model=AutoModelForCausalLM.from_pretrained(model_folder),
        reward_funcs=[Correctness()],
        args=args,
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": "1+1=?"}], "solution": "2"}] * 8),
        processing_class=AutoTokenizer.from_pretrained(model_folder),
        peft_config=peft_config,
        **settings,
    )
    trainer.model.train()
    return trainer


def step(model_folder, name, batch_size, accumulation) -> dict:
    """The weights after one step of gradient descent with learning rate 1, and the kept fraction that was logged."""
    config = {
        "per_device_train_batch_size": batch_size,
        "gradient_accumulation_steps": accumulation,
        "max_steps": 1,
        "optim": "sgd",
        "learning_rate": 1.0,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
    }
    if name == "trl":
        trainer = make_trainer(model_folder, config={**config, "top_entropy_quantile": 0.2})
    else:
        selection = TokenSelection(fraction=0.2)
        trainer = make_trainer(model_folder, ComposedGRPOTrainer, config=config, parts=[selection])
    trainer.train()
    parameters = trainer.accelerator.unwrap_model(trainer.model).named_parameters()  # tied ones once
    weights = {name: value.detach().clone() for name, value in parameters}
    return {"weights": weights, "kept": trainer.state.log_history[0].get("selection/selected_fraction")}


if __name__ == "__main__":
    GRPOTrainer._generate_and_score_completions = own_rollouts
    done = step(sys.argv[1], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    if torch.distributed.get_rank() == 0:
        save_file(done["weights"], sys.argv[2])
