from dataclasses import dataclass

from rlred.flags import option


@dataclass(frozen=True)
class Doctor:
    """Versions, devices, missing packages of each extra, and known problems of this machine.

    The exit status is 1 where something would stop a run, else 0.

    rlred doctor
    rlred doctor --traps_only
    """

    traps_only: bool = option(False, "Check the known problems alone, without importing torch.")

    def run(self) -> int:
        """Prints what is here and what is the matter with it."""
        from rlred.checks.doctor import devices, traps, versions

        found = traps()
        if not self.traps_only:
            listed, wrong = versions()
            print("\n".join([*listed, "", *devices(), ""]))
            found += wrong
        for problem in found:
            print(f"problem: {problem}")
        print(f"{len(found)} problems" if found else "no problem found")
        return int(bool(found))
