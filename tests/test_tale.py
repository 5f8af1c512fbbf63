"""TALE on the embedded model: the search keeps what was right, the training moves the adapter, and nothing is lost."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from rlred.data.budgets import make_wording
from rlred.data.models import load_model
from rlred.data.questions import load_questions
from rlred.evaluation.conditions import budget_conditions
from rlred.evaluation.evaluate import base_of
from rlred.evaluation.sampling import Sampling
from rlred.rewards import Correctness
from rlred.runs.tale import Search, TaleArguments, run, search_budgets, sft_rows
from rlred.tiny import ADAPTERS, resolve_adapter, resolve_model
from rlred.tiny.makers.tiny_overthinking import make_overthinking

BUDGETS = [24, 48, 72]
WORDING = make_wording("l1")


def test_tale_trains_on_the_least_budget_that_was_enough_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = TaleArguments(
        num_questions=48,
        num_eval_questions=16,
        samples=2,
        budgets=BUDGETS,
        max_steps=2,
        batch_size=8,
        output_dir=str(tmp_path / "tale"),
    )
    result = run(arguments)
    solutions = {row["question"]: row["solution"] for row in load_questions("sums", limit=48, seed=0)}
    found = json.loads((tmp_path / "tale" / "found.json").read_text())
    assert len(found) == result.details["search"]["found"] > 12
    assert all(Correctness().grade(row["completion"], solutions[row["question"]]) == 1 for row in found)
    assert {row["budget"] for row in found} == set(BUDGETS)
    assert result.cost["rollouts"] == 48 * len(BUDGETS) * 2
    # Long sums need large budgets: that is what there is to learn.
    needed = {level: [row["budget"] for row in found if row["level"] == level] for level in ("easy", "hard")}
    assert sum(needed["easy"]) / len(needed["easy"]) < sum(needed["hard"]) / len(needed["hard"])

    weights = load_file(tmp_path / "tale" / "adapter_model.safetensors")
    assert any(bool(tensor.any()) for name, tensor in weights.items() if "lora_B" in name)
    with pytest.raises(ValueError, match="already holds a run"):
        run(arguments)


def test_the_base_of_a_published_adapter_is_the_embedded_one_in_every_folder(tmp_path, monkeypatch):
    embedded = resolve_model("tiny_reasoner")
    monkeypatch.chdir(tmp_path)
    assert base_of(resolve_adapter("l1_maxlen"), []) == "data/tiny_reasoner"  # as its adapter_config.json says
    assert resolve_model("data/tiny_reasoner") == embedded
    (tmp_path / "data" / "tiny_reasoner").mkdir(parents=True)
    assert resolve_model("data/tiny_reasoner") == "data/tiny_reasoner"  # somebody's own
    assert resolve_model("mine/tiny_reasoner") == "mine/tiny_reasoner" and resolve_adapter("mine") == "mine"
    assert all(Path(resolve_adapter(name)).is_dir() for name in ADAPTERS)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"budgets": []}, r"budgets must be one or more, each 1 or more, got \[\]"),
        ({"budgets": [0, 8]}, r"got \[0, 8\]"),
        ({"samples": 0}, "samples must be 1 or more, got 0"),
        ({"share": 0.0}, r"share must be in \(0, 1\], got 0.0"),
        ({"share": 1.5}, r"share must be in \(0, 1\], got 1.5"),
        ({"max_steps": 0}, "max_steps must be 1 or more, got 0"),
        ({"lora_r": 0}, "lora_r must be 1 or more, got 0"),
    ],
)
def test_a_wrong_setting_is_named_before_anything_is_loaded(settings, message):
    with pytest.raises(ValueError, match=message):
        TaleArguments(**settings)


def outcomes(**correct: str) -> list[dict]:
    return [
        {"budget": int(budget[1:]), "correct": float(one == "1"), "truncated": one == "t", "number": number}
        for budget, all_of_it in correct.items()
        for number, one in enumerate(all_of_it)
    ]


@pytest.mark.parametrize(
    "asked, share, budget, number",
    [
        (outcomes(b16="1111", b32="1111"), 0.75, 16, 0),
        (outcomes(b16="0100", b32="0111"), 0.75, 32, 1),  # one guess of four is luck
        (outcomes(b16="0100", b32="0111"), 0.25, 16, 1),
        (outcomes(b16="1111", b32="0001", b48="1111"), 0.75, 48, 0),  # what lies under a gap is not trusted
        (outcomes(b16="1111", b32="1110"), 1.0, None, None),
        (outcomes(b16="1", b32="t"), 1.0, None, None),  # cut off: nothing is known
        (outcomes(b16="0", b32="1"), 1.0, 32, 0),
    ],
)
def test_the_least_budget_is_the_last_that_was_enough(asked, share, budget, number):
    found = Search((), share=share).least(asked)
    assert (found and found["budget"], found and found["number"]) == (budget, number)


def test_sft_rows_ask_without_a_budget_and_end():
    _, tokenizer = load_model(resolve_model("tiny_reasoner"))
    row = {"question": "3+7+2=?", "completion": "3+7=10 6+2=12 11</think>\\boxed{12}"}
    [ids], [mask] = (sft_rows([row], tokenizer, WORDING)[name] for name in ("input_ids", "completion_mask"))
    text = tokenizer.decode(ids)
    assert text.startswith("<|user|>3+7+2=? Let's think step by step") and "tokens" not in text
    assert text.endswith("<|assistant|><think>" + row["completion"] + "<|im_end|>")
    assert tokenizer.decode([i for i, kept in zip(ids, mask, strict=True) if kept]) == row["completion"] + "<|im_end|>"


def test_a_model_that_is_never_right_has_no_budget_to_learn(random_model):
    model, tokenizer = load_model(str(random_model))
    with pytest.raises(ValueError, match="no question of 2 has enough correct completions at the budget 24"):
        search_budgets(
            model,
            tokenizer,
            load_questions("sums", limit=2).to_list(),
            Search(budget_conditions(WORDING, [16, 24], ["max"])),
            sampling=Sampling(32),
        )


def test_the_overthinking_model_is_made_once_from_the_bases_own_long_answers(tmp_path):
    folder = make_overthinking(tmp_path, num_questions=32, max_steps=2)
    made, base = (load_file(f"{path}/model.safetensors") for path in (folder, resolve_model("tiny_reasoner")))
    assert made.keys() == base.keys()
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not made[name].equal(base[name])
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert make_overthinking(tmp_path, num_questions=32) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


def test_trap_held_out_questions_of_a_file_without_splits_are_training_questions(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps({"question": f"{n}+1?", "answer": str(n + 1)}) + "\n" for n in range(300)))
    with pytest.raises(ValueError, match="eval_questions: 300 of 300 held-out questions are training questions too"):
        TaleArguments(questions=str(path)).load_both()
    train, held_out = TaleArguments(questions=str(path), eval_questions="sums").load_both()
    assert len(train) == 300 and len(held_out) == 256
