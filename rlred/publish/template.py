r"""A budget as a variable of the chat template, so that a server words it as training did.

    budget_template   a base's chat template behind a block that words the last user message
    base_template     the base's again
    Variables         how the block's variables are called beside those of the base
    context_length    the largest budget that a base could keep

    thinking_budget         whole number of tokens, for mode exact or max
    thinking_token_budget   the same under the name of vLLM's request field; read where thinking_budget is not given
    budget_mode             exact, max (where it was trained, the default) or free, which takes no number
    reasoning_effort        where efforts were trained: low, medium, high or a number above 0 and at most 1; a number of
                            tokens, or another budget_mode, wins over it, since some servers send one with every request

The block rewrites the messages and hands them to the base's template, which stays as it is, byte for byte. What it
writes is `Wording.ask` (tests/test_template.py holds this for every template that TRL ships). A system message goes
where training had it: into the first user message where the base takes no system turn. Earlier messages of a
conversation keep their text.

Servers read templates to decide how to hand over content: vLLM and SGLang look for a loop over `message.content`, and
SGLang for the names of media; vLLM passes only variables that a template reads and never sets. SGLang turns each `\n`
of a template's file into a newline. llama.cpp runs templates with an engine of its own, without `dict()` and with the
plain escapes alone. The block keeps to what all of them take.
"""

import json
import re
from dataclasses import dataclass

from rlred.data.budgets import EFFORTS, Wording, asks_tokens
from rlred.data.models import context_of
from rlred.data.prompts import Prompts

LARGEST = 2**20  # where nobody knows the context of the base
_TAKES = f"{', '.join(EFFORTS)}, or a number above 0 and at most 1"

# `@NAME@` is replaced. Every tag strips the space around it but the last, whose newline is trimmed: the base's text
# begins as it would at the start of a file.
_FIRST, _LAST = "{#- The words of a budget, as they were trained", "{#- the template of the base #}\n"
_BLOCK = (
    _FIRST
    + r"""; without @FIELDS@ and @MODE@ nothing changes. -#}
{%- set rlred = namespace(field="", budget=none, effort=none, mode=none, words="", last=-1, head="") -%}
{%- set rlred.turns = [] -%}
@TAKE@@EFFORT@@NO_TOKENS@
{%- if @MODE@ is defined and @MODE@ is not none -%}
    {%- set rlred.mode = @MODE@ -%}
{%- elif rlred.field -%}
    {%- set rlred.mode = "@DEFAULT@" -%}
{%- elif rlred.effort is not none -%}
    {%- set rlred.mode = "effort" -%}
{%- endif -%}
{%- if rlred.mode is not none -%}
    @WORDS@
    {%- else -%}
        {{- raise_exception("@MODE@=" ~ (rlred.mode | tojson) ~ " is no mode of this model; give @KNOWN@") -}}
    {%- endif -%}
    {%- if rlred.mode == "free" -%}
        {%- if rlred.field -%}
            {{- raise_exception(rlred.field ~ "=" ~ (rlred.budget | tojson) ~
                " goes with no @MODE@ of \"free\"; leave one of them out") -}}
        {%- endif -%}
    {%- elif rlred.mode == "effort" -%}
        @ASK_EFFORT@
    {%- elif not rlred.field -%}
        {{- raise_exception("@MODE@=" ~ (rlred.mode | tojson) ~
            " needs @FIELD@, a whole number of tokens from 1 to @LARGEST@@TRAINED@") -}}
    {%- elif rlred.budget is not integer or rlred.budget < 1 or rlred.budget > @LARGEST@ -%}
        {{- raise_exception(rlred.field ~ "=" ~ (rlred.budget | tojson) ~
            " is no budget; give a whole number of tokens from 1 to @LARGEST@@TRAINED@") -}}
    {%- else -%}
        {%- set rlred.words = rlred.words@WRITE_BUDGET@ -%}
    {%- endif -%}
    {%- for rlred_turn in messages -%}
        {%- if rlred_turn["role"] == "user" -%}
            {%- set rlred.last = loop.index0 -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if rlred.last < 0 -%}
        {{- raise_exception("messages: there is no user message to word a budget in") -}}
    {%- endif -%}
    {%- for rlred_turn in messages -%}
        {%- set rlred_content = rlred_turn["content"] -%}
        {%- set rlred_asks = loop.index0 == rlred.last -%}
        {%- if @FOLDS@ and loop.first and rlred_turn["role"] == "system" -%}
            {%- if rlred_content is not string -%}
                {%- set rlred_content = rlred_content | map(attribute="text") | join -%}
            {%- endif -%}
            {%- if rlred_content | trim -%}
                {%- set rlred.head = rlred_content ~ "\n\n" -%}
            {%- endif -%}
        {%- elif rlred_turn["role"] == "user" and (rlred_asks or rlred.head or @IN_PARTS@) -%}
            {%- set rlred.parts = [] -%}
            {%- set rlred.texts = 0 -%}
            {%- set rlred.seen = 0 -%}
            {%- if rlred_content is string -%}
                {%- set rlred_content = [{"type": "text", "text": rlred_content}] -%}
                {%- set rlred.flat = not @IN_PARTS@ -%}
            {%- else -%}
                {%- set rlred.flat = false -%}
            {%- endif -%}
            {%- for rlred_part in rlred_content or [] -%}
                {%- if rlred_part["text"] is defined -%}
                    {%- set rlred.texts = rlred.texts + 1 -%}
                {%- endif -%}
            {%- endfor -%}
            {%- if rlred.texts == 0 -%}
                {{- raise_exception("messages: a user message has no text to word a budget in") -}}
            {%- endif -%}
            {%- for rlred_part in rlred_content -%}
                {%- if rlred_part["text"] is defined -%}
                    {%- set rlred.seen = rlred.seen + 1 -%}
                    {%- set rlred.text = rlred_part["text"] -%}
                    {%- if rlred_asks and rlred.texts == 1 -%}
                        {%- set rlred.text = rlred.words.replace("{question}", rlred.text) -%}
                    {%- elif rlred_asks -%}
                        {%- set rlred.around = rlred.words.split("{question}") -%}
                        {%- if rlred.around | length > 2 -%}
                            {{- raise_exception("messages: the user message has several texts, and the words of a " ~
                                "budget take just one; join them") -}}
                        {%- endif -%}
                        {%- if rlred.seen == 1 -%}
                            {%- set rlred.text = rlred.around[0] ~ rlred.text -%}
                        {%- endif -%}
                        {%- if rlred.seen == rlred.texts -%}
                            {%- set rlred.text = rlred.text ~ rlred.around[1] -%}
                        {%- endif -%}
                    {%- endif -%}
                    {%- set rlred.text = rlred.head ~ rlred.text -%}
                    {%- set rlred.head = "" -%}
                    {%- set rlred.parts = rlred.parts + [{"type": "text", "text": rlred.text}] -%}
                {%- else -%}
                    {%- set rlred.parts = rlred.parts + [rlred_part] -%}
                {%- endif -%}
            {%- endfor -%}
            {%- if rlred.flat -%}
                {%- set rlred.turns = rlred.turns + [{"role": "user", "content": rlred.text}] -%}
            {%- else -%}
                {%- set rlred.turns = rlred.turns + [{"role": "user", "content": rlred.parts}] -%}
            {%- endif -%}
        {%- elif rlred_turn["role"] == "system" and @IN_PARTS@ and rlred_content is string -%}
            {%- set rlred.parts = [{"type": "text", "text": rlred_content}] -%}
            {%- set rlred.turns = rlred.turns + [{"role": "system", "content": rlred.parts}] -%}
        {%- else -%}
            {%- set rlred.turns = rlred.turns + [rlred_turn] -%}
        {%- endif -%}
    {%- endfor -%}
    {%- set messages = rlred.turns -%}
{%- endif -%}
"""
    + _LAST
)


@dataclass(frozen=True)
class Variables:
    """How the variables are called: by their plain names, but where the base's template reads one of those itself.

    >>> Variables.beside("{{ messages }}")
    Variables(budgets=('thinking_budget', 'thinking_token_budget'), mode='budget_mode', effort='reasoning_effort')
    >>> Variables.beside("{% if thinking_budget %}...{% endif %}").budgets
    ('rlred_thinking_budget', 'thinking_token_budget')
    """

    budgets: tuple[str, ...] = ("thinking_budget", "thinking_token_budget")
    mode: str = "budget_mode"
    effort: str = "reasoning_effort"

    @classmethod
    def beside(cls, base: str) -> "Variables":
        """Names that the template `base` does not read."""

        def own(name: str) -> str:
            return f"rlred_{name}" if re.search(rf"\b{name}\b", base) else name

        return cls(tuple(own(name) for name in cls.budgets), own(cls.mode), own(cls.effort))

    def left_of(self, defaults: dict, told: dict) -> dict:
        """The defaults that go with what a request has told: not what it names, and nothing that contradicts it.

        A number goes with no default of another number, of an effort, or of a mode that takes none; an effort with no
        default of a number or of a mode of numbers; a mode with no default that it does not take.

        >>> names, server = Variables(), {"thinking_budget": 64, "budget_mode": "exact", "enable_thinking": False}
        >>> names.left_of(server, {"thinking_token_budget": 32})
        {'budget_mode': 'exact', 'enable_thinking': False}
        >>> names.left_of(server, {"budget_mode": "free"}), names.left_of(server, {"budget_mode": "max"})
        ({'enable_thinking': False}, {'thinking_budget': 64, 'enable_thinking': False})
        """
        gone, mode = set(told), told.get(self.mode)
        numbers = [told[name] for name in self.budgets if name in told]
        number = any(value is not None for value in numbers)
        if numbers:
            gone |= {*self.budgets}
        if number or mode == "free":
            gone |= {self.effort}
        if mode in ("free", "effort"):
            gone |= {*self.budgets}
        if mode is None and told.get(self.effort) is not None and not number:
            gone |= {*self.budgets}
        of_number = defaults.get(self.mode) not in ("free", "effort")
        if (number and not of_number) or (numbers and not number and of_number):
            gone |= {self.mode}
        if told.get(self.effort) is not None and not number and defaults.get(self.mode) != "effort":
            gone |= {self.mode}
        return {name: value for name, value in defaults.items() if name not in gone}


def budget_template(
    base: str,
    prompts: Prompts,
    modes: tuple[str, ...],
    *,
    largest: int = LARGEST,
    trained: tuple[int, int] | None = None,
    efforts: tuple[float, float] | None = None,
) -> str:
    """The chat template `base` behind the block that words a budget.

    `prompts` are the run's, fitted to its tokenizer; `modes` those that were trained (free is always there); `largest`
    is the largest number of tokens that is taken; `trained` and `efforts` are the ranges that an error names.
    """
    names, asking = Variables.beside(base), [mode for mode in modes if mode != "free"]
    known = [f'"{mode}" with {names.effort if mode == "effort" else names.budgets[0]}' for mode in asking]
    known, takes_efforts = [*known, '"free" without'], "effort" in modes
    told = {
        "ASK_EFFORT": _ASK_EFFORT if takes_efforts else "",
        "WRITE_EFFORT": _number("effort", (prompts.wording.effort,)),
        "WRITE_BUDGET": _number("budget", (prompts.wording.exact, prompts.wording.max)),
        "NO_TOKENS": _NO_TOKENS if takes_efforts and not asks_tokens(asking) else "",
        "NAME": names.effort,
        "TAKES": _TAKES + ("" if efforts is None else f" (trained: {efforts[0]:g} to {efforts[1]:g})"),
        "FIELDS": " or ".join([*names.budgets, *([names.effort] if takes_efforts else [])]),
        "FIELD": names.budgets[0],
        "MODE": names.mode,
        "DEFAULT": default_mode(modes),
        "KNOWN": " or ".join(known).replace('"', '\\"'),
        "LARGEST": str(largest),
        "TRAINED": "" if trained is None else f" (trained: {trained[0]} to {trained[1]})",
        "FOLDS": str(prompts.folds_system).lower(),
        "IN_PARTS": str(prompts.in_parts).lower(),
        "TAKE": _take(names.budgets),
        "EFFORT": _effort(names.effort) if takes_efforts else "",
        # Last: what a wording says is not searched for names.
        "WORDS": _words(prompts.wording, (*asking, "free")),
    }
    block = _BLOCK
    for name, text in told.items():
        block = block.replace(f"@{name}@", text)
    return block + base


def base_template(template: str) -> str:
    """The base's chat template, of one that `budget_template` has made or of any other.

    >>> made = budget_template("{{ messages }}", Prompts(), ("max",))
    >>> base_template(made), base_template("{{ messages }}")
    ('{{ messages }}', '{{ messages }}')
    """
    return template.partition(_LAST)[2] if template.startswith(_FIRST) else template


def default_mode(modes: tuple[str, ...]) -> str:
    """The mode of a number without one: max where it was trained, as servers mean a budget; otherwise exact."""
    return "max" if "max" in modes or "exact" not in modes else "exact"


def context_length(base: str, trust_remote_code: bool = False) -> int:
    """The positions of a base that lies on this machine; `LARGEST` where it does not say.

    >>> context_length("tiny_reasoner") < LARGEST
    True
    """
    from transformers import AutoConfig

    from rlred.tiny import resolve_model

    try:
        config = AutoConfig.from_pretrained(
            resolve_model(base), local_files_only=True, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError, ImportError):
        return LARGEST
    return context_of(config) or LARGEST


def _take(names: tuple[str, ...]) -> str:
    """Tags that take the first of the variables that is given."""
    lines = []
    for start, name in zip(("if", *["elif"] * len(names)), names, strict=False):
        lines += [
            f"{{%- {start} {name} is defined and {name} is not none -%}}",
            f'    {{%- set rlred.field = "{name}" -%}}',
            f"    {{%- set rlred.budget = {name} -%}}",
        ]
    return "\n".join([*lines, "{%- endif -%}"])


# Where efforts alone were trained, a number of tokens is refused in words that say so.
_NO_TOKENS = r"""
{%- if rlred.field -%}
    {{- raise_exception(rlred.field ~ "=" ~ (rlred.budget | tojson) ~
        ": this model was trained for efforts, not for numbers of tokens; leave it out and give @NAME@, @TAKES@") -}}
{%- endif -%}"""

# What the mode effort does with its words; a wrong effort is an error where it is used, not where another value wins.
_ASK_EFFORT = r"""{%- if rlred.effort is none or rlred.field -%}
            {{- raise_exception("@MODE@=\"effort\" needs @NAME@, @TAKES@, and no number of tokens") -}}
        {%- elif rlred.effort is boolean or rlred.effort is not number or
                not (rlred.effort > 0 and rlred.effort <= 1) -%}
            {{- raise_exception("@NAME@=" ~ (rlred.told | tojson) ~ " is no effort; give @TAKES@") -}}
        {%- endif -%}
        {%- set rlred.effort = (100 * rlred.effort + 0.5) | int -%}
        {%- if rlred.effort < 1 -%}
            {%- set rlred.effort = 1 -%}
        {%- endif -%}
        {%- set rlred.words = rlred.words@WRITE_EFFORT@ -%}"""


def _number(name: str, words: tuple[str, ...]) -> str:
    """The calls that write a number into these words; they pad by a slice, as not every reader has a filter for it."""
    plain, three = f"{{{name}}}", f"{{{name}:03}}"
    calls = f'.replace("{plain}", rlred.{name} | string)'
    if any(three in one for one in words):
        digits = f'("00" ~ rlred.{name})[-3:] if rlred.{name} < 100 else rlred.{name} | string'
        calls = f'.replace("{three}", {digits})' + calls
    return calls


def _effort(name: str) -> str:
    """Tags that take an effort, a name as its number."""
    lines = ["", f"{{%- if {name} is defined and {name} is not none -%}}", f"    {{%- set rlred.told = {name} -%}}"]
    lines += [f"    {{%- set rlred.effort = {name} -%}}"]
    for word, value in EFFORTS.items():
        lines += [
            f'    {{%- if {name} == "{word}" -%}}',
            f"        {{%- set rlred.effort = {value} -%}}",
            "    {%- endif -%}",
        ]
    return "\n".join([*lines, "{%- endif -%}"])


def _words(wording: Wording, modes: tuple[str, ...]) -> str:
    """Tags that choose the words of a mode, without their end."""
    lines = []
    for start, mode in zip(("if", *["elif"] * len(modes)), modes, strict=False):
        lines += [
            f'    {{%- {start} rlred.mode == "{mode}" -%}}',
            f"        {{%- set rlred.words = {_literal(getattr(wording, mode))} -%}}",
        ]
    return "\n".join(lines).strip()


def _literal(text: str) -> str:
    r"""A text as a string of Jinja: characters as they are, since not every engine knows `\u`.

    A backslash before an n ends a string of its own: SGLang reads the two as a newline, wherever they stand.

    >>> print(_literal('a "b"\n'), _literal("\\neg"))
    "a \"b\"\n" "\\" ~ "neg"
    """
    escaped = json.dumps(text, ensure_ascii=False)
    return re.sub(r"\\\\(n)|\\.", lambda found: r'\\" ~ "n' if found[1] else found[0], escaped)
