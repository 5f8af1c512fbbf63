"""The settings of the hindsight start (rlred/training/hindsight.py)."""

import math
from dataclasses import dataclass, field

from rlred.data.budgets import BudgetSampler
from rlred.data.markers import Markers, make_markers
from rlred.evaluation.trace_sources import SOURCES


@dataclass(frozen=True)
class Hindsight:
    """Settings of the hindsight start. Raises `ValueError` for a value out of range."""

    num_samples: int = 2048
    """Completions to sample from the model, asked for budgets; without a budget beside `sources`."""
    sources: dict[str, int] = field(default_factory=dict)
    """Further completions by source, such as {brief: 2048, stopped: 4096, continued: 512}:
    rlred/evaluation/trace_sources.py. With any, the traces are drawn evenly over bins of length, and those outside the
    budgets are left out."""
    answer_cue: str | None = None
    """What makes a stopped trace answer, behind the end of its thinking. "": nothing, for a model that then answers in
    a few words by itself. None: a line that opens the box."""
    num_bins: int = 8
    """Bins of length between the smallest and the largest budget, equally wide in the logarithm."""
    empty_bins: str = "stop"
    """What happens where `sources` leave a bin without a trace: stop; warn; or shrink, to the budgets of the most bins
    side by side that have some, for the start and for RL."""
    max_updates: int = 400
    """Most SFT updates at the full rate; fewer when the target is reached."""
    cooldown_updates: int = 60
    """Updates after those, while the rate falls to zero in a straight line."""
    batch_size: int = 64
    """Completions per update, over all processes."""
    micro_batch_size: int = 32
    """Completions per forward pass on one device; neighbours in length share one, so that little is padded."""
    learning_rate: float | None = 2e-3
    """Learning rate of the adapter until the cool-down. Twice as much can undo the control: see docs/LOG.md. None: it
    is found by a range test of 60 updates (rlred/training/range_test.py)."""
    max_slack: int | None = 8
    """A maximum budget is the trace's length plus 0 to this many tokens. None: it is a bound. A budget is drawn first,
    and the shorter of two traces of the question within it answers: fewer tokens, more overruns (docs/LOG.md)."""
    modes: dict[str, float] | None = None
    """Weights of the modes in the rows of the start (None: those of the run). A row whose maximum is a bound says
    little of the number: with half of the rows of that kind the embedded start followed it later."""
    samples_per_question: int = 1
    """Completions of each question among `num_samples`; with several, a maximum can prefer the short ones of them."""
    effort_quantile: float | None = 0.75
    """An effort is the length of a trace as a share of the question's own length: of this quantile of its correct
    answers' lengths, or their mean (None). The same as the reward's, or RL moves what the start has taught."""
    effort_slack: float = 0.0
    """Traces that are longer than the question's own length by up to this share ask for effort 1; others are left out.
    For tokenizers that write 100, and no other hundredth, as three tokens, which few rows show otherwise."""
    train_answer: bool = False
    """Whether the tokens after the thinking are trained on; they say nothing of length, and guessed ones are noise."""
    only_correct: bool = False
    """Whether only completions with a correct answer are kept; needs the answers, and `train_answer` keeps them so."""
    prefer_correct: int = 0
    """Beside `sources`: a bin with so many correct traces or more keeps those alone, and a bin with fewer keeps all of
    its traces, unless `only_correct`. For a model that is seldom correct in the short ones. 0: none is left out."""
    cut_fraction: float = 0.0
    """Share of the rows whose thinking is cut at a random point, as a server's hard cut does: the end of thinking comes
    there, and only the trace's own answer is trained on (rlred/compression/random_cut.py says why). The row asks for
    the length of the whole trace. Only correct traces with an end of thinking are cut. 0: none."""
    markers: Markers | dict | None = None
    """Counted thinking: true counts that are written into the traces of exact and max rows, and trained on, such as
    {every: 64, text: "[{spent}/{budget}]", before: " take"}: rlred/data/markers.py. A budget is then the length with
    them. Free rows have none. None: no markers."""
    overrun_fraction: float = 0.0
    """Share of the rows with markers whose number runs out before the last step: the marker in front of that step says
    that nothing is left, and only what begins with it is trained on. A model that has lost its count has otherwise seen
    no trace in which it could have run out. Needs markers that name what is left or the budget. 0: none."""
    required_correlation: float = 0.0
    """A start whose last probe stays below this ends the run before RL: GRPO sharpens a faint length control and finds
    none that is not there. 0: the run goes on, with a warning."""
    target_correlation: float = 0.9
    """The cool-down begins when the within-question rank correlation on probe questions reaches this."""
    probe_every: int = 40
    """Updates between two probes."""
    num_probe_questions: int = 12
    """Questions of a probe."""
    num_probe_budgets: int = 9
    """Budgets at which each of them is asked. A coarse grid can miss a number that the model does not follow yet."""

    def __post_init__(self):
        object.__setattr__(self, "markers", make_markers(self.markers))
        if self.modes is not None:
            try:
                BudgetSampler(modes=self.modes)
            except ValueError as error:
                raise ValueError(f"hindsight_settings.{error}") from None
        counts = (
            "num_samples",
            "samples_per_question",
            "max_updates",
            "batch_size",
            "micro_batch_size",
            "probe_every",
            "num_probe_questions",
            "num_bins",
        )
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"hindsight_settings.{name} must be 1 or more, got {getattr(self, name)}")
        if self.num_probe_budgets < 2:
            raise ValueError(f"hindsight_settings.num_probe_budgets must be 2 or more, got {self.num_probe_budgets}")
        self._check_sources()
        if self.effort_quantile is not None and not 0 <= self.effort_quantile <= 1:
            raise ValueError(f"hindsight_settings.effort_quantile must be in [0, 1], got {self.effort_quantile}")
        if not 0 <= self.effort_slack < math.inf:
            raise ValueError(f"hindsight_settings.effort_slack must be 0 or more, got {self.effort_slack}")
        if not 0 <= self.cut_fraction < 1:
            raise ValueError(
                f"hindsight_settings.cut_fraction must be a share of the rows, 0 to below 1, got {self.cut_fraction}"
            )
        if not 0 <= self.overrun_fraction < 1:
            raise ValueError(
                "hindsight_settings.overrun_fraction must be a share of the rows, 0 to below 1, got "
                f"{self.overrun_fraction}"
            )
        if self.overrun_fraction and not (self.markers and self.markers.names_budget):
            raise ValueError(
                f"hindsight_settings.overrun_fraction={self.overrun_fraction:g} needs markers whose text names "
                f"{{left}} or {{budget}}, got markers={self.markers}"
            )
        if self.markers and (self.modes or {}).get("effort"):
            raise ValueError(
                "hindsight_settings.markers: counts say how much of a number is left, and an effort is none"
            )
        for name in ("max_slack", "cooldown_updates", "prefer_correct"):
            if getattr(self, name) is not None and getattr(self, name) < 0:
                raise ValueError(f"hindsight_settings.{name} must be 0 or more, got {getattr(self, name)}")
        if not 0 < self.target_correlation <= 1:
            raise ValueError(
                f"hindsight_settings.target_correlation must be above 0 and at most 1, got {self.target_correlation}"
            )
        if not 0 <= self.required_correlation <= 1:
            raise ValueError(
                f"hindsight_settings.required_correlation must be in [0, 1], got {self.required_correlation}"
            )
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"hindsight_settings.learning_rate must be above 0, got {self.learning_rate}")

    def _check_sources(self) -> None:
        for name, count in self.sources.items():
            if name not in SOURCES or name == "free":
                known = ", ".join(name for name in SOURCES if name != "free")
                raise ValueError(f"hindsight_settings.sources: no source is called {name!r}; there are {known}")
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise ValueError(f"hindsight_settings.sources.{name} must be a whole number, 1 or more, got {count!r}")
        if self.empty_bins not in ("stop", "warn", "shrink"):
            raise ValueError(f"hindsight_settings.empty_bins must be stop, warn or shrink, got {self.empty_bins!r}")
        if self.prefer_correct > 0 and not self.sources:
            why = f"must be 0 without sources, which have bins; got {self.prefer_correct}"
            raise ValueError(f"hindsight_settings.prefer_correct {why}")
