import json
from pathlib import Path

import numpy as np
import pytest
from closeness import assert_close

from benchmarks import exactness, peers
from benchmarks.exactness import Options, exact, make_case
from benchmarks.ways import WAYS


def test_the_reference_is_the_derivative_of_itself():
    case, weights = make_case((6, 3), ratio=2.0, seed=0), np.arange(18.0).reshape(6, 3)
    _, dx = exact(case, weights)
    step = 1e-6

    def change(i: int, j: int) -> float:
        x = np.asarray(case.x, np.float64)
        nudge = np.zeros_like(x)
        nudge[i, j] = step
        up, down = (exact(case._replace(x=x + sign * nudge), weights)[0] for sign in (1, -1))
        return float(((up - down) / (2 * step) * case.cotangent).sum())

    numerical = [[change(i, j) for j in range(3)] for i in range(6)]
    assert_close(dx, np.asarray(numerical), condition=1e5)  # numerical differences


def test_the_tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(peers, "PEERS", peers.PEERS[:2])  # ours and Flax
    path = tmp_path / "exactness.json"
    exactness.main(Options(quick=True, seeds=1, markdown=True, json=path))
    records = json.loads(path.read_text())["records"]
    names = ["jaxbn", "Flax", *(way.name for way in WAYS)]
    assert [(r["ratio"], r["library"]) for r in records] == [(q, n) for q in (0, 1e3, 1e6) for n in names]
    assert all(r["output"] < 2e-6 and r["gradient"] < 2e-5 for r in records if r["library"] != "Flax")
    found = {(record["ratio"], record["library"]): record for record in records}
    assert found[1e3, "Flax"]["output"] > 1e-2  # the difference of large squares
    printed = capsys.readouterr().out
    assert printed.count("| mean/std | jaxbn | Flax |") == 2
    assert f"| 1e+06 | {found[1e6, 'jaxbn']['gradient']:.1e} | {found[1e6, 'Flax']['gradient']:.1e} |" in printed
