"""`python -m train`."""

import gc
import os
import sys

from train.host import packages

if absent := packages.missing():
    print(f"error: {packages.explain(absent)}", file=sys.stderr)
    sys.exit(1)

# These modules import packages that may be missing, so they come after the check.
from train.commands.cli import main
from train.host import program_cache

gc.set_threshold(100_000)  # JAX's many objects stay: looking for garbage among them is a tenth of a short run's time
code = main(around=program_cache.kept)
gc.freeze()  # nor does the end of Python look for garbage
if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
    # Other processes have gone, or this one was told to stop at once: a normal exit would wait for them.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
sys.exit(code)
