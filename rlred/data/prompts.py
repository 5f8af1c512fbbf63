r"""Prompts: the one place where a row becomes what a model reads, and what it wrote becomes text.

    Prompts          the value that is passed around: wording, system prompt, template settings, what is no answer
    Conversation     turns and the settings that render them: what `complete` takes
    prompt_ids       a prompt -> token ids; prompt_text: the same as text
    decode           completion ids -> texts that keep the end of thinking, and no markers of counted thinking
    marker_errors    how true the counts of a completion's markers are
    end_ids          the end of thinking as token ids; tell_end hands it to rewards, correctness and length

TRL renders the rows' `prompt` itself, with `GRPOConfig.chat_template_kwargs`; the rows and those settings come from
here, so training and measuring read the same ids (tests/test_prompts.py holds this for every template TRL ships).

A system prompt is a turn of its own. A row's own text in the column `system` takes its place, unless it is blank. A
template that refuses system turns, or drops them, gets the text at the head of the first user turn.

A completion is never rendered: its ids, or its text, follow the prompt's. Templates strip the thinking of assistant
turns, and an answer that went through one would be trained without it.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedTokenizerBase

from rlred.data.budgets import Wording, make_wording
from rlred.data.markers import Markers, make_markers
from rlred.rewards import Correctness, ExactMatch, Length
from rlred.rewards.length import find_end
from rlred.tokens import token_texts

# What apply_chat_template and TRL set themselves; everything else reaches the template.
_RESERVED = frozenset(
    "conversation messages tools documents chat_template add_generation_prompt continue_final_message tokenize padding "
    "truncation max_length return_tensors return_dict return_assistant_tokens_mask tokenizer_kwargs "
    "processor_kwargs".split()
)
# Marks that end the thinking, the published families' in turn; the first that a tokenizer knows is its own.
MARKS = (
    "</think>",  # DeepSeek-R1, Qwen3, QwQ, GLM, Nemotron, ...
    "[/THINK]",  # Magistral
    "</seed:think>",
    "<|END_THINKING|>",  # Command A Reasoning
    "<channel|>",  # Gemma 4
    "<|end|><|start|>assistant<|channel|>final<|message|>",  # gpt-oss: the analysis channel ends, the final one begins
)
DEFAULT_END = Correctness().end_of_thinking
_PROBE = "rlred probe"
# What may stand beside a mark of several tokens, and share one with it.
_LEFT, _RIGHT = ("", "x", "7", ".", ")", "}", "$", " ", "\n", "\n\n", ".\n"), ("", "\n", "\n\n", " ", "x", "\\")


@dataclass(frozen=True)
class Prompts:
    """How a row is asked. Raises `ValueError` for settings that do not belong to a chat template.

    >>> Prompts(system_prompt="Be brief.").turns({"question": "1+1?"}, None, "free")[0]
    {'role': 'system', 'content': 'Be brief.'}
    >>> folded = Prompts(Wording(free="{question}"), "Be brief.", folds_system=True)
    >>> folded.turns({"question": "1+1?"}, None, "free")
    [{'role': 'user', 'content': 'Be brief.\\n\\n1+1?'}]
    """

    wording: Wording = field(default_factory=Wording)
    system_prompt: str | None = None
    chat_template_kwargs: dict = field(default_factory=dict)
    """Settings of the chat template, such as `enable_thinking: false`."""
    end_of_thinking: str | None = None
    """The text that ends the thinking; "" where the model has none; None: as the tokenizer says, or else the reward."""
    folds_system: bool = False
    """Whether the system prompt stands in the first user turn; `fitted` sets it where the template takes none."""
    in_parts: bool = False
    """Whether a turn is a list of parts, `{"type": "text", ...}`; `fitted` sets it where the template drops strings."""
    markers: Markers | None = None
    """The markers that the model writes into its thinking, left out of its completions' texts; None: it writes none."""

    def __post_init__(self):
        for name in ("system_prompt", "end_of_thinking"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ValueError(f"{name} must be text, got {value!r}")
        object.__setattr__(self, "chat_template_kwargs", template_settings(self.chat_template_kwargs))

    def turns(self, row: dict, budget: int | None, mode: str, request: str = "") -> list[dict]:
        """The conversation that asks a row for a budget; `request` follows the question and its budget."""
        return self.conversation(self.wording.ask(row["question"], budget, mode) + request, row.get("system"))

    def conversation(self, content: str | list, system: str | None = None) -> list[dict]:
        """A user turn (text, or content parts) behind the system prompt, or behind the row's own where it has one."""
        own = system if isinstance(system, str) and system.strip() else self.system_prompt
        if self.in_parts and isinstance(content, str):
            content = [{"type": "text", "text": content}]
        if not own or not own.strip():
            return [{"role": "user", "content": content}]
        if not self.folds_system:
            kind = own if isinstance(content, str) else [{"type": "text", "text": own}]
            return [{"role": "system", "content": kind}, {"role": "user", "content": content}]
        if isinstance(content, str):
            return [{"role": "user", "content": f"{own}\n\n{content}"}]
        first = next((i for i, part in enumerate(content) if part["type"] == "text"), len(content))
        text = f"{own}\n\n{content[first]['text']}" if first < len(content) else own
        return [{"role": "user", "content": [*content[:first], {"type": "text", "text": text}, *content[first + 1 :]]}]

    def asked(self, turns: list[dict]) -> "Conversation":
        """The turns with the settings that render them."""
        return Conversation(turns, self.chat_template_kwargs)

    def ids(self, tokenizer, row: dict, budget: int | None, mode: str, request: str = "") -> list[int]:
        """The ids of the prompt that asks a row for a budget."""
        return prompt_ids(tokenizer, self.asked(self.turns(row, budget, mode, request)))

    def fitted(self, renderer) -> "Prompts":
        """These prompts for a tokenizer or processor: how turns are written, and what ends the thinking."""
        tokenizer, end = getattr(renderer, "tokenizer", renderer), self.end_of_thinking
        end = found_end(tokenizer) if end is None else end
        bare = dataclasses.replace(self, system_prompt=None, folds_system=False, in_parts=False, end_of_thinking=end)
        fits = [bare]
        if getattr(renderer, "chat_template", None):
            ways = [(False, False), (False, True), (True, False), (True, True)]  # the plainest first
            fits = [dataclasses.replace(bare, folds_system=folds, in_parts=parts) for folds, parts in ways]
            fits = [one for one in fits if one.keeps(renderer)] or [bare]
        return dataclasses.replace(fits[0], system_prompt=self.system_prompt)

    def keeps(self, renderer) -> bool:
        """Whether the chat template writes system prompt and question, each as it is."""
        try:
            turns = self.conversation(_PROBE, f"{_PROBE} system")
            text = prompt_text(renderer, self.asked(turns))
        except ValueError:
            return False
        return text.count(_PROBE) == 2

    @property
    def end(self) -> str:
        """The end of thinking, or "" for none; where nobody knows it, the text that rewards look for by default."""
        return DEFAULT_END if self.end_of_thinking is None else self.end_of_thinking

    def described(self) -> dict:
        """The settings as a run's record keeps them."""
        names = ("system_prompt", "chat_template_kwargs", "end_of_thinking")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Conversation:
    """Turns, and the template settings that render them."""

    turns: list[dict]
    chat_template_kwargs: dict = field(default_factory=dict)

    def plain(self) -> list:
        """What tells it from another, as JSON; without settings, the turns alone, as before there were settings."""
        return [*self.turns, self.chat_template_kwargs] if self.chat_template_kwargs else self.turns


Prompt = Conversation | list[dict] | list[int]


def as_prompts(prompts: Prompts | Wording) -> Prompts:
    """Prompts; a wording alone is asked without system prompt and settings."""
    return prompts if isinstance(prompts, Prompts) else Prompts(prompts)


def template_settings(value: dict | str | None) -> dict:
    """`chat_template_kwargs` from YAML, JSON or a run's record. Raises `ValueError` for what is no such mapping.

    >>> template_settings('{"enable_thinking": false}'), template_settings(None)
    ({'enable_thinking': False}, {})
    """
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except json.JSONDecodeError as error:
            raise ValueError(f"chat_template_kwargs: not JSON: {error}") from None
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"chat_template_kwargs must be a mapping such as {{enable_thinking: false}}, got {value!r}")
    reserved = sorted(_RESERVED & set(value))
    if reserved:
        raise ValueError(
            f"chat_template_kwargs: {reserved[0]!r} is no setting of a chat template; name variables of the template, "
            "such as enable_thinking"
        )
    return dict(value)


def prompts_of_record(record: dict) -> Prompts:
    """The prompts of a run from its run.json; L1's wording without settings where it does not say."""
    arguments, training = record.get("arguments") or {}, record.get("training") or {}
    settings = training.get("chat_template_kwargs") or arguments.get("chat_template_kwargs")
    # Runs before these settings were recorded have the text "None" here.
    settings = None if settings == "None" else settings
    return Prompts(
        make_wording(arguments.get("wording") or "l1"),
        arguments.get("system_prompt"),
        template_settings(settings),
        arguments.get("end_of_thinking"),
        markers=make_markers((arguments.get("hindsight_settings") or {}).get("markers")),
    )


def prompt_text(renderer, prompt: Conversation | list[dict]) -> str:
    """The text of a prompt, opened for the answer; `renderer` is a tokenizer or a processor.

    Raises `ValueError` with the template's own words where it refuses the conversation.
    """
    turns, settings = (prompt.turns, prompt.chat_template_kwargs) if isinstance(prompt, Conversation) else (prompt, {})
    try:
        return renderer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False, **settings)
    except Exception as error:  # whatever a template raises: jinja2's errors, TypeError, KeyError, ...
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"chat_template: refuses the turns {[turn['role'] for turn in turns]}: {reason}") from error


def prompt_ids(tokenizer, prompt: Prompt) -> list[int]:
    """The ids of a prompt, opened for the answer; ids are returned as they are.

    Special tokens are those of the template's text and no others, as in TRL: a tokenizer that puts a beginning of
    sequence before every text would put a second one before the template's.
    """
    if not isinstance(prompt, Conversation) and prompt and isinstance(prompt[0], int):
        return list(prompt)
    return tokenizer(prompt_text(tokenizer, prompt), add_special_tokens=False)["input_ids"]


def snippet(prompts: Prompts, turns: list[dict]) -> str:
    """Lines of Python that render the turns as they were rendered in training, for a model card."""
    settings = "".join(f", {name}={value!r}" for name, value in prompts.chat_template_kwargs.items())
    return (
        f"prompt = {json.dumps(turns, ensure_ascii=False)}\n"
        "inputs = tokenizer.apply_chat_template(\n"
        f'    prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True{settings}\n)'
    )


def with_pad_token(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer with a token to pad with: its own, or one that it has already; the model keeps its size.

    A row that has ended is padded, and what follows its end is not read. Raises `ValueError` where there is none.
    """
    if tokenizer.pad_token is None:
        known = [token for token in (tokenizer.eos_token, tokenizer.unk_token, tokenizer.bos_token) if token]
        known += tokenizer.all_special_tokens
        if not known:
            raise ValueError("pad_token: the tokenizer has no special token to pad with; name its pad_token")
        tokenizer.pad_token = known[0]
    return tokenizer


def found_end(tokenizer) -> str | None:
    """The end of thinking that a tokenizer knows as a token, or whose chat template spells it; None for neither."""
    vocab, template = tokenizer.get_vocab(), tokenizer.chat_template
    text = template if isinstance(template, str) else "\n".join((template or {}).values())
    for mark in MARKS:
        if mark in vocab or (mark in text and "|" not in mark):
            return mark
    return MARKS[-1] if {"<|channel|>", "<|message|>", "<|end|>", "<|start|>"} <= set(vocab) else None


def end_ids(tokenizer, end: str | None) -> tuple[tuple[int, ...], ...]:
    """The token sequences that write the end of thinking, one or several; none for an end of None or "".

    A mark that is no token of its own is written otherwise beside other text (`>` and two newlines may be one token):
    each way that a few neighbours bring about is one sequence, which may share its first or last token with them.
    """
    if not end:
        return ()
    if end in tokenizer.get_added_vocab():
        return ((tokenizer.convert_tokens_to_ids(end),),)
    if not tokenizer.is_fast:
        return (tuple(tokenizer(end, add_special_tokens=False)["input_ids"]),)
    found = {}
    for left in _LEFT:
        for right in _RIGHT:
            encoded = tokenizer(left + end + right, add_special_tokens=False, return_offsets_mapping=True)
            start, stop = len(left), len(left) + len(end)
            pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
            found[tuple(token for token, (a, b) in pairs if a < stop and b > start)] = None
    return tuple(ids for ids in found if ids)


def decode(
    tokenizer, completions: Sequence[Sequence[int]], end: str | None, markers: Markers | None = None
) -> list[str]:
    """Texts of completions without padding, ends of sequence and marks of the chat, but with those of the thinking.

    `</think>` is a special token of some tokenizers, and without it neither grading nor the measures see an end of the
    thinking. Its opening (the mark without its slash) is kept as well: rows for SFT are made from these texts. Markers
    of counted thinking are left out.
    """
    texts = _texts(tokenizer, completions, end)
    return [markers.strip(text, end) for text in texts] if markers else texts


def hides_marks(tokenizer, end: str | None) -> bool:
    """Whether decoding without special tokens leaves out a mark of the thinking."""
    return _special_marks(tokenizer, end) != (None, ())


def _special_marks(tokenizer, end: str | None) -> tuple[int | None, tuple[tuple[int, ...], ...]]:
    """Those of the marks that have special tokens: the opening's id, and the ends if one of them has any."""
    special, ends = special_ids(tokenizer), end_ids(tokenizer, end)
    opening = (end or "").replace("/", "", 1) if "/" in (end or "") else None
    found = next((i for i in special if tokenizer.convert_ids_to_tokens(i) == opening), None)
    return found, ends if any(special & set(ids) for ids in ends) else ()


def _texts(tokenizer, completions: Sequence[Sequence[int]], end: str | None) -> list[str]:
    opening, ends = _special_marks(tokenizer, end)
    if opening is None and not ends:
        return tokenizer.batch_decode(completions, skip_special_tokens=True)
    hidden = special_ids(tokenizer) - {opening}
    ends = ends or end_ids(tokenizer, end)
    texts = []
    for ids in map(list, completions):
        shown, start = [], 0
        while border := find_end(ids, ends, start):
            shown += [token for token in ids[start : border[0]] if token not in hidden]
            shown += ids[border[0] : border[1]]
            start = border[1]
        shown += [token for token in ids[start:] if token not in hidden]
        texts.append(tokenizer.decode(shown, skip_special_tokens=False))
    return texts


def marker_errors(tokenizer, ids: Sequence[int], budget: int | None, end: str | None, markers: Markers) -> list[int]:
    """By how many tokens each marker in a completion's thinking is off."""
    border = find_end(ids, end_ids(tokenizer, end))
    return markers.errors(token_texts(tokenizer, ids if border is None else ids[: border[0]]), budget)


def special_ids(tokenizer) -> set[int]:
    """The ids that `skip_special_tokens` leaves out."""
    return {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} | set(tokenizer.all_special_ids)


def text_in(turn: dict) -> str:
    """The text of a turn, a string or parts."""
    content = turn["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def thinking_end(correctness) -> str | None:
    """The end of thinking that a correctness looks for."""
    return getattr(correctness, "end_of_thinking", getattr(correctness, "answer_mark", None))


def end_of_rewards(rewards: Sequence) -> str | None:
    """The end of thinking that rewards bring along in place of `</think>`: None where none does, "" where it is none.

    Raises `ValueError` where they bring several.
    """
    own = {part.end_of_thinking or "" for part in parts_of(rewards) if isinstance(part, Correctness)} - {DEFAULT_END}
    if len(own) > 1:
        raise ValueError(f"reward: its parts name several ends of thinking, {sorted(own)}; give end_of_thinking once")
    return next(iter(own), None)


def parts_of(value) -> Iterator:
    """A reward, or several, and everything in it that is a dataclass."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from parts_of(item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield value
        yield from parts_of([getattr(value, item.name) for item in dataclasses.fields(value)])


def tell_end(part, end: str | None, tokenizer):
    """A reward, correctness or length that knows the end of thinking; as it was where the end is None.

    Replaced, however deep they lie: a `Correctness.end_of_thinking` and an `ExactMatch.answer_mark` that are `</think>`
    still, and the `end_of_thinking` of a `Length` that counts the thinking and was given none. Raises `ValueError`
    where one of them needs an end and "" says that there is none.
    """
    if end is None or not dataclasses.is_dataclass(part) or isinstance(part, type):
        return part
    if isinstance(part, Correctness):
        if not end and part.require_end_of_thinking:
            raise ValueError("correctness.require_end_of_thinking=True, but end_of_thinking='' says that there is none")
        return dataclasses.replace(part, end_of_thinking=end or None) if part.end_of_thinking == DEFAULT_END else part
    if isinstance(part, ExactMatch):
        return dataclasses.replace(part, answer_mark=end) if part.answer_mark == DEFAULT_END else part
    if isinstance(part, Length):
        untold = part.count == "thinking" and part.end_of_thinking is None
        return dataclasses.replace(part, end_of_thinking=end_ids(tokenizer, end)) if untold else part
    values = {item.name: getattr(part, item.name) for item in dataclasses.fields(part) if item.init}
    told = {name: tell_end(value, end, tokenizer) for name, value in values.items()}
    changed = {name: value for name, value in told.items() if value is not values[name]}
    return dataclasses.replace(part, **changed) if changed else part
