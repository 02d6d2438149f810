"""The claims about batch normalization, each measured: one file a claim; `python -m train study NAME`."""
