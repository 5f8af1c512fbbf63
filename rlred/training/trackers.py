"""Trackers that are gone do not stop a run: the first error of one is a warning, and nothing more is sent to it."""

import importlib.util
import logging

from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

logger = logging.getLogger(__name__)

EVENTS = [name for name in vars(TrainerCallback) if name.startswith("on_")]


class Guarded(TrainerCallback):
    """A tracker's callback that is left out from its first error on."""

    def __init__(self, name: str, tracker: TrainerCallback):
        self.name, self.tracker, self.gone = name, tracker, False

    def _pass_on(self, event: str, args, state, control, **kwargs):
        if self.gone:
            return None
        try:
            return getattr(self.tracker, event)(args, state, control, **kwargs)
        except Exception as error:  # whatever a tracker's client raises of its server, its files or its login
            self.gone = True
            # TRL sends its completions table to the trackers that are named here.
            args.report_to = [name for name in args.report_to or [] if name != self.name]
            said = " ".join(str(error).split())[:200] or type(error).__name__
            logger.warning("report_to: %s does not answer (%s); the run goes on without it", self.name, said)
            return None


def _make(event: str):
    def passed_on(self, args, state, control, **kwargs):
        return self._pass_on(event, args, state, control, **kwargs)

    return passed_on


for _event in EVENTS:
    setattr(Guarded, _event, _make(_event))


def guard_trackers(trainer: Trainer) -> None:
    """Puts a guard around every tracker of a trainer."""
    names = {kind: name for name, kind in INTEGRATION_TO_CALLBACK.items()}
    callbacks = trainer.callback_handler.callbacks
    callbacks[:] = [Guarded(names[type(one)], one) if type(one) in names else one for one in callbacks]


def check_trackers(training: TrainingArguments) -> None:
    """Raises `ValueError` for a tracker that does not exist or is not installed, before the first step."""
    told = training.report_to if isinstance(training.report_to, list) else [training.report_to]
    for name in told:
        if name in (None, "none", "all"):
            continue
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(INTEGRATION_TO_CALLBACK)
            raise ValueError(f"report_to={name!r}: there is no such tracker; there are {known}, and none")
        if name not in get_available_reporting_integrations() and importlib.util.find_spec(name) is None:
            raise ValueError(f"report_to={name!r}: it is not installed; install it, or set report_to to none")
