"""The second embedded task: questions are worked through, nothing counts, and its maker trains."""

import random

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlred.data.questions import load_questions
from rlred.rewards import Correctness
from rlred.tiny import sorting
from rlred.tiny.makers.from_nothing import build_tokenizer
from rlred.tiny.makers.tiny_sorter import WORDS, MakeSorter, sample_texts


def test_splits_never_overlap_and_a_smaller_sample_is_a_part_of_a_larger_one():
    train, test = (load_questions("sorting", split=split, limit=500) for split in ("train", "test"))
    assert not set(train["question"]) & set(test["question"])
    assert load_questions("sorting", limit=50)["question"] == train["question"][:50]
    assert {"easy", "medium", "hard"} == set(train["level"])


@pytest.mark.parametrize("seed", range(20))
def test_a_trace_takes_the_smallest_first_and_keeps_its_length(seed):
    rng = random.Random(seed)
    numbers, rank = sorting.sample_question(rng, "train")
    steps = sorting.steps(numbers, rank, rng)
    taken = [int(next(steps).split()[1]) for _ in range(rank)]
    assert taken == sorted(numbers)[:rank]
    for most in (2, 10, 40, 84):
        text = sorting.trace(numbers, rank, most, rng)
        thinking, _, answer = text.partition("</think>")
        assert sorting.num_tokens(thinking) <= most
        assert Correctness()([text], solution=[str(sorted(numbers)[rank - 1])]) == [1.0]
        assert answer == f"\\boxed{{{sorted(numbers)[rank - 1]}}}"


def test_tokens_are_words_and_single_digits():
    tokenizer, rng = build_tokenizer(WORDS, digits=1), random.Random(0)
    for _ in range(50):
        question, trace = sample_texts(rng)
        thinking = trace.partition("</think>")[0]
        assert len(tokenizer(thinking)["input_ids"]) == sorting.num_tokens(thinking)
        assert tokenizer.decode(tokenizer(question)["input_ids"]) == question


def test_the_trace_says_nothing_of_the_budget():
    rng, asked = random.Random(0), []
    for _ in range(4000):
        question, trace = sample_texts(rng)
        if "tokens." in question:
            budget = int(question.split()[-2])
            asked.append((budget > 54, sorting.num_tokens(trace.partition("</think>")[0])))
    high = [length for above, length in asked if above]
    low = [length for above, length in asked if not above]
    assert abs(sum(high) / len(high) - sum(low) / len(low)) < 3  # of some 45 tokens; no difference but chance


def test_the_maker_trains_and_never_writes_over(tmp_path):
    made = tmp_path / "sorter"
    MakeSorter(output=made, steps=2, batch_size=4).run()
    model = AutoModelForCausalLM.from_pretrained(made)
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(made)) < 400
    with pytest.raises(ValueError, match="is not written over"):
        MakeSorter(output=made)
