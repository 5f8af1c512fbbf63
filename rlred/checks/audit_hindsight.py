"""The audit of the hindsight start: rows that ask for nothing, modes that it lacks, batches that do not divide."""

from collections.abc import Iterator, Mapping

from rlred.checks.audit import sampled_modes
from rlred.checks.findings import Finding, error, warning
from rlred.data.budgets import BudgetSampler


def audit_hindsight(settings, modes: Mapping[str, float], processes: int) -> Iterator[Finding]:
    """Findings about a start (rlred/training/hindsight_settings.py) before a run of these modes, over all processes."""
    own = modes if settings.modes is None else settings.modes
    asked, taught = (sampled_modes(BudgetSampler(modes=one)) - {"free"} for one in (modes, own))
    if not taught:
        # Relabelling writes a trace's length into its request: rows of mode free have none to write it into.
        name = "modes" if settings.modes is None else "hindsight_settings.modes"
        advice = f"no row of the start asks for a length ({name} are {dict(own)}); set hindsight to false"
        yield error("hindsight", True, advice + (", or leave out hindsight_settings.modes" if asked - taught else ""))
    elif missing := sorted(asked - taught):
        # GRPO sharpens a control that is faintly there; of these requests the start has shown none.
        advice = (
            f"the run asks for {', '.join(missing)} as well, which the start does not teach; give it a weight there"
        )
        yield warning("hindsight_settings.modes", dict(own), advice)
    if settings.batch_size % processes:
        # An update's rows are shared out evenly (rlred/training/sft.py), and that is asked after the sampling.
        advice = f"the {processes} processes do not divide it; set it to a multiple of {processes}"
        yield error("hindsight_settings.batch_size", settings.batch_size, advice)
