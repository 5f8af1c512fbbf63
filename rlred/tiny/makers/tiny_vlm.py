"""Make the embedded tiny VLM from nothing: tokenizer, processor, weights.

A LLaVA-architecture model of 0.9 million parameters (SigLIP tower of 2 layers, Qwen3 of 3, width 128) learns to answer
questions about textured pictures (rlred/tiny/pictures.py) that it sees at one of five resolutions: 64, 32, 16, 8 or 4
tokens. Before the picture comes a budget token that says which. The model does not choose: it is trained to hold all
five for equally likely, whatever the question. So it can answer, but does not know how many tokens to use: the
untrained side of recipes/visual_sparsity.py.

Objects shrink and noise grows in stages (at full size and noise from the start, square and dot stayed at chance). Some
rows open with a thumbnail of 4 tokens, before the question.

Run     rlred make tiny_vlm --output data/tiny_vlm
    rlred make tiny_vlm --output outputs/tiny_vlm --seed 1
"""

import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from rlred.flags import option, required
from rlred.tiny import pictures
from rlred.tiny.pictures import FAMILIES, GRID, PATCH, SIZE, Style
from rlred.vision.grid import downsample, grid_of

BUDGET_TOKENS = {"<look-1>": 64, "<look-1/2>": 32, "<look-1/4>": 16, "<look-1/8>": 8, "<look-1/16>": 4}  # token: K
THUMBNAIL = 4  # tokens
SPECIAL_TOKENS = ["<pad>", "<bos>", "<eos>", "<unk>", "<image>", "<user>", "<assistant>", *BUDGET_TOKENS]
CHAT_TEMPLATE = (
    "{{ '<bos>' }}{% for message in messages %}"
    "{{ ' <user> ' if message['role'] == 'user' else ' <assistant> ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }} {% endfor %}"
    "{% endif %}{% if message['role'] == 'assistant' %}{{ ' <eos>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ ' <assistant>' }}{% endif %}"
)
SIDES = (12, 16, 16, 16, 20, 28)  # of the square, in the last stage; the task's 16 half of the time
STAGES = (
    Style(sides=(24,), dot=8, noise=0.0),
    Style(sides=(24,), dot=6, noise=0.33),
    Style(sides=(16,), dot=5, noise=0.67),
    Style(sides=(12,), dot=4, noise=1.0),
    Style(sides=SIDES),
)
PASSED, DEADLINES = 0.85, (0.12, 0.2, 0.28, 0.36)  # a stage ends at this accuracy, or at this share of all steps


def build_processor() -> LlavaProcessor:
    """One token per word, and pictures as they are."""
    words = sorted({word for family in FAMILIES for split in pictures.WORDINGS for text in
                    pictures.wordings(family, split) for word in text.split()})  # fmt: skip
    vocabulary = [*SPECIAL_TOKENS, *words, *pictures.COLOURS, *pictures.GROUNDS]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=["<image>", "<user>", "<assistant>", *BUDGET_TOKENS],
        model_input_names=["input_ids", "attention_mask"],
        padding_side="left",
    )
    images = SiglipImageProcessorPil(
        do_resize=False, size={"height": SIZE, "width": SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    return LlavaProcessor(images, fast, PATCH, "full", chat_template=CHAT_TEMPLATE, image_token="<image>")


def build_model(tokenizer) -> LlavaForConditionalGeneration:
    """The architecture, with random weights. The head is not tied: its rows of the budget tokens must be free."""
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = LlavaConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": SIZE,
            "patch_size": PATCH,
            "vision_use_head": False,
        },
        text_config={
            "model_type": "qwen3",
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 512,
            "tie_word_embeddings": False,
            **special,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
        image_seq_length=GRID * GRID,
        tie_word_embeddings=False,
        pad_token_id=0,
    )
    model = LlavaForConditionalGeneration(config)
    for name, value in special.items():
        setattr(model.generation_config, name, value)
    return model


class Batch:
    """Rows of one budget: a picture each, three questions in turn, the picture after the first budget token."""

    def __init__(self, tokenizer, size: int, k: int, thumbnail: bool, style: Style, rng: random.Random):
        ids = tokenizer.get_vocab()
        images = [ids["<image>"]] * k
        budget_token = ids[{count: token for token, count in BUDGET_TOKENS.items()}[k]]
        self.k, self.thumbnail, rows, labels, self.families, pixels = k, thumbnail, [], [], [], []
        for _ in range(size):
            scene = pictures.draw(rng, style)
            pixels.append(scene.pixels)
            row = [ids["<bos>"]]
            label = [-100]
            for turn, family in enumerate(rng.sample(list(FAMILIES), len(FAMILIES))):
                question = [ids[word] for word in pictures.ask(family, "train", rng).split()]
                opening = [ids["<image>"]] * THUMBNAIL if thumbnail and turn == 0 else []
                asked = [ids["<user>"], *opening, *question, ids["<assistant>"]]
                asked += [budget_token, *images] if turn == 0 else []
                row += [*asked, ids[scene.colours[family]], ids["<eos>"]]
                label += [*[-100] * len(asked), ids[scene.colours[family]], ids["<eos>"]]
                self.families.append(family)
            rows.append(row)
            labels.append(label)
        width = max(map(len, rows))
        self.input_ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])  # (B, T)
        self.labels = torch.tensor([row + [-100] * (width - len(row)) for row in labels])
        # As the processor does it: to [-1, 1].
        self.pixels = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def encode(model, pixels: torch.Tensor, k: int):
    """The features of pictures seen with `k` tokens."""
    small = downsample(pixels, grid_of(k, GRID, GRID), PATCH)
    return model.model.get_image_features(small, interpolate_pos_encoding=k != GRID * GRID, return_dict=True)


def policy_states(model, tokenizer, rng: random.Random, pixels: torch.Tensor, per_family: int) -> torch.Tensor:
    """Hidden states (rows, width) at which a budget token is due: each family, half of the rows after a thumbnail."""
    texts = [pictures.ask(family, "train", rng) for family in FAMILIES for _ in range(per_family)]
    states = []
    for opening, some in (("", texts[::2]), ("<image> " * THUMBNAIL, texts[1::2])):
        prompts = [f"<bos> <user> {opening}{text} <assistant>" for text in some]
        inputs = tokenizer(prompts, padding=True, return_tensors="pt")
        if opening:
            inputs["mm_encoder_outputs"] = {"image": encode(model, pixels[: len(some)], THUMBNAIL)}
        states.append(model.model(**inputs).last_hidden_state[:, -1])
    return torch.cat(states)


def spread_budget_tokens(model, tokenizer, states: torch.Tensor) -> None:
    """Makes the rows of the budget tokens equal but for mutually orthogonal parts that the states do not see yet.

    The uniform prior leaves the rows nearly alike, and a policy with such a head did not learn (docs/LOG.md). The parts
    are orthogonal to the states' 32 main directions, so the policy stays about uniform.
    """
    tokens = tokenizer.convert_tokens_to_ids(list(BUDGET_TOKENS))
    weight = model.lm_head.weight.data
    shared = weight[tokens].mean(0)
    main = torch.linalg.svd(states, full_matrices=False).Vh[:32].T  # (width, 32)
    parts = torch.randn(len(shared), len(tokens), generator=torch.Generator().manual_seed(0))
    parts = torch.linalg.qr(parts - main @ (main.T @ parts)).Q.T  # (tokens, width)
    weight[tokens] = shared + shared.norm() * parts


def train(model, tokenizer, steps: int, batch_size: int, learning_rate: float, rng: random.Random) -> None:
    """AdamW with warm-up and cosine; full pictures first, then 40 % full and the rest at a smaller budget.

    Not the SFT loop (rlred/training/sft.py): what is shown follows the accuracy of the last steps, and the loss has a
    term for the policy.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.02)
    tokens = tokenizer.convert_tokens_to_ids(list(BUDGET_TOKENS))
    stage, entered, mixed, worst, start = 0, 0, False, 0.0, time.monotonic()
    for step in range(steps):
        done = step / steps
        decay = 1 if done < 0.4 else 0.5 * (1 + math.cos(math.pi * (done - 0.4) / 0.6)) + 0.01
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1, (step + 1) / 60) * decay
        k = 64 if not mixed or rng.random() < 0.4 else rng.choice([k for k in BUDGET_TOKENS.values() if k < 64])
        batch = Batch(tokenizer, batch_size, k, mixed and rng.random() < 0.25, STAGES[stage], rng)
        seen = encode(model, batch.pixels, k)
        if batch.thumbnail:
            small = encode(model, batch.pixels, THUMBNAIL).pooler_output
            seen.pooler_output = [part for pair in zip(small, seen.pooler_output, strict=True) for part in pair]
        hidden = model.model(
            input_ids=batch.input_ids,
            attention_mask=(batch.input_ids != 0).long(),
            mm_encoder_outputs={"image": seen},
        ).last_hidden_state
        answers = batch.labels[:, 1:] != -100
        logits, targets = model.lm_head(hidden[:, :-1][answers]).float(), batch.labels[:, 1:][answers]
        loss = F.cross_entropy(logits, targets)
        if step % 4 == 0:  # all budget tokens alike, at the choice of twelve questions
            choices = model.lm_head(policy_states(model, tokenizer, rng, batch.pixels, 4)).float()
            loss = loss - 0.5 * choices.log_softmax(-1)[:, tokens].mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

        right = (logits.argmax(-1) == targets)[targets != 2].float()
        rates = {f: right[[i for i, g in enumerate(batch.families) if g == f]].mean().item() for f in FAMILIES}
        if k == 64:
            worst = 0.85 * worst + 0.15 * min(rates.values())
        if stage < len(DEADLINES) and step - entered >= 15 and (worst > PASSED or done > DEADLINES[stage]):
            stage, entered, worst = stage + 1, step, 0.3
            print(f"step {step} stage {stage}", flush=True)
        elif not mixed and stage == len(DEADLINES) and (worst > 0.93 or done > 0.55):
            mixed = True
            print(f"step {step} mixed budgets", flush=True)
        if step % 25 == 0:
            shown = " ".join(f"{family} {rate:.2f}" for family, rate in rates.items())
            print(
                f"step {step} K {k} loss {loss.item():.3f} {shown} seconds {time.monotonic() - start:.0f}", flush=True
            )


@dataclass(frozen=True, kw_only=True)
class MakeVLM:
    """A VLM of small pictures, trained from scratch.

    rlred make tiny_vlm --output data/tiny_vlm
    rlred make tiny_vlm --output outputs/tiny_vlm --seed 1
    """

    output: Path = required("Folder for the model; must not exist.", metavar="FOLDER")
    steps: int = option(2200, "Updates.", metavar="N")
    batch_size: int = option(32, "Pictures of each.", metavar="N")
    learning_rate: float = option(2e-3, "At its highest.", metavar="X")
    seed: int = option(0, "Of pictures and weights.", metavar="N")

    def __post_init__(self):
        if self.batch_size < 6:
            raise ValueError(f"--batch_size must be 6 or more, got {self.batch_size}")
        if self.output.exists():
            raise ValueError(f"--output {self.output} exists and is not written over")

    def run(self) -> None:
        """Makes the model in `output`."""
        torch.manual_seed(self.seed)
        rng = random.Random(self.seed)
        processor = build_processor()
        model = build_model(processor.tokenizer)
        print(f"{len(processor.tokenizer)} tokens, {model.num_parameters():,} parameters")
        train(model, processor.tokenizer, self.steps, self.batch_size, self.learning_rate, rng)
        with torch.no_grad():
            pixels = Batch(processor.tokenizer, 24, 64, False, STAGES[-1], rng).pixels
            states = policy_states(model, processor.tokenizer, rng, pixels, 16)
            spread_budget_tokens(model, processor.tokenizer, states)
            tokens = processor.tokenizer.convert_tokens_to_ids(list(BUDGET_TOKENS))
            shares = model.lm_head(states).softmax(-1)[:, tokens]
        low, high = shares.min(), shares.max()
        print(f"budget tokens: {shares.sum(-1).min():.4f} or more, each from {low:.3f} to {high:.3f}")
        model.save_pretrained(self.output)
        processor.save_pretrained(self.output)
