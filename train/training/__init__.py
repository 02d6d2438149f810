"""Training in memory: the step, the loop, the optimizer, and the devices they run on."""
