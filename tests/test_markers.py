"""Counted thinking: counts that are true, traces that are otherwise as they were, and texts that show no marker."""

import dataclasses
import json
import os
import random
import re
from bisect import bisect_left
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rlred.cli import main as rlred
from rlred.data.budgets import BudgetSampler
from rlred.data.markers import Markers, make_markers, marker_ids
from rlred.data.prompts import Prompts, decode, end_ids, marker_errors, prompts_of_record
from rlred.evaluation.conditions import budget_conditions
from rlred.evaluation.measures import measure
from rlred.evaluation.sampling import Grading, Sampling
from rlred.evaluation.sweep import outcomes_of, sweep
from rlred.evaluation.trace_sources import stopped
from rlred.rewards import Correctness, Length
from rlred.rewards.length import find_end
from rlred.runs.grpo import run
from rlred.tiny import resolve_model
from rlred.training.adherence import LogsAdherence
from rlred.training.counting import Counting
from rlred.training.hindsight_settings import Hindsight
from rlred.training.relabelling import find_traces, relabel
from tests.paths import ROOT
from tests.test_hindsight import material_of, questions, reasoner  # noqa: F401  (fixtures)
from tests.test_recipes import arguments

WORDS = "so take left check again sum of is then the total".split()


def letters(text: str) -> list[int]:
    """A tokenizer of one token per letter."""
    return [ord(letter) for letter in text]


def words_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words and single digits, joined as they are: nothing outside the vocabulary can be written."""
    tokens = [
        "<unk>",
        "</s>",
        "</think>",
        *"0123456789 .+=:;[]/\n",
        "\\boxed",
        "{",
        "}",
        *WORDS,
        *(f" {w}" for w in WORDS),
    ]
    made = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?[a-z]+|\\boxed|[^a-z]"), behavior="isolated")
    made.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="</s>", unk_token="<unk>", extra_special_tokens=["</think>"]
    )


def pieces_tokenizer() -> PreTrainedTokenizerFast:
    """As SentencePiece's of Llama 2: a space begins every text, and is no part of it when it is read."""
    tokens = ["<unk>", "</s>", "</think>", "▁", *"0123456789.+=:;[]/\n\\{}", *"abcdefghijklmnopqrstuvwxyz"]
    merged = [f"▁{word}" for word in WORDS]
    vocab = {token: i for i, token in enumerate([*tokens, *merged, "boxed"])}
    made = Tokenizer(models.Unigram([(token, -1.0 - (len(token) == 1)) for token in vocab], unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.decoder = decoders.Metaspace(prepend_scheme="first")
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="</s>", unk_token="<unk>", extra_special_tokens=["</think>"]
    )


def pretrained(part: str):
    """A published model's tokenizer from ../shared/models or RLRED_MODELS; skips where there is none."""
    for folder in (Path(os.environ.get("RLRED_MODELS", ROOT.parent / "shared" / "models")),):
        for found in sorted(folder.glob(f"*{part}*/tokenizer.json")):
            return AutoTokenizer.from_pretrained(found.parent)
    pytest.skip(f"no folder *{part}* with a tokenizer in ../shared/models or RLRED_MODELS")


TOKENIZERS = {
    "bytes with whole numbers": lambda: AutoTokenizer.from_pretrained(resolve_model("tiny_reasoner")),
    "words": words_tokenizer,
    "pieces with a space in front": pieces_tokenizer,
    "Qwen2.5": lambda: pretrained("qwen"),
    "SmolLM2": lambda: pretrained("smol"),
}


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]()


def text_of_steps(draw: random.Random, thinks: bool) -> str:
    steps = []
    for _ in range(draw.randint(0, 16)):
        words = " ".join(draw.choices(WORDS, k=draw.randint(1, 6)))
        steps.append(f"{words} {draw.randint(0, 1200)}{draw.choice(['.', ' ', '.' + chr(10), ''])} ")
    answer = f"\\boxed{{{draw.randint(0, 99)}}}"
    return "".join(steps) + (f"</think>{answer}" if thinks else f"so the sum is {answer}. check. again.")


def completion(tokenizer, text: str) -> list[int]:
    """Ids behind other text, as a model would write them, and the end of the sequence."""
    before, whole = (tokenizer(one, add_special_tokens=False)["input_ids"] for one in ("0", f"0{text}"))
    assert whole[: len(before)] == before
    return [*whole[len(before) :], tokenizer.eos_token_id]


STYLES = (
    Markers(1),
    Markers(7),
    Markers(16, "[{spent}/{budget}]", before=" take| check"),
    Markers(24, " so {left} left;"),
    Markers(20, "[{left:03} left]"),
    Markers(32, ":{spent}:"),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    markers=st.sampled_from(STYLES),
    count=st.sampled_from(["completion", "thinking"]),
    thinks=st.booleans(),
    slack=st.integers(0, 9),
)
def test_counts_are_true_and_without_them_a_trace_is_as_it_was(tokenizer, seed, markers, count, thinks, slack):
    draw = random.Random(seed)
    text, end = text_of_steps(draw, thinks), "</think>" if thinks else ""
    ids = completion(tokenizer, text)
    length = Length(count, end_ids(tokenizer, end))
    counting = Counting(markers, tokenizer, end, length)
    places = counting.places(ids)
    found = counting.asked(ids, places)
    assume(found is not None)  # one in a thousand has no fixed point: `Counting.countable` leaves it out
    exact, own = found
    assert own == max(1, length(exact))
    made, budget = counting.bounded(ids, places, own + slack)
    assert budget in (own + slack, own) and max(1, length(made)) <= budget

    # Read from the ids alone: the tokens up to a marker's last letter are as many as it says.
    whole, start, seen = tokenizer.decode(made), 0, 0
    border = find_end(made, end_ids(tokenizer, end))
    for marker in markers.pattern.finditer(whole.partition("</think>")[0]):
        tokens = bisect_left(range(len(made)), marker.end(), key=lambda n: len(tokenizer.decode(made[:n])))
        spent = int(marker.group(1)) if "{spent}" in markers.text else budget - int(marker.group(1))
        assert spent == tokens and (border is None or tokens <= border[0])
        assert spent - start >= markers.every
        start, seen = tokens, seen + 1
        if markers.before:
            assert whole[marker.end() :].startswith((" take", " check"))
    assert marker_errors(tokenizer, made, budget, end, markers) == [0] * seen

    # The very tokens that were sampled, in their order, and nothing left in the text.
    rest = iter(made)
    assert all(token in rest for token in ids)
    assert decode(tokenizer, [made], end, markers) == decode(tokenizer, [ids], end)
    boxed = whole.find("\\boxed")
    assert all(marker.start() < boxed for marker in markers.pattern.finditer(whole))
    assert seen > 0 or len(made) == len(ids)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), markers=st.sampled_from(STYLES), thinks=st.booleans())
def test_a_number_that_runs_out_does_so_at_the_last_marker_and_every_count_is_true(tokenizer, seed, markers, thinks):
    draw = random.Random(seed)
    text, end = text_of_steps(draw, thinks), "</think>" if thinks else ""
    ids = completion(tokenizer, text)
    counting = Counting(markers, tokenizer, end, Length("completion", end_ids(tokenizer, end)))
    places = counting.places(ids)
    found = counting.overrun(ids, places, draw)
    assume(found is not None)
    made, budget, begin = found
    marker = counting.encode(markers.write(10**9, budget)) if "spent" not in markers.names else None
    if marker:  # 0 is left, with its digits
        assert made[begin : begin + len(marker)] == marker
    behind = tokenizer.decode(made).removeprefix(tokenizer.decode(made[:begin]))
    assert len(markers.pattern.findall(behind)) == 1 and markers.pattern.match(behind)
    spent = len(made) - (len(ids) - places[-1])
    assert budget <= spent < budget + markers.every
    assert marker_errors(tokenizer, made, budget, end, markers)[-1] == 0
    assert decode(tokenizer, [made], end, markers) == decode(tokenizer, [ids], end)


@pytest.mark.parametrize(
    "text, places, every, expected",
    [
        ("aaaa bbbb cccc", [4, 9], 4, "aaaa[7] bbbb[16] cccc"),  # 9 letters before the second, which has four
        ("aaaa bbbb cccc", [4, 9], 5, "aaaa bbbb[13] cccc"),  # the first boundary comes too early
        ("aaaa bbbb cccc", [4, 9], 10, "aaaa bbbb cccc"),
        ("aaaaaaa b", [7], 1, "aaaaaaa[11] b"),  # one digit would make it 10, which has two
        ("", [], 1, ""),
    ],
)
def test_a_marker_stands_at_the_first_boundary_that_is_far_enough(text, places, every, expected):
    made = Markers(every, "[{spent}]").insert(letters(text), places, None, letters)
    assert "".join(map(chr, made)) == expected


@pytest.mark.parametrize("size", [80, 88, 89, 90, 91, 92, 93, 94, 95, 96, 99, 985, 990, 995])
def test_a_budget_whose_digits_make_the_trace_longer_is_found(size):
    ids = letters("a" * size)
    made, budget = Markers(40).settle(ids, [40], len, letters)
    assert budget == len(made) and f"/{budget}]" in "".join(map(chr, made))


def test_what_never_agrees_with_itself_has_no_budget():
    def encode(text):  # an odd budget takes three tokens and an even one two: asked for 7, a trace of 5 has 8
        return [0] * (2 + int(re.findall(r"\d+", text)[-1]) % 2)

    assert Markers(2).settle([0] * 5, [2], len, encode) is None
    assert Markers(2).settle([0] * 6, [2], len, encode) == ([0] * 8, 8)
    counting = Counting(Markers(2), None, "")
    assert counting._unfit([0] * 5, None, 90) == "whose length does not settle"


@pytest.mark.parametrize(
    "text, end, allowed",
    [
        ("So 1. Then 2. Now 3.</think> It is. \\boxed{3}. Yes. So.", "</think>", "</think>"),
        ("So 1. Then 2. Now 3. \\boxed{a. b. c} Yes. So it is. Bye. Now.", "", "\\boxed"),
        ("So 1. Then \\boxed{a. b. c}. Wait. Now 3. \\boxed{d. e}. Yes. So.", "", "\\boxed{d"),
        ("So 1. Then 2. Now 3. No answer. At all.", "", None),
    ],
)
def test_places_are_never_in_an_answer(reasoner, text, end, allowed):  # noqa: F811
    tokenizer = reasoner[1]
    ids = tokenizer(text)["input_ids"]
    places = Counting(Markers(1), tokenizer, end).places(ids)
    befores = [tokenizer.decode(ids[:at]) for at in places]
    assert len(befores) >= 2
    for before in befores:
        assert allowed is None or len(before) <= text.index(allowed)
        assert before.count("{") == before.count("}")  # in no box


@pytest.mark.parametrize(
    "before, expected",
    [
        (" take", ["so", "so take 3 left 47", "so take 3 left 47 take 4 left 7"]),
        ("left", ["so take 3", "so take 3 left 47 take 4"]),  # inside its token, whose space comes with it
        (r" \d+ left", ["so take", "so take 3 left 47 take"]),
        ("so", []),  # nothing has been thought there
        ("check", []),
    ],
)
def test_a_pattern_says_in_front_of_what_markers_stand(before, expected):
    tokenizer = words_tokenizer()
    ids = tokenizer("so take 3 left 47 take 4 left 7 take 7")["input_ids"]
    places = Counting(Markers(1, before=before), tokenizer, "").places(ids)
    assert [tokenizer.decode(ids[:at]) for at in places] == expected


@pytest.mark.parametrize(
    "value, message",
    [
        ({"every": 0}, "markers.every must be a whole number of tokens, 1 or more, got 0"),
        ({"every": True}, "markers.every must be a whole number of tokens, 1 or more, got True"),
        ({"every": 8, "text": "[{budget}]"}, "markers.text needs the placeholder {spent} or {left}, got '[{budget}]'"),
        ({"every": 8, "text": 7}, "markers.text needs the placeholder {spent} or {left}, got 7"),
        ({"every": 8, "text": "{{spent}}"}, "or as {left:03}, got '{{spent}}'"),
        ({"every": 8, "text": "[{left:3}]"}, "or as {left:03}, got '[{left:3}]'"),
        ({"every": 8, "text": "[{left:03.1f}]"}, "or as {left:03}, got '[{left:03.1f}]'"),
        ({"every": 8, "text": "{spent!r}:{left}"}, "markers.text: no brace but {spent}, {left} and {budget}"),
        ({"every": 8, "text": "{spent} 0"}, "markers.text needs a sign that tells it from the model's own numbers"),
        ({"every": 8, "before": "(take"}, "markers.before must be a regular expression, got '(take'"),
        ({"every": 8, "before": ""}, "markers.before must be a regular expression, got ''"),
        ({"every": 8, "style": "x"}, "markers: no field is called 'style'; there are before, every, text"),
        ({"text": "[{spent}]"}, "markers must be a mapping such as {every: 64}, got {'text': '[{spent}]'}"),
        (16, "markers must be a mapping such as {every: 64}, got 16"),
    ],
)
def test_settings_are_checked_before_anything_is_loaded(value, message, tmp_path):
    with pytest.raises(ValueError, match=re.escape(message)):
        Hindsight(markers=value)


def test_settings_come_from_yaml_and_stay_with_the_run():
    told = {"every": 16, "text": "({spent} of {budget})"}
    assert Hindsight(markers=told).markers == Markers(16, "({spent} of {budget})")
    record = {"arguments": {"wording": "l1", "hindsight_settings": {"num_samples": 9, "markers": told}}}
    assert prompts_of_record(record).markers == make_markers(told)
    for older in ({}, {"hindsight_settings": {}}, {"hindsight_settings": None}, {"ratios": [1.0]}):
        assert prompts_of_record({"arguments": older}).markers is None


def test_words_that_a_tokenizer_cannot_write_are_refused():
    tokenizer = words_tokenizer()
    assert tokenizer.decode(marker_ids(tokenizer, "[12/34]")) == "[12/34]"
    with pytest.raises(
        ValueError, match=r"markers.text: this tokenizer cannot write '<3>', which reads back as '<unk>3"
    ):
        marker_ids(tokenizer, "<3>")


def test_a_run_whose_tokenizer_cannot_write_them_ends_before_its_first_step(random_model, tmp_path):
    # A mark of the chat is no text: it would be gone from what is read, and the rest of the marker would stay.
    start = json.dumps({"markers": {"every": 16, "text": "[{spent}<|im_end|>]"}})
    told = arguments("l1_exact", random_model, hindsight_settings=start, output_dir=tmp_path / "run")
    with pytest.raises(
        ValueError, match=r"hindsight_settings.markers.text='\[\{spent\}<\|im_end\|>\]': .* cannot write"
    ):
        run(*told, tmp_path / "unused")
    assert not (tmp_path / "run" / "hindsight").exists()


def test_what_cannot_be_counted_is_left_out_and_told(reasoner, caplog):  # noqa: F811
    tokenizer = reasoner[1]
    texts = {
        "3+7=10 6+2=12 11 check 13</think>\\boxed{12}<|im_end|>": None,
        "3+7=10 [1/2] 6+2=12 11 check 13</think>\\boxed{12}<|im_end|>": "1 that hold a marker's words already",
        "3+7=10 6+2=12 11</think>\\boxed{[1/2]}<|im_end|>": None,  # of an answer it is no marker
        "3+7=10 6+2=12" + " 11 check 13" * 9 + "</think>\\boxed{12}<|im_end|>": "1 longer than the cap of 60 tokens",
    }
    traces = [{"completion_ids": tokenizer(text)["input_ids"]} for text in texts]
    with caplog.at_level("INFO"):
        kept = Counting(Markers(8), tokenizer, "</think>").countable(traces, 60)
    assert kept == [trace for trace, reason in zip(traces, texts.values(), strict=True) if reason is None]
    assert all(reason in caplog.text for reason in texts.values() if reason) and "2 traces get markers" in caplog.text


@pytest.mark.parametrize("train_answer", [True, False])
def test_rows_ask_for_the_length_with_markers_and_free_ones_have_none(reasoner, train_answer):  # noqa: F811
    tokenizer = reasoner[1]
    ids = tokenizer("3+7=10 6+2=12 11 check 13 4+8=20 8+8=28 11 check 13</think>\\boxed{12}<|im_end|>")["input_ids"]
    start = Hindsight(max_updates=4, cooldown_updates=1, batch_size=8, train_answer=train_answer, markers={"every": 4})
    sampler = BudgetSampler(8, 90, modes={"exact": 1, "max": 1, "free": 1})
    traces = [{"question": "1+1=?", "completion_ids": ids}]
    seen, unused = set(), set()
    for row in relabel(traces, tokenizer, Prompts().fitted(tokenizer), sampler, start, Length(), seed=0):
        at = row["completion_mask"].index(1)
        made, prompt = row["input_ids"][at:], tokenizer.decode(row["input_ids"][:at])
        budgets = [int(number) for number in re.findall(r"Think for \w+ (\d+) tokens", prompt)]
        markers = re.findall(r"\[\d+/(\d+)\]", tokenizer.decode(made))
        thinking = made.index(tokenizer.convert_tokens_to_ids("</think>")) + 1
        assert sum(row["completion_mask"]) == (len(made) if train_answer else thinking)  # the marker's tokens as well
        if budgets:
            seen.add("max" if "maximum" in prompt else "exact")
            unused.add(budgets[0] - len(made))
            assert len(markers) >= 3 and set(markers) == {str(budgets[0])}
            assert budgets[0] >= len(made) if "maximum" in prompt else budgets[0] == len(made)
        else:
            seen.add("free")
            assert made == ids
    assert seen == {"exact", "max", "free"} and len(unused) > 3


def test_rows_whose_number_runs_out_are_trained_on_from_the_zero_on(reasoner, caplog):  # noqa: F811
    tokenizer = reasoner[1]
    ids = tokenizer("3+7=10 6+2=12 11 check 13 4+8=20 8+8=28 11 check 13</think>\\boxed{12}<|im_end|>")["input_ids"]
    traces, told = [{"question": "1+1=?", "completion_ids": ids}], {"every": 4, "text": "[{left:02} check"}
    start = Hindsight(max_updates=7, cooldown_updates=1, batch_size=8, train_answer=True, markers=told)
    sampler = BudgetSampler(8, 90, modes={"exact": 1, "max": 1, "free": 1})
    given = (traces, tokenizer, Prompts().fitted(tokenizer), sampler)
    none = list(relabel(*given, start, Length(), seed=0))
    with caplog.at_level("INFO", "rlred.training.relabelling"):
        some = list(relabel(*given, dataclasses.replace(start, overrun_fraction=0.5), Length(), seed=0))
    over = 0
    for row in some:
        at = tokenizer.decode(row["input_ids"]).index("<think>") + len("<think>")
        prompt = tokenizer.decode(row["input_ids"])[:at]
        trained = [one for one, kept in zip(row["input_ids"], row["completion_mask"], strict=True) if kept]
        if row["completion_mask"][len(tokenizer(prompt)["input_ids"])]:
            assert row in none  # the draws of the other rows are not moved
            continue
        over += 1
        assert "Think for" in prompt and tokenizer.decode(trained).lstrip().startswith("[00 check")
        asked = int(re.search(r"(\d+) tokens", prompt)[1])
        assert asked < len(row["input_ids"]) - len(tokenizer(prompt)["input_ids"])
        assert trained[-3:] == ids[-3:]
    assert 8 < over < 40 and f"in {over} of 64 rows the number runs out" in caplog.text


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"overrun_fraction": 1.0}, "hindsight_settings.overrun_fraction must be a share of the rows, 0 to below 1"),
        ({"overrun_fraction": -0.1, "markers": {"every": 8}}, "must be a share of the rows"),
        ({"overrun_fraction": 0.2}, "overrun_fraction=0.2 needs markers whose text names {left} or {budget}, got mark"),
        ({"overrun_fraction": 0.2, "markers": {"every": 8, "text": "[{spent}]"}}, "needs markers whose text names"),
    ],
)
def test_a_number_can_run_out_only_where_a_marker_names_it(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Hindsight(**settings)


def test_trap_a_stopped_trace_is_as_long_as_was_drawn_with_its_markers(reasoner, questions):  # noqa: F811
    """Without the markers in the draw, none was left for the smallest budgets."""
    model, tokenizer = reasoner
    plain = material_of(reasoner, questions, batch_size=24)
    free = [{"question": questions[0]["question"], "completion_ids": tokenizer("3+7=10 " * 24)["input_ids"]}]
    shortest = {}
    for name, markers in (("plain", None), ("counted", Markers(6))):
        prompts = dataclasses.replace(plain.prompts, markers=markers)
        material = dataclasses.replace(plain, prompts=prompts, free=free, sampler=BudgetSampler(40, 90))
        shortest[name] = min(len(job.given) for job in stopped(material, 200, random.Random(0)))
    assert shortest["counted"] < 0.8 * shortest["plain"] and shortest["plain"] >= 35


def test_bins_and_ranges_are_those_of_the_length_with_markers(reasoner, questions, tmp_path):  # noqa: F811
    model, tokenizer = reasoner
    material = material_of(reasoner, questions, batch_size=24)
    found = {}
    for name, markers in (("plain", None), ("counted", Markers(6))):
        start = Hindsight(num_samples=24, sources={"stopped": 24}, batch_size=1, num_bins=1, markers=markers)
        traces, rows = find_traces(model, material, start, Grading(), tmp_path)
        counting = Counting(markers, tokenizer, "</think>")
        low, high = material.sampler.bounds
        assert all(low <= length <= high for length in counting.lengths(traces))
        assert sum(row["kept"] for row in rows) == len(traces)
        found[name] = len(traces)
    assert found["counted"] < found["plain"]  # those that their markers carry over the largest budget


def test_a_completion_is_graded_and_shown_without_markers(reasoner):  # noqa: F811
    tokenizer = reasoner[1]
    text = "So \\boxed{2},[16/32] \\boxed{3}<|im_end|>"  # two boxes of one answer, with a comma between them
    ids = tokenizer(text)["input_ids"]
    rows = [{"question_id": 0, "solution": "2, 3", "mode": "exact", "budget": 32}]
    told = {"tokenizer": tokenizer, "stops": {tokenizer.eos_token_id}}
    for markers, correct, shown in ((None, 0.0, "[16/32]"), (Markers(8), 1.0, "")):
        grading = Grading(Correctness(end_of_thinking=None), markers=markers)
        [outcome] = outcomes_of(rows, [ids], grading=grading, **told)
        assert (outcome["correct"], outcome["length"]) == (correct, len(ids))
        assert outcome["completion"] == f"So \\boxed{{2}},{shown} \\boxed{{3}}" and outcome["completion_ids"] == ids
        assert ("markers" in measure([outcome])) == (markers is not None)


def test_rewards_of_training_see_no_markers_and_the_trackers_how_true_they_are(reasoner):  # noqa: F811
    tokenizer, seen, logged = reasoner[1], [], {}

    def reward(completions, **_):
        seen.extend(completions)
        return [0.0] * len(completions)

    texts = ["3+7=10[7/20] 6</think>\\boxed{6}<|im_end|>", "3+7=10 6+2=12[15/20] 6</think>\\boxed{6}<|im_end|>"]
    ids = [tokenizer(text)["input_ids"] for text in texts]
    logs = LogsAdherence(reward, 90, (1,), tokenizer, "</think>", Length(), Markers(4))
    shown = [text.removesuffix("<|im_end|>") for text in texts]  # as TRL decodes them
    logs(shown, ids, lambda name, value: logged.update({name: value}), budget=[20, 20], mode=["exact"] * 2)
    assert seen == ["3+7=10 6</think>\\boxed{6}", "3+7=10 6+2=12 6</think>\\boxed{6}"]
    assert logged["adherence/markers"] == 1.0 and logged["adherence/true_markers"] == 0.5


def test_a_sweep_takes_the_markers_from_its_conditions(reasoner, questions):  # noqa: F811
    model, tokenizer = reasoner
    prompts = Prompts(markers=Markers(8, " {spent} check")).fitted(tokenizer)
    asked = {"sampling": Sampling(40, batch_size=8)}
    with_markers = sweep(model, tokenizer, questions[:8], budget_conditions(prompts, [32]), **asked)
    plain = sweep(model, tokenizer, questions[:8], budget_conditions(Prompts().fitted(tokenizer), [32]), **asked)
    assert [one["completion_ids"] for one in with_markers] == [one["completion_ids"] for one in plain]
    assert any(" check" in one["completion"] for one in plain)
    assert not any(re.search(r" \d+ check", one["completion"].partition("</think>")[0]) for one in with_markers)


@pytest.mark.slow
def test_a_run_with_markers_is_measured_asked_and_published_with_them(tmp_path, capsys):
    base, output, again = resolve_model("tiny_reasoner"), tmp_path / "run", tmp_path / "again"
    start = {"num_samples": 64, "max_updates": 2, "batch_size": 8, "probe_every": 2, "num_probe_questions": 2}
    start |= {"cooldown_updates": 1, "markers": {"every": 12, "text": " {spent}:{budget},"}, "train_answer": True}
    report = run(
        *arguments("l1_exact", base, hindsight_settings=json.dumps(start), output_dir=output), tmp_path / "unused"
    )
    record = json.loads((output / "hindsight" / "hindsight.json").read_text())
    assert [step for step, _ in record["markers"]] == [2, 3]
    assert all(set(counted) == {"per_completion", "true", "mean_abs_error"} for _, counted in record["markers"])
    assert report.blocks["trained"]["markers"]["per_completion"] >= 0
    assert "Markers: " in (output / "adherence.md").read_text()

    told = ["--model", base, "--adapter", str(output), "--budgets", "16", "48"]
    assert rlred(["evaluate", *told, "--num_questions", "4", "--output", str(again)]) == 0
    found = json.loads((again / "adherence.json").read_text())
    assert (
        found["blocks"]["trained"]["markers"] == report.blocks["trained"]["markers"]
    )  # nobody had to say how they look
    assert rlred(["generate", "3+7+2=?", "--adapter", str(output), "--budgets", "32"]) == 0

    folder = tmp_path / "out"
    assert rlred(["export", str(output), "--output", str(folder), "--base_model", "me/base"]) == 0
    card = (folder / "README.md").read_text()
    assert "` 12:76,` in its thinking says that 12 of 76 tokens have been spent" in card
    pattern = re.compile(next(line[4:] for line in card.splitlines() if r"\d+" in line))
    assert pattern.sub("", "3+7=10 12:48, 11") == "3+7=10 11"
    assert prompts_of_record(json.loads((folder / "run.json").read_text())).markers == Markers(12, " {spent}:{budget},")
