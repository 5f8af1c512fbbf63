"""The chat template of an export: what a server renders from a budget is what training read, on every template."""

import json
from importlib.resources import files

import jinja2.meta
import pytest
from jinja2 import nodes
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import _compile_jinja_template

from rlred.data.budgets import Wording
from rlred.data.prompts import Conversation, Prompts, prompt_ids, prompt_text
from rlred.publish.names import Base, remove_paths, without_paths
from rlred.publish.template import Variables, base_template, budget_template, context_length, default_mode
from rlred.tiny import resolve_model
from tests.test_prompts import SYSTEM, TEMPLATES, byte_tokenizer

TRAINING = {path.name: path.read_text() for path in files("trl").joinpath("chat_templates").iterdir()}
TRAINING = {name.removesuffix(".jinja"): text for name, text in TRAINING.items() if name.endswith("_training.jinja")}
EMBEDDED = ("tiny_reasoner", "tiny_verbose", "tiny_vlm")
ASKED = [("exact", 3), ("max", 64), ("free", None)]
MODES = ("exact", "max")
QUESTION = "What is {budget} of {question}, {{ 3 + 4 }} or {% if x %}<b>\\frac{1}{2}</b>{% endif %}?"
CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def user(content) -> dict:
    return {"role": "user", "content": content}


def variables(mode, budget) -> dict:
    return {"budget_mode": mode} | ({} if budget is None else {"thinking_budget": budget})


def text_of(tokenizer, template, turns, settings=None) -> str:
    """What a server renders, or the words in which the template refuses."""
    tokenizer.chat_template = template
    try:
        return prompt_text(tokenizer, Conversation(turns, settings or {}))
    except ValueError as error:
        return str(error)


def asked(settings, base=CHAT, turns=None, **changes) -> str:
    """What the budget template over `base` renders for a short question."""
    tokenizer = byte_tokenizer(base)
    prompts = changes.pop("prompts", Prompts()).fitted(tokenizer)
    made = budget_template(base, prompts, changes.pop("modes", MODES), **changes)
    return text_of(tokenizer, made, turns or [user("1+1?")], settings)


# --- the same as in training ------------------------------------------------------------------------------------------


def check_equal(tokenizer, base):
    """Training's ids for every mode, and the base's own text without the variables."""
    for system in (None, SYSTEM):
        tokenizer.chat_template = base
        prompts = Prompts(system_prompt=system).fitted(tokenizer)
        made = budget_template(base, prompts, MODES)
        before = [{"role": "system", "content": system}] if system else []
        for mode, budget in ASKED:
            tokenizer.chat_template = base
            wanted = prompts.ids(tokenizer, {"question": QUESTION}, budget, mode)
            tokenizer.chat_template = made
            served = Conversation([*before, user(QUESTION)], variables(mode, budget))
            assert prompt_ids(tokenizer, served) == wanted, (system, mode)
        reply = {"role": "assistant", "content": "<think>2</think>2"}
        parts = [{"type": "text", "text": "1+1?"}]
        for turns in ([user("1+1?")], [user("1+1?"), reply, user("2+2?")], [user(parts)]):
            for settings in ({}, {"thinking_budget": None, "budget_mode": None}, {"enable_thinking": False}):
                plain = text_of(tokenizer, base, [*before, *turns], settings)
                assert text_of(tokenizer, made, [*before, *turns], settings) == plain


@pytest.mark.parametrize("family", [*TEMPLATES, *TRAINING])
def test_a_server_renders_the_ids_that_training_read(family):
    base = {**TEMPLATES, **TRAINING}[family]
    check_equal(byte_tokenizer(base), base)


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_server_renders_the_ids_of_an_embedded_model(name):
    tokenizer = AutoTokenizer.from_pretrained(resolve_model(name))
    check_equal(tokenizer, tokenizer.chat_template)


WORDINGS = [
    Wording(max="Say \"{budget}\" \\n\n\t{question} 'ok' {{ budget }} {% raw %} %} é \U0001f600 \u2028 #}"),
    Wording(max="{question}\n\nAgain: {question} in at most {budget} tokens, {budget}!"),
    Wording(max="Spend {budget}. {question}", exact="{question}{budget}", free="A {question} B"),
]


@pytest.mark.parametrize("wording", WORDINGS)
@pytest.mark.parametrize("base", [CHAT, TEMPLATES["qwen3"]])
def test_any_wording_and_any_question_come_through(wording, base):
    tokenizer = byte_tokenizer(base)
    prompts = Prompts(wording).fitted(tokenizer)
    for mode, budget in ASKED:
        told = asked(variables(mode, budget), base, [user(QUESTION)], prompts=prompts)
        row = {"question": QUESTION}
        assert told == text_of(tokenizer, base, prompts.turns(row, budget, mode))


@pytest.mark.parametrize("words", ["{question} Spend {NAME:03}.", "{NAME} or {NAME:03} of 100: {question}"])
@pytest.mark.parametrize("base", [CHAT, TEMPLATES["qwen3"]])
@pytest.mark.parametrize(
    "mode, amount",
    [
        *(("effort", effort) for effort in (0.004, 0.01, 0.1, "low", 0.5, 0.994, 1)),
        *(("max", n) for n in (1, 17, 104, 20480)),
    ],
)
def test_a_number_of_three_digits_comes_through(mode, amount, words, base):
    tokenizer = byte_tokenizer(base)
    name = "effort" if mode == "effort" else "budget"
    prompts = Prompts(Wording(**{mode: words.replace("NAME", name)})).fitted(tokenizer)
    question = QUESTION + " {effort} and {effort:03} and {budget:03}"
    variable = "reasoning_effort" if mode == "effort" else "thinking_budget"
    told = asked({variable: amount}, base, [user(question)], prompts=prompts, modes=(mode,))
    assert told == text_of(tokenizer, base, prompts.turns({"question": question}, amount, mode))


@pytest.mark.parametrize("start", ["", "\n", "\n\n  ", "  {%- if true %} x{% endif %}\n", "{%- set a = 1 %}", "text\n"])
def test_trap_a_base_that_begins_with_space_keeps_it(start):
    tokenizer = byte_tokenizer(CHAT)
    made = budget_template(start + CHAT, Prompts(), MODES)
    assert text_of(tokenizer, made, [user("1+1?")]) == text_of(tokenizer, start + CHAT, [user("1+1?")])


# --- conversations ----------------------------------------------------------------------------------------------------


def test_only_the_last_user_message_is_worded():
    turns = [user("1+1?"), {"role": "assistant", "content": "2"}, user("2+2?"), {"role": "tool", "content": "4"}]
    told = asked(variables("max", 8), turns=turns)
    words = Wording().ask("2+2?", 8, "max")
    assert told == f"<user>1+1?<assistant>2<user>{words}<tool>4<assistant>"


PARTS = (
    "{% for m in messages %}<{{ m.role }}>{% for c in m.content %}"
    "{{ '<picture>' if c.type == 'image' else c.text }}|{% endfor %}{% endfor %}"
)


@pytest.mark.parametrize(
    "content, told",
    [
        ("1+1?", "<user>Up to 8: 1+1? Go.|"),
        ([{"type": "text", "text": "1+1?"}], "<user>Up to 8: 1+1? Go.|"),
        ([{"type": "image"}, {"type": "text", "text": "1+1?"}], "<user><picture>|Up to 8: 1+1? Go.|"),
        (
            [{"type": "text", "text": "Look:"}, {"type": "image"}, {"type": "text", "text": "1+1?"}],
            "<user>Up to 8: Look:|<picture>|1+1? Go.|",
        ),
        ([{"type": "image"}], "a user message has no text"),
        (None, "a user message has no text"),
    ],
)
def test_content_may_be_a_text_or_parts(content, told):
    prompts = Prompts(Wording(max="Up to {budget}: {question} Go."))
    said = asked(variables("max", 8), PARTS, [user(content)], prompts=prompts)
    assert said == told or (told.startswith("a user") and told in said)


def test_several_texts_cannot_be_said_twice():
    prompts = Prompts(Wording(max="{question} {question} {budget}"))
    texts = [{"type": "text", "text": "1"}, {"type": "text", "text": "2"}]
    assert "has several texts" in asked(variables("max", 8), PARTS, [user(texts)], prompts=prompts)
    assert asked(variables("max", 8), PARTS, [user(texts[:1])], prompts=prompts) == "<user>1 1 8|"


REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT


@pytest.mark.parametrize(
    "system, head",
    [("Be brief.", "Be brief.\n\n"), ([{"type": "text", "text": "Be brief."}], "Be brief.\n\n"), (" ", "")],
)
def test_a_system_message_goes_where_training_had_it(system, head):
    turns = [{"role": "system", "content": system}, user("1+1?"), {"role": "assistant", "content": "2"}, user("2+2?")]
    told = asked(variables("max", 8), REFUSES, turns)
    assert told == f"<user>{head}1+1?<assistant>2<user>{Wording().ask('2+2?', 8, 'max')}<assistant>"
    assert asked(variables("max", 8), REFUSES, [turns[0], user("1+1?")]) == (
        f"<user>{head}{Wording().ask('1+1?', 8, 'max')}<assistant>"
    )
    assert "no system" in asked({}, REFUSES, turns)  # without a budget the base decides


# --- the variables ----------------------------------------------------------------------------------------------------

BAD = [
    ({"thinking_budget": 0}, "thinking_budget=0 is no budget; give a whole number of tokens from 1 to 1000"),
    ({"thinking_budget": -5}, "thinking_budget=-5 is no budget"),
    ({"thinking_budget": "many"}, 'thinking_budget="many" is no budget'),
    ({"thinking_budget": "64"}, 'thinking_budget="64" is no budget'),
    (
        {"thinking_budget": 10**9},
        "thinking_budget=1000000000 is no budget; give a whole number of tokens from 1 to 1000",
    ),
    ({"thinking_budget": True}, "thinking_budget=true is no budget"),
    ({"thinking_budget": 1.5}, "thinking_budget=1.5 is no budget"),
    ({"thinking_budget": [64]}, "thinking_budget=[64] is no budget"),
    ({"thinking_token_budget": 0}, "thinking_token_budget=0 is no budget"),
    ({"thinking_budget": 8, "budget_mode": "extreme"}, 'budget_mode="extreme" is no mode of this model; give "exact"'),
    ({"thinking_budget": 8, "budget_mode": 1}, "budget_mode=1 is no mode"),
    ({"thinking_budget": 8, "budget_mode": "free"}, 'thinking_budget=8 goes with no budget_mode of "free"'),
    ({"budget_mode": "max"}, 'budget_mode="max" needs thinking_budget'),
]


@pytest.mark.parametrize("settings, message", BAD)
def test_a_value_that_is_no_budget_is_one_clear_line(settings, message):
    told = asked(settings, largest=1000, trained=(16, 80))
    assert message in told and "\n" not in told
    assert "<user>" not in told


def test_an_error_names_the_trained_range():
    assert "from 1 to 1000 (trained: 16 to 80)" in asked({"thinking_budget": 0}, largest=1000, trained=(16, 80))


@pytest.mark.parametrize("budget", [1, 16, 1000])
def test_budgets_up_to_the_largest_are_taken(budget):
    assert Wording().ask("1+1?", budget, "max") in asked({"thinking_budget": budget}, largest=1000, trained=(16, 80))


def test_the_alias_is_read_where_the_name_itself_is_missing():
    for settings in ({"thinking_token_budget": 8}, {"thinking_budget": 8, "thinking_token_budget": 99}):
        assert Wording().ask("1+1?", 8, "max") in asked(settings)
    assert Wording().ask("1+1?", 9, "max") in asked({"thinking_budget": None, "thinking_token_budget": 9})


@pytest.mark.parametrize(
    "modes, mode", [(("exact", "max"), "max"), (("max",), "max"), (("exact",), "exact"), (("free", "exact"), "exact")]
)
def test_a_number_alone_is_asked_in_the_trained_mode(modes, mode):
    assert default_mode(modes) == mode
    assert Wording().ask("1+1?", 8, mode) in asked({"thinking_budget": 8}, modes=modes)
    other = {"max": "exact", "exact": "max"}[mode]
    if other not in modes:
        assert "is no mode of this model" in asked(variables(other, 8), modes=modes)
    assert Wording().ask("1+1?", None, "free") in asked({"budget_mode": "free"}, modes=modes)


def test_a_base_that_reads_a_name_itself_keeps_it():
    base = "[{{ thinking_budget }}]" + CHAT
    assert Variables.beside(base) == Variables(("rlred_thinking_budget", "thinking_token_budget"))
    assert asked({"thinking_budget": 512}, base) == "[512]<user>1+1?<assistant>"
    assert asked({"rlred_thinking_budget": 8}, base) == f"[]<user>{Wording().ask('1+1?', 8, 'max')}<assistant>"
    effort = asked({"thinking_budget": 8, "reasoning_effort": "low"}, TEMPLATES["gptoss"])
    assert "Reasoning: low" in effort and "Think for maximum 8 tokens." in effort


# --- what servers and engines make of it ------------------------------------------------------------------------------

BLOCK = budget_template("", Prompts(), MODES)


def test_trap_servers_see_no_other_content_format_than_the_bases():
    # vLLM and SGLang hand over lists of parts where a template loops over a message's content; SGLang where it names
    # media; both would send lists to templates that take strings alone.
    tree = _compile_jinja_template(BLOCK).environment.parse(BLOCK)
    for loop in tree.find_all(nodes.For):
        assert not isinstance(loop.iter, nodes.Getattr | nodes.Getitem)
    assert not [word for word in ("image", "audio", "video", "vision") if word in BLOCK]


def test_trap_vllm_passes_only_what_a_template_reads_and_never_sets():
    tree = _compile_jinja_template(BLOCK).environment.parse(BLOCK)
    read = jinja2.meta.find_undeclared_variables(tree)
    assert {"thinking_budget", "thinking_token_budget", "budget_mode", "messages"} <= read
    assert {name for name in read if name.startswith("rlred")} == set()


def test_trap_an_engine_without_dict_and_unicode_escapes_reads_the_block():
    assert "dict(" not in BLOCK and ".items(" not in BLOCK and ".append(" not in BLOCK
    made = budget_template("", Prompts(Wording(max="é \U0001f600 {question} {budget}")), MODES)
    assert "\\u" not in made and "é \U0001f600" in made


def test_trap_sglang_turns_every_backslash_n_of_the_file_into_a_newline():
    words = "Up to {budget}:\n\\neg \\\n \\\\n {question} \\nabla"
    prompts = Prompts(Wording(max=words, exact=words + "!"), SYSTEM).fitted(byte_tokenizer(REFUSES))
    made = budget_template(REFUSES, prompts, MODES)
    read = made.strip("\n").replace("\\n", "\n")
    assert read != made
    turns = [{"role": "system", "content": SYSTEM}, user(QUESTION)]
    for mode in ("max", "exact"):
        wanted = text_of(byte_tokenizer(REFUSES), REFUSES, prompts.turns({"question": QUESTION}, 8, mode))
        assert words.split("{budget}")[1].split("{question}")[0] in wanted
        for template in (made, read):
            assert text_of(byte_tokenizer(REFUSES), template, turns, variables(mode, 8)) == wanted


def test_the_base_is_found_again():
    made = budget_template(CHAT, Prompts(), MODES)
    assert base_template(made) == CHAT == base_template(CHAT)
    assert budget_template(base_template(made), Prompts(), MODES) == made


# --- names of a published folder --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trained_on, given, name, public",
    [
        ("org/model", None, "org/model", True),
        ("/home/x/hub/models--org--my--model/snapshots/1f/", None, "org/my--model", True),
        ("/home/x/my-base", None, "my-base", False),
        ("./my-base/", None, "my-base", False),
        ("/home/x/my-base", "org/base", "org/base", True),
        ("tiny_reasoner", None, "data/tiny_reasoner", False),
        ("data/tiny_reasoner", None, "data/tiny_reasoner", False),
        (resolve_model("tiny_reasoner"), None, "data/tiny_reasoner", False),
        ("/home/x/tiny_reasoner", None, "tiny_reasoner", False),
        (r"\\fileserver\models\my-base", None, "my-base", False),
        ("\\\\fileserver\\models\\my-base\\", None, "my-base", False),
        ("//fileserver/models/my-base", None, "my-base", False),
        ("file:///home/x/my-base", None, "my-base", False),
        ("file://host/share/my%20base/", None, "my base", False),
        ("file:///C:/Users/me/my-base", None, "my-base", False),
        (r"C:\Users\me\my-base", None, "my-base", False),
        (r"models\my-base", None, "my-base", False),
        ("~/models/my-base", None, "my-base", False),
        (r"\\fileserver\models\my-base", "org/base", "org/base", True),
    ],
)
def test_a_base_is_called_by_a_name_that_leads_to_no_folder(trained_on, given, name, public):
    base = Base.of(trained_on, given)
    assert (base.name, base.public) == (name, public)
    assert bool(base.said()) != public


@pytest.mark.parametrize(
    "given", [r"\\fileserver\models\base", "file:///home/me/base", "/home/me/base", "C:/base", "a/b/c"]
)
def test_a_path_is_no_name_for_those_who_download(given):
    with pytest.raises(ValueError, match="is no Hub id, by which others find the base; name it as OWNER/NAME"):
        Base.of("org/model", given)


PATHS = [
    (r"\\fileserver\share\q.jsonl", "q.jsonl"),
    (r"\\fileserver\share\My Files\q.jsonl", "q.jsonl"),
    (r"\\?\C:\runs\q.jsonl", "q.jsonl"),
    ("file://host/share/q.jsonl", "q.jsonl"),
    ("file:///C:/Users/me/q.jsonl", "q.jsonl"),
    ("file:///q.jsonl", "q.jsonl"),
    ("cannot read file:///C:/Users/me/q.jsonl: gone", "cannot read q.jsonl: gone"),
    ("/home/me/q.jsonl", "q.jsonl"),
    ("/home/me/My Files/q.jsonl", "q.jsonl"),
    ("/srv/runs/7/", "7"),
    ("/data", "data"),
    ("--questions=/home/me/q.jsonl", "--questions=q.jsonl"),
    ("/usr/bin/python train.py --q=/home/me/q.jsonl", "python train.py --q=q.jsonl"),
    ("file:///home/me/x", "x"),
    ("cannot read /home/me/q.jsonl: gone", "cannot read q.jsonl: gone"),
    ("{'path': '/home/me/q.jsonl', 'n': 3}", "{'path': 'q.jsonl', 'n': 3}"),
    ("/usr/bin:/home/me/bin", "bin:bin"),
    (r"C:\Users\me\q.jsonl", "q.jsonl"),
    (r"--questions=D:\runs\q.jsonl", "--questions=q.jsonl"),
    ("C:/Users/me/q.jsonl", "q.jsonl"),
]
NO_PATHS = [
    *(r"1 \\ 2 \\ 3", r"a \\\alpha\beta\gamma", r"\\alpha\beta", r"\\frac{1}{2}\cdot\pi"),
    *(r"\frac{1}{2}\sqrt{3}", r"\alpha\beta", r"\\alpha\\beta", r"f:\mathbb{R}\to\mathbb{R}"),
    *(r"\s?\p{L}+", r"\btake\b", r"/\d+/g", "/(?:a|b)/c", "/usr/*/x", "^/a/b$", "s/foo/bar/"),
    *("/think", "/no_think", "/think about it", "</think>", "[/THINK]", "n/a", "3/4/5", "1 / 2 / 3"),
    *(
        "org/model",
        "outputs/run",
        "./outputs/run",
        "https://host.org/a/b",
        "s3://bucket/a/b",
        "http://127.0.0.1:80/v1/x",
    ),
]


@pytest.mark.parametrize("told, plain", [*PATHS, *((one, one) for one in NO_PATHS)])
def test_a_path_of_this_machine_is_its_last_name_wherever_it_stands(told, plain):
    assert without_paths({"one": [told]}, {}) == {"one": [plain]}
    assert without_paths({told: 1}, {}) == {plain: 1}


@pytest.mark.parametrize("key", ["system_prompt", "end_of_thinking", "wording", "markers", "instruction"])
def test_trap_the_words_that_a_model_reads_stay_as_they_are(key):
    told = {"arguments": {key: {"max": "Look into /usr/share/words. {question}"}, "questions": "/home/me/q.jsonl"}}
    plain = without_paths(told, {})
    assert plain == {"arguments": {key: told["arguments"][key], "questions": "q.jsonl"}}


def test_two_entries_of_one_name_are_both_kept():
    assert without_paths({"/a/x": 1, "/b/x": 2, "y": 3}, {}) == {"x": 1, "x (2)": 2, "y": 3}


def test_records_lose_their_paths_and_nothing_else(tmp_path):
    told = {"model": "/srv/me/base", "n": 1, "words": ["/think about it", "a/b", "org/model", "/no_think"]}
    (tmp_path / "run.json").write_text(json.dumps({**told, "list": ["/srv/me/base/q.jsonl", "/tmp"]}))
    (tmp_path / "table.md").write_text("Model `/srv/me/base`, questions /srv/me/base/q.jsonl, outputs/tmp.")
    remove_paths(tmp_path, ("run.json", "table.md", "missing.json"))
    assert json.loads((tmp_path / "run.json").read_text()) == {**told, "model": "base", "list": ["q.jsonl", "tmp"]}
    assert (tmp_path / "table.md").read_text() == "Model `base`, questions q.jsonl, outputs/tmp."


def test_the_largest_budget_is_the_context_of_the_base(tmp_path):
    assert context_length("tiny_reasoner") == 2048
    assert context_length(str(tmp_path)) == 2**20  # no model: nobody knows
