"""Single tokens of a tokenizer: texts that have to be one, and the text of each."""

from collections.abc import Sequence


def token_of(tokenizer, text: str, *, field: str) -> int:
    """The id of a text that is one token. Raises `ValueError`, which names the `field` it stands in, for any other."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise ValueError(f"{field}: {text!r} must be one token of the vocabulary, and is {ids}")
    return ids[0]


def token_texts(tokenizer, ids: Sequence[int], known: dict[int, str] | None = None) -> list[str]:
    """The text of each token by itself, with the space that it may begin with; joined, mostly the text of all.

    Each is read behind another one: some tokenizers leave out the space in front of what begins a text. `known` keeps
    those that were read before.
    """
    known = {} if known is None else known
    anchor = tokenizer("0", add_special_tokens=False)["input_ids"][-1:]
    first = tokenizer.decode(anchor)
    for token in set(ids) - known.keys():
        both = tokenizer.decode([*anchor, token])
        known[token] = both[len(first) :] if both.startswith(first) else tokenizer.decode([token])
    return [known[token] for token in ids]
