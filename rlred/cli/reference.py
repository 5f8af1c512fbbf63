from dataclasses import dataclass
from pathlib import Path

from rlred.claims import claimed
from rlred.data.models import Loading
from rlred.data.sources import ManyQuestions, PromptSettings
from rlred.flags import option, required


@dataclass(frozen=True, kw_only=True)
class Reference(Loading, PromptSettings, ManyQuestions):
    """The base's length and accuracy on each question, as a dataset.

    rlred reference --max_completion_length 90 --output outputs/reference.jsonl
    rlred reference --model MODEL --questions my.jsonl --max_completion_length 2048 --output outputs/reference.jsonl
    """

    output: Path = required("JSONL file to make; must not exist.", metavar="FILE")
    model: str = option("tiny_reasoner", "A folder, a Hub id, or an embedded model.")
    num_questions: int | None = option(None, "Number of questions (default: all; 4,096 embedded ones).", metavar="N")
    num_samples: int = option(8, "Completions of each question.", metavar="N")
    max_completion_length: int = required("Where a completion is cut.", metavar="TOKENS")
    wording: str = option("l1", "Preset, or templates as JSON.")
    temperature: float = option(1.0, "0 is greedy.", metavar="T")
    batch_size: int = option(128, "Completions generated at once.", metavar="N")
    seed: int = option(0, "Seed of questions and sampling.", metavar="N")

    def __post_init__(self):
        super().__post_init__()
        if self.output.exists():
            raise ValueError(f"--output {self.output} exists and is not written over; name another file")
        for name in ("num_samples", "max_completion_length", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be 1 or more, got {getattr(self, name)}")

    def run(self) -> None:
        """Writes question rows with `reference_length` and `reference_accuracy`; goes on after an interruption."""
        from rlred.evaluation.sampling import Share

        share = self.share and Share(self.share)
        with claimed(self.output.parent, self.output.name, self.share):
            print(self.write(share))

    def write(self, share) -> str:
        """Samples what is not there yet, writes the rows of all questions, and says what they are."""
        from rlred.data.budgets import make_wording, wording_flag
        from rlred.data.models import load_model
        from rlred.data.prompts import Prompts
        from rlred.evaluation.references import sample_references, write_references
        from rlred.evaluation.sampling import Sampling

        prompts = Prompts(make_wording(wording_flag(self.wording)), **self.given())
        questions = self.load(self.num_questions, self.seed)
        model, tokenizer = load_model(self.model, None, Loading.of(self))
        rows = sample_references(
            model,
            tokenizer,
            questions,
            prompts=prompts.fitted(tokenizer),
            sampling=Sampling.of(self),
            path=self.output.with_suffix(".completions.jsonl"),
            share=share,
        )
        if share:
            return f"share {share.text}: {len(rows)} of {len(questions)} questions; without --share, all are read"
        write_references(rows, self.output)
        lengths, accuracies = rows["reference_length"], rows["reference_accuracy"]
        return (
            f"{self.output}: {len(rows)} of {len(questions)} questions, {sum(lengths) / len(rows):.1f} tokens and "
            f"{100 * sum(accuracies) / len(rows):.1f} % correct on average"
        )
