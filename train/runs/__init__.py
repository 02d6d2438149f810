"""A run on disk and on screen: its files, its checkpoints, and what a person sees of it."""
