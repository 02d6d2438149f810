"""Inference with trained networks: classification, exported files, and image files."""
