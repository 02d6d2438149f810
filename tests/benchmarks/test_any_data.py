import numpy as np
import pytest

from benchmarks import any_data
from benchmarks.adversarial import KINDS, channels
from benchmarks.any_data import Options


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [2, 7, 1000])
def test_channels_are_finite_and_the_same_again(kind: str, n: int):
    x = channels(kind, n)
    assert x.shape[0] == n
    assert x.dtype == np.float32
    assert np.isfinite(x).all()
    np.testing.assert_array_equal(x, channels(kind, n))


def test_a_nan_is_the_largest_error():
    y = np.asarray([[1.0, np.nan], [2.0, 0.0]])
    np.testing.assert_array_equal(any_data.errors(y, np.asarray([[1.0, 0.0], [4.0, 0.0]])), [0.5, np.inf])


def test_the_tables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(any_data, "SHAPES", ((8, 2, 4),))
    monkeypatch.setattr(any_data, "PEERS", ("jaxbn", "Flax"))
    monkeypatch.setattr(any_data, "WAYS", any_data.WAYS[:1])
    any_data.main(Options(seeds=1, markdown=True))
    (row, *_) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| gaussian")]
    ours, flax = map(float, row.strip("| ").split(" | ")[1:])
    assert ours < 2e-6 < flax
