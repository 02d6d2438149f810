"""The options of a run: what they are, how they are stored, and presets of them."""
