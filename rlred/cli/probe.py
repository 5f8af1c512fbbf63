import dataclasses
from dataclasses import dataclass
from pathlib import Path

from rlred.claims import claimed
from rlred.data.models import Loading
from rlred.data.sources import PromptSettings, QuestionSource
from rlred.flags import option, required

# The same stands in rlred/checks/word_counts.py, which needs torch: `--help` does not wait for it.
REQUEST = 'Repeat the word "{word}" exactly {count} times, separated by spaces. Write nothing else.'

# Flags that no completion depends on, and those of completions whose file says by itself what they are of.
NOT_SAMPLED = ("output", "config", "min_correct", "num_bins", "counts", "count_word", "count_request")


@dataclass(frozen=True, kw_only=True)
class ProbeModel(Loading, PromptSettings, QuestionSource):
    """What a model does by itself, and which token budgets it could learn.

    rlred probe --max_completion_length 110 --output outputs/probe
    rlred probe --model Qwen/Qwen2.5-0.5B-Instruct --questions openai/gsm8k --questions_config main \\
        --max_completion_length 512 --config recipes/l1_exact_qwen2.5_0.5b.yaml --output outputs/probe
    """

    output: Path = required("Folder to make; an interrupted probe goes on in its folder.", metavar="FOLDER")
    model: str = option("tiny_reasoner", "A folder, a Hub id, or an embedded model.")
    num_questions: int = option(32, "Number of questions.", metavar="N")
    num_samples: int = option(4, "Completions of each question without a budget.", metavar="N")
    num_traces: int | None = option(
        None, "Brief, stopped and continued completions, of each kind (default: as many).", metavar="N"
    )
    max_completion_length: int = required("Where a completion is cut.", metavar="TOKENS")
    shortest: int = option(16, "Smallest budget of interest.", metavar="TOKENS")
    num_bins: int = option(8, "Bins of lengths from --shortest to the cut, equally wide in the logarithm.", metavar="N")
    min_correct: int = option(4, "A bin with this many correct completions can be learned.", metavar="N")
    counts: list[int] = option(
        [4, 8, 16, 32], "Also ask for a word these numbers of times: can the model count?", metavar="N"
    )
    count_word: str = option("check", "The word of --counts.", metavar="WORD")
    count_request: str = option(REQUEST, "The request of --counts.", metavar="TEXT")
    wording: str = option("l1", "Preset, or templates as JSON.")
    temperature: float = option(0.7, "0 is greedy.", metavar="T")
    batch_size: int = option(64, "Completions generated at once.", metavar="N")
    seed: int = option(0, "Seed of questions and sampling.", metavar="N")
    config: Path | None = option(
        None, "A length-control recipe: print the memory and time that it would take.", metavar="FILE"
    )

    def __post_init__(self):
        super().__post_init__()
        counts = ("num_questions", "num_samples", "num_traces", "shortest", "num_bins", "min_correct", "batch_size")
        for name in counts:
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"--{name} must be 1 or more, got {getattr(self, name)}")
        if self.temperature < 0:
            raise ValueError(f"--temperature must be 0 or more, got {self.temperature}")
        if self.max_completion_length <= self.shortest:
            raise ValueError(
                f"--max_completion_length must be above --shortest ({self.shortest}), got {self.max_completion_length}"
            )
        if (self.output / "probe.json").exists():
            raise ValueError(f"--output {self.output} holds a probe and is not written over; name another folder")

    def run(self) -> None:
        """Writes probe.{json,md,png,yaml} and prints the page."""
        with claimed(self.output):
            self.write()
        print((self.output / "probe.md").read_text(encoding="utf-8"))

    def write(self) -> None:
        """Samples what is not there yet, and writes probe.{json,md,png,yaml}."""
        from rlred.checks.probe import Probing, check_asked, collect, report_of
        from rlred.checks.probe_report import write_probe
        from rlred.checks.word_counts import WordCounts, ask_counts
        from rlred.data.budgets import make_wording, wording_flag
        from rlred.data.models import load_model
        from rlred.data.prompts import Prompts
        from rlred.evaluation.sampling import Sampling
        from rlred.evaluation.sweep import sample_of

        recipe, to_count = self.recipe(), WordCounts(tuple(self.counts), self.count_word, self.count_request)
        prompts = Prompts(make_wording(wording_flag(self.wording)), **self.given())
        questions = sample_of(self.load(), self.num_questions, self.seed)
        folder = self.output / "completions"
        told = {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if "help" in item.metadata}
        check_asked(folder, {name: value for name, value in told.items() if name not in NOT_SAMPLED})
        model, tokenizer = load_model(self.model, None, Loading.of(self), field="--model")
        prompts, sampling = prompts.fitted(tokenizer), Sampling.of(self)
        free = len(questions) * self.num_samples
        probing = Probing(self.num_traces or free, self.shortest, self.num_bins, self.min_correct)
        outcomes, speed = collect(model, tokenizer, questions, prompts, sampling, probing, folder)
        report = {"model": self.model, "questions": self.questions, "n_questions": len(questions)}
        report |= {"tokens_per_second": speed, **report_of(outcomes, sampling, probing)}
        report["counting"] = ask_counts(model, tokenizer, prompts, to_count, sampling, folder / "counting.jsonl")
        if recipe is not None:
            asked = [prompts.ids(tokenizer, row, sampling.max_completion_length, "exact") for row in questions]
            report["plan"] = self.plan(recipe, report, max(map(len, asked)))
        write_probe(report, self.output)

    def recipe(self):
        """The recipe's settings, training and model; None without `--config`."""
        if self.config is None:
            return None
        if not self.config.is_file():
            raise ValueError(f"--config: no such file: {self.config}")
        from rlred.runs.recipe_files import read_recipe

        found = read_recipe(self.config)
        if not hasattr(found[0], "hindsight_settings"):
            raise ValueError(
                f"--config {self.config}: is no recipe that asks for budgets; name one that does, or leave --config out"
            )
        from rlred.checks.plan import shape_of

        shape_of(self.model)  # what cannot be planned is an error before anything is sampled
        return found

    def plan(self, recipe, report: dict, prompt_length: int) -> dict[str, str]:
        """What the recipe would take with this probe's settings and model."""
        from rlred.checks.plan import Plan, shape_of
        from rlred.checks.probe_report import planned

        arguments, training, model_config = recipe
        for name, value in report["settings"].items():
            setattr(training if name == "max_completion_length" else arguments, name, value)
        plan = Plan(shape_of(self.model), arguments, training, model_config, prompt_length=prompt_length)
        return planned(plan, report["tokens_per_second"], self.config)
