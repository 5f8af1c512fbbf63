"""The sweeps of one run, stage by stage, and the report that puts them side by side."""

import hashlib
import itertools
import json
import logging
from collections.abc import Callable
from pathlib import Path

from accelerate import PartialState

from rlred.evaluation.conditions import budget_conditions
from rlred.evaluation.measures import amount, measure
from rlred.evaluation.report import STAGES, adherence
from rlred.evaluation.results import Result, write_result
from rlred.evaluation.sampling import Grading, Sampling
from rlred.evaluation.shares import gathered
from rlred.evaluation.sweep import sweep
from rlred.files import read_record, write_json
from rlred.heartbeat import beat

logger = logging.getLogger(__name__)


def examples(outcomes: list[dict], questions, num_questions: int = 2) -> list[dict]:
    """What the model wrote for the first questions at the smallest, the middle and the largest budget of each mode."""
    shown = set()
    for mode in {outcome["mode"] for outcome in outcomes}:
        found = sorted({amount(one) for one in outcomes if one["mode"] == mode and amount(one) is not None})
        shown |= {(mode, one) for one in ((found[0], found[len(found) // 2], found[-1]) if found else (None,))}
    texts = {row["question_id"]: row["question"] for row in questions[:num_questions]}
    found = [one for one in outcomes if one["question_id"] in texts and (one["mode"], amount(one)) in shown]
    return [
        {"question": texts[one["question_id"]], **{name: one[name] for name in one if name != "completion_ids"}}
        for one in found
    ]


def budgets_of(arguments) -> list[int]:
    """The budgets of a run's sweeps, smallest first."""
    return sorted(set(arguments.eval_budgets)) or arguments.make_sampler().grid(7)


def modes_of(arguments) -> list[str]:
    """The modes of a run's sweeps."""
    return arguments.eval_modes or [arguments.main_mode()]


def cap_of(arguments, max_completion_length: int) -> int:
    """The most tokens of a completion in a run's sweeps: twice the largest budget, or the run's own if that is more."""
    unbounded = set(modes_of(arguments)) - {"free"} == {"effort"}
    return max(max_completion_length, 0 if unbounded else 2 * max(budgets_of(arguments)))


class StageEvaluation:
    """The sweeps of one run: the same held-out questions, budgets and seed for every stage.

    `engine_of` gives what completes prompts with the weights of a model: itself, or the run's vLLM.
    """

    def __init__(
        self,
        arguments,
        training,
        held_out,
        tokenizer,
        prompts,
        grading: Grading,
        output: Path,
        engine_of: Callable = lambda model: model,
    ):
        self.on, self.output, self.tokenizer = arguments.evaluate, output, tokenizer
        self.budgets = budgets_of(arguments)
        self.modes, self.efforts = modes_of(arguments), arguments.make_eval_efforts()
        self.held_out, self.prompts, self.per_prompt_cap = held_out, prompts, arguments.eval_per_prompt_cap
        self.grading, self.engine_of = grading, engine_of
        self.sampling = Sampling(
            cap_of(arguments, training.max_completion_length),
            temperature=arguments.eval_temperature,
            batch_size=arguments.eval_batch_size,
            seed=training.seed,
        )

    def measure(self, stage: str, model, step: int = 0) -> None:
        """Sweeps `model`, which has made `step` steps, once.

        A stage that an earlier start of this run has measured is not measured again, unless the run has gone on since
        or its sweep was changed: then the earlier files are moved aside.
        """
        path = self.output / "measures" / f"{stage}.json"
        unasked = set(self.modes) == {"free"}  # nobody asks for a length, so no constant one is a control
        if not self.on or (unasked and stage == "control_constant_length"):
            return
        # Every process gets the whole model; the main one measures while the others wait for it.
        state = PartialState()
        with gathered(model):
            engine = self.engine_of(model)
            if state.is_main_process and not self.has_measured(path, step):
                self._sweep(stage, engine, path)
            state.wait_for_everyone()

    def _sweep(self, stage: str, engine, path: Path) -> None:
        """Measures one stage on this process, and writes what it found."""
        beat(self.output, stage=f"measuring: {stage}")
        constant = constant_effort = None
        if stage == "control_constant_length":
            constant, constant_effort = (found[len(found) // 2] for found in (self.budgets, self.efforts))
        asked = {"efforts": self.efforts, "constant_budget": constant, "constant_effort": constant_effort}
        outcomes = sweep(
            engine,
            self.tokenizer,
            self.held_out,
            budget_conditions(self.prompts, self.budgets, self.modes, **asked, per_prompt_cap=self.per_prompt_cap),
            sampling=self.sampling,
            grading=self.grading,
            path=path.with_suffix(".completions.jsonl"),
            description=f"measuring: {stage}",
        )
        block = measure(outcomes, self.natural_maximum())
        block["constant_budget"] = constant
        block["examples"] = examples(outcomes, self.held_out)
        write_json(path, block)
        logger.info("%s: %s", stage, json.dumps(block["overall"]))

    def has_measured(self, path: Path, step: int) -> bool:
        """Whether a stage's sweep is there, of these questions, budgets and steps; another one is moved aside."""
        asked = {
            "step": step,
            "budgets": self.budgets,
            "questions": hashlib.sha256(json.dumps([row["question"] for row in self.held_out]).encode()).hexdigest(),
            "modes": self.modes,
            "temperature": self.sampling.temperature,
            "max_completion_length": self.sampling.max_completion_length,
            "per_prompt_cap": self.per_prompt_cap,
            "seed": self.sampling.seed,
        }
        asked |= {"efforts": self.efforts} if "effort" in self.modes else {}
        told = self.prompts.described()
        asked |= {name: told[name] for name in ("system_prompt", "chat_template_kwargs") if told[name]}
        return measured_before(path, asked)

    def natural_maximum(self) -> int | None:
        """Tokens of the base's longest completion, the largest cap of every stage; None before the base is measured."""
        path = self.output / "measures" / "baseline.json"
        return read_record(path).get("natural_maximum") if path.exists() else None

    def rank_correlation(self, stage: str) -> float | None:
        """The rank correlation that a stage's sweep found; None where it was not measured."""
        path = self.output / "measures" / f"{stage}.json"
        return json.loads(path.read_text())["rank_correlation"] if path.exists() else None

    def report(self, model_name: str, cost: dict, hindsight_start: dict | None) -> Result | None:
        """The result of all stages, written beside the adapter; None where nothing is measured."""
        if not self.on:
            return None
        paths = {stage: self.output / "measures" / f"{stage}.json" for stage in STAGES}
        labels = {
            "model": model_name,
            "adapter": str(self.output),
            "seed": self.sampling.seed,
            "n_questions": len(self.held_out),
            "temperature": self.sampling.temperature,
            "per_prompt_cap": self.per_prompt_cap,
        }
        measured = {stage: read_record(path) for stage, path in paths.items() if path.exists()}
        result = adherence(labels, measured, details={"hindsight_start": hindsight_start}, cost=cost)
        if PartialState().is_main_process:
            write_result(result, self.output)
        return result


def measured_before(path: Path, asked: dict) -> bool:
    """Whether `path` holds the measures of a sweep that was `asked` for so; those of another one are moved aside."""
    asked_path, asked = path.with_suffix(".asked.json"), json.loads(json.dumps(asked))
    if asked_path.exists() and read_record(asked_path) == asked:
        return path.exists()
    earlier = [file for file in path.parent.glob(f"{path.stem}.*") if file.is_file()]
    if earlier:
        aside = next(f for n in itertools.count(1) if not (f := path.parent / f"{path.stem}-{n}").exists())
        aside.mkdir()
        for file in earlier:
            file.rename(aside / file.name)
        logger.info("%s: measured before with another sweep or after other steps; that is in %s", path.stem, aside)
    write_json(asked_path, asked)
    return False
