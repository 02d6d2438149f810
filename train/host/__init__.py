"""The machine and the person in front of it: files, terminal, signals, errors; nothing here knows of training."""
