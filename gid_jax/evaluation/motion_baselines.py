"""What a model's motion has to beat: predictors without a network, and measures of the photo alone for "where".

Still is the floor, the average of training scenes and smooth noise of the right spectrum know how things move but not
what is in the photo, and the scores know a little of the photo and nothing of motion.
"""

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import jax
import numpy as np
from jaxtyping import Float

from gid_jax.errors import UserError
from gid_jax.types import PRNGKey, SpectralVolume


class AverageMotion(NamedTuple):
  """Two predictions that are the same for every photo.

  Attributes:
    mean: mean of the coefficients, the best constant in mean square error; phases of scenes cancel, so it is faint.
    typical: coefficients of the root mean square size that they have over the scenes, with the phases of the mean.
  """

  mean: SpectralVolume
  typical: SpectralVolume


def rest_still(like: SpectralVolume) -> SpectralVolume:
  """The prediction that nothing moves, of the shape [k h w 4], period and rate of another."""
  return like.replace(coefficients=np.zeros(np.shape(like.coefficients), np.float32))


def average_motion(volumes: Iterable[SpectralVolume]) -> AverageMotion:
  """Averages the motion of training scenes, one at a time.

  Args:
    volumes: [k h w 4] each, of the same shape, period and rate.

  Raises:
    UserError: there is none, or they differ.
  """
  first, total, power, count = None, np.zeros(()), np.zeros(()), 0
  for volume in volumes:
    first = volume if first is None else first
    kinds = [(np.shape(v.coefficients), v.num_frames, float(v.fps)) for v in (first, volume)]
    if kinds[0] != kinds[1]:
      raise UserError(f"training motions {kinds[0]} and {kinds[1]} differ in shape, period or rate; resample one")
    values = np.asarray(volume.coefficients, np.float64)
    total, power, count = total + values, power + _square_modulus(values), count + 1
  if first is None:
    raise UserError("no training motion to average; give at least one volume")
  # A phase where the mean is exactly 0 is as good as any other.
  modulus = np.sqrt(_square_modulus(total))
  unit = np.where(_twice(modulus) > 0, total / np.maximum(_twice(modulus), 1e-30), np.array([1, 1, 0, 0]))
  mean, typical = total / count, unit * _twice(np.sqrt(power / count))
  return AverageMotion(*(first.replace(coefficients=values.astype(np.float32)) for values in (mean, typical)))


def draw_smooth_noise(
  key: PRNGKey,
  power: Float[np.ndarray, "k 2"],
  *,
  height: int,
  width: int,
  num_frames: int,
  fps: float,
  sigma: float,
) -> SpectralVolume:
  """Draws smoothed Gaussian noise of a given spectrum, anew in every band: motion that is blind to the photo.

  Args:
    key: one gives the same motion again.
    power: [k 2] mean square of the coefficients of x and y; see `gid_jax.motion.spectral.motion_power`. The drawn one
      has this very power.
    height: of the motion grid.
    width: of the motion grid.
    num_frames: period.
    fps: frames per second.
    sigma: of the Gaussian in steps of the grid; places a few times as far apart move independently.

  Returns:
    The volume [k h w 4]; what stands alone in the transform (bands 0 and num_frames / 2) is real.
  """
  num_bands = len(power)
  noise = np.asarray(jax.random.normal(key, (num_bands, 4, height, width)))
  fields = np.stack([[cv2.GaussianBlur(field, (0, 0), sigma) for field in band] for band in noise])
  alone = (np.arange(num_bands) == 0) | (2 * np.arange(num_bands) == num_frames)
  fields[alone, 2:] = 0
  drawn = np.square(fields).mean((2, 3))
  gains = np.sqrt(np.asarray(power) / (drawn[:, :2] + drawn[:, 2:]))
  coefficients = np.moveaxis(fields * np.tile(gains, 2)[..., None, None], 1, -1)
  return SpectralVolume(coefficients.astype(np.float32), num_frames=num_frames, fps=fps)


def score_photo(
  image: Float[np.ndarray, "h w 3"], *, height: int, width: int
) -> dict[str, Float[np.ndarray, "hm wm"]]:
  """Scores "where" things may move from the photo alone, by name, for `gid_jax.evaluation.motion.area_under_curve`.

  - gradient: slope of the grey values, over a Gaussian of 4 px;
  - greenness: how far green exceeds the mean of red and blue, over the brightness;
  - saturation: of colour, (max - min) / max;
  - centre: closeness to the middle of the picture.

  Args:
    image: [h w 3] photo in [0, 1].
    height: hm of the motion grid.
    width: wm.

  Returns:
    Name -> [hm wm], larger where motion is likelier; only the order means anything.
  """
  image = np.asarray(image, np.float32)
  gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
  slope = cv2.GaussianBlur(np.hypot(cv2.Sobel(gray, -1, 1, 0), cv2.Sobel(gray, -1, 0, 1)), (0, 0), 4)
  red, green, blue = np.moveaxis(image, -1, 0)
  # The small numbers keep black pixels, whose colour is noise, near 0.
  greenness = (2 * green - red - blue) / (red + green + blue + 0.02)
  saturation = (image.max(-1) - image.min(-1)) / (image.max(-1) + 0.01)
  y, x = ((np.arange(size) + 0.5) / size - 0.5 for size in (height, width))
  on_photo = {"gradient": slope, "greenness": greenness, "saturation": saturation}
  scores = {name: cv2.resize(s, (width, height), interpolation=cv2.INTER_AREA) for name, s in on_photo.items()}
  return scores | {"centre": -np.hypot(y[:, None], x).astype(np.float32)}


def _square_modulus(values):
  # [... 4] channels to [... 2] squares of the complex x and y.
  return np.square(values[..., :2]) + np.square(values[..., 2:])


def _twice(values):
  # [... 2] of x and y, for the real and for the imaginary channels.
  return np.concatenate([values, values], -1)
