"""Ctrl-C and SIGTERM: acknowledged at once, so that a run can save its state and stop at the next safe point.

Python handles a signal only between two instructions of the main thread, and a compiled program that runs for minutes
is one instruction. So a separate thread receives signals, through `signal.set_wakeup_fd`, and responds meanwhile.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 2.0  # seconds that the main thread has to handle a second signal before the process is ended


class Interruption:
    """A context in which the first signal is only noted, and a second one stops at once.

    Args:
        answer: called from another thread as soon as the first signal arrives.
        end: called from another thread when a second signal arrives while the main thread is busy in a compiled
            program; then the process ends.

    Attributes:
        signal: the signal that arrived; None if none has.

    """

    def __init__(
        self, answer: Callable[[signal.Signals], None] = lambda _: None, end: Callable[[], None] = lambda: None
    ) -> None:
        self.signal: signal.Signals | None = None
        self._answer = answer
        self._end = end
        self._before: dict[signal.Signals, object] = {}
        self._left = threading.Event()
        self._heard = 0

    @property
    def code(self) -> int:
        """The exit code after the signal, as a shell has it: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + (self.signal or signal.SIGINT)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # only there can signals be handled
            self._reader, self._writer = socket.socketpair()
            self._writer.setblocking(False)
            self._wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            self._before = {each: signal.signal(each, self._note) for each in SIGNALS}
            self._thread = threading.Thread(target=self._listen, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        if self._before:
            for each, handler in self._before.items():
                signal.signal(each, handler)  # pyright: ignore[reportArgumentType]  (what signal.signal returned)
            signal.set_wakeup_fd(self._wakeup)
            self._writer.close()
            self._thread.join()
            self._reader.close()
            self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        """The handler of both signals, in the main thread."""
        if self.signal is not None or self._heard > 1:
            self._left.set()
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)

    def _listen(self) -> None:
        """Respond to signals until the context ends."""
        while received := self._reader.recv(16):
            for number in received:
                if number in SIGNALS:
                    self._hear(signal.Signals(number))

    def _hear(self, number: signal.Signals) -> None:
        self._heard += 1
        if self._heard == 1:
            self._answer(number)
        elif not self._left.wait(PATIENCE):
            self._end()
            os._exit(128 + number)
