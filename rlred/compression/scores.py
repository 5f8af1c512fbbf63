"""Importance scores: how much each part of a chain of thought matters, as spans of the original string.

    TokenClassifier    LLMLingua-2: the probability that a trained classifier keeps a piece (2403.12968)
    SelfInformation    Selective Context: -log p of a causal LM (2310.06201); or what question and answer tell of it
    StepEntropy        a step's mean self-information, given to all of it (2508.03346 scores whole steps)
    Bidirectional      how likely a step makes question and answer (A*-Thought, 2505.24550)
    AStar              the order in which A*-Thought's search over steps takes them up
    Edges              both ends of the text (EPiC, 2506.04205)
    Random, Stride, Head      controls: chance, every k-th word, truncation

A scorer is called with a text (and, where it uses them, `question` and `answer`) and returns `(start, end, score)`
spans of characters; higher is kept longer. Numbers and operators are not its business: spans.py never drops them.
"""

import random
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer

from rlred.compression.cut import Scores
from rlred.compression.search import search_order
from rlred.data.models import Loading, load_model
from rlred.data.prompts import Prompts, prompt_ids

LLMLINGUA2 = "microsoft/llmlingua-2-xlm-roberta-large-meetingbank"
_WORD = re.compile(r"\S+")


class Scorer(Protocol):
    """Scores one text."""

    def __call__(self, text: str, question: str = "", answer: str = "") -> Scores:
        """Spans with their scores."""


def _words(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in _WORD.finditer(text)]


@dataclass(frozen=True)
class Random:
    """Every word by chance; the same for the same text and seed."""

    seed: int = 0

    def __call__(self, text: str, question: str = "", answer: str = "") -> Scores:
        rng = random.Random(f"{self.seed}/{text}")
        return [(start, end, rng.random()) for start, end in _words(text)]


@dataclass(frozen=True)
class Stride:
    """Words evenly spread at every ratio: the bits of a word's number, reversed, are its rank.

    >>> [score for _, _, score in Stride()("a b c d")]
    [-0.0, -0.5, -0.25, -0.75]
    """

    def __call__(self, text: str, question: str = "", answer: str = "") -> Scores:
        return [(start, end, -_reversed_bits(number)) for number, (start, end) in enumerate(_words(text))]


def _reversed_bits(number: int) -> float:
    value, weight = 0.0, 0.5
    while number:
        value, weight, number = value + weight * (number & 1), weight / 2, number >> 1
    return value


@dataclass(frozen=True)
class Head:
    """The beginning of the text: truncation."""

    def __call__(self, text: str, question: str = "", answer: str = "") -> Scores:
        return [(start, end, -float(number)) for number, (start, end) in enumerate(_words(text))]


@dataclass(frozen=True)
class Edges:
    """Both ends of the text; the middle goes first (EPiC's edge-preserving cut)."""

    def __call__(self, text: str, question: str = "", answer: str = "") -> Scores:
        words = _words(text)
        return [(start, end, abs(2 * n - len(words) + 1)) for n, (start, end) in enumerate(words)]


class SelfInformation:
    """-log p of each token under a causal LM, in windows that overlap by half.

    With `conditional`, the score is log p(token | question, answer, before) - log p(token | before): what a token has
    to do with question and answer. Without `tell_answer`, with the question alone (LongLLMLingua's contrastive
    perplexity, 2310.06839). Where the tokenizer has a chat template, what is told stands in a user turn, behind the
    system prompt of `prompts` and with their settings. Raises `ValueError` for a tokenizer without offsets.
    """

    def __init__(
        self,
        model,
        tokenizer,
        prompts: Prompts | None = None,
        *,
        window: int = 1024,
        conditional: bool = False,
        tell_answer: bool = True,
    ):
        if not tokenizer.is_fast:
            raise ValueError("self-information needs a tokenizer with character offsets (a fast one)")
        self.model, self.tokenizer, self.window = model.eval(), tokenizer, window
        self.conditional, self.tell_answer = conditional, tell_answer
        self.prompts = (prompts or Prompts()).fitted(tokenizer)

    def __call__(self, text: str, question: str = "", answer: str = "") -> Scores:
        if not self.conditional:
            return [(start, end, -log_prob) for start, end, log_prob in self.log_probs(text, question)]
        alone = self.log_probs(text)
        told = self.log_probs(text, f"{question}\n{answer}" if self.tell_answer and answer else question)
        return [(start, end, known - log) for (start, end, log), (_, _, known) in zip(alone, told, strict=True)]

    @torch.no_grad()
    def log_probs(self, text: str, told: str = "") -> Scores:
        """log p of each token after `told` and the text before it."""
        encoded = self.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        before = self._before(told)
        stride, spans = max(1, (self.window - len(before)) // 2), []
        for start in range(0, len(ids), stride):
            context = ids[max(0, start - stride) : start]
            new = ids[start : start + stride]
            row = torch.tensor([before + context + new], device=self.model.device)  # (1, T)
            log_probs = torch.log_softmax(self.model(row).logits[0, :-1].float(), -1)  # (T - 1, V)
            taken = log_probs.gather(1, row[0, 1:, None])[-len(new) :, 0].tolist()
            spans += [(*offsets[start + i], value) for i, value in enumerate(taken)]
        return spans

    def _before(self, told: str) -> list[int]:
        """The ids before a text: never none, and at most half a window."""
        if self.tokenizer.chat_template:
            ids = prompt_ids(self.tokenizer, self.prompts.asked(self.prompts.conversation(told)))
        else:
            first = self.tokenizer.bos_token_id
            ids = [self.tokenizer.eos_token_id if first is None else first]
            ids += self.tokenizer(told + "\n", add_special_tokens=False)["input_ids"] if told else []
        return ids[-(self.window // 2) :]


def steps_of(text: str) -> list[tuple[int, int]]:
    r"""The spans of the steps of a text: its paragraphs, or its lines where there is only one paragraph.

    >>> steps_of("3+4=7\n7+2=9")
    [(0, 5), (6, 11)]
    """
    border = "\n\n" if "\n\n" in text.strip() else "\n"
    steps, start = [], 0
    for part in text.split(border):
        steps.append((start, start + len(part)))
        start += len(part) + len(border)
    return steps


@dataclass(frozen=True)
class StepEntropy:
    """The mean self-information of each step, for all of it."""

    tokens: SelfInformation

    def __call__(self, text: str, question: str = "", answer: str = "") -> Scores:
        spans = self.tokens(text, question, answer)
        return [
            (start, end, _mean([score for a, b, score in spans if a < end and b > start]))
            for start, end in steps_of(text)
        ]


@dataclass(frozen=True)
class Bidirectional:
    """alpha * log p(question | step) + (1 - alpha) * log p(answer | step), means per token, for all of a step.

    A*-Thought's importance of a step (2505.24550; alpha 0.5 with GPT-2 in its code): how likely the question and the
    answer become for one who has read that step alone. Raises `ValueError` for an alpha outside [0, 1].
    """

    tokens: SelfInformation
    alpha: float = 0.5

    def __post_init__(self):
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be from 0 to 1, got {self.alpha!r}")

    def __call__(self, text: str, question: str = "", answer: str = "") -> Scores:
        parts = ((question, self.alpha), (answer, 1 - self.alpha))
        return [
            (start, end, sum(weight * self._log_prob(part, text[start:end]) for part, weight in parts))
            for start, end in steps_of(text)
        ]

    def _log_prob(self, text: str, step: str) -> float:
        return _mean([log_prob for _, _, log_prob in self.tokens.log_probs(text, step)])


@dataclass(frozen=True)
class AStar:
    """Minus the round in which A*-Thought's search takes up a step, for all of it: what it takes first stays longest.

    Steps are opened by `importance`; a path costs g + h, g = -beta * mean log p(its steps | question) and
    h = -mean log p(answer | question, its steps) (2505.24550; a_star.py and beta 0.1 of its code).
    """

    tokens: SelfInformation
    importance: Bidirectional
    beta: float = 0.1

    def __call__(self, text: str, question: str = "", answer: str = "") -> Scores:
        steps = steps_of(text)
        importance = [score for _, _, score in self.importance(text, question, answer)]

        def cost(path: set[int]) -> float:
            return self.cost(
                [text[start:end] for start, end in (steps[number] for number in sorted(path))], question, answer
            )

        rounds = search_order(importance, cost)
        return [(start, end, -float(number)) for (start, end), number in zip(steps, rounds, strict=True)]

    def cost(self, steps: Sequence[str], question: str, answer: str) -> float:
        """The cost of a path."""
        thought = "\n".join(steps) + "\n"
        spans = self.tokens.log_probs(thought + answer, question)
        of_steps = [log_prob for _, end, log_prob in spans if end <= len(thought)]
        of_answer = [log_prob for _, end, log_prob in spans if end > len(thought)]
        return -self.beta * _mean(of_steps) - _mean(of_answer)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))


class TokenClassifier:
    """LLMLingua-2's keep probability of every word, from its published models or one of the same kind.

    Each text is encoded once and cut into windows of at most `window` pieces, at a full stop where there is one; those
    of similar lengths share a batch, up to `batch_size`, and are padded to the longest of it. A word is what follows a
    blank, or one ASCII punctuation mark; its probability is the mean of its pieces', as in llmlingua 0.2.2. The spans
    are those of the original string, so nothing of NFKC or whitespace normalisation gets into the text.

    llmlingua 0.2.2 frames every window with BERT's `[CLS]` and `[SEP]`, which are unknown tokens to XLM-R. `released`
    does so too, and gives its scores; without it, windows are framed as the model was trained. Raises `ValueError` for
    a model without two labels or a tokenizer without offsets.
    """

    def __init__(self, model, tokenizer, *, window: int = 510, batch_size: int = 16, released: bool = True):
        if model.config.num_labels != 2:
            raise ValueError(f"a token classifier with 2 labels (drop, keep) is needed, got {model.config.num_labels}")
        if not tokenizer.is_fast:
            raise ValueError("a token classifier needs a tokenizer with character offsets (a fast one)")
        self.model, self.tokenizer, self.window, self.batch_size = model.eval(), tokenizer, window, batch_size
        frame = tokenizer.cls_token_id, tokenizer.sep_token_id
        self.frame = tuple(tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]"])) if released else frame
        if None in self.frame:
            self.frame = frame

    @classmethod
    def from_pretrained(cls, name: str, dtype: str = "float32", **settings):
        """The published model of that name, on the GPU if there is one. Raises `ValueError` if it cannot be loaded."""
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
            model = AutoModelForTokenClassification.from_pretrained(name, dtype=dtype, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise ValueError(f"scorer_model={name!r} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
        return cls(model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer, **settings)

    def __call__(self, text: str, question: str = "", answer: str = "") -> Scores:
        return self.batch([text])[0]

    @torch.no_grad()
    def batch(self, texts: Sequence[str]) -> list[Scores]:
        """The spans of many texts."""
        encoded = [self.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False) for text in texts]
        windows = [
            (number, start, end) for number, one in enumerate(encoded) for start, end in self._windows(one["input_ids"])
        ]
        probabilities = [[0.0] * len(one["input_ids"]) for one in encoded]
        first, last = self.frame
        for part in self._batches(windows):
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

    def _batches(self, windows: list[tuple[int, int, int]]) -> list[list[tuple[int, int, int]]]:
        """Windows of similar lengths side by side, so that at most a quarter of a row is padding."""
        batches: list[list] = []
        longest = 0
        for window in sorted(windows, key=lambda window: window[1] - window[2]):
            size = window[2] - window[1]
            if not batches or len(batches[-1]) == self.batch_size or size < 0.75 * longest:
                batches.append([])
                longest = size
            batches[-1].append(window)
        return batches

    def _windows(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        stop, windows, start = self.tokenizer.convert_tokens_to_ids("."), [], 0
        while start < len(ids):
            end = min(start + self.window, len(ids))
            if end < len(ids):
                end = next((i + 1 for i in range(end - 1, start, -1) if ids[i] == stop), end)
            windows.append((start, end))
            start = end
        return windows

    def _merged(self, text: str, encoded, probabilities: Sequence[float]) -> Scores:
        pieces = self.tokenizer.convert_ids_to_tokens(encoded["input_ids"])
        words: list[list] = []  # [start, end, [probabilities]]
        for piece, (start, end), probability in zip(pieces, encoded["offset_mapping"], probabilities, strict=True):
            if not words or self._begins_word(piece):
                words.append([start, end, [probability]])
            else:
                words[-1][1] = max(words[-1][1], end)
                words[-1][2].append(probability)
        return [(start, end, sum(values) / len(values)) for start, end, values in words]

    def _begins_word(self, piece: str) -> bool:
        if self.model.config.model_type == "bert":  # the multilingual BERT among the published models
            return not piece.startswith("##")
        return piece.startswith("\u2581") or piece in string.punctuation


def _astar(tokens: SelfInformation) -> AStar:
    return AStar(tokens, Bidirectional(tokens))


SCORERS = {
    "llmlingua2": TokenClassifier,
    "self_information": SelfInformation,
    "conditional": lambda *model: SelfInformation(*model, conditional=True),
    "question": lambda *model: SelfInformation(*model, conditional=True, tell_answer=False),
    "step_entropy": lambda *model: StepEntropy(SelfInformation(*model)),
    "bidirectional": lambda *model: Bidirectional(SelfInformation(*model)),
    "astar": lambda *model: _astar(SelfInformation(*model)),
    "edges": Edges,
    "random": Random,
    "stride": Stride,
    "head": Head,
}
MODEL_FREE = ("edges", "random", "stride", "head")


def make_scorer(
    name: str,
    model_name: str | None = None,
    *,
    seed: int = 0,
    dtype: str = "float32",
    prompts: Prompts | None = None,
) -> Scorer:
    """The scorer of that name, with the model that it scores with, on the GPU if there is one.

    `model_name` is a folder, a Hub id or an embedded model; by default that of LLMLingua-2 for `llmlingua2`. `prompts`
    are what it is told the question in. Raises `ValueError` for an unknown name, a missing model or one that cannot be
    loaded.

    >>> make_scorer("random", seed=3)
    Random(seed=3)
    """
    if name not in SCORERS:
        raise ValueError(f"scorer: none is called {name!r}; there are {', '.join(SCORERS)}")
    if name in MODEL_FREE:
        return Random(seed) if name == "random" else SCORERS[name]()
    if name == "llmlingua2":
        return TokenClassifier.from_pretrained(model_name or LLMLINGUA2, dtype=dtype)
    if model_name is None:
        raise ValueError(f"scorer_model: {name} scores with a causal language model; name one")
    return SCORERS[name](*load_model(model_name, None, Loading(dtype)), prompts)
