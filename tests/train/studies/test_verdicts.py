"""Verdicts from numbers that are made up: each way that a claim can go."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close

from train.network.build import renorm_ramp
from train.studies import (
    activations,
    ghost_batch,
    init_scale,
    learning_rate,
    placement,
    regularization,
    running_stats,
    small_batch,
    smoothness,
    vanishing,
)
from train.studies.study import differs, spread

NOISE = np.array([-0.1, 0.0, 0.1])  # of three seeds


def around(*means):
    """Three seeds about each mean: (mean, seed)."""
    return np.array(means)[:, None] + NOISE


@pytest.mark.parametrize(
    ("with_norm", "without", "verdict"),
    [
        ((90, 90, 90, 10), (90, 10, 10, 10), "reproduced"),
        ((90, 90, 90, 10), (90, 90, 10, 10), "partly reproduced"),
        ((90, 10, 10, 10), (90, 10, 10, 10), "not reproduced"),
    ],
)
def test_init_scale(with_norm, without, verdict):
    settings = init_scale.Settings(deviations=4, epochs=1)
    numbers = {"with": around(*with_norm)[..., None], "without": around(*without)[..., None]}
    finding = init_scale.conclude(numbers, settings)
    learned = sum(value > 80 for value in with_norm)
    assert finding.verdict == verdict
    assert finding.headline.startswith(f"With the norm, {learned} of 4 initial scales learn")
    assert finding.table.rows[0] == ("1", f"{with_norm[0]}.0 ± 0.1", f"{without[0]}.0 ± 0.1")


def rates(*steps):
    """Accuracies of 3 seeds at 10 measurements; at each rate the target is reached at a measurement, or never."""
    reached = [np.arange(1, 11) >= (np.inf if step is None else step) for step in steps]
    return np.repeat(np.where(reached, 95.0, 10.0)[:, None], 3, axis=1)


@pytest.mark.parametrize(
    ("with_norm", "without", "verdict"),
    [
        ((4, 2), (5, None), "reproduced"),
        ((4, 3), (2, None), "partly reproduced"),
        ((4, None), (5, None), "partly reproduced"),
        ((5, None), (4, 4), "not reproduced"),
    ],
)
def test_learning_rate(with_norm, without, verdict):
    settings = learning_rate.Settings(rates=(0.1, 1.0), every=5)
    numbers = {"with": rates(*with_norm), "partly": rates(1, 1), "without": rates(*without)}
    finding = learning_rate.conclude(numbers, settings)
    assert finding.verdict == verdict
    assert finding.table.rows[0][1] == f"{5 * with_norm[0]} ± 0"


@pytest.mark.parametrize(
    ("wander", "widening", "verdict"),
    [
        ((0.4, 1.0), (2, 30), "reproduced"),
        ((0.4, 0.45), (2, 30), "partly reproduced"),
        ((1.0, 0.4), (30, 2), "not reproduced"),
    ],
)
def test_activations(wander, widening, verdict):
    """Both measures count only beyond the noise."""
    numbers = {f"{name}_accuracy": around(90).T for name in ("with", "without")}
    for i, name in enumerate(("with", "without")):
        numbers |= {f"{name}_wander": wander[i] + NOISE, f"{name}_widening": widening[i] + NOISE}
    assert activations.conclude(numbers, activations.Settings()).verdict == verdict


def test_vanishing():
    settings = vanishing.Settings(seeds=3, depth=2)
    keys = [f"{a}_{i}_{n}" for a in vanishing.ACTIVATIONS for i in ("lecun", "small") for n in ("with", "without")]
    numbers = {f"{key}_accuracy": 90 + NOISE for key in keys}
    strong, weak = np.full((3, 2), 1.0), np.full((3, 2), 1e-6)
    mended = {f"{key}_gradients": weak if key.endswith("without") else strong for key in keys}
    assert vanishing.conclude(numbers | mended, settings).verdict == "reproduced"
    some = mended | {"tanh_small_with_gradients": weak}
    assert vanishing.conclude(numbers | some, settings).verdict == "partly reproduced"
    lost = dict.fromkeys(mended, weak)
    assert vanishing.conclude(numbers | lost, settings).verdict == "not reproduced"
    none = dict.fromkeys(mended, strong)
    finding = vanishing.conclude(numbers | none, settings)
    assert (finding.verdict, finding.headline) == (
        "not reproduced",
        "Gradients do not vanish here, with the norm or without",
    )


@pytest.mark.parametrize(
    ("with_norm", "without", "verdict"),
    [
        ((92, 93), (85, 88), "reproduced"),
        ((92, 92), (85, 88), "partly reproduced"),
        ((90, 90), (90, 95), "not reproduced"),
        ((88, 80), (90, 80), "not reproduced"),
    ],
)
def test_regularization(with_norm, without, verdict):
    settings = regularization.Settings(seeds=3, dropouts=(0.0, 0.5))
    numbers = {f"{kind}_train": np.full((2, 3), 100.0) for kind in regularization.KINDS}
    numbers |= {"with_test": around(*with_norm), "ghost_test": around(90, 90), "without_test": around(*without)}
    assert regularization.conclude(numbers, settings).verdict == verdict


@pytest.mark.parametrize(
    ("before", "after", "verdict", "winners"),
    [
        ((90, 90, 90), (80, 80, 80), "not reproduced", ["before"] * 3),
        ((90, 90, 90), (80, 90, 95), "reproduced", ["before", "neither", "after"]),
        ((90, 90, 90), (90, 90, 90), "reproduced", ["neither"] * 3),
    ],
)
def test_placement(before, after, verdict, winners):
    numbers = {
        network: np.stack([around(b, b), around(a, a), around(70, 70)]).transpose(0, 2, 1)
        for network, b, a in zip(placement.NETWORKS, before, after, strict=True)
    }
    assert list(placement.winners(numbers).values()) == winners
    assert placement.conclude(numbers, placement.Settings()).verdict == verdict


@pytest.mark.parametrize(
    ("smoother", "more_shift", "verdict"),
    [
        (True, True, "reproduced"),
        (True, False, "partly reproduced"),
        (False, True, "partly reproduced"),
        (False, False, "not reproduced"),
    ],
)
def test_smoothness(smoother, more_shift, verdict):
    settings = smoothness.Settings(seeds=3, rates=(0.1,), hidden=(4, 4))
    numbers = {}
    for kind in smoothness.KINDS:
        rough = (1.0 if smoother else 3.0) if kind == "with" else 2.0
        shift = (3.0 if more_shift else 1.0) if kind != "without" else 2.0
        numbers |= {f"{kind}_{field}": np.full((1, 3, 5), rough) for field in smoothness.TITLES}
        numbers |= {f"{kind}_shift": np.full((1, 3, 5, 1), shift), f"{kind}_cosine": np.full((1, 3, 5, 1), 0.5)}
        numbers[f"{kind}_accuracy"] = np.broadcast_to(around(80 if kind == "without" else 90)[..., None], (1, 3, 5))
    assert smoothness.conclude(numbers, settings).verdict == verdict


@pytest.mark.parametrize(
    ("plain", "renorm", "few", "verdict"),
    [(60, 80, (80, 90), "reproduced"), (60, 80, (90, 90), "partly reproduced"), (80, 60, (90, 80), "not reproduced")],
)
def test_small_batch(plain, renorm, few, verdict):
    settings = small_batch.Settings(groups=(2, 32))
    numbers = {"plain": around(plain, 92), "renorm": around(renorm, 92), "none": 90 + NOISE, "none_classes": 90 + NOISE}
    numbers |= {"plain_classes": few[0] + NOISE, "renorm_classes": few[1] + NOISE}
    assert small_batch.conclude(numbers, settings).verdict == verdict


@pytest.mark.parametrize(
    ("ghost", "verdict", "headline"),
    [
        (92, "reproduced", "better (+1.00 points"),
        (91.1, "not reproduced", "no difference beyond the noise (+0.10 points"),
        (90, "not reproduced", "worse (-1.00 points"),
    ],
)
def test_ghost_batch(ghost, verdict, headline):
    """The verdict is about the size chosen beforehand, however good another one is; the headline agrees with it."""
    settings = ghost_batch.Settings(ghosts=(16, 32))
    numbers = {"ghost": around(ghost, 99, 91), "small": 93 + NOISE, "none": 90 + NOISE}
    finding = ghost_batch.conclude(numbers, settings)
    assert finding.verdict == verdict
    assert finding.headline.startswith(f"Ghosts of 16 in a large batch: {headline}")
    assert ("50% of the gap to batches of 32" in finding.summary) == (ghost == 92)


@pytest.mark.parametrize(
    ("early", "late", "verdict"),
    [(70, 90, "reproduced"), (70, 85, "partly reproduced"), (60, 90, "not reproduced")],
)
def test_running_stats(early, late, verdict):
    settings = running_stats.Settings(seeds=3, every=10, measurements=2, recalibrated_at=(10, 20))
    numbers = {name: around(60, 90).T for name in running_stats.AVERAGES}
    numbers["recalibrated"] = around(early, late).T
    assert running_stats.conclude(numbers, settings).verdict == verdict


def test_few_classes_takes_so_many_of_each():
    labels = jnp.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9] * 3, jnp.int32)
    order = small_batch.few_classes(labels, jnp.int32(0), 20, 8, 2)
    taken = np.asarray(labels[order])
    assert order.shape == (20, 8)
    assert all(sorted(np.unique(row, return_counts=True)[1].tolist()) == [4, 4] for row in taken)
    assert len({tuple(sorted(set(row.tolist()))) for row in taken}) > 5


def test_the_ramp_has_the_shares_of_the_paper():
    ramp: Any = renorm_ramp(1600)
    bounds = [(float(ramp.r_max(t)), float(ramp.d_max(t))) for t in (0, 50, 150, 225, 250, 400, 1600)]
    assert bounds == [
        (1, 0),
        (1, 0),
        (pytest.approx(11 / 7), 2.5),
        (2, pytest.approx(4.375)),
        *[(pytest.approx(15 / 7), 5)],
        (3, 5),
        (3, 5),
    ]


def test_the_landscape_of_a_parabola_is_known():
    """loss = a/2 ‖x‖²: the gradient is a·x, β is a, and nothing in front moves another layer's gradient."""
    a, rate = 3.0, jnp.float32(0.1)
    settings = smoothness.Settings(hidden=(1, 1), multiples=(0.5, 1.0, 2.0))
    params = {name: {"kernel": jnp.full((2, 2), value)} for name, value in (("dense1", 1.0), ("dense2", 2.0))}

    def loss(params):
        return a / 2 * jnp.stack([jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)]).sum()

    found = smoothness.look(loss, params, settings, rate)
    start = float(loss(params))
    assert_close(found["beta"], a, condition=5)
    assert_close(found["gradient_distance"], 2 * 0.1 * a * a * np.sqrt(20), condition=5)
    assert_close(found["loss_range"], start * ((1 - 0.15) ** 2 - (1 - 0.6) ** 2), condition=5, size=0)
    assert_close(found["shift"], np.asarray([0.0]))
    assert_close(found["cosine"], np.asarray([1.0]))


def test_covariate_shift_is_the_change_by_the_layers_in_front():
    """loss = u·v: the gradient of v is u, which moves by rate·v."""
    settings = dataclasses.replace(smoothness.Settings(), hidden=(1, 1), multiples=(1.0,))
    params = {"dense1": {"kernel": jnp.array([3.0, 4.0])}, "dense2": {"kernel": jnp.array([1.0, 2.0])}}

    def loss(params):
        return jnp.vdot(params["dense1"]["kernel"], params["dense2"]["kernel"])

    found = smoothness.look(loss, params, settings, jnp.float32(0.1))
    assert_close(found["shift"], np.asarray([0.1 * np.sqrt(5)]), condition=5)
    other = np.array([2.9, 3.8])
    assert_close(found["cosine"], np.asarray([other @ [3, 4] / (5 * np.linalg.norm(other))]), condition=5)


def test_differs_needs_twice_the_standard_error():
    # Variances of 1 and 4 seeds: the standard error of the difference is √(1/4 + 1/4).
    seeds = np.array([-1.0, 1.0, -1.0, 1.0]) * np.sqrt(0.75)
    assert not differs(seeds, seeds + 1.41)
    assert differs(seeds, seeds + 1.42)


def test_spread():
    assert spread(np.array([1.0, 2.0, 3.0]), 2) == "2.00 ± 1.00"
    assert spread(np.array([np.nan, 1.0])) == "–"
