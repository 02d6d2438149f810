"""Checkpoints: the same bits come back, or an error; a write that fails leaves what there was.

JAXBN_FLIPS says how many flipped bits are tried (40 by default).
"""

import dataclasses
import errno
import itertools
import logging
import os
import random
import resource
import shutil
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from train.data.card import DataCard
from train.runs import checkpoint, orbax_state
from train.training.loop import Position
from train.training.step import TrainState

FLIPS = int(os.environ.get("JAXBN_FLIPS", "40"))
DATA = DataCard("blobs", (12, 12, 1), "uint8", ("a", "b", "c"), "0" * 64)
POSITION = Position(2, 4, 0.1, 1 / 3, ((0.1 + 0.2, 3, 8), (1e-300, 8, 8)))


def state_at(step):
    """A state of every kind of array: float32, bfloat16, integers, scalars, and of an optimiser with empty parts."""
    numbers = np.random.default_rng(step)
    params = {
        "dense": {"kernel": jnp.asarray(numbers.normal(size=(7, 5)), jnp.float32)},
        "norm": {"bias": jnp.asarray(numbers.normal(size=5), jnp.bfloat16)},
    }
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(optax.constant_schedule(0.1)))
    _, optimizer = tx.update(params, tx.init(params), params)
    return TrainState(jnp.int32(step), params, {"norm": {"mean": jnp.arange(5.0), "count": jnp.int32(step)}}, optimizer)


def assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def save(parent, *steps, keep=9):
    return [checkpoint.save(parent, state_at(step), POSITION, DATA, keep) for step in steps]


def flip(path, position):
    """Flips one bit of a file."""
    content = bytearray(path.read_bytes())
    content[position // 8] ^= 1 << position % 8
    path.write_bytes(bytes(content))


def test_a_checkpoint_comes_back_to_the_bit(tmp_path):
    save(tmp_path, 12)
    found = checkpoint.newest(tmp_path, jax.eval_shape(lambda: state_at(0)))
    assert found is not None
    assert_same(found.state, state_at(12))
    assert (found.position, found.data, int(found.state.step)) == (POSITION, DATA, 12)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(found.state))


def test_the_newest_are_kept(tmp_path):
    save(tmp_path, 5, 100, 20, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000020", "step-000000100"]
    found = checkpoint.newest(tmp_path, state_at(0))
    assert found is not None
    assert int(found.state.step) == 100


@pytest.mark.parametrize("keep", [1, 2])
def test_damaged_ones_do_not_count_among_those_that_are_kept(keep, tmp_path):
    """A run goes on from before a damaged checkpoint: what it writes then stays, and what is damaged goes."""
    damaged = save(tmp_path, 100)[0]
    save(tmp_path, 5)
    flip(damaged / "position.json", 0)
    save(tmp_path, 20, keep=keep)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000000005", "step-000000020"][-keep:]
    found = checkpoint.newest(tmp_path, state_at(0))
    assert found is not None
    assert int(found.state.step) == 20


def test_where_nothing_was_saved_there_is_nothing(tmp_path):
    assert checkpoint.newest(tmp_path / "checkpoints", state_at(0)) is None
    assert checkpoint.newest(tmp_path, state_at(0)) is None


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_every_flipped_bit_is_caught(tmp_path):
    """FLIPS random bits: at least one of each file while they last, the others anywhere."""
    (folder,) = save(tmp_path, 1)
    like, draw, caught = state_at(0), random.Random(0), Counter()
    paths = [path for path in files_of(folder) if path.stat().st_size]
    assert {path.name for path in paths} >= {"SHA256SUMS", "position.json", "_METADATA"}
    paths += draw.choices(paths, [path.stat().st_size for path in paths], k=max(FLIPS - len(paths), 0))
    for path in paths[: max(FLIPS, 1)]:
        position = draw.randrange(8 * path.stat().st_size)
        flip(path, position)
        with pytest.raises(checkpoint.DamagedError, match="is damaged: "):
            checkpoint.restore(folder, like)
        flip(path, position)
        caught[path.relative_to(folder).parts[0]] += 1
    print(f"flipped bits of a checkpoint, caught: {dict(caught)}")  # pytest -rP shows it
    assert_same(checkpoint.restore(folder, like).state, state_at(1))


def test_every_file_cut_emptied_removed_or_swapped_is_caught(tmp_path):
    (folder,) = save(tmp_path, 1)
    like, whole = state_at(0), {path: path.read_bytes() for path in files_of(folder)}

    def check(changed):
        for path, content in changed.items():
            path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(checkpoint.DamagedError, match="is damaged: "):
            checkpoint.restore(folder, like)
        for path in changed:
            path.write_bytes(whole[path])

    for path, content in whole.items():
        check({path: None})
        for other in {b"", content[:-1], content[: len(content) // 2], content + b"\0"} - {content}:
            check({path: other})
    for first, second in itertools.combinations(whole, 2):
        if whole[first] != whole[second]:
            check({first: whole[second], second: whole[first]})
    assert_same(checkpoint.restore(folder, like).state, state_at(1))


@pytest.mark.parametrize("damage", ["cut", "removed", "added", "without sums", "empty"])
def test_other_damage_is_caught_and_named(damage, tmp_path):
    (folder,) = save(tmp_path, 1)
    data = next((folder / "state" / "d").iterdir())
    match damage:
        case "cut":
            data.write_bytes(data.read_bytes()[:-1])
        case "removed":
            data.unlink()
        case "added":
            data.with_name("more").write_bytes(b"")
        case "without sums":
            (folder / "SHA256SUMS").unlink()
        case "empty":
            shutil.rmtree(folder)
            folder.mkdir()
    names = {"added": r"state/d/more changed after it was written", "without sums": "SHA256SUMS", "empty": "SHA256SUMS"}
    with pytest.raises(
        checkpoint.DamagedError, match=names.get(damage, rf"state/d/{data.name} changed after it was written")
    ):
        checkpoint.restore(folder, state_at(0))


def test_damage_that_orbax_lets_through_with_sums_made_anew_is_caught_by_the_arrays(tmp_path):
    """Whoever changes the data and the sums has still to fit the digest of the arrays."""
    (one, two) = save(tmp_path, 1, 2)
    shutil.rmtree(one / "state")
    shutil.copytree(two / "state", one / "state")
    (one / "SHA256SUMS").write_text(checkpoint.sums(one))
    with pytest.raises(checkpoint.DamagedError, match="its arrays are not those that were written"):
        checkpoint.restore(one, state_at(0))


def test_the_newest_sound_one_is_used_and_it_is_said(tmp_path, caplog):
    _, two, three = save(tmp_path, 1, 2, 3)
    flip(three / "position.json", 77)
    flip(two / "state" / "_METADATA", 5)
    with caplog.at_level(logging.WARNING, "train"):
        found = checkpoint.newest(tmp_path, state_at(0))
    assert found is not None
    assert_same(found.state, state_at(1))
    assert [record.getMessage() for record in caplog.records] == [
        f"{three} is damaged: position.json changed after it was written; skipped",
        f"{two} is damaged: state/_METADATA changed after it was written; skipped",
        f"continuing from {tmp_path / 'step-000000001'}, the newest intact one",
    ]


def test_none_sound_is_an_error(tmp_path):
    for folder in save(tmp_path, 1, 2):
        flip(folder / "position.json", 0)
    with pytest.raises(checkpoint.NoCheckpointError, match=r"no checkpoint in .* is intact: nothing can be restored"):
        checkpoint.newest(tmp_path, state_at(0))


def test_a_state_of_another_network_is_refused(tmp_path):
    (folder,) = save(tmp_path, 1)
    other = state_at(0)._replace(params={"other": jnp.zeros(3)})
    with pytest.raises(checkpoint.DamagedError, match="does not contain a state of this network and optimizer"):
        checkpoint.restore(folder, other)


def test_a_damaged_checkpoint_of_the_same_step_is_replaced(tmp_path):
    (folder,) = save(tmp_path, 1)
    flip(folder / "position.json", 0)
    save(tmp_path, 1)
    assert_same(checkpoint.restore(folder, state_at(0)).state, state_at(1))


def test_what_a_killed_save_left_is_removed_by_the_next(tmp_path):
    part = tmp_path / f"{checkpoint.TEMPORARY}step-000000001-123"
    (part / "state").mkdir(parents=True)
    assert checkpoint.newest(tmp_path, state_at(0)) is None
    save(tmp_path, 2)
    assert not part.exists()


def test_a_full_disk_is_an_error_and_earlier_checkpoints_stay(tmp_path, caplog):
    """The system refuses to make files of more than 2,000 bytes."""
    save(tmp_path, 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    big = state_at(2)._replace(params={"kernel": np.random.default_rng(0).normal(size=3000).astype(np.float32)})
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match=r"step-000000002 cannot be written: File too large$"):
            checkpoint.save(tmp_path, big, POSITION, DATA, keep=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]
    found = checkpoint.newest(tmp_path, state_at(0))
    assert found is not None
    assert_same(found.state, state_at(1))
    assert caplog.records == []  # Orbax's own tracebacks are not for people


def test_errors_of_the_system_in_orbax_keep_their_number(tmp_path, monkeypatch):
    def fail(*_):
        with orbax_state.quietly():
            raise ValueError("RESOURCE_EXHAUSTED: Failed to write 7 bytes to file 14 [os_error_code='28']")

    monkeypatch.setattr(orbax_state, "write", fail)
    with pytest.raises(OSError, match="step-000000001 cannot be written: No space left on device") as caught:
        save(tmp_path, 1)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_where_there_can_be_no_folder_it_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/checkpoints/step-000000001 cannot be written: Not a directory"):
        save(tmp_path / "file" / "checkpoints", 1)


def test_a_digest_tells_names_shapes_types_and_bytes_apart():
    array = np.arange(4, dtype=np.int32)
    trees = [
        {"a": array},
        {"b": array},
        {"a": array.reshape(2, 2)},
        {"a": array.view(np.uint32)},
        {"a": array[::-1]},
        {"a": array, "b": array},
        {"a": (array,)},
        {},
    ]
    assert len({checkpoint.digest(tree) for tree in trees}) == len(trees)
    assert checkpoint.digest({"a": array}) == checkpoint.digest({"a": jnp.arange(4)})


def test_a_card_tells_data_apart(blobs):
    card = blobs.card
    assert (card.name, card.input_shape, card.input_dtype, card.class_names) == (
        "blobs",
        (12, 12, 1),
        "uint8",
        ("a", "b", "c"),
    )
    assert dataclasses.replace(blobs).card == card
    changed = blobs.test_labels.copy()
    changed[0] = (changed[0] + 1) % 3
    other = type(blobs)(
        "blobs", "drawn", blobs.train_inputs, blobs.train_labels, blobs.test_inputs, changed, ("a", "b", "c")
    )
    assert other.card.digest != card.digest
