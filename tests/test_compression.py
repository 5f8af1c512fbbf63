"""Cutting chains of thought: what is never lost, what ratio is reached, and scores that equal their definition."""

import json
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, XLMRobertaConfig, XLMRobertaForTokenClassification

from rlred.compression.cut import cut, render, span_scores
from rlred.compression.scores import (
    MODEL_FREE,
    SCORERS,
    Bidirectional,
    Edges,
    Head,
    Random,
    SelfInformation,
    StepEntropy,
    Stride,
    TokenClassifier,
    make_scorer,
)
from rlred.compression.spans import split_spans
from tests.paths import ROOT, real_data

RATIOS = (0.9, 0.8, 0.7, 0.6, 0.5)
NUMBERS = re.compile(r"\d+(?:\.\d+)?")
OPERATORS = re.compile(r"[+*/=<>]")
DIFFERENCES = re.compile(r"\d\s*-\s*[\d$]")  # a hyphen between words is no operator


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(ROOT / "data" / "tiny_reasoner")


@pytest.fixture(scope="module")
def solutions():
    """Published solutions of GSM8K, calculator annotations and all."""
    lines = real_data("gsm8k/train.jsonl").read_text().splitlines()
    return [json.loads(line)["answer"] for line in lines[::149]]


@pytest.mark.parametrize(
    "text, protected",
    [
        ("He has 3 - 4 = -1 left", ["3 - 4 = -1"]),
        ("16 eggs cost $1,000.50 or 12.5%", ["16", "$1,000.50", "12.5%"]),
        ("48/2 = <<48/2=24>>24 clips", ["48/2", "=", "<<48/2=24>>", "24"]),
        ("so x = 5 and 2x + 1 = 11", ["x = 5", "2", "+ ", "1 = 11"]),
        ("It is \\boxed{\\frac{1}{2}}.", ["\\boxed{\\frac{1}{2}}"]),
        ("Let $a^2 + b^2$ and \\(c\\) be \\[d\n=e\\]", ["$a^2 + b^2$", "\\(c\\)", "\\[d\n=e\\]"]),
        ("They cost $5 and $3 each", ["$5", "$3"]),  # money is no formula
        ("x\u00b2 is kept as it is", []),
        ("run `f(3)` or\n```\ng(4)\n```", ["`f(3)`", "\n", "```\ng(4)\n```"]),
        ("\\boxed{never closed", ["\\boxed"]),
        ("a twenty-four hour day", []),
        ("", []),
    ],
)
def test_what_is_protected(text, protected):
    found = [text[span.start : span.end].strip(" ") for span in split_spans(text) if span.protected]
    for part in protected:
        assert any(part.strip() in one or part == one for one in found), (part, found)
    assert protected or not found or "x\u00b2" in text


@given(st.text(alphabet="ab1 2+=.$\\{}()[]\n\u00b2<>`x", max_size=80))
def test_the_units_hold_every_character_but_blanks_in_order(text):
    spans = split_spans(text)
    assert all(a.end <= b.start for a, b in zip(spans, spans[1:], strict=False))
    covered = {i for span in spans for i in range(span.start, span.end)}
    assert all(text[i].isspace() for i in set(range(len(text))) - covered)
    whole = render(text, spans, range(len(spans)))
    assert [c for c in whole if not c.isspace()] == [c for c in text if not c.isspace()]


@given(st.text(alphabet="abc 12+=.\n", max_size=60), st.integers(0, 3))
def test_selections_are_nested_and_never_longer_than_asked_but_for_what_is_forced(text, seed):
    cuts = cut(text, Random(seed)(text), RATIOS, lambda text: len(text.split()))
    for longer, shorter in zip(cuts, cuts[1:], strict=False):
        assert set(shorter.kept) <= set(longer.kept)
    for one in cuts:
        assert one.achieved <= max(one.ratio, one.forced) + 1e-9


@pytest.mark.parametrize(
    "text, kept, expected",
    [
        (
            " Let's add 3+4=7 exactly.\n And go",
            [0, 2, 4],
            " Let's 3+4=7.",
        ),  # the first blank stays, none comes before "."
        (" Let's add 3+4=7 exactly.\n And go", [2, 5, 7], " 3+4=7\n go"),  # one blank after a newline
        ("so 2, -3 it is", [1, 3], "2 -3"),
        ("two, three,-4", [0, 2, 4], "two three -4"),  # no difference of what stood apart
        ("a (very) long way", [0, 1, 3], "a (very) way"),
        ("all (only 3 of them)", [1, 3, 6], "(3)"),
        ("so **in all 56 of them** go", [1, 4, 7, 8], "**56** go"),
    ],
)
def test_blanks_are_where_they_were(text, kept, expected):
    assert render(text, split_spans(text), kept) == expected


@pytest.mark.parametrize("scorer", [Random(0), Stride(), Head(), Edges()], ids=lambda scorer: type(scorer).__name__)
def test_real_solutions_keep_every_number_operator_and_newline_at_every_ratio(scorer, solutions, tokenizer):
    def count(text):
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    reached, missed = 0, 0
    for text in solutions:
        for one in cut(text, scorer(text), RATIOS, count):
            for pattern in (NUMBERS, OPERATORS):
                assert pattern.findall(one.text) == pattern.findall(text)
            assert set(DIFFERENCES.findall(text)) <= set(DIFFERENCES.findall(one.text))
            assert one.text.count("\n") == text.count("\n")
            if one.ratio > one.forced:  # below that no cut reaches it, and the row says so
                reached += 1
                missed += one.ratio - one.achieved > 0.02
    assert len(solutions) > 50 and reached > 125
    assert missed / reached < 0.35  # a word of several tokens is more than 2 % of a short solution


def test_the_achieved_ratio_of_real_solutions_is_within_two_points_on_average(solutions, tokenizer):
    def count(text):
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    for ratio in RATIOS:
        cuts = [cut(text, Random(0)(text), [ratio], count)[0] for text in solutions]
        gaps = [one.ratio - one.achieved for one in cuts if one.ratio > one.forced]
        assert 0 <= sum(gaps) / len(gaps) < 0.02


@pytest.mark.parametrize("ratio", [0, -0.5, 1.5, float("nan")])
def test_a_ratio_outside_its_range_is_an_error(ratio):
    with pytest.raises(ValueError, match="ratio must be above 0 and at most 1"):
        cut("a b", [], [ratio], len)


def test_trap_the_ratio_is_the_share_that_is_kept():
    text = "one two three four five six seven eight nine ten"
    assert len(cut(text, Head()(text), [0.9], lambda text: len(text.split()))[0].text.split()) == 9


def test_nothing_of_the_string_is_normalised():
    text = "Area x\u00b2 caf\u00e9 \ufb01t ok"
    [one] = cut(text, Head()(text), [0.8], lambda text: len(text.split()))
    assert one.text == "Area x\u00b2 caf\u00e9 \ufb01t"  # LLMLingua's way gives x2 and fit


def test_empty_thinking_is_cut_to_itself():
    assert cut("", [], [0.5], len)[0].text == ""


@pytest.fixture(scope="module")
def causal(tokenizer):
    return AutoModelForCausalLM.from_pretrained(ROOT / "data" / "tiny_reasoner"), tokenizer


TEXT = "3+7=10 6+2=12 11 check 13"


def log_probs(model, tokenizer, question):
    """log p of each token of TEXT, by one plain forward pass over the whole conversation."""
    prompt = f"<|user|>{question}<|assistant|><think>"
    ids = tokenizer(prompt + TEXT, add_special_tokens=False, return_tensors="pt")["input_ids"]
    found = torch.log_softmax(model(ids).logits[0, :-1], -1).gather(1, ids[0, 1:, None])[:, 0]
    return found[-len(tokenizer(TEXT, add_special_tokens=False)["input_ids"]) :]


def test_self_information_is_the_models_own(causal):
    spans = SelfInformation(*causal)(TEXT, question="3+7+2=?")
    assert [score for _, _, score in spans] == pytest.approx((-log_probs(*causal, "3+7+2=?")).tolist(), abs=1e-4)
    assert "".join(TEXT[start:end] for start, end, _ in spans) == TEXT


@pytest.mark.parametrize("tell_answer, told", [(True, "3+7+2=?\n12"), (False, "3+7+2=?")])
def test_conditional_information_is_what_question_and_answer_tell(causal, tell_answer, told):
    score = SelfInformation(*causal, conditional=True, tell_answer=tell_answer)
    spans = score(TEXT, question="3+7+2=?", answer="12")
    expected = log_probs(*causal, told) - log_probs(*causal, "")
    assert [score for _, _, score in spans] == pytest.approx(expected.tolist(), abs=1e-4)


def test_self_information_reads_what_is_longer_than_its_window(causal):
    text = "3+7=10 6 " * 100
    short = SelfInformation(*causal, window=64)(text)
    assert len(short) == len(SelfInformation(*causal, window=4096)(text)) and short[-1][1] >= len(text) - 1


def test_a_base_without_a_chat_template_is_told_in_plain_text(causal):
    model, tokenizer = causal[0], AutoTokenizer.from_pretrained(ROOT / "data" / "tiny_reasoner")
    tokenizer.chat_template = None
    [(_, _, score)] = SelfInformation(model, tokenizer)(" check", question="3+7=?")
    ids = [tokenizer.eos_token_id, *tokenizer("3+7=?\n check", add_special_tokens=False)["input_ids"]]
    [*_, expected] = torch.log_softmax(model(torch.tensor([ids])).logits[0, -2], -1)[ids[-1:]].tolist()
    assert score == pytest.approx(-expected, abs=1e-4)


def test_a_step_matters_as_much_as_it_makes_question_and_answer_likely(causal):
    tokens = SelfInformation(*causal)
    spans = Bidirectional(tokens, alpha=0.25)("3+7=10\n10+2=12", question="3+7+2=?", answer="12")
    assert [span[:2] for span in spans] == [(0, 6), (7, 14)]

    def mean(text, told):
        found = [score for _, _, score in tokens.log_probs(text, told)]
        return sum(found) / len(found)

    for (_, _, score), step in zip(spans, ("3+7=10", "10+2=12"), strict=True):
        assert score == pytest.approx(0.25 * mean("3+7+2=?", step) + 0.75 * mean("12", step), abs=1e-5)


def test_a_text_longer_than_any_window_is_scored_and_cut(causal, tokenizer):
    text = "So she pays 3 + 4 = 7 more. " * 900
    count = len(tokenizer(text)["input_ids"])
    assert count > 16_000
    spans = SelfInformation(causal[0], tokenizer, window=512)(text)
    assert len(spans) == count and spans[-1][1] >= len(text) - 1
    [one] = cut(text, spans, [0.9], lambda text: len(tokenizer(text)["input_ids"]))
    assert 0.88 < one.achieved <= 0.9 and one.text.count("3 + 4 = 7") == 900


def test_without_protection_a_number_goes_like_a_word():
    text = "So she pays 3 + 4 = 7 dollars"
    [one] = cut(text, Head()(text), [0.4], lambda text: len(text.split()), protect=False)
    assert one.text == "So she pays" and one.forced == 0


@pytest.mark.parametrize("name", SCORERS)
def test_every_scorer_can_be_made_by_name(name):
    if name == "llmlingua2":
        with pytest.raises(ValueError, match="scorer_model='nowhere' cannot be loaded"):
            make_scorer(name, "nowhere")
        return
    scorer = make_scorer(name, None if name in MODEL_FREE else "tiny_reasoner", seed=1)
    spans = scorer("3+7=10\n10+2=12 check", question="3+7+2=?", answer="12")
    assert spans and all(0 <= start < end <= 20 for start, end, _ in spans)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: make_scorer("gpt4"), "none is called 'gpt4'"),
        (lambda: make_scorer("question"), "scorer_model: question scores with a causal language model"),
        (lambda: Bidirectional(None, alpha=1.5), "alpha must be from 0 to 1"),
    ],
)
def test_a_wrong_scorer_is_one_clear_line(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_steps_have_one_score_each(causal):
    text = "3+7=10\n10+2=12\ncheck"
    spans = StepEntropy(SelfInformation(*causal))(text)
    assert [text[start:end] for start, end, _ in spans] == text.split("\n")
    scores = span_scores(split_spans(text), spans)
    assert len(set(scores)) == 4  # three steps, and the newlines between them


@pytest.fixture(scope="module")
def classifier(tokenizer):
    """A token classifier of the published kind, tiny and with random weights, on this tokenizer."""
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=200,
        num_labels=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    return XLMRobertaForTokenClassification(config)


def test_a_classifiers_scores_do_not_depend_on_the_batch(classifier, tokenizer):
    tokenizer = AutoTokenizer.from_pretrained(
        ROOT / "data" / "tiny_reasoner", cls_token="<think>", sep_token="</think>"
    )
    score = TokenClassifier(classifier, tokenizer, window=40, batch_size=3)
    texts = ["So she pays 3 + 4. Then", "word " * 70, "It is 12.", ""]
    together = score.batch(texts)
    for text, spans in zip(texts, together, strict=True):
        alone = score(text)
        assert [s[:2] for s in spans] == [s[:2] for s in alone]
        assert [s[2] for s in spans] == pytest.approx([s[2] for s in alone], abs=1e-5)
        assert all(0 <= s[2] <= 1 for s in spans)
    assert together[1][-1][1] >= 345  # windows cover the whole text


def test_a_model_of_another_kind_is_refused(classifier, causal, tokenizer):
    with pytest.raises(ValueError, match="2 labels"):
        classifier.config.num_labels, kept = 3, classifier.config.num_labels
        try:
            TokenClassifier(classifier, tokenizer)
        finally:
            classifier.config.num_labels = kept
