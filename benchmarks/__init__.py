"""Benchmarks: one file a question, all timed by one small harness."""
