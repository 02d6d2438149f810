"""The goals for jaxbn's speed, memory and exactness, and their judgement from measurements.

Each function judges the saved runs of the benchmarks, by name. A goal without a run is not measured.
"""

from collections.abc import Callable, Mapping, Sequence
from math import isnan, prod
from statistics import mean, stdev
from typing import NamedTuple

from benchmarks.case import OURS
from benchmarks.compiled import goals as accelerators
from benchmarks.finding import Finding, Records, Verdict, verdict
from benchmarks.saved import Saved

Runs = Mapping[str, Saved]

SHAPES = 8  # of the layer
LARGE = 2**22  # entries: more than caches hold
LAYER_GOALS = {"norm": 1.0, "norm + relu": 0.85, "norm + residual + relu": 0.85}  # of the fastest peer, float32
TORCH = ("PyTorch", "Keras (torch)")
BFLOAT16_GOALS = {"JAX library": 1.0, "PyTorch": 1.3}  # of the fastest among these, in every variant
BATCH_SIZES = (32, 128)


class Goal(NamedTuple):
    """A row of the table."""

    benchmark: str
    question: str
    goal: str
    figure: str
    verdict: Verdict
    quick: bool = False


def judge(runs: Runs) -> list[Goal]:
    """Every goal, in the order of the benchmarks."""
    rows = []
    for benchmark, rules in RULES.items():
        run = runs.get(benchmark)
        for question, goal, on_gpu, rule in rules:
            finding = None
            if run is not None and (run.on_gpu or not on_gpu):
                finding = rule(run.records)
            figure, verdict = finding or ("", "not measured")
            quick = bool(finding and run and run.quick)
            rows.append(Goal(benchmark, question, goal, figure, _so_far(verdict) if quick else verdict, quick))
    return rows


Rule = tuple[str, str, bool, Callable[[Records], Finding]]  # question, goal, whether on a GPU only, judgement


def _so_far(verdict: Verdict) -> Verdict:
    """Less was measured than the goal is about."""
    return "met so far" if verdict == "met" else verdict


def layer(records: Records, dtype: str, variant: str, peers: str, most: float) -> Finding:
    """Our time over that of the fastest peer, JAX library or PyTorch, on every shape."""
    chosen = [r for r in records if (r["dtype"], r["variant"]) == (dtype, variant) and r["library"] != OURS]
    if peers != "peer":
        chosen = [r for r in chosen if r["library"].startswith(TORCH) == (peers == "PyTorch")]
    fastest: dict[str, float] = {}  # by shape, the least time of a peer over ours
    for r in chosen:
        fastest[r["shape"]] = min(r["vs_ours"], fastest.get(r["shape"], r["vs_ours"]))
    if not fastest:
        return None
    ours = {shape: 1 / ratio for shape, ratio in fastest.items()}
    worst = max(ours, key=lambda shape: ours[shape])
    good = sum(ratio <= most for ratio in ours.values())
    figure = f"on {good} of {len(ours)} shapes; worst {ours[worst]:.2f} on {worst}"
    if good < len(ours):
        return figure, "not met"
    return (figure, "met") if len(ours) >= SHAPES else (f"{figure}; {SHAPES - len(ours)} shapes to go", "met so far")


def layer_floor(records: Records) -> Finding:
    """The bandwidth reached on large arrays, as a share of a copy's."""
    ours = [r for r in records if r["library"] == OURS and prod(map(int, r["shape"].split("×"))) >= LARGE]
    if not ours:
        return None
    worst = max(ours, key=lambda r: r["vs_floor"])
    return f"{1 / worst['vs_floor']:.2f} at worst, {worst['variant']} on {worst['shape']}", verdict(
        worst["vs_floor"] <= 1 / 0.9
    )


def layer_behind(records: Records) -> Finding:
    """Against PyTorch and Flax alone."""
    others = [r for r in records if r["library"].startswith(("PyTorch", "Flax"))]
    if not others:
        return None
    worst = min(others, key=lambda r: r["vs_ours"])
    return f"worst {1 / worst['vs_ours']:.2f} of {worst['library']} on {worst['shape']}", verdict(worst["vs_ours"] >= 1)


def train_step(records: Records, batch_size: int, rivals: str, least: float) -> Finding:
    """Our speed over the best rival's; all others are rivals where the name is empty."""
    others = [
        r for r in records if r["batch_size"] == batch_size and r["name"] != OURS and r["name"].startswith(rivals)
    ]
    if not others:
        return None
    best = max(others, key=lambda r: r["ratio"])
    return f"{1 / best['ratio']:.2f} times {best['name']}", verdict(1 / best["ratio"] >= least)


def accuracy_in(records: Records, seconds: float, target: float = 0.99) -> Finding:
    """The quickest length whose seeds reach the target on average, or else the most accurate within the time."""
    lengths = _lengths(records)
    if not lengths:
        return None
    reached = {n: each for n, each in lengths.items() if mean(r["accuracy"] for r in each) >= target}
    chosen = min(reached or lengths)
    is_met = bool(reached) and mean(r["train_seconds"] for r in lengths[chosen]) < seconds
    return _describe(chosen, lengths[chosen]), verdict(is_met)


def best_within(records: Records, seconds: float) -> Finding:
    """The most accurate length among those that fit."""
    lengths = {n: each for n, each in _lengths(records).items() if mean(r["train_seconds"] for r in each) <= seconds}
    if not lengths:
        return None
    best = max(lengths, key=lambda n: mean(r["accuracy"] for r in lengths[n]))
    return _describe(best, lengths[best]), "no goal"


def _lengths(records: Records) -> dict[float, Records]:
    ours = [r for r in records if r["library"] == OURS]
    return {n: [r for r in ours if r["epochs"] == n] for n in sorted({r["epochs"] for r in ours})}


def _describe(epochs: float, records: Records) -> str:
    accuracies, seconds = ([r[name] for r in records] for name in ("accuracy", "train_seconds"))
    count = len(records)
    percent, time = (
        f"{mean(values):.{digits}f}" + (f" ± {stdev(values):.{digits}f}" if count > 1 else "")
        for values, digits in (([100 * accuracy for accuracy in accuracies], 2), (seconds, 1))
    )
    return f"{percent}% in {time} s ({epochs:g} epoch{'s' * (epochs != 1)}, {count} seed{'s' * (count > 1)})"


def exactness(records: Records, ways: bool) -> Finding:
    """The largest error of the output: of the plain norm, or of its ways to mask, divide and share."""
    ours = [r for r in records if (r["way"] if ways else r["library"] == OURS)]
    if not ours:
        return None
    worst = max(ours, key=lambda r: (isnan(r["output"]), r["output"]))
    return f"at most {worst['output']:.1e}, at {worst['ratio']:g}", verdict(worst["output"] < 2e-6)


def memory(records: Records) -> Finding:
    """The bytes kept between the passes, as a share of Flax's."""
    ours = {r["name"]: r["of_flax"] for r in records if r["name"] != "Flax"}
    figure = "; ".join(f"{share:.2f} ({name.removeprefix(f'{OURS}, ')})" for name, share in ours.items())
    return figure, verdict(max(ours.values()) < 1)


def step_memory(records: Records) -> Finding:
    """The memory of the compiled step with our norm and recomputed blocks, over Flax's without recomputation."""
    (share,) = (r["of_flax"] for r in records if r["name"] == f"{OURS}, fused, blocks recomputed")
    return f"{share:.2f}", verdict(share <= 0.6)


def import_time(records: Records) -> Finding:
    """The time that importing jaxbn adds to importing JAX."""
    times = {r["name"]: r["processor"] for r in records}
    added = times["import jaxbn"] - times["import jax"]
    return f"{added:.2f} s", verdict(added < 0.1)


def to_the_result(records: Records, start: str, most: float) -> Finding:
    """From the command to the test accuracy."""
    found = [r for r in records if r["name"].startswith(f"{start} start, to the result")]
    if not found:
        return None
    return "; ".join(f"{r['wall']:.1f} s ({r['name']})" for r in found), verdict(all(r["wall"] < most for r in found))


def collectives(records: Records) -> Finding:
    """The largest number of collectives of a norm, forward and backward."""
    most = max(r["collectives"] for r in records if r["name"] == OURS)
    return f"at most {most}", verdict(most <= 2)


def inference(records: Records) -> Finding:
    """Speed of the folded network over that with norms."""
    folded = [r for r in records if r["name"] == "folded"]
    return "; ".join(f"{r['ratio']:.2f} (batch {r['batch_size']})" for r in folded), "no goal"


def _layer_rules() -> list[Rule]:
    goals = [("float32", variant, "peer", most) for variant, most in LAYER_GOALS.items()]
    goals += [("bfloat16", variant, *goal) for variant in LAYER_GOALS for goal in BFLOAT16_GOALS.items()]
    rules: list[Rule] = []
    for dtype, variant, peers, most in goals:
        goal = f"{SHAPES} shapes, ≤ {most:g} of the fastest {peers}"
        rules.append(
            (f"layer: {variant}, {dtype}", goal, False, lambda r, g=(dtype, variant, peers, most): layer(r, *g))
        )
    return rules


def _step_rules() -> list[Rule]:
    rules: list[Rule] = []
    for size in BATCH_SIZES:
        for goal, rivals, least in (
            ("≥ 1.7 times the best PyTorch", "PyTorch", 1.7),
            ("fastest of all", "", 1.0),
        ):
            question = f"training step, batch {size}"
            rules.append((question, goal, False, lambda r, s=size, n=rivals, x=least: train_step(r, s, n, x)))
    return rules


RULES: dict[str, Sequence[Rule]] = {
    "exactness": (
        ("error of the output", "< 2e-6 at every mean/std", False, lambda r: exactness(r, ways=False)),
        ("the same: masks, ghosts, devices", "< 2e-6 at every mean/std", False, lambda r: exactness(r, ways=True)),
    ),
    "layer": (
        *_layer_rules(),
        ("GPU, layer: large arrays", "≥ 0.9 of the copy's bandwidth", True, layer_floor),
        ("GPU, layer: every shape", "no slower than PyTorch or Flax", True, layer_behind),
    ),
    "train_step": _step_rules(),
    "time_to_accuracy": (
        ("MNIST", "99.0% on average, < 3 s training", False, lambda r: accuracy_in(r, 3)),
        ("MNIST: 99.4%", "99.4% on average, < 10 s training", False, lambda r: accuracy_in(r, 10, 0.994)),
        ("MNIST: 99.5%", "99.5% on average, < 40 s training", False, lambda r: accuracy_in(r, 40, 0.995)),
        ("MNIST: the best within 60 s", "–", False, lambda r: best_within(r, 60)),
        ("GPU, MNIST", "99.0% on average, < 0.4 s training", True, lambda r: accuracy_in(r, 0.4)),
    ),
    "memory": (("ResNet-18: kept for backward", "less than Flax's", False, memory),),
    "step_memory": (("GPU, ResNet-50: memory of a step", "≤ 0.6 of Flax's", True, step_memory),),
    "accelerators": tuple((question, goal, False, rule) for question, goal, rule in accelerators.RULES),
    "startup": (
        ("import jaxbn, beyond import jax", "< 0.1 s", False, import_time),
        ("first start, to the result", "< 7 s", False, lambda r: to_the_result(r, "first", 7)),
        ("second start, to the result", "< 5 s", False, lambda r: to_the_result(r, "second", 5)),
    ),
    "collectives": (("collectives of a layer, both passes", "≤ 2", False, collectives),),
    "inference": (("inference: folded / with norms, speed", "–", False, inference),),
}
