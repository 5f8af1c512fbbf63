"""Think or not: rewards by hand, the mixture's importance weights, both papers' gradients, and runs."""

import json
import random

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig

from recipes.think_or_not import run_from_hybrid
from rlred.data.budgets import WORDINGS
from rlred.data.models import load_model
from rlred.data.questions import load_questions
from rlred.evaluation.conditions import free
from rlred.evaluation.sampling import Sampling
from rlred.evaluation.sweep import sweep
from rlred.rewards import AdaptThink, Thinkless, make_reward
from rlred.runs.arguments import parse
from rlred.tiny import resolve_model, sums
from rlred.tiny.makers.tiny_hybrid import BATCH, make_hybrid, rows_of
from rlred.tokens import token_of
from rlred.training.think_or_not import ThinkOrNot, control_weights, first_tokens
from rlred.training.trainer import ComposedGRPOTrainer
from tests.paths import ROOT

SKIPPED, THOUGHT, WRONG, WRONG_THOUGHT = (
    "</think>\\boxed{4}",
    "2+2=4</think>\\boxed{4}",
    "</think>\\boxed{5}",
    "2+2=5</think>\\boxed{5}",
)
EMPTY, ENDLESS = "<think>\n\n</think>\\boxed{4}", "2+2=4 and so on"
ADAPT_THINK = [  # c - A_ref + 0.05 [no thinking]
    (SKIPPED, 0.75, 0.30),
    (THOUGHT, 0.75, 0.25),
    (WRONG, 0.75, -0.70),
    (WRONG_THOUGHT, 0.75, -0.75),
    (EMPTY, 0.0, 1.05),
    (ENDLESS, 0.5, -0.5),
]
THINKLESS = [(SKIPPED, 1.0), (THOUGHT, 0.5), (WRONG, -1.0), (WRONG_THOUGHT, -1.0), (EMPTY, 1.0), (ENDLESS, -1.0)]


def test_adapt_thinks_values_are_those_of_the_papers_equation():
    texts, references, values = zip(*ADAPT_THINK, strict=True)
    rewards = make_reward("adapt_think")(list(texts), solution=["4"] * len(texts), reference_accuracy=references)
    assert rewards == pytest.approx(values)


def test_thinkless_values_are_those_of_its_code():
    texts, values = zip(*THINKLESS, strict=True)
    assert make_reward("thinkless")(list(texts), solution=["4"] * len(texts)) == list(values)


def test_a_row_without_a_readable_solution_has_no_reward():
    assert Thinkless()([SKIPPED], solution=[""]) == [None]
    assert AdaptThink()([SKIPPED], solution=[""], reference_accuracy=[0.5]) == [None]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: AdaptThink(delta=-1), "adapt_think.delta"),
        (lambda: AdaptThink()([SKIPPED], solution=["4"]), "column 'reference_accuracy'"),
        (lambda: Thinkless(thinking=-1), "thinkless.thinking must be above incorrect"),
        (lambda: ThinkOrNot(baseline="none"), "think_or_not.baseline must be 'reward' or 'group', got 'none'"),
        (lambda: ThinkOrNot(control_weight=-1), "think_or_not.control_weight"),
        (lambda: ThinkOrNot(forced=False, start="Alright"), "think_or_not.start='Alright'"),
    ],
)
def test_bad_values_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_weighted_mixture_is_the_policy():
    # Whatever the mixture overdoes, its importance weights p / q take back, for every token.
    torch.manual_seed(0)
    policy = torch.tensor([0.02, 0.5, 0.3, 0.18])
    n = 40_000
    skip = torch.arange(n) % 2 == 0
    tokens, log_q = first_tokens(policy.log().repeat(n, 1), skip, end=0)
    assert (tokens[skip] == 0).all() and (tokens[~skip] != 0).all()
    weights = policy[tokens] / log_q.exp()
    found = torch.zeros(4).index_add_(0, tokens, weights) / n
    torch.testing.assert_close(found, policy, rtol=0.03, atol=0)
    # With one fixed start, as in the paper, both halves are chosen with 1/2.
    tokens, log_q = first_tokens(policy.log().repeat(4, 1), torch.tensor([True, True, False, False]), end=0, start=2)
    assert tokens.tolist() == [0, 0, 2, 2]
    assert log_q.exp().tolist() == pytest.approx([0.5] * 4)


def reward(completion_ids, **kwargs):
    return [1.0 + (sum(ids) % 7) / 7 for ids in completion_ids]


def trainer(folder, output, choice, **changes):
    prompts = [{"prompt": [{"role": "user", "content": f"{n}+1=?"}]} for n in range(8)]
    settings = {
        "output_dir": str(output),
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 6,
        "max_steps": 2,
        "scale_rewards": "none",
        "loss_type": "grpo",
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        **changes,
    }
    return ComposedGRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder),
        reward_funcs=reward,
        args=GRPOConfig(**settings),
        train_dataset=Dataset.from_list(prompts),
        processing_class=AutoTokenizer.from_pretrained(folder),
        parts=[choice],
    )


def inputs_of(loop):
    """A batch of two groups, as the trainer makes it."""
    torch.manual_seed(0)
    loop.model.train()
    loop.current_gradient_accumulation_steps = 1
    return loop._generate_and_score_completions([loop.train_dataset[i // 4] for i in range(8)])


def gradient(loop, loss) -> torch.Tensor:
    found = torch.autograd.grad(loss, list(loop.model.parameters()), allow_unused=True)
    return torch.cat([part.flatten() for part in found if part is not None])


def log_probs_of(loop, inputs):
    ids, mask = (torch.cat([inputs[f"prompt_{name}"], inputs[f"completion_{name}"]], 1) for name in ("ids", "mask"))
    return loop._get_per_token_logps_and_entropies(loop.model, ids, mask, inputs["completion_ids"].size(1))[0]


def test_half_of_each_group_skips_and_the_first_tokens_weights_are_against_the_mixture(random_model, tmp_path):
    loop = trainer(random_model, tmp_path, ThinkOrNot())
    inputs = inputs_of(loop)
    ids, mask, (end, _) = inputs["completion_ids"], inputs["completion_mask"], loop.parts[0].tokens(loop._tokenizer)
    skips = torch.tensor([True, True, False, False] * 2)
    assert ((ids[:, 0] == end) == skips).all()
    assert 2 <= mask.sum(1).max() <= 6

    policy = log_probs_of(loop, inputs).detach()
    old = inputs["old_per_token_logps"]
    torch.testing.assert_close(old[:, 1:] * mask[:, 1:], policy[:, 1:] * mask[:, 1:])
    p_end = policy[0, 0].exp(), policy[4, 0].exp()  # one for each prompt
    ratio = (policy - old)[:, 0].exp()
    for group, p in enumerate(p_end):
        expected = [2 * p, 2 * p, 2 * (1 - p), 2 * (1 - p)]
        torch.testing.assert_close(ratio[4 * group : 4 * group + 4], torch.stack(expected), rtol=1e-4, atol=0)


def test_trap_the_reward_is_the_advantage_and_keeps_its_own_baseline(random_model, tmp_path):
    # TRL takes the group's mean away, and with it A_ref, which is the same for the whole group.
    loop = trainer(random_model, tmp_path, ThinkOrNot())
    inputs = inputs_of(loop)
    own = [
        [i for i, kept in zip(ids, mask, strict=True) if kept]
        for ids, mask in zip(inputs["completion_ids"].tolist(), inputs["completion_mask"].tolist(), strict=True)
    ]
    assert inputs["advantages"].tolist() == pytest.approx(reward(own))
    centred = inputs_of(trainer(random_model, tmp_path, ThinkOrNot(baseline="group")))["advantages"]
    assert centred.view(2, 4).mean(1).tolist() == pytest.approx([0, 0], abs=1e-6)


@pytest.mark.parametrize("epsilon, moves", [(0.2, False), (1.0, True)])
def test_trap_a_clip_of_a_fifth_holds_the_first_token_at_a_probability_of_three_fifths(
    epsilon, moves, random_model, tmp_path
):
    loop = trainer(random_model, tmp_path, ThinkOrNot(), epsilon=epsilon, epsilon_high=epsilon)
    inputs = inputs_of(loop)
    inputs["advantages"] = torch.ones(8)
    log_probs = log_probs_of(loop, inputs)
    inputs["old_per_token_logps"] = log_probs.detach().clone()
    inputs["old_per_token_logps"][:, 0] -= torch.tensor(0.7 / 0.5).log()  # a policy that skips with 0.7, in halves
    found = gradient(loop, loop._compute_loss(loop.model, inputs))
    mask = inputs["completion_mask"].float()
    weights = mask / mask.sum(1, keepdim=True)
    first = -1.4 * (log_probs[:, 0] * weights[:, 0]).mean()
    rest = -(log_probs[:, 1:] * weights[:, 1:]).sum(1).mean()
    torch.testing.assert_close(found, gradient(loop, rest + first if moves else rest), rtol=1e-3, atol=1e-6)


def test_thinkless_first_token_has_a_loss_of_its_own(random_model, tmp_path):
    loop = trainer(random_model, tmp_path, ThinkOrNot(forced=False, baseline="group", control_weight=0.25))
    inputs = inputs_of(loop)
    mask = inputs["completion_mask"].float()
    advantages = torch.linspace(-1, 1, 8)
    inputs["advantages"] = advantages.unsqueeze(1) * control_weights(inputs["completion_mask"], 0.25)
    found = gradient(loop, loop._compute_loss(loop.model, inputs))

    log_probs = log_probs_of(loop, inputs)
    others = (log_probs * mask)[:, 1:].sum(1) / (mask.sum(1) - 1)
    expected = -(advantages * (0.25 * log_probs[:, 0] + others)).mean()
    torch.testing.assert_close(found, gradient(loop, expected), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "choice, changes, message",
    [
        (ThinkOrNot(control_weight=0.1), {"loss_type": "dapo"}, "loss_type='dapo': think_or_not.control_weight"),
        (ThinkOrNot(), {"num_generations": 3, "per_device_train_batch_size": 6}, "num_generations=3: forced halves"),
        (ThinkOrNot(start="12 checks"), {}, "think_or_not.start: '12 checks' must be one token"),
    ],
)
def test_settings_that_would_be_something_else_are_refused(choice, changes, message, random_model, tmp_path):
    with pytest.raises(ValueError, match=message):
        trainer(random_model, tmp_path, choice, **changes)


def arguments(yaml, *words):
    return parse(ROOT / "recipes" / f"{yaml}.yaml", list(map(str, words)))


def test_other_token_weights_are_refused_beside_it():
    parsed, training, _ = arguments("think_or_not", "--selection", '{"fraction": 0.2}')
    with pytest.raises(ValueError, match="think_or_not and selection"):
        for part in parsed.make_parts():
            part.check(training, parsed.make_parts())
    with pytest.raises(ValueError, match="think_or_not: no field is called 'halves'"):
        arguments("think_or_not", "--think_or_not", '{"halves": true}')
    with pytest.raises(ValueError, match="wording: no preset named 'thinking'"):
        arguments("think_or_not", "--reference_wording", "thinking")


def test_trap_a_tight_clip_against_halves_is_warned_of(caplog):
    words = ["--importance_sampling_level", "token"]
    ThinkOrNot().check(arguments("think_or_not")[1], [])
    ThinkOrNot().check(arguments("think_or_not", *words, "--epsilon_high", "1")[1], [])
    assert caplog.messages == []
    ThinkOrNot().check(arguments("think_or_not", *words)[1], [])
    assert "no p is raised above 0.6" in caplog.messages[0]


@pytest.mark.parametrize("yaml", ["think_or_not", "think_or_not_thinkless"])
def test_the_recipe_trains_and_says_how_often_it_skips(yaml, tmp_path):
    small = "--num_questions 16 --num_eval_questions 24 --per_device_train_batch_size 16 --num_generations 4"
    small += " --max_steps 3 --logging_steps 1 --lora_r 4 --model_name_or_path tiny_reasoner --reference_samples 2"
    small += " --learning_rate 0.01 --warmup_steps 0"  # so that the trained one skips sometimes
    output = tmp_path / "run"
    result = run_from_hybrid(*arguments(yaml, *small.split(), "--output_dir", output), tmp_path / "unused")

    weights = load_file(output / "adapter_model.safetensors")
    assert any(bool(tensor.any()) for name, tensor in weights.items() if "lora_B" in name)
    log = json.loads((output / "trainer_state.json").read_text())["log_history"]
    steps = [entry for entry in log if "think_or_not/skipped" in entry]
    assert len(steps) == 3
    forced = yaml == "think_or_not"
    assert all(("think_or_not/skip_probability" in entry) == forced for entry in steps)
    if forced:
        assert [entry["think_or_not/skipped"] for entry in steps] == [0.5] * 3
        assert 0 < steps[0]["think_or_not/skip_probability"] < 0.1  # this base always thinks
    assert all(
        level["skipped"] == 0 for level in result.blocks["baseline"]["by_level"].values()
    )  # this base always thinks
    # What is reported of the trained one is the share of its completions that begin with the end of the thinking.
    _, *batches = (output / "measures" / "trained.completions.jsonl").read_text().splitlines()
    end = AutoTokenizer.from_pretrained(output).convert_tokens_to_ids("</think>")
    skipped = [ids[0] == end for batch in batches for ids in json.loads(batch)]
    assert any(skipped) or not forced
    levels = result.blocks["trained"]["by_level"].values()
    assert sum(level["skipped"] * level["n"] for level in levels) == pytest.approx(sum(skipped))
    assert "| without thinking |" in (output / "adherence.md").read_text()


def test_the_hybrid_is_made_once_and_shown_every_sum_both_ways(tmp_path):
    folder = make_hybrid(tmp_path / "hybrid", max_steps=3)
    made, base = (load_file(f"{path}/model.safetensors") for path in (folder, resolve_model("tiny_reasoner")))
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not made[name].equal(base[name])
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert make_hybrid(folder) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    # It can be loaded and asked, with either switch.
    model, tokenizer = load_model(str(folder))
    questions = load_questions("mixed_sums", split="test", limit=4).to_list()
    outcomes = [
        sweep(model, tokenizer, questions, free(WORDINGS[name]), sampling=Sampling(8)) for name in ("think", "no_think")
    ]
    assert [len(rows) for rows in outcomes] == [4, 4]


def test_the_hybrids_practice_is_both_ways_for_either_switch_and_for_none():
    _, tokenizer = load_model(resolve_model("tiny_reasoner"))
    texts = [tokenizer.decode(ids) for ids in rows_of(tokenizer, 3, random.Random(0))["input_ids"]]
    assert len(texts) == 3 * BATCH
    skips = {name: [] for name in (" /think", " /no_think", "")}
    for text in texts:
        prompt, _, completion = text.partition("<|assistant|><think>")
        [name] = [name for name in skips if prompt.endswith("}." + name)]
        skips[name].append(completion.startswith("</think>"))
        question = prompt.removeprefix("<|user|>").partition("=?")[0]
        assert completion.endswith(f"\\boxed{{{sum(map(int, question.split('+')))}}}<|im_end|>")
        assert sums.split_of(question + "=?") == "train"
    assert not any(skips[" /think"]) and all(skips[" /no_think"])
    assert sum(skips[""]) == len(skips[""]) / 2


class TestTokenOf:
    def test_one_token_has_an_id_and_anything_else_is_named_with_its_field(self, random_model):
        tokenizer = AutoTokenizer.from_pretrained(random_model)
        assert tokenizer.decode([token_of(tokenizer, "</think>", field="x.end")]) == "</think>"
        for text in ("12 checks", ""):
            with pytest.raises(ValueError, match=f"x.end: '{text}' must be one token of the vocabulary, and is"):
                token_of(tokenizer, text, field="x.end")

    def test_its_two_strings_cannot_be_swapped(self, random_model):
        with pytest.raises(TypeError):
            token_of(AutoTokenizer.from_pretrained(random_model), "</think>", "x.end")
