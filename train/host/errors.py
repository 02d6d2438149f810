"""Errors that end a command; `train.commands.cli.main` prints them in one line, without a traceback."""


class UsageError(Exception):
    """The options, or the files that they name, are invalid.

    Attributes:
        code: the exit code.

    """

    code = 1


class _StoppedError(BaseException):
    """A run was told to stop.

    Attributes:
        code: the exit code: 128 + the signal's number, as a shell has it: 130 after Ctrl-C, 143 after SIGTERM.

    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class InterruptedRunError(_StoppedError, Exception):
    """A run was told to stop, and has saved its state."""


class StoppedAtOnceError(_StoppedError, KeyboardInterrupt):
    """A run was told to stop at once; the message says what was not done."""
