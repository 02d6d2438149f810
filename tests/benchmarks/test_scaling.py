import dataclasses

import pytest

from benchmarks import interconnect, scaling
from benchmarks.collectives import collectives
from benchmarks.interconnect import MACHINES, Level, Machine
from benchmarks.scaling import Options, compiled
from train.training.devices import choose

SMALL = Options(devices=(2, 8), examples=4, channels=(8,), hidden=6)
NORMS = 2 * 8 + 2 * 6
PARAMETERS = 9 * 8 + 13 * 13 * 8 * 6 + (6 + 1) * 10 + NORMS  # convolution, two dense layers, two norms


@pytest.mark.parametrize("count", SMALL.devices)
def test_global_statistics_take_two_collectives_a_norm_whatever_the_devices(count: int):
    sizes = collectives(compiled(choose(count), SMALL, "global"), loops=1)
    sums, metric = [8 * 8, 8 * 8, 8 * 6, 8 * 6], 4
    gradients = 4 * (PARAMETERS - NORMS) + metric  # those of a norm's scale and bias are its own sums
    assert sorted(sizes) == sorted([*sums, metric, gradients])


def test_those_of_a_device_take_one_of_a_byte():
    """True if the guess was good on every device."""
    *agreements, metric, gradients = sorted(collectives(compiled(choose(8), SMALL, "device"), loops=1))
    assert (agreements, metric) == ([1, 1], 4)
    assert gradients >= 4 * PARAMETERS  # with the running statistics and the loss


def test_the_model_of_an_all_reduce():
    ring, switch = Level(1e9, 1e-6, switched=False), Level(1e9, 1e-6, switched=True)
    assert ring.seconds(10**9, 4) == pytest.approx(2 * 0.75 + 6e-6)
    assert switch.seconds(0, 8) == pytest.approx(6e-6)
    machine = Machine("", (switch, ring), {2: (2, 1), 8: (2, 4)})
    assert machine.all_reduce(10**9, 2) == pytest.approx(1 + 2e-6)
    assert machine.all_reduce(10**9, 8) == pytest.approx(1 + 2e-6 + 0.75 + 6e-6)
    assert machine.step([0, 0, 0], 2) == pytest.approx(6e-6)
    on_gpu = dataclasses.replace(machine, agreements=False)
    assert on_gpu.step([1, 8, 1], 2) == machine.step([8], 2) < machine.step([1, 8, 1], 2)
    for known in MACHINES:
        assert all(count == interconnect.math.prod(shape) for count, shape in known.shapes.items())


def test_the_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(
        scaling,
        "compiled",
        lambda *_: "ENTRY %main (y: f32[1]) -> f32[1] {\n  %x = f32[250000000]{0} all-reduce(%y)\n}\n",
    )
    scaling.main(Options(devices=(8,), compute_milliseconds=(1000 * 2 * 7 / 8 / 450,), markdown=True))
    printed = capsys.readouterr().out
    assert "| --norm-scope global, 8 devices | 1 | 1,000,000,000 | 1,000,000,000 | 0 |" in printed
    assert "| 8 | 3,901 µs | 50% |" in printed  # 2 · 7/8 of a GB at 450 GB/s, and 2 · 3 steps of 2 µs
