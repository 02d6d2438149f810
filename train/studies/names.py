"""The names of the studies, light to import."""

from typing import Literal, get_args

StudyName = Literal[
    "all",
    "init-scale",
    "learning-rate",
    "activations",
    "vanishing",
    "regularization",
    "placement",
    "smoothness",
    "small-batch",
    "ghost-batch",
    "running-stats",
]
NAMES = tuple(name for name in get_args(StudyName) if name != "all")
