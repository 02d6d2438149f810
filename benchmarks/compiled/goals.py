"""The goals for bytes and memory of programs compiled for GPUs and TPUs."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from benchmarks.compiled.targets import TARGETS
from benchmarks.finding import Finding, Records, verdict
from benchmarks.norm_act import TITLES

SAME_PASSES = 1.001  # a share of the bytes: layers with as many passes over x differ by per-channel vectors
APART, FUSED, FLAX = (TITLES[name] for name in ("jaxbn", "jaxbn-fused", "flax"))


class _Pair(NamedTuple):
    """Two norms in the same program."""

    name: str
    ours: Any
    other: Any

    @property
    def ratio(self) -> float:
        """Our bytes divided by those of the other norm."""
        return self.ours["bytes"] / self.other["bytes"]


def layers(records: Records, target: str, ours: tuple[str, ...], other: str, most: float) -> Finding:
    """Our bytes, as a share of another norm's, in every layer."""
    pairs = [pair for pair in _pairs(records, target, ours, other) if pair.ours["passes"] is not None]
    return _shares(pairs, most)


def floors(records: Records, beyond: float) -> Finding:
    """Passes over x beyond the least number."""
    ours = [r for r in records if r["norm"] in (APART, FUSED) and r["floor"] is not None]
    if not ours:
        return None
    worst = max(ours, key=lambda r: r["passes"] - r["floor"])
    excess = worst["passes"] - worst["floor"]
    good = sum(r["passes"] - r["floor"] <= beyond for r in ours)
    return f"{good} of {len(ours)}; worst {excess:.2f}, {_name(worst)}", verdict(excess <= beyond)


def steps(records: Records, target: str, case: str, most: float) -> Finding:
    """Our bytes in a whole step, as a share of Flax's, with the same recomputation."""
    pairs = _pairs(records, target, (APART, FUSED), FLAX)
    return _shares([pair for pair in pairs if pair.ours["case"] == case], most)


def temporaries(records: Records, target: str, most: float) -> Finding:
    """The least temporaries of a ResNet-50's step with our norm, as a share of those of Flax without recomputation."""
    chosen = [r for r in records if (r["target"], r["case"]) == (target, "ResNet-50 step")]
    plain = [r for r in chosen if (r["norm"], r["remat"]) == (FLAX, "none")]
    ours = [r for r in chosen if r["norm"] in (APART, FUSED)]
    if not plain or not ours:
        return None
    best = min(ours, key=lambda r: r["temporary_bytes"])
    share = best["temporary_bytes"] / plain[0]["temporary_bytes"]
    return f"{share:.2f} ({best['norm']}, {best['remat']})", verdict(share <= most)


def _pairs(records: Records, target: str, ours: tuple[str, ...], other: str) -> list[_Pair]:
    chosen = [r for r in records if r["target"] == target]
    keys = ("case", "shape", "dtype", "remat")
    others = {tuple(r[key] for key in keys): r for r in chosen if r["norm"] == other}
    return [
        _Pair(_name(r), r, others[key])
        for r in chosen
        if r["norm"] in ours and (key := tuple(r[key] for key in keys)) in others
    ]


def _shares(pairs: list[_Pair], most: float) -> Finding:
    if not pairs:
        return None
    worst = max(pairs, key=lambda pair: pair.ratio)
    good = sum(pair.ratio <= most for pair in pairs)
    return f"{good} of {len(pairs)}; worst {worst.ratio:.3f}, {worst.name}", verdict(worst.ratio <= most)


def _name(record: Any) -> str:
    again = "" if record["remat"] == "none" else f", {record['remat']} recomputed"
    return f"{record['norm']}, {record['case']}, {record['shape']}, {record['dtype']}{again}"


def _rules() -> list[tuple[str, str, Callable[[Records], Finding]]]:
    rules: list[tuple[str, str, Callable[[Records], Finding]]] = []
    for target in (each.title for each in TARGETS.values()):
        flax = partial(layers, target=target, ours=(APART, FUSED), other=FLAX, most=SAME_PASSES)
        rules.append((f"{target}: bytes of a layer", f"≤ {SAME_PASSES} of Flax's in every case", flax))
        apart = partial(layers, target=target, ours=(FUSED,), other=APART, most=SAME_PASSES)
        rules.append((f"{target}: bytes of a layer, fused", f"≤ {SAME_PASSES} of the same written apart", apart))
        for case in ("ResNet-50 step", "MNIST CNN step"):
            step = partial(steps, target=target, case=case, most=1.005)
            rules.append((f"{target}: bytes of a {case}", "≤ 1.005 of Flax's", step))
    rules.append(("H100: passes of a layer", "≤ 0.3 beyond the floor", partial(floors, beyond=0.3)))
    for target, most in (("H100", 0.4), ("TPU v5e", 0.5)):
        rule = partial(temporaries, target=target, most=most)
        rules.append((f"{target}: temporaries of a ResNet-50 step", f"≤ {most} of plain Flax's", rule))
    return rules


RULES = _rules()
