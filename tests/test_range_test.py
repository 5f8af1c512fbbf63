"""The range test: what a curve says, and a run whose hindsight start finds its own learning rate."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from rlred.training import range_test
from rlred.training.range_test import choose, rate_at, smoothed
from tests.test_recipes import arguments, base, run  # noqa: F401 (a fixture)

RATES = [rate_at(update) for update in range(range_test.UPDATES)]


def flat_until(edge: float, level: float = 1.0) -> list[float]:
    """Losses that stay level up to a rate, and double with each update after."""
    return [level * 2 ** max(0, sum(rate > edge for rate in RATES[: at + 1])) for at in range(len(RATES))]


@pytest.mark.parametrize("edge", [1e-4, 1e-3, 1e-2])
def test_the_rate_is_a_fifth_of_the_last_one_before_the_loss_rises(edge):
    assert edge / 5 / 1.3 < choose(RATES, flat_until(edge)) <= edge / 5 * 1.3


def test_the_lowest_loss_alone_decides_nothing():
    """Trap: where the loss is level but for noise, its lowest point is chance."""
    noisy = [loss * (1 + 0.02 * math.sin(7 * at)) for at, loss in enumerate(flat_until(1e-2))]
    assert choose(RATES, noisy) == pytest.approx(choose(RATES, flat_until(1e-2)), rel=0.3)


@pytest.mark.parametrize("last", [math.nan, math.inf])
def test_a_loss_that_is_no_number_has_risen(last):
    losses = flat_until(1e-2)
    at = next(at for at, rate in enumerate(RATES) if rate > 1e-3)
    assert choose(RATES, [*losses[:at], *[last] * (len(RATES) - at)]) < 1e-3 / 5 * 1.3


def test_a_loss_that_rises_from_the_first_update_on_is_an_error():
    with pytest.raises(
        ValueError, match="hindsight_settings.learning_rate is null, and the loss rose at every rate from 1e-05"
    ):
        choose(RATES, [2.0**at for at in range(len(RATES))])


def test_a_mean_of_equal_losses_is_that_loss():
    assert smoothed([0.3] * 5) == pytest.approx([0.3] * 5)


def test_a_run_finds_its_rate_and_begins_from_the_adapter_that_it_had(base, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(range_test, "UPDATES", 6)
    seen = []
    find = range_test.find_learning_rate

    def watched(model, *args, **kwargs):
        before = {name: weight.clone() for name, weight in model.state_dict().items()}
        rate = find(model, *args, **kwargs)
        seen.append(all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items()))
        return rate

    monkeypatch.setattr("rlred.training.hindsight.find_learning_rate", watched)
    start = {"num_samples": 32, "max_updates": 1, "cooldown_updates": 1, "batch_size": 8, "num_probe_questions": 2}
    flags = {"hindsight_settings": json.dumps(start | {"learning_rate": None}), "output_dir": tmp_path / "run"}
    run(*arguments("l1_exact", base, evaluate=False, max_steps=1, **flags), tmp_path)
    folder = tmp_path / "run" / "hindsight"
    record, curve = (json.loads((folder / name).read_text()) for name in ("hindsight.json", "range_test.json"))
    assert seen == [True]  # the test left no trace in the weights
    assert record["learning_rate"] == curve["learning_rate"] > 0 and len(curve["losses"]) == 6
    assert not (folder / "range_test").exists()
    assert any(
        tensor.abs().max() > 0 for tensor in load_file(folder / "adapter" / "adapter_model.safetensors").values()
    )
    assert find(None, None, [], None, training=None, output=folder) == record["learning_rate"]  # read, not run again
