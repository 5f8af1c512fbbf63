import dataclasses
from dataclasses import dataclass
from pathlib import Path

from rlred.claims import claimed
from rlred.data.models import Loading
from rlred.data.sources import PromptSettings
from rlred.evaluation.settings import Evaluation
from rlred.flags import option


@dataclass(frozen=True, kw_only=True)
class SavedPredictions:
    """Files of completions, in place of a model."""

    predictions: list[Path] = option(
        [], "Saved completions: JSON Lines, JSON, CSV or Parquet, also .gz.", metavar="FILE"
    )
    columns: list[str] = option(
        [], "Columns with other names: length=cot_length solution=doc.target.", metavar="NAME=COLUMN"
    )
    ratios: list[float] = option([], "Shares of the length at ratio 1: those to ask for, or one per file.")
    prediction_budgets: list[int] = option([], "Tokens that were asked for, one per file.", metavar="N")
    tokenizer: str | None = option(None, "Counts tokens where a file does not.")


# What says how a model is asked for budgets, and nothing of saved predictions or of ratios.
OF_BUDGETS = ("interruptions", "efforts", "more_questions", "num_samples", "paraphrase", "out_of_range", "baselines")
OF_BUDGETS += ("per_prompt_cap", "vllm", "wording")
# All that is read where files of predictions are measured, of the flags of `Evaluation`.
OF_FILES = ("modes", "require_end_of_thinking", "end_of_thinking", "trust_remote_code")


@dataclass(frozen=True, kw_only=True)
class Evaluate(Evaluation, SavedPredictions):
    """Measure length control: of a model and its adapters, or of saved completions with --predictions.

    rlred evaluate --adapter outputs/l1_exact --budgets 16 32 64 --output outputs/again
    rlred evaluate --predictions a.jsonl b.jsonl --ratios 0.5 1.0 --output outputs/theirs
    """

    output: Path | None = option(None, "Folder for the report (default: the adapter's, if it has none).")
    as_task: str | None = option(
        None, "Measure nothing: write a task for another harness", choices=("lm_eval", "lighteval"), metavar="HARNESS"
    )

    def __post_init__(self):
        if not (self.predictions or self.ratios):
            super().__post_init__()
            return
        Loading.__post_init__(self)
        said, plain = "--predictions" if self.predictions else "--ratios", Evaluation(budgets=[1])
        if self.as_task:
            return  # refused by name where the task is written
        flags = [item.name for item in dataclasses.fields(Evaluation) if "help" in item.metadata]
        unread = [name for name in flags if name not in OF_FILES] if self.predictions else OF_BUDGETS
        given = [
            name for name in unread if name != "budgets" and getattr(self, name) not in (None, getattr(plain, name))
        ]
        given += ["budgets"] if self.budgets else []
        given += ["require_end_of_thinking"] if self.require_end_of_thinking and not self.predictions else []
        if given:
            raise ValueError(f"--{given[0]}: changes nothing with {said}; leave it out")
        if self.predictions:
            self.check_files()
        self.find_questions()
        for name in ("num_questions", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be 1 or more, got {getattr(self, name)}")

    def check_files(self) -> None:
        """Raises `ValueError` for what cannot be said of files of predictions, before one is read."""
        if "effort" in self.modes:
            raise ValueError(
                "--modes effort: saved predictions have budgets or ratios, and no efforts; leave --modes out"
            )
        if len(self.modes) > 1:
            raise ValueError(f"--modes {' '.join(self.modes)}: files were asked in one mode; name only that mode")
        for budget in self.prediction_budgets:
            if budget < 1:
                raise ValueError(f"--prediction_budgets must be 1 or more, got {budget}")
        for ratio in self.ratios:
            if not 0 < ratio < float("inf"):
                raise ValueError(f"--ratios must be above 0, shares of the length at ratio 1, got {ratio:g}")

    def run(self) -> None:
        """Writes adherence.{json,md,png}; ratios or interruptions.{json,md,png} where they are asked for; or a task."""
        if self.as_task:
            self.write_task()
            return
        output = self.output or (Path(self.adapter[0]) if self.adapter else Path("outputs") / "evaluation")
        others = {"ratios.json": self.ratios, "interruptions.json": self.interruptions}
        for name in ("adherence.json", *(name for name, asked in others.items() if asked)):
            if (output / name).exists():
                raise ValueError(f"{output}/{name} exists and is not written over; name another folder with --output")
        with claimed(output):
            self.measure(output)
        for name in ("ratios.md", "adherence.md", *(["interruptions.md"] if self.interruptions else [])):
            if (output / name).exists():
                print((output / name).read_text())

    def measure(self, output: Path) -> None:
        """Measures files, ratios or budgets, whichever was asked for."""
        if self.predictions:
            self.measure_predictions(output)
        elif self.ratios:
            self.measure_ratios(output)
        else:
            from rlred.evaluation.evaluate import evaluate

            evaluate(self.evaluation(), output)

    def evaluation(self) -> Evaluation:
        """The flags that say what a model is asked."""
        return Evaluation(**{item.name: getattr(self, item.name) for item in dataclasses.fields(Evaluation)})

    def write_task(self) -> None:
        """Writes a harness's task and prints the command that runs it."""
        for name in ("predictions", "ratios"):
            if getattr(self, name):
                raise ValueError(f"--{name}: a task asks a model for budgets; leave this flag out with --as_task")
        if self.output is None:
            raise ValueError("--output: name the folder that the task is written into")
        from rlred.evaluation.harness import write_task

        command = write_task(self.evaluation(), self.as_task, self.output)
        print(f"{self.output}: written. Where {self.as_task} and rlred are installed:\n{command}")

    def measure_ratios(self, output: Path) -> None:
        """Measures an adapter of recipes/tokenskip.py at every ratio."""
        if not self.adapter:
            raise ValueError(
                "--ratios: name an adapter of recipes/tokenskip.py with --adapter, or files with --predictions"
            )
        for item in dataclasses.fields(PromptSettings):
            if getattr(self, item.name) is not None:
                raise ValueError(
                    f"--{item.name}: with --ratios the prompts follow the adapter's run.json; leave this flag out"
                )
        if len(self.adapter) > 1 or len(self.model) > 1:
            raise ValueError("--adapter: --ratios measures one adapter and its base; name one adapter and one model")
        from rlred.compression.evaluate import RatioEvaluation, evaluate_ratios
        from rlred.evaluation.sweep import sample_of

        names = ("ratios", "max_completion_length", "temperature", "batch_size", "seed")
        told = {name: getattr(self, name) for name in names}
        model = next(iter(self.model), None)
        evaluation = RatioEvaluation(self.adapter[0], model=model, loading=Loading.of(self), **told)
        evaluate_ratios(evaluation, sample_of(self.load(), self.num_questions), output)

    def measure_predictions(self, output: Path) -> None:
        """Measures files that another program has written."""
        from rlred.data.prompts import tell_end
        from rlred.evaluation.predictions import measure_predictions
        from rlred.evaluation.results import write_result
        from rlred.rewards import Correctness

        pairs = [column.partition("=") for column in self.columns]
        for name, equals, column in pairs:
            if not (name and equals and column):
                raise ValueError(f"--columns: {name + equals + column!r} is not of the form NAME=COLUMN")
        correctness = Correctness(require_end_of_thinking=self.require_end_of_thinking)
        result, outcomes = measure_predictions(
            self.predictions,
            ratios=self.ratios or None,
            budgets=self.prediction_budgets or None,
            columns={name: column for name, _, column in pairs},
            mode=self.modes[0],
            count=counter(self.tokenizer, self.trust_remote_code),
            correctness=tell_end(correctness, self.end_of_thinking, tokenizer=None),
        )
        if self.modes == ["max"] and all(outcome["budget"] is None for outcome in outcomes):
            raise ValueError(
                "--modes max: no file has a budget; give budgets with --prediction_budgets, or leave --modes out"
            )
        if any(outcome["ratio"] is not None for outcome in outcomes):
            from rlred.compression.evaluate import report_predictions

            report_predictions(result, outcomes, output)
        write_result(result, output)


def counter(name: str | None, trust_remote_code: bool):
    """A function that counts the tokens of a text; None without a tokenizer."""
    if name is None:
        return None
    from rlred.data.models import load_tokenizer

    tokenizer = load_tokenizer(name, trust_remote_code, field="--tokenizer")
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
