"""The machine and the terminal: files, output, signals, errors; independent of training."""
