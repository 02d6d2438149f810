"""The training step of the MNIST CNN in each library, written as its users write it.

Convolutions of 32 and 64 features, 3×3, valid, without bias, each followed by batch normalization, relu and a 2×2 max
pooling; dense layers of 256 and 10; cross-entropy; Adam at 1e-3. A file holds a library's step: a function of the batch
size that returns what trains on `IMAGES` images when it is called.
"""
