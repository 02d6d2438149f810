"""Ctrl-C is answered at once, also while a compiled program keeps the main thread; a second one ends that."""

import ctypes
import os
import signal
import sys
import threading

import pytest

from train.host import interruption
from train.host.interruption import Interruption

WAIT = 30  # seconds after which a test gives up


class Busy:
    """Keeps a thread in one instruction of C, as a compiled program does, until it is released."""

    def __init__(self):
        self._lock = ctypes.create_string_buffer(256)  # a pthread_mutex_t
        self._c = ctypes.CDLL(None)
        self._c.pthread_mutex_lock(self._lock)
        self.released = threading.Event()

    def work(self):
        watchdog = threading.Timer(WAIT, self.release)
        watchdog.start()
        self._c.pthread_mutex_lock(self._lock)  # returns when another thread has unlocked it; signals do not end it
        watchdog.cancel()

    def release(self):
        if not self.released.is_set():
            self.released.set()
            self._c.pthread_mutex_unlock(self._lock)


def send(*numbers):
    """Sends this process signals in the order given, a moment after the main thread goes on."""

    def kill():
        for number in numbers:
            os.kill(os.getpid(), number)

    threading.Timer(0.05, kill).start()


on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="unlocks a mutex as Linux allows it")


@on_linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_answered_while_the_main_thread_is_busy(number):
    busy, heard = Busy(), []

    def answer(signal):
        heard.append((signal, noted.signal))
        busy.release()

    with Interruption(answer) as noted:
        send(number)
        busy.work()
    assert heard == [(number, None)]  # the main thread did not yet know
    assert (noted.signal, noted.code) == (number, 128 + number)


@on_linux
def test_a_second_signal_ends_the_process_where_the_main_thread_is_busy(monkeypatch):
    busy, ended = Busy(), []
    answered = threading.Event()

    def leave(code):
        ended.append(code)
        busy.release()

    monkeypatch.setattr(interruption.os, "_exit", leave)
    monkeypatch.setattr(interruption, "PATIENCE", 0.01)

    def again(_):
        answered.set()
        os.kill(os.getpid(), signal.SIGINT)

    def run():
        with Interruption(again, lambda: ended.append("said")):
            send(signal.SIGINT)
            busy.work()
            for _ in range(1000):  # the handler comes between two instructions
                pass

    with pytest.raises(KeyboardInterrupt):
        run()
    assert answered.is_set()
    assert ended == ["said", 130]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_interrupts_what_goes_on(number):
    def run(noted):
        with noted:
            signal.raise_signal(number)
            assert noted.signal == number
            signal.raise_signal(number)

    before = signal.getsignal(number)
    noted = Interruption()
    with pytest.raises(KeyboardInterrupt):
        run(noted)
    assert noted.code == 128 + number
    assert signal.getsignal(number) is before


def test_what_was_set_before_is_set_again():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer)
    try:
        with Interruption():
            pass
        assert signal.set_wakeup_fd(before) == writer
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)


def test_elsewhere_than_in_the_main_thread_nothing_happens():
    before, found = signal.getsignal(signal.SIGINT), []

    def run():
        with Interruption() as noted:
            found.append((signal.getsignal(signal.SIGINT), noted.signal))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [(before, None)]
