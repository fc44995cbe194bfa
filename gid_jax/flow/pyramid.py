"""Image pyramids of the features that optical flow compares (Liu 2009): fifteen planes a level.

Planes 0 to 4 are the features, 5 to 9 their derivatives by x, 10 to 14 those by y. Images are RGB in [0, 1].
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gid_jax.motion.warp import correlate

NUM_FEATURES = 5
_DERIVATIVE = (1 / 12, -8 / 12, 0.0, 8 / 12, -1 / 12)
_PREFILTER = (0.02, 0.11, 0.74, 0.11, 0.02)


def pyramid_sizes(height: int, width: int, *, ratio: float, min_size: int) -> list[tuple[int, int]]:
  """Lists the (h, w) of every level, finest first, `ratio` apart, until the longer side would fall below `min_size`."""
  sizes = [(height, width)]
  while True:
    scale = ratio ** len(sizes)
    if max(height, width) * scale < min_size:
      return sizes
    sizes.append((max(2, round(height * scale)), max(2, round(width * scale))))


def image_to_pyramid(image: Float[Array, "h w 3"], sizes: list[tuple[int, int]]) -> list[Float[Array, "15 _ _"]]:
  """Resizes an image [h w 3] to every level's size, with antialiasing, and takes its features: [15 h2 w2] each."""
  return [
    image_to_features(image if size == image.shape[:2] else jax.image.resize(image, (*size, 3), "linear"))
    for size in sizes
  ]


def image_to_features(image: Float[Array, "h w 3"]) -> Float[Array, "15 h w"]:
  """Takes of an image [h w 3] grey, its derivatives, G - R and G - B, slightly smoothed, and their gradients.

  Returns [15 h w], see the head of this file.
  """
  # Beyond the border the edge repeats, far enough for three filters in a row.
  image = jnp.pad(image, ((6, 6), (6, 6), (0, 0)), mode="edge")
  red, green, blue = image[..., 0], image[..., 1], image[..., 2]
  grey = image_to_grey(image)
  whole = slice(2, -2)
  across, down = correlate(grey, _DERIVATIVE, -1)[whole], correlate(grey, _DERIVATIVE, -2)[:, whole]
  features = jnp.stack([grey[whole, whole], across, down, *((green - x)[whole, whole] for x in (red, blue))])
  features = correlate(correlate(features, _PREFILTER, -1), _PREFILTER, -2)
  gradients = correlate(features, _DERIVATIVE, -1)[:, whole], correlate(features, _DERIVATIVE, -2)[..., whole]
  return jnp.concatenate([features[:, whole, whole], *gradients])


def image_to_grey(image: Float[Array, "*b 3"]) -> Float[Array, "*b"]:
  """Luma (BT.601) of RGB [*b 3] as [*b]."""
  return 0.299 * image[..., 0] + 0.587 * image[..., 1] + 0.114 * image[..., 2]

