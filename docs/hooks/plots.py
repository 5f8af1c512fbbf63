"""A picture for each reward: its value against the length of one completion, at three budgets where it knows budgets.

The completion stands in a group of four; the other three are correct at 100 and at 300 tokens, and incorrect at 200.
"""

import io
import logging

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt

from rlred.rewards import REWARDS, make_reward

BUDGETS = (100, 200, 300)
LENGTHS = range(4, 404, 8)
CORRECT, INCORRECT = "2+2</think>\\boxed{4}", "2+2</think>\\boxed{5}"
# Constants that suit lengths up to 400 tokens. A list: one reward for each of three budgets, its own parameter.
SETTINGS: dict[str, dict | list[dict]] = {
    "exact_length": {"alpha": 0.004},
    "max_length": {"alpha": 0.01},
    "by_mode": {"max": {"name": "max_length", "alpha": 0.01}},
    "cosine_length": [{"max_length": budget} for budget in BUDGETS],
    "soft_overlong": [{"max_length": budget, "cache": budget // 2} for budget in BUDGETS],
    "length_bonus": [{"targets": [budget]} for budget in BUDGETS],
    "truncation": [{"limit": budget} for budget in BUDGETS],
    "length_mask": [{"limit": budget} for budget in BUDGETS],
    "group_sigmoid": {"alpha": 0.4},
    "kimi_length": {"weight": 0.4},
    "shortest_correct": {"alpha": 0.004},
    "solve_rate_penalty": {"alpha": 0.004},
    "slack_length": {"slack": 20},
    "lead": {"low": 50, "high": 400},
}


KNOWN = {"solution", "budget", "mode", "effort", "reference_length", "reference_accuracy", "reference_correct_lengths"}
KNOWN |= {"difficulty", "uncertainty", "requested", "visual_tokens", "full_visual_tokens"}


def value(reward, length: int, correct: bool, budget: int) -> float | None:
    """What one completion of the group is rewarded with."""
    texts = [CORRECT if correct else INCORRECT, CORRECT, CORRECT, INCORRECT]
    columns = {
        "solution": ["4"] * 4,
        "budget": [budget] * 4,
        "effort": [budget / BUDGETS[-1]] * 4,
        "mode": ["max"] * 4,
        "reference_length": [200.0] * 4,
        "reference_accuracy": [0.5] * 4,
        "reference_correct_lengths": [[100, 200, 300]] * 4,
        "difficulty": [5] * 4,
        "uncertainty": [0.5] * 4,
        "requested": [True, False, True, False],
        "visual_tokens": [16, 16, 64, 64],
        "full_visual_tokens": [64] * 4,
    }
    ids = [[7] * one for one in (length, 100, 300, 200)]
    return reward(prompts=["q"] * 4, completions=texts, completion_ids=ids, **columns)[0]


def made(name: str) -> list:
    """The rewards that are drawn: one, or one for each budget."""
    settings = SETTINGS.get(name, {})
    return [make_reward({"name": name, **one}) for one in (settings if isinstance(settings, list) else [settings])]


def needs() -> dict[str, tuple[str, ...]]:
    """The columns that each reward takes."""
    return {name: made(name)[0].needs for name in REWARDS}


def curves(name: str) -> dict[str, list[float | None]]:
    """The curves of a reward by label; none where the length changes nothing."""
    drawn = made(name)
    if set(drawn[0].needs) - KNOWN:
        return {}
    own = len(drawn) > 1
    effort = "effort" in drawn[0].needs and "budget" not in drawn[0].needs
    knows = own or effort or "budget" in drawn[0].needs
    found = {}
    for place, budget in enumerate(BUDGETS if knows else BUDGETS[:1]):
        for correct in (True, False):
            label = "correct" if correct else "incorrect"
            label = (
                f"{label}, {f'effort {budget / BUDGETS[-1]:.2g}' if effort else f'budget {budget}'}" if knows else label
            )
            found[label] = [value(drawn[place if own else 0], length, correct, budget) for length in LENGTHS]
    told = [[one for one in line if one is not None] for line in found.values()]
    silent = any(0 < len(line) < len(LENGTHS) for line in told)  # no opinion at some lengths
    return found if silent or any(max(line) - min(line) > 1e-9 for line in told if line) else {}


def picture(name: str) -> str | None:
    """The SVG of a reward; None where the length changes nothing."""
    found = curves(name)
    if not found:
        return None
    grey = "#8a8f98"  # readable on white and on black
    with plt.rc_context({"svg.hashsalt": name, "text.color": grey, "axes.edgecolor": grey, "axes.labelcolor": grey}):
        figure, axes = plt.subplots(figsize=(7.2, 3.0), layout="constrained")
        for place, (label, line) in enumerate(found.items()):
            correct = not label.startswith("incorrect")
            color = ("#3b82c4", "#d9822b", "#2f9e62")[place // 2]
            values = [float("nan") if one is None else one for one in line]
            axes.plot(LENGTHS, values, "-" if correct else "--", color=color, label=label, linewidth=1.6)
        axes.set(xlabel="tokens of the completion", ylabel="reward")
        axes.tick_params(colors=grey)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8, labelcolor=grey, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
        plt.close(figure)
    return out.getvalue()


def pictures() -> dict[str, str]:
    """The SVGs of all rewards that have a curve."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    found = {name: picture(name) for name in sorted(REWARDS)}
    return {name: svg for name, svg in found.items() if svg}
