"""Texts that have to be one token of a tokenizer."""


def token_of(tokenizer, text: str, *, field: str) -> int:
    """The id of a text that is one token. Raises `ValueError`, which names the `field` it stands in, for any other."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise ValueError(f"{field}: {text!r} must be one token of the vocabulary, and is {ids}")
    return ids[0]
