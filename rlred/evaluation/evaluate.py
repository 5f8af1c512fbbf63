"""`rlred evaluate`: models and adapters on the same questions at the same budgets, with what they are held against.

    baseline                  the base, or the first model named
    trained                   the first adapter, with the control that asks it for one constant length
    others                    further models and adapters; the first of them all on something else (out of range,
                              the budget in other words, other questions)
    brevity, truncation ...   rlred/evaluation/baselines.py

Everything that is generated is kept in the output folder as it comes, so an interrupted evaluation goes on.
"""

import dataclasses
import functools
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

from rlred.data.budgets import Wording, make_wording, wording_flag
from rlred.data.models import Loading, load_model
from rlred.data.prompts import Prompts, prompts_of_record, template_settings
from rlred.data.questions import load_questions
from rlred.evaluation.baselines import Baselines
from rlred.evaluation.measures import measure
from rlred.evaluation.report import STAGES, write_report
from rlred.evaluation.row_cap import check_row_cap
from rlred.evaluation.study import examples
from rlred.evaluation.sweep import complete, sample_of, sweep
from rlred.files import write_json
from rlred.rewards import Correctness, Length
from rlred.tiny import TINY_REASONER, sums

BASELINES = ("brevity", "truncation", "s1_forcing")


@dataclass(frozen=True)
class Evaluation:
    """What to measure: the flags of `rlred evaluate`. Raises `ValueError` for a value out of range."""

    budgets: list[int]
    model: list[str] = dataclasses.field(default_factory=list)
    adapter: list[str] = dataclasses.field(default_factory=list)
    modes: list[str] = dataclasses.field(default_factory=lambda: ["exact"])
    questions: str = "sums"
    questions_config: str | None = None
    split: str = "test"
    question_column: str | None = None
    solution_column: str | None = None
    more_questions: list[str] = dataclasses.field(default_factory=list)
    num_questions: int = 64
    num_samples: int = 1
    wording: str | None = None
    system_prompt: str | None = None
    chat_template_kwargs: str | None = None
    end_of_thinking: str | None = None
    paraphrase: str | None = None
    out_of_range: bool = False
    baselines: list[str] = dataclasses.field(default_factory=list)
    max_completion_length: int | None = None
    row_cap: float | None = None
    require_end_of_thinking: bool = False
    temperature: float = 1.0
    batch_size: int = 128
    dtype: str = "float32"
    seed: int = 0
    vllm: bool = False
    trust_remote_code: bool = False

    def __post_init__(self):
        for name, smallest in (("num_questions", 1), ("num_samples", 1), ("batch_size", 1), ("temperature", 0)):
            if getattr(self, name) < smallest:
                raise ValueError(f"--{name} must be {smallest} or more, got {getattr(self, name)}")
        if not self.budgets and self.modes != ["none"]:
            raise ValueError("--budgets: name the token budgets to ask for, or files with --predictions")
        if self.budgets and min(self.budgets) < 1:
            raise ValueError(f"--budgets must be 1 or more, got {min(self.budgets)}")
        if self.max_completion_length is not None and self.max_completion_length < 1:
            raise ValueError(f"--max_completion_length must be 1 or more, got {self.max_completion_length}")
        if self.max_completion_length is None and not self.budgets:
            raise ValueError("--max_completion_length: without --budgets, say where a completion is cut")
        check_row_cap(self.row_cap, self.modes, "--row_cap")
        if self.adapter and len(self.model) > 1:
            raise ValueError("--model: with --adapter, name the one model that they belong to, or none")
        for name in ("model", "adapter"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"--{name}: the same one is named twice in {getattr(self, name)}")


@dataclass(frozen=True)
class Subject:
    """A model to be measured: a base, or an adapter on its base, asked in the words that it was trained on."""

    name: str
    model: str
    adapter: str | None
    prompts: Prompts


def subjects_of(settings: Evaluation) -> list[Subject]:
    """The base first, then every adapter; or every model that was named."""
    given: dict = {"wording": make_wording(wording_flag(settings.wording))} if settings.wording else {}
    for name in ("system_prompt", "end_of_thinking"):
        if getattr(settings, name) is not None:
            given[name] = getattr(settings, name)
    if settings.chat_template_kwargs is not None:
        given["chat_template_kwargs"] = template_settings(settings.chat_template_kwargs)
    adapters = [
        Subject(name, base_of(name, settings.model), name, dataclasses.replace(prompts_of(name), **given))
        for name in settings.adapter
    ]
    if adapters:
        first = adapters[0]
        return [Subject(first.model, first.model, None, first.prompts), *adapters]
    names = settings.model or [TINY_REASONER]
    return [Subject(name, name, None, Prompts(**given)) for name in names]


def base_of(adapter: str | None, named: list[str]) -> str:
    """The model that was named, or else the one that the adapter was trained on, or else the embedded one."""
    config = Path(adapter or "") / "adapter_config.json"
    recorded = json.loads(config.read_text()).get("base_model_name_or_path") if config.is_file() else None
    return named[0] if named else recorded or TINY_REASONER


def prompts_of(adapter: str | None) -> Prompts:
    """How an adapter was asked in training; in L1's words, without system prompt, where that is not known."""
    run = Path(adapter or "") / "run.json"
    return prompts_of_record(json.loads(run.read_text()) if run.is_file() else {})


def wording_of(adapter: str | None) -> Wording:
    """The wording that an adapter was trained with, or L1's where that is not known."""
    return prompts_of(adapter).wording


def trained_range(adapter: str | None, budgets: list[int]) -> tuple[int, int]:
    """The smallest and the largest budget that an adapter was trained on; of `budgets` where that is not known."""
    run = Path(adapter or "") / "run.json"
    arguments = json.loads(run.read_text())["arguments"] if run.is_file() else {}
    if "budget_low" not in arguments:
        return min(budgets), max(budgets)
    if arguments.get("budget_distribution") == "choices":
        return min(arguments["budget_choices"]), max(arguments["budget_choices"])
    return arguments["budget_low"], arguments["budget_high"]


def claim(settings: Evaluation, output: Path) -> None:
    """Notes in the folder what is measured there. Raises `ValueError` where that is something else already."""
    path, plain = output / "evaluation.json", dataclasses.asdict(settings)
    before = json.loads(path.read_text()) if path.exists() else plain
    changed = [name for name in {**before, **plain} if before.get(name) != plain.get(name)]
    if changed:
        name = changed[0]
        raise ValueError(
            f"{output} holds an unfinished evaluation with --{name} {before.get(name)}, now {plain.get(name)}; "
            "name another folder with --output, or move it away"
        )
    write_json(path, plain)


def evaluate(settings: Evaluation, output: Path) -> dict:
    """Measures every subject, writes adherence.{json,md,png} into `output` and returns the report."""
    subjects = subjects_of(settings)
    questions = _questions(settings, settings.questions)
    families = {source: _questions(settings, source) for source in settings.more_questions}
    claim(settings, output)
    report = {
        "model": subjects[0].model,
        "adapter": settings.adapter[0] if settings.adapter else None,
        "seed": settings.seed,
        "n_questions": len(questions),
        "temperature": settings.temperature,
        "row_cap": settings.row_cap,
        **dict.fromkeys(STAGES),
        "others": {},
    }
    for number, subject in enumerate(subjects):
        engine = _load(subject, settings)
        subject = dataclasses.replace(subject, prompts=subject.prompts.fitted(engine[1]))
        run = functools.partial(_measured, settings, output, subject, *engine)
        if number == 0:
            report["baseline"] = run("baseline", questions)
            report |= _baselines(settings, output, subject, *engine, questions)
        elif number == 1 and subject.adapter:
            report["trained"] = run("trained", questions)
            middle = sorted(set(settings.budgets))[len(set(settings.budgets)) // 2] if settings.budgets else None
            if middle:
                report["control_constant_length"] = run("control_constant_length", questions, constant_budget=middle)
        else:
            report["others"][subject.name] = run(f"model-{number}", questions)
        if number == (1 if settings.adapter else 0):
            report["others"] |= _elsewhere(settings, subject, run, questions, families)
    write_report(report, output)
    return report


def _elsewhere(settings: Evaluation, subject: Subject, run, questions, families) -> dict:
    """The first model (or adapter) outside what it was trained on: other budgets, other words, other questions."""
    found = {}
    if settings.out_of_range:
        low, high = trained_range(subject.adapter, settings.budgets)
        outside = [max(1, low // 2), 2 * high]
        title = f"budgets outside the trained range of {low} to {high}"
        found["out_of_range"] = run("out_of_range", questions, title=title, comparable=False, budgets=outside)
    if settings.paraphrase:
        wording = make_wording(wording_flag(settings.paraphrase, "--paraphrase"))
        title = "the budget asked for in other words"
        found["paraphrase"] = run("paraphrase", questions, title=title, wording=wording)
    for number, (source, rows) in enumerate(families.items()):
        title = f"other questions: {source}"
        found[source] = run(f"questions-{number}", rows, title=title, comparable=False)
    return found


def _questions(settings: Evaluation, source: str) -> list[dict]:
    """The held-out questions of a source; columns and configuration belong to the first one."""
    first = source == settings.questions
    rows = load_questions(
        source,
        split=settings.split,
        config=settings.questions_config if first else None,
        question_column=settings.question_column if first else None,
        solution_column=settings.solution_column if first else None,
        limit=settings.num_questions if source in sums.FAMILIES else None,
    )
    return sample_of(rows, settings.num_questions)


def _load(subject: Subject, settings: Evaluation):
    if not settings.vllm:
        return load_model(subject.model, subject.adapter, Loading.of(settings))
    from rlred.evaluation.vllm import VllmModel

    model = VllmModel(subject.model, subject.adapter, settings.dtype, settings.trust_remote_code)
    return model, model.llm.get_tokenizer()


def _cap(settings: Evaluation, budgets: list[int]) -> int:
    return settings.max_completion_length or 2 * max(budgets)


def _measured(
    settings: Evaluation,
    output: Path,
    subject: Subject,
    model,
    tokenizer,
    stage: str,
    questions: list[dict],
    *,
    title: str | None = None,
    comparable: bool = True,
    budgets: list[int] | None = None,
    wording: Wording | None = None,
    constant_budget: int | None = None,
) -> dict:
    """The measures of one sweep."""
    budgets = sorted(set(budgets or settings.budgets))
    outcomes = sweep(
        model,
        tokenizer,
        questions,
        budgets,
        modes=settings.modes,
        prompts=dataclasses.replace(subject.prompts, wording=wording or subject.prompts.wording),
        max_completion_length=_cap(settings, budgets),
        correctness=Correctness(require_end_of_thinking=settings.require_end_of_thinking),
        temperature=settings.temperature,
        batch_size=settings.batch_size,
        seed=settings.seed,
        num_samples=settings.num_samples,
        constant_budget=constant_budget,
        row_cap=settings.row_cap,
        path=output / "measures" / f"{stage}.completions.jsonl",
        description=f"measuring: {stage}",
    )
    about = {"title": title, "comparable": comparable} if title else {}
    return {**about, **measure(outcomes), "examples": examples(outcomes, questions)}


def _baselines(settings: Evaluation, output: Path, subject: Subject, model, tokenizer, questions) -> dict:
    """The measures of each baseline that was asked for, by name."""
    if not settings.baselines:
        return {}
    numbers = itertools.count()

    def complete_saved(prompts, max_completion_length: int, seed: int) -> list[list[int]]:
        return complete(
            model,
            tokenizer,
            prompts,
            max_completion_length=max_completion_length,
            batch_size=settings.batch_size,
            temperature=settings.temperature,
            seed=seed,
            path=output / "measures" / f"baselines.{next(numbers)}.completions.jsonl",
            description="measuring: baselines",
        )

    baselines = Baselines(
        complete_saved,
        model,
        tokenizer,
        questions,
        settings.budgets,
        prompts=subject.prompts,
        correctness=Correctness(require_end_of_thinking=settings.require_end_of_thinking),
        length=Length(),
        max_completion_length=_cap(settings, settings.budgets),
        mode="exact" if "exact" in settings.modes else "max",
        seed=settings.seed,
    )
    return {name: measure(getattr(baselines, name)()) for name in settings.baselines}
