"""The gold answers of published sets against themselves: each is read, and each is correct."""

import json

import pytest

from rlred.rewards import Correctness
from rlred.rewards.correctness import golds_of
from tests.paths import real_data

FILES = [
    "gsm8k/train.jsonl",
    "gsm8k/test.jsonl",
    "math500/test.jsonl",
    "competition/aime.json",
    "competition/amc.json",
    "competition/olympiad_bench.json",
]


def gold_answers(name):
    text = real_data(name).read_text(encoding="utf-8")
    rows = json.loads(text) if name.endswith(".json") else [json.loads(line) for line in text.splitlines() if line]
    return [row["answer"] for row in rows]


@pytest.mark.parametrize("name", FILES)
def test_published_gold_answers_equal_themselves(name):
    golds = gold_answers(name)
    # A trailing blank keeps the comparison from ending at two texts that are the same.
    texts = [f"</think>It is $\\boxed{{{golds_of(gold)[0]} }}$." for gold in golds]
    grades = Correctness()(texts, solution=golds)
    assert [gold for gold, grade in zip(golds, grades, strict=True) if grade != 1.0] == []


@pytest.mark.parametrize("name", FILES[2:])
def test_published_gold_answers_are_not_the_next_one(name):
    golds = [golds_of(gold)[0] for gold in gold_answers(name)][:60]
    pairs = [
        (gold, answer) for gold, answer in zip(golds, golds[1:], strict=False) if gold != answer.removeprefix("x=")
    ]
    grades = Correctness()([f"\\boxed{{{answer}}}" for _, answer in pairs], solution=[gold for gold, _ in pairs])
    equal = [pair for pair, grade in zip(pairs, grades, strict=True) if grade != 0.0]
    assert equal == []
