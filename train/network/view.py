"""The images as a network sees them: handwriting made upright, the border cut off, and moved a little in training."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class View(NamedTuple):
    """How images are prepared for a network.

    Attributes:
        deslant: make handwriting upright.
        crop: pixels cut off at each side.
        shift: pixels by which a training image is moved at most, along both axes.

    """

    deslant: bool = False
    crop: int = 0
    shift: int = 0

    def of(self, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Prepare images (N, H, W, C), for training if there is a key; features of tables remain as they are."""
        if self.deslant:
            images = deslant(images)
        if self.shift and key is not None:
            images = _moved(images, key, self.shift)
        if self.crop:
            _, height, width, _ = images.shape
            images = images[:, self.crop : height - self.crop, self.crop : width - self.crop]
        return images


def deslant(images: jax.Array) -> jax.Array:
    """Shear each image horizontally, so that its principal axis is vertical.

    With the brightness b of the pixels and their centre of mass (ȳ, x̄):

        slant = Σ b (y − ȳ)(x − x̄) / Σ b (y − ȳ)²        result[y, x] = image[y, x + slant · (y − ȳ)]

    Between two pixels the image is interpolated linearly; beyond its border it is 0.

    Args:
        images: (N, H, W, C), light strokes on black, in floating point.

    Returns:
        Images of the same shape.

    Example:
        >>> import jax.numpy as jnp
        >>> diagonal = jnp.eye(3)[None, :, :, None]
        >>> deslant(diagonal)[0, :, :, 0].tolist()
        [[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]

    Source: LeCun, Bottou, Bengio & Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998, section
    III A.

    """
    _, height, width, _ = images.shape
    y, x = (jnp.arange(side, dtype=images.dtype) - (side - 1) / 2 for side in (height, width))
    brightness = images.sum(-1)
    of_row = brightness.sum(2)
    down = y - _ratio((of_row * y).sum(1), of_row.sum(1))[:, None]
    # Σ b (y − ȳ) x̄ is 0, so x need not be centred about x̄.
    slant = _ratio(((brightness * x).sum(2) * down).sum(1), (of_row * down**2).sum(1))
    shift = slant[:, None] * down
    # jax.scipy.ndimage.map_coordinates gives the same, but a whole training step on CPU takes 1.2 times as long.
    whole = jnp.floor(shift)
    column = jnp.arange(width) + whole.astype(jnp.int32)[:, :, None]
    share = (shift - whole)[:, :, None, None]
    return (1 - share) * _at(images, column) + share * _at(images, column + 1)


def _moved(images: jax.Array, key: jax.Array, furthest: int) -> jax.Array:
    """Each image moved by up to `furthest` pixels down and across; zeros come in from beyond the border."""
    padded = jnp.pad(images, ((0, 0), (furthest, furthest), (furthest, furthest), (0, 0)))
    # jax.random.randint draws numbers twice, and splits the key for that.
    corners = jnp.floor(jax.random.uniform(key, (len(images), 2)) * (2 * furthest + 1)).astype(jnp.int32)
    return jax.vmap(lambda image, at: lax.dynamic_slice(image, (at[0], at[1], 0), images.shape[1:]))(padded, corners)


def _ratio(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """The ratio, or 0 where the denominator is 0: an image that is black, or has a single row, has no slant."""
    return numerator / jnp.where(denominator > 0, denominator, jnp.inf)


def _at(images: jax.Array, column: jax.Array) -> jax.Array:
    """The pixels of the given columns (N, H, W); 0 beyond the border."""
    width = images.shape[2]
    inside = (column >= 0) & (column < width)
    pixels = jnp.take_along_axis(images, jnp.clip(column, 0, width - 1)[..., None], axis=2)
    return jnp.where(inside[..., None], pixels, 0)
