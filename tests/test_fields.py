"""What a YAML puts into a group of settings, a part or a reward is refused by its name, before anything runs."""

import pytest

from rlred.data.questions import load_questions
from rlred.rewards import make_reward
from rlred.runs import chassis
from rlred.runs.arguments import LengthControlArguments

GROUPS = [
    ("hindsight_settings", {"learning_rate": "2e-4"}, r"learning_rate must be a number, got '2e-4' .*2.0e-4 is"),
    ("hindsight_settings", {"max_updates": "4e2"}, "max_updates must be a whole number, got '4e2'"),
    ("hindsight_settings", {"batch_size": 64.5}, "batch_size must be a whole number, got 64.5"),
    ("hindsight_settings", {"max_slack": 0.1}, "max_slack must be a whole number, got 0.1"),
    ("hindsight_settings", {"max_slack": "none"}, "max_slack must be a whole number, got 'none'"),
    ("hindsight_settings", {"probe_every": None}, "probe_every must be a whole number, got None"),
    ("hindsight_settings", {"sources": ["brief"]}, r"sources must be a mapping, got \['brief'\]"),
    ("hindsight_settings", {"sources": None}, "sources must be a mapping, got None"),
    ("hindsight_settings", {"modes": ["exact"]}, r"modes must be a mapping, got \['exact'\]"),
    ("hindsight_settings", {"only_correct": "no"}, "only_correct must be true or false, got 'no'"),
    ("target_search", {"every": "1e1"}, "every must be a whole number, got '1e1'"),
    ("think_or_not", {"control_weight": "1e-3"}, "control_weight must be a number, got '1e-3'"),
    ("think_or_not", {"forced": "false"}, "forced must be true or false, got 'false'"),
    ("selection", {"fraction": "20%"}, "fraction must be a number, got '20%'"),
    ("parts", {"ddca": {"beta": None}}, "ddca.beta must be a number, got None"),
    ("parts", {"ddca": 0.2}, "ddca must be a mapping of its settings, .* got 0.2"),
    ("parts", {"easy_first": {"share": "5e-1"}}, "easy_first.share must be a number, got '5e-1'"),
]


@pytest.mark.parametrize("group, settings, message", GROUPS)
def test_a_setting_that_is_none_is_one_clear_line(group, settings, message):
    with pytest.raises(ValueError, match=rf"^{group}\.{message}"):
        LengthControlArguments(**{group: settings})


@pytest.mark.parametrize(
    "group, settings",
    [
        ("hindsight_settings", {"learning_rate": None, "max_slack": None, "modes": None, "num_samples": 2048.0}),
        ("hindsight_settings", {"markers": {"every": 64}, "sources": {"stopped": 8}, "learning_rate": 1}),
        ("parts", {"ddca": None, "drpo": {}}),
        ("think_or_not", {"forced": False, "baseline": "group", "control_weight": 0}),
    ],
)
def test_what_a_field_takes_is_taken(group, settings):
    assert LengthControlArguments(**{group: settings})


@pytest.mark.parametrize(
    "spec, message",
    [
        (
            {"name": "max_length", "length": "thinking"},
            r"reward.length must .* such as \{count: thinking\}; got",
        ),
        ({"name": "max_length", "length": {"counts": "thinking"}}, "reward.length: no field is called 'counts'; there"),
        ({"name": "max_length", "correctness": None}, "reward.correctness must be a mapping .* got None"),
        ({"name": "max_length", "correctness": {"require_end": True}}, "reward.correctness: no field .* 'require_end'"),
        ({"name": "length_mask", "masked": "correct_long"}, "length_mask.masked must be a list, got 'correct_long'"),
        ({"name": "truncation", "stages": [[0, 40], [10]]}, r"truncation.stages must be pairs \[step, limit\], got"),
        ({"name": "truncation", "stages": [0, 40]}, r"truncation.stages must be pairs \[step, limit\], got"),
        ({"name": "correctness", "require_end_of_thinking": "no"}, "must be true or false, got 'no'"),
    ],
)
def test_the_parts_of_a_reward_are_checked_too(spec, message):
    with pytest.raises(ValueError, match=message):
        make_reward(spec)


def test_the_parts_of_a_reward_may_be_said_in_several_ways():
    assert make_reward({"name": "max_length", "correctness": "exact_match"}).correctness.__name__ == "exact_match"
    assert make_reward({"name": "max_length", "length": {"count": "thinking"}}).length.count == "thinking"


def test_the_configuration_of_the_questions_is_not_that_of_other_held_out_ones(monkeypatch):
    """Two sets of the Hub, which no test may ask; MATH-500 has no configuration `main`, as GSM8K has."""
    asked = {}

    def load(source, *, config, **others):
        asked[source] = config
        return load_questions("sums", split="train" if source == "openai/gsm8k" else "test", limit=2)

    monkeypatch.setattr(chassis, "load_questions", load)
    told = {"questions": "openai/gsm8k", "questions_config": "main", "num_eval_questions": 2}
    chassis.load_both(LengthControlArguments(**told, eval_questions="HuggingFaceH4/MATH-500"), seed=0)
    assert asked == {"openai/gsm8k": "main", "HuggingFaceH4/MATH-500": None}
    chassis.load_both(LengthControlArguments(**told, eval_questions="my/questions", eval_config="hard"), seed=0)
    assert asked["my/questions"] == "hard"
