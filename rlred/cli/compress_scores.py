from dataclasses import dataclass
from pathlib import Path

from rlred.flags import option, required


@dataclass(frozen=True, kw_only=True)
class Scores:
    """How much each part of a trace matters; each text is scored once.

    rlred compress scores --traces work/traces.jsonl --scorer llmlingua2 --output work/scores.jsonl
    rlred compress scores --traces work/traces.jsonl --scorer random --seed 1 --output work/random.jsonl
    """

    traces: Path = required("Of `rlred compress traces`.", metavar="FILE")
    output: Path = required("JSONL file to make, or to go on with.", metavar="FILE")
    scorer: str = required("Such as llmlingua2, self_information, conditional, question, random.")
    scorer_model: str | None = option(None, "Folder or Hub id (default for llmlingua2: its published model).")
    dtype: str = option("float32", "Precision of its weights.")
    seed: int = option(0, "Of the scorer `random`.", metavar="N")

    def run(self) -> None:
        """Scores traces; a file that is there is gone on with."""
        from rlred.compression.scores import make_scorer
        from rlred.compression.stages import read_lines, scores_stage

        traces = read_lines(self.traces, ("question", "thinking"))
        scorer = make_scorer(self.scorer, self.scorer_model, seed=self.seed, dtype=self.dtype)
        name = "/".join(str(part) for part in (self.scorer, self.scorer_model or "", self.seed))
        scores_stage(self.output, traces, scorer, name)
        print(f"{self.output}: scores of {len(traces)} texts")
