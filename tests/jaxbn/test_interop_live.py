"""The other libraries themselves beside ours: training, statistics and evaluation, and the known differences."""

import importlib
import os
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close as assert_promised

import jaxbn
from benchmarks.interop import STEPS, batches, make_learned, train_both
from benchmarks.live_layers import DECAY, EPSILON, LIBRARIES, Equinox, Haiku, Keras, Learned, Live, Torch
from jaxbn import interop

SHAPE = (8, 3, 5, 4)
CHANNELS = SHAPE[-1]
NOTHING = Learned(None, None)


@pytest.fixture(autouse=True)
def strict():
    """The other libraries rely on implicit promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def needs(module: str) -> Any:
    os.environ.setdefault("KERAS_BACKEND", "jax")
    library = pytest.importorskip(module)
    if module == "keras" and library.backend.backend() != "jax":
        pytest.skip(f"Keras computes with {library.backend.backend()}")
    return library


def make(name: str, learned: Learned | None = None) -> Live:
    module, make_live = LIBRARIES[name]
    needs(module)
    return make_live(make_learned(CHANNELS, 0) if learned is None else learned, CHANNELS)


assert_close = partial(assert_promised, condition=10)  # both libraries err, theirs by E[x²] − E[x]²

RIGHT = [name for name in LIBRARIES if not name.startswith("Equinox")]


@pytest.mark.parametrize("learned", [None, NOTHING], ids=["affine", "plain"])
@pytest.mark.parametrize("name", RIGHT)
def test_ten_steps_of_training_are_the_same(name, learned):
    live = make(name, learned)
    steps = list(train_both(live, batches(SHAPE, 0)))
    assert len(steps) == STEPS
    for number, step in enumerate(steps, 1):
        assert step.their_state is not None
        assert step.our_state is not None
        assert_close(step.theirs, step.ours)
        assert_close(step.their_state.mean, step.our_state.mean)
        assert_close(step.their_state.var, step.our_state.var)
        assert int(step.our_state.count) == number
        if not name.startswith("Keras"):  # which does not count
            assert int(step.their_state.count) == number


@pytest.mark.parametrize("learned", [None, NOTHING], ids=["affine", "plain"])
@pytest.mark.parametrize("name", LIBRARIES)
def test_evaluation_of_what_they_trained_is_the_same(name, learned):
    live = make(name, learned)
    *given, fresh = batches(SHAPE, 0, STEPS + 1)
    for x in given:
        live.train(x)
    params, state, options = live.converted()
    y, _ = jaxbn.batch_norm(params, state, fresh, train=False, **options)
    assert_close(y, live.evaluate(fresh))


@pytest.mark.parametrize("name", RIGHT)
def test_evaluation_of_what_each_trained_is_the_same(name):
    live = make(name)
    params, _, options = live.converted()
    *given, fresh = batches(SHAPE, 1, STEPS + 1)
    *_, last = train_both(live, iter(given))
    y, _ = jaxbn.batch_norm(params, last.our_state, fresh, train=False, **options)
    assert_close(y, live.evaluate(fresh))


@pytest.mark.parametrize("name", [name for name in LIBRARIES if name not in ("Haiku", 'Equinox "ema"')])
def test_evaluation_before_training_is_the_same(name):
    live = make(name)
    params, state, options = live.converted()
    (x,) = batches(SHAPE, 0, 1)
    assert_close(jaxbn.batch_norm(params, state, x, train=False, **options)[0], live.evaluate(x))
    expected = jax.tree.map(np.asarray, jaxbn.init(CHANNELS)[1])
    assert all(map(np.array_equal, jax.tree.leaves(state), jax.tree.leaves(expected)))


# PyTorch


def state_dict(live: Torch) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().copy() for name, tensor in live.layer.state_dict().items()}


def assert_same_bits(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert list(left) == list(right)
    for name, value in left.items():
        assert (value.dtype, value.shape) == (right[name].dtype, right[name].shape)
        assert value.tobytes() == right[name].tobytes(), name


@pytest.mark.parametrize("learned", [None, Learned(np.ones(CHANNELS, np.float32), None), NOTHING])
@pytest.mark.parametrize("track", [True, False])
def test_a_state_dict_of_torch_and_back_is_the_same_bits(learned, track):
    torch = needs("torch")
    live = Torch(make_learned(CHANNELS, 0) if learned is None else learned, CHANNELS, track=track)
    for x in batches(SHAPE, 0):
        live.train(x)
    entries = state_dict(live)
    params, state, _ = live.converted()
    back = interop.to_torch(params, state)
    assert_same_bits(back, entries)
    live.layer.load_state_dict({name: torch.from_numpy(value) for name, value in back.items()})
    assert_same_bits(state_dict(live), entries)


def test_torch_without_running_statistics():
    needs("torch")
    live = Torch(make_learned(CHANNELS, 0), CHANNELS, track=False)
    params, state, options = live.converted()
    assert state is None
    (x,) = batches(SHAPE, 0, 1)
    y, _ = jaxbn.batch_norm(params, state, x, train=False, **options)
    assert_close(y, live.evaluate(x))


def test_a_whole_network_of_torch():
    torch = needs("torch")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    network.append(torch.nn.BatchNorm1d(2))
    x = np.random.default_rng(0).standard_normal((16, 3)).astype(np.float32)
    with torch.no_grad():
        for _ in range(3):
            network(torch.from_numpy(x))
        expected = network.eval()(torch.from_numpy(x)).numpy()
    entries = network.state_dict()
    y = x
    for dense, norm in (("0", "1"), ("2", "3")):
        y = y @ entries[f"{dense}.weight"].numpy().T + entries[f"{dense}.bias"].numpy()
        params, state, options = interop.from_torch(entries, f"{norm}.")
        y, _ = jaxbn.batch_norm(params, state, y, train=False, **options)
    assert_close(y, expected)


def test_what_torch_trains_does_not_change_what_was_converted():
    needs("torch")
    live = Torch(make_learned(CHANNELS, 0), CHANNELS)
    before = live.converted()
    first, *_ = batches(SHAPE, 0)
    live.train(first)
    assert before.state is not None
    assert not before.state.mean.any()


def test_tensors_of_torch_that_numpy_does_not_know():
    torch = needs("torch")
    entries = torch.nn.BatchNorm2d(CHANNELS, dtype=torch.bfloat16).state_dict()
    with pytest.raises(
        TypeError, match=r"weight must be readable as a NumPy array.*tensor.detach\(\).cpu\(\).float\(\)"
    ):
        interop.from_torch(entries)
    with pytest.raises(TypeError, match=r"weight must be readable as a NumPy array"):
        interop.from_torch(dict(torch.nn.BatchNorm2d(CHANNELS).named_parameters()))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_beside_torch(dtype):
    """Half-precision input, float32 parameters, as under autocast: statistics are float32's on both sides."""
    torch = needs("torch")
    live = Torch(make_learned(CHANNELS, 0), CHANNELS)
    params, state, options = live.converted()
    for x in batches(SHAPE, 0):
        half = jnp.asarray(x, dtype)
        y, state = jaxbn.batch_norm(params, state, half, train=True, **options)
        tensor = torch.from_numpy(np.asarray(half, np.float32)).to(getattr(torch, dtype)).movedim(-1, 1)
        theirs = live.layer.train()(tensor).detach().movedim(1, -1).float().numpy()
        assert y.dtype == half.dtype
        epsilon = float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(np.asarray(y, np.float32), theirs, rtol=epsilon, atol=epsilon / 8)
    tracked = live.converted().state
    assert state is not None
    assert tracked is not None
    assert tracked.mean.dtype == np.float32
    assert_close(state.mean, tracked.mean)
    assert_close(state.var, tracked.var)


def test_a_layer_of_torch_in_half_precision_and_back_is_the_same_bits():
    torch = needs("torch")
    layer = torch.nn.BatchNorm2d(CHANNELS).half()
    with torch.no_grad():
        layer.running_mean.copy_(torch.linspace(-1, 1, CHANNELS))
        layer.running_var.copy_(torch.linspace(0.1, 3, CHANNELS))
    entries = {name: tensor.numpy().copy() for name, tensor in layer.state_dict().items()}
    params, state, _ = interop.from_torch(entries)
    assert state is not None
    assert state.var.dtype == np.float32
    back = {name: torch.from_numpy(value) for name, value in interop.to_torch(params, state).items()}
    fresh = torch.nn.BatchNorm2d(CHANNELS).half()
    fresh.load_state_dict(back)
    assert_same_bits({name: tensor.numpy() for name, tensor in fresh.state_dict().items()}, entries)


def test_a_safetensors_file(tmp_path):
    """The file format that docs/migrating.md recommends: arrays only, written by PyTorch, read by NumPy, and back."""
    needs("torch")
    safetensors = needs("safetensors.numpy")
    save_torch = importlib.import_module("safetensors.torch").save_file
    live = Torch(make_learned(CHANNELS, 0), CHANNELS)
    for x in batches(SHAPE, 0):
        live.train(x)
    save_torch({f"bn.{name}": tensor for name, tensor in live.layer.state_dict().items()}, tmp_path / "net.safetensors")
    params, state, _ = interop.from_torch(safetensors.load_file(tmp_path / "net.safetensors"), "bn")
    safetensors.save_file(interop.to_torch(params, state), tmp_path / "back.safetensors")
    assert_same_bits(
        dict(sorted(safetensors.load_file(tmp_path / "back.safetensors").items())),
        dict(sorted(state_dict(live).items())),
    )


# Keras


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
def test_weights_of_keras_and_back_are_the_same_bits(scale, center):
    needs("keras")
    full = make_learned(CHANNELS, 0)
    live = Keras(Learned(full.scale if scale else None, full.bias if center else None), CHANNELS)
    for x in batches(SHAPE, 0):
        live.train(x)
    weights = [np.array(np.asarray(weight)) for weight in live.layer.weights]
    params, state, _ = live.converted()
    assert state is not None
    assert ((params.scale is not None), (params.bias is not None)) == (scale, center)
    live.layer.set_weights(interop.to_keras(params, state))
    for left, right in zip(weights, live.layer.weights, strict=True):
        assert left.tobytes() == np.asarray(right).tobytes()


def test_keras_takes_its_own_epsilon():
    keras = needs("keras")
    layer = keras.layers.BatchNormalization()
    layer.build((None, CHANNELS))
    params, state, options = interop.from_keras(layer.weights)
    x = np.full((2, CHANNELS), 2.0, np.float32)
    y, _ = jaxbn.batch_norm(params, state, x, train=False, **options)
    assert_close(y, layer(x, training=False))
    assert_close(y, 2 / np.sqrt(1.001))


@pytest.mark.parametrize(("name", "outputs"), [("Keras (JAX)", 1e-3), ("Haiku", 1e-2)])
def test_a_large_mean_is_not_for_keras_nor_haiku(name, outputs):
    """Keras applies x · k + (β − μ · k), which cancels; Haiku's variance E[x²] − E[x]² does. Ours is right."""
    live = make(name, NOTHING)
    params, state, options = live.converted()
    (x,) = batches(SHAPE, 0, 1, mean=20_000.0)
    exact = np.float64(x)
    exact = (exact - exact.mean((0, 1, 2))) / np.sqrt(exact.var((0, 1, 2)) + EPSILON)
    y, _ = jaxbn.batch_norm(params, state, x, train=True, **options)
    np.testing.assert_allclose(y, exact, atol=2e-6)
    assert np.nanmax(np.abs(live.train(x) - exact)) > outputs


# Haiku


@pytest.mark.parametrize("learned", [None, NOTHING], ids=["affine", "plain"])
def test_trees_of_haiku_and_back(learned):
    """`average` and `counter` bit for bit, `hidden` up to rounding; and Haiku goes on from there."""
    live = make("Haiku", learned)
    assert isinstance(live, Haiku)
    *given, following = batches(SHAPE, 0, STEPS + 1)
    for x in given:
        live.train(x)
    params, state, _ = live.converted()
    assert state is not None
    learned_back, averages = interop.to_haiku(params, state, decay_rate=DECAY)
    assert jax.tree.structure((learned_back, averages)) == jax.tree.structure((dict(live.params), dict(live.state)))
    for module, values in live.state.items():
        for key, value in values.items():
            found = averages[module][key]
            assert (found.dtype, found.shape) == (value.dtype, value.shape)
            assert_promised(found, value, condition=1 if key == "hidden" else 0)

    live.train(following)
    continued, live.params, live.state = live.state, learned_back, averages
    for x in (following,):
        live.train(x)
    for left, right in zip(jax.tree.leaves(live.state), jax.tree.leaves(continued), strict=True):
        assert_close(left, right)


def test_haiku_before_training_evaluates_with_the_batch_that_it_was_initialised_with():
    """Its counter and its hidden averages are 0, its averages are not; ours follow, until the first step."""
    hk = needs("haiku")

    def normalised(x, train):
        return hk.BatchNorm(False, False, DECAY, EPSILON)(x, train)

    norm = hk.transform_with_state(normalised)
    first, second = batches(SHAPE, 0, 2)
    params, state = norm.init(None, first, True)
    ours, tracked, options = interop.from_haiku(params, state, decay_rate=DECAY, eps=EPSILON)
    assert tracked is not None
    assert tracked.count == 0
    assert_close(tracked.mean, first.mean((0, 1, 2)))
    y, same = jaxbn.batch_norm(ours, tracked, second, train=False, **options)
    assert_close(y, norm.apply(params, state, None, second, False)[0])
    _, state = norm.apply(params, state, None, second, True)
    _, trained = jaxbn.batch_norm(ours, same, second, train=True, **options)
    assert_close(trained.mean, second.mean((0, 1, 2)))
    assert_close(trained.mean, state["batch_norm/~/mean_ema"]["average"].ravel())


def test_haiku_with_channels_first():
    hk = needs("haiku")
    norm = hk.transform_with_state(lambda x: hk.BatchNorm(True, True, DECAY, EPSILON, data_format="NC...")(x, True))
    (x,) = batches(SHAPE, 0, 1)
    x = np.moveaxis(x, -1, 1)
    params, state = norm.init(None, x)
    theirs, state = norm.apply(params, state, None, x)
    ours, tracked, options = interop.from_haiku(params, state, decay_rate=DECAY, eps=EPSILON, axis=1)
    y, _ = jaxbn.batch_norm(ours, jaxbn.init(CHANNELS)[1], x, train=True, axis=1, **options)
    assert_close(y, theirs)
    assert tracked is not None
    assert_close(tracked.mean, x.mean((0, 2, 3)))
    back = interop.to_haiku(ours, tracked, decay_rate=DECAY, axis=1)
    assert jax.tree.map(jnp.shape, back) == jax.tree.map(jnp.shape, (dict(params), dict(state)))


# Equinox


def test_equinox_of_mode_batch_trains_the_same_but_for_its_variance():
    """Its variance is too large by mᵗ / (1 − mᵗ): it starts at 1, but is divided as if it started at 0."""
    live = make('Equinox "batch"')
    for number, step in enumerate(train_both(live, batches(SHAPE, 0)), 1):
        assert step.their_state is not None
        assert step.our_state is not None
        assert_close(step.theirs, step.ours)
        assert_close(step.their_state.mean, step.our_state.mean)
        excess = DECAY**number / (1 - DECAY**number)
        assert excess > 0.5
        assert_close(step.their_state.var, step.our_state.var + excess)


def test_what_equinox_has_too_much_of_can_be_taken_off():
    live = make('Equinox "batch"')
    assert isinstance(live, Equinox)
    for step in train_both(live, batches(SHAPE, 0)):
        corrected = interop.from_equinox(live.arrays(), momentum=DECAY, remove_initial_variance=True).state
        assert corrected is not None
        assert step.our_state is not None
        assert_close(corrected.var, step.our_state.var)


def test_equinox_of_mode_ema_normalises_with_the_running_statistics():
    """Its statistics are ours; its output in training is our evaluation with the updated statistics."""
    live = make('Equinox "ema"')
    params, _, options = live.converted()
    for number, (x, step) in enumerate(zip(batches(SHAPE, 0), train_both(live, batches(SHAPE, 0)), strict=True)):
        assert step.their_state is not None
        assert step.our_state is not None
        assert_close(step.their_state.mean, step.our_state.mean)
        assert_close(step.their_state.var, step.our_state.var)
        evaluated, _ = jaxbn.batch_norm(params, step.our_state, x, train=False, **options)
        assert_close(step.theirs, evaluated)
        assert bool(np.allclose(step.theirs, step.ours, atol=1e-2)) == (number == 0)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("mode", ["batch", "ema"])
@pytest.mark.parametrize("steps", [0, STEPS])
def test_arrays_of_equinox_and_back(mode, affine, steps):
    """Bit for bit, except for the hidden averages of mode "batch", which are computed again."""
    needs("equinox")
    live = Equinox(make_learned(CHANNELS, 0) if affine else NOTHING, CHANNELS, mode)
    for x in batches(SHAPE, 0, steps):
        live.train(x)
    params, state, _ = live.converted()
    assert state is not None
    back = interop.to_equinox(params, state, mode=mode, momentum=DECAY)
    arrays = {name: value for name, value in live.arrays().items() if value is not None}
    assert set(back) == set(arrays)
    for name, value in arrays.items():
        for left, right in zip(jax.tree.leaves(back[name]), jax.tree.leaves(value), strict=True):
            assert isinstance(left, int) or left.dtype == right.dtype
            assert_promised(left, right, condition=1 if name == "batch_state_index" else 0)


@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_equinox_evaluates_what_we_trained(mode):
    eqx = needs("equinox")
    params, state = jaxbn.init(CHANNELS)
    options = interop.options_from_equinox(DECAY, EPSILON, mode=mode)
    *given, fresh = batches(SHAPE, 0, STEPS + 1)
    for x in given:
        _, state = jaxbn.batch_norm(params, state, x, train=True, **options)
    live = Equinox(make_learned(CHANNELS, 0), CHANNELS, mode)
    arrays: dict[str, Any] = interop.to_equinox(params, state, mode=mode, momentum=DECAY)
    learned = (arrays.pop("weight"), arrays.pop("bias"))
    live.layer = eqx.tree_at(lambda layer: (layer.weight, layer.bias), live.layer, learned)
    for name, value in arrays.items():
        live.state = live.state.set(getattr(live.layer, name), value)
    expected, _ = jaxbn.batch_norm(params, state, fresh, train=False, **options)
    assert_close(live.evaluate(fresh), expected)
