"""The policy chooses a visual budget before it sees the image: question, budget token, image, answer.

    <user> what color is the dot ? <assistant> <look-1> [64 image tokens] red <eos>

A budget token is an ordinary token that the policy samples from its full vocabulary; it stands for a keep ratio, and
the image follows with so many tokens. Budget token and answer carry the policy gradient, the placeholders do not. A
rollout whose first token is no budget token never sees the picture and ends there.

VisionThink's way round (`on_request`): the picture is in the prompt with few tokens, the policy answers from that, and
a budget token, at its first or any later place, asks for more.

    <user> [16 image tokens] what color is the dot ? <assistant> <look-1> [64 image tokens] red <eos>
    <user> [16 image tokens] what color is the square ? <assistant> blue <eos>

The head's rows of the budget tokens must differ: because an untied head was left so (rlred/tiny/makers/tiny_vlm.py),
or because the budget tokens are words of a pretrained model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from trl.models.utils import unwrap_model_for_generation

from rlred.data.models import NEUTRAL
from rlred.data.prompts import Prompts, decode, prompt_text
from rlred.tokens import token_of
from rlred.vision.processor import KeepRatio, keep_mark, sparse_processor
from rlred.vision.reduce import keep_count

DIRECT = "direct"  # the choice of no budget token


@dataclass(frozen=True)
class VisualRollout:
    """One question, answered from as many visual tokens as the policy chose."""

    prompt_ids: list[int]
    completion_ids: list[int]
    mask: list[int]  # 1 where the policy chose the token
    budget_token: str | None
    answer: str
    visual_tokens: int  # used, a thumbnail's included
    full_visual_tokens: int  # of the whole picture

    @property
    def keep_ratio(self) -> float:
        """The share of the picture's tokens that was used."""
        return self.visual_tokens / self.full_visual_tokens


class VisualBudgetPolicy:
    """Lets a model choose a visual budget and answer. `budget_tokens` maps each token to its keep ratio.

    With `thumbnail`, the prompt opens with the picture at that ratio, so that the choice can depend on it; a row then
    brings its picture twice. `prompts` bring the system prompt, the template's settings and the end of thinking (the
    questions come worded). The model must be a `SparseVision` with images_per_row 1, or 2 with a thumbnail. With
    `on_request`, the thumbnail can be answered without one. Raises `ValueError` for fewer than two budget tokens (none,
    with `on_request`), one that is not one token of the vocabulary, a ratio outside (0, 1], and `on_request` without a
    thumbnail.
    """

    def __init__(
        self,
        processor,
        budget_tokens: dict[str, float],
        thumbnail: float | None = None,
        on_request: bool = False,
        prompts: Prompts | None = None,
    ):
        self.processor = processor if isinstance(processor, KeepRatio) else sparse_processor(processor)
        self.tokenizer, self.thumbnail, self.budget_tokens = processor.tokenizer, thumbnail, dict(budget_tokens)
        self.prompts = (prompts or Prompts()).fitted(self.processor)
        self.on_request = on_request
        if on_request and thumbnail is None:
            raise ValueError("on_request=True needs a thumbnail, the keep ratio of the picture in the prompt")
        self.ids: dict[str, int] = {}
        for token, ratio in self.budget_tokens.items():
            keep_count(1, ratio)  # checks it
            self.ids[token] = token_of(self.tokenizer, token, field="budget_tokens")
        if len(set(self.ids.values())) < max(0 if on_request else 2, len(self.budget_tokens)):
            raise ValueError(f"budget_tokens must name 2 different tokens or more, got {list(self.budget_tokens)}")
        image = processor.image_token
        self.block = f"<|vision_start|>{image}<|vision_end|>" if "Qwen" in type(processor).__name__ else image

    @property
    def images_per_row(self) -> int:
        """Pictures that a row must bring: its picture, and once more for the thumbnail."""
        return 2 if self.budget_tokens and self.thumbnail is not None else 1

    @property
    def choices(self) -> list[str]:
        """What can be done with a question: each budget token, and with `on_request` an answer without, "direct"."""
        return [*([DIRECT] if self.on_request else []), *self.budget_tokens]

    def __call__(
        self,
        model,
        prompts: Sequence[list[dict]],
        images: Sequence,
        choices: Sequence[str] | None = None,
        temperature: float = 1.0,
        answer_temperature: float | None = None,
        max_answer: int = 16,
    ) -> list[VisualRollout]:
        """A rollout per conversation and picture.

        The policy chooses, unless `choices` names one for each row. Budget token and answer are sampled at
        `temperature`, the answer after a budget token at `answer_temperature` where that is given; 0 is greedy.
        """
        asked = self._asked(prompts, images)
        vision = {} if self.thumbnail is None else self.vision(images)
        ids = tuple(self.ids.values())
        if choices is None:
            longest = max_answer if self.on_request else 1
            first = self._generate(model, asked, vision, longest, temperature, stops=ids)
        else:
            first = [[] if choice == DIRECT else [self.ids[choice]] for choice in choices]
            if not all(first):
                direct = self._generate(model, asked, vision, max_answer, temperature, suppress_tokens=ids)
                first = [opening or answer for opening, answer in zip(first, direct, strict=True)]
        answering = temperature if answer_temperature is None else answer_temperature
        rollouts: list[VisualRollout | None] = [None] * len(asked)
        for name, token in self.ids.items():  # rows of one budget together, so that none is padded to another's
            rows = [row for row, opening in enumerate(first) if opening[-1] == token]
            if rows:
                some = [[values[row] for row in rows] for values in (asked, first, images)]
                for row, rollout in zip(rows, self._see(model, name, *some, max_answer, answering), strict=True):
                    rollouts[row] = rollout
        for row, opening in enumerate(first):
            if rollouts[row] is None:  # no budget token: it ends here
                [whole] = self._wholes([images[row]])
                answer = self._text(opening) if self.on_request else ""
                used = self._count(asked[row])
                rollouts[row] = VisualRollout(
                    asked[row], opening, [1] * len(opening), None, answer, used, self._count(whole)
                )
        return rollouts

    def _see(self, model, name, asked, openings, images, max_answer, temperature) -> list[VisualRollout]:
        """Rows of one budget token: what they said up to it, the picture's block, then the answer."""
        wholes = self._wholes(images)
        blocks = [self._cut(whole, self.budget_tokens[name]) for whole in wholes]
        rows = [ids + opening + block for ids, opening, block in zip(asked, openings, blocks, strict=True)]
        answers = self._generate(model, rows, self.vision(images), max_answer, temperature)
        parts = zip(asked, openings, blocks, answers, wholes, strict=True)
        return [self._rollout(name, *part) for part in parts]

    def _rollout(self, name, asked, opening, block, answer, whole) -> VisualRollout:
        return VisualRollout(
            prompt_ids=asked,
            completion_ids=[*opening, *block, *answer],
            mask=[*[1] * len(opening), *[0] * len(block), *[1] * len(answer)],
            budget_token=name,
            answer=self._text(answer),
            visual_tokens=self._count(asked) + self._count(block),
            full_visual_tokens=self._count(whole),
        )

    def written(self, prompts, images, choices: Sequence[str], answers: Sequence[str]) -> list[VisualRollout]:
        """Rollouts in which nothing is generated: the choice and the answer of each row are given."""
        found = []
        for asked, whole, choice, answer in zip(
            self._asked(prompts, images), self._wholes(images), choices, answers, strict=True
        ):
            name = None if choice == DIRECT else choice
            opening, block = ([self.ids[name]], self._cut(whole, self.budget_tokens[name])) if name else ([], [])
            ids = [*self.tokenizer.encode(answer, add_special_tokens=False), self.tokenizer.eos_token_id]
            found.append(self._rollout(name, asked, opening, block, ids, whole))
        return found

    def _asked(self, prompts, images) -> list[list[int]]:
        """Token ids of the conversations without their pictures, but for the thumbnail, behind the system prompt."""
        texts = []
        for messages in prompts:
            plain = [{"role": message["role"], "content": _text_parts(message["content"])} for message in messages]
            if self.thumbnail is not None:
                plain[-1]["content"].insert(0, {"type": "image"})
            own = "".join(part["text"] for turn in plain if turn["role"] == "system" for part in turn["content"])
            first, *others = [turn for turn in plain if turn["role"] != "system"]
            turns = [*self.prompts.conversation(first["content"], own), *others]
            # The processor renders: a vision template takes content parts, and is its own, not always the tokenizer's.
            text = prompt_text(self.processor, self.prompts.asked(turns))
            texts.append(text if self.thumbnail is None else keep_mark(self.thumbnail) + text)
        if self.thumbnail is None:
            return [self.tokenizer.encode(text, add_special_tokens=False) for text in texts]
        return self._processed(texts, [[image] for image in images])[0]

    def _wholes(self, images) -> list[list[int]]:
        """The token ids of each whole picture."""
        return self._processed([self.block] * len(images), [[image] for image in images])[0]

    def vision(self, images) -> dict:
        """What the model takes beside the token ids of rows with these pictures."""
        n = self.images_per_row
        return self._processed([" ".join([self.block] * n)] * len(images), [[image] * n for image in images])[1]

    def _cut(self, ids: list[int], ratio: float) -> list[int]:
        """A whole picture's token ids with K of N image tokens, as the processor cuts them."""
        token, found = self.processor.image_token_id, []
        for is_image, run in groupby(ids, lambda t: t == token):
            run = list(run)
            found += run[: keep_count(len(run), ratio)] if is_image else run
        return found

    def _processed(self, texts, images) -> tuple[list[list[int]], dict]:
        inputs = self.processor(text=texts, images=images, padding=True, add_special_tokens=False, return_tensors="pt")
        ids, mask = inputs["input_ids"], inputs["attention_mask"].bool()
        more = ("input_ids", "attention_mask", "mm_token_type_ids")
        return [row[own].tolist() for row, own in zip(ids, mask, strict=True)], {
            name: value for name, value in inputs.items() if name not in more
        }

    def _text(self, ids: list[int]) -> str:
        return decode(self.tokenizer, [ids], self.prompts.end)[0].strip()

    def _generate(
        self, model, rows, vision, max_new_tokens, temperature, stops=(), suppress_tokens=()
    ) -> list[list[int]]:
        """New tokens of each row, the end of sequence or one of `stops` included, but no token of `suppress_tokens`."""
        inputs = self.tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt")
        inputs = {name: value.to(model.device) for name, value in {**inputs, **vision}.items()}
        ends = model.generation_config.eos_token_id
        ends = {*(ends if isinstance(ends, list) else [ends]), *stops}
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        output = model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(ends),
            suppress_tokens=[*model.generation_config.suppress_tokens, *suppress_tokens],
            **NEUTRAL,
            **(sampling if temperature else {"do_sample": False}),
        )
        found = []
        for row in output[:, inputs["input_ids"].shape[1] :].tolist():
            end = next((i + 1 for i, token in enumerate(row) if token in ends), len(row))
            found.append(row[:end])
        return found

    def _count(self, ids: list[int]) -> int:
        return ids.count(self.processor.image_token_id)


class VisualRolloutFunc:
    """A `VisualBudgetPolicy` as TRL's `rollout_func`.

    Rewards get the `columns`: visual_tokens, full_visual_tokens, text_tokens, requested (was there a budget token) and
    answer_text, which is what counts as the answer: without a budget token there is none, unless it was not needed.

    With `assigned`, budget tokens are dealt out in turn over each group instead, and carry no gradient: the ladder of
    keep ratios, a control.
    """

    columns = ("visual_tokens", "full_visual_tokens", "text_tokens", "requested", "answer_text")

    def __init__(self, policy: VisualBudgetPolicy, assigned: bool = False, max_answer: int = 16):
        self.policy, self.assigned, self.max_answer = policy, assigned, max_answer

    def __call__(self, prompts: list, trainer) -> dict[str, list]:
        policy, tokens = self.policy, list(self.policy.budget_tokens)
        images = [_images(messages)[-1] for messages in prompts]
        dealt = [row % trainer.num_generations for row in range(len(prompts))]
        with unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model:
            rollouts = policy(
                model,
                prompts,
                images,
                choices=[tokens[turn % len(tokens)] for turn in dealt] if self.assigned else None,
                temperature=trainer.temperature,
                max_answer=self.max_answer,
            )
        for name, values in {
            "visual/keep_ratio": [rollout.keep_ratio for rollout in rollouts],
            "visual/requested": [float(rollout.budget_token is not None) for rollout in rollouts],
        }.items():
            trainer._log_metric(name, sum(values) / len(values))
        return {
            "prompt_ids": [rollout.prompt_ids for rollout in rollouts],
            "completion_ids": [rollout.completion_ids for rollout in rollouts],
            "logprobs": None,
            "env_mask": [[0, *rollout.mask[1:]] if self.assigned else rollout.mask for rollout in rollouts],
            "visual_tokens": [rollout.visual_tokens for rollout in rollouts],
            "full_visual_tokens": [rollout.full_visual_tokens for rollout in rollouts],
            "text_tokens": [sum(rollout.mask) for rollout in rollouts],
            "requested": [rollout.budget_token is not None for rollout in rollouts],
            "answer_text": [rollout.answer for rollout in rollouts],
        }


def _text_parts(content) -> list[dict]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [part for part in content if part["type"] == "text"]


def _images(messages) -> list:
    found = [
        part["image"] for m in messages if not isinstance(m["content"], str) for part in m["content"] if "image" in part
    ]
    if not found:
        raise ValueError("a row has no image; give it the column 'image'")
    return found
