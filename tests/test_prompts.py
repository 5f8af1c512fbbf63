"""Prompts: the ids that training reads are those of every measure, whatever the chat template; and what was written
comes back as text with the end of its thinking.
"""

import json
import re
from importlib.resources import files

import pytest
import torch
from datasets import Dataset
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from trl import GRPOConfig, GRPOTrainer

from rlred.checks.audit import audit_rows
from rlred.cli import main as rlred
from rlred.compression.rows import RATIO_FORMATS
from rlred.compression.scores import SelfInformation
from rlred.compression.traces import split_completion
from rlred.data.budgets import BudgetSampler, Wording, ask, training_rows
from rlred.data.prompts import (
    MARKS,
    Conversation,
    Prompts,
    decode,
    end_ids,
    end_of_rewards,
    found_end,
    prompt_ids,
    prompt_text,
    prompts_of_record,
    snippet,
    tell_end,
    template_settings,
    with_pad_token,
)
from rlred.evaluation.baselines import Baselines
from rlred.evaluation.conditions import budget_conditions
from rlred.evaluation.evaluate import prompts_of
from rlred.evaluation.references import sample_references
from rlred.evaluation.sampling import Sampling
from rlred.evaluation.sweep import complete, sweep
from rlred.evaluation.trace_sources import Material
from rlred.rewards import ByMode, Correctness, ExactLength, ExactMatch, Length, MaxLength, make_reward
from rlred.rewards.length import find_end
from rlred.runs.arguments import parse
from rlred.runs.grpo import run
from rlred.runs.tale import sft_rows
from rlred.tiny.makers.tiny_vlm import build_processor
from rlred.training.adherence import LogsAdherence
from rlred.training.hindsight_settings import Hindsight
from rlred.training.relabelling import correct, relabel
from rlred.vision.budget_policy import VisualBudgetPolicy
from rlred.vision.rows import load_rows
from tests.paths import ROOT

TEMPLATES = {path.name.removesuffix(".jinja"): path for path in files("trl").joinpath("chat_templates").iterdir()}
TEMPLATES = {name: TEMPLATES[name].read_text() for name in sorted(TEMPLATES) if not name.endswith(("_training", ".md"))}
FAMILIES = ("qwen2_5", "qwen3", "llama3", "gemma3", "deepseek_r1_distill", "gptoss", "phi3", "nemotron_3_nano")
SYSTEM, OWN = "Answer like a mathematician.", "You are a pirate."
HARMONY = MARKS[-1]
QUESTIONS = [
    {"question_id": 0, "question": "What is 3+4?", "solution": "7", "system": None},
    {"question_id": 1, "question": "What is 20+5?", "solution": "25", "system": OWN},
]


def byte_tokenizer(template: str | None = None, *, special=(), plain=("<think>", "</think>"), **tokens):
    """A token for every byte, and one for every mark: those that a template mentions, `special` and `plain` ones."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={byte: i for i, byte in enumerate(bytes_)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    marks = re.findall(r"<[|\uff5c/]?[A-Za-z][^<>\s'\"{}+]{0,40}>|\[/?[A-Z_]{3,}\]", template or "")
    marks = [mark for mark in dict.fromkeys(marks) if mark not in ("<think>", "</think>")]
    core.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in [*marks, *special]])
    core.add_tokens([AddedToken(t, special=False, normalized=False) for t in plain])
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", **tokens}
    made = PreTrainedTokenizerFast(tokenizer_object=core, **{k: v for k, v in tokens.items() if v})
    made.chat_template = template
    return made


@pytest.fixture(scope="module")
def tiny():
    """A model with random weights and room for every byte tokenizer."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Qwen3Config(vocab_size=512, head_dim=8, num_key_value_heads=1, max_position_embeddings=8192, **shape)
    return Qwen3ForCausalLM(config).eval()


def grpo_config(folder, **changes) -> GRPOConfig:
    common = {"num_generations": 2, "per_device_train_batch_size": 4, "max_completion_length": 12, "max_steps": 1}
    common |= {"use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "disable_tqdm": True}
    common |= {"shuffle_dataset": False, "scale_rewards": "none"}
    return GRPOConfig(str(folder), **{**common, **changes})


class Recorder:
    """An engine that writes down what it is asked, and ends at once."""

    def __init__(self, tokenizer):
        self.stops, self.asked = {tokenizer.eos_token_id}, []

    def complete_batch(self, prompt_ids, limits, temperature, seed):
        self.asked += prompt_ids
        return [[min(self.stops)] for _ in prompt_ids]


@pytest.fixture(scope="module")
def trained_ids(tiny, tmp_path_factory):
    """The ids that GRPOTrainer makes of training rows with a tokenizer and its `chat_template_kwargs`."""
    tokenizer = byte_tokenizer(TEMPLATES["qwen3"])
    rows = Dataset.from_list([{"prompt": [{"role": "user", "content": "?"}]}] * 4)
    config = grpo_config(tmp_path_factory.mktemp("grpo"))
    trainer = GRPOTrainer(tiny, lambda completions, **_: [0.0] * len(completions), config, rows, None, tokenizer)

    def ids_of(rows, tokenizer, chat_template_kwargs):
        trainer.processing_class, trainer.chat_template_kwargs = tokenizer, chat_template_kwargs
        return trainer._tokenize_prompts([row["prompt"] for row in rows])[0]

    return ids_of


def settings_of(tokenizer) -> dict:
    """A setting that changes what the template writes; {} where it has none."""
    turns = Wording().turns(QUESTIONS[0], None, "free")
    tried = [{"enable_thinking": value} for value in (False, True)]
    tried += [{"reasoning_effort": "high"}, {"date_string": "1 Jan 2000"}]
    plain = prompt_text(tokenizer, turns)
    return next((one for one in tried if prompt_text(tokenizer, Conversation(turns, one)) != plain), {})


def asked_elsewhere(prompts: Prompts, tokenizer, monkeypatch) -> dict[str, list]:
    """The ids of QUESTIONS in every other way of rlred, in exact mode for 3 tokens or in mode free."""
    found, plain = {}, Dataset.from_list(QUESTIONS)
    engine = Recorder(tokenizer)
    sweep(engine, tokenizer, QUESTIONS, budget_conditions(prompts, [3]), sampling=Sampling(8))
    found["sweep"] = engine.asked
    traces = [{**row, "completion_ids": [70, 71, tokenizer.eos_token_id]} for row in QUESTIONS]
    sft = Hindsight(max_updates=1, cooldown_updates=0, batch_size=8)
    rows = relabel(traces, tokenizer, prompts, BudgetSampler(2, 9), sft, Length(), seed=0)
    starts = {tuple(row["input_ids"][: row["completion_mask"].index(1)]) for row in rows}
    found["hindsight"] = sorted(map(list, starts), key=len)
    monkeypatch.setattr("rlred.data.models.load_model", lambda *_: (Recorder(tokenizer), tokenizer))
    asked, told = [], complete
    monkeypatch.setattr(
        "rlred.evaluation.sweep.complete",
        lambda model, tokenizer, rows, sampling: (
            told(model, tokenizer, rows, sampling),
            asked.extend(model.asked),
        )[0],
    )
    flags = ["--chat_template_kwargs", json.dumps(prompts.chat_template_kwargs), "--mode", "exact", "--budgets", "3"]
    for row in QUESTIONS:
        system = row["system"] or prompts.system_prompt or ""
        assert rlred(["generate", row["question"], "--system_prompt", system, *flags]) == 0
    monkeypatch.undo()
    found["generate"] = asked

    engine = Recorder(tokenizer)
    sample_references(engine, tokenizer, plain, prompts=prompts, sampling=Sampling(8))
    found["reference"] = engine.asked
    engine = Recorder(tokenizer)
    conditions = budget_conditions(prompts, [3])
    baselines = Baselines(engine, tokenizer, QUESTIONS, conditions, sampling=Sampling(8))
    assert engine.asked == baselines.prompts
    found["baselines"] = baselines.prompts
    rows = sft_rows([{**row, "completion": "7"} for row in QUESTIONS], tokenizer, prompts)
    found["tale"] = [row["input_ids"][: row["completion_mask"].index(1)] for row in rows]
    words = RATIO_FORMATS["words"].fitted(tokenizer, prompts)
    found["compression"] = [words.prompt_ids(row["question"], 1.0, tokenizer, row["system"]) for row in QUESTIONS]
    scorer = SelfInformation(torch.nn.Identity(), tokenizer, prompts, window=10**5)
    texts = [Wording().ask(row["question"], None, "free") for row in QUESTIONS]
    found["scores"] = [scorer._before(text) for text in texts[:1]]  # the second one's own system text is not told
    found["card"] = []
    for row in QUESTIONS:
        names = {"tokenizer": tokenizer}
        exec(snippet(prompts, prompts.turns(row, None, "free")), names)
        found["card"].append(names["inputs"]["input_ids"][0].tolist())
    return found


@pytest.mark.parametrize("family", TEMPLATES)
def test_a_familys_prompt_is_the_same_in_training_and_in_every_measure(family, trained_ids, monkeypatch, capsys):
    tokenizer = byte_tokenizer(TEMPLATES[family])
    seen, own_settings = set(), settings_of(tokenizer)
    for system in (None, SYSTEM):
        for settings in ({}, own_settings or {"unknown": 1}):
            prompts = Prompts(Wording(), system, settings).fitted(tokenizer)
            rows = {
                mode: Dataset.from_list(list(ask(QUESTIONS, prompts, [(mode, budget)] * 2)))
                for mode, budget in (("exact", 3), ("free", None))
            }
            trained = {mode: trained_ids(own, tokenizer, settings) for mode, own in rows.items()}
            seen.add(json.dumps(trained["exact"]))
            for name, ids in asked_elsewhere(prompts, tokenizer, monkeypatch).items():
                wanted = trained["exact" if name in ("sweep", "hindsight", "generate") else "free"]
                wanted = sorted(wanted, key=len) if name == "hindsight" else wanted[: len(ids)]
                assert ids == wanted, (name, system, settings)
            texts = [tokenizer.decode(ids) for ids in trained["exact"]]
            for text, row in zip(texts, QUESTIONS, strict=True):
                assert Wording().ask(row["question"], 3, "exact") in text
                own = row["system"] or system
                assert own is None or own in text
                assert row["system"] is None or SYSTEM not in text  # the row's own text wins
            assert texts[0].count(tokenizer.bos_token) <= 1
    assert len(seen) == (4 if own_settings else 2)  # system prompt and settings both do something


@pytest.mark.parametrize("family", FAMILIES)
def test_grpo_reads_those_ids_in_a_real_step(family, tiny, tmp_path):
    tokenizer = byte_tokenizer(TEMPLATES[family])
    settings = settings_of(tokenizer)
    prompts = Prompts(Wording(), SYSTEM, settings).fitted(tokenizer)
    rows = training_rows(Dataset.from_list(QUESTIONS), prompts, BudgetSampler(2, 9), num_rows=2)
    seen = []

    class Watched(GRPOTrainer):
        def _generate_single_turn(self, prompt_ids, *args, **kwargs):
            seen.extend(prompt_ids)
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)

    config = grpo_config(tmp_path, chat_template_kwargs=settings)
    Watched(tiny, lambda completions, **_: [0.0] * len(completions), config, rows, None, tokenizer).train()
    wanted = [prompts.ids(tokenizer, row, row["budget"], row["mode"]) for row in rows]
    assert seen == [ids for ids in wanted for _ in range(2)]


# --- what chat templates do -------------------------------------------------------------------------------------------

CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
DROPS = CHAT.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}")
REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT


def findings(tokenizer, tiny, tmp_path, prompts, reward=None, questions=QUESTIONS[:1]):
    """What the audit says, as (level, field)."""
    prompts = prompts.fitted(tokenizer)
    rows = training_rows(Dataset.from_list(questions), prompts, BudgetSampler(2, 9), num_rows=2)
    training = grpo_config(tmp_path, chat_template_kwargs=prompts.chat_template_kwargs or None)
    found = audit_rows(rows, tokenizer, tiny, [reward or ExactLength()], BudgetSampler(2, 9), training, prompts)
    return [(finding.level, finding.field) for finding in found]


@pytest.mark.parametrize("template", [REFUSES, DROPS, TEMPLATES["gemma"]])
def test_trap_a_template_that_takes_no_system_turn_gets_it_in_the_user_turn(template, tiny, tmp_path):
    tokenizer = byte_tokenizer(template)
    prompts = Prompts(system_prompt=SYSTEM).fitted(tokenizer)
    [turn] = prompts.turns(QUESTIONS[0], None, "free")
    assert turn["role"] == "user" and turn["content"].startswith(f"{SYSTEM}\n\nWhat is 3+4?")
    assert f"{SYSTEM}\n\nWhat" in tokenizer.decode(prompts.ids(tokenizer, QUESTIONS[0], None, "free"))
    assert findings(tokenizer, tiny, tmp_path, prompts) == [("warning", "system_prompt")]
    assert findings(tokenizer, tiny, tmp_path, Prompts()) == []  # nothing to say where there is no system prompt
    own = findings(tokenizer, tiny, tmp_path, Prompts(), questions=QUESTIONS)  # a row brings its own
    assert own == [("warning", "system_prompt")]
    assert not Prompts(system_prompt=SYSTEM).fitted(byte_tokenizer(CHAT)).folds_system


def test_trap_a_prompt_for_another_template_is_one_clear_line():
    turns = Prompts(system_prompt=SYSTEM).turns(QUESTIONS[0], None, "free")  # not fitted
    with pytest.raises(ValueError, match=r"chat_template: refuses the turns \['system', 'user'\]: no system"):
        prompt_text(byte_tokenizer(REFUSES), turns)


@pytest.mark.parametrize("family", ["idefics3", "llava_next", "smolvlm"])
def test_trap_a_template_that_drops_strings_gets_parts(family, tiny, tmp_path):
    tokenizer = byte_tokenizer(TEMPLATES[family])
    assert "3+4" not in prompt_text(tokenizer, Wording().turns(QUESTIONS[0], None, "free"))
    prompts = Prompts(system_prompt=SYSTEM).fitted(tokenizer)
    text = prompt_text(tokenizer, prompts.asked(prompts.turns(QUESTIONS[0], None, "free")))
    assert "3+4" in text and SYSTEM in text
    assert ("error", "chat_template") not in findings(tokenizer, tiny, tmp_path, prompts)


def test_trap_a_setting_that_the_template_does_not_have_is_said(tiny, tmp_path):
    tokenizer = byte_tokenizer(TEMPLATES["qwen3"])
    prompts = Prompts(chat_template_kwargs={"enable_thinkin": False})
    assert findings(tokenizer, tiny, tmp_path, prompts) == [("warning", "chat_template_kwargs.enable_thinkin")]
    assert findings(tokenizer, tiny, tmp_path, Prompts(chat_template_kwargs={"enable_thinking": False})) == []


def test_trap_a_template_that_writes_todays_date_is_said(tiny, tmp_path):
    tokenizer = byte_tokenizer(TEMPLATES["llama3_2"])
    assert findings(tokenizer, tiny, tmp_path, Prompts()) == [("warning", "chat_template")]
    assert findings(tokenizer, tiny, tmp_path, Prompts(chat_template_kwargs={"date_string": "1 Jan 2000"})) == []


def test_trap_a_prompt_that_ends_the_thinking_asks_for_no_end_of_it(tiny, tmp_path):
    tokenizer, needs = byte_tokenizer(TEMPLATES["qwen3"]), Correctness(require_end_of_thinking=True)
    closed, reward = Prompts(chat_template_kwargs={"enable_thinking": False}), ExactLength(correctness=needs)
    assert prompt_text(tokenizer, closed.asked(closed.turns(QUESTIONS[0], None, "free"))).endswith("</think>\n\n")
    assert findings(tokenizer, tiny, tmp_path, closed, reward) == [("error", "correctness.require_end_of_thinking")]
    assert findings(tokenizer, tiny, tmp_path, Prompts(), reward) == []
    assert findings(tokenizer, tiny, tmp_path, closed) == []


def test_trap_a_completion_is_never_rendered_by_a_template_that_strips_thinking():
    tokenizer = byte_tokenizer(TEMPLATES["deepseek_r1_distill"])
    said = "3+4=7</think>\\boxed{7}"
    turns = Wording().turns(QUESTIONS[0], None, "free")
    rendered = tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": said}], tokenize=False)
    assert "3+4=7" not in rendered  # the trap is there
    [row] = sft_rows([{**QUESTIONS[0], "completion": said}], tokenizer, Wording())
    text = tokenizer.decode(row["input_ids"])
    assert text.count("<think>") == 1 and text.endswith(f"<think>\n{said}</s>")  # the prompt opens it, once
    start = row["completion_mask"].index(1)
    assert tokenizer.decode(row["input_ids"][start:]) == f"{said}</s>"


@pytest.mark.parametrize(
    "value, message",
    [
        ("{enable", "not JSON"),
        (["enable_thinking"], "must be a mapping"),
        ({1: True}, "must be a mapping"),
        ({"tokenize": False}, "'tokenize' is no setting"),
        ({"add_generation_prompt": False}, "'add_generation_prompt' is no setting"),
        ({"chat_template": "x"}, "'chat_template' is no setting"),
    ],
)
def test_what_is_no_setting_of_a_template_is_refused(value, message):
    with pytest.raises(ValueError, match=message) as raised:
        template_settings(value)
    assert "\n" not in str(raised.value)


def test_a_blank_system_text_is_none():
    for blank in (None, "", "  \n"):
        assert len(Prompts(system_prompt=blank).turns({"question": "?", "system": blank}, None, "free")) == 1
        [first, _] = Prompts(system_prompt=SYSTEM).turns({"question": "?", "system": blank}, None, "free")
        assert first == {"role": "system", "content": SYSTEM}


@pytest.mark.parametrize("thumbnail", [None, 0.25])
def test_a_gate_asks_behind_the_system_prompt_in_training_and_in_measuring(thumbnail):
    tokens, images = {"<look-1>": 1.0, "<look-1/2>": 0.5}, [row["image"] for row in load_rows("pictures", limit=2)]
    own = [{"role": "system", "content": "name it"}]
    rows = [[{"role": "user", "content": "what color"}], [*own, {"role": "user", "content": "what color"}]]
    processor = build_processor()
    plain = VisualBudgetPolicy(processor, tokens, thumbnail)
    told = VisualBudgetPolicy(processor, tokens, thumbnail, prompts=Prompts(system_prompt="look here"))
    texts = [[policy.tokenizer.decode(ids) for ids in policy._asked(rows, images)] for policy in (plain, told)]
    for name, text in (("look here", texts[1][0]), ("name it", texts[0][1]), ("name it", texts[1][1])):
        assert name in text and text.index(name) < text.index("what color")
    assert "look here" not in texts[0][0] + texts[1][1]  # the row's own text wins
    assert [text.count("<image>") for text in sum(texts, [])] == [0 if thumbnail is None else 16] * 4
    refusing = build_processor()
    refusing.chat_template = REFUSES.replace("m['content']", "m['content'][-1]['text']")
    folded = VisualBudgetPolicy(refusing, tokens, None, prompts=Prompts(system_prompt="look here"))
    assert folded.prompts.folds_system and len(folded._asked(rows, images)) == 2


# --- the end of thinking ----------------------------------------------------------------------------------------------


def bpe_tokenizer():
    """A trained BPE with merges over the marks' borders: `</think>` is several tokens, not always the same ones."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        decoders.ByteLevel(),
    )
    texts = [
        "so 3+4=7.</think>\n\nIt is \\boxed{7}",
        "x</think>\n\nyes",
        "it is 7\n</think>\nno",
        "a>\n\nb",
        "a.</b",
    ] * 20
    core.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=340, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>")


@pytest.mark.parametrize("before", ["so 3+4=7.", "x", "it is 7\n", "done) ", "$7$", "", "y = 2\n\n"])
@pytest.mark.parametrize("after", ["\n\nIt is 7", "\nno", "yes", "", " so"])
def test_an_end_of_several_tokens_is_found_whatever_stands_beside_it(before, after):
    tokenizer = bpe_tokenizer()
    assert tokenizer.convert_tokens_to_ids("</think>") is None
    ends = end_ids(tokenizer, "</think>")
    assert len(set(ends)) > 1
    ids = tokenizer(f"{before}</think>{after}")["input_ids"]
    start, stop = find_end(ids, ends)
    # The tokens before and behind hold nothing of the mark, and all there is beside a token that both share.
    assert before.startswith(tokenizer.decode(ids[:start])) and after.endswith(tokenizer.decode(ids[stop:]))
    assert "</think>" in tokenizer.decode(ids[start:stop])
    assert Length("thinking", ends)(ids) == start
    assert find_end(tokenizer(f"{before}<think>{after}")["input_ids"], ends) is None


@pytest.mark.parametrize(
    "tokenizer, mark",
    [
        (byte_tokenizer(TEMPLATES["qwen3"]), "</think>"),
        (byte_tokenizer(CHAT, plain=(), special=("<think>", "</think>")), "</think>"),
        (byte_tokenizer(TEMPLATES["qwen3"], plain=()), "</think>"),  # no token, but the template spells it
        (byte_tokenizer(CHAT, plain=(), special=("[THINK]", "[/THINK]")), "[/THINK]"),
        (byte_tokenizer(TEMPLATES["gptoss"], plain=()), HARMONY),
        (byte_tokenizer(TEMPLATES["gemma4"], plain=()), "<channel|>"),
        (byte_tokenizer(TEMPLATES["llama3"], plain=()), None),
        (byte_tokenizer(None, plain=()), None),
    ],
)
def test_a_tokenizer_says_what_ends_the_thinking(tokenizer, mark):
    assert found_end(tokenizer) == mark


SPECIAL = {"special": ("<think>", "</think>"), "plain": ()}
MARKED = [
    (byte_tokenizer(CHAT), "</think>", "<think>3+4=7</think>\\boxed{7}"),
    (byte_tokenizer(CHAT, **SPECIAL), "</think>", "<think>3+4=7</think>\\boxed{7}"),
    (byte_tokenizer(CHAT, **SPECIAL), "</think>", "no end at all \\boxed{7}"),
    (byte_tokenizer(CHAT, special=("[THINK]", "[/THINK]")), "[/THINK]", "[THINK]3+4[/THINK]\\boxed{7}"),
    (byte_tokenizer(CHAT, plain=()), "</think>", "3+4=7</think>\\boxed{7}"),
    (byte_tokenizer(CHAT, **SPECIAL), "</think>", "a</think>b</think>\\boxed{7}"),
]


@pytest.mark.parametrize("tokenizer, end, text", MARKED)
def test_decoding_keeps_the_marks_of_the_thinking_and_no_others(tokenizer, end, text):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    around = [*ids, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.pad_token_id]
    assert decode(tokenizer, [around, [], ids], end) == [text, "", text]


def test_trap_an_end_that_is_a_special_token_vanishes_in_plain_decoding():
    tokenizer, end, text = MARKED[1]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "3+4=7\\boxed{7}"  # the trap is there
    hidden = tokenizer("\\boxed{7}</think>I cannot say", add_special_tokens=False)["input_ids"]
    rows = [{"question": "3+4?", "solution": "7", "completion_ids": own} for own in (ids, hidden)]
    material = Material(tokenizer, Prompts(), rows[:1], BudgetSampler(2, 9), frozenset(), Sampling(8))
    for strict in (False, True):
        assert correct(rows, material, Correctness(require_end_of_thinking=strict)) == [True, False]
    assert split_completion(decode(tokenizer, [ids], end)[0]).thinking == "3+4=7"


def test_the_channels_of_gpt_oss_are_an_end_of_several_special_tokens():
    tokenizer = byte_tokenizer(TEMPLATES["gptoss"], plain=())
    text = f"<|channel|>analysis<|message|>3+4 is \\boxed{{8}}, no{HARMONY}\\boxed{{7}}"
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    ends = end_ids(tokenizer, HARMONY)
    assert len(ends) == 1 and len(ends[0]) > 4
    [said] = decode(tokenizer, [ids], HARMONY)
    assert said == f"analysis3+4 is \\boxed{{8}}, no{HARMONY}\\boxed{{7}}"
    assert Correctness(end_of_thinking=HARMONY)([said, said.partition(HARMONY)[0]], solution=["7", "8"])[0] == 1.0
    assert Length("thinking", ends)(ids) == len("analysis3+4 is \\boxed{8}, no") + 2


def test_the_end_is_told_once_to_everything_that_asks_for_it():
    tokenizer = byte_tokenizer(CHAT, special=("[THINK]", "[/THINK]"))
    [token] = end_ids(tokenizer, "[/THINK]")[0]
    thinking = Length("thinking")
    reward = ByMode(exact=ExactLength(length=thinking), max=MaxLength(length=thinking), free=Correctness())
    told = tell_end(reward, "[/THINK]", tokenizer)
    ends = (told.exact.correctness, told.max.correctness, told.free)
    assert {part.end_of_thinking for part in ends} == {"[/THINK]"}
    assert told.exact.length([1, 2, token, 3]) == told.max.length([1, 2, token]) == 2
    assert reward.free.end_of_thinking == "</think>"  # a reward is a value: the first one is as it was
    for name in ("adapt_think", "thinkless", "shortest_correct"):
        assert tell_end(make_reward(name), "[/THINK]", tokenizer).correctness.end_of_thinking == "[/THINK]"
    assert tell_end(ExactMatch(), "[/THINK]", tokenizer).answer_mark == "[/THINK]"
    assert tell_end(ExactMatch("Answer:"), "[/THINK]", tokenizer).answer_mark == "Answer:"
    assert tell_end(reward, None, tokenizer) is reward
    own = ExactLength(correctness=Correctness("[/X]"), length=Length("thinking", 5))
    assert tell_end(own, "[/THINK]", tokenizer) == own  # what YAML says stays


def test_an_end_that_is_given_twice_must_be_the_same():
    arguments, _, _ = parse(ROOT / "recipes" / "l1_exact.yaml", ["--end_of_thinking", "[/THINK]", "--use_cpu", "true"])
    assert arguments.make_prompts().end == arguments.make_prompts({}, "[/THINK]").end == "[/THINK]"
    with pytest.raises(ValueError, match="give it once"):
        arguments.make_prompts({}, "</reason>")
    own = [ExactLength(correctness=Correctness("[/X]")), Correctness()]
    assert end_of_rewards(own) == "[/X]" and end_of_rewards([ExactLength(), Correctness()]) is None
    with pytest.raises(ValueError, match="give end_of_thinking once"):
        end_of_rewards([*own, Correctness("[/Y]")])


def test_a_model_without_an_end_of_thinking_is_a_valid_model(tiny, tmp_path):
    tokenizer = byte_tokenizer(TEMPLATES["llama3"], plain=())
    prompts = Prompts(end_of_thinking="").fitted(tokenizer)
    assert prompts.end == "" and end_ids(tokenizer, "") == ()
    assert findings(tokenizer, tiny, tmp_path, prompts) == []
    text = "3+4=7, so \\boxed{7}"
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert decode(tokenizer, [ids], "") == [text]
    assert tell_end(Length("thinking"), "", tokenizer)(ids) == len(ids)
    traces = [{"question": "3+4?", "completion_ids": ids}] * 4
    sft = Hindsight(max_updates=1, cooldown_updates=0, batch_size=4)
    rows = relabel(traces, tokenizer, prompts, BudgetSampler(2, 9), sft, Length(), seed=0)
    assert all(sum(row["completion_mask"]) == len(ids) for row in rows)
    with pytest.raises(ValueError, match="says that there is none"):
        tell_end(Correctness(require_end_of_thinking=True), "", tokenizer)


def test_a_model_without_an_end_of_thinking_has_its_whole_text_graded():
    try:
        Correctness(end_of_thinking=None)
    except ValueError:
        pytest.skip("Correctness does not take an end_of_thinking of None yet")
    told = tell_end(Correctness(), "", byte_tokenizer(CHAT))
    assert told.end_of_thinking is None
    assert told(["\\boxed{7} </think> no more"], solution=["7"]) == [1.0]
    rewards = {"solution": ["7"], "reference_accuracy": [0.5]}
    assert tell_end(make_reward("adapt_think"), "", None)(["</think>\\boxed{7}"], **rewards) == [0.5]


def test_hindsight_masks_the_answer_behind_an_end_of_any_kind():
    for tokenizer, end, text in MARKED[:5]:
        ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        prompts = Prompts(end_of_thinking=end).fitted(tokenizer)
        sft = Hindsight(max_updates=1, cooldown_updates=0, batch_size=1)
        traces = [{"question": "3+4?", "completion_ids": ids}]
        [row] = relabel(traces, tokenizer, prompts, BudgetSampler(2, 9), sft, Length(), seed=0)
        trained = [t for t, kept in zip(row["input_ids"], row["completion_mask"], strict=True) if kept]
        said = tokenizer.decode(trained, skip_special_tokens=False)
        assert said == (text.partition(end)[0] + end if end in text else text + "</s>")


# --- TRL's own way to the rewards -------------------------------------------------------------------------------------


def rewarded(tiny, tokenizer, folder, own: bool = True) -> list[tuple[str, list[int]]]:
    """What a reward sees in one real step: texts and ids, sampled from the end of thinking, a digit and the end."""
    seen = []

    def reward(completions, completion_ids, **_):
        seen.extend(zip((c[0]["content"] for c in completions), completion_ids, strict=True))
        return [0.0] * len(completions)

    shown = {*tokenizer.convert_tokens_to_ids(["<think>", "</think>", "7"]), tokenizer.eos_token_id}
    config = grpo_config(
        folder,
        generation_kwargs={"suppress_tokens": [i for i in range(512) if i not in shown]},
        log_completions=False,
        per_device_train_batch_size=8,
    )
    rows = training_rows(Dataset.from_list(QUESTIONS), Wording(), BudgetSampler(2, 9), num_rows=4)
    torch.manual_seed(0)
    reward = LogsAdherence(reward, config.max_completion_length, (), tokenizer, "</think>") if own else reward
    GRPOTrainer(tiny, reward, config, rows, None, tokenizer).train()
    return seen


def test_trap_rewards_in_a_real_step_see_an_end_that_is_a_special_token(tiny, tmp_path):
    tokenizer = byte_tokenizer(TEMPLATES["qwen2_5"], **SPECIAL)
    [[end]] = end_ids(tokenizer, "</think>")
    stock = rewarded(tiny, tokenizer, tmp_path / "stock", own=False)
    assert any(end in ids for _, ids in stock) and not any("</think>" in text for text, _ in stock)  # the trap is there
    ours = rewarded(tiny, tokenizer, tmp_path / "ours")
    assert any(end in ids for _, ids in ours)
    for text, ids in ours:
        assert text.count("</think>") == ids.count(end)
        assert text == decode(tokenizer, [ids], "</think>")[0] and "</s>" not in text


def test_rewards_in_a_real_step_see_what_they_saw_where_the_end_is_no_special_token(tiny, tmp_path):
    tokenizer = byte_tokenizer(TEMPLATES["qwen2_5"])
    for text, ids in rewarded(tiny, tokenizer, tmp_path):
        assert text == tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("special, decodings", [((), 1), (("<think>", "</think>"), 2)])
def test_texts_are_decoded_once_unless_a_special_token_marks_the_thinking(
    special, decodings, tiny, tmp_path, monkeypatch
):
    tokenizer = byte_tokenizer(TEMPLATES["qwen2_5"], special=special, plain=() if special else ("<think>", "</think>"))
    own, calls = tokenizer._decode, []
    monkeypatch.setattr(tokenizer, "_decode", lambda *args, **kwargs: calls.append(args) or own(*args, **kwargs))
    seen = rewarded(tiny, tokenizer, tmp_path)
    assert len(calls) == decodings * len(seen)
    assert [text for text, _ in seen] == decode(tokenizer, [ids for _, ids in seen], "</think>")


# --- padding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tokens, pad",
    [
        ({"pad_token": None}, "</s>"),
        ({"pad_token": None, "eos_token": None, "unk_token": "<unk>"}, "<unk>"),
        ({"pad_token": None, "eos_token": None}, "<s>"),
        ({}, "<pad>"),
    ],
)
def test_trap_a_tokenizer_without_a_pad_token_takes_one_that_it_has(tokens, pad):
    tokenizer = byte_tokenizer(CHAT, **tokens)
    size = len(tokenizer)
    assert with_pad_token(tokenizer).pad_token == pad and len(tokenizer) == size


def test_a_tokenizer_without_any_special_token_is_refused():
    tokenizer = byte_tokenizer(CHAT, pad_token=None, eos_token=None, bos_token=None)
    with pytest.raises(ValueError, match="pad_token: the tokenizer has no special token"):
        with_pad_token(tokenizer)


def test_rows_of_unequal_length_are_padded_with_the_end_of_sequence(tiny):
    tokenizer = with_pad_token(byte_tokenizer(CHAT, pad_token=None))
    rows = [Wording().turns(row, None, "free") for row in QUESTIONS]
    greedy = Sampling(6, temperature=0.0)
    together = complete(tiny, tokenizer, rows, greedy)
    assert together == [complete(tiny, tokenizer, [row], greedy)[0] for row in rows]


# --- arguments, records and commands ----------------------------------------------------------------------------------


def test_a_run_says_how_it_asked_and_is_measured_so(random_model, tmp_path):
    output, settings = tmp_path / "run", {"enable_thinking": False}
    words = "--hindsight false --evaluate false --max_steps 1 --num_questions 16 --num_generations 4 --logging_steps 1"
    words += f" --per_device_train_batch_size 8 --model_name_or_path {random_model} --output_dir {output} --lora_r 4"
    flags = ["--system_prompt", SYSTEM, "--chat_template_kwargs", json.dumps(settings)]
    run(*parse(ROOT / "recipes" / "l1_exact.yaml", [*words.split(), *flags]), tmp_path)
    record = json.loads((output / "run.json").read_text())
    assert record["arguments"]["system_prompt"] == SYSTEM
    assert record["training"]["chat_template_kwargs"] == settings
    asked = prompts_of(str(output))
    assert (asked.system_prompt, asked.chat_template_kwargs, asked.end_of_thinking) == (SYSTEM, settings, None)

    flags = ["--adapter", str(output), "--budgets", "4", "--num_questions", "2", "--max_completion_length", "8"]
    for name, more in (("as_trained", []), ("without", ["--system_prompt", "", "--chat_template_kwargs", "{}"])):
        assert rlred(["evaluate", *flags, *more, "--output", str(tmp_path / name)]) == 0
    headers = {
        name: (tmp_path / name / "measures" / "trained.completions.jsonl").read_text().partition("\n")[0]
        for name in ("as_trained", "without")
    }
    assert headers["as_trained"] != headers["without"]  # they hold the digest of what was asked


@pytest.mark.parametrize(
    "more, end",
    [
        ({}, None),  # as the tokenizer says, whichever it is
        ({"reward": {"name": "exact_length", "correctness": {"name": "correctness", "end_of_thinking": "so:"}}}, "so:"),
        ({"end_of_thinking": "so:"}, "so:"),
        ({"end_of_thinking": ""}, ""),
    ],
)
def test_trap_a_record_says_which_end_of_thinking_was_trained_whoever_brought_it(more, end, random_model, tmp_path):
    words = "--hindsight false --evaluate false --max_steps 1 --num_questions 16 --num_generations 4 --logging_steps 1"
    words += f" --per_device_train_batch_size 8 --model_name_or_path {random_model} --output_dir {tmp_path / 'run'}"
    flags = [
        word for name, value in more.items() for word in (f"--{name}", value if name != "reward" else json.dumps(value))
    ]
    run(*parse(ROOT / "recipes" / "l1_exact.yaml", [*words.split(), "--max_completion_length", "84", *flags]), tmp_path)
    assert prompts_of(str(tmp_path / "run")).end_of_thinking == end


@pytest.mark.parametrize(
    "record, expected",
    [
        ({}, Prompts()),
        ({"arguments": {"wording": "l1"}, "training": {"chat_template_kwargs": "None"}}, Prompts()),
        ({"arguments": {"system_prompt": "S"}, "training": {"chat_template_kwargs": None}}, Prompts(system_prompt="S")),
        ({"arguments": {"chat_template_kwargs": {"a": 1}}}, Prompts(chat_template_kwargs={"a": 1})),
        ({"arguments": {}, "training": {"chat_template_kwargs": {"a": 1}}}, Prompts(chat_template_kwargs={"a": 1})),
    ],
)
def test_the_record_of_a_run_is_read_whatever_its_age(record, expected):
    assert prompts_of_record(record) == expected


@pytest.mark.parametrize(
    "words, message",
    [
        (["evaluate", "--budgets", "8", "--chat_template_kwargs", "{enable"], "chat_template_kwargs: not JSON"),
        (["generate", "1+1?", "--chat_template_kwargs", '{"tokenize": true}'], "'tokenize' is no setting"),
        (["evaluate", "--ratios", "0.5", "--adapter", "x", "--system_prompt", "S"], "the prompts follow the adapter"),
    ],
)
def test_wrong_flags_are_one_clear_line(words, message, capsys, tmp_path):
    assert rlred([*words, *(["--output", str(tmp_path / "o")] if words[0] == "evaluate" else [])]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_format_with_a_text_of_its_own_refuses_settings_that_would_not_reach_it():
    tokenizer = byte_tokenizer(CHAT)
    with pytest.raises(ValueError, match="a text of its own"):
        RATIO_FORMATS["tokenskip_qwen"].fitted(tokenizer, Prompts(system_prompt=SYSTEM))
    assert RATIO_FORMATS["tokenskip_qwen"].fitted(tokenizer, Prompts()).prompt is not None


def test_ids_to_go_on_from_are_left_alone():
    assert prompt_ids(byte_tokenizer(CHAT), [5, 6, 7]) == [5, 6, 7]
