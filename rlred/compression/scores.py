"""Importance scores: how much each part of a chain of thought matters, as spans of the original string.

    TokenClassifier    LLMLingua-2: the probability that a trained classifier keeps a piece (2403.12968)
    SelfInformation    Selective Context: -log p of a causal LM (2310.06201); with question and answer, what they tell
    StepEntropy        a step's mean self-information, given to all of it (2508.03346 scores whole steps)
    Random, Stride, Head, Edges      controls: chance, every k-th word, the beginning, both ends (EPiC, 2506.04205)

A scorer is called with a text (and, where it uses them, `question` and `answer`) and returns `(start, end, score)`
spans of characters; higher is kept longer. Numbers and operators are not its business: units.py never drops them.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from rlred.compression.cut import Spans

_WORD = re.compile(r"\S+")


class Scorer(Protocol):
    """Scores one text."""

    def __call__(self, text: str, question: str = "", answer: str = "") -> Spans:
        """Spans with their scores."""


def _words(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in _WORD.finditer(text)]


@dataclass(frozen=True)
class Random:
    """Every word by chance; the same for the same text and seed."""

    seed: int = 0

    def __call__(self, text: str, question: str = "", answer: str = "") -> Spans:
        rng = random.Random(f"{self.seed}/{text}")
        return [(start, end, rng.random()) for start, end in _words(text)]


@dataclass(frozen=True)
class Stride:
    """Words evenly spread at every ratio: the bits of a word's number, reversed, are its rank.

    >>> [score for _, _, score in Stride()("a b c d")]
    [-0.0, -0.5, -0.25, -0.75]
    """

    def __call__(self, text: str, question: str = "", answer: str = "") -> Spans:
        return [(start, end, -_reversed_bits(number)) for number, (start, end) in enumerate(_words(text))]


def _reversed_bits(number: int) -> float:
    value, weight = 0.0, 0.5
    while number:
        value, weight, number = value + weight * (number & 1), weight / 2, number >> 1
    return value


@dataclass(frozen=True)
class Head:
    """The beginning of the text: truncation."""

    def __call__(self, text: str, question: str = "", answer: str = "") -> Spans:
        return [(start, end, -float(number)) for number, (start, end) in enumerate(_words(text))]


@dataclass(frozen=True)
class Edges:
    """Both ends of the text; the middle goes first (EPiC's edge-preserving cut)."""

    def __call__(self, text: str, question: str = "", answer: str = "") -> Spans:
        words = _words(text)
        return [(start, end, abs(2 * n - len(words) + 1)) for n, (start, end) in enumerate(words)]


class SelfInformation:
    """-log p of each token under a causal LM, in windows that overlap by half.

    With `conditional`, the score is log p(token | question, answer, before) - log p(token | question, before): how much
    likelier a token becomes for one who knows the answer. Raises `ValueError` for a tokenizer without offsets.
    """

    def __init__(self, model, tokenizer, *, window: int = 1024, conditional: bool = False):
        if not tokenizer.is_fast:
            raise ValueError("self-information needs a tokenizer with character offsets (a fast one)")
        self.model, self.tokenizer, self.window, self.conditional = model.eval(), tokenizer, window, conditional

    def __call__(self, text: str, question: str = "", answer: str = "") -> Spans:
        spans = self._log_probs(text, question + "\n" if question else "")
        if not self.conditional:
            return [(start, end, -log_prob) for start, end, log_prob in spans]
        told = self._log_probs(text, f"{question}\n{answer}\n")
        return [(start, end, known - log) for (start, end, log), (_, _, known) in zip(spans, told, strict=True)]

    @torch.no_grad()
    def _log_probs(self, text: str, prefix: str) -> Spans:
        encoded = self.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        before = self.tokenizer(prefix, add_special_tokens=False)["input_ids"][-self.window // 2 :]
        if not before:
            first = self.tokenizer.bos_token_id
            before = [self.tokenizer.eos_token_id if first is None else first]
        stride, spans = max(1, (self.window - len(before)) // 2), []
        for start in range(0, len(ids), stride):
            context = ids[max(0, start - stride) : start]
            new = ids[start : start + stride]
            row = torch.tensor([before + context + new], device=self.model.device)  # (1, T)
            log_probs = torch.log_softmax(self.model(row).logits[0, :-1].float(), -1)  # (T - 1, V)
            taken = log_probs.gather(1, row[0, 1:, None])[-len(new) :, 0].tolist()
            spans += [(*offsets[start + i], value) for i, value in enumerate(taken)]
        return spans


class StepEntropy:
    """The mean self-information of each step (a paragraph, or a line where there are no paragraphs), for all of it."""

    def __init__(self, tokens: SelfInformation):
        self.tokens = tokens

    def __call__(self, text: str, question: str = "", answer: str = "") -> Spans:
        spans = self.tokens(text, question, answer)
        border = "\n\n" if "\n\n" in text.strip() else "\n"
        steps, start = [], 0
        for part in text.split(border):
            end = start + len(part)
            inside = [score for a, b, score in spans if a < end and b > start]
            steps.append((start, end, sum(inside) / max(1, len(inside))))
            start = end + len(border)
        return steps


class TokenClassifier:
    """LLMLingua-2's keep probability of every word, from its published models or one of the same kind.

    Each text is encoded once, cut into windows of at most `window` pieces at a full stop where there is one, and all
    windows of a call are padded to the longest, `batch_size` at a time. A word is what follows a blank, or one ASCII
    punctuation mark; its probability is the mean of its pieces', as in llmlingua 0.2.2. The spans are those of the
    original string, so nothing of NFKC or whitespace normalisation gets into the text. Raises `ValueError` for a model
    without two labels or a tokenizer without offsets.
    """

    PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")

    def __init__(self, model, tokenizer, *, window: int = 510, batch_size: int = 16):
        if model.config.num_labels != 2:
            raise ValueError(f"a token classifier with 2 labels (drop, keep) is needed, got {model.config.num_labels}")
        if not tokenizer.is_fast:
            raise ValueError("a token classifier needs a tokenizer with character offsets (a fast one)")
        self.model, self.tokenizer, self.window, self.batch_size = model.eval(), tokenizer, window, batch_size

    @classmethod
    def from_pretrained(cls, name: str = "microsoft/llmlingua-2-xlm-roberta-large-meetingbank", **settings):
        """The published model of that name. Safetensors only."""
        from transformers import AutoModelForTokenClassification, AutoTokenizer

        model = AutoModelForTokenClassification.from_pretrained(name, use_safetensors=True)
        return cls(model, AutoTokenizer.from_pretrained(name), **settings)

    def __call__(self, text: str, question: str = "", answer: str = "") -> Spans:
        return self.batch([text])[0]

    @torch.no_grad()
    def batch(self, texts: Sequence[str]) -> list[Spans]:
        """The spans of many texts."""
        encoded = [self.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False) for text in texts]
        windows = [
            (number, start, end) for number, one in enumerate(encoded) for start, end in self._windows(one["input_ids"])
        ]
        windows.sort(key=lambda window: window[1] - window[2])  # longest first: neighbours need little padding
        probabilities = [[0.0] * len(one["input_ids"]) for one in encoded]
        first, last = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        for at in range(0, len(windows), self.batch_size):
            part = windows[at : at + self.batch_size]
            rows = [[first, *encoded[number]["input_ids"][start:end], last] for number, start, end in part]
            inputs = self.tokenizer.pad({"input_ids": rows}, padding_side="right", return_tensors="pt").to(
                self.model.device
            )
            keep = self.model(**inputs).logits.float().softmax(-1)[:, :, 1].tolist()  # (windows, pieces)
            for row, (number, start, end) in zip(keep, part, strict=True):
                probabilities[number][start:end] = row[1 : 1 + end - start]
        return [
            self._merged(text, one, probability)
            for text, one, probability in zip(texts, encoded, probabilities, strict=True)
        ]

    def _windows(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        stop, windows, start = self.tokenizer.convert_tokens_to_ids("."), [], 0
        while start < len(ids):
            end = min(start + self.window, len(ids))
            if end < len(ids):
                end = next((i + 1 for i in range(end - 1, start, -1) if ids[i] == stop), end)
            windows.append((start, end))
            start = end
        return windows

    def _merged(self, text: str, encoded, probabilities: Sequence[float]) -> Spans:
        pieces = self.tokenizer.convert_ids_to_tokens(encoded["input_ids"])
        words: list[list] = []  # [start, end, [probabilities]]
        for piece, (start, end), probability in zip(pieces, encoded["offset_mapping"], probabilities, strict=True):
            bare = piece.lstrip("\u2581")
            if not words or piece.startswith("\u2581") or bare in self.PUNCTUATION:
                words.append([start, end, [probability]])
            else:
                words[-1][1] = max(words[-1][1], end)
                words[-1][2].append(probability)
        return [(start, end, sum(values) / len(values)) for start, end, values in words]
