"""An exported network computes what the run's does, anywhere, and no bit of its file can change unnoticed."""

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys

import jax
import jax.export
import numpy as np
import pytest
import small_run
from closeness import assert_close

from train.commands.export import Export, export, fold, serialize
from train.host.errors import UsageError
from train.inference import artifact, classify
from train.inference.artifact import Artifact, ArtifactError, Description, Preprocessing
from train.runs import restored
from train.training.step import prepare

FLIPS = int(os.environ.get("JAXBN_FLIPS", "40"))
DESCRIPTION = Description(
    dataset="digits",
    class_names=("a", "é"),
    input_shape=(2, 3, 1),
    input_dtype="uint8",
    preprocessing=Preprocessing(2, 3, 1),
    norms="folded",
    step=7,
    test_accuracy=None,
    jax_version="0",
    platforms=("cpu",),
)
NETWORKS = {
    "cnn": (small_run.DIGITS, small_run.CNN),
    "cnn, smooth": (small_run.DIGITS, dataclasses.replace(small_run.CNN, activation=("gelu",), dropout=0.5)),
    "cnn, norms of the hidden layer and the images": (
        small_run.DIGITS,
        dataclasses.replace(small_run.CNN, norm_hidden=True, norm_input=True),
    ),
    "cnn, padded": (small_run.DIGITS, dataclasses.replace(small_run.CNN, norm_hidden=True, padding="same")),
    "mlp": (small_run.IRIS, small_run.MLP),
    "mlp, norm of the inputs": (
        small_run.IRIS,
        dataclasses.replace(small_run.MLP, norm_input=True, activation=("elu", "relu")),
    ),
    "mlp, norms behind": (
        small_run.IRIS,
        dataclasses.replace(small_run.MLP, norm_input=True, norm_placement="after", activation=("elu", "relu")),
    ),
    "mlp of images": (small_run.DIGITS, dataclasses.replace(small_run.MLP, network="mlp")),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a CNN's run."""
    return small_run.write(tmp_path_factory.mktemp("runs") / "run")


def logits_of(folder, inputs):
    """The logits of the network of a run, with its norms, computed by Flax alone."""
    found = restored.restore(folder, folder.parent)
    inputs = inputs / np.float32(255) if inputs.dtype == np.uint8 else inputs
    variables = {"params": found.state.params, "batch_stats": found.state.batch_stats}
    return np.asarray(found.model.apply(variables, inputs, train=False), np.float32)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_computes_the_same_without_norms(name, tmp_path, capsys):
    data, model = NETWORKS[name]
    folder = small_run.write(tmp_path / "run", data, model)
    found = restored.restore(folder, tmp_path)
    network, remark = fold(found)
    program = serialize(network, classify.describe(found, network))
    operations = jax.export.deserialize(bytearray(program)).mlir_module().splitlines()
    numbers = [line for line in operations if "xf32>" in line]  # the others compute shapes
    assert not [line for line in numbers if re.search(r"stablehlo\.(subtract|r?sqrt) ", line)]
    assert network.norms == "folded"
    assert remark.startswith("folded into the layers next to them")
    path = tmp_path / "file"
    artifact.write(path, Artifact(classify.describe(found, network), program))
    classifier = classify.of_file(path)
    for count in (1, 3, 255):  # one program for any number, also for more than a batch
        inputs = small_run.images_of(data, count)
        expected = logits_of(folder, inputs)
        assert classifier.logits(inputs).shape == (count, 3)
        np.testing.assert_allclose(classifier.logits(inputs), expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    assert classifier.logits(inputs[:0]).shape == (0, 3)
    assert capsys.readouterr() == ("", "")


def test_the_preparation_of_images_is_a_part_of_the_network(tmp_path, capsys):
    folder = small_run.write(tmp_path / "run", model=dataclasses.replace(small_run.CNN, deslant="on", crop=1))
    export(Export(folder))
    assert "norms: folded into the layers next to them" in capsys.readouterr().out
    classifier = classify.of_file(folder / "network.jaxbn")
    for count in (1, 5):
        inputs = small_run.images_of(small_run.DIGITS, count)
        expected = logits_of(folder, inputs)
        np.testing.assert_allclose(classifier.logits(inputs), expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("options", "norms", "remark"),
    [
        (
            {"norm_placement": "after", "padding": "same"},
            "partly folded",
            "; kept, with their running statistics: "
            "norm1 (in front of it: relu, behind it: a convolution (CNN/conv2) is padded)\n",
        ),
        (
            {
                "norm_placement": "after",
                "channels": (2,),
                "norm_input": True,
                "activation": ("gelu",),
                "padding": "same",
            },
            "partly folded",
            "; kept, with their running statistics: norm0 "
            "(in front of it: a conversion to or from integers, behind it: a convolution (CNN/conv1) is padded)\n",
        ),
        ({"norm_placement": "none"}, "none", "norms: none in this network\n"),
    ],
)
def test_networks_whose_norms_cannot_go(options, norms, remark, tmp_path, capsys):
    model = dataclasses.replace(small_run.CNN, **options)
    folder = small_run.write(tmp_path / "run", model=model)
    export(Export(folder))
    assert remark in capsys.readouterr().out
    classifier = classify.of_file(folder / "network.jaxbn")
    assert classifier.description.norms == norms
    inputs = small_run.images_of(small_run.DIGITS, 5)
    assert_close(classifier.logits(inputs), logits_of(folder, inputs))


def test_where_folding_is_inexact_norms_stay(run):
    """The second convolution's outputs are a million times larger than they vary."""
    found = restored.restore(run, run.parent)
    params, stats = dict(found.state.params), dict(found.state.batch_stats)
    params["norm1"] = {**params["norm1"], "bias": params["norm1"]["bias"] + 1e6}
    stats["norm2"] = {**stats["norm2"], "mean": 1e6 * params["conv2"]["kernel"].sum((0, 1, 2))}
    network, remark = fold(found._replace(state=found.state._replace(params=params, batch_stats=stats)))
    assert network.norms == "evaluation mode"
    assert "folded, logits would differ by up to " in remark


def test_bfloat16_is_folded_within_its_precision(tmp_path):
    folder = small_run.write(tmp_path / "run", model=dataclasses.replace(small_run.CNN, precision="bfloat16"))
    network, _ = fold(restored.restore(folder, tmp_path))
    assert network.norms == "folded"
    assert {weight.dtype.name for weight in jax.tree.leaves(network.function)} == {"bfloat16", "float32"}


def test_what_is_said_and_written(run, tmp_path, capsys):
    path = tmp_path / "out.jaxbn"
    export(Export(run.relative_to(run.parent), output=path, runs_dir=run.parent))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == ["test accuracy: 87.50%", "runs on: cpu, cuda, tpu, with any number of examples at once"]
    digest = lines[3].rpartition("sha256 ")[2]
    assert lines[3] == f"{path}: {path.stat().st_size:,} bytes, sha256 {digest}"
    first, _, rest = path.read_bytes().partition(b"\n")
    import hashlib

    assert first.decode() == f"jaxbn network 1 sha256 {digest}" == f"{artifact.MAGIC.decode()}1 sha256 {digest}"
    assert hashlib.sha256(rest).hexdigest() == digest
    assert artifact.read(path).description == Description(
        dataset="digits",
        class_names=("a", "b", "c"),
        input_shape=(12, 12, 1),
        input_dtype="uint8",
        preprocessing=Preprocessing(12, 12, 1, 1 / 255, 0.0, "light on dark"),
        norms="folded",
        step=small_run.STEP,
        test_accuracy=small_run.ACCURACY,
        jax_version=jax.__version__,
        platforms=("cpu", "cuda", "tpu"),
    )
    assert [each.name for each in tmp_path.iterdir()] == ["out.jaxbn"]  # nothing temporary stays
    assert b"classify.py" not in path.read_bytes()  # nor where this code lies on this machine
    written = path.read_bytes()
    export(Export(run, output=path))  # an earlier export is replaced, by the very same
    assert path.read_bytes() == written


@pytest.mark.parametrize("channels", [1, 3])
def test_the_preprocessing_is_as_described(channels):
    form = artifact.describe_preprocessing((12, 10, channels), "uint8")
    assert form is not None
    assert (form.height, form.width, form.channels) == (12, 10, channels)
    assert form.polarity == ("light on dark" if channels == 1 else None)
    values = np.arange(256, dtype=np.uint8)
    expected = (values - np.float64(form.mean)) * form.scale
    assert_close(prepare(jax.numpy.asarray(values)), expected)


def test_it_runs_without_this_code(run, tmp_path):
    """The recipe in the docstring of `train.commands.export`, in an interpreter that has neither jaxbn nor train."""
    export(Export(run, output=tmp_path / "network.jaxbn"))
    inputs = small_run.images_of(small_run.DIGITS, 4)
    np.save(tmp_path / "inputs.npy", inputs)
    code = """
import pathlib, sys, jax, jax.export, numpy
content = pathlib.Path("network.jaxbn").read_bytes()
program = jax.export.deserialize(bytearray(content.split(b"\\n", 2)[2]))
numpy.save("logits.npy", program.call(numpy.load("inputs.npy")))
print([name for name in ("train", "jaxbn", "flax") if name in sys.modules])
"""
    finished = subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
    )
    assert (finished.stdout, finished.stderr) == ("[]\n", "")
    assert_close(np.load(tmp_path / "logits.npy"), logits_of(run, inputs))


def test_a_checkpoint_within_an_epoch_has_no_accuracy(tmp_path, capsys):
    folder = small_run.write(tmp_path / "run")
    (folder / "metrics.jsonl").unlink()
    export(Export(folder))
    assert "test accuracy: not measured at this step" in capsys.readouterr().out
    assert artifact.read(folder / "network.jaxbn").description.test_accuracy is None


def test_any_flipped_bit_is_noticed(tmp_path):
    """Every bit of the first two lines, and FLIPS anywhere."""
    path = tmp_path / "file"
    program = np.random.default_rng(0).bytes(2000)
    artifact.write(path, Artifact(DESCRIPTION, program))
    assert artifact.read(path) == Artifact(DESCRIPTION, program)
    whole = path.read_bytes()
    head = 8 * (len(whole) - len(program))
    sampled = np.random.default_rng(1).choice(np.arange(head, 8 * len(whole)), FLIPS, replace=False)
    for bit in [*range(head), *map(int, sampled)]:
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(ArtifactError):
            artifact.read(path)
    print(f"flipped bits of an export, caught: {head} of its two lines, {FLIPS} of its program")


@pytest.mark.parametrize("length", [14, 40, 88, 89, 200, -1])
def test_a_file_that_was_cut_short(length, tmp_path):
    path = tmp_path / "file"
    artifact.write(path, Artifact(DESCRIPTION, b"program"))
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ArtifactError, match="file is damaged or cut short: its content does not match the SHA-256"):
        artifact.read(path)


def test_what_is_longer_is_damaged_too(tmp_path):
    artifact.write(tmp_path / "file", Artifact(DESCRIPTION, b"program"))
    (tmp_path / "file").write_bytes((tmp_path / "file").read_bytes() + b"\0")
    with pytest.raises(ArtifactError, match="damaged or cut short"):
        artifact.read(tmp_path / "file")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no .*file$"),
        (b"", "file is empty: export the network again"),
        (b"PK\x03\x04", "file is not an exported network: `python -m train export RUN` makes one"),
        (b"jaxbn network 2 sha256 0\n", "file has format 2, or is damaged; this version of jaxbn reads 1: update"),
    ],
)
def test_what_is_no_exported_network(content, message, tmp_path):
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        artifact.read(tmp_path / "file")


def test_a_folder_is_no_exported_network(tmp_path):
    with pytest.raises(ArtifactError, match="is a folder, not an exported network"):
        artifact.read(tmp_path)
    with pytest.raises(ArtifactError, match=r"is a folder: pass the name of a file in it, as in .*network\.jaxbn"):
        artifact.write(tmp_path, Artifact(DESCRIPTION, b""))


def test_what_is_something_else_is_never_replaced(run, tmp_path):
    path = tmp_path / "thesis.tex"
    path.write_text("of years")
    with pytest.raises(UsageError, match=r"thesis\.tex is not an exported network and is left unchanged: pass another"):
        export(Export(run, output=path))
    assert path.read_text() == "of years"


def test_no_place_to_write_to(run, tmp_path):
    with pytest.raises(OSError, match=r"there/out cannot be written: No such file or directory"):
        export(Export(run, output=tmp_path / "there" / "out"))


def test_a_sound_file_that_this_jax_cannot_read(tmp_path):
    artifact.write(tmp_path / "file", Artifact(DESCRIPTION, b"of another age"))
    with pytest.raises(
        ArtifactError, match=rf"file is intact and was made by jax 0; jax {jax.__version__} cannot read it"
    ):
        classify.of_file(tmp_path / "file")


def test_a_platform_that_it_was_not_made_for(tmp_path):
    artifact.write(tmp_path / "file", Artifact(dataclasses.replace(DESCRIPTION, platforms=("tpu",)), b""))
    with pytest.raises(ArtifactError, match="file runs on tpu, and JAX uses cpu here: set JAX_PLATFORMS"):
        classify.of_file(tmp_path / "file")


def test_no_best_checkpoint(run):
    with pytest.raises(UsageError, match="has no best checkpoint: a run keeps one only with --validation"):
        export(Export(run, checkpoint="best"))


def crafted(path, description, program=b""):
    """A file whose SHA-256 fits whatever is in it."""
    rest = (description if isinstance(description, bytes) else json.dumps(description).encode()) + b"\n" + program
    path.write_bytes(artifact._first_line(rest) + rest)
    return path


WHOLE = dataclasses.asdict(DESCRIPTION)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"step": 1' + b"0" * 5000 + b"}", "digits"),
        (b"\xff", "can't decode"),
        (b"{", "Expecting"),
        ([], "it must be an object of fields"),
        ({}, "is missing"),
        ({key: value for key, value in WHOLE.items() if key != "preprocessing"}, None),  # as of a network for numbers
        ({key: value for key, value in WHOLE.items() if key != "norms"}, "norms is missing"),
        (WHOLE | {"depth": 3}, "there is no field 'depth'"),
        (WHOLE | {"norms": "none at all"}, "norms must be one of folded, partly folded, evaluation mode, none"),
        (WHOLE | {"class_names": "ab"}, "class_names must be a list of values"),
        (WHOLE | {"class_names": []}, "class_names must name a class or more"),
        (WHOLE | {"class_names": [1]}, "class_names must be text; got 1"),
        (WHOLE | {"test_accuracy": 10**400}, "test_accuracy must be a number below"),
        (WHOLE | {"input_shape": [-1]}, "input_shape must be sizes of at least 1"),
        (WHOLE | {"input_shape": [10**100]}, "input_shape must be sizes of at least 1"),
        (WHOLE | {"input_dtype": "object"}, "input_dtype must be one of uint8, float32; got 'object'"),
        (
            WHOLE | {"preprocessing": {"height": 10**9, "width": 3, "channels": 1}},
            "preprocessing must have the sizes of",
        ),
        (WHOLE | {"preprocessing": {"height": 2}}, r"preprocessing\.(width|channels) is missing"),
        (WHOLE | {"preprocessing": []}, "preprocessing must be an object of fields"),
    ],
)
def test_a_crafted_description_is_refused(description, message, tmp_path):
    path = crafted(tmp_path / "file", description)
    if message is None:
        assert artifact.read(path).description == dataclasses.replace(DESCRIPTION, preprocessing=None)
        return
    with pytest.raises(
        ArtifactError, match=f"matches its SHA-256, but its description is not one .*{message}"
    ) as caught:
        artifact.read(path)
    assert len(str(caught.value)) < 600


def test_a_program_that_does_something_else_is_refused(run, tmp_path):
    export(Export(run, output=tmp_path / "network.jaxbn"))
    whole = artifact.read(tmp_path / "network.jaxbn")
    other = dataclasses.asdict(whole.description) | {"class_names": ["a", "b"]}
    with pytest.raises(ArtifactError, match="a program that does not match its description"):
        classify.of_file(crafted(tmp_path / "file", other, whole.program))
    other = dataclasses.asdict(whole.description) | {"input_shape": [12, 13, 1], "preprocessing": None}
    with pytest.raises(ArtifactError, match=rf"jax {jax.__version__} cannot read it \("):
        classify.of_file(crafted(tmp_path / "file", other, whole.program))


def test_broken_programs_are_refused(run, tmp_path):
    """With a SHA-256 that fits: each ends in an error of one line, or computes.

    The computation within the program is left whole: from JAX 0.12 on, its parser aborts the process on some changes.
    Nothing damages a program and its SHA-256 alike by accident.
    """
    export(Export(run, output=tmp_path / "network.jaxbn"))
    whole = artifact.read(tmp_path / "network.jaxbn")
    draw = np.random.default_rng(0)
    computation = jax.export.deserialize(bytearray(whole.program)).mlir_module_serialized
    start = whole.program.index(computation)
    around = [*range(start), *range(start + len(computation), len(whole.program))]
    for place in draw.choice(around, FLIPS // 4):
        changed = bytearray(whole.program)
        changed[place] ^= 1 << int(draw.integers(8))
        artifact.write(tmp_path / "network.jaxbn", whole._replace(program=bytes(changed)))
        with contextlib.suppress(ArtifactError):
            classify.of_file(tmp_path / "network.jaxbn")


def test_a_version_of_many_digits_is_damage(tmp_path):
    (tmp_path / "file").write_bytes(artifact.MAGIC + b"9" * 10_000 + b" sha256 0\n")
    with pytest.raises(ArtifactError, match="damaged or cut short"):
        artifact.read(tmp_path / "file")
