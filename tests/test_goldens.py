"""Golden runs: three steps of a recipe at a fixed seed, held against the numbers of an earlier commit.

Each recipe runs as from the command line, `python recipes/NAME.py FLAGS`, on one thread. What is looked at belongs to
TRL and transformers (the rows given to `Trainer.train`, every result of `generate`) or lies in the output folder, so
that a golden stays as it is while modules of rlred move. tests/goldens/NAME.json holds

    trained_on   for each call of `Trainer.train`: the number of rows, a hash of each column, the first rows
    generated    for each call of `generate`: rows, tokens (prompt and completion), a hash of the ids
    steps        loss, reward, gradient norm and mean length of each step
    measured     accuracy and lengths of every evaluation in the report

Other hardware and another build of torch round differently, and one logit that is off in its last bit gives other
samples from the same seed. So each file also holds `probe`, a hash of the exact bits of a small computation
(matrix products, softmax, attention, a backward pass, Adam):

    the same probe    everything is equal; floats within 1e-6
    another probe     the rows that do not depend on samples are equal; the numbers are finite and of that size

To check a change on a machine with another probe: record at the commit before it, then run at the commit after it.
To record: `make goldens` or `pytest tests/test_goldens.py --record-goldens`; the tests are then skipped, and `git diff
tests/goldens` shows what has changed. It is refused where CI is set. A difference is explained in docs/LOG.md.
"""

import copy
import functools
import hashlib
import json
import math
import operator
import os
import random
import runpy
import sys
from dataclasses import dataclass
from importlib.metadata import version

import numpy
import pytest
import torch
import transformers
from PIL.Image import Image
from torch import set_num_threads

from tests.paths import ROOT

FOLDER = ROOT / "tests" / "goldens"
TOLERANCE = 1e-6
MEASURES = {  # of each kind of result (rlred/evaluation/results.py)
    "adherence": ("n", "accuracy", "mean_length", "mean_abs_error"),
    "ratios": ("n", "accuracy", "mean_length", "mean_thinking_length", "mean_answer_length", "ratio"),
    "visual": ("n", "accuracy", "mean_length", "keep_ratio", "visual_tokens"),
}


@dataclass(frozen=True)
class Golden:
    """The flags that make a recipe small, and the columns of its training rows that no sampling goes into."""

    flags: str
    pure: tuple[str, ...] = ()


ASKED = ("prompt", "question", "solution", "mode", "budget")
SMALL = "--max_steps 3 --logging_steps 1 --lora_r 4 --num_eval_questions 4 --learning_rate 0.01 --warmup_steps 0"
GROUPS = "--per_device_train_batch_size 8 --num_generations 4"
HINDSIGHT = '--hindsight_settings {"num_samples":32,"max_updates":2,"batch_size":8,"probe_every":2,' + (
    '"num_probe_questions":2,"cooldown_updates":1,"only_correct":true,"train_answer":true}'
)
GOLDENS = {
    "l1_exact": Golden(f"{SMALL} {GROUPS} {HINDSIGHT} --num_questions 32 --eval_budgets 16 48", ASKED),
    "l1_maxlen": Golden(f"{SMALL} {GROUPS} {HINDSIGHT} --num_questions 32 --eval_budgets 16 48", ASKED),
    "forking_tokens": Golden(f"{SMALL} {GROUPS} --num_questions 32", ASKED),
    "think_or_not": Golden(
        f"{SMALL} {GROUPS} --num_questions 16 --model_name_or_path tiny_reasoner --reference_samples 2", ASKED
    ),
    "visual_sparsity": Golden(
        f"{SMALL} --per_device_train_batch_size 20 --num_generations 10", ("prompt", "images", "solution", "family")
    ),
    "tokenskip": Golden(
        f"{SMALL} --num_questions 24 --ratios 1.0 0.7 0.5 --eval_ratios 0.3 --max_completion_length 96"
        ' --per_device_train_batch_size 8 --lr_scheduler_kwargs {"num_decay_steps":1}'
    ),
    "tale": Golden(
        "--num_questions 24 --num_eval_questions 4 --budgets 24 48 72 --max_steps 3 --batch_size 8 --logging_steps 1"
        " --learning_rate 0.01"
    ),
}


@pytest.mark.parametrize("recipe", GOLDENS)
def test_three_steps_are_those_of_the_golden_run(recipe, tmp_path, monkeypatch, request):
    found = golden_run(recipe, tmp_path / "run", monkeypatch)
    path = FOLDER / f"{recipe}.json"
    if request.config.getoption("--record-goldens"):
        if os.environ.get("CI"):
            pytest.fail("--record-goldens: CI is set, and a golden is recorded by hand only")
        path.write_text(to_text(found))
        pytest.skip(f"recorded {path.relative_to(ROOT)}")
    golden = json.loads(path.read_text())
    exact = golden["probe"] == found["probe"]
    differences = (differs if exact else differs_coarsely)(golden, found, GOLDENS[recipe].pure)
    assert not differences, explained(recipe, golden, found, differences)


def golden_run(recipe: str, output, monkeypatch) -> dict:
    """What the recipe leaves when it is run small, on one thread."""
    words = [f"recipes/{recipe}.py", *GOLDENS[recipe].flags.split(" "), "--output_dir", str(output)]
    threads, trained_on, generated = torch.get_num_threads(), [], []
    train, generate = transformers.Trainer.train, transformers.GenerationMixin.generate

    def watched_train(trainer, *args, **kwargs):
        trained_on.append(rows_of(trainer.train_dataset))
        return train(trainer, *args, **kwargs)

    def watched_generate(model, *args, **kwargs):
        ids = generate(model, *args, **kwargs)
        generated.append([*ids.shape, digest(ids.tolist())])
        return ids

    with monkeypatch.context() as patch:
        set_num_threads(1)
        patch.setattr(torch, "set_num_threads", lambda number: None)  # recipes take all cores
        patch.setattr(transformers.Trainer, "train", watched_train)
        patch.setattr(transformers.GenerationMixin, "generate", watched_generate)
        patch.setattr(sys, "argv", words)
        patch.chdir(ROOT)
        probe = probe_of_machine()
        random.seed(0), numpy.random.seed(0), torch.manual_seed(0)  # whatever a run does not seed itself
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "recipes" / f"{recipe}.py"), run_name="__main__")
    set_num_threads(threads)
    assert ended.value.code == 0, f"python {' '.join(words)}"
    return {
        "probe": probe,
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft")},
        "trained_on": trained_on,
        "generated": generated,
        "steps": steps_of(output),
        "measured": measured(output),
    }


def probe_of_machine() -> str:
    """A hash of the exact bits of the operations that a tiny model is made of: the rounding of this machine."""
    generator = torch.Generator().manual_seed(0)
    bits = hashlib.sha256()
    for rows, width in ((1, 96), (7, 96), (64, 128), (50, 384)):
        x = torch.randn(rows, width, generator=generator)
        layer = torch.nn.Linear(width, 2 * width)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / width**0.5)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-2)
        for _ in range(2):
            gate, value = layer(x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)).chunk(2, dim=-1)
            hidden = (torch.nn.functional.silu(gate) * value).view(1, rows, 4, -1).transpose(1, 2)
            seen = torch.nn.functional.scaled_dot_product_attention(hidden, hidden, hidden, is_causal=True)
            log_probs = seen.transpose(1, 2).reshape(rows, width).log_softmax(-1)
            log_probs[:, 0].mean().backward()
            optimizer.step(), optimizer.zero_grad()
            for tensor in (log_probs.exp(), log_probs.exp().cumsum(-1), layer.weight):
                bits.update(tensor.detach().numpy().tobytes())
    return bits.hexdigest()[:16]


def rows_of(dataset) -> dict:
    """The rows of a data set: how many, a hash of each column, and the first three without their pictures."""
    columns = {name: digest([plain(value) for value in dataset[name]]) for name in sorted(dataset.column_names)}
    first = [{name: plain(value) for name, value in sorted(row.items())} for row in dataset.select(range(3))]
    return {"n": len(dataset), "columns": columns, "first": first}


def plain(value):
    """A value of a row that JSON can hold; of a picture its size and a hash of its pixels."""
    if isinstance(value, Image):
        return f"{value.size} {hashlib.sha256(value.convert('RGB').tobytes()).hexdigest()[:12]}"
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value


def digest(value) -> str:
    """A short hash of what JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def steps_of(output) -> list[dict]:
    """Loss, reward, gradient norm and mean length of each step."""
    names = ("step", "loss", "reward", "grad_norm", "completions/mean_length")
    log = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [{name: entry[name] for name in names if name in entry} for entry in log if "loss" in entry]


def measured(output) -> dict:
    """Every group of measures in the blocks of the run's results, by its path in them."""
    found = {}

    def walk(value, path: str, names: tuple[str, ...]) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        if isinstance(value, dict) and "accuracy" in value:
            found[path] = {name: value[name] for name in names if isinstance(value.get(name), int | float)}
        for name, part in items:
            if name not in ("overall", "by_level", "by_question"):  # means of the same outcomes
                walk(part, f"{path}/{name}", names)

    for kind, names in MEASURES.items():
        if (output / f"{kind}.json").is_file():
            walk(json.loads((output / f"{kind}.json").read_text())["blocks"], kind, names)
    return found


def differs(golden, found, pure=(), path: str = "") -> list[str]:
    """Where two values differ, floats by more than the tolerance; `versions` is not compared."""
    if isinstance(golden, dict) and isinstance(found, dict):
        names = [name for name in dict.fromkeys([*golden, *found]) if name not in ("versions", "probe")]
        parts = [(name, golden.get(name), found.get(name)) for name in names]
    elif isinstance(golden, list) and isinstance(found, list) and len(golden) == len(found):
        parts = [(number, *pair) for number, pair in enumerate(zip(golden, found, strict=True))]
    elif isinstance(golden, float) and isinstance(found, float | int):
        return (
            [] if math.isclose(golden, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE) else [f"{path}: {golden} {found}"]
        )
    else:
        return [] if golden == found else [f"{path}: {golden} {found}"]
    return [line for name, one, two in parts for line in differs(one, two, path=f"{path}/{name}")]


def differs_coarsely(golden: dict, found: dict, pure: tuple[str, ...] = ()) -> list[str]:
    """Where two runs differ in what does not depend on samples, or a number is far from where it was."""
    lines = []
    for name, count in (("trained_on", len), ("steps", len), ("measured", sorted)):
        lines += differs(count(golden[name]), count(found[name]), path=name)
    if pure and not lines:
        one, two = (
            {name: value for name, value in run["trained_on"][-1]["columns"].items() if name in pure}
            for run in (golden, found)
        )
        lines += differs([golden["trained_on"][-1]["n"], one], [found["trained_on"][-1]["n"], two], path="rows")
    for one, two in zip(golden["steps"], found["steps"], strict=False):
        for name, value in one.items():
            # Other samples have another reward and loss; a sum in the place of a mean is further off.
            if not abs(two.get(name, math.nan) - value) <= 2 + 10 * abs(value):
                lines.append(f"steps/{one['step']}/{name}: {value} {two.get(name)}")
        if one.get("grad_norm") and not two.get("grad_norm", 0) > 0:
            lines.append(f"steps/{one['step']}/grad_norm: {one['grad_norm']} {two.get('grad_norm')}")
    return lines


def explained(recipe: str, golden: dict, found: dict, differences: list[str]) -> str:
    """The message of a failure: what differs first, and what to do about it."""
    exact = "the same rounding" if golden["probe"] == found["probe"] else "another rounding, compared coarsely"
    lines = [f"{recipe}: {len(differences)} differences from tests/goldens/{recipe}.json ({exact})"]
    if golden["versions"] != found["versions"]:
        lines.append(f"recorded with {golden['versions']}, run with {found['versions']}")
    lines += [f"  {line[:300]}" for line in differences[:12]]
    lines.append("if it is meant: make goldens, and explain the difference in docs/LOG.md")
    return "\n".join(lines)


def to_text(found: dict) -> str:
    """JSON with one line for each step, call and measure, for a diff that can be read."""
    parts = []
    for name, value in found.items():
        if isinstance(value, list):
            inner = ",\n".join("    " + json.dumps(part) for part in value)
            parts.append(f'  "{name}": [\n{inner}\n  ]')
        elif name == "measured":
            inner = ",\n".join(f"    {json.dumps(key)}: {json.dumps(part)}" for key, part in value.items())
            parts.append(f'  "{name}": {{\n{inner}\n  }}')
        else:
            parts.append(f'  "{name}": {json.dumps(value)}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


GOLDEN = {
    "probe": "a",
    "versions": {},
    "trained_on": [{"n": 2, "columns": {"budget": "x", "reference_length": "y"}, "first": []}],
    "generated": [[2, 5, "ids"]],
    "steps": [{"step": 1, "loss": 0.25, "reward": 0.5, "grad_norm": 0.1}],
    "measured": {"adherence/rows/0": {"n": 2, "accuracy": 1.0, "mean_length": 30.0}},
}


@pytest.mark.parametrize(
    "place, value, exact, coarse",
    [
        (("steps", 0, "loss"), 0.25 + 1e-8, False, False),  # below the tolerance
        (("steps", 0, "loss"), 0.25 + 1e-5, True, False),  # another host rounds so, and may even sample otherwise
        (("steps", 0, "loss"), -0.7, True, False),
        (("steps", 0, "loss"), 25.0, True, True),  # a sum in the place of a mean
        (("steps", 0, "loss"), math.nan, True, True),
        (("steps", 0, "grad_norm"), 0.0, True, True),  # nothing is trained
        (("steps", 0), {"step": 1, "loss": 0.25}, True, True),  # no longer logged
        (("steps",), [], True, True),
        (("trained_on", 0, "columns", "budget"), "z", True, True),
        (("trained_on", 0, "columns", "reference_length"), "z", True, False),  # sampled
        (("generated", 0, 2), "other ids", True, False),
        (("generated",), [], True, False),
        (("measured", "adherence/rows/0", "accuracy"), 0.5, True, False),
        (("measured",), {}, True, True),
        (("versions",), {"torch": "3"}, False, False),
    ],
)
def test_a_difference_is_found_and_a_rounding_is_not(place, value, exact, coarse):
    found = copy.deepcopy(GOLDEN)
    *way, last = place
    functools.reduce(operator.getitem, way, found)[last] = value
    assert bool(differs(GOLDEN, found)) == exact
    assert bool(differs_coarsely(GOLDEN, found, ("budget",))) == coarse


def test_the_probe_is_the_same_twice_and_a_hash_of_every_bit(monkeypatch):
    assert probe_of_machine() == probe_of_machine()
    silu = torch.nn.functional.silu
    monkeypatch.setattr(torch.nn.functional, "silu", lambda x: silu(x) * (1 + 2**-23))
    changed = probe_of_machine()
    monkeypatch.undo()
    assert changed != probe_of_machine()
