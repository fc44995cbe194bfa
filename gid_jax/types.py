"""Axis letters, units and the value types that travel through the whole system.

Axis letters, always in this order: `b` batch, `k` frequency band, `t` frame, `h` row, `w` column, `c` channel.
Images are float32 RGB in [0, 1], channels last. Displacements are (dx, dy) in pixels of the image or grid they
are stored on, +x right and +y down, measured from frame 0. Pixel centres are integers.
A spectral volume stores, for band k, the four channels (Re x, Im x are channels 0 and 2; Re y, Im y are 1 and 3),
that is the order (Re x, Re y, Im x, Im y), of the unnormalised forward DFT over `num_frames` frames.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

AnyArray = jax.Array | np.ndarray
PRNGKey = jax.Array
Params = dict[str, Any]
Batch = dict[str, Any]  # of AnyArray
Metrics = dict[str, Array]
LossFn = Callable[[PRNGKey, Params, Batch], tuple[Array, Metrics]]


class SpectralVolume(flax.struct.PyTreeNode):
  """The lowest Fourier coefficients of every pixel's trajectory (section 3, eq. 2).

  Attributes:
    coefficients: [*b k h w 4] float32, channels (Re x, Re y, Im x, Im y), pixels of this h x w grid, from the
      forward DFT without normalisation.
    num_frames: length T of the period in frames.
    fps: frames per second; band k is k * fps / num_frames Hz.
  """

  coefficients: Float[AnyArray, "*b k h w 4"]
  num_frames: int = flax.struct.field(pytree_node=False, default=150)
  fps: float = flax.struct.field(pytree_node=False, default=30.0)


class Clip(NamedTuple):
  """Decoded video frames with the time at which each is shown.

  Attributes:
    frames: [t h w 3] uint8 RGB.
    times: [t] float64 seconds, strictly increasing, starting at 0.
  """

  frames: UInt8[np.ndarray, "t h w 3"]
  times: Float[np.ndarray, "t"]


class Window(NamedTuple):
  """One training sample: a photo, where its pixels go, and a few later frames to render; motion in floating point.

  Attributes:
    image: [h w 3] uint8 RGB, the first frame.
    spectrum: [k hm wm 4] coefficients on the motion grid (hm x wm, usually h/2 x w/2), pixels of that grid.
    frames: [n h w 3] uint8, n frames later in the window.
    flows: [n h w 2] displacement in pixels of the h x w grid from `image` to each of `frames`.
    depth: [h w] mean displacement magnitude over the window, pixels of the h x w grid (W in section 5).
    scene: name of the scene; splits are made by scene.
    source: "real", "loop" or "synthetic".
  """

  image: np.ndarray
  spectrum: np.ndarray
  frames: np.ndarray
  flows: np.ndarray
  depth: np.ndarray
  scene: str
  source: str
