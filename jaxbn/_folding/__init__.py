"""Folding of whole networks: a traced computation is read, its norms are moved into kernels, and the result is run."""
