"""What a check says of a run: a trap, with the field that opens it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One trap, with the field that opens it."""

    level: str  # "error" or "warning"
    field: str
    value: object
    advice: str

    def __str__(self) -> str:
        return f"{self.field}={self.value!r}: {self.advice}"


def error(field: str, value: object, advice: str) -> Finding:
    """A finding that stops the run."""
    return Finding("error", field, value, advice)


def warning(field: str, value: object, advice: str) -> Finding:
    """A finding that is logged."""
    return Finding("warning", field, value, advice)
