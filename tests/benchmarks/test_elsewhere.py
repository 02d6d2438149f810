"""The separate process of the benchmarks."""

from collections.abc import Iterator

import pytest

from benchmarks import elsewhere
from benchmarks.elsewhere import Elsewhere


@pytest.fixture
def process() -> Iterator[Elsewhere]:
    process = Elsewhere({"COLOUR": "green"})
    yield process
    process.close()


def test_calls_and_steps_happen_there(process: Elsewhere):
    assert process.run("os:getenv", "COLOUR") == "green"
    assert process.run("operator:add", 1, 2) == 3
    numbers = process.prepare("functools:partial", print, "heard")  # not on the pipe for answers
    numbers()
    assert numbers() is None
    assert process.run("operator:add", "a", "b") == "ab"


def test_the_next_step_takes_the_place_of_the_last(process: Elsewhere):
    first, second = (process.prepare("functools:partial", int) for _ in range(2))
    second()
    with pytest.raises(RuntimeError, match="prepare it again"):
        first()


def test_what_fails_there_is_told_here_and_the_process_lives_on(process: Elsewhere):
    with pytest.raises(RuntimeError, match="ZeroDivisionError: division by zero"):
        process.run("operator:truediv", 1, 0)
    step = process.prepare("functools:partial", float, "no number")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no number"):
            step()
    assert process.run("operator:add", 1, 2) == 3


def test_a_process_that_dies_says_so(process: Elsewhere):
    with pytest.raises(RuntimeError, match="has ended, with exit code 3"):
        process.run("os:_exit", 3)
    with pytest.raises(RuntimeError, match="has ended, with exit code 3"):
        process.run("os:getpid")


def test_a_closed_process_is_over():
    process = Elsewhere({})
    assert 0 < elsewhere.round_trip(process, calls=3) < 60
    process.close()
    process.close()
    with pytest.raises(RuntimeError, match="has ended"):
        process.run("os:getpid")
