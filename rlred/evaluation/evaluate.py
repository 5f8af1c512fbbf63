"""`rlred evaluate`: models and adapters on the same questions at the same budgets, with what they are held against.

    baseline                  the base, or the first model named
    trained                   the first adapter, with the control that asks it for one constant length
    others                    further models and adapters; the first of them all on something else (out of range,
                              the budget in other words, other questions)
    brevity, truncation ...   rlred/evaluation/baselines.py

Everything that is generated is kept in the output folder as it comes, so an interrupted evaluation goes on.
"""

import dataclasses
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlred.data.adapters import on_another_base
from rlred.data.budgets import Wording, effort_of, make_wording, wording_flag
from rlred.data.models import Loading, context_of, load_model, local_adapter
from rlred.data.prompts import Prompts, prompts_of_record
from rlred.data.questions import load_questions
from rlred.evaluation.baselines import Baselines
from rlred.evaluation.conditions import BudgetCondition, budget_conditions
from rlred.evaluation.interruptions import NothingToCut, interrupt, measure_interruptions, uninterrupted
from rlred.evaluation.measures import measure
from rlred.evaluation.report import TITLES, adherence
from rlred.evaluation.results import Result, write_result
from rlred.evaluation.sampling import Grading, Sampling
from rlred.evaluation.settings import Evaluation
from rlred.evaluation.stage_evaluation import examples
from rlred.evaluation.sweep import sample_of, sweep
from rlred.files import read_record, write_json
from rlred.rewards import Correctness
from rlred.tiny import QUESTIONS, TINY_REASONER

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """A model to be measured: a base, or an adapter on its base, asked in the words that it was trained on."""

    name: str
    model: str
    adapter: str | None
    prompts: Prompts


def candidates_of(models: list[str], adapters: list[str], wording: str | None, given: dict) -> list[Candidate]:
    """The base first, then every adapter; or every model that was named.

    `wording` and `given`, more fields of `Prompts`, stand before what an adapter's run says.
    """
    given = {**given, "wording": make_wording(wording_flag(wording))} if wording else given
    adapted = [
        Candidate(name, base_of(folder, models), folder, dataclasses.replace(prompts_of(folder), **given))
        for name, folder in zip(adapters, map(local_adapter, adapters), strict=True)
    ]
    if adapted:
        first = adapted[0]
        return [Candidate(first.model, first.model, None, first.prompts), *adapted]
    return [Candidate(name, name, None, Prompts(**given)) for name in models or [TINY_REASONER]]


def base_of(adapter: str | None, named: list[str]) -> str:
    """The model that was named, or else the one that the adapter was trained on, or else the embedded one."""
    config = Path(adapter or "") / "adapter_config.json"
    recorded = json.loads(config.read_text()).get("base_model_name_or_path") if config.is_file() else None
    return named[0] if named else recorded or TINY_REASONER


def check_positions(model, budgets: list[int], name: str) -> None:
    """Raises `ValueError` for a budget of more tokens than a model has positions; an engine has none to ask for."""
    config = getattr(model, "config", None)
    context = context_of(config) if config is not None else None
    if context and budgets and max(budgets) > context:
        raise ValueError(f"--budgets {max(budgets)}: {name} has {context} positions; ask for fewer tokens")


def prompts_of(adapter: str | None) -> Prompts:
    """How an adapter was asked in training; in L1's words, without system prompt, where that is not known."""
    run = Path(adapter or "") / "run.json"
    return prompts_of_record(read_record(run) if run.is_file() else {})


def wording_of(adapter: str | None) -> Wording:
    """The wording that an adapter was trained with, or L1's where that is not known."""
    return prompts_of(adapter).wording


def trained_range(adapter: str | None, budgets: list[int]) -> tuple[int, int]:
    """The smallest and the largest budget that an adapter was trained on; of `budgets` where that is not known."""
    run = Path(adapter or "") / "run.json"
    return (range_of_record(read_record(run)) if run.is_file() else None) or (min(budgets), max(budgets))


def range_of_record(record: dict) -> tuple[int, int] | None:
    """The smallest and the largest budget of a run from its run.json; None for a run that draws none.

    A hindsight start that shrinks them to what there are traces for has recorded what was left.

    >>> range_of_record({"arguments": {"budget_low": 16, "budget_high": 64, "budget_choices": [8]}})
    (16, 64)
    >>> drawn = {"budget_low": 16, "budget_high": 64, "budget_distribution": "choices", "budget_choices": [40, 8]}
    >>> range_of_record({"arguments": drawn}), range_of_record({"arguments": drawn, "trained_budgets": [8, 8]})
    ((8, 40), (8, 8))
    """
    arguments = record.get("arguments") or {}
    if "budget_low" not in arguments:
        return None
    drawn = [arguments["budget_low"], arguments["budget_high"]]
    if arguments.get("budget_distribution") == "choices":
        drawn = arguments["budget_choices"]
    left = record.get("trained_budgets") or drawn
    return min(left), max(left)


def efforts_of_record(record: dict) -> tuple[float, float] | None:
    """The smallest and the largest effort of a run from its run.json; None for a run that draws none.

    >>> efforts_of_record({"arguments": {"modes": {"effort": 1}, "effort_low": 0.2}})
    (0.2, 1.0)
    >>> efforts_of_record({"arguments": {"modes": {"effort": 1}, "efforts": ["medium", "low"]}})
    (0.25, 0.5)
    """
    arguments = record.get("arguments") or {}
    if not (arguments.get("modes") or {}).get("effort"):
        return None
    drawn = [effort_of(effort) for effort in arguments.get("efforts") or [arguments.get("effort_low", 1.0), 1.0]]
    return min(drawn), max(drawn)


def claim(settings: Evaluation, output: Path) -> None:
    """Notes in the folder what is measured there. Raises `ValueError` where that is something else already."""
    path, plain = output / "evaluation.json", dataclasses.asdict(settings)
    sampled = any((output / "measures").glob("*"))  # else a run that failed before it began left only the note
    before = read_record(path) if path.exists() and sampled else plain
    changed = [name for name in before if before[name] != plain.get(name)]
    if changed:
        name = changed[0]
        raise ValueError(
            f"{output} holds an unfinished evaluation with --{name} {before.get(name)}, now {plain.get(name)}; "
            "name another folder with --output, or move it away"
        )
    write_json(path, plain)


def evaluate(settings: Evaluation, output: Path) -> Result:
    """Measures every candidate, writes adherence.{json,md,png} into `output` and returns the result.

    Its blocks are called as the files in `output`/measures. With `interruptions`, interruptions.{json,md,png} too.
    """
    candidates = candidates_of(settings.model, settings.adapter, settings.wording, settings.given())
    questions = questions_of(settings, settings.questions)
    families = {source: questions_of(settings, source) for source in settings.more_questions}
    claim(settings, output)
    labels = {
        "model": candidates[0].model,
        "adapter": settings.adapter[0] if settings.adapter else None,
        "seed": settings.seed,
        "n_questions": len(questions),
        "temperature": settings.temperature,
        "per_prompt_cap": settings.per_prompt_cap,
    }
    found, interrupted, warned = {}, {}, []
    for number, candidate in enumerate(candidates):
        model, tokenizer = _load(candidate, settings)
        check_positions(model, settings.budgets, candidate.model)
        if told := on_another_base(candidate.adapter, candidate.model, model, Loading.of(settings)):
            logger.warning("%s", told)
            warned.append(told)
        candidate = dataclasses.replace(candidate, prompts=candidate.prompts.fitted(tokenizer))
        longest = found.get("baseline", {}).get("natural_maximum")
        run = Measuring(settings, output / "measures", candidate, model, tokenizer, longest)
        stage = "baseline" if number == 0 else "trained" if number == 1 and candidate.adapter else f"model-{number}"
        if stage == "baseline":
            found["baseline"] = {"title": run.title(stage), **run("baseline", questions)}
            run = dataclasses.replace(run, longest=found["baseline"]["natural_maximum"])
            found |= run.baselines(questions)
        elif stage == "trained":
            found["trained"] = run("trained", questions)
            if settings.budgets or settings.efforts:
                found["control_constant_length"] = run("control_constant_length", questions, constant=True)
        else:
            found[stage] = {"title": candidate.name, **run(stage, questions)}
        if settings.interruptions:
            try:
                interrupted[stage] = run.interruptions(stage, questions)
            except NothingToCut as problem:  # what was measured besides is not lost for it
                logger.warning("%s: %s", stage, problem)
        if number == (1 if settings.adapter else 0):
            found |= _elsewhere(run, questions, families)
    if interrupted:
        write_result(Result("interruptions", labels, interrupted), output)
    result = adherence(labels, found, details={"warnings": warned or None})
    write_result(result, output)
    if settings.interruptions and not interrupted:
        raise ValueError("--interruptions: no model has ended its thinking (see the log); adherence.* is written")
    return result


def _elsewhere(run: "Measuring", questions, families) -> dict:
    """The first model (or adapter) outside what it was trained on: other budgets, other words, other questions."""
    found, settings = {}, run.settings
    if settings.out_of_range:
        low, high = trained_range(run.candidate.adapter, settings.budgets)
        about = {"title": f"budgets outside the trained range of {low} to {high}", "comparable": False}
        found["out_of_range"] = about | run("out_of_range", questions, budgets=[max(1, low // 2), 2 * high])
    if settings.paraphrase:
        wording = make_wording(wording_flag(settings.paraphrase, "--paraphrase"))
        about = {"title": "the budget asked for in other words", "comparable": True}
        found["paraphrase"] = about | run("paraphrase", questions, wording=wording)
    for number, (source, rows) in enumerate(families.items()):
        about = {"title": f"other questions: {source}", "comparable": False}
        found[f"questions-{number}"] = about | run(f"questions-{number}", rows)
    return found


def questions_of(settings: Evaluation, source: str) -> list[dict]:
    """The held-out questions of a source; columns and configuration belong to the first one."""
    first = source == settings.questions
    rows = load_questions(
        source,
        split=settings.split,
        config=settings.questions_config if first else None,
        question_column=settings.question_column if first else None,
        solution_column=settings.solution_column if first else None,
        limit=settings.num_questions if source in QUESTIONS else None,
    )
    return sample_of(rows, settings.num_questions)


def _load(candidate: Candidate, settings: Evaluation):
    if not settings.vllm:
        return load_model(candidate.model, candidate.adapter, Loading.of(settings))
    from rlred.evaluation.vllm import VllmModel

    model = VllmModel(candidate.model, candidate.adapter, Loading.of(settings))
    return model, model.llm.get_tokenizer()


@dataclass(frozen=True)
class Measuring:
    """One model, to be measured as the settings say; what it generates is kept in `folder`."""

    settings: Evaluation
    folder: Path
    candidate: Candidate
    model: Any
    tokenizer: Any
    longest: int | None = None
    """Tokens of the base's longest completion that ended by itself; None where that is being measured."""

    def sampling(self, budgets: list[int]) -> Sampling:
        """How the model is sampled where these budgets are asked for."""
        cap = self.settings.max_completion_length or 2 * max(budgets)
        return Sampling.of(self.settings, max_completion_length=cap)

    @property
    def grading(self) -> Grading:
        """How its completions are graded."""
        return Grading(Correctness(require_end_of_thinking=self.settings.require_end_of_thinking))

    def conditions(
        self, budgets: list[int], wording: Wording | None = None, *, constant: bool = False
    ) -> list[BudgetCondition]:
        """Every mode at these budgets and the efforts, in the candidate's words or in others."""
        settings, efforts = self.settings, sorted(set(self.settings.efforts))
        prompts = dataclasses.replace(self.candidate.prompts, wording=wording or self.candidate.prompts.wording)
        middle = [found[len(found) // 2] if constant and found else None for found in (budgets, efforts)]
        asked = {"efforts": efforts, **dict(zip(("constant_budget", "constant_effort"), middle, strict=True))}
        return budget_conditions(prompts, budgets, settings.modes, **asked, per_prompt_cap=settings.per_prompt_cap)

    def sweep(
        self, stage: str, questions: list[dict], budgets: list[int], conditions: list[BudgetCondition]
    ) -> list[dict]:
        """The outcomes of a sweep; what is on disk is not generated again."""
        return sweep(
            self.model,
            self.tokenizer,
            questions,
            conditions,
            sampling=self.sampling(budgets),
            grading=self.grading,
            path=self.folder / f"{stage}.completions.jsonl",
            description=f"measuring: {stage}",
        )

    def __call__(
        self,
        stage: str,
        questions: list[dict],
        *,
        budgets: list[int] | None = None,
        wording: Wording | None = None,
        constant: bool = False,
    ) -> dict:
        """The measures of one sweep; a `constant` one asks for the middle budget and effort alone."""
        budgets = sorted(set(budgets or self.settings.budgets))
        outcomes = self.sweep(stage, questions, budgets, self.conditions(budgets, wording, constant=constant))
        return {**measure(outcomes, self.longest), "examples": examples(outcomes, questions)}

    def title(self, stage: str) -> str:
        """The base of what follows is called so; a model that is named beside others, by its name."""
        base = stage == "baseline" and (self.settings.adapter or len(self.settings.model) < 2)
        return TITLES["baseline"] if base else self.candidate.name

    def interruptions(self, stage: str, questions: list[dict]) -> dict:
        """What the candidate answers where its thinking is cut: of every mode, at its largest budget or effort."""
        settings, budgets = self.settings, sorted(set(self.settings.budgets))
        asked = self.conditions(budgets)
        outcomes = self.sweep(stage, questions, budgets, asked)
        each = len(outcomes) // len(asked)
        last = {one.mode: number for number, one in enumerate(asked)}  # those of a mode come in order
        own = [one for number in last.values() for one in outcomes[number * each : (number + 1) * each]]
        natural = uninterrupted(self.tokenizer, questions, [asked[number] for number in last.values()], own)
        prompts = asked[0].prompts
        found = interrupt(
            self.model,
            self.tokenizer,
            natural,
            settings.interruptions,
            sampling=self.sampling(budgets),
            grading=self.grading.fitted(prompts.end_of_thinking, self.tokenizer, prompts.markers),
            path=self.folder / f"{stage}.interruptions.jsonl",
        )
        return {
            "title": self.title(stage),
            "rows": measure_interruptions(found),
            "left_out": len(own) - len(natural),
        }

    def baselines(self, questions: list[dict]) -> dict:
        """The measures of each baseline that was asked for, by name."""
        settings = self.settings
        if not settings.baselines:
            return {}
        mode = "exact" if "exact" in settings.modes else "max"
        baselines = Baselines(
            self.model,
            self.tokenizer,
            questions,
            budget_conditions(self.candidate.prompts, sorted(settings.budgets), [mode]),
            sampling=self.sampling(settings.budgets),
            grading=self.grading,
            folder=self.folder,
        )
        return {name: measure(getattr(baselines, name)(), self.longest) for name in settings.baselines}
