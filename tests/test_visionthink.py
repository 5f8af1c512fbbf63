"""A thumbnail that can be answered, or a request for the whole picture; and the recipes with it: VisionThink, FAST."""

import json
from collections import Counter

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from rlred.evaluation.results import read_result
from rlred.evaluation.sampling import Sampling
from rlred.evaluation.visual import sweep_pictures
from rlred.rewards import DifficultyLength, ExactMatch, RequestThreshold, make_reward
from rlred.runs.arguments import parse
from rlred.runs.visual import KINDS, check
from rlred.tokens import token_of
from rlred.training.imitation import CHEAPEST, Written, batch_of, imitate, with_cheapest
from rlred.training.sft import SFTSettings
from rlred.vision.budget_policy import DIRECT, VisualBudgetPolicy, VisualRolloutFunc
from rlred.vision.model import SparseVision
from rlred.vision.reduce import Reducer
from rlred.vision.rows import load_rows
from tests.paths import ROOT
from tests.vision_recipe import SMALL, VLM, command, digest, moved

OTHERS = ["<look-1/2>", "<look-1/4>", "<look-1/8>", "<look-1/16>"]


@pytest.fixture
def asking():
    """The embedded VLM, which may answer 16 tokens or ask for 64 more."""
    model = AutoModelForImageTextToText.from_pretrained(VLM).eval()
    policy = VisualBudgetPolicy(AutoProcessor.from_pretrained(VLM), {"<look-1>": 1.0}, 0.25, on_request=True)
    SparseVision(model, Reducer(strategy="downsample"), images_per_row=policy.images_per_row)
    model.generation_config.suppress_tokens += policy.tokenizer.convert_tokens_to_ids(OTHERS)
    return model, policy


def asked(rows):
    return [[{"role": "user", "content": row["question"]}] for row in rows], [row["image"] for row in rows]


def test_a_thumbnail_is_answered_or_the_whole_picture_asked_for(asking):
    model, policy = asking
    rows = load_rows("pictures", limit=4)
    prompts, images = asked(rows)
    assert policy.choices == [DIRECT, "<look-1>"]
    rollouts = policy(model, prompts, images, policy.choices * 2, temperature=0, max_answer=2)
    image = policy.processor.image_token_id
    for rollout, choice in zip(rollouts, policy.choices * 2, strict=True):
        requested = choice != DIRECT
        assert rollout.prompt_ids.count(image) == 16  # low resolution stands in the prompt
        assert (rollout.budget_token, rollout.keep_ratio) == (
            choice if requested else None,
            1.25 if requested else 0.25,
        )
        assert rollout.completion_ids.count(image) == rollout.mask.count(0) == (64 if requested else 0)
        assert sum(rollout.mask) == (3 if requested else 2)  # request, answer and end, or answer and end
        assert rollout.answer and rollout.answer in policy.tokenizer.decode(rollout.completion_ids)
    free = policy(model, prompts, images, temperature=0, max_answer=2)
    assert [g.completion_ids for g in free] == [  # this VLM does not ask of itself
        g.completion_ids for g in policy(model, prompts, images, [DIRECT] * 4, temperature=0, max_answer=2)
    ]


def test_a_request_may_come_after_some_words(asking):
    model, policy = asking
    rows = load_rows("pictures", limit=2)
    asks = token_of(policy.tokenizer, "<look-1>", field="budget_tokens")
    said = [policy.tokenizer.encode("red blue <look-1>"), policy.tokenizer.encode("red <eos>")]
    generate = policy._generate
    policy._generate = lambda *args, stops=(), **more: said if stops else generate(*args, stops=stops, **more)
    late, direct = policy(model, *asked(rows), max_answer=4)
    assert late.completion_ids[:3] == said[0] and late.completion_ids[3:67] == [policy.processor.image_token_id] * 64
    assert (
        late.mask[:68] == [1] * 3 + [0] * 64 + [1]
        and late.budget_token == "<look-1>"
        and asks not in direct.completion_ids
    )
    assert (direct.budget_token, direct.answer, direct.mask) == (None, "red", [1, 1])


def test_generate_and_training_see_both_kinds_alike(asking):
    """The probability of the greedy answers in the training forward of both kinds in one batch, left-padded."""
    model, policy = asking
    rows = load_rows("pictures", limit=4)
    prompts, images = asked(rows)
    rollouts = policy(model, prompts, images, policy.choices * 2, temperature=0, max_answer=1)
    width = max(len(g.prompt_ids + g.completion_ids) for g in rollouts)
    ids = torch.tensor([[0] * (width - len(i)) + i for i in (g.prompt_ids + g.completion_ids for g in rollouts)])
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=(ids != 0).long(), **policy.vision(images)).logits[:, -2]
        logits[:, model.generation_config.suppress_tokens + list(policy.ids.values())] = -torch.inf
    assert logits.argmax(-1).tolist() == [g.completion_ids[-1] for g in rollouts]
    with torch.no_grad():
        alone = [model(**batch_of(policy, [g], [i])).loss.item() for g, i in zip(rollouts, images, strict=True)]
        together = model(**batch_of(policy, rollouts, images)).loss.item()
    tokens = [sum(g.mask) for g in rollouts]
    assert together == pytest.approx(sum(a * n for a, n in zip(alone, tokens, strict=True)) / sum(tokens), rel=1e-4)


def test_trap_a_model_that_never_asks_needs_imitation(asking, tmp_path):
    """GRPO on a model that never asks has no request to compare with; imitation is what gives it one."""
    model, policy = asking
    rows = load_rows("pictures", limit=60, mix=["square"])
    prompts, images = asked(load_rows("pictures", limit=12, mix=["square"], seed=1))
    look = policy.ids["<look-1>"]

    def share_of_requests():
        ids, vision = policy._asked(prompts, images), policy.vision(images)
        inputs = policy.tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt")
        with torch.no_grad():
            return model.eval()(**inputs, **vision).logits[:, -1].softmax(-1)[:, look].mean().item()

    assert share_of_requests() < 0.05
    settings = SFTSettings(
        max_steps=14,
        batch_size=16,
        learning_rate=1e-3,
        schedule="constant",
        warmup_steps=0,
        in_order=True,
        logging_steps=1,
    )
    log = imitate(model, policy, rows, policy.choices, settings, tmp_path).log_history
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 14 and losses[-1] < losses[0]
    assert share_of_requests() > 0.2


def test_a_written_glance_is_what_would_have_been_generated(asking):
    model, policy = asking
    rows = load_rows("pictures", limit=2)
    generated = policy(model, *asked(rows), policy.choices, temperature=0, max_answer=2)
    assert policy.written(*asked(rows), policy.choices, [rollout.answer for rollout in generated]) == generated


def test_rollouts_say_who_asked(asking, monkeypatch):
    model, policy = asking
    rollout = VisualRolloutFunc(policy, max_answer=2)
    rows = load_rows("pictures", limit=2)
    choices = iter([policy.choices])
    rollouts = policy(model, *asked(rows), next(choices), max_answer=2)
    monkeypatch.setattr(VisualBudgetPolicy, "__call__", lambda self, *args, **kwargs: rollouts)
    monkeypatch.setattr("rlred.vision.budget_policy.unwrap_model_for_generation", lambda *args: torch.no_grad())
    prompts = [
        [{"role": "user", "content": [{"type": "image", "image": row["image"]}, {"type": "text", "text": "?"}]}]
        for row in rows
    ]

    class Trainer:
        num_generations, temperature, model_wrapped, accelerator = 2, 1.0, model, None

        def _log_metric(self, name, value):
            assert value == {"visual/keep_ratio": 0.75, "visual/requested": 0.5}[name]

    found = rollout(prompts, Trainer())
    assert found["requested"] == [False, True] and found["visual_tokens"] == [16, 80]
    assert found["answer_text"] == [one.answer for one in rollouts]
    rewards = RequestThreshold(correctness=ExactMatch())(["q"] * 2, ["red", "red"], ["red", "red"], found["requested"])
    assert rewards == [1.0, 0.9]


def test_a_question_imitates_the_cheapest_choice_that_answers_it_and_the_choices_take_turns(asking, tmp_path, caplog):
    model, policy = asking
    rows, sampling = load_rows("pictures", limit=40), Sampling(2, temperature=0.0, batch_size=20)
    with caplog.at_level("WARNING", "rlred.training.imitation"):
        found = with_cheapest(policy, model, rows, sampling, ExactMatch(), tmp_path)
    assert len(list(tmp_path.glob("cheapest-*.completions.jsonl"))) == 2
    grades = [
        [one["correct"] == 1.0 for one in sweep_pictures(policy, model, rows, sampling, choice=choice)]
        for choice in policy.choices  # the cheaper one first
    ]
    own = {
        (row["question"], row["image"].tobytes()): next(
            (choice for choice, right in zip(policy.choices, some, strict=True) if right), None
        )
        for row, *some in zip(rows, *grades, strict=True)
    }
    assert [row[CHEAPEST] for row in found] == [own[row["question"], row["image"].tobytes()] for row in found]
    assert {row[CHEAPEST] for row in found[:2]} == set(policy.choices) == set(own.values()) - {None}
    assert [row[CHEAPEST] for row in found[2:]] == [row[CHEAPEST] for row in found[:-2]]
    few = {choice for choice in policy.choices if Counter(own.values())[choice] < 16}
    assert few and {choice for choice in policy.choices if f"{choice} is the cheapest for" in caplog.text} == few
    written = Written(policy, found, (CHEAPEST, DIRECT))([{"turn": turn} for turn in range(8)])
    asks = (written["labels"] == policy.tokenizer.convert_tokens_to_ids("<look-1>")).any(1).tolist()
    assert [row[CHEAPEST] == "<look-1>" for row in found[:4]] == asks[::2] and not any(asks[1::2])
    assert set(asks[::2]) == {True, False}  # beside another choice, every look is still imitated
    with pytest.raises(ValueError, match="no choice answers any of 2 rows correctly"):
        with_cheapest(policy, model, [{**row, "solution": "wood"} for row in rows[:2]], sampling, ExactMatch())


def test_visual_sparsity_starts_from_the_cheapest_choices(tmp_path, monkeypatch):
    output = tmp_path / "run"
    flags = [*SMALL, "--start_steps", "2", "--start_mix", "cheapest", "--max_steps", "1", "--num_eval_questions", "4"]
    assert command(monkeypatch, "visual_sparsity", "--output_dir", output, *flags) == 0
    assert len(list((output / "start").glob("cheapest-*.completions.jsonl"))) == 5 and moved(output)
    assert {row["stage"] for row in read_result(output, "visual").rows("policy")} == {"base", "started", "trained"}


def test_visionthink_trains_saves_and_measures(tmp_path, monkeypatch, capsys):
    before, output = digest(), tmp_path / "run"
    flags = [*SMALL, "--start_steps", "6", "--max_steps", "3"]
    assert command(monkeypatch, "visionthink", "--output_dir", output, *flags) == 0
    assert "| trained | policy, sampled | test |" in capsys.readouterr().out
    assert digest() == before and moved(output)
    result = read_result(output, "visual")
    fixed = [(row["stage"], row["choice"], row["keep_ratio"]) for row in result.rows("fixed")]
    assert fixed == [("base", "direct", 0.25), ("base", "<look-1>", 1.25)] and result.cost["steps"] == 3
    assert [row["stage"] for row in result.rows("policy")] == [
        s for s in ("base", "started", "trained") for _ in "1234"
    ]
    log = json.loads((output / "trainer_state.json").read_text())["log_history"]
    assert all("rewards/request_threshold/mean" in entry for entry in log[:3])


def test_fast_with_pictures_trains_saves_and_measures(tmp_path, monkeypatch):
    before, output = digest(), tmp_path / "run"
    flags = [*SMALL, "--family_mix", "dot", "--temperature", "2", "--max_steps", "3"]  # some right, some wrong
    assert command(monkeypatch, "fast_vision", "--output_dir", output, *flags) == 0
    assert digest() == before and moved(output)
    [row] = read_result(output, "visual").rows("fixed")
    assert row["keep_ratio"] == 1 and "| mean tokens |" in (output / "visual.md").read_text()
    log = json.loads((output / "trainer_state.json").read_text())["log_history"]
    assert all({"kl", "rewards/exact_match/mean"} <= set(entry) for entry in log[:3])


@pytest.mark.parametrize(
    "recipe, flags, message",
    [
        ("visionthink", ["--start_steps", "-1"], "start_steps must be 0 or more, got -1"),
        ("visionthink", ["--start_mix", "direct", "<look-1/2>"], "start_mix must name some of direct, <look-1>, cheap"),
        ("visionthink", ["--start_learning_rate", "0"], "start_learning_rate must be above 0"),
        (
            "visionthink",
            ["--suppress_tokens", "red blue"],
            "suppress_tokens: 'red blue' must be one token of the vocabulary",
        ),
        (
            "visionthink",
            ["--budget_tokens", '{"ask me": 1.0}'],
            "budget_tokens: 'ask me' must be one token of the vocabulary",
        ),
        ("visionthink", ["--thumbnail", "0"], "keep_ratio must be above 0"),
        ("visionthink", ["--ladder", "true"], "ladder=True: deals budget tokens out"),
        ("visionthink", ["--reward", '{"name":"request_threshold","penalty":2}'], "request_threshold.penalty must be"),
        ("visual_sparsity", ["--on_request", "true"], "on_request=True needs a thumbnail"),
        ("fast_vision", ["--beta", "0"], "beta must be above 0 and at most beta_solved=0.01, got 0.0"),
        ("fast_vision", ["--on_request", "false"], "budget_tokens must name 2 different tokens or more"),
    ],
)
def test_wrong_settings_are_one_line_before_training(tmp_path, monkeypatch, capsys, recipe, flags, message):
    assert command(monkeypatch, recipe, "--output_dir", tmp_path / "run", *SMALL, *flags) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert not list(tmp_path.rglob("*.safetensors"))


YAMLS = [p for stem in ("visionthink", "fast_vision") for p in sorted((ROOT / "recipes").glob(f"{stem}*.yaml"))]


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
def test_every_yaml_parses_and_passes_its_checks(path, monkeypatch, caplog):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    arguments, training, model_config = parse(path, ["--bf16", "false"], KINDS)
    check(arguments, training, model_config)
    assert arguments.on_request and training.scale_rewards == "none" and not caplog.records
    kind = RequestThreshold if "visionthink" in path.stem else DifficultyLength
    assert isinstance(make_reward(arguments.reward), kind) and (arguments.beta_solved is None) == (
        "vision" == path.stem[:6]
    )
    assert model_config.use_peft and model_config.lora_target_modules is None
