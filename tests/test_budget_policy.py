"""The policy: budget token, image, answer; its rollouts in TRL; and what a run does with wrong settings."""

import json

import pytest
import torch
from datasets import Dataset, Features, Image, Sequence, Value
from transformers import AutoModelForImageTextToText

from rlred.evaluation.measures import measure
from rlred.evaluation.results import read_result
from rlred.evaluation.sampling import Sampling
from rlred.evaluation.visual import blind_accuracy, fixed_rows, position_map, row_of, sweep_pictures
from rlred.rewards import ExactMatch, VisualSparsity, make_reward
from rlred.runs.arguments import parse
from rlred.runs.visual import KINDS, check
from rlred.tiny import pictures
from rlred.tiny.makers.tiny_vlm import BUDGET_TOKENS, build_model, build_processor
from rlred.training.adherence import LogsAdherence
from rlred.vision.budget_policy import VisualBudgetPolicy, VisualRollout, VisualRolloutFunc
from rlred.vision.model import SparseVision
from rlred.vision.reduce import Reducer
from rlred.vision.rows import load_rows, training_rows
from tests.paths import ROOT
from tests.vision_recipe import SMALL, command, moved

RATIOS = {token: k / 64 for token, k in BUDGET_TOKENS.items()}
WORDS = {"red": 1.0, "blue": 0.5, "cyan": 0.25, "purple": 0.125, "green": 0.0625}  # any tokens will do


@pytest.fixture(scope="module")
def vlm(tmp_path_factory):
    """The folder of a tiny VLM with random weights, but for a head that looks first and then names a colour."""
    folder = tmp_path_factory.mktemp("vlm")
    processor = build_processor()
    torch.manual_seed(0)
    model = build_model(processor.tokenizer)
    with torch.no_grad():
        head, image = model.lm_head.weight, processor.image_token_id
        prompt = processor.tokenizer.encode("<bos> <user> what color is the dot ? <assistant>")
        for tokens, ids in ((BUDGET_TOKENS, prompt), (pictures.COLOURS, [*prompt, prompt[-1] + 1, *[image] * 4])):
            state = model.model.language_model(torch.tensor([ids])).last_hidden_state[0, -1]
            rows = processor.tokenizer.convert_tokens_to_ids(list(tokens))
            head[rows] = 2 * state / state.norm() + 0.02 * torch.randn(len(rows), len(state))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def loaded(folder, reducer=None, **policy):
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    policy = VisualBudgetPolicy(build_processor(), policy.pop("budget_tokens", RATIOS), **policy)
    SparseVision(model, reducer or Reducer(strategy="downsample"), images_per_row=policy.images_per_row)
    return model, policy


def asked(rows):
    return [[{"role": "user", "content": row["question"]}] for row in rows], [row["image"] for row in rows]


def test_a_rollout_is_question_look_image_answer(vlm):
    model, policy = loaded(vlm)
    rows = load_rows("pictures", limit=5)
    rollouts = policy(model, *asked(rows), choices=list(BUDGET_TOKENS), temperature=0, max_answer=2)
    image, ids = policy.processor.image_token_id, policy.tokenizer.convert_tokens_to_ids(list(BUDGET_TOKENS))
    for rollout, name, k, token in zip(rollouts, BUDGET_TOKENS, BUDGET_TOKENS.values(), ids, strict=True):
        assert (rollout.budget_token, rollout.visual_tokens, rollout.full_visual_tokens) == (name, k, 64)
        assert rollout.keep_ratio == k / 64
        assert rollout.completion_ids[: k + 1] == [token, *[image] * k]
        assert rollout.mask == [1, *[0] * k, *[1] * (len(rollout.completion_ids) - k - 1)]
        assert image not in rollout.prompt_ids and image not in rollout.completion_ids[k + 1 :]
        assert policy.tokenizer.decode(rollout.prompt_ids).endswith("<assistant>")


def test_the_policy_chooses_from_its_whole_vocabulary_and_without_a_look_it_ends_there(vlm):
    model, policy = loaded(vlm, budget_tokens=WORDS)
    with torch.no_grad():
        model.lm_head.weight.zero_()  # uniform: 5 of 55 tokens are budget tokens, the image token cannot come
    torch.manual_seed(0)
    rollouts = policy(model, *asked(load_rows("pictures", limit=60)), max_answer=2)
    blind = [rollout for rollout in rollouts if rollout.budget_token is None]
    assert 45 < len(blind) < 60
    assert all(
        (g.visual_tokens, g.full_visual_tokens, g.mask, g.answer, len(g.completion_ids)) == (0, 64, [1], "", 1)
        for g in blind
    )
    assert all(policy.processor.image_token_id not in g.completion_ids for g in blind)


def test_training_grades_what_a_sweep_grades_so_a_colour_in_place_of_a_budget_token_is_no_answer(vlm):
    model, policy = loaded(vlm, thumbnail=0.0625)
    row = load_rows("pictures", limit=1)[0]
    colour = row["solution"]
    [token] = policy.tokenizer.convert_tokens_to_ids([colour])
    said = VisualRollout(policy._asked(*asked([row]))[0], [token], [1], None, "", 4, 64)
    looked = policy.written(*asked([row]), ["<look-1/4>"], [colour])[0]
    reward = LogsAdherence(VisualSparsity(correctness=ExactMatch()), 80, (), policy.tokenizer)
    rollouts = [said, looked]
    values = reward(
        prompts=["q"] * 2,
        completions=policy.tokenizer.batch_decode([one.completion_ids for one in rollouts], skip_special_tokens=True),
        completion_ids=[one.completion_ids for one in rollouts],
        solution=[colour] * 2,
        visual_tokens=[one.visual_tokens for one in rollouts],
        full_visual_tokens=[64] * 2,
        answer_text=[one.answer for one in rollouts],
    )
    assert values == [0.0, pytest.approx(1 + 0.2 * (1 - 20 / 64))]  # of the word alone it was 1.1875, the most of all
    assert [ExactMatch().grade(one.answer, colour) for one in rollouts] == [0.0, 1.0]


def test_generate_and_training_see_a_rollout_alike(vlm):
    """The log-probability of each answer token, from generate's logits and from the training forward of all rows."""
    model, policy = loaded(vlm)
    rows = load_rows("pictures", limit=4)
    tokens = ["<look-1/4>", "<look-1>", "<look-1/16>", "<look-1/4>"]
    found = []
    generate = model.generate

    def spying(*args, **kwargs):
        out = generate(*args, **kwargs, return_dict_in_generate=True, output_logits=True)
        found.append(torch.stack(out.logits, 1))
        return out.sequences

    model.generate = spying
    prompts, images = asked(rows)
    rollouts = policy(model, prompts, images, choices=tokens, temperature=1.0, max_answer=2)
    by_row = dict(zip([1, 0, 3, 2], [found[0][0], *found[1], found[2][0]], strict=True))  # as the budget tokens come
    width = max(len(g.prompt_ids + g.completion_ids) for g in rollouts)
    ids = torch.tensor([[0] * (width - len(i)) + i for i in (g.prompt_ids + g.completion_ids for g in rollouts)])
    pixels = policy.vision(images)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=(ids != 0).long(), **pixels).logits
    for row, rollout in enumerate(rollouts):
        answer = len(rollout.mask) - 1 - rollout.visual_tokens
        assert (logits[row, -answer - 1 : -1] - by_row[row][:answer]).abs().max() < 1e-5


def test_a_thumbnail_opens_the_prompt(vlm):
    model, policy = loaded(vlm, thumbnail=1 / 16)
    rows = load_rows("pictures", limit=3)
    rollouts = policy(model, *asked(rows), choices=["<look-1/4>"] * 3, temperature=0, max_answer=2)
    assert [
        (g.visual_tokens, g.full_visual_tokens, g.prompt_ids.count(policy.processor.image_token_id)) for g in rollouts
    ] == [(20, 64, 4)] * 3
    assert [len(s.index) for s in model.sparse_vision.seen] == [4, 16] * 3
    sampled = policy(model, *asked(rows), max_answer=2)
    assert all(rollout.budget_token for rollout in sampled)
    assert [len(row["images"]) for row in training_rows(rows, policy.images_per_row)] == [2] * 3


@pytest.mark.parametrize(
    "tokens, message",
    [
        ({"<look-1>": 1.0, "<look-9>": 0.5}, "budget_tokens: '<look-9>' must be one token of the vocabulary"),
        ({"<look-1>": 1.0, "red blue": 0.5}, "budget_tokens: 'red blue' must be one token of the vocabulary"),
        ({"<look-1>": 1.0, "red": 0}, "keep_ratio must be above 0"),
        ({"<look-1>": 1.0}, "budget_tokens must name 2 different tokens or more"),
        ({}, "budget_tokens must name 2 different tokens or more"),
    ],
)
def test_budget_tokens_that_cannot_be_are_one_clear_line(tokens, message):
    with pytest.raises(ValueError, match=message) as raised:
        VisualBudgetPolicy(build_processor(), tokens)
    assert "\n" not in str(raised.value)


def test_no_image_in_a_row_is_found_before_training(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "what?", "answer": "red", "image": None}) + "\n")
    with pytest.raises(ValueError, match="row 0 has no image"):
        load_rows(str(path), limit=1)
    with pytest.raises(ValueError, match="a row has no image"):
        VisualRolloutFunc(VisualBudgetPolicy(build_processor(), RATIOS))([[{"role": "user", "content": "what?"}]], None)


def test_rows_keep_their_mix_and_test_questions_are_worded_anew():
    mix = ["background", "square", "dot", "background", "square"]
    rows = load_rows("pictures", limit=10, mix=mix)
    assert [row["family"] for row in rows] == mix * 2
    train = {row["question"] for row in load_rows("pictures", limit=300)}
    test = {row["question"] for row in load_rows("pictures", split="test", limit=300, wordings="test")}
    assert not train & test
    sizes = load_rows("pictures", limit=40, mix=["square", "dot"], square_sides=[10, 28])
    assert {row["family"] for row in sizes} == {"square of 10", "square of 28", "dot"}
    with pytest.raises(ValueError, match="family_mix: no family is called 'cat'"):
        load_rows("pictures", limit=4, mix=["cat"])


def test_rows_come_from_a_file_with_pictures_too(tmp_path):
    drawn = load_rows("pictures", limit=3)
    columns = [
        {"images": [row["image"]], "problem": f"<image>{row['question']}", "answer": row["solution"]} for row in drawn
    ]
    features = Features({"images": Sequence(Image()), "problem": Value("string"), "answer": Value("string")})
    Dataset.from_list(columns, features=features).to_parquet(tmp_path / "rows.parquet")
    rows = load_rows(str(tmp_path / "rows.parquet"), limit=9, instruction="Be brief.")
    assert [row["question"] for row in rows] == [f"{row['question']}\nBe brief." for row in drawn]
    assert [row["solution"] for row in rows] == [row["solution"] for row in drawn]
    assert rows[0]["family"] == "all" and rows[0]["image"].size == (64, 64)


def test_blind_spending_is_the_best_mixture_of_fixed_choices():
    points = [{"keep_ratio": ratio, "accuracy": accuracy} for ratio, accuracy in ((0.1, 0.5), (0.2, 0.4), (0.5, 0.9))]
    assert blind_accuracy(points, 0.3) == pytest.approx(0.7)  # of the first and the last; the second is worse than both
    assert blind_accuracy(points, 0.05) == 0.0
    assert blind_accuracy(points, 1.0) == pytest.approx(0.9)


GREEDY = Sampling(2, temperature=0.0)


def test_a_row_counts_what_was_used(vlm, tmp_path, monkeypatch):
    model, policy = loaded(vlm)
    rows = load_rows("pictures", split="test", limit=12, wordings="test")
    fixed = fixed_rows(policy, model, rows, GREEDY, path=tmp_path / "fixed", stage="base")
    assert [row["keep_ratio"] for row in fixed] == [1, 0.5, 0.25, 0.125, 0.0625]
    assert [row["choice"] for row in fixed] == policy.choices and all(row["seconds"] > 0 for row in fixed)
    with monkeypatch.context() as patch:
        patch.setattr(VisualBudgetPolicy, "__call__", None)  # what is saved is not made again
        again = fixed_rows(policy, model, rows, GREEDY, path=tmp_path / "fixed", stage="base")
    assert again == [{**row, "seconds": None} for row in fixed]
    row = row_of(sweep_pictures(policy, model, rows, GREEDY))
    assert set(row["by_level"]) == {"background", "square", "dot"}
    assert row["n"] == 12 and sum(row["budget_tokens"].values()) == pytest.approx(1)


def test_outcomes_of_pictures_stand_in_the_table_of_every_other_sweep(vlm):
    model, policy = loaded(vlm)
    rows = load_rows("pictures", split="test", limit=12, wordings="test")
    outcomes = sweep_pictures(policy, model, rows, GREEDY, choice="<look-1>")
    row, report = row_of(outcomes), measure(outcomes)
    for family, line in report["by_level"].items():
        assert (line["n"], line["accuracy"]) == (row["by_level"][family]["n"], row["by_level"][family]["accuracy"])
    assert report["rows"][0]["n"] == 12 and set(report["by_level"]) == {"background", "square", "dot"}
    for one in outcomes:  # the picture's tokens lie in the completion and are not the policy's
        assert one["length"] == len(one["completion_ids"]) - one["visual_tokens"]


@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_a_killed_sweep_of_pictures_goes_on_to_the_same_rollouts(vlm, tmp_path, cut):
    model, policy = loaded(vlm)
    rows = load_rows("pictures", split="test", limit=8)
    sampling, path = Sampling(2, temperature=1.0, batch_size=3, seed=5), tmp_path / "rollouts.jsonl"
    whole = sweep_pictures(policy, model, rows, sampling, path=path)
    header, *batches = path.read_text().splitlines(keepends=True)
    assert [len(json.loads(line)) for line in batches] == [3, 3, 2]
    # Killed in the midst of a line: that batch is made again, those before it are not.
    half = batches[cut][:20] if cut < len(batches) else ""
    path.write_text(header + "".join(batches[:cut]) + half)
    torch.manual_seed(cut)  # what was drawn before does not matter
    state = torch.get_rng_state()
    assert sweep_pictures(policy, model, rows, sampling, path=path) == whole
    assert torch.get_rng_state().equal(state) and path.read_text() == header + "".join(batches)


@pytest.mark.parametrize(
    "change",
    [
        {"sampling": Sampling(2, temperature=0.5, seed=5)},
        {"sampling": Sampling(2, temperature=1.0, seed=6)},
        {"choice": "<look-1>"},
        {"rows": slice(1, 9)},
    ],
    ids=["temperature", "seed", "choice", "rows"],
)
def test_rollouts_of_another_sweep_are_not_taken_for_these(vlm, tmp_path, change):
    model, policy = loaded(vlm)
    rows, path = load_rows("pictures", split="test", limit=9), tmp_path / "rollouts.jsonl"
    sampling = Sampling(2, temperature=1.0, seed=5)
    sweep_pictures(policy, model, rows[:8], sampling, path=path)
    with pytest.raises(ValueError, match="holds completions of other prompts or settings"):
        asked = rows[change.pop("rows", slice(8))]
        sweep_pictures(policy, model, asked, change.pop("sampling", sampling), path=path, **change)


def test_the_map_of_selected_tokens_shows_a_score_that_favours_the_bottom(vlm):
    model, policy = loaded(vlm, Reducer(lambda features, k: torch.arange(len(features))))
    rows = load_rows("pictures", split="test", limit=6)
    shares = position_map(policy, model, rows, "<look-1/4>")
    assert shares == [[0.0] * 8] * 6 + [[4.0] * 8] * 2  # 16 of 64 tokens: the last two rows
    even, _ = loaded(vlm, Reducer(strategy="pool"))
    assert position_map(policy, even, rows, "<look-1>") == [[1.0] * 8] * 8


MORE = {
    "policy": [],
    "ladder": ["--ladder", "true"],
    "thumbnail": ["--thumbnail", "0.0625", "--strategy", "prune", "--square_sides", "10", "28"],
}


@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
def test_the_recipe_trains_saves_and_measures(tmp_path, monkeypatch, capsys, more):
    # Not the random VLM: two steps of it may earn nothing at all, and then nothing moves.
    output = tmp_path / "run"
    if "--ladder" in more:
        reward = {"name": "visual_sparsity", "assigned": True, "correctness": {"name": "exact_match"}}
        more = (*more, "--reward", json.dumps(reward))
    assert command(monkeypatch, "visual_sparsity", "--output_dir", output, *SMALL, *more) == 0
    assert "| trained | policy, sampled | test |" in capsys.readouterr().out
    result = read_result(output, "visual")
    assert result.cost["steps"] == 2 and len(result.rows("fixed")) == 5 and len(result.rows("policy")) == 8
    state = json.loads((output / "trainer_state.json").read_text())
    ratios = [entry["visual/keep_ratio"] for entry in state["log_history"] if "visual/keep_ratio" in entry]
    assert len(ratios) == 2 and all(0 < ratio <= 1.1 for ratio in ratios)
    assert moved(output)
    assert (output / "visual.png").read_bytes().startswith(b"\x89PNG")
    assert (output / "positions.png").exists() == ("prune" in more)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--use_vllm", "true"], "use_vllm=True: vLLM lays out image tokens itself"),
        (["--budget_tokens", "{}"], "budget_tokens must name 2 different tokens"),
        (["--budget_tokens", "{bad"], "budget_tokens: not JSON"),
        (["--score", "magic"], "score must be one of maxmin"),
        (["--ladder", "true", "--num_generations", "5"], "num_generations must be 10 or more"),
        (["--num_eval_questions", "0"], "num_eval_questions must be 1 or more"),
        (["--model_name_or_path", "tiny_reasoner"], "error: "),
    ],
)
def test_wrong_settings_vllm_asked_for_pruning_included_are_one_line_before_training(
    vlm, tmp_path, monkeypatch, capsys, flags, message
):
    given = ["--model_name_or_path", vlm, "--output_dir", tmp_path / "run", *SMALL, *flags]
    assert command(monkeypatch, "visual_sparsity", *given) == 2
    assert message in capsys.readouterr().err


def test_trap_group_scaling_is_warned_of(vlm, tmp_path, monkeypatch, caplog):
    given = ["--model_name_or_path", vlm, "--output_dir", tmp_path / "run", "--scale_rewards", "group"]
    assert command(monkeypatch, "visual_sparsity", *given, "--use_vllm", "true") == 2
    given += ["--budget_tokens", "{}"]
    assert command(monkeypatch, "visual_sparsity", *given) == 2
    assert "set scale_rewards: none" in caplog.text


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("visual_*.yaml")), ids=lambda path: path.stem)
def test_every_visual_yaml_parses_and_passes_its_checks(path, monkeypatch, caplog):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    arguments, training, model_config = parse(path, ["--bf16", "false"], KINDS)
    check(arguments, training, model_config)
    weight, least = (0.3, 2) if path.stem == "visual_sparsity_thumbnail" else (0.2, 4)
    assert len(arguments.budget_tokens) >= least and training.scale_rewards == "none" and not caplog.records
    assert make_reward(arguments.reward).visual_weight == weight
    assert model_config.use_peft and model_config.lora_target_modules is None


@pytest.mark.parametrize("changed", [{"strategy": "prune"}, {"strategy": "merge", "score": "norm"}])
def test_trap_rollouts_of_another_reducer_are_not_taken_for_these(vlm, tmp_path, changed):
    rows, path = load_rows("pictures", split="test", limit=8), tmp_path / "rollouts.jsonl"
    model, policy = loaded(vlm)
    sweep_pictures(policy, model, rows, GREEDY, path=path)
    other, policy = loaded(vlm, Reducer(**changed))
    with pytest.raises(ValueError, match="holds completions of other prompts or settings"):
        sweep_pictures(policy, other, rows, GREEDY, path=path)
