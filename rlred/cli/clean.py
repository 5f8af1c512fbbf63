from dataclasses import dataclass
from pathlib import Path

from rlred.flags import option, required


@dataclass(frozen=True)
class Clean:
    """List what a run's folder no longer needs; remove it with --yes.

    The adapter, run.json, results, their completions, best/ and the checkpoint to go on from always stay.

    rlred clean outputs/l1_exact
    rlred clean outputs/l1_exact --yes
    """

    run_folder: Path = required("Output folder.", positional=True, metavar="RUN")
    yes: bool = option(False, "Remove what is listed.")

    def run(self) -> None:
        """Lists what can go, and removes it where that is asked for."""
        from rlred.heartbeat import alive, read
        from rlred.housekeeping import in_words, removable
        from rlred.status import run_of

        folder = run_of(self.run_folder)
        record = read(folder)
        if record and record.get("state") == "running" and (there := alive(record)) is not False:
            where = "is at work" if there else f"may be at work on {record.get('host')}, which this machine cannot ask"
            raise ValueError(
                f"{folder}: the run {where} (process {record['pid']}); clean the folder after the run has ended"
            )
        found = removable(folder)
        left = []
        for one in found:
            print(f"{in_words(one.size):>10}  {one.path.relative_to(folder)}  ({one.why})")
            if self.yes and not one.remove():
                left.append(one.path)
        if left:
            raise ValueError(
                f"{left[0]}: cannot be removed, and {len(left) - 1} more; check that this user may write there"
            )
        total = in_words(sum(one.size for one in found))
        done = "removed" if self.yes else "--yes removes them" if found else "nothing to remove"
        print(f"{folder}: {len(found)} files and folders, {total}: {done}" if found else f"{folder}: {done}")
