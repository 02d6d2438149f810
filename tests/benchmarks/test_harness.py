import json
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import harness
from benchmarks.harness import Timing


@pytest.fixture(autouse=True)
def one_rehearsal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each function is called once, untimed, before it is timed."""
    monkeypatch.setattr(harness, "_REHEARSAL_SECONDS", 0)


def test_quartiles_and_median():
    timing = Timing((5.0, 1.0, 4.0, 2.0, 3.0))
    assert timing.quartiles == (2.0, 3.0, 4.0)
    assert timing.median == 3.0


def test_the_ratio_is_taken_within_turns():
    # The middle turn was slow for both: the ratio of the medians would be 4 / 1, that of each turn is 2.
    assert Timing((2.0, 40.0, 4.0)).ratio(Timing((1.0, 20.0, 2.0))) == 2.0
    assert Timing((2.0, 40.0, 4.0)).ratio(Timing((1.0, 10.0, 1.0))) == 4.0


def test_functions_take_turns_and_each_timed_call_follows_an_untimed_one():
    calls = []
    functions = {name: (lambda name=name: calls.append(name)) for name in "AB"}
    timings = harness.time_side_by_side(functions, seconds=0)
    assert "".join(calls) == "AB" + 5 * "AABB"
    assert [len(timing.seconds) for timing in timings.values()] == [5, 5]


def test_a_rehearsal_lasts_for_its_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(harness, "_REHEARSAL_SECONDS", 3)
    ticks = iter(range(1000))
    monkeypatch.setattr(harness.time, "perf_counter", lambda: float(next(ticks)))
    calls = []
    timings = harness.time_side_by_side({"A": lambda: calls.append(None)}, seconds=0)
    assert len(calls) == 1 + 5 * (3 + 1)  # the clock goes on by one second with each look at it
    assert timings["A"].seconds == (1.0,) * 5


def test_turns_go_on_while_there_is_time_up_to_the_most():
    timings = harness.time_side_by_side({"A": lambda: None}, seconds=600)
    assert len(timings["A"].seconds) == 200


def test_a_timed_sample_on_a_gpu_is_the_mean_of_ten_queued_calls(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(harness, "torch_device", lambda: "cpu")
    ticks = iter(range(1000))
    monkeypatch.setattr(harness.time, "perf_counter", lambda: float(next(ticks)))
    calls = []
    timings = harness.time_side_by_side({"A": lambda: calls.append(None)}, seconds=0)
    assert len(calls) == 1 + 5 * (1 + 10)
    assert timings["A"].seconds == (0.1,) * 5


def test_a_copy_is_another_array_of_the_same_numbers():
    x = jnp.arange(6.0).reshape(2, 3)
    copy = harness.Copy(x)
    copy()
    copied = copy()
    np.testing.assert_array_equal(copied, x)
    assert copied.unsafe_buffer_pointer() != x.unsafe_buffer_pointer()


def test_rates_of_the_machine(monkeypatch: pytest.MonkeyPatch):
    timings = {"copy": Timing((0.5,)), "matmul": Timing((0.25,))}
    monkeypatch.setattr(harness, "time_side_by_side", lambda functions, seconds: timings)
    rates = harness.machine_rates()
    assert rates["copy, GB/s"] == 2 * 2**26 / 0.5 / 1e9
    assert rates["float32 matmul at default precision, GFLOP/s"] == 2 * 2**31 / 0.25 / 1e9


def test_the_environment_names_device_and_versions():
    facts = harness.environment()
    assert jax.devices()[0].device_kind in facts["device"]
    assert f"jax {jax.__version__}" in facts["versions"]


@pytest.mark.parametrize(("percent", "fact"), [(4.0, "4% of the CPUs"), (52.0, "52% of the CPUs, busy: trust no time")])
def test_the_environment_says_what_else_the_machine_does(percent, fact, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(harness.psutil, "cpu_percent", lambda interval: percent)
    assert harness.environment()["other work"] == fact


def test_a_table_in_markdown(capsys: pytest.CaptureFixture[str]):
    harness.show_table("Title", ["", "a", "b"], [["row", "1", "2"]], markdown=True)
    assert capsys.readouterr().out == "**Title**\n\n|  | a | b |\n| --- | ---: | ---: |\n| row | 1 | 2 |\n\n"


def test_a_table_in_a_file_is_not_cut(capsys: pytest.CaptureFixture[str]):
    columns = [f"a column of some width {i}" for i in range(5)]
    harness.show_table("Title", columns, [columns])
    printed = capsys.readouterr().out
    assert all(printed.count(column) == 2 for column in columns)


def test_json(tmp_path: Path):
    path = tmp_path / "folder" / "results.json"
    options = SimpleNamespace(quick=True, json=path)
    harness.save_json(path, options, {"device": "abacus"}, [{"ms": 1.5}])
    assert json.loads(path.read_text()) == {
        "options": {"quick": True, "json": str(path)},
        "environment": {"device": "abacus"},
        "records": [{"ms": 1.5}],
    }
    harness.save_json(None, options, {}, [])
