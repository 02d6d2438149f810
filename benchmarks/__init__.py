"""Benchmarks: one file per question, all timed by one small harness."""
