from dataclasses import dataclass
from pathlib import Path

from rlred.flags import option, required


@dataclass(frozen=True)
class Report:
    """One self-contained HTML page of one run or many.

    rlred report outputs/l1_maxlen
    rlred report outputs/l1_exact outputs/l1_maxlen --output outputs/page
    """

    runs: list[Path] = required("Output folders.", positional=True, metavar="RUN")
    output: Path | None = option(None, "Folder of the page (default: the first run's, made anew).")

    def run(self) -> None:
        """Writes one HTML page of the runs, and its pictures."""
        from rlred.evaluation.page import write_page

        output = self.output or self.runs[0]
        if self.output and (output / "report.html").exists():
            raise ValueError(f"{output}/report.html exists and is not written over; name another folder with --output")
        print(write_page(self.runs, output))
