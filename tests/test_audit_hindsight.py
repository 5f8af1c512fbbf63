"""The audit of the hindsight start: what it cannot teach, and what it cannot be trained with."""

import pytest

from rlred.checks.audit_hindsight import audit_hindsight
from rlred.training.hindsight_settings import Hindsight


@pytest.mark.parametrize(
    "modes, own, expected",
    [
        ({"free": 1}, None, ("error", "hindsight", "set hindsight to false")),
        ({"free": 2, "exact": 0}, None, ("error", "hindsight", "set hindsight to false")),
        ({"exact": 1, "free": 1}, {"free": 1}, ("error", "hindsight", "or leave out hindsight_settings.modes")),
        ({"max": 1, "exact": 1}, {"exact": 1}, ("warning", "hindsight_settings.modes", "the run asks for max as well")),
        ({"effort": 1}, {"max": 1}, ("warning", "hindsight_settings.modes", "the run asks for effort as well")),
        # too strict would say something of these
        ({"exact": 1, "free": 3}, None, None),
        ({"max": 1}, {"max": 1, "exact": 1}, None),
        ({"max": 1, "effort": 0}, {"max": 1}, None),
        ({"max": 1, "free": 1}, {"max": 1}, None),
        ({"free": 1}, {"exact": 1}, None),
    ],
)
def test_what_a_start_does_not_teach(modes, own, expected):
    found = [(one.level, one.field) for one in audit_hindsight(Hindsight(modes=own), modes, 1)]
    assert found == ([expected[:2]] if expected else [])
    if expected:
        [finding] = audit_hindsight(Hindsight(modes=own), modes, 1)
        assert expected[2] in finding.advice


@pytest.mark.parametrize("batch_size, processes, refused", [(64, 6, True), (2, 4, True), (64, 8, False), (6, 6, False)])
def test_updates_that_the_processes_do_not_divide(batch_size, processes, refused):
    found = list(audit_hindsight(Hindsight(batch_size=batch_size), {"exact": 1}, processes))
    assert [(one.level, one.field) for one in found] == [("error", "hindsight_settings.batch_size")] * refused
