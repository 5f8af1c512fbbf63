"""`--audit_only`: the whole audit of a run's settings, questions, rewards and prompts, and nothing else.

No weights are read, nothing is sampled, trained or written, and no GPU is needed: of the model its tokenizer and its
shape are enough. Where a run ends at the first error, here a check that fails leaves the others their turn.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from rlred.runs.arguments import AUDITED, parse_elsewhere


class Audit(logging.Handler):
    """What the checks of a run say, in their order, and which of them had no turn.

    A check is called by `step`, with what earlier checks have returned. Where one of those failed, it has no turn.
    What a check logs as a warning is a finding, and so is each line of a `ValueError`.

    >>> audit = Audit()
    >>> audit.step("budgets", lambda low: low, 16)
    16
    >>> audit.step("questions", int, "many") is audit.step("rows", len, Audit.FAILED)
    True
    >>> print(audit.report())
    error: invalid literal for int() with base 10: 'many'
    1 error, no warning: this run would be refused
    checked: budgets, questions; not reached for the errors above: rows
    """

    FAILED = object()
    """What a check returns that failed or had no turn."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.errors: list[str] = []
        self.found: list[str] = []
        self.checked: list[str] = []
        self.missed: list[str] = []
        self.elsewhere: list[str] = []
        """What only the machine of the run can show."""

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a warning of a check for a finding."""
        self.found.append(f"warning: {record.getMessage().removeprefix('audit: ')}")

    def step(self, name: str, check: Callable, *args, **kwargs) -> Any:
        """What a check returns, or FAILED."""
        if any(value is self.FAILED for value in (*args, *kwargs.values())):
            self.missed.append(name)
            return self.FAILED
        self.checked.append(name)
        try:
            return check(*args, **kwargs)
        except ValueError as error:
            self.errors += str(error).splitlines()
            self.found += [f"error: {line}" for line in str(error).splitlines()]
            return self.FAILED

    def report(self) -> str:
        """Every finding, a line each, and what was checked."""
        warnings = len(self.found) - len(self.errors)
        counted = f"{_count(len(self.errors), 'error')}, {_count(warnings, 'warning')}"
        would = "be refused" if self.errors else "start"
        lines = [*dict.fromkeys(self.found), f"{counted}: this run would {would}" if self.found else "nothing found"]
        lines.append(f"checked: {', '.join(dict.fromkeys(self.checked))}")
        if self.missed:
            lines[-1] += f"; not reached for the errors above: {', '.join(dict.fromkeys(self.missed))}"
        if self.elsewhere:
            lines.append(f"not checked on this machine: {', '.join(self.elsewhere)}")
        return "\n".join(lines)


def _count(number: int, name: str) -> str:
    return f"{number or 'no'} {name}{'s' * (number > 1)}"


@contextlib.contextmanager
def as_processes(count: int) -> Iterator[None]:
    """Settings that are counted over all processes are counted as in a run of so many; none of them is started."""
    before = AUDITED.set(count)
    try:
        yield
    finally:
        AUDITED.reset(before)


def audited(recipe: Path, kinds: tuple[type, ...], check: Callable[..., None], argv: list[str], count: int) -> Audit:
    """The audit of a recipe for so many processes.

    `check` takes an Audit, the settings, and the default output folder, and calls the steps of its kind of run.
    """
    audit, logger = Audit(), logging.getLogger("rlred")
    propagated, logger.propagate = logger.propagate, False  # what the audit lists is not said twice
    logger.addHandler(audit)
    try:
        with as_processes(count):
            told = audit.step("settings", parse_elsewhere, recipe.with_suffix(".yaml"), argv, kinds)
            if told is not Audit.FAILED:
                training = next((part for part in told if isinstance(part, TrainingArguments)), None)
                audit.elsewhere += [name for name in ("bf16", "fp16") if getattr(training, name, False)]
                audit.elsewhere += ["vLLM"] if getattr(training, "use_vllm", False) else []
                check(audit, *told, Path("outputs") / recipe.stem)
    finally:
        logger.removeHandler(audit)
        logger.propagate = propagated
    return audit
