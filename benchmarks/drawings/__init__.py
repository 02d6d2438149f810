"""Pictures of what the benchmarks saved, in the look of the training program's."""
