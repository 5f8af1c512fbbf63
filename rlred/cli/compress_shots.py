import json
from dataclasses import dataclass
from pathlib import Path

from rlred.cli.compress_shared import must_not_exist, read_traces
from rlred.flags import option, required
from rlred.tiny import TINY_VERBOSE


@dataclass(frozen=True, kw_only=True)
class Shots:
    """A few-shot prompt of pruned examples, within a budget of tokens.

    rlred compress shots --traces work/traces.jsonl --scores work/scores.jsonl --budget 1024 --output work/shots.json
    rlred compress shots --traces work/traces.jsonl --scores work/scores.jsonl --budget 512 --output short.json
    """

    traces: Path = required("File of `rlred compress traces`.", metavar="FILE")
    scores: Path = required("File of `rlred compress scores`.", metavar="FILE")
    output: Path = required("Wording for `rlred evaluate`; must not exist.", metavar="FILE")
    tokenizer: str = option(TINY_VERBOSE, "Tokenizer of the target model; the budget is in its tokens.")
    budget: int = required("Tokens of all examples together.", metavar="TOKENS")
    keep: float = option(0.5, "Examples are chosen as if each were cut to this ratio.", metavar="RATIO")
    num_shots: int | None = option(None, "Largest number of examples.", metavar="N")

    def __post_init__(self):
        for path in (self.output, self.output.with_suffix(".report.json")):
            must_not_exist("output", path)

    def run(self) -> None:
        """Chooses and prunes few-shot examples, and writes them as a wording."""
        from rlred.compression.rows import counter_of
        from rlred.compression.shots import prune_shots
        from rlred.compression.stages import read_scores
        from rlred.data.budgets import Wording
        from rlred.data.models import load_tokenizer
        from rlred.files import write_json

        traces = read_traces(self.traces)
        scores, count = read_scores(self.scores, traces), counter_of(load_tokenizer(self.tokenizer))
        text, report = prune_shots(traces, scores, self.budget, count, keep=self.keep, num_shots=self.num_shots)
        write_json(self.output, {"free": text + Wording().free})
        write_json(self.output.with_suffix(".report.json"), report)
        print(f"{self.output}: {json.dumps(report)}")
