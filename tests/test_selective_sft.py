"""Selective SFT: which tokens carry the loss, what it is divided by, and prefixes that do not end."""

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import ModelConfig, SFTConfig, SFTTrainer

from rlred.runs import rho1, upft
from rlred.runs.arguments import parse
from rlred.runs.comparison import run_variants
from rlred.training.selective_sft import HighestExcess, excess, prefix_rows, static_labels, with_fused_head
from rlred.training.sft import SupervisedTrainer
from rlred.training.token_selection import TokenSelection
from tests.paths import ROOT


def load(folder, seed=None):
    """The random model; with a seed, other random weights."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    if seed is not None:
        torch.manual_seed(seed)
        for parameter in model.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def rows_of(n=16, seed=0) -> Dataset:
    """Token rows of 5 to 20 tokens, the first two of which carry no loss."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(n):
        length = int(torch.randint(5, 21, (1,), generator=generator))
        ids = torch.randint(10, 300, (length,), generator=generator).tolist()
        rows.append({"input_ids": ids, "labels": [-100, -100, *ids[2:]]})
    return Dataset.from_list(rows)


def config(tmp_path, **changes) -> SFTConfig:
    values = {
        "output_dir": str(tmp_path),
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "per_device_train_batch_size": 16,
        "max_steps": 1,
        "optim": "sgd",
        "learning_rate": 1.0,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "max_length": None,
        "save_strategy": "no",
        "train_sampling_strategy": "sequential",
        "disable_tqdm": True,
    }
    return SFTConfig(**{**values, **changes})


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def make(folder, tmp_path, *, selection=None, rows=None, **changes):
    parts = {
        "model": load(folder),
        "args": config(tmp_path, **changes),
        "train_dataset": rows or rows_of(),
        "processing_class": AutoTokenizer.from_pretrained(folder),
    }
    if selection is None:
        return SFTTrainer(**parts)
    choose = HighestExcess(selection, load(folder, seed=1), parts["model"])
    return SupervisedTrainer(choose=choose, **parts)


def by_hand(folder, rows, fraction):
    """The rows' labels with the highest excess losses only, from the models' plain logits, one row at a time."""
    model, reference = load(folder).eval(), load(folder, seed=1).eval()
    scored = []
    for number, row in enumerate(rows):
        ids = torch.tensor([row["input_ids"]])
        with torch.no_grad():
            losses = [
                -torch.log_softmax(one(ids).logits[0, :-1], -1).gather(1, ids[0, 1:, None])[:, 0]
                for one in (model, reference)
            ]
        scored += [
            (float(losses[0][place] - losses[1][place]), number, place + 1)
            for place in range(len(row["input_ids"]) - 1)
            if row["labels"][place + 1] != -100
        ]
    kept = {(number, place) for _, number, place in sorted(scored, reverse=True)[: round(fraction * len(scored))]}
    return [
        [token if (number, place) in kept else -100 for place, token in enumerate(row["input_ids"])]
        for number, row in enumerate(rows)
    ]


def test_static_labels_are_the_highest_excess_losses_of_all_rows(random_model):
    rows = rows_of()
    model, reference = with_fused_head(load(random_model)), with_fused_head(load(random_model, seed=1))
    for batch_size in (16, 5):
        found = static_labels(
            rows, model, reference, TokenSelection(fraction=0.4), pad_token_id=0, batch_size=batch_size
        )
        assert found["labels"] == by_hand(random_model, rows, 0.4)


@pytest.mark.parametrize("batch_size", [16, 4])
def test_dynamic_selection_trains_as_static_labels_do_whatever_the_micro_batches(random_model, tmp_path, batch_size):
    chosen = Dataset.from_list(
        [{**row, "labels": own} for row, own in zip(rows_of(), by_hand(random_model, rows_of(), 0.4), strict=True)]
    )
    expected = make(random_model, tmp_path, rows=chosen)
    start = weights(expected).clone()
    expected.train()
    pieces = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": 16 // batch_size}
    trainer = make(random_model, tmp_path, selection=TokenSelection(fraction=0.4), **pieces)
    trainer.train()
    step = weights(expected) - start
    assert (weights(trainer) - weights(expected)).norm() < 1e-5 * step.norm() and step.norm() > 1e-3
    # Divided by the tokens that are left: the loss is a mean over them, not 0.4 of one.
    losses = [one.state.log_history[-1]["train_loss"] for one in (trainer, expected)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_all_tokens_kept_is_plain_sft(random_model, tmp_path):
    plain, ours = make(random_model, tmp_path), make(random_model, tmp_path, selection=TokenSelection(fraction=1.0))
    plain.train(), ours.train()
    assert torch.allclose(weights(plain), weights(ours), atol=1e-6)


def test_what_the_reference_cannot_predict_either_has_no_excess(random_model):
    model = with_fused_head(load(random_model))
    batch = {"input_ids": torch.tensor([[11, 12, 13]]), "labels": torch.tensor([[11, 12, -100]])}
    assert excess(model, model, batch).abs().max() == 0
    other = with_fused_head(load(random_model, seed=1))
    found = excess(model, other, batch)[0]
    assert found[0] != 0 and found[1] == 0  # label -100 is never scored


def test_a_reference_with_another_vocabulary_is_refused(random_model):
    reference = load(random_model)
    reference.resize_token_embeddings(100)
    with pytest.raises(ValueError, match="reference: its vocabulary of 100 is not the model's"):
        HighestExcess(TokenSelection(), reference, load(random_model))


def test_trap_prefixes_reach_the_model_without_an_end(random_model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(random_model)
    end = tokenizer.eos_token_id
    completions = [[20 + n, 30, 40, end] for n in range(8)] + [[50, end]]
    rows = prefix_rows([[5]] * 9, [[6]] * 9, completions, length=2, full_share=0.0)
    trainer = make(random_model, tmp_path, rows=Dataset.from_list(rows), completion_only_loss=True)
    batch = next(iter(trainer.get_train_dataloader()))
    assert batch["input_ids"].shape == (9, 3) and not (batch["labels"] == end).any()
    assert (batch["labels"] != -100).sum() == 8 * 2 + 1  # TRL adds an end to text, not to token rows


def test_a_share_of_whole_samples_keeps_its_own_prompt_and_its_end():
    rows = prefix_rows([[1]] * 1000, [[2]] * 1000, [[7, 8, 9, 0]] * 1000, length=2, full_share=0.1)
    whole = [row for row in rows if row["input_ids"] == [2, 7, 8, 9, 0]]
    assert 70 <= len(whole) <= 130 and all(row["input_ids"] == [1, 7, 8] for row in rows if row not in whole)
    assert all(row["completion_mask"] == [0] + [1] * (len(row["input_ids"]) - 1) for row in rows)


@pytest.mark.parametrize(
    "settings, message",
    [({"length": 0, "full_share": 0}, "prefix_length"), ({"length": 1, "full_share": 2}, "full_share")],
)
def test_wrong_prefixes_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        prefix_rows([], [], [], **settings)


def test_the_variants_of_upft_train_on_as_many_tokens():
    rows = [{"input_ids": [1] * n, "completion_mask": [0] + [1] * (n - 1)} for n in (3, 5)]
    taken = upft.up_to(rows, 11)["completion_mask"]
    assert list(map(sum, taken)) == [2, 4, 2, 4]  # 8 are not enough, 12 are
    with pytest.raises(ValueError, match="nothing to train on"):
        upft.up_to([], 11)


def test_a_comparison_goes_on_where_it_was_left(tmp_path):
    calls = []

    def run(variant, seed, output):
        calls.append((variant, seed))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return {"seed": seed}

    with pytest.raises(KeyboardInterrupt):
        run_variants(tmp_path, ["a", "b"], [0, 1], run)
    results = run_variants(tmp_path, ["a", "b"], [0, 1], run)
    assert calls == [("a", 0), ("b", 0), ("a", 1), ("a", 1), ("b", 1)]
    assert results == {"a": [{"seed": 0}, {"seed": 1}], "b": [{"seed": 0}, {"seed": 1}]}


RECIPES = {"rho1": (rho1.RhoArguments, rho1.Experiment), "upft": (upft.UpftArguments, upft.Experiment)}
SMALL = {
    "rho1": {"num_rows": 32, "num_clean_rows": 32, "reference_steps": 1, "num_eval_questions": 4, "max_steps": 1}
    | {"max_completion_length": 8, "per_device_train_batch_size": 8},
    "upft": {"num_questions": 64, "num_eval_questions": 16, "trained_tokens": 60, "sample_batch_size": 64}
    | {"per_device_train_batch_size": 4},
}


@pytest.mark.parametrize("name", ["upft", pytest.param("rho1", marks=pytest.mark.slow)])
def test_every_variant_trains_and_is_measured(name, tmp_path):
    kind, experiment = RECIPES[name]
    flags = {**SMALL[name], "lora_r": 4, "eval_strategy": "no", "output_dir": tmp_path}
    flags = [word for field, value in flags.items() for word in (f"--{field}", str(value))]
    told, training, model_config = parse(ROOT / "recipes" / f"{name}.yaml", flags, kinds=(kind, SFTConfig, ModelConfig))
    results = run_variants(tmp_path, told.variants, told.seeds, experiment(told, training, model_config).run)
    assert set(results) == set(told.variants)
    for variant, [row] in results.items():
        if name == "rho1":  # eight tokens are too few for an answer
            assert row["accuracy"] == 0
        elif variant == "base":  # it knows most of the sums
            assert row["accuracy"] > 0.3
        trained = variant not in ("base", "reference")
        assert (row["tokens_read"] > 0) == trained
        assert any((tmp_path / f"{variant}-0").glob("*.safetensors")) == trained
    if name == "rho1":
        read = {row["tokens_read"] for variant, [row] in results.items() if variant not in ("base", "reference")}
        assert len(read) == 1  # the same rows for every variant


@pytest.mark.parametrize(
    "path", sorted(p for name in RECIPES for p in (ROOT / "recipes").glob(f"{name}*.yaml")), ids=lambda p: p.stem
)
def test_every_yaml_parses(path):
    kind, _ = RECIPES[path.stem.removesuffix("_paper")]
    flags = ["--bf16", "false", "--use_cpu", "true"] if "paper" in path.stem else []
    told, _, _ = parse(path, flags, kinds=(kind, SFTConfig, ModelConfig))
    assert set(told.variants) <= set(type(told)().variants)


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--variants best", "variants must be among"),
        ("--noise 1", "noise must be"),
        ("--fraction 0", "selection.fraction"),
    ],
)
def test_wrong_arguments_are_named(flags, message):
    with pytest.raises(ValueError, match=message):
        parse(ROOT / "recipes" / "rho1.yaml", flags.split(" "), kinds=(rho1.RhoArguments, SFTConfig, ModelConfig))


def test_trap_upft_holds_no_training_question_out(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text("".join(f'{{"question": "{n}+1?", "answer": "{n + 1}"}}\n' for n in range(40)))
    with pytest.raises(ValueError, match="eval_questions: 40 of 40 held-out questions are training questions too"):
        upft.Experiment(upft.UpftArguments(questions=str(path)), None, None)


def test_trap_the_last_rows_of_a_text_are_only_held_out(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text("".join(f'{{"text": "{n}"}}\n' for n in range(rho1.HELD_OUT + 5)))
    trained = rho1.load_texts(str(path), "text", 1000)["text"]
    held_out = rho1.load_texts(str(path), "text", rho1.HELD_OUT, held_out=True)["text"]
    assert list(trained) == list("01234") and len(held_out) == rho1.HELD_OUT and not set(trained) & set(held_out)
