"""A tiny reasoner that thinks long past its answer: where rewards for shorter thinking have something to do.

The embedded base stops at random, and is incorrect where it stops too early; there, shorter means worse. Reasoners that
people want to shorten are the other way about: they know, and go on checking. So from a few completions of each
question the base's longest correct one is kept, and it learns those by LoRA SFT, merged into its weights. Nothing but
its own work goes in.
"""

from pathlib import Path

from rlred.data.budgets import Wording
from rlred.data.models import load_model
from rlred.data.questions import load_questions
from rlred.evaluation.conditions import free
from rlred.evaluation.sampling import Sampling
from rlred.evaluation.sweep import sweep
from rlred.runs.tale import sft_rows
from rlred.tiny import TINY_REASONER, resolve_model
from rlred.training.sft import SFTSettings, fine_tune

NUM_QUESTIONS, NUM_SAMPLES = 1024, 4
SETTLED = 56  # tokens from which up a completion is long for every question


def make_overthinking(folder: Path, *, num_questions: int = NUM_QUESTIONS, max_steps: int = 100, seed: int = 0) -> Path:
    """Makes the model in `folder`/model (some minutes of one core) unless it is there; returns that folder."""
    target = folder / "model"
    if (target / "model.safetensors").is_file():
        return target
    base = resolve_model(TINY_REASONER)
    model, tokenizer = load_model(base)
    questions = load_questions("sums", limit=num_questions, seed=seed)
    outcomes = sweep(
        model,
        tokenizer,
        list(questions),
        free(Wording()),
        sampling=Sampling(90, seed=seed, num_samples=NUM_SAMPLES),
        path=folder / "traces.completions.jsonl",
        description="the base's own traces",
    )
    kept = longest_right(outcomes, {row["question_id"]: row["question"] for row in questions})
    rows = sft_rows(kept, tokenizer, Wording())
    settings = SFTSettings(max_steps=max_steps, batch_size=64, learning_rate=1e-3, lora_r=32, seed=seed)
    merged = fine_tune(model, tokenizer, rows, settings, folder).merge_and_unload()
    merged.save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def longest_right(outcomes: list[dict], texts: dict) -> list[dict]:
    """Of each question the longest completion that was correct and ended by itself, where it is long.

    >>> rows = [{"question_id": 0, "correct": right, "truncated": False, "length": n, "completion": str(n)}
    ...         for n, right in ((60, True), (70, False), (58, True))]
    >>> longest_right(rows, {0: "3+4=?"})
    [{'question': '3+4=?', 'completion': '60'}]
    """
    best: dict = {}
    for row in sorted(outcomes, key=lambda row: row["length"]):
        if row["correct"] and not row["truncated"] and row["length"] >= SETTLED:
            best[row["question_id"]] = {"question": texts[row["question_id"]], "completion": row["completion"]}
    return list(best.values())
