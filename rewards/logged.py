"""What a controller remembers: its figures in the trainer's own log, which every checkpoint keeps.

A reward is a frozen value and keeps nothing between two calls. One that adapts to what it has seen hands its figures to
TRL's `log_metric`, which averages them over processes and logs them, and reads them back from the log at the next call.
A resumed run therefore goes on where it was. With `logging_steps=1` there is one update a step.
"""


def last_logged(trainer_state, name: str) -> tuple[dict, int] | None:
    """The last entry of the log that has the metric, and the optimiser steps that it stands for; None: not logged yet.

    >>> from types import SimpleNamespace
    >>> log = [{"step": 2, "x": 0.5}, {"step": 5, "x": 0.7}, {"step": 5, "loss": 0.1}]
    >>> last_logged(SimpleNamespace(log_history=log), "x"), last_logged(None, "x")
    (({'step': 5, 'x': 0.7}, 3), None)
    """
    found = None
    for entry in reversed(getattr(trainer_state, "log_history", [])):
        if entry.get(name) is None:
            continue
        if found is not None:
            return found, max(found["step"] - entry["step"], 1)
        found = entry
    return None if found is None else (found, max(found["step"], 1))
