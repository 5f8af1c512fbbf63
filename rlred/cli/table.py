from dataclasses import dataclass
from pathlib import Path

from rlred.flags import required


@dataclass(frozen=True)
class Table:
    """Several runs in one table, from their adherence.json.

    rlred table outputs/l1_exact outputs/l1_exact-cold-0
    rlred table data/l1_exact data/l1_maxlen
    """

    runs: list[Path] = required("Output folders.", positional=True, metavar="RUN")

    def run(self) -> None:
        """Prints one table of the runs' stages."""
        from rlred.evaluation.results import read_result
        from rlred.evaluation.side_by_side import compare

        print(compare([(str(run), read_result(run)) for run in self.runs]))
