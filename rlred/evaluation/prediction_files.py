r"""What other programs' files of completions look like: where the text, the gold answer and the token count stand.

    LAYOUTS       one entry per program whose files need more than the usual names; the next program is one more entry
    COLUMNS       the usual names of a column, for every other file
    find_columns  which of them a file has
    samples_of    one row -> one dict per completion, which is text

A path with dots goes into objects and lists (`resps.0`); `doc.choices[doc.gold_index]` takes entries of a list by the
indices that stand elsewhere in the row.
"""

import gzip
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlred.data.choices import match_columns
from rlred.data.golds import from_json_text, is_missing, list_in
from rlred.data.questions import QUESTION_COLUMNS, SOLUTION_COLUMNS
from rlred.data.table_files import kind_of, names_of

_RESPONSES = ("", "response.", "response.body.", "completion.")  # where an API's answer may stand in a row
_USAGE = tuple(f"{place}usage.{name}_tokens" for place in _RESPONSES for name in ("completion", "output"))
_CONVERSATIONS = ("messages", "conversations", "conversation", "prompt")
_ASKED = ("question", "problem", "query", "question_stem", "messages", "conversations", "prompt", "instruction")

COLUMNS = {
    "completion": (
        *("completion", "completions", "model_output", "model_outputs", "output", "outputs", "response.body.choices"),
        *("response.body.output", "response", "responses", "choices", "generation", "generations", "generated_text"),
        *("predict", "model_answer", "code", "message", "text"),
    ),
    "prediction": ("prediction", "pred", "predicted_answer", "extracted_answer"),
    "length": (
        *("length", "num_tokens", "completion_tokens", "num_generated_tokens", "generated_tokens", "cot_length"),
        *("output_tokens", "num_output_tokens", "response_tokens", "completion_length", "response_length"),
        *("token_count", "eval_count", "completion_ids", "token_ids", "output_ids", "response_ids", *_USAGE),
        *("meta_info.completion_tokens", "details.generated_tokens"),
        *("total_tokens", "reasoning_tokens"),
    ),
    "thinking_length": ("thinking_length", "thinking_tokens", "num_thinking_tokens", "reasoning_tokens")
    + tuple(f"{place}usage.completion_tokens_details.reasoning_tokens" for place in _RESPONSES),
    "reasoning": ("reasoning_content", "reasoning", "thinking"),
    "question": (
        *_ASKED,
        *(name for name in QUESTION_COLUMNS if name not in _ASKED),
        *("input", "inputs", "full_prompt", "request.body.messages", "request.messages"),
        *("custom_id", "unique_id", "question_id", "example_id", "doc_id", "id", "idx"),
    ),
    "solution": ("gt", "gts", *SOLUTION_COLUMNS, "label", "labels", "reference", "references"),
    "budget": (
        *("budget", "num_tokens_asked", "token_budget", "thinking_budget", "budget_tokens", "reasoning_budget"),
        *("length_budget", "target_tokens", "desired_tokens", "desired_length", "requested_tokens"),
        *("requested_length", "max_thinking_tokens", "metadata.budget"),
    ),
    "ratio": ("ratio", "compression_ratio", "gamma"),
    "mode": ("mode",),
    "correct": ("correct", "is_correct", "acc", "accuracy", "is_valid", "symbolic_correct", "score"),
    "finish": ("finish_reason", "stop_reason"),
    "error": ("error", "response.body.error"),
}
BESIDE = ("completion", "prediction", "length", "thinking_length", "reasoning", "correct", "finish")  # in lists alike


@dataclass(frozen=True)
class Layout:
    """One program's file. `columns` are looked for before the usual names; an empty entry says that there is none."""

    name: str
    marks: tuple[str, ...]  # paths that some row has, all of them
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    all_needed: bool = False  # a list of gold answers: all of them, where elsewhere any is correct
    once: tuple[str, ...] = ()  # rows alike in these, but not in `but`, hold the same completion
    but: str = ""


LAYOUTS = (
    Layout(
        "lm-eval samples",
        ("doc_id", "resps"),
        {
            "completion": ("resps",),
            "question": (
                *(f"doc.{name}" for name in ("question", "problem", "query", "Question", "Problem", "input", "prompt")),
                *("arguments.gen_args_0.arg_0", "arguments.0.0", "doc_id"),
            ),
            "solution": ("target", "doc.answer", "doc.target", "doc.solution"),
            "correct": (),  # each filter has its own
        },
        once=("doc_id", "doc_hash", "resps"),
        but="filter",
    ),
    Layout(
        "lighteval details",
        ("doc", "model_response"),
        {
            "completion": ("model_response.text",),
            "length": ("model_response.output_tokens",),
            "reasoning": ("model_response.reasonings",),
            "question": ("doc.query", "model_response.input"),
            "solution": ("doc.choices[doc.gold_index]", "doc.choices"),
        },
    ),
    Layout(
        "lighteval details, before 0.10",
        ("full_prompt", "predictions", "cont_tokens"),
        {
            "completion": ("predictions",),
            "length": ("cont_tokens",),
            "question": ("example", "full_prompt"),
            "solution": ("gold", "choices[gold_index]"),
            "correct": (),
        },
    ),
    Layout(
        "verl rollouts",
        ("input", "output", "score"),
        {"completion": ("output",), "question": ("input",), "prediction": (), "correct": ("acc", "score")},
    ),
    Layout("vLLM outputs", ("prompt_token_ids", "outputs"), {"completion": ("outputs",), "question": ("prompt",)}),
    Layout("TokenSkip predictions", ("model_output", "cot_length"), all_needed=True),
    Layout(
        "OpenCompass predictions",
        ("origin_prompt", "prediction"),
        {"completion": ("prediction",), "question": ("origin_prompt",), "solution": ("gold",), "prediction": ()},
    ),
)


def at(row: dict, path: str) -> object:
    """The value at a path; None where there is none.

    >>> row = {"doc": {"choices": ["7", "9"], "gold_index": [1]}, "resps": [["a"]], "a.b": 3}
    >>> at(row, "doc.choices[doc.gold_index]"), at(row, "resps.0.0"), at(row, "a.b"), at(row, "doc.query.text")
    (['9'], 'a', 3, None)
    """
    if path in row:
        return row[path]
    if path.endswith("]"):
        values, indices = (at(row, part) for part in path[:-1].split("["))
        indices = [indices] if isinstance(indices, int) else indices
        if not isinstance(values, list) or not isinstance(indices, list):
            return None
        return [values[index] for index in indices if isinstance(index, int) and 0 <= index < len(values)]
    value: object = row
    for part in path.split("."):
        value = from_json_text(value) if value is not row else value
        if isinstance(value, list) and part.isdigit():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


def layout_of(rows: Sequence[dict]) -> Layout:
    """The layout whose marks some row has; else one with the usual names alone."""
    for layout in LAYOUTS:
        if any(all(at(row, mark) is not None for mark in layout.marks) for row in rows):
            return layout
    return Layout("", ())


def find_columns(rows: Sequence[dict], named: dict[str, str], source: str, layout: Layout) -> dict[str, str]:
    """Our name -> the file's path of each column that there is; the first that holds something.

    >>> find_columns([{"model_output": "a", "answer": 3, "cot_length": 9}], {}, "f", Layout("", ()))
    {'completion': 'model_output', 'length': 'cot_length', 'solution': 'answer'}
    """
    names = names_of(rows)

    def holds(path: str) -> bool:
        return any(not is_missing(at(row, path)) for row in rows)

    for name, column in named.items():
        if name not in COLUMNS:
            raise ValueError(f"--columns: {name!r} is not one of {', '.join(COLUMNS)}")
        if column not in names and not holds(column):
            raise ValueError(f"{source}: {name}={column!r} is not a column; there are {', '.join(names)}")
    found = {}
    for name, usual in COLUMNS.items():
        usual = layout.columns.get(name, usual)
        paths = [path for one in usual for path in ([one] if re.search(r"[.\[]", one) else match_columns(names, [one]))]
        first = next(filter(holds, paths), None) or next((path for path in paths if path in names), None)
        column = named.get(name) or first
        if column is not None:
            found[name] = column
    if "completion" not in found and "prediction" in found and "prediction" not in named:
        if all(isinstance(row.get(found["prediction"]), str | None) for row in rows):
            found = {"completion": found.pop("prediction"), **found}
    if "completion" not in found and "prediction" not in found:  # whole conversations, of which the last turn answers
        answered = [name for name in _CONVERSATIONS if any(_is_answered(at(row, name)) for row in rows)]
        if answered:
            found["completion"] = answered[0]
    return found


def _is_answered(value: object) -> bool:
    value = from_json_text(value)
    return isinstance(value, list) and _is_conversation(value) and value[-1].get("role") == "assistant"


def without_repeats(rows: Sequence[dict], layout: Layout) -> list[tuple[int, dict]]:
    """The rows with their places, those left out that hold a completion again (under lm-eval's next filter)."""
    kept, first = [], {}
    for index, row in enumerate(rows):
        if layout.once:
            key = json.dumps([row.get(name) for name in layout.once], sort_keys=True, default=str)
            if first.setdefault(key, row.get(layout.but)) != row.get(layout.but):
                continue
        kept.append((index, row))
    return kept


def samples_of(values: dict) -> list[dict]:
    """One dict per completion, as text; lists of them are taken apart, with the lists of the same length beside them.

    A token count that stands beside several completions belongs to none of them.

    >>> samples_of({"completion": ["a", "b"], "correct": [True, False], "solution": ["1"], "length": 7})[1]
    {'completion': 'b', 'correct': False, 'solution': ['1'], 'length': None}
    >>> samples_of({"completion": {"choices": [{"message": {"content": "a"}, "finish_reason": "length"}]}})
    [{'completion': 'a', 'finish': 'length'}]
    """
    if "completion" not in values:
        return [values]
    raw = values["completion"]
    if (kept := list_in(raw)) and all(isinstance(one, str) for one in kept):  # a list of numbers is an answer
        beside = {name: list_in(values[name]) for name in BESIDE if name in values}
        values = values | {name: own for name, own in beside.items() if own is not None}
        raw = kept
    if isinstance(raw, int | float) and not isinstance(raw, bool) and not is_missing(raw):
        raw = str(raw)  # as CSV and JSON keep a bare answer; inside a list they are log-likelihoods
    made = _completions(raw) or [{"completion": None}]
    apart = isinstance(raw, list) and not _is_conversation(raw)
    listed = [name for name in BESIDE if isinstance(values.get(name), list) and len(values[name]) == len(made)]
    samples = []
    for number, one in enumerate(made):
        own = {name: values[name][number] for name in listed} if apart else {}
        if len(made) > 1:
            own |= {name: None for name in ("length", "thinking_length") if name in values and name not in own}
        sample = {**values, **own, **one}
        if sample.get("reasoning") and isinstance(sample["completion"], str):
            sample["completion"] = _with_reasoning(sample["completion"], sample["reasoning"])
        samples.append(sample)
    return samples


def _completions(value: object) -> list[dict]:
    """What was generated, whatever holds it: text, a message, a conversation, an API's answer, a list of these.

    Empty for an empty list. What cannot be read is `unreadable`; null and empty text are nothing generated.
    """
    if isinstance(value, str):
        return [{"completion": value}]
    if isinstance(value, list):
        if _is_conversation(value):
            last = value[-1]
            return [{"completion": _text_of(last) if last.get("role") == "assistant" else ""}]  # a tool answers nothing
        return [made for one in value for made in _completions(one) or [{"completion": None}]]
    if value is None or isinstance(value, float) and is_missing(value):
        return [{"completion": None}]
    if not isinstance(value, dict):
        return [{"completion": None, "unreadable": True}]
    for name in ("choices", "outputs", "output"):
        if isinstance(value.get(name), list):
            return _completions(value[name])
    finish = value.get("finish_reason") or value.get("stop_reason")
    more = {"finish": finish} if finish else {}
    if isinstance(ids := value.get("token_ids"), list) and ids:
        more["length"] = ids
    if isinstance(value.get("message"), dict):
        return [{"completion": _text_of(value["message"]), **more}]
    if "content" in value or "role" in value:
        return [{"completion": _text_of(value), **more}]
    text = next((value[name] for name in ("text", "generated_text") if name in value), True)
    return [{**made, **more} for made in _completions(text)]


def _is_conversation(value: list) -> bool:
    return bool(value) and all(isinstance(turn, dict) for turn in value) and any("role" in turn for turn in value)


def _text_of(message: dict) -> str:
    """A message's text, after its reasoning in tags, so that what is reasoned is not read as the answer."""
    content = message.get("content")
    reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
    if isinstance(content, list):
        parts = [{"type": "text", "text": part} if isinstance(part, str) else part for part in content]
        parts = [part for part in parts if isinstance(part, dict)]
        reasoning = reasoning or "".join(part["thinking"] for part in parts if isinstance(part.get("thinking"), str))
        content = "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    return _with_reasoning(content if isinstance(content, str) else "", reasoning)


def _with_reasoning(text: str, reasoning: object) -> str:
    if not isinstance(reasoning, str) or not reasoning or "</think>" in text:
        return text
    return f"<think>{reasoning}</think>{text}" if text else f"<think>{reasoning}"


def question_of(value: object, index: int) -> str:
    """The text of a question, which is what predictions are matched by; a conversation is what its user says.

    >>> question_of([{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": ""}], 0)
    '1+1?'
    """
    value = from_json_text(value)
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        said = [turn for turn in value if str(turn.get("role", turn.get("from"))).lower() in ("user", "human")]
        texts = [turn.get("content", turn.get("value", turn.get("prompt"))) for turn in said]
        value = "\n".join(_text_of({"content": text}) if isinstance(text, list) else str(text) for text in texts)
    return str(index if is_missing(value) else value).strip()


def number_in(value: object, field_name: str) -> float | None:
    """A number, also as text; None for what is missing. Raises `ValueError` for anything else.

    >>> number_in("512", "budget"), number_in(float("nan"), "budget"), number_in(0.5, "ratio")
    (512.0, None, 0.5)
    """
    if is_missing(value):
        return None
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"{field_name} must be a number, got {value!r}")
    return found


def whole_in(value: object, field_name: str, smallest: int) -> int | None:
    """A whole number, also as text or as 512.0; None for what is missing. Raises `ValueError` for anything else.

    >>> whole_in("512.0", "budget", 1)
    512
    """
    try:
        found = number_in(value, field_name)
    except ValueError:
        found = math.nan
    if found is not None and (not found.is_integer() or found < smallest):
        raise ValueError(f"{field_name} must be a whole number of tokens, {smallest} or more; got {value!r}")
    return None if found is None else int(found)


def place_of(path: Path, index: int) -> str:
    """Where a row stands in its file, for a message: its line in JSON Lines, else its number."""
    if kind_of(path) == "json":
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
        text = data.decode(json.detect_encoding(data), "replace").lstrip("\ufeff")
        lines = [number for number, line in enumerate(text.split("\n"), 1) if line.strip()]
        if text.lstrip().startswith("{") and index < len(lines):
            return f"line {lines[index]}"
    return f"row {index + 1}"
