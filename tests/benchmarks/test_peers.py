import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import peers
from benchmarks.exactness import exact
from benchmarks.layer import VARIANTS, make_case
from benchmarks.peers import MOMENTUM, PEERS, Peer

SHAPE = (8, 3, 5, 4)


@pytest.fixture(params=PEERS, ids=lambda entry: entry[1].name)
def peer(request: pytest.FixtureRequest) -> Peer:
    module, library = request.param
    if not peers.installed(module):
        pytest.skip(f"{module} is not installed")
    return library


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shape", [SHAPE, (40, 4)])
def test_computes_what_it_is_compared_for(peer: Peer, shape: tuple[int, ...], variant: str):
    case = make_case(shape, jnp.float32, variant)
    y = exact(case)[0] + (0 if case.residual is None else case.residual)
    passes = (y > 0) | (not case.relu)
    _, dx = exact(case._replace(cotangent=case.cotangent * passes))
    found = peer.result_and_gradient(case)
    np.testing.assert_allclose(found, (y * passes, dx), atol=2e-5)


def test_a_half_precision_result_stays_so(peer: Peer):
    case = make_case(SHAPE, jnp.bfloat16, "norm")
    y, dx = peer.result_and_gradient(case)
    assert y.dtype == dx.dtype == jnp.bfloat16
    np.testing.assert_allclose((y.astype(float), dx.astype(float)), exact(case), atol=0.07)


def test_updates_the_running_mean(peer: Peer):
    case = make_case(SHAPE, jnp.float32, "norm")
    _, _, state = peer.step(case)()
    updated = (1 - MOMENTUM) * case.x.mean((0, 1, 2))
    leaves = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(state)]
    assert any(leaf.shape == updated.shape and np.allclose(leaf, updated, rtol=1e-5) for leaf in leaves)


def test_gives_the_gradient_of_everything_it_was_given(peer: Peer):
    case = make_case(SHAPE, jnp.float32, "norm + residual + relu")
    _, gradients, _ = peer.step(case)()
    sizes = [int(np.prod(gradient.shape)) for gradient in gradients]
    assert sizes == [case.x.size, 4, 4, case.x.size]


# What each keeps is known from its source: x; x centred and the product of it, or the like.
@pytest.mark.parametrize(("name", "kept"), [("jaxbn", 1), ("Flax", 2), ("PyTorch", 1), ("PyTorch channels-last", 1)])
def test_what_is_kept_for_the_backward_pass(name: str, kept: int):
    module, library = next(entry for entry in PEERS if entry[1].name == name)
    if not peers.installed(module):
        pytest.skip(f"{module} is not installed")
    case = make_case(SHAPE, jnp.float32, "norm")
    assert library.kept_bytes(case) == kept * case.x.nbytes


def test_a_library_that_is_missing_is_left_out_with_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(peers, "PEERS", (PEERS[0], ("no_such_library", PEERS[1][1])))
    assert peers.available() == [PEERS[0][1]]
    assert capsys.readouterr().out == "left out: no_such_library (No module named 'no_such_library')\n"
