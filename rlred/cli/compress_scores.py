from dataclasses import dataclass
from pathlib import Path

from rlred.claims import claimed
from rlred.cli.compress_shared import read_traces
from rlred.flags import option, required


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How much each part of a trace matters; each text is scored once.

    rlred compress scores --traces work/traces.jsonl --scorer llmlingua2 --output work/scores.jsonl
    rlred compress scores --traces work/traces.jsonl --scorer random --seed 1 --output work/random.jsonl
    """

    traces: Path = required("File of `rlred compress traces`.", metavar="FILE")
    output: Path = required("JSONL file to make, or to go on with.", metavar="FILE")
    scorer: str = required("Such as llmlingua2, self_information, conditional, question, random.")
    scorer_model: str | None = option(None, "Folder or Hub id (default for llmlingua2: its published model).")
    dtype: str = option("float32", "Precision of the scorer's weights.")
    seed: int = option(0, "Seed of the scorer `random`.", metavar="N")
    share: str | None = option(
        None, "Score the K-th of N shares of the traces; a last run without --share joins them.", metavar="K/N"
    )

    def run(self) -> None:
        """Scores traces; a file that is there is gone on with."""
        from rlred.compression.scores import make_scorer
        from rlred.compression.stages import scores_stage
        from rlred.evaluation.sampling import Share

        share = self.share and Share(self.share)
        traces = read_traces(self.traces, ("question", "thinking"))
        name = "/".join(str(part) for part in (self.scorer, self.scorer_model or "", self.seed))
        with claimed(self.output.parent, self.output.name, self.share):
            scorer = make_scorer(self.scorer, self.scorer_model, seed=self.seed, dtype=self.dtype)
            scores_stage(self.output, traces, scorer, name, share)
        if share:
            print(f"share {share.text}: scored; a run without --share joins all shares in {self.output}")
        else:
            print(f"{self.output}: scores of {len(traces)} texts")
