import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close

from benchmarks import peers
from benchmarks.case import MOMENTUM, Peer
from benchmarks.exactness import exact
from benchmarks.installed import installed
from benchmarks.keras_torch import KerasTorchPeer
from benchmarks.layer import VARIANTS, make_case
from benchmarks.peers import PEERS

SHAPE = (8, 3, 5, 4)
# torch.compile uses what PyTorch itself has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(params=PEERS, ids=lambda entry: entry[1].name)
def peer(request: pytest.FixtureRequest) -> Peer:
    return usable(*request.param)


def usable(needs: tuple[str, ...], library: Peer) -> Peer:
    missing = [name for name in needs if not installed(name)]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    return library


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shape", [SHAPE, (40, 4)])
def test_computes_what_it_is_compared_for(peer: Peer, shape: tuple[int, ...], variant: str):
    case = make_case(shape, jnp.float32, variant)
    y = exact(case)[0] + (0 if case.residual is None else case.residual)
    passes = (y > 0) | (not case.relu)
    _, dx = exact(case._replace(cotangent=case.cotangent * passes))
    found = peer.result_and_gradient(case)
    assert_close(found, (y * passes, dx), condition=10)


def test_a_half_precision_result_stays_so(peer: Peer):
    case = make_case(SHAPE, jnp.bfloat16, "norm")
    y, dx = peer.result_and_gradient(case)
    assert y.dtype == dx.dtype == jnp.bfloat16
    np.testing.assert_allclose((y.astype(float), dx.astype(float)), exact(case), atol=0.07)


def test_updates_the_running_mean(peer: Peer):
    case = make_case(SHAPE, jnp.float32, "norm")
    state = peer.outcome(case)[2] if isinstance(peer, KerasTorchPeer) else peer.step(case)()[2]
    updated = (1 - MOMENTUM) * case.x.mean((0, 1, 2))
    leaves = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(state)]
    assert any(leaf.shape == updated.shape and np.allclose(leaf, updated, rtol=1e-5) for leaf in leaves)


def test_gives_the_gradient_of_everything_it_was_given(peer: Peer):
    case = make_case(SHAPE, jnp.float32, "norm + residual + relu")
    if isinstance(peer, KerasTorchPeer):
        pytest.skip("its gradients stay in their process")
    _, gradients, _ = peer.step(case)()
    sizes = [int(np.prod(gradient.shape)) for gradient in gradients]
    assert sizes == [case.x.size, 4, 4, case.x.size]


# What each keeps is known from its source: x; x centred and the product of it, or the like.
@pytest.mark.parametrize(
    ("name", "kept"),
    [
        *(("jaxbn", 1), ("Flax", 2), ("PyTorch", 1), ("PyTorch channels-last", 1)),
        *(("PyTorch compiled", 1), ("PyTorch compiled, channels-last", 1), ("Keras (torch)", 2)),
    ],
)
def test_what_is_kept_for_the_backward_pass(name: str, kept: int):
    library = usable(*next(entry for entry in PEERS if entry[1].name == name))
    case = make_case(SHAPE, jnp.float32, "norm")
    assert library.kept_bytes(case) == kept * case.x.nbytes


def test_a_library_that_is_missing_is_left_out_with_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(peers, "PEERS", (PEERS[0], (("jaxbn", "no_such_library"), PEERS[1][1])))
    assert peers.available() == [PEERS[0][1]]
    assert capsys.readouterr().out == "left out: no_such_library (No module named 'no_such_library')\n"
