"""The terminal output of a run: a bar in a terminal, plain lines elsewhere."""

import contextlib
import dataclasses
import io
import re

import pytest
from rich.console import Console

from train.config.sections import Config, ModelConfig, NormConfig, OptimizerConfig
from train.network.summary import Layer
from train.runs import terminal
from train.training.loop import Epoch, Progress
from train.training.step import Examples

DONE = Progress(epoch=2, step=9, loss=0.51234, accuracy=0.875, images_per_second=12345.6)
RECORD = Epoch(2, 12, 0.25, 0.9, None, None, 0.5, 0.75, 12345.6, 3.21)


def show(plan, **options):
    """The output of a monitor during a run."""
    stream = io.StringIO()
    console = Console(file=stream, width=100, **options)
    with terminal.Monitor(console, plan) as monitor:
        monitor.advance(DONE)
        if console.is_terminal:
            monitor._bar.refresh()
        monitor.epoch(RECORD)
    return stream.getvalue()


def test_elsewhere_an_epoch_is_one_plain_line(plan):
    assert show(plan, force_terminal=False) == (
        "epoch 2/2  train loss 0.2500 accuracy 90.00%  test loss 0.5000 accuracy 75.00%  12,346 images/s  3.2 s\n"
    )


def test_in_a_terminal_there_is_a_bar_that_goes_away(plan):
    output = show(plan, force_terminal=True, color_system=None, legacy_windows=False)
    assert "epoch 2/2  step  9/12  loss 0.5123  accuracy  87.50%  12,346 images/s ━" in output
    last_lines = output.rpartition("step  9/12")[2]
    assert "\x1b[2K" in last_lines  # the bar is erased
    assert "accuracy 75.00%" in output


@pytest.mark.parametrize(
    ("width", "form"),
    [
        (100, r"epoch 2/2  step  9/12  loss 0.5123  accuracy  87.50%  12,346 images/s ━{6,}.* \d+ s left"),
        (80, r"epoch 2/2  step  9/12  loss 0.5123  accuracy  87.50%  12,346 images/s +\d+ s left"),
        (70, r"epoch 2/2  step  9/12  loss 0.5123  accuracy  87.50% +\d+ s left"),
        (60, r"epoch 2/2  loss 0.5123  accuracy  87.50% +\d+ s left"),
        (45, r"epoch 2/2  loss 0.5123  accuracy  87.50% *"),
    ],
)
def test_a_narrow_terminal_shows_the_numbers_without_the_bar(plan, width, form):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False)
    monitor = terminal.Monitor(console, plan)
    monitor.advance(DONE)
    with console.capture() as captured:
        console.print(monitor._bar.get_renderable())
    (line,) = captured.get().splitlines()
    assert re.fullmatch(form, line)
    assert len(line) <= width


@pytest.mark.parametrize(
    ("width", "rest"),
    [
        (
            130,
            "train loss 0.2500 accuracy 90.00%  validation loss 0.7500 accuracy 50.00%  "
            "test loss 0.5000 accuracy 75.00%  3.2 s",
        ),
        (
            118,
            "train loss 0.2500 accuracy 90.00%  validation loss 0.7500 accuracy 50.00%  "
            "test loss 0.5000 accuracy 75.00%",
        ),
        (80, "train 0.2500 90.00%  validation 0.7500 50.00%  test 0.5000 75.00%"),
        (60, "validation 0.7500 50.00%  test 0.5000 75.00%"),
    ],
)
def test_the_line_of_an_epoch_fits_a_narrow_terminal(plan, width, rest):
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=True, color_system=None, legacy_windows=False)
    monitor = terminal.Monitor(console, plan)
    monitor.epoch(dataclasses.replace(RECORD, validation_loss=0.75, validation_accuracy=0.5))
    assert stream.getvalue() == f"epoch 2/2  {rest}\n"


def test_of_many_epochs_about_twenty_are_printed_and_always_the_last(plan):
    for epochs, last in ((150, 150), (150, 83), (21, 21), (20, 20)):
        stream = io.StringIO()
        with terminal.Monitor(Console(file=stream, width=100), dataclasses.replace(plan, epochs=epochs)) as monitor:
            for number in range(1, last + 1):
                monitor.epoch(dataclasses.replace(RECORD, epoch=number))
        lines = stream.getvalue().splitlines()
        assert lines[-1].startswith(f"epoch {last:>{len(str(epochs))}}/{epochs}  ")
        assert 10 <= len(lines) <= 20


def test_a_run_that_fails_does_not_print_a_skipped_epoch(plan):
    stream = io.StringIO()
    console, many = Console(file=stream, width=100), dataclasses.replace(plan, epochs=150)
    with contextlib.suppress(FloatingPointError), terminal.Monitor(console, many) as monitor:
        monitor.epoch(dataclasses.replace(RECORD, epoch=1))
        raise FloatingPointError
    assert stream.getvalue() == ""


def test_the_speed_of_tables_is_in_examples(plan):
    table = Examples(plan.train.inputs[:, 0, :, 0], plan.train.labels)
    assert show(dataclasses.replace(plan, train=table), force_terminal=False).endswith("  12,346 examples/s  3.2 s\n")


def test_elsewhere_a_line_says_that_the_run_is_alive_when_nothing_was_said_for_long(plan):
    """Reports come every 4 seconds, and lines after 10 seconds; the line of an epoch counts as well."""
    time, console = 0.0, Console(file=(stream := io.StringIO()), width=200)
    monitor = terminal.Monitor(console, plan, done=2, clock=lambda: time)
    for step in range(3, 12):
        time += 4
        monitor.show(dataclasses.replace(DONE, step=step, epoch=1 + step // 7))
        if step == 6:
            monitor.show(RECORD)
    numbers = "loss 0.5123  accuracy  87.50%  12,346 images/s"
    assert [line for line in stream.getvalue().splitlines() if "step" in line] == [
        f"epoch 1/2  step  5/12  {numbers}  28 s left",
        f"epoch 2/2  step  9/12  {numbers}  12 s left",
    ]


def test_the_numbers_of_epochs_are_in_line(plan):
    console = Console(file=(stream := io.StringIO()), width=100)
    with terminal.Monitor(console, dataclasses.replace(plan, epochs=150)) as monitor:
        monitor.epoch(dataclasses.replace(RECORD, epoch=8))
    assert stream.getvalue().startswith("epoch   8/150  ")


@pytest.mark.parametrize("note", ["", "MNIST is not here ([Errno -3] no name)"])
def test_the_start_of_a_run(plan, blobs, note):
    console = Console(file=(stream := io.StringIO()), width=100)
    layers = [Layer("conv1", "Conv", (10, 10, 4), 36, 0), Layer("norm1", "BatchNorm", (10, 10, 4), 1008, 1008)]
    layers.append(Layer("", "relu", (10, 10, 4), 0, 0))
    config = Config(optimizer=OptimizerConfig(learning_rate=0.125, schedule="cosine"))
    terminal.print_start(console, config, dataclasses.replace(blobs, note=note), plan, layers)
    lines = stream.getvalue().splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("layer"))
    facts = dict(line.strip().split("  ", 1) for line in lines[:head])
    assert facts["dataset"] == "blobs (drawn): 50 training and 23 test examples"
    assert facts["optimizer"] == "AdamW, learning rate 0.125, cosine"
    assert facts["norm"] == "momentum 0.9, epsilon 1e-05"
    assert facts["training"] == "2 epochs of 6 steps of 8, seed 0"
    assert facts["dropped"] == "the last 2 examples of each shuffled epoch (an incomplete batch)"
    assert "jax" in facts["device"]
    assert facts.get("note", "") == note
    assert [line.split() for line in lines[head:] if "─" not in line] == [
        ["layer", "operation", "output", "trainable", "statistics"],
        ["conv1", "Conv", "10×10×4", "36", "0"],
        ["norm1", "BatchNorm", "10×10×4", "1,008", "1,008"],
        ["relu", "10×10×4"],
        ["total", "1,044", "1,008"],
    ]


def test_one_example_is_no_plural(plan, blobs):
    console = Console(file=(stream := io.StringIO()), width=100)
    one = dataclasses.replace(plan, test=Examples(plan.test.inputs[:1], plan.test.labels[:1]), batch_size=7, epochs=1)
    terminal.print_start(console, Config(), blobs, one, [])
    assert "50 training and 1 test example\n" in stream.getvalue()
    assert "the last 1 example of each shuffled epoch" in stream.getvalue()


def test_nothing_is_reported_as_dropped_where_nothing_is(plan, blobs):
    console = Console(file=(stream := io.StringIO()), width=100)
    terminal.print_start(console, Config(), blobs, dataclasses.replace(plan, batch_size=25), [])
    assert "2 epochs of 2 steps of 25" in stream.getvalue()
    assert "dropped" not in stream.getvalue()


def test_the_end_of_a_run_counts_what_was_right(plan, blobs):
    console = Console(file=(stream := io.StringIO()), width=40)
    last = dataclasses.replace(RECORD, test_accuracy=17 / 23)
    terminal.print_result(console, [last], plan, blobs, 4.56)
    assert stream.getvalue() == (
        "\ntest accuracy 73.91% of blobs (17 of 23 right, loss 0.5000) after 3.2 s of training "
        "(and 4.6 s of compilation)\n"
    )


def test_the_end_of_a_run_with_validation_names_the_best_epoch_and_says_that_it_stopped_early(plan, blobs):
    console = Console(file=(stream := io.StringIO()), width=40)
    first, last = (dataclasses.replace(RECORD, epoch=i, validation_accuracy=1 / i, validation_loss=0.5) for i in (1, 2))
    terminal.print_result(console, [first, last], dataclasses.replace(plan, epochs=9), blobs, 4.56)
    assert stream.getvalue().startswith("\nstopped after epoch 2 of 9: the validation accuracy no longer improves\n")
    assert "\nbest validation accuracy 100.00% after epoch 1 (saved separately)\n" in stream.getvalue()
    with terminal.Monitor(console, plan) as monitor:
        monitor.show(last)
    assert "accuracy 90.00%  validation loss 0.5000 accuracy 50.00%  test loss 0.5000" in stream.getvalue()


@pytest.mark.parametrize(
    ("norm", "placement", "text"),
    [
        (NormConfig(), "before", "momentum 0.9, epsilon 1e-05"),
        (NormConfig(), "none", "none"),
        (NormConfig(norm_average="cumulative"), "after", "cumulative, epsilon 1e-05, after the activation"),
        (
            NormConfig(norm_average="debiased", norm_unbiased=True, norm_ghost_batch=8, norm_renorm="ramp"),
            "before",
            "momentum 0.9, debiased, epsilon 1e-05, unbiased, ghost batches of 8, renorm ramp",
        ),
    ],
)
def test_the_norm_in_short(norm, placement, text):
    assert terminal.describe_norm(Config(norm=norm, model=ModelConfig(norm_placement=placement))) == text
