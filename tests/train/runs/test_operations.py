"""The operations of a network: every layer, activation and pooling has a row, with the shape that it hands on."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from train.config.sections import Config, ModelConfig
from train.network.build import build
from train.network.summary import summarize
from train.runs.operations import operations


def listed(options: ModelConfig, shape: tuple[int, ...]):
    """The operations of the network that the options describe, and its summary."""
    model = build(dataclasses.replace(Config(), model=options), shape, 3, "cpu", 10)
    inputs = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), inputs)
    layers = summarize(model, variables, inputs)
    return [(each.name, each.kind, each.output_shape) for each in operations(options, layers, shape)], layers


CNN = ModelConfig(network="cnn", channels=(4, 6), hidden=(5,), norm_hidden=False)


@pytest.mark.parametrize("place", ["before", "after", "none"])
def test_a_cnn(place):
    rows, layers = listed(dataclasses.replace(CNN, norm_placement=place, activation=("elu",)), (14, 14, 1))
    norm, elu = ("norm1", "BatchNorm", (12, 12, 4)), ("", "elu", (12, 12, 4))
    expected = {"before": [norm, elu], "after": [elu, norm], "none": [elu]}[place]
    assert rows[: len(expected) + 2] == [
        ("conv1", "Conv", (12, 12, 4)),
        *expected,
        ("", "2×2 max pooling", (6, 6, 4)),
    ]
    assert rows[-2:] == [("dense", "Dense", (5,)), ("logits", "Dense", (3,))]
    assert [row[2] for row in rows if "pool" in row[1]][-1] == (2, 2, 6)
    assert {layer.name for layer in layers} == {row[0] for row in rows if row[0]}


def test_a_norm_of_what_is_pooled():
    rows, _ = listed(dataclasses.replace(CNN, norm_placement="pooled", activation=("elu",)), (14, 14, 1))
    assert rows[:4] == [
        ("conv1", "Conv", (12, 12, 4)),
        ("", "2×2 max pooling", (6, 6, 4)),
        ("norm1", "BatchNorm", (6, 6, 4)),
        ("", "elu", (6, 6, 4)),
    ]


def test_a_norm_of_the_network_hands_on_what_the_pooling_does():
    """The summary has the shape behind norm, activation and pooling: the rows here end with it."""
    rows, layers = listed(CNN, (14, 14, 1))
    pooled = [row[2] for row in rows if "pool" in row[1]]
    assert pooled == [layer.output_shape for layer in layers if layer.name.startswith("norm")]


def test_pooling_after_every_second_convolution_and_a_normalized_hidden_layer():
    options = dataclasses.replace(
        CNN, pool_every=2, norm_input=True, norm_hidden=True, activation=("relu", "elu", "tanh")
    )
    rows, _ = listed(options, (14, 14, 1))
    assert [row[:2] for row in rows] == [
        ("norm0", "BatchNorm"),
        ("conv1", "Conv"),
        ("norm1", "BatchNorm"),
        ("", "relu"),
        ("conv2", "Conv"),
        ("norm2", "BatchNorm"),
        ("", "elu"),
        ("", "2×2 max pooling"),
        ("dense", "Dense"),
        ("norm3", "BatchNorm"),
        ("", "tanh"),
        ("logits", "Dense"),
    ]


def test_the_preparation_of_images_comes_first():
    rows, _ = listed(dataclasses.replace(CNN, deslant="on", shift=1, crop=2), (18, 16, 1))
    assert rows[:4] == [
        ("", "deslanting", (18, 16, 1)),
        ("", "random shift", (18, 16, 1)),
        ("", "cropping", (14, 12, 1)),
        ("conv1", "Conv", (12, 10, 4)),
    ]


def test_an_mlp_with_dropout():
    rows, _ = listed(ModelConfig(network="mlp", hidden=(5, 4), dropout=0.5), (7,))
    assert [row[:2] for row in rows] == [
        ("dense1", "Dense"),
        ("norm1", "BatchNorm"),
        ("", "relu"),
        ("dropout1", "Dropout"),
        ("dense2", "Dense"),
        ("norm2", "BatchNorm"),
        ("", "relu"),
        ("dropout2", "Dropout"),
        ("logits", "Dense"),
    ]
