from dataclasses import dataclass
from pathlib import Path

from rlred.claims import claimed
from rlred.cli.compress_shared import AskedByRatio, check_output
from rlred.data.models import Loading
from rlred.data.sources import ManyQuestions
from rlred.flags import option, required
from rlred.tiny import TINY_VERBOSE


@dataclass(frozen=True, kw_only=True)
class Traces(Loading, AskedByRatio, ManyQuestions):
    """The model's own correct chains of thought, thinking and answer apart.

    rlred compress traces --output work/traces.jsonl
    rlred compress traces --questions gsm8k.jsonl --model Qwen/Qwen2.5-7B-Instruct \\
        --ratio_format tokenskip_qwen --output work/traces.jsonl
    """

    output: Path = required("JSONL file to make; must not exist.", metavar="FILE")
    from_file: Path | None = option(None, "Read completions from this file instead of sampling them.", metavar="FILE")
    columns: list[str] = option(
        [], "Columns of --from_file under other names, as answer=solution.", metavar="NAME=COLUMN"
    )
    model: str = option(TINY_VERBOSE, "A folder, a Hub id, or an embedded model.")
    questions: str = option("short_sums", "Embedded, a JSON/JSONL/Parquet/CSV file, or a Hub id.")
    num_questions: int | None = option(None, "Number of questions (default: all; 4,096 embedded ones).", metavar="N")
    num_samples: int = option(1, "Completions of each question.", metavar="N")
    max_completion_length: int = option(512, "Where a completion is cut.", metavar="TOKENS")
    temperature: float = option(0.0, "0 is greedy.", metavar="T")
    batch_size: int = option(128, "Completions generated at once.", metavar="N")
    seed: int = option(0, "Seed of questions and sampling.", metavar="N")

    def __post_init__(self):
        super().__post_init__()
        check_output(self.output)
        if self.share and self.from_file:
            raise ValueError("--share: with --from_file nothing is sampled; leave out --share or --from_file")
        for pair in self.columns:
            if "=" not in pair.strip("="):
                raise ValueError(f"--columns must be NAME=COLUMN, such as answer=solution, got {pair!r}")

    def run(self) -> None:
        """Samples traces, or reads them from a file."""
        from rlred.evaluation.sampling import Share

        share = self.share and Share(self.share)
        with claimed(self.output.parent, self.output.name, self.share):
            print(self.write(share))

    def write(self, share) -> str:
        """Samples what is not there yet, or reads it, writes all traces, and says what they are."""
        from rlred.compression.stages import traces_stage
        from rlred.compression.traces import load_traces

        columns = {name: column for name, _, column in (pair.partition("=") for pair in self.columns)}
        ratio_format = self.make_ratio_format()
        read = lambda: load_traces(self.from_file, columns, ratio_format.prompts.end)  # noqa: E731
        if share:
            _, report = self.sample(ratio_format, share)
            return f"share {share.text}: {report}; without --share, all are read"
        traces_stage(self.output, read if self.from_file else lambda: self.sample(ratio_format))
        return f"{self.output}: {self.output.with_suffix('.json').read_text().strip()}"

    def sample(self, ratio_format, share=None):
        """The model's traces; those that are on disk are not sampled again."""
        from rlred.compression.traces import sample_traces
        from rlred.data.models import load_model
        from rlred.data.question_table import Rows
        from rlred.evaluation.sampling import Sampling

        questions = self.load(self.num_questions, self.seed)
        model, tokenizer = load_model(self.model, None, Loading.of(self))
        return sample_traces(
            model,
            tokenizer,
            Rows(questions),
            ratio_format.fitted(tokenizer),
            sampling=Sampling.of(self),
            path=self.output.with_suffix(".completions.jsonl"),
            share=share,
        )
