from dataclasses import dataclass
from pathlib import Path

from rlred.flags import required


@dataclass(frozen=True)
class Status:
    """Step, rate, time left, adherence so far and last warnings of runs, running or dead.

    The exit status is 1 where one of them has failed or is dead, else 0.

    rlred status outputs/l1_exact
    rlred status outputs/l1_exact outputs/l1_maxlen
    """

    runs: list[Path] = required("Output folders.", positional=True, metavar="RUN")

    def run(self) -> int:
        """Prints what each run last said, and whether it is still there."""
        from rlred.status import described, run_of, status_of

        found = [status_of(run_of(folder)) for folder in self.runs]
        for one in found:
            print(described(one))
        return int(any(one.state in ("dead", "failed") for one in found))
