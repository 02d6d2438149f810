"""The networks: their layers, and how one is built from options."""
