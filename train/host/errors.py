"""How a command ends other than well; `train.commands.cli.main` prints these in one line, without a traceback."""


class UsageError(Exception):
    """The options, or the files that they name, cannot be worked with.

    Attributes:
        code: the exit code.

    """

    code = 1


class InterruptedRunError(Exception):
    """A run was told to stop, and has saved what it had.

    Attributes:
        code: the exit code: 128 + the signal's number, as a shell has it: 130 after Ctrl-C, 143 after SIGTERM.

    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class StoppedAtOnceError(KeyboardInterrupt):
    """A run was told to stop at once, and says what it has left undone.

    Attributes:
        code: the exit code, as above.

    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
