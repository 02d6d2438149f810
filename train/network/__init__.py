"""The networks: their layers, how one is built from options, and how its norms are folded."""
