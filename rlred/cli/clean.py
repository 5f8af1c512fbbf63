from dataclasses import dataclass
from pathlib import Path

from rlred.flags import option, required


@dataclass(frozen=True)
class Clean:
    """What a run's folder holds that is not needed any more, and with --yes its removal.

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
            where = (
                "is at work" if there else f"may be at work on {record.get('host')}, which cannot be asked from here"
            )
            raise ValueError(
                f"{folder}: the run {where} (process {record['pid']}); clean it when it has ended, and there"
            )
        found = removable(folder)
        left = []
        for one in found:
            print(f"{in_words(one.size):>10}  {one.path.relative_to(folder)}  ({one.why})")
            if self.yes and not one.remove():
                left.append(one.path)
        if left:
            raise ValueError(f"{left[0]}: cannot be removed, and {len(left) - 1} more; may this user write there?")
        total = in_words(sum(one.size for one in found))
        done = "removed" if self.yes else "can go; --yes removes them" if found else "nothing can go"
        print(f"{folder}: {len(found)} of them, {total}: {done}" if found else f"{folder}: {done}")
