"""Conversions without the other libraries installed: their formats are written here as arrays."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close

import jaxbn
from jaxbn import BatchNormParams, BatchNormState, interop

CHANNELS = 5
DECAY = 0.9


def vector(seed: int, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(seed).uniform(0.1, 3.0, CHANNELS).astype(dtype)


def updates(number: int) -> Any:
    return np.array(number, np.int32)


def torch_entries(prefix: str = "", dtype: Any = np.float32) -> dict[str, Any]:
    names = ("weight", "bias", "running_mean", "running_var")
    entries = {prefix + name: vector(seed, dtype) for seed, name in enumerate(names)}
    return entries | {f"{prefix}num_batches_tracked": np.array(12, np.int64)}


def haiku_trees(name: str = "batch_norm", ndim: int = 4) -> tuple[dict, dict]:
    wide = (1,) * (ndim - 1) + (CHANNELS,)
    params = {name: {"scale": vector(0).reshape(wide), "offset": vector(1).reshape(wide)}}
    state = {}
    for seed, module in enumerate(("mean_ema", "var_ema"), start=2):
        average = vector(seed).reshape(wide)
        weight = np.float32(1) - np.power(np.float32(DECAY), np.float32(3))
        state[f"{name}/~/{module}"] = {"counter": np.array(3, np.int32), "hidden": average * weight, "average": average}
    return params, state


def equinox_arrays(mode: str) -> dict:
    pair = (vector(2), vector(3) + 1)
    learned = {"weight": vector(0), "bias": vector(1)}
    if mode == "batch":
        return learned | {"batch_counter": np.array(3, np.int32), "batch_state_index": pair}
    return learned | {"ema_first_time_index": np.array(False), "ema_state_index": pair}


def ours(
    *, scale: bool = True, bias: bool = True, count: int = 12, dtype: Any = np.float32
) -> tuple[BatchNormParams, Any]:
    params = BatchNormParams(vector(0, dtype) if scale else None, vector(1, dtype) if bias else None)
    wide = np.promote_types(dtype, np.float32) if dtype in (np.float16, np.float64) else np.float32
    return params, BatchNormState(vector(2, wide), vector(3, wide), updates(count))


def assert_same(found, expected) -> None:
    """Assert the same structure, types and bits."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert isinstance(left, np.ndarray)
        assert (left.dtype, left.shape) == (np.asarray(right).dtype, right.shape)
        assert left.tobytes() == np.asarray(right).tobytes()


# Round trips


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize(("scale", "bias"), [(True, True), (True, False), (False, False)])
def test_torch_and_back_is_the_same_bits(scale, bias, dtype):
    params, state = ours(scale=scale, bias=bias, dtype=dtype)
    entries = interop.to_torch(params, state, "bn.")
    assert_same(interop.from_torch(entries, "bn.")[:2], (params, state))
    assert entries["bn.num_batches_tracked"].dtype == np.int64
    assert_same(interop.to_torch(*interop.from_torch(entries, "bn.")[:2], "bn."), entries)


def test_torch_without_statistics():
    params, _ = ours()
    entries = interop.to_torch(params, None)
    assert list(entries) == ["weight", "bias"]
    found = interop.from_torch(entries)
    assert found.state is None
    assert_same(found.params, params)
    assert interop.from_torch(interop.to_torch(BatchNormParams(None, None), None))[:2] == ((None, None), None)


@pytest.mark.parametrize("prefix", ["layer1.0.bn1.", "layer1.0.bn1"])
def test_one_norm_of_a_whole_torch_network(prefix):
    network = {"conv1.weight": np.zeros((2, 2)), **torch_entries("layer1.0.bn1."), **torch_entries("layer1.0.bn10.")}
    params, state, options = interop.from_torch(network, prefix)
    assert options == {"momentum": 0.9, "epsilon": 1e-5, "unbiased": True}
    assert_same(interop.to_torch(params, state, prefix), torch_entries("layer1.0.bn1."))


@pytest.mark.parametrize(("scale", "bias"), [(True, True), (True, False), (False, True), (False, False)])
def test_keras_and_back_is_the_same_bits(scale, bias):
    params, state = ours(scale=scale, bias=bias)
    weights = interop.to_keras(params, state)
    assert len(weights) == 2 + scale + bias
    found = interop.from_keras(weights, scale=scale, center=bias, updates=12)
    assert_same(found[:2], (params, state))
    assert found.state is not None
    assert_same(interop.to_keras(found.params, found.state), weights)


def test_the_order_of_keras():
    gamma, beta, mean, var = (vector(seed) for seed in range(4))
    params, state, _ = interop.from_keras([gamma, beta, mean, var])
    assert_same((params, state), (BatchNormParams(gamma, beta), BatchNormState(mean, var, updates(0))))


@pytest.mark.parametrize(("ndim", "axis"), [(4, -1), (4, 1), (2, -1), (3, 2)])
@pytest.mark.parametrize(("scale", "bias"), [(True, True), (False, True), (False, False)])
def test_haiku_from_ours_and_back_is_the_same_bits(scale, bias, ndim, axis):
    params, state = ours(scale=scale, bias=bias)
    learned, averages = interop.to_haiku(params, state, "net/~/bn", decay_rate=DECAY, ndim=ndim, axis=axis)
    shape = [1] * ndim
    shape[axis] = CHANNELS
    assert {leaf.shape for leaf in jax.tree.leaves((learned, averages)) if leaf.ndim} == {tuple(shape)}
    found = interop.from_haiku(learned, averages, "net/~/bn", decay_rate=DECAY, axis=axis)
    assert_same(found[:2], (params, state))


def test_haiku_and_back():
    params, state = haiku_trees()
    found = interop.from_haiku(params, state, decay_rate=DECAY)
    assert found.state is not None
    assert_same(found.state, BatchNormState(vector(2), vector(3), updates(3)))
    assert_same(interop.to_haiku(found.params, found.state, decay_rate=DECAY), (params, state))


def test_one_channel_of_haiku():
    params, state = interop.to_haiku(*jaxbn.init(1), decay_rate=DECAY)
    found = interop.from_haiku(params, state, decay_rate=DECAY)
    assert found.params.scale is not None
    assert found.params.scale.shape == (1,)


def test_what_equinox_divides_by():
    """Ours is hidden / (1 − mᵗ); on request, the rest mᵗ of the variance's initial value is subtracted first."""
    arrays = equinox_arrays("batch")
    mean, var = (np.float64(part) for part in arrays["batch_state_index"])
    weight = 1 - DECAY**3
    params, state, _ = interop.from_equinox(arrays, momentum=DECAY)
    assert state is not None
    assert_close(state.mean, mean / weight)
    assert_close(state.var, var / weight, size=0)
    assert_same((params, state.count), (BatchNormParams(vector(0), vector(1)), np.array(3, np.int32)))
    back = interop.to_equinox(params, state, momentum=DECAY)
    assert_close(back["batch_state_index"], (mean, var))

    corrected = interop.from_equinox(arrays, momentum=DECAY, remove_initial_variance=True).state
    assert corrected is not None
    assert_close(corrected.var, (var - DECAY**3) / weight, size=0)
    assert corrected.mean.tobytes() == state.mean.tobytes()


@pytest.mark.parametrize("affine", [True, False])
def test_equinox_of_mode_ema_and_back_is_the_same_bits(affine):
    params, state = ours(scale=affine, bias=affine)
    arrays = interop.to_equinox(params, state, mode="ema")
    assert set(arrays) == {"ema_first_time_index", "ema_state_index"} | ({"weight", "bias"} if affine else set())
    assert_same(interop.from_equinox(arrays, updates=12)[:2], (params, state))


@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_a_new_layer_of_equinox_is_a_new_layer_here(mode):
    new = jax.tree.map(np.asarray, jaxbn.init(CHANNELS))
    arrays = interop.to_equinox(*new, mode=mode)
    if mode == "ema":
        assert arrays["ema_first_time_index"]
        assert not np.any(arrays["ema_state_index"])
    assert_same(interop.from_equinox(arrays)[:2], new)


def test_absent_and_none_are_the_same_in_equinox():
    arrays = equinox_arrays("batch") | {"weight": None, "bias": None}
    assert interop.from_equinox(arrays).params == (None, None)


# Use


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("wrap", [lambda function: function, jax.jit], ids=["eager", "jit"])
def test_what_is_converted_goes_straight_into_batch_norm(wrap, train):
    params, state, options = interop.from_torch(torch_entries())
    x = np.random.default_rng(0).standard_normal((8, CHANNELS)).astype(np.float32)
    on_device: tuple[Any, Any] = jax.tree.map(jnp.asarray, (params, state))
    expected = jaxbn.batch_norm(*on_device, x, train, **options)
    found = wrap(lambda params, state: jaxbn.batch_norm(params, state, x, train, **options))(params, state)
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert_close(left, right)


def test_training_on_does_not_change_what_was_converted():
    entries = torch_entries()
    params, state, _ = interop.from_torch(entries)
    back = interop.to_torch(params, state)
    for value in entries.values():
        value[...] = 0
    assert_same(interop.to_torch(params, state), torch_entries())
    for value in back.values():
        value[...] = 0  # writable, as torch.from_numpy wants it
    assert_same(interop.to_torch(params, state), torch_entries())


def test_statistics_in_half_precision_become_float32():
    params, state, _ = interop.from_torch(torch_entries(dtype=np.float16))
    assert state is not None
    assert params.scale is not None
    assert (params.scale.dtype, state.mean.dtype, state.var.dtype) == (np.float16, np.float32, np.float32)
    for name, value in interop.to_torch(params, state).items():
        assert np.array_equal(value, torch_entries(dtype=np.float16)[name])


def test_bfloat16():
    weights = [jnp.asarray(vector(seed), jnp.bfloat16) for seed in range(4)]
    params, state, _ = interop.from_keras(weights)
    assert params.scale is not None
    assert state is not None
    assert (params.scale.dtype, state.var.dtype) == (jnp.bfloat16, np.float32)
    assert all(
        np.array_equal(left, right) for left, right in zip(interop.to_keras(params, state), weights, strict=True)
    )


# Options


def test_options():
    expected = {"epsilon": 1e-4, "unbiased": False}
    assert interop.options_from_torch(0.25, 1e-4) == {"momentum": 0.75, "epsilon": 1e-4, "unbiased": True}
    assert interop.options_from_keras(0.75, 1e-4) == expected | {"momentum": 0.75}
    for options in (interop.options_from_haiku(0.75, 1e-4), interop.options_from_equinox(0.75, 1e-4)):
        keep: Any = options["momentum"]
        assert options | {"momentum": keep} == expected | {"momentum": keep}
        assert_close([keep(t) for t in (0, 1, 2)], [0, 3 / 7, 21 / 37])


def test_statistics_by_hand():
    """After batches with statistics s, s', s'', by each library's definition and from its initial values."""
    batches = np.random.default_rng(0).standard_normal((3, 8, CHANNELS)).astype(np.float32)
    means, variances = batches.mean(1), batches.var(1)
    params, start = jaxbn.init(CHANNELS)

    def trained(options: interop.Options) -> BatchNormState:
        state = start
        for x in batches:
            _, state = jaxbn.batch_norm(params, state, x, train=True, **options)
        return state

    def check(state: BatchNormState, weights: list[float], initial: float, var_factor: float = 1.0) -> None:
        assert_close(state.mean, weights @ means, condition=5)
        assert_close(state.var, weights @ (variances * var_factor) + initial, condition=5, size=0)

    check(trained(interop.options_from_torch(0.5)), [0.125, 0.25, 0.5], 0.125, 8 / 7)
    check(trained(interop.options_from_torch(None)), [1 / 3] * 3, 0, 8 / 7)
    check(trained(interop.options_from_keras(0.5)), [0.125, 0.25, 0.5], 0.125)
    check(trained(interop.options_from_haiku(0.5)), [1 / 7, 2 / 7, 4 / 7], 0)
    check(trained(interop.options_from_equinox(0.5)), [1 / 7, 2 / 7, 4 / 7], 0)
    check(trained(interop.options_from_equinox(0.5, mode="ema")), [0.25, 0.25, 0.5], 0)


# Errors


def without(mapping: dict, *names: str) -> dict:
    return {name: value for name, value in mapping.items() if name not in names}


class OnGpu:
    """A stand-in for a PyTorch tensor on a GPU."""

    def __array__(self):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: without(e, "running_var"), "it lacks running_var"),
        (lambda e: without(e, "running_mean", "running_var"), "it lacks running_mean, running_var"),
        (
            lambda e: without(e, "weight"),
            "must hold weight, running_mean, running_var and may hold .*; it lacks weight",
        ),
        (lambda e: e | {"gamma": e["weight"]}, "it has unknown gamma"),
        (lambda e: without(e, "running_var") | {"var": 1}, "it lacks running_var and has unknown var"),
        (
            lambda e: e | {"bias": vector(0)[:2]},
            r"the same shape \(C,\).* weight \(5,\), bias \(2,\), running_mean \(5,\)",
        ),
        (lambda e: {k: v.reshape(1, -1) for k, v in e.items() if v.ndim}, r"the same shape \(C,\).* weight \(1, 5\)"),
        (lambda e: e | {"num_batches_tracked": np.int64(2**31)}, "from 0 to 2147483647, .* got 2147483648"),
        (lambda e: e | {"num_batches_tracked": np.int64(-1)}, "num_batches_tracked must be from 0 .* got -1"),
    ],
)
def test_entries_of_torch_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        interop.from_torch(change(torch_entries()))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("weight", [1.0] * CHANNELS, "weight must be an array; got list. Convert it first: numpy.asarray"),
        ("bias", np.arange(CHANNELS), "bias must be floating; got int64"),
        ("running_mean", OnGpu(), r"running_mean must be readable .*cuda.*tensor.detach\(\).cpu\(\)"),
        ("running_var", np.array(["a"] * CHANNELS), "running_var must be floating; got str"),
        ("num_batches_tracked", np.float32(1), "num_batches_tracked must be one integer"),
        ("num_batches_tracked", np.array([1, 2]), "num_batches_tracked must be one integer"),
        ("num_batches_tracked", True, "num_batches_tracked must be an integer; got True"),
    ],
)
def test_entries_of_torch_of_the_wrong_type(name, value, message):
    with pytest.raises(TypeError, match=message):
        interop.from_torch(torch_entries() | {name: value})


def test_a_wrong_prefix_names_the_right_ones():
    network = {name: value for i in range(7) for name, value in torch_entries(f"layer{i}.bn.").items()}
    with pytest.raises(
        ValueError,
        match=r"prefix must begin the name of an entry; got 'layer9\.bn\.'.* running_mean: 'layer0.bn.', .* and 2 more",
    ):
        interop.from_torch(network, "layer9.bn")
    with pytest.raises(ValueError, match=r"a BatchNorm's entries \(prefixes that have a running_mean: 'layer0\.bn\.'"):
        interop.from_torch(network)
    with pytest.raises(ValueError, match="no prefix has a running_mean"):
        interop.from_torch({"fc.weight": vector(0)}, "bn")


def test_a_checkpoint_of_torch_without_count():
    entries = without(torch_entries(), "num_batches_tracked")
    assert_same(interop.from_torch(entries).state, BatchNormState(vector(2), vector(3), updates(0)))
    with pytest.raises(ValueError, match="must hold num_batches_tracked, since momentum=None averages"):
        interop.from_torch(entries, momentum=None)


def test_a_bias_alone_is_not_for_torch_nor_for_equinox():
    params, state = ours(scale=False)
    with pytest.raises(ValueError, match=r"must not have a bias without a scale.*; got scale=None\. Pass a scale"):
        interop.to_torch(params, state)
    with pytest.raises(ValueError, match="params must have both a scale and a bias or neither"):
        interop.to_equinox(params, state)
    with pytest.raises(ValueError, match="it lacks weight"):
        interop.from_equinox(without(equinox_arrays("batch"), "weight"))


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        ([vector(0)] * 3, {}, "the 4 arrays gamma, beta, moving_mean, moving_variance, in this order; got 3.*center"),
        ([vector(0)] * 4, {"scale": False}, "the 3 arrays beta, moving_mean, moving_variance, in this order; got 4"),
        ([vector(0)] * 7, {}, "got 7.* renorm=True, leave out the three last"),
        (
            [vector(0), vector(0), vector(0), -vector(0)],
            {},
            "negative or NaN; it is -.* Are the weights in the order",
        ),
        ([vector(0), vector(0)[:1]], {"scale": False, "center": False}, r"moving_mean \(5,\), moving_variance \(1,\)"),
        ([vector(0)] * 4, {"updates": -1}, "updates must be from 0"),
    ],
)
def test_weights_of_keras_that_do_not_fit(weights, options, message):
    with pytest.raises(ValueError, match=message):
        interop.from_keras(weights, **options)


def test_entries_of_haiku_that_do_not_fit():
    params, state = haiku_trees("net/~/bn")

    def convert(params=params, state=state, name="net/~/bn", **options):
        return interop.from_haiku(params, state, name, decay_rate=DECAY, **options)

    mean, var = "net/~/bn/~/mean_ema", "net/~/bn/~/var_ema"
    with pytest.raises(ValueError, match=r"must hold batch_norm/~/mean_ema and .*; norms found in it: 'net/~/bn'"):
        convert(name="batch_norm")
    with pytest.raises(ValueError, match="norms found in it: none"):
        convert(state={})
    with pytest.raises(ValueError, match="must hold average, hidden, counter; it lacks hidden"):
        convert(state=state | {mean: without(state[mean], "hidden")})
    with pytest.raises(ValueError, match="may hold scale, offset; it has unknown bias"):
        convert(params={"net/~/bn": {"bias": vector(0)}})
    with pytest.raises(
        ValueError, match=r"the counters of both averages must be equal; got .*mean_ema/counter 3, .*var_ema/counter 4"
    ):
        convert(state=state | {var: state[var] | {"counter": np.array(4)}})
    with pytest.raises(ValueError, match=r"of size 1 except for the channels on axis 1.*/scale \(1, 1, 1, 5\)"):
        convert(axis=1)
    with pytest.raises(ValueError, match=r"var_ema/average \(5,\)"):
        convert(state=state | {var: state[var] | {"average": vector(0)}})
    with pytest.raises(TypeError, match="mean_ema/counter must be one integer"):
        convert(state=state | {mean: state[mean] | {"counter": np.float32(3)}})


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda a: without(a, "batch_counter"), ValueError, "of mode 'batch'.* it lacks batch_counter"),
        (lambda a: a | {"scale": vector(0)}, ValueError, "it has unknown scale"),
        (lambda a: a | {"ema_first_time_index": np.array(True)}, ValueError, "of mode 'ema'.* lacks ema_state_index"),
        (
            lambda a: a | {"batch_state_index": vector(0)},
            TypeError,
            "must be a pair, the mean and the variance; got nda",
        ),
        (lambda a: a | {"batch_counter": np.array(False)}, TypeError, "batch_counter must be one integer"),
    ],
)
def test_arrays_of_equinox_that_do_not_fit(change, error, message):
    with pytest.raises(error, match=message):
        interop.from_equinox(change(equinox_arrays("batch")))


def test_a_flag_of_equinox_that_is_none():
    with pytest.raises(TypeError, match="ema_first_time_index must be a bool"):
        interop.from_equinox(equinox_arrays("ema") | {"ema_first_time_index": np.array(1)})


def test_statistics_without_count_are_not_for_equinox_to_forget():
    params, state = ours(count=0)
    with pytest.raises(
        ValueError, match=r"count must be the number of updates behind the statistics; got 0.*_replace\(count=1000\)"
    ):
        interop.to_equinox(params, state)
    arrays = interop.to_equinox(params, state, mode="ema")
    assert_same(arrays["ema_first_time_index"], np.array(False))
    assert_same(interop.from_equinox(arrays, updates=0)[:2], (params, state))


CONVERT = {
    "Keras": interop.to_keras,
    "Haiku": lambda params, state: interop.to_haiku(params, state, decay_rate=DECAY),
    "Equinox": interop.to_equinox,
}


@pytest.mark.parametrize("library", CONVERT)
def test_no_state_is_only_for_torch(library):
    with pytest.raises(ValueError, match=rf"state must be .*, since {library} always has running statistics; got None"):
        CONVERT[library](ours()[0], None)


@pytest.mark.parametrize("convert", [interop.to_torch, *CONVERT.values()], ids=["PyTorch", *CONVERT])
def test_only_our_own_values_are_converted_back(convert):
    params, state = ours()
    assert params.scale is not None
    with pytest.raises(TypeError, match=r"params must be a jaxbn.BatchNormParams\(scale, bias\); got dict"):
        convert(params._asdict(), state)
    with pytest.raises(TypeError, match=r"state must be a jaxbn.BatchNormState\(mean, var, count\) or None; got tuple"):
        convert(params, tuple(state))
    with pytest.raises(ValueError, match=r"the same shape \(C,\).* params.scale \(1, 5\)"):
        convert(params._replace(scale=params.scale[None]), state)
    with pytest.raises(TypeError, match=r"state.count must be one integer"):
        convert(params, state._replace(count=np.float32(1)))


@pytest.mark.parametrize(
    "options",
    [interop.options_from_torch, interop.options_from_keras, interop.options_from_haiku, interop.options_from_equinox],
)
def test_options_out_of_range(options):
    name = "decay_rate" if options is interop.options_from_haiku else "momentum"
    with pytest.raises(ValueError, match=rf"{name} must be in \[0, 1\]; got 1.5"):
        options(1.5)
    with pytest.raises(TypeError, match=rf"{name} must be a number in \[0, 1\]; got '0.9'"):
        options("0.9")
    with pytest.raises(TypeError, match="must be a number"):
        options(True)
    with pytest.raises(ValueError, match="epsilon must be finite and at least 0"):
        options(0.5, -1e-5)


@pytest.mark.parametrize("options", [interop.options_from_haiku, interop.options_from_equinox])
def test_an_average_that_never_moves_cannot_be_debiased(options):
    with pytest.raises(ValueError, match="decay must be at least 0 and below 1"):
        options(1.0)


def test_a_mode_that_equinox_does_not_have():
    with pytest.raises(ValueError, match='mode must be "batch" or "ema"; got \'legacy\''):
        interop.options_from_equinox(mode="legacy")  # pyright: ignore[reportArgumentType]


def test_axes_of_haiku_out_of_range():
    with pytest.raises(ValueError, match="4 dimensions: from -4 to 3; got 4"):
        interop.to_haiku(*ours(), decay_rate=DECAY, axis=4)
