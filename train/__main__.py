"""`python -m train`."""

import os
import sys

from train.cli import main
from train.data import cache

# Programs that were compiled once are found again at the next start. A setting of one's own has precedence.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache.default_folder() / "programs"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

code = main()
if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
    # Other processes are gone, or this one was told to stop at once: the usual exit would wait for them.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
sys.exit(code)
