"""The judgement of the goals, on made-up figures."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import goals, summary
from benchmarks.case import OURS
from benchmarks.goals import Goal, judge
from benchmarks.layer import SHAPES
from benchmarks.saved import Saved, load_folder
from benchmarks.summary import Options

CPU = {"device": "cpu (cpu)", "processor": "abacus", "other work": "3% of the CPUs"}
GPU = CPU | {"device": "H100 (gpu)"}
Records = list[dict[str, Any]]


def find(benchmark: str, question: str, records: Records, **more: Any) -> list[Goal]:
    """The rows of one question, judged on these records alone."""
    run = dataclasses.replace(Run(records), **more)
    rows = judge({benchmark: Saved(run.options, run.environment, run.records)})
    assert all(goal.verdict == "not measured" for goal in rows if goal.benchmark != benchmark)
    found = [goal for goal in rows if goal.question == question]
    assert found
    return found


@dataclasses.dataclass
class Run:
    records: Records
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    environment: dict[str, Any] = dataclasses.field(default_factory=lambda: CPU)


def layer(ratios: list[float], variant: str = "norm", dtype: str = "float32", floor: float = 1.0) -> Records:
    """Records in which the fastest peer's times over ours, per shape, are these; another peer is twice as slow."""
    records = []
    for shape, ratio in zip(SHAPES, ratios, strict=False):
        common = {"shape": shape.replace("x", "×"), "variant": variant, "dtype": dtype, "vs_floor": floor}
        times = {"jaxbn": 1.0, "Flax": ratio, "Haiku": 2 * ratio}
        records += [common | {"library": name, "vs_ours": time} for name, time in times.items()]
    return records


def test_there_are_as_many_shapes_as_the_goal_says():
    assert len(SHAPES) == goals.SHAPES


def test_nothing_measured():
    assert {goal.verdict for goal in judge({})} == {"not measured"}


@pytest.mark.parametrize(
    ("variant", "ratios", "figure", "verdict"),
    [
        ("norm", [1.0] * 8, "on 8 of 8 shapes; worst 1.00 on 128×28×28×32", "met"),
        ("norm", [1.0] * 7 + [0.8], "on 7 of 8 shapes; worst 1.25 on 32×7×7×512", "not met"),
        ("norm", [2.0, 1.25], "on 2 of 2 shapes; worst 0.80 on 32×26×26×32; 6 shapes to go", "met so far"),
        ("norm + relu", [1.25] * 8, "on 8 of 8 shapes; worst 0.80 on 128×28×28×32", "met"),
        ("norm + relu", [1.25, 1.0], "on 1 of 2 shapes; worst 1.00 on 32×26×26×32", "not met"),
    ],
)
def test_layer(variant: str, ratios: list[float], figure: str, verdict: str):
    (goal,) = find("layer", f"layer: {variant}, float32", layer(ratios, variant))
    assert (goal.figure, goal.verdict, goal.quick) == (figure, verdict, False)
    others = find("layer", f"layer: {variant}, bfloat16", layer(ratios, variant))
    assert [other.verdict for other in others] == ["not measured"] * 2


@pytest.mark.parametrize(
    ("flax", "torch", "verdicts"),
    [(1.0, 0.8, ("met", "met")), (0.9, 2.0, ("not met", "met")), (2.0, 0.7, ("met", "not met"))],
)
def test_layer_of_bfloat16(flax: float, torch: float, verdicts: tuple[str, str]):
    """JAX libraries and PyTorch are judged apart."""
    records = layer([flax] * 8, dtype="bfloat16")
    records += [r | {"library": "PyTorch compiled", "vs_ours": torch} for r in records if r["library"] == "Flax"]
    records += [r | {"library": "Keras (torch)", "vs_ours": 5.0} for r in records if r["library"] == "Flax"]
    jax_library, pytorch = find("layer", "layer: norm, bfloat16", records)
    assert (jax_library.goal, jax_library.figure[:28]) == (
        "8 shapes, ≤ 1 of the fastest JAX library",
        f"on {8 if flax >= 1 else 0} of 8 shapes; worst {1 / flax:.2f}",
    )
    assert (pytorch.goal, pytorch.figure[:28]) == (
        "8 shapes, ≤ 1.3 of the fastest PyTorch",
        f"on {8 if torch >= 1 / 1.3 else 0} of 8 shapes; worst {1 / torch:.2f}",
    )
    assert (jax_library.verdict, pytorch.verdict) == verdicts


@pytest.mark.parametrize(("floor", "verdict"), [(1.1, "met"), (1.2, "not met")])
def test_the_floor_counts_on_a_gpu_only(floor: float, verdict: str):
    question, records = "GPU, layer: large arrays", layer([1.0] * 8, floor=floor)
    assert find("layer", question, records, environment=GPU)[0].verdict == verdict
    assert find("layer", question, records)[0].verdict == "not measured"
    assert find("layer", question, layer([1.0], floor=floor), environment=GPU)[0].verdict == "not measured"  # small


@pytest.mark.parametrize(("ratio", "verdict"), [(1.0, "met"), (0.5, "not met")])
def test_behind_nobody_on_a_gpu(ratio: float, verdict: str):
    (goal,) = find("layer", "GPU, layer: every shape", layer([2.0, ratio]), environment=GPU)
    assert goal.verdict == verdict
    assert goal.figure == f"worst {1 / ratio:.2f} of Flax on 32×26×26×32"


def test_training_step():
    speeds = {"jaxbn": 1.0, "PyTorch": 0.25, "PyTorch compiled": 0.5, "Keras (torch)": 2.0}
    records = [{"name": name, "batch_size": 32, "ratio": ratio} for name, ratio in speeds.items()]
    torch, all_others = find("train_step", "training step, batch 32", records)
    assert (torch.figure, torch.verdict) == ("2.00 times PyTorch compiled", "met")
    assert (all_others.figure, all_others.verdict) == ("0.50 times Keras (torch)", "not met")
    torch, all_others = find("train_step", "training step, batch 32", [*records[:2], records[2] | {"ratio": 0.9}])
    assert (torch.verdict, all_others.verdict) == ("not met", "met")
    assert {goal.verdict for goal in find("train_step", "training step, batch 128", records)} == {"not measured"}


def accuracies(*of_length: tuple[float, float, float]) -> Records:
    """Records of two seeds per length, a tenth of a percent apart."""
    return [
        {"library": OURS, "epochs": epochs, "accuracy": accuracy + by, "train_seconds": seconds}
        for epochs, accuracy, seconds in of_length
        for by in (-0.0005, 0.0005)
    ]


@pytest.mark.parametrize(
    ("records", "figure", "verdict"),
    [
        (accuracies((1, 0.991, 2.5)), "99.10 ± 0.07% in 2.5 ± 0.0 s (1 epoch, 2 seeds)", "met"),
        (accuracies((1, 0.991, 3.5)), "99.10 ± 0.07% in 3.5 ± 0.0 s (1 epoch, 2 seeds)", "not met"),
        (accuracies((0.5, 0.98, 1.0), (3, 0.991, 2.0)), "99.10 ± 0.07% in 2.0 ± 0.0 s (3 epochs, 2 seeds)", "met"),
        (accuracies((0.5, 0.98, 2.0)), "98.00 ± 0.07% in 2.0 ± 0.0 s (0.5 epochs, 2 seeds)", "not met"),
        ([], "", "not measured"),
    ],
)
def test_time_to_accuracy(records: Records, figure: str, verdict: str):
    (goal,) = find("time_to_accuracy", "MNIST", records)
    assert (goal.figure, goal.verdict) == (figure, verdict)
    assert find("time_to_accuracy", "GPU, MNIST", records)[0].verdict == "not measured"


@pytest.mark.parametrize(("question", "accuracy", "seconds"), [("99.4%", 0.994, 10), ("99.5%", 0.995, 40)])
def test_time_to_more_accuracy(question: str, accuracy: float, seconds: float):
    for more, less, verdict in ((1e-3, 1, "met"), (-1e-3, 1, "not met"), (1e-3, -1, "not met")):
        records = accuracies((4, accuracy + more, seconds - less))
        assert find("time_to_accuracy", f"MNIST: {question}", records)[0].verdict == verdict


def test_time_to_accuracy_on_a_gpu():
    for seconds, verdict in ((0.3, "met"), (0.5, "not met")):
        records = accuracies((1, 0.991, seconds))
        assert find("time_to_accuracy", "GPU, MNIST", records, environment=GPU)[0].verdict == verdict


def test_the_time_of_another_library_is_not_ours():
    records = accuracies((1, 0.991, 2.0)) + [{**r, "library": "PyTorch"} for r in accuracies((0.5, 0.999, 1.0))]
    assert find("time_to_accuracy", "MNIST", records)[0].figure.startswith("99.10")


def test_the_best_within_a_minute_is_a_figure_without_a_goal():
    records = accuracies((1, 0.99, 10.0), (4, 0.993, 50.0), (8, 0.995, 90.0))
    (goal,) = find("time_to_accuracy", "MNIST: the best within 60 s", records)
    assert (goal.figure, goal.verdict) == ("99.30 ± 0.07% in 50.0 ± 0.0 s (4 epochs, 2 seeds)", "no goal")


@pytest.mark.parametrize(("error", "verdict"), [(1.9e-6, "met"), (2e-6, "not met"), (float("nan"), "not met")])
def test_exactness(error: float, verdict: str):
    rest = {"ratio": 100.0, "way": False, "output": 1.0}
    small = {"library": "jaxbn", "ratio": 0.0, "way": False, "output": 1e-7}
    records = [small, small | {"ratio": 100.0, "output": error}, small, {"library": "Flax", **rest}]
    (goal,) = find("exactness", "error of the output", records)
    assert (goal.figure, goal.verdict) == (f"at most {error:.1e}, at 100", verdict)
    question = "the same: masks, ghosts, devices"
    assert find("exactness", question, records)[0].verdict == "not measured"
    ways = [{"library": "mask", "ratio": 1.0, "way": True, "output": error}]
    assert find("exactness", question, records + ways)[0].verdict == verdict


def test_memory_startup_collectives_inference():
    kept = [{"name": "Flax", "of_flax": 1.0}, {"name": "jaxbn, fused", "of_flax": 0.6}]
    (goal,) = find("memory", "ResNet-18: kept for backward", kept)
    assert (goal.figure, goal.verdict) == ("0.60 (fused)", "met")
    kept[1]["of_flax"] = 1.1
    assert find("memory", "ResNet-18: kept for backward", kept)[0].verdict == "not met"

    for added, verdict in ((0.05, "met"), (0.5, "not met")):
        times = {"import jax": 1.0, "import jaxbn": 1.0 + added, "second start, to the result on digits": 4.9 + added}
        records = [{"name": name, "processor": time, "wall": time} for name, time in times.items()]
        (goal,) = find("startup", "import jaxbn, beyond import jax", records)
        assert (goal.figure, goal.verdict) == (f"{added:.2f} s", verdict)
        (goal,) = find("startup", "second start, to the result", records)
        assert (goal.figure, goal.verdict) == (f"{4.9 + added:.1f} s (second start, to the result on digits)", verdict)
        assert find("startup", "first start, to the result", records)[0].verdict == "not measured"

    for count, verdict in ((2, "met"), (3, "not met")):
        records = [{"name": "jaxbn", "collectives": 1}, {"name": "jaxbn", "collectives": count}]
        records.append({"name": "Flax", "collectives": 9})
        (goal,) = find("collectives", "collectives of a layer, both passes", records)
        assert (goal.figure, goal.verdict) == (f"at most {count}", verdict)

    records = [{"name": "agreement"}, {"name": "folded", "batch_size": 1, "ratio": 1.7}]
    (goal,) = find("inference", "inference: folded / with norms, speed", records)
    assert (goal.figure, goal.verdict) == ("1.70 (batch 1)", "no goal")


@pytest.mark.parametrize(("error", "verdict"), [(1e-6, "met so far"), (1e-5, "not met")])
def test_a_quick_run_can_fail_a_goal_and_not_meet_it(error: float, verdict: str):
    records = [{"library": "jaxbn", "ratio": 0.0, "way": False, "output": error}]
    (goal,) = find("exactness", "error of the output", records, options={"quick": True})
    assert (goal.verdict, goal.quick) == (verdict, True)


@pytest.mark.parametrize(("share", "expected"), [(0.6, "met"), (0.61, "not met")])
def test_the_memory_of_a_step_counts_on_a_gpu(share, expected):
    records = [{"name": "Flax", "of_flax": 1.0}, {"name": "jaxbn, fused, blocks recomputed", "of_flax": share}]
    question = "GPU, ResNet-50: memory of a step"
    assert find("step_memory", question, records)[0].verdict == "not measured"
    assert find("step_memory", question, records, environment=GPU)[0].verdict == expected


def write(folder: Path, name: str, records: Records, **options: object) -> None:
    (folder / f"{name}.json").write_text(json.dumps({"options": options, "environment": CPU, "records": records}))


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write(tmp_path, "layer", layer([2.0, 1.0]), quick=True)
    write(tmp_path, "time_to_accuracy", accuracies((1, 0.991, 2.0)))
    summary.main(Options(tmp_path, markdown=True))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "layer, time_to_accuracy: cpu (cpu), abacus"
    (row,) = (line for line in lines if line.startswith("| layer: norm, float32"))
    assert row.endswith("| on 2 of 2 shapes; worst 1.00 on 32×26×26×32; 6 shapes to go (--quick) | met so far |")
    (row,) = (line for line in lines if line.startswith("| MNIST |"))
    assert row.endswith("| 99.10 ± 0.07% in 2.0 ± 0.0 s (1 epoch, 2 seeds) | met |")
    assert "| GPU, ResNet-50: memory of a step | ≤ 0.6 of Flax's | – | not measured |" in lines


def test_a_folder_without_figures_and_files_of_another_form_are_errors(tmp_path: Path):
    with pytest.raises(SystemExit, match="holds no JSON file: run benchmarks with --json"):
        load_folder(tmp_path)
    for text in ("{", "[]", '{"environment": {}, "records": []}'):
        (tmp_path / "layer.json").write_text(text)
        with pytest.raises(SystemExit, match=r"layer\.json is not what a benchmark saves"):
            load_folder(tmp_path)
