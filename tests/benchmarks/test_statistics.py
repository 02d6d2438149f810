import numpy as np
import pytest

from benchmarks import statistics
from benchmarks.statistics import FORMS, Options, error


def near_zero():
    return np.random.default_rng(0).normal(0.1, 1, (64, 6, 6, 4)).astype(np.float32)


@pytest.mark.parametrize("name", [name for name in FORMS if not name.endswith("alone")])
def test_every_form_is_a_variance(name: str):
    assert error(FORMS[name], near_zero()) < 1e-5


def test_far_from_zero_squares_fail_and_ours_do_not():
    assert error(FORMS["E[x²] − E[x]²"], near_zero() + np.float32(1e3)) > 1e-2
    assert error(FORMS["jaxbn, the guess is 3 σ off"], near_zero() + np.float32(1e3)) < 1e-6


def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(statistics, "SHAPES", ((4, 3, 3, 2), (8, 4)))
    statistics.main(Options(seconds=0.0, markdown=True))
    printed = capsys.readouterr().out
    assert printed.count("\n| ") == 2 + len(FORMS)
    assert "| E[x²] − E[x]² | 1.00 | 1.00 |" in printed
