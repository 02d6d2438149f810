"""The commands of `python -m train`, one per file."""
