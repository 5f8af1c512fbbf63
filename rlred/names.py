"""Names that changed: a command line or a YAML that says an old one is told the new one; old records are still read.

SETTINGS, MODES, HEADS, MODELS     old name -> new name: the only tables of them
refuse                             one clear line for an old name that somebody writes today
in_todays_names                    a run.json or a report of an older version, in today's names
"""

from collections.abc import Iterable
from typing import Any

SETTINGS = {  # of a YAML, a flag, or a field of a record
    "high_beta": "beta_solved",
    "stop_decided": "early_stop_rollouts",
    "row_cap": "per_prompt_cap",
    "eval_row_cap": "eval_per_prompt_cap",
    "only_right": "only_correct",
    "arms": "variants",
    "never": "suppress_tokens",
    "looks": "budget_tokens",
}
MODES = {"none": "free"}  # in rows, templates, by_mode, sweeps and reports
HEADS = {"kept": "selected"}  # of a token selection
MODELS = {"tiny_talker": "tiny_verbose", "tiny_viewer": "tiny_vlm", "tiny_chooser": "tiny_hybrid"}  # embedded ones


def refuse(names: Iterable[Any], table: dict[str, str], where: str = "") -> None:
    """Raises `ValueError`, which begins with `where`, for the first of the names that has another one today.

    >>> refuse(["max_steps", "high_beta"], SETTINGS, "own.yaml: ")
    Traceback (most recent call last):
    ValueError: own.yaml: 'high_beta' is now called 'beta_solved'
    """
    for name in names:
        if isinstance(name, str) and name in table:
            raise ValueError(f"{where}{name!r} is now called {table[name]!r}")


def in_todays_names(record: Any) -> Any:
    """What a JSON file of any version holds, with the settings of today.

    >>> in_todays_names({"arguments": {"high_beta": 0.01, "seed": 0}})
    {'arguments': {'beta_solved': 0.01, 'seed': 0}}
    >>> in_todays_names({"modes": {"none": 1}, "rows": [{"mode": "none", "budget": None}], "scale_rewards": "none"})
    {'modes': {'free': 1}, 'rows': [{'mode': 'free', 'budget': None}], 'scale_rewards': 'none'}
    """
    if isinstance(record, list):
        return [in_todays_names(item) for item in record]
    if not isinstance(record, dict):
        return record
    return {(SETTINGS | MODES).get(name, name): _value(name, value) for name, value in record.items()}


def _value(name: str, value: Any) -> Any:
    if name == "mode" and isinstance(value, str):
        return MODES.get(value, value)
    if name in ("modes", "eval_modes") and isinstance(value, list):
        return [MODES.get(mode, mode) for mode in value]
    return in_todays_names(value)
