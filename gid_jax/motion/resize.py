"""Resizing on a device as a product with matrices, whose numbers NumPy works out while the program is traced.

`jax.image.resize` gives the same, but works its matrices out inside the program, which then takes several times as long
to compile.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gid_jax.types import AnyArray

Method = Literal["linear", "cubic"]


def resize(
  values: Float[AnyArray, "*b h w c"], height: int, width: int, *, method: Method = "linear"
) -> Float[Array, "*b {height} {width} c"]:
  """Resizes [... h w c] to [... height width c], pixel centres kept; averaged where it shrinks, as in `jax.image`."""
  rows, columns = (resizing_matrix(*sides, method) for sides in zip(values.shape[-3:-1], (height, width), strict=True))
  return jnp.einsum("rh,...hwc,qw->...rqc", rows, values, columns, precision=jax.lax.Precision.HIGHEST)


def resizing_matrix(old: int, new: int, method: Method) -> Float[np.ndarray, "new old"]:
  """What each of `old` places gives to each of `new` ones: linear, or cubic (Keys 1981, a = -0.5)."""
  step = old / new
  centres = (np.arange(new) + 0.5) * step - 0.5
  distance = np.abs(centres[:, None] - np.arange(old)) / max(step, 1.0)
  if method == "linear":
    weights = np.maximum(1 - distance, 0)
  else:
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0))
  return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
