"""Rollouts end where their reward is decided, and nobody's reward notices."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig

from rlred.data.budgets import BudgetSampler, Wording, training_rows
from rlred.data.questions import load_questions
from rlred.evaluation.row_limits import stopping_at
from rlred.evaluation.sampling import Sampling
from rlred.evaluation.sweep import complete
from rlred.rewards import (
    ByMode,
    Correctness,
    CosineLength,
    ExactLength,
    Length,
    LengthEfficiency,
    MaxLength,
    Truncation,
    make_reward,
)
from rlred.runs.arguments import parse
from rlred.tiny import resolve_model
from rlred.training.adherence import LogsAdherence
from rlred.training.early_stop import EarlyStop, check_stopping, decided_after
from rlred.training.trainer import ComposedGRPOTrainer
from tests.paths import ROOT
from tests.test_recipes import arguments, run

DECIDED = [
    (MaxLength(alpha=0.05), {"budget": 10}, 20),
    (MaxLength(), {"budget": 512}, 1012),  # the released code's window of 500
    (MaxLength.preset("paper"), {"budget": 512}, 2179),
    (MaxLength(alpha=2.0, deviation="relative"), {"budget": 100}, 125),
    (MaxLength(alpha=0.05, delta=0.0), {"budget": 10}, 11),  # 0 from the budget on, but above it to be seen above it
    (MaxLength(alpha=0.0), {"budget": 10}, None),
    (MaxLength(), {"budget": None}, None),
    (MaxLength(length=Length("thinking", 99)), {"budget": 10}, None),
    (MaxLength(), {"budget": 10, "solution": "$"}, None),
    (Truncation(limit=20), {}, 21),
    (Truncation(limit=20, beyond=0.1), {}, None),
    (Truncation(stages=((0, 60), (30, 45))), {"trainer_state": SimpleNamespace(global_step=30)}, 46),
    (CosineLength(max_length=50, exceed=-10.0), {}, 50),
    (CosineLength(max_length=50), {}, None),
    (LengthEfficiency.preset("released"), {"reference_length": 40.0, "reference_accuracy": 0.5}, 220),
    (LengthEfficiency(), {"reference_length": 40.0, "reference_accuracy": 0.5}, None),
    (ByMode(max=MaxLength(alpha=0.05)), {"budget": 10, "mode": "max"}, 20),
    (ByMode(), {"budget": 10, "mode": "exact"}, None),
]


@pytest.mark.parametrize("reward, columns, expected", DECIDED)
def test_a_reward_says_after_how_many_tokens_it_is_decided(reward, columns, expected):
    assert reward.decided_after({"solution": "4", **columns}) == expected


@given(
    reward=st.one_of(
        st.builds(
            MaxLength,
            alpha=st.floats(0.02, 3),
            delta=st.floats(0, 1),
            deviation=st.sampled_from(["absolute", "relative"]),
        ),
        st.builds(Truncation, limit=st.integers(1, 300)),
        st.builds(CosineLength, max_length=st.integers(1, 300), exceed=st.floats(-10, 0)),
        st.builds(
            LengthEfficiency,
            accuracy_weight=st.floats(0, 6),
            normalise=st.sampled_from(["completion", "reference"]),
            low=st.floats(-3, 1),
        ),
    ),
    budget=st.integers(1, 300),
    reference=st.floats(1, 500),
    accuracy=st.floats(0, 1),
    more=st.integers(0, 300),
)
def test_no_completion_that_goes_on_earns_anything_else(reward, budget, reference, accuracy, more):
    row = {"solution": "4", "budget": budget, "reference_length": reference, "reference_accuracy": accuracy}
    decided = reward.decided_after(row)
    if decided is None:
        return
    columns = {name: [value] * 3 for name, value in row.items()}
    completions = ["", "\\boxed{4}", "\\boxed{5}"]  # cut there; gone on, and right; gone on, and wrong
    ids = [range(decided), range(decided + more), range(decided + more)]
    assert len(set(reward(completions=completions, completion_ids=ids, **columns))) == 1


def test_a_sum_is_decided_when_all_of_its_trained_parts_are():
    row = {"solution": "4", "budget": 10, "mode": "max"}
    short, long = MaxLength(alpha=0.5), MaxLength(alpha=0.05)
    assert decided_after([short, long], [1.0, 1.0], row, cap=90) == 20
    assert decided_after([short, long], [1.0, 0.0], row, cap=90) == 11
    assert decided_after([short, Correctness()], [1.0, 0.0], row, cap=90) == 11
    assert decided_after([short, Correctness()], [1.0, 1.0], row, cap=90) == 90
    assert decided_after([short, lambda **columns: [0.0]], [1.0, 1.0], row, cap=90) == 90
    assert decided_after([long], [1.0], row, cap=15) == 15


@pytest.fixture(scope="module")
def base():
    folder = resolve_model("tiny_reasoner")
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def rows_of(n, low=4, high=40, **modes):
    sampler = BudgetSampler(low=low, high=high, modes=modes or {"max": 1.0, "exact": 1.0})
    return training_rows(load_questions("sums", limit=64), Wording(), sampler, num_rows=n, seed=1)


def trainer_of(model, tokenizer, folder, rewards, early_stop_rollouts, **changes):
    training = GRPOConfig(
        str(folder),
        per_device_train_batch_size=16,
        num_generations=4,
        max_completion_length=90,
        use_cpu=True,
        bf16=False,
        report_to="none",
        reward_weights=[1.0] + [0.0] * (len(rewards) - 1),
        scale_rewards="none",
        **changes,
    )
    return ComposedGRPOTrainer(
        model=copy.deepcopy(model),
        reward_funcs=[LogsAdherence(rewards[0], 90, (tokenizer.eos_token_id,)), *rewards[1:]],
        args=training,
        train_dataset=rows_of(4),
        processing_class=tokenizer,
        parts=[EarlyStop()] if early_stop_rollouts else [],
    )


@pytest.mark.parametrize(
    "reward",
    [
        {"name": "by_mode", "max": {"name": "max_length", "alpha": 0.1}, "exact": {"name": "exact_length"}},
        {"name": "truncation", "limit": 30},
    ],
    ids=lambda reward: reward["name"],
)
def test_a_stopped_batch_has_the_same_rewards_and_advantages_and_the_same_tokens_up_to_there(base, tmp_path, reward):
    found = {}
    for stop in (False, True):
        trainer = trainer_of(*base, tmp_path, [make_reward(reward), Correctness()], stop)
        trainer.model.train()
        inputs = [dict(row) for row in rows_of(8) for _ in range(4)]
        torch.manual_seed(0)
        found[stop] = trainer._generate_and_score_completions(inputs), trainer
    (whole, _), (cut, trainer) = found[False], found[True]
    assert torch.equal(cut["advantages"], whole["advantages"]) and cut["advantages"].abs().max() > 0
    lengths, full = cut["completion_mask"].sum(1), whole["completion_mask"].sum(1)
    limits = torch.tensor(trainer._limits)
    assert torch.equal(lengths, torch.minimum(full, limits))
    assert (full > limits).sum() >= 4 and (limits == 90).any() == ("exact" in reward)
    for row, n in enumerate(lengths.tolist()):
        assert torch.equal(cut["completion_ids"][row, :n], whole["completion_ids"][row, :n])


def test_trap_lengths_cut_at_the_budget_do_not_look_like_obedience(base, tmp_path):
    # The base hears no budget; cut a little past each one, its lengths would follow them perfectly.
    logged = {}
    for stop in (False, True):
        trainer = trainer_of(*base, tmp_path, [MaxLength(alpha=0.5), Correctness()], stop, max_steps=1, logging_steps=1)
        trainer.train_dataset = rows_of(4, low=4, high=24, max=1.0)
        trainer.train()
        logged[stop] = trainer.state.log_history[0]
    assert logged[True]["adherence/stopped"] > 0.5
    assert logged[True]["completions/max_length"] <= 25 < logged[False]["completions/mean_length"]
    assert logged[True]["adherence/batch_rank_correlation"] < 0.6
    for name in ("adherence/over_budget", "reward", "rewards/max_length/std"):  # the same rollouts, up to there
        assert logged[True][name] == logged[False][name]


def rewards_of_recorded_rollouts(base, n):
    """Pairs of rewards, whole and cut, of `n` rollouts of the base at budgets far below its length."""
    model, tokenizer = base
    rows = list(rows_of(n, low=8, high=48))
    ids = complete(model, tokenizer, [row["prompt"] for row in rows], Sampling(90, seed=3))
    parsed, _, _ = parse(ROOT / "recipes" / "l1_maxlen.yaml", [])
    for reward in (make_reward(parsed.reward), MaxLength(), MaxLength(alpha=0.1), Truncation(limit=30)):
        limits = [decided_after([reward], [1.0], row, 90) for row in rows]
        scored = []
        for kept in (ids, [row[:limit] for row, limit in zip(ids, limits, strict=True)]):
            texts = tokenizer.batch_decode(kept, skip_special_tokens=True)
            columns = {name: [row[name] for row in rows] for name in ("solution", "budget", "mode")}
            scored.append(reward(completions=texts, completion_ids=kept, **columns))
        saved = 1 - sum(map(min, map(len, ids), limits)) / sum(map(len, ids))
        yield reward, scored, saved


def test_recorded_rollouts_earn_the_same_when_cut(base):
    check_recorded(base, 128)


@pytest.mark.slow
def test_two_thousand_recorded_rollouts_earn_the_same_when_cut(base):
    check_recorded(base, 2000)


def check_recorded(base, n):
    for reward, (whole, cut), saved in rewards_of_recorded_rollouts(base, n):
        print(
            f"{reward.__name__}: {n} rollouts, {sum(a != b for a, b in zip(whole, cut, strict=True))} differ, ", end=""
        )
        print(f"{100 * saved:.1f} % of the tokens saved")
        assert whole == cut and len(set(whole)) > 1
        assert saved > 0 or reward == MaxLength()  # its window of 500 tokens is longer than anything here


def test_a_recipe_stops_its_rollouts(tmp_path):
    # The base uses some forty tokens, whatever it is asked for: with budgets of 4 to 24 nearly every rollout is cut.
    flags = {"hindsight": False, "evaluate": False, "modes": '{"max":1}', "budget_low": 4, "budget_high": 24}
    flags["reward"] = '{"name":"max_length","alpha":0.5}'  # nothing is left of it two tokens past the budget
    logs = {}
    for stop in (True, False):
        output = tmp_path / str(stop)
        run(*arguments("l1_maxlen", "tiny_reasoner", output_dir=output, early_stop_rollouts=stop, **flags), tmp_path)
        logs[stop] = json.loads((output / "trainer_state.json").read_text())["log_history"][0]
    assert logs[True]["adherence/stopped"] > 0.5 and "adherence/stopped" not in logs[False]
    assert logs[True]["completions/max_length"] <= 26 < logs[False]["completions/max_length"]


class FakeLLM:
    """What TRL's colocated vLLM is asked: one SamplingParams for all prompts."""

    def generate(self, prompts, sampling_params, use_tqdm):
        return [parameters.max_tokens for parameters in sampling_params]


class FakeParameters(SimpleNamespace):
    def clone(self):
        return copy.copy(self)


def test_vllm_is_given_a_limit_per_prompt():
    llm = FakeLLM()
    with stopping_at(llm, [20, 90]):
        assert llm.generate(["a", "b"], sampling_params=FakeParameters(max_tokens=90), use_tqdm=False) == [20, 90]
    assert "generate" not in vars(llm)


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"mask_truncated_completions": True}, "mask_truncated_completions=True"),
        ({"use_transformers_continuous_batching": True}, "use_transformers_continuous_batching=True"),
        ({"use_vllm": True, "vllm_mode": "server"}, "vllm_mode='server'"),
        ({"use_vllm": True, "vllm_tensor_parallel_size": 2}, "vllm_tensor_parallel_size=2"),
    ],
)
def test_what_cannot_be_stopped_row_by_row_is_refused(tmp_path, changes, field):
    training = GRPOConfig(str(tmp_path), use_cpu=True, bf16=False)
    for name, value in changes.items():
        setattr(training, name, value)
    with pytest.raises(ValueError, match=field):
        check_stopping(training)


def test_exact_rows_are_never_stopped():
    row = {"solution": "4", "budget": 10}
    assert ExactLength().decided_after(row) is None and Correctness().decided_after(row) is None
