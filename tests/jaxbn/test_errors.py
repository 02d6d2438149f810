"""Every error says what must hold, what arrived and what to write instead."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close

from jaxbn import BatchNormParams, BatchNormState, BatchRenorm, batch_norm, init

X = jnp.ones((4, 3))


def call(x: Any = X, train: Any = True, features: Any = 3, params: Any = None, state: Any = None, **options: Any):
    fresh = init(features)
    return batch_norm(params or fresh[0], state or fresh[1], x, train, **options)


@pytest.mark.parametrize("train", [True, False])
def test_wrong_number_of_channels(train):
    with pytest.raises(ValueError, match=r"params\.scale must have shape \(3,\).*got \(5,\).*jaxbn\.init\(\(3,\)\)"):
        call(features=5, train=train)


def test_wrong_number_of_channels_on_several_axes():
    with pytest.raises(ValueError, match=r"shape \(4, 3\).*feature axes \(0, 1\).*got \(3,\).*jaxbn\.init\(\(4, 3\)\)"):
        call(axis=(0, 1), x=jnp.ones((4, 3, 2)))


@pytest.mark.parametrize("name", ["params.bias", "state.mean", "state.var"])
def test_one_vector_of_the_wrong_shape(name):
    params, state = init(3)
    container, field = name.split(".")
    if container == "params":
        params = params._replace(**{field: jnp.ones(4)})
    else:
        state = state._replace(**{field: jnp.ones(4)})
    with pytest.raises(ValueError, match=rf"{name} must have shape \(3,\).*x of shape \(4, 3\).*got \(4,\)"):
        call(params=params, state=state)


@pytest.mark.parametrize("axis", [2, -3, (0, 2), (-1, -5)])
def test_axis_out_of_range(axis):
    with pytest.raises(ValueError, match=r"axis must .*2 dimensions: from -2 to 1; got"):
        call(axis=axis)


@pytest.mark.parametrize("axis", [(1, 1), (1, -1), (0, 1, -2)])
def test_axis_twice(axis):
    with pytest.raises(ValueError, match=r"axis must name each feature axis once; got"):
        call(axis=axis)


@pytest.mark.parametrize("axis", [1.0, "channels", None, (1, None), ("0",)])
def test_axis_of_another_type(axis):
    with pytest.raises(TypeError, match=r"axis must be an integer or a tuple of integers; got"):
        call(axis=axis)


def test_no_axis_at_all():
    with pytest.raises(ValueError, match=r"axis .*0 dimensions"):
        call(x=jnp.asarray(1.0))


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool"])
@pytest.mark.parametrize("train", [True, False])
def test_x_of_integers(dtype, train):
    with pytest.raises(TypeError, match=rf"x must be floating or complex; got {dtype}.*x\.astype\(jnp\.float32\)"):
        call(x=jnp.ones((4, 3), dtype), train=train)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [((1, 3), -1), ((1, 1, 1, 3), -1), ((1, 3, 1), 1), ((3,), -1)],
)
def test_too_few_values_to_take_statistics_of(shape, axis):
    with pytest.raises(ValueError, match=r"more than one value per channel.*has 1\. .*train=False"):
        call(x=jnp.ones(shape), axis=axis)
    with pytest.raises(ValueError, match=r"more than one value per channel"):
        batch_norm(init(3)[0], None, jnp.ones(shape), False, axis=axis)
    assert call(x=jnp.ones(shape), axis=axis, train=False)[0].shape == shape


def test_train_traced():
    with pytest.raises(TypeError, match=r"train must be a Python bool.*got a traced value.*static.*jax\.lax\.cond"):
        jax.jit(lambda train: call(train=train))(True)


def test_what_the_message_for_a_traced_train_suggests_works():
    params, state = init(3)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)

    @jax.jit
    def choose(train):
        return jax.lax.cond(
            train, lambda: batch_norm(params, state, x, True), lambda: batch_norm(params, state, x, False)
        )

    for train in (True, False):
        static = jax.jit(batch_norm, static_argnames="train")(params, state, x, train=train)
        assert_close(choose(train), static)


@pytest.mark.parametrize("train", [1, 0, None, "yes", jnp.asarray(True), [True]], ids=repr)
def test_train_is_no_bool(train):
    with pytest.raises(TypeError, match=r"train must be a Python bool; got .*bool\(train\)"):
        call(train=train)


def test_numpy_bools_are_bools():
    assert call(train=np.True_)[1].count == 1
    assert call(train=np.False_)[1].count == 0


@pytest.mark.parametrize("params", [{"scale": jnp.ones(3)}, (jnp.ones(3), jnp.zeros(3)), init(3)[1]])
def test_params_of_another_type(params):
    with pytest.raises(TypeError, match=rf"params must be a jaxbn\.BatchNormParams.*got {type(params).__name__}"):
        call(params=params)


@pytest.mark.parametrize("state", [{"mean": jnp.ones(3)}, (jnp.ones(3), jnp.zeros(3), 0), init(3)[0]])
def test_state_of_another_type(state):
    with pytest.raises(TypeError, match=rf"state must be a jaxbn\.BatchNormState.*or None; got {type(state).__name__}"):
        call(state=state)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bool_])
@pytest.mark.parametrize("train", [True, False])
def test_result_of_integers(dtype, train):
    with pytest.raises(TypeError, match=rf"dtype must be floating or complex.*got {jnp.dtype(dtype).name}"):
        call(dtype=dtype, train=train)


@pytest.mark.parametrize("train", [True, False])
def test_complex_parameters_with_real_x(train):
    with pytest.raises(TypeError, match=r"dtype must be complex for complex inputs; got float32.*dtype=jnp\.complex64"):
        call(params=init(3, dtype=jnp.complex64)[0], train=train)
    assert call(params=init(3, dtype=jnp.complex64)[0], train=train, dtype=jnp.complex64)[0].dtype == jnp.complex64


@pytest.mark.parametrize("train", [True, False])
def test_complex_x_with_a_real_result(train):
    with pytest.raises(TypeError, match=r"dtype must be complex for complex inputs; got float32.*dtype=jnp\.complex64"):
        call(x=X.astype(jnp.complex64), dtype=jnp.float32, train=train)


@pytest.mark.parametrize("features", ["three", 3.0, None, (3, None), [2.5]])
def test_init_of_other_than_integers(features):
    with pytest.raises(TypeError, match=r"num_features must be an integer or a tuple of them.*got"):
        init(features)


@pytest.mark.parametrize("features", [0, -1, (3, 0)])
def test_init_of_no_features(features):
    with pytest.raises(ValueError, match=r"num_features must be positive; got"):
        init(features)


@pytest.mark.parametrize("dtype", [jnp.int32, bool])
def test_init_of_integers(dtype):
    with pytest.raises(TypeError, match=r"dtype must be floating or complex, such as jnp\.float32; got"):
        init(3, dtype=dtype)


@pytest.mark.parametrize("train", [True, False])
def test_a_batch_without_channels(train):
    """An empty batch is not an error."""
    nothing = BatchNormParams(jnp.ones(0), jnp.ones(0)), BatchNormState(jnp.ones(0), jnp.ones(0), jnp.asarray(0))
    y, _ = batch_norm(*nothing, jnp.ones((4, 0)), train)
    assert y.shape == (4, 0)


def test_ghost_batches_of_nothing():
    """No division by the number of rows or of channels."""
    assert call(x=jnp.ones((0, 3)), ghost_batch_size=4, train=False)[0].shape == (0, 3)
    nothing = BatchNormParams(jnp.ones(0), jnp.ones(0)), BatchNormState(jnp.ones(0), jnp.ones(0), jnp.asarray(0))
    assert batch_norm(*nothing, jnp.ones((4, 0)), True, ghost_batch_size=2)[0].shape == (4, 0)


@pytest.mark.parametrize("activation", [None, "silu"])
def test_pooling_keeps_examples_and_features(activation):
    with pytest.raises(ValueError, match=r"max_pool must keep .*axes \[0, 1\] of x .*\(4, 3\); it made \(2, 3\)"):
        call(max_pool=lambda x: x[::2], activation=activation)
    with pytest.raises(ValueError, match=r"max_pool must keep .*it made \(4,\)"):
        call(max_pool=lambda x: x.max(1), activation=activation)


CONTRADICTIONS = [
    (
        ValueError,
        r"mask must be broadcastable to x.* \(4, 3\); got \(4,\).*\(4, 1\)",
        {"mask": np.ones(4)},
    ),
    (ValueError, r"mask must be broadcastable to x.*got \(1, 4, 3\)", {"mask": np.ones((1, 4, 3), bool)}),
    (TypeError, r"mask must hold bools or non-negative real weights; got complex64", {"mask": np.ones(3, "c8")}),
    (ValueError, r"residual must have the shape of x, \(4, 3\); got \(3,\)", {"residual": np.ones(3)}),
    (TypeError, r"residual must be floating or complex; got int32", {"residual": np.ones((4, 3), np.int32)}),
    (ValueError, r"activation must be None, a function, or one of relu, .*; got 'swish'", {"activation": "swish"}),
    (ValueError, r"activation must be None, a function, or one of relu, .*; got 3", {"activation": 3}),
    (
        TypeError,
        r"activation must be .*complex x; got .relu. for complex64",
        {"activation": "relu", "x": X.astype(jnp.complex64)},
    ),
    (TypeError, r"max_pool must be None or a function.*flax.linen.max_pool.*; got 2", {"max_pool": 2}),
    (TypeError, r"max_pool is for real x.*complex64", {"max_pool": max, "x": X.astype(jnp.complex64)}),
    (ValueError, r"ghost_batch_size must divide the first axis of x; got 3 for 4 rows", {"ghost_batch_size": 3}),
    (ValueError, r"ghost_batch_size must be a positive integer; got 0", {"ghost_batch_size": 0}),
    (ValueError, r"ghost_batch_size must be a positive integer; got True", {"ghost_batch_size": True}),
    (
        ValueError,
        r"ghost_batch_size and axis_name must not be passed together.*leave out",
        {"ghost_batch_size": 2, "axis_name": "i"},
    ),
    (
        ValueError,
        r"ghost_batch_size groups the rows.*must not be a feature axis; got",
        {"ghost_batch_size": 2, "axis": (0, 1)},
    ),
    (ValueError, r"more than one value per channel", {"ghost_batch_size": 1}),
    (ValueError, r"axis_index_groups needs axis_name.*Pass both", {"axis_index_groups": [[0]]}),
    (TypeError, r"renorm must be a jaxbn\.BatchRenorm\(r_max, d_max\); got \(3, 5\)", {"renorm": (3, 5)}),
    (TypeError, r"renorm .*real.*complex64", {"renorm": BatchRenorm(3, 5), "x": X.astype(jnp.complex64)}),
    (ValueError, r"r_max must be at least 1; got 0\.5", {"renorm": BatchRenorm(0.5, 5)}),
    (ValueError, r"d_max must be at least 0; got -1", {"renorm": BatchRenorm(3, -1)}),
    (ValueError, r"r_max must be at least 1; got nan", {"renorm": BatchRenorm(float("nan"), 1)}),
    (TypeError, r"d_max must be a number, or a function.*got None", {"renorm": BatchRenorm(3, None)}),  # pyright: ignore
]


@pytest.mark.parametrize(("error", "message", "options"), CONTRADICTIONS, ids=[str(c[2])[:40] for c in CONTRADICTIONS])
def test_options_that_contradict_the_input_or_each_other(error, message, options):
    with pytest.raises(error, match=message):
        call(features=(4, 3) if "axis" in options else 3, **options)


def test_renorm_without_a_state():
    with pytest.raises(
        ValueError,
        match=r"renorm corrects towards the running statistics.*got state=None.*Pass a jaxbn\.BatchNormState",
    ):
        batch_norm(init(3)[0], None, X, True, renorm=BatchRenorm(3, 5))
