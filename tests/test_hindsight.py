"""The hindsight start: relabelled rows are the sampled tokens, lengths are mixed, and nothing is done twice."""

import json

import pytest
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlred.data.budgets import BudgetSampler, Wording
from rlred.data.questions import load_questions
from rlred.evaluation.conditions import budget_conditions
from rlred.evaluation.sampling import Sampling
from rlred.evaluation.sweep import complete, merged_adapter, sweep
from rlred.rewards import Correctness, Length
from rlred.training.hindsight import Hindsight, read_traces, relabel, right_traces, sample_traces

SETTINGS = Hindsight(num_samples=40, max_updates=2, cooldown_updates=1, batch_size=8, max_slack=4)
SAMPLER = BudgetSampler(low=8, high=16, modes={"exact": 1, "max": 1, "none": 1})


@pytest.fixture(scope="module")
def reasoner():
    """The embedded model and its tokenizer."""
    from rlred.tiny import resolve_model

    folder = resolve_model("tiny_reasoner")
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def questions():
    return list(load_questions("sums", limit=32))


def sampled(reasoner, questions, path, **changes):
    model, tokenizer = reasoner
    settings = Hindsight(**{**SETTINGS.__dict__, **changes})
    return sample_traces(
        model,
        tokenizer,
        questions,
        Wording(),
        SAMPLER,
        settings,
        sampling=Sampling(80, batch_size=64),
        path=path,
    )


def test_relabelled_rows_ask_for_the_length_they_have(reasoner, questions, tmp_path):
    _, tokenizer = reasoner
    traces = sampled(reasoner, questions, tmp_path / "traces.jsonl")
    rows = relabel(traces, tokenizer, Wording(), SAMPLER, SETTINGS, Length(), seed=0)
    assert len(rows) == 24
    own = [trace["completion_ids"] for trace in traces]
    seen = set()
    for row in rows:
        start = row["completion_mask"].index(1)
        completion = row["input_ids"][start:]
        thinking = completion.index(tokenizer.convert_tokens_to_ids("</think>")) + 1
        assert row["completion_mask"] == [0] * start + [1] * thinking + [0] * (len(completion) - thinking)
        assert completion in own  # the very tokens that were sampled
        assert completion[-1] == tokenizer.eos_token_id
        prompt = tokenizer.decode(row["input_ids"][:start])
        assert prompt.endswith("<|assistant|><think>")
        n = len(completion)
        if "exactly" in prompt:
            seen.add("exact")
            assert f"Think for exactly {n} tokens." in prompt
        elif "maximum" in prompt:
            seen.add("max")
            assert any(f"Think for maximum {n + slack} tokens." in prompt for slack in range(5))
        else:
            seen.add("none")
    assert seen == {"exact", "max", "none"}


def test_trap_batches_bucketed_by_length_have_no_contrast(reasoner, questions, tmp_path):
    # Length-bucketed batches gave a correlation of 0.03 where mixed ones gave 0.95 (reference: dial-experiments).
    _, tokenizer = reasoner
    traces = sampled(reasoner, questions, tmp_path / "traces.jsonl")
    rows = relabel(traces, tokenizer, Wording(), SAMPLER, SETTINGS, Length(), seed=0)
    everything = [len(trace["completion_ids"]) for trace in traces]
    for start in range(0, len(rows), SETTINGS.batch_size):
        batch = rows.select(range(start, start + SETTINGS.batch_size))
        lengths = [len(mask) - mask.index(1) for mask in batch["completion_mask"]]
        assert max(lengths) - min(lengths) > 0.4 * (max(everything) - min(everything))
        totals = [len(ids) for ids in batch["input_ids"]]
        assert totals == sorted(totals)  # inside an update, neighbours in length share a micro-batch


def test_right_traces_are_those_that_say_the_answer(reasoner, questions):
    _, tokenizer = reasoner
    row = questions[0]
    says = {
        right: tokenizer(f"</think>\\boxed{{{int(row['solution']) + (not right)}}}")["input_ids"]
        for right in (True, False)
    }
    traces = [{"question": row["question"], "completion_ids": says[right]} for right in (False, True, False, True)]
    kept = right_traces(traces, questions, tokenizer, Correctness())
    assert kept == [traces[1], traces[3]]


def test_sampling_goes_on_where_it_was_cut_off(reasoner, questions, tmp_path, monkeypatch):
    monkeypatch.setattr("rlred.training.hindsight.CHUNK", 10)
    whole = sampled(reasoner, questions, tmp_path / "whole.jsonl")
    sampled(reasoner, questions, tmp_path / "parts.jsonl", num_samples=20)
    with open(tmp_path / "parts.jsonl", "a") as file:
        file.write('{"sampled": 30, "traces": [{"questi')  # the process was killed while writing
    assert read_traces(tmp_path / "parts.jsonl")[1] == 20
    assert sampled(reasoner, questions, tmp_path / "parts.jsonl") == whole


def test_a_model_that_never_ends_is_refused(random_model, questions, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(random_model)
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    with pytest.raises(ValueError, match="ended before max_completion_length=1"):
        sample_traces(
            model,
            tokenizer,
            questions,
            Wording(),
            SAMPLER,
            SETTINGS,
            sampling=Sampling(1, batch_size=64),
            path=tmp_path / "t.jsonl",
        )


def test_the_embedded_base_is_deaf_and_its_thinking_buys_accuracy(reasoner):
    questions = list(load_questions("sums", split="test", limit=96))
    conditions = budget_conditions(Wording(), [16, 32, 48, 64])
    outcomes = sweep(*reasoner, questions, conditions, sampling=Sampling(80, seed=1))
    from rlred.evaluation.measures import measure

    assert abs(measure(outcomes)["rank_correlation"]) < 0.15
    necessary = {row["question_id"]: 5 * row["question"].count("+") + 1 for row in questions}
    full = [o["correct"] for o in outcomes if o["length"] - 5 >= necessary[o["question_id"]]]
    early = [o["correct"] for o in outcomes if o["length"] - 5 < necessary[o["question_id"]]]
    assert sum(full) / len(full) > 0.7 > 0.5 > sum(early) / len(early)


def test_merging_for_generation_leaves_no_trace(reasoner):
    model, tokenizer = reasoner
    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    prompt = [{"role": "user", "content": Wording().ask("1+2+3=?", 16, "exact")}]
    with merged_adapter(model):
        assert any((before[name] != tensor).any() for name, tensor in model.state_dict().items())
    merged = complete(model, tokenizer, [prompt], Sampling(30, temperature=0))
    inputs = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    plain = model.generate(**inputs, do_sample=False, max_new_tokens=30)[0, inputs["input_ids"].shape[1] :].tolist()
    assert merged[0] == plain[: len(merged[0])]
    after = model.state_dict()
    assert all((before[name] == after[name]).all() for name in before)
    model.unload()


def test_trap_prompts_are_padded_on_the_left_whatever_the_tokenizer_does(reasoner):
    model, tokenizer = reasoner
    prompts = [
        [{"role": "user", "content": Wording().ask(question, 16, "exact")}] for question in ("1+2+3=?", "4+5+6+7+8+9=?")
    ]
    greedy = Sampling(20, temperature=0)
    alone = [complete(model, tokenizer, [prompt], greedy)[0] for prompt in prompts]
    tokenizer.padding_side = "right"
    together = complete(model, tokenizer, prompts, greedy)
    tokenizer.padding_side = "left"
    assert together == alone


def test_traces_are_plain_json(reasoner, questions, tmp_path):
    sampled(reasoner, questions, tmp_path / "traces.jsonl")
    for line in (tmp_path / "traces.jsonl").read_text().splitlines():
        assert set(json.loads(line)) == {"sampled", "traces"}
