"""How close rendered frames come to the true ones, where the photo shows what is needed and where it does not.

A pair is a photo, its displacement to a later frame and that frame. Pixels of the later frame that no photo pixel
reaches are disoccluded: there a renderer has to invent, and elsewhere only to move, so both are measured. Frames are
[h w 3] RGB, uint8 or floating point in [0, 1]; what is below 0 or above 1 is clipped, as on a screen.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Real

from gid_jax.errors import UserError
from gid_jax.models.vgg16 import VGG16_LAYER_WEIGHTS, vgg16_features
from gid_jax.motion.splat import average_splat, fill_holes, softmax_splat, sum_splat
from gid_jax.motion.warp import sample_linear
from gid_jax.types import AnyArray

# Mean squared error of rounding to 8 bits. Truth is not known better, and an average needs finite figures.
_ROUNDING_ERROR = 1 / (12 * 255**2)
# Wang et al. 2004, for a dynamic range of 1.
_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2

Renderer = Callable[[Any, Any, Any], AnyArray]  # (image [h w 3], flow [h w 2], depth [h w]) to a frame [h w 3]


def psnr(
  frame: Real[np.ndarray, "h w 3"], truth: Real[np.ndarray, "h w 3"], *, mask: Bool[np.ndarray, "h w"] | None = None
) -> float:
  """Peak signal-to-noise ratio in dB, at most 58.9, which is the rounding to 8 bits.

  Args:
    frame: [h w 3] rendered.
    truth: [h w 3].
    mask: [h w] the pixels that count; all without one.

  Returns:
    The ratio; NaN where the mask is empty.
  """
  errors = (_to_unit(frame) - _to_unit(truth)) ** 2
  if mask is not None:
    errors = errors[np.asarray(mask, bool)]
  return float(-10 * np.log10(max(errors.mean(), _ROUNDING_ERROR))) if errors.size else float("nan")


def ssim_map(frame: Real[np.ndarray, "h w 3"], truth: Real[np.ndarray, "h w 3"]) -> Float[np.ndarray, "hv wv"]:
  """Structural similarity around every pixel, mean of the three channels (Wang et al. 2004, at full resolution).

  Args:
    frame: [h w 3] rendered.
    truth: [h w 3].

  Returns:
    [h-10 w-10] float64, at most 1: windows that reach over the border are left out, so pixel (y, x) of the map
    belongs to pixel (y + 5, x + 5) of the frames. Windows are Gaussian, 11 pixels, sigma 1.5; K1 = 0.01, K2 = 0.03.

  Raises:
    UserError: a side is shorter than the window.
  """
  frame, truth = _to_unit(frame), _to_unit(truth)
  if min(frame.shape[:2]) < _WINDOW:
    raise UserError(f"SSIM of {frame.shape[0]} x {frame.shape[1]} pixels: give frames of at least {_WINDOW} a side")
  border = _WINDOW // 2
  mean = lambda x: cv2.GaussianBlur(x, (_WINDOW, _WINDOW), _SIGMA)[border:-border, border:-border]
  mean_frame, mean_truth = mean(frame), mean(truth)
  variances = mean(frame**2) + mean(truth**2) - mean_frame**2 - mean_truth**2
  covariance = mean(frame * truth) - mean_frame * mean_truth
  luminance = (2 * mean_frame * mean_truth + _C1) / (mean_frame**2 + mean_truth**2 + _C1)
  return (luminance * (2 * covariance + _C2) / (variances + _C2)).mean(-1)


def ssim(
  frame: Real[np.ndarray, "h w 3"], truth: Real[np.ndarray, "h w 3"], *, mask: Bool[np.ndarray, "h w"] | None = None
) -> float:
  """Mean of `ssim_map` for frames [h w 3], over the pixels of `mask` [h w] with one; NaN where none has a window."""
  return _mean_within(ssim_map(frame, truth), mask)


def perceptual_distances(
  params: Mapping[str, Mapping[str, AnyArray]],
  frames: Real[np.ndarray, "n h w 3"],
  truth: Real[np.ndarray, "h w 3"],
  masks: Bool[np.ndarray, "m h w"],
) -> Float[np.ndarray, "n m"]:
  """VGG16 perceptual distance of several frames from one truth, within several masks.

  Within a mask that holds everything it is `gid_jax.training.losses.perceptual`. Otherwise a feature counts by
  the share of its block of pixels that the mask covers; deep features also see what surrounds the mask.

  Args:
    params: from `gid_jax.models.vgg16.vgg16_params`.
    frames: [n h w 3] rendered, sides of at least 16 pixels.
    truth: [h w 3].
    masks: [m h w].

  Returns:
    [n m], NaN for masks with no pixel.
  """
  pictures = np.stack([_to_unit(picture).astype(np.float32) for picture in (truth, *frames)])
  return np.asarray(_perceptual_distances(params, pictures, np.asarray(masks, np.float32)))


@jax.jit
def _perceptual_distances(params, pictures, masks):
  terms = []
  for weight, features in zip(VGG16_LAYER_WEIGHTS, vgg16_features(params, pictures), strict=True):
    if terms:
      # As the network halves its pictures: an odd last row or column is dropped.
      num_masks, height, width = masks.shape
      blocks = masks[:, : height // 2 * 2, : width // 2 * 2].reshape(num_masks, height // 2, 2, width // 2, 2)
      masks = blocks.mean((2, 4))
    differences = jnp.abs(features[1:] - features[:1]).mean(-1)
    sums = jnp.einsum("nhw,mhw->nm", differences, masks, precision="highest")
    terms.append(weight * sums / masks.sum((1, 2)))
  return jnp.stack(terms).mean(0)


def find_disoccluded(flow: Float[np.ndarray, "h w 2"], *, smallest_mass: float = 0.5) -> Bool[np.ndarray, "h w"]:
  """The pixels of the later frame that no photo pixel reaches: uncovered background, and what enters at the border.

  Args:
    flow: [h w 2] displacement from the photo, pixels.
    smallest_mass: bilinear shares that must land for a pixel to count as reached. At one half a gap counts with as
      many pixels as it is wide, wherever it falls between them.
  """
  flow = np.asarray(flow, np.float32)
  return np.asarray(_splat_mass(flow))[..., 0] < smallest_mass


@jax.jit
def _splat_mass(flow):
  return sum_splat(jnp.zeros((*flow.shape[:2], 1)), flow)[1]


@jax.jit
def predict_by_average(
  image: Float[AnyArray, "h w 3"], flow: Float[AnyArray, "h w 2"], depth: Float[AnyArray, "h w"]
) -> Float[Array, "h w 3"]:
  """The photo [h w 3] splatted along `flow` [h w 2], collisions averaged and holes filled; `depth` is not used."""
  return fill_holes(*average_splat(image, flow))


@jax.jit
def predict_by_softmax(
  image: Float[AnyArray, "h w 3"], flow: Float[AnyArray, "h w 2"], depth: Float[AnyArray, "h w"]
) -> Float[Array, "h w 3"]:
  """The photo [h w 3] splatted along `flow` [h w 2], larger `depth` [h w] in front, holes filled."""
  return fill_holes(*softmax_splat(image, flow, depth))


@jax.jit
def predict_by_backward_warp(
  image: Float[AnyArray, "h w 3"], flow: Float[AnyArray, "h w 2"], depth: Float[AnyArray, "h w"]
) -> Float[Array, "h w 3"]:
  """The photo [h w 3] sampled at p - F(p), F being `flow` [h w 2]: right where F varies slowly; no `depth`."""
  return sample_linear(image, -flow[..., 0], -flow[..., 1])


def predict_by_standing_still(
  image: Float[AnyArray, "h w 3"], flow: Float[AnyArray, "h w 2"], depth: Float[AnyArray, "h w"]
) -> Float[AnyArray, "h w 3"]:
  """The photo [h w 3] itself, whatever the motion [h w 2] and depth [h w]: the floor."""
  return image


PREDICTORS: Mapping[str, Renderer] = {
  "average splat": predict_by_average,
  "softmax splat": predict_by_softmax,
  "backward warp": predict_by_backward_warp,
  "photo": predict_by_standing_still,
}
REGIONS = ("whole", "disoccluded", "visible")
METRICS = ("psnr", "ssim", "perceptual")


def judge_pair(
  image: Real[np.ndarray, "h w 3"],
  flow: Float[np.ndarray, "h w 2"],
  depth: Float[np.ndarray, "h w"],
  truth: Real[np.ndarray, "h w 3"],
  *,
  renderers: Mapping[str, Renderer],
  vgg_params: Mapping[str, Mapping[str, AnyArray]] | None = None,
) -> dict[str, dict[tuple[str, str], float]]:
  """Renders one pair with each of several renderers and compares with the true frame.

  Args:
    image: [h w 3] the photo.
    flow: [h w 2] its displacement to `truth`, pixels.
    depth: [h w] mean displacement magnitude, pixels.
    truth: [h w 3] the later frame.
    renderers: name to a function of (image in [0, 1], flow, depth), such as `PREDICTORS` and
      `gid_jax.rendering.ImageRenderer.render_flow`.
    vgg_params: from `gid_jax.models.vgg16.vgg16_params`; without them there is no perceptual distance.

  Returns:
    Name to {(metric of `METRICS`, region of `REGIONS`): figure}; NaN for a region with no pixels.
  """
  image = _to_unit(image).astype(np.float32)
  flow, depth = np.asarray(flow, np.float32), np.asarray(depth, np.float32)
  disoccluded = find_disoccluded(flow)
  masks = np.stack([np.ones_like(disoccluded), disoccluded, ~disoccluded])
  frames = {name: np.asarray(render(image, flow, depth)) for name, render in renderers.items()}
  scores = {}
  for name, frame in frames.items():
    similarity = ssim_map(frame, truth)
    scores[name] = {}
    for region, mask in zip(REGIONS, masks, strict=True):
      scores[name]["psnr", region] = psnr(frame, truth, mask=mask)
      scores[name]["ssim", region] = _mean_within(similarity, mask)
  if vgg_params is not None:
    distances = perceptual_distances(vgg_params, np.stack([*frames.values()]), truth, masks)
    for name, row in zip(frames, distances.tolist(), strict=True):
      scores[name] |= {("perceptual", region): value for region, value in zip(REGIONS, row, strict=True)}
  return scores


class Flicker(NamedTuple):
  """How far still pixels of a rendered clip are from still; in the range of the image, 0 is perfect.

  Attributes:
    between_frames: mean absolute change from a frame to the next; NaN for a single frame.
    from_photo: mean absolute difference from the photo.
  """

  between_frames: float
  from_photo: float


def measure_flicker(
  frames: Iterable[Real[np.ndarray, "h w 3"]], still: Bool[np.ndarray, "h w"], *, photo: Real[np.ndarray, "h w 3"]
) -> Flicker:
  """Temporal stability of a rendered clip where the scene stands still.

  Args:
    frames: [t h w 3], or anything that yields frames [h w 3] in turn; two are held at a time.
    still: [h w] the pixels that do not move; NaN figures where there are none.
    photo: [h w 3] what they should show.

  Raises:
    UserError: there is no frame.
  """
  still = np.asarray(still, bool)
  if not still.any():
    return Flicker(float("nan"), float("nan"))
  wanted, before = _to_unit(photo)[still], None
  changes, differences = [], []
  for frame in frames:
    pixels = _to_unit(frame)[still]
    if before is not None:
      changes.append(np.abs(pixels - before).mean())
    differences.append(np.abs(pixels - wanted).mean())
    before = pixels
  if not differences:
    raise UserError("measure_flicker: the clip has no frames; render at least one")
  return Flicker(float(np.mean(changes)) if changes else float("nan"), float(np.mean(differences)))


def _to_unit(frame) -> np.ndarray:
  # float64 in [0, 1]: the variances of SSIM are small differences of large means.
  frame = np.asarray(frame)
  scale = 255 if frame.dtype == np.uint8 else 1
  return np.clip(frame.astype(np.float64) / scale, 0, 1)


def _mean_within(similarity, mask):
  # The mean of an SSIM map over the pixels of a mask of the whole frame.
  if mask is not None:
    border = _WINDOW // 2
    similarity = similarity[np.asarray(mask, bool)[border:-border, border:-border]]
  return float(similarity.mean()) if similarity.size else float("nan")
