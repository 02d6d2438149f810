"""`python -m train.studies NAME`: the same as `python -m train study NAME`."""

import sys

import tyro

from train.errors import UsageError
from train.studies.cli import StudyOptions, study


def main() -> int:
    """Runs the command line; returns the exit code."""
    try:
        study(tyro.cli(StudyOptions, prog="python -m train.studies"))
    except (OSError, UsageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
