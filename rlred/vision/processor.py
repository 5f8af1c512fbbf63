"""Processors that give an image K placeholders: the keep ratio stands in the row's own text.

    <keep 0.25> What colour is the dot?

A processor of this module takes the mark out of the text and cuts every run of N image tokens to K = ceil(0.25 N). TRL
processes a row twice, once to generate and once to train, and passes on no keys of its own; what is in the text is the
same both times. A row without a mark keeps all its tokens.
"""

import copy
import re

from transformers import (
    Idefics3Processor,
    LlavaProcessor,
    ProcessorMixin,
    Qwen2_5_VLProcessor,
    Qwen3VLProcessor,
    SmolVLMProcessor,
)

from rlred.vision.reduce import keep_count

_MARK = re.compile(r"<keep ([^<>]*)> ?")


def keep_mark(ratio: float) -> str:
    """The mark of a keep ratio, "" for 1. Raises `ValueError` for a ratio outside (0, 1].

    >>> keep_mark(0.25)
    '<keep 0.25> '
    """
    keep_count(1, ratio)  # checks it
    return "" if ratio == 1 else f"<keep {ratio:g}> "


def with_keep_ratio(messages: list[dict], ratio: float) -> list[dict]:
    """A conversation whose images get K tokens: the mark before the first user text.

    >>> with_keep_ratio([{"role": "user", "content": "How many?"}], 0.5)[0]["content"]
    '<keep 0.5> How many?'
    """
    marked = copy.deepcopy(messages)
    for message in marked:
        if message["role"] != "user":
            continue
        if isinstance(message["content"], str):
            message["content"] = keep_mark(ratio) + message["content"]
            return marked
        for part in message["content"]:
            if part["type"] == "text":
                part["text"] = keep_mark(ratio) + part["text"]
                return marked
    raise ValueError("keep_ratio needs a user message with text to stand in")


class KeepRatio:
    """The part that is the same for every processor."""

    def get_text_with_replacements(self, text, images_replacements=(), *args, **kwargs):
        """Takes the marks out and cuts each image's placeholders to its K."""
        replacements, cut, plain = iter(images_replacements), [], []
        for sample in text:
            ratio = _ratio_of(sample)
            sample = _MARK.sub("", sample)
            if ratio < 1:  # images that touch could not be told apart
                sample = re.sub(f"{re.escape(self.image_token)}(?={re.escape(self.image_token)})", r"\g<0>\n", sample)
            plain.append(sample)
            if images_replacements:
                cut += [self._cut(next(replacements), ratio) for _ in range(sample.count(self.image_token))]
        return super().get_text_with_replacements(plain, cut, *args, **kwargs)

    def _cut(self, replacement: str, ratio: float) -> str:
        token = self.image_token
        return re.sub(
            f"(?:{re.escape(token)})+",
            lambda run: token * keep_count(len(run.group()) // len(token), ratio),
            replacement,
        )

    def to_dict(self):
        # Nothing is added to what the stock processor saves, so that it can be loaded as either.
        return {**super().to_dict(), "processor_class": type(self).__mro__[2].__name__}


def _ratio_of(text: str) -> float:
    marks = set(_MARK.findall(text))
    if not marks:
        return 1.0
    try:
        [ratio] = map(float, marks)
    except ValueError:
        raise ValueError(f"a row has one keep ratio, a number as in '<keep 0.25>'; got {sorted(marks)}") from None
    keep_count(1, ratio)
    return ratio


class SparseLlavaProcessor(KeepRatio, LlavaProcessor):
    """LLaVA's processor with keep ratios."""


class SparseSmolVLMProcessor(KeepRatio, SmolVLMProcessor):
    """SmolVLM's processor with keep ratios, tile by tile."""


class SparseIdefics3Processor(KeepRatio, Idefics3Processor):
    """Idefics3's processor with keep ratios, tile by tile."""


class SparseQwen2_5_VLProcessor(KeepRatio, Qwen2_5_VLProcessor):
    """Qwen2.5-VL's processor with keep ratios."""


class SparseQwen3VLProcessor(KeepRatio, Qwen3VLProcessor):
    """Qwen3-VL's processor with keep ratios."""


PROCESSORS = {
    kind.__mro__[2]: kind
    for kind in (
        SparseLlavaProcessor,
        SparseSmolVLMProcessor,
        SparseIdefics3Processor,
        SparseQwen2_5_VLProcessor,
        SparseQwen3VLProcessor,
    )
}


def sparse_processor(processor: ProcessorMixin) -> ProcessorMixin:
    """The same processor, with keep ratios. Raises `ValueError` for one that is not supported."""
    kind = PROCESSORS.get(type(processor))
    if kind is None:
        known = ", ".join(stock.__name__ for stock in PROCESSORS)
        raise ValueError(f"no keep ratios for a {type(processor).__name__}; supported: {known}")
    sparse = copy.copy(processor)
    sparse.__class__ = kind
    return sparse
