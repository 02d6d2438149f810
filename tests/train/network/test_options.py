"""The options of the network: what they build, and what is said to those that build nothing."""

import dataclasses
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import assert_close

from jaxbn.linen import BatchNorm
from train.config.checks import check
from train.config.sections import Config, DataConfig, ModelConfig, NormConfig, OptimizerConfig, RunConfig
from train.host.errors import UsageError
from train.network.build import build, check_norm
from train.network.models import CNN, MLP
from train.training import loop
from train.training.plan import make_plan, splits
from train.training.step import Examples, StepOptions, init_state, train_step


def network(model=ModelConfig(), norm=NormConfig(), shape=(12, 12, 1), steps=100):  # noqa: B008  (frozen)
    return build(Config(model=model, norm=norm), shape, 3, "cpu", steps)


def variables_of(model, shape=(12, 12, 1)):
    return jax.jit(partial(model.init, train=False))(jax.random.key(0), jnp.zeros((2, *shape)))


def norm_of(model) -> Any:
    norm = model.layers.norm(use_running_average=True)
    assert isinstance(norm, BatchNorm)
    return norm


def calls(model, shape=(12, 12, 1)):
    """The layers that normalise and activate, in their order."""
    seen = []

    def activation(x):
        seen.append("activation")
        return x

    def watch(call, args, kwargs, context):
        if context.method_name == "__call__" and str(context.module.name).startswith(
            ("norm", "conv", "dense", "dropout")
        ):
            seen.append(context.module.name)
        return call(*args, **kwargs)

    model = dataclasses.replace(model, layers=dataclasses.replace(model.layers, activation=activation))
    with nn.intercept_methods(watch):
        jax.eval_shape(partial(model.init, train=False), jax.random.key(0), jnp.zeros((2, *shape)))
    return seen


@pytest.mark.parametrize(
    ("placement", "order", "bias"),
    [
        ("before", ["dense1", "norm1", "activation", "dense2", "norm2", "activation"], False),
        ("after", ["dense1", "activation", "norm1", "dense2", "activation", "norm2"], True),
        ("none", ["dense1", "activation", "dense2", "activation"], True),
    ],
)
def test_the_norm_stands_where_it_is_asked_for_and_a_layer_in_front_of_one_has_no_bias(placement, order, bias):
    options = ModelConfig(norm_placement=placement, hidden=(5, 4), network="mlp")
    assert calls(network(options)) == order
    params = variables_of(network(options))["params"]
    assert ["bias" in params[name] for name in ("dense1", "dense2", "logits")] == [bias, bias, True]
    cnn = network(ModelConfig(norm_placement=placement, channels=(2,), hidden=(4,)))
    assert calls(cnn)[: len(order) // 2] == [name.replace("dense", "conv") for name in order[: len(order) // 2]]


def test_a_norm_of_what_is_pooled_has_its_statistics():
    """A new norm gives each channel mean 0 and variance 1 behind the pooling, and learns no scale if told so."""
    options = ModelConfig(norm_placement="pooled", channels=(2,), hidden=(4,), activation=("elu",))
    model = network(options, NormConfig(norm_scale=False))
    assert calls(model)[:3] == ["conv1", "norm1", "activation"]
    params = variables_of(model)["params"]
    assert set(params["norm1"]) == {"bias"} == set(params["conv1"]) ^ {"kernel", "bias"}
    images = jnp.asarray(np.random.default_rng(0).normal(3, 2, (16, 12, 12, 1)), jnp.float32)
    _, found = model.apply(variables_of(model), images, train=True, capture_intermediates=True, mutable=True)
    y: Any = found["intermediates"]["norm1"]["__call__"][0]
    assert y.shape == (16, 5, 5, 2)
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var((0, 1, 2)), 1, atol=1e-4)


@pytest.mark.parametrize("shape", [(4,), (12, 12, 3)])
def test_the_inputs_are_normalised_first(shape):
    """A new norm gives each feature, or channel, mean 0 and variance 1, whatever the inputs are."""
    options = ModelConfig(channels=(2,) if len(shape) == 3 else None, hidden=(4,), norm_input=True)
    model, x = network(options, shape=shape), jax.random.normal(jax.random.key(0), (8, *shape))
    variables = variables_of(model, shape)
    assert variables["params"]["norm0"]["scale"].shape == shape[-1:]
    logits = [model.apply(variables, scaled, train=True, mutable=["batch_stats"])[0] for scaled in (x, 100 + 7 * x)]
    np.testing.assert_allclose(*logits, atol=1e-3)
    none = network(dataclasses.replace(options, norm_placement="none"), shape=shape)
    assert "batch_stats" not in variables_of(none, shape)


def test_the_hidden_layer_of_a_cnn_has_norm_and_activation_where_asked_for():
    options = ModelConfig(channels=(2, 3, 4), hidden=(5,), padding="same", pool_every=2, norm_hidden=True)
    order = [
        f"{layer}{i}" if layer != "activation" else layer for i in (1, 2, 3) for layer in ("conv", "norm", "activation")
    ]
    assert calls(network(options)) == [*order, "dense", "norm4", "activation"]
    variables = variables_of(network(options))
    assert set(variables["params"]["dense"]) == {"kernel"}
    assert variables["params"]["dense"]["kernel"].shape == (6 * 6 * 4, 5)  # pooled once, behind the second
    without = network(dataclasses.replace(options, norm_placement="none"))
    assert calls(without)[-2:] == ["dense", "activation"]


def test_widths_and_kinds():
    cnn, mlp = network(ModelConfig(channels=(2, 3), hidden=(7,))), network(ModelConfig(hidden=(5,)), shape=(4,))
    assert isinstance(cnn, CNN)
    assert (cnn.channels, cnn.hidden) == ((2, 3), 7)
    assert isinstance(mlp, MLP)
    assert mlp.hidden == (5,)
    assert isinstance(network(ModelConfig(network="mlp")), MLP)


@pytest.mark.parametrize(
    ("name", "scale", "limit"),
    [
        ("lecun", np.sqrt(1 / 90), None),
        ("he", np.sqrt(2 / 90), None),
        ("glorot", np.sqrt(2 / (90 + 9 * 64)), np.sqrt(6 / (90 + 9 * 64))),
        ("normal", 0.25, None),
    ],
)
def test_kernels_begin_with_the_spread_of_their_initialisation(name, scale, limit):
    """The second convolution has 3·3·10 inputs and 3·3·64 outputs; 5,760 entries tell the spread to 2% or so."""
    options = ModelConfig(channels=(10, 64), hidden=(3,), norm_hidden=False, kernel_init=name, kernel_std=0.25)
    model = network(options)
    params = variables_of(model)["params"]
    kernel = np.asarray(params["conv2"]["kernel"])
    assert kernel.shape == (3, 3, 10, 64)
    assert kernel.std() == pytest.approx(scale, rel=0.05)
    if limit is not None:
        assert 0.99 * limit < np.abs(kernel).max() <= limit
    for layer in ("dense", "logits"):
        assert not params[layer]["bias"].any()


def test_dropout_sets_its_share_to_zero_in_training_and_nothing_in_evaluation():
    """All values are small multiples of a power of two, so that every order of a sum gives the same."""
    features, kept_share = 4096, 0.25
    options = ModelConfig(network="mlp", hidden=(features,), dropout=1 - kept_share, norm_placement="none")
    model = network(options, shape=(4,))
    first = {"kernel": jnp.full((4, features), 1 / 4), "bias": jnp.zeros(features)}  # each feature: 1
    mean = {"kernel": jnp.full((features, 3), 1 / features), "bias": jnp.zeros(3)}
    variables = variables_of(model, (4,)) | {"params": {"dense1": first, "logits": mean}}
    x = jnp.ones((5, 4))
    np.testing.assert_array_equal(model.apply(variables, x, train=False), 1)
    kept = np.asarray(model.apply(variables, x, train=True, rngs={"dropout": jax.random.key(0)})) * kept_share
    np.testing.assert_array_equal(kept * features, np.round(kept * features))  # whole features are kept or not
    np.testing.assert_allclose(kept, kept_share, atol=5 * np.sqrt(kept_share * (1 - kept_share) / features))
    assert len(set(kept[:, 0])) > 1


def test_dropout_draws_anew_at_each_step_and_the_same_again(plan):
    model = network(ModelConfig(channels=(2,), hidden=(8,), dropout=0.5))
    state = init_state(model, optax.sgd(0.0), plan.train.inputs[:1], 0)
    batch = Examples(plan.train.inputs[:8], plan.train.labels[:8])
    step = jax.jit(partial(train_step, model, optax.sgd(0.0), options=StepOptions(seed=3)))
    losses = [float(step(state._replace(step=jnp.int32(t)), batch)[1].loss) for t in (0, 1, 2, 0)]
    assert len(set(losses)) == 3
    assert losses[3] == losses[0]


def test_smoothed_labels_are_learned_and_the_plain_loss_is_reported(plan):
    """The gradient is that of the cross-entropy with (1 − a) on the label and a/3 on each of 3 classes."""
    batch = Examples(plan.train.inputs[:8], plan.train.labels[:8])
    state, tx = loop.initial_state(plan), optax.sgd(1.0)
    state = state._replace(optimizer=tx.init(state.params))
    after, metrics = jax.jit(partial(train_step, plan.model, tx, options=StepOptions(0.3)))(state, batch)
    targets = optax.smooth_labels(jax.nn.one_hot(batch.labels, 3), 0.3)

    def loss(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, _ = plan.model.apply(variables, batch.inputs / 255.0, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy(logits, targets).mean()

    expected = jax.jit(jax.grad(loss))(state.params)
    for a, b, gradient in zip(*map(jax.tree.leaves, (state.params, after.params, expected)), strict=True):
        assert_close(a - b, gradient, condition=50)
    _, plain = jax.jit(partial(train_step, plan.model, tx))(state, batch)
    assert_close(metrics.loss, plain.loss, size=0)


def test_bfloat16_computes_in_it_and_keeps_float32():
    model = network(ModelConfig(channels=(2,), hidden=(4,), precision="bfloat16"))
    variables = variables_of(model)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    logits, updates = jax.eval_shape(
        partial(model.apply, train=True, mutable=["batch_stats"]), variables, jnp.zeros((2, 12, 12, 1))
    )
    assert logits.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(jnp.float32)}


def test_the_options_of_the_norm_reach_it():
    options = NormConfig(0.5, 0.25, "constant", True, 4, "constant", 2.0, 1.5)
    norm = norm_of(network(norm=options))
    assert (norm.momentum, norm.epsilon, norm.unbiased, norm.ghost_batch_size) == (0.5, 0.25, True, 4)
    assert norm.renorm == (2.0, 1.5)


@pytest.mark.parametrize(("average", "weights"), [("cumulative", [0, 1 / 2, 2 / 3]), ("debiased", [0, 1 / 3, 3 / 7])])
def test_other_averages_are_schedules_with_a_count(average, weights):
    """Debiased with 1/2: m(1 − mᵗ)/(1 − mᵗ⁺¹)."""
    model = network(ModelConfig(channels=(2,), hidden=(4,)), NormConfig(norm_momentum=0.5, norm_average=average))
    assert variables_of(model)["batch_stats"]["norm1"]["count"] == 0
    momentum = norm_of(model).momentum
    assert_close([momentum(t) for t in range(3)], weights, size=0)


def test_the_ramp_of_renorm_is_the_papers_in_proportion():
    """Of 160 steps: plain for 5, d until 25, r until 40."""
    renorm = norm_of(network(norm=NormConfig(norm_renorm="ramp"), steps=160)).renorm
    assert [float(renorm.r_max(t)) for t in (0, 5, 40, 99)] == [1, 1, 3, 3]
    assert [float(renorm.d_max(t)) for t in (0, 5, 15, 25, 99)] == [0, 0, 2.5, 5, 5]


@pytest.mark.parametrize(
    ("model", "norm", "shape", "message"),
    [
        ({"channels": (3,)}, {}, (4,), r"--channels applies to a cnn, and this is an mlp: leave it out, or pass"),
        ({"pool_every": 2}, {}, (4,), r"--pool-every applies to a cnn, and this is an mlp: leave it out, or pass"),
        ({"padding": "same"}, {}, (4,), r"--padding applies to a cnn, and this is an mlp"),
        ({"pool_every": 0}, {}, (12, 12, 1), r"--pool-every must be at least 1; got 0"),
        ({"activation": ()}, {}, (4,), r"--activation must be one name or more; got none"),
        (
            {"activation": ("elu", "relu"), "hidden": (3,)},
            {},
            (4,),
            r"--activation must be one for all layers, or one for each of the 1 that are activated; got elu relu",
        ),
        (
            {"activation": ("elu", "relu"), "channels": (3, 3), "hidden": (3,), "norm_hidden": True},
            {},
            (12, 12, 1),
            r"--activation must be .* each of the 3 that are activated; got elu relu",
        ),
        ({"network": "cnn"}, {}, (4,), r"--network cnn needs images, and these inputs are of shape \(4,\): choose mlp"),
        ({"hidden": (3, 4)}, {}, (12, 12, 1), r"--hidden of a cnn must be one number, as in --hidden 256; got 3 4"),
        (
            {"channels": (3, 3), "crop": 2},
            {},
            (12, 12, 1),
            r"--channels has 2 entries, too many for images of 8x8 \(after --crop\): each",
        ),
        ({"crop": 6}, {}, (14, 12, 1), "--crop must leave a part of images of 14x12, and it takes 6 from each of two"),
        ({"crop": -1}, {}, (12, 12, 1), "--crop must be at least 0; got -1"),
        ({"crop": 1}, {}, (4,), r"--crop needs images, and these inputs are of shape \(4,\): leave it out"),
        ({"shift": -1}, {}, (12, 12, 1), "--shift must be at least 0; got -1"),
        ({"shift": 9}, {}, (9, 12, 1), "--shift must leave a part of images of 9x12 in place; got 9"),
        ({"shift": 1}, {}, (4,), r"--shift needs images, and these inputs are of shape \(4,\): leave it out"),
        ({"deslant": "on"}, {}, (4,), r"--deslant on needs images, and these inputs are of shape \(4,\): leave it"),
        ({"channels": (3, 3, 3)}, {}, (12, 12, 1), r"--channels has 3 entries, too many for images of 12x12: each"),
        (
            {"channels": (3, 3, 3, 3), "padding": "same"},
            {},
            (12, 12, 1),
            r"--channels has 4 entries, too many for images of 12x12: each pooling halves it",
        ),
        ({"channels": (0,)}, {}, (12, 12, 1), r"--channels must be numbers from 1 to 1,000,000; got 0"),
        ({"hidden": ()}, {}, (4,), r"--hidden must be numbers from 1 to 1,000,000; got none"),
        ({"hidden": (8, 10**12)}, {}, (4,), r"--hidden must be numbers from 1 to 1,000,000; got 8 1000000000000"),
        ({"dropout": 1.0}, {}, (4,), r"--dropout must be at least 0 and below 1; got 1"),
        ({"kernel_std": -1.0}, {}, (4,), r"--kernel-std must be at least 0 and finite; got -1"),
        ({}, {"norm_renorm": "ramp"}, (4,), r"--norm-renorm ramp needs a run of 7 steps or more; got 6"),
        ({}, {"norm_renorm": "constant", "norm_r_max": 0.5}, (4,), r"r_max must be at least 1; got 0\.5"),
    ],
)
def test_networks_that_cannot_be_are_refused(model, norm, shape, message):
    config = Config(model=ModelConfig(**model), norm=NormConfig(**norm))
    with pytest.raises(UsageError, match=message):  # noqa: PT012  (some are seen before the data are)
        check(config)
        check_norm(config.norm)
        build(config, shape, 3, "cpu", total_steps=6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup": 1.0}, r"--warmup must be at least 0 and below 1; got 1\.0"),
        ({"sgd_momentum": -0.5}, r"--sgd-momentum must be at least 0 and below 1; got -0\.5"),
        ({"label_smoothing": 1.0}, r"--label-smoothing must be at least 0 and below 1; got 1\.0"),
        ({"adam_epsilon": 0.0}, r"--adam-epsilon must be positive and finite; got 0\.0"),
        ({"clip_norm": -1.0}, r"--clip-norm must be positive and finite; got -1\.0"),
        ({"clip_value": float("nan")}, r"--clip-value must be positive and finite; got nan"),
        ({"weight_decay": -1.0}, r"--weight-decay must be at least 0 and finite; got -1\.0"),
    ],
)
def test_options_of_the_optimiser_that_cannot_be_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        check(Config(optimizer=OptimizerConfig(epochs=1, batch_size=8, **options)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            Config(norm=NormConfig(norm_ghost_batch=3)),
            r"--norm-ghost-batch must divide the batch of 8; got 3",
        ),
        (Config(norm=NormConfig(norm_ghost_batch=1)), r"--norm-ghost-batch must be at least 2; got 1"),
        (Config(data=DataConfig(validation=1.0)), r"--validation must be at least 0 and below 1; got 1"),
        (Config(data=DataConfig(validation=-0.1)), r"--validation must be at least 0 and below 1; got -0\.1"),
        (Config(data=DataConfig(validation=0.001)), r"--validation 0\.001 of 50 training examples holds out no"),
        (Config(run=RunConfig(seed=-1)), r"--seed must be from 0 to 4294967295; got -1"),
    ],
)
def test_other_options_that_cannot_be_are_refused(config, message, blobs):
    config = dataclasses.replace(config, optimizer=OptimizerConfig(epochs=1, batch_size=8))
    with pytest.raises(UsageError, match=message):  # noqa: PT012  (one is seen when the data are)
        check(config)
        make_plan(config, blobs)


def test_what_is_held_out_is_not_trained_on_and_the_same_each_time(blobs):
    whole, parts = splits(blobs, 0.0), splits(blobs, 0.3)
    assert whole.validation is None
    np.testing.assert_array_equal(whole.train.inputs, blobs.train_inputs)
    assert parts.validation is not None
    assert (parts.train.labels.size, parts.validation.labels.size, parts.test.labels.size) == (35, 15, 23)
    both = np.concatenate([parts.train.inputs, parts.validation.inputs]).reshape(50, -1)
    assert sorted(map(bytes, both)) == sorted(map(bytes, blobs.train_inputs.reshape(50, -1)))
    again = splits(blobs, 0.3).validation
    assert again is not None
    np.testing.assert_array_equal(again.inputs, parts.validation.inputs)
    plan = make_plan(Config(data=DataConfig(validation=0.3), optimizer=OptimizerConfig(epochs=1, batch_size=8)), blobs)
    assert plan.steps_per_epoch == 35 // 8
