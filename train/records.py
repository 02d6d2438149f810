"""What a run wrote down of its epochs, read back."""

import contextlib
import json
from pathlib import Path
from typing import Any

from train.results import METRICS


def epoch_records(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; one that was being written when the run was killed is left out."""
    path = folder / METRICS
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            records.append(json.loads(line))
    return records
