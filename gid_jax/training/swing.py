"""Fits how far each place of a photo is likely to swing, for motion models that normalise by it.

  python -m gid_jax.training.swing --config=configs/ldm.py:default --config.data.directory=data/windows \
    --stills=photos_of_rock_and_towns --output=runs/swing.safetensors
  python -m gid_jax.train --config=configs/ldm.py:default --workdir=runs/ldm --config.init.swing=runs/swing.safetensors

Linear in frozen image features, so it is solved, not trained, in one pass over the windows, and a few dozen scenes
determine it: what they share, not what each looks like. Two fits make a `SwingHead`:

- Where: ridge regression of log(swing + 0.1 px) within each window, both sides less their mean over the window, so that
  a windy clip counts like a calm one. Features have unit deviation; the penalty leaves them few degrees of freedom. How
  much contrast the fit has is decided by scenes that it has not seen.
- Whether: ridge logistic regression of single places, those that move in filmed clips and loops against those of the
  photos of `--stills`, in which nothing sways. The head hears the photo's surest places beside each place's own odds.
"""

import functools
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import jax
import numpy as np
from absl import app, flags, logging
from jaxtyping import Bool, Float, UInt8
from ml_collections import config_flags

from gid_jax.configuration import ModelSettings, TrainSettings, WeightsSettings, expect_model
from gid_jax.data.checks import check_config, check_windows
from gid_jax.data.records import open_chosen
from gid_jax.data.scenes import list_scenes
from gid_jax.devices import use_compilation_cache
from gid_jax.errors import UserError
from gid_jax.files import make_parents
from gid_jax.media.folders import load_backgrounds
from gid_jax.models.codec import make_codec
from gid_jax.models.encoders import make_encoder
from gid_jax.motion.measures import rms_swing
from gid_jax.parsing import freeze, parse
from gid_jax.training.command_line import parse_flags
from gid_jax.types import SpectralVolume
from gid_jax.weights.frozen import read_trunks
from gid_jax.weights.pretrained import export_weights

FAINT = 0.1  # px: what swings less counts as this much more, as flow cannot tell it from rest
STILL = 0.1  # px that 5 % of a photo without anything to move may exceed
MOVES = 0.3  # of the swing that 5 % of a window exceed: from there on a place of it moves
CAUTION = 1.3  # of the log odds that a place moves: a wall that sways is worse than a leaf that rests
_NUM_PLACES = 60  # of a window or a photo, for whether a place moves
_NUM_NEWTON_STEPS = 8
_NUM_GROUPS = 100  # of scenes, left out one after the other


class Ridge(NamedTuple):
  """Normal equations of places of unit weight, to which windows are added one by one.

  Attributes:
    products: [c c] sum of the features' products.
    moments: [c] sum of features times target.
    count: places.
  """

  products: Float[np.ndarray, "c c"]
  moments: Float[np.ndarray, "c"]
  count: int

  def add(self, features: Float[np.ndarray, "n c"], target: Float[np.ndarray, "n"]) -> "Ridge":
    """Adds a window: features [n c] and target [n], both less their mean over the window."""
    features, target = (array.astype(np.float64) for array in (features, target))
    features, target = features - features.mean(0), target - target.mean()
    return Ridge(self.products + features.T @ features, self.moments + features.T @ target, self.count + len(target))

  def solve(self, penalty: float) -> Float[np.ndarray, "c"]:
    """Weights [c] of the features; `penalty` is relative to features of unit variance.

    The penalty chooses the direction; its length is then that of least squares, as a strong penalty would leave
    a map of hardly any contrast.
    """
    variance = np.diag(self.products) / self.count
    # Channels that never change get no weight.
    deviation = np.sqrt(np.maximum(variance, 1e-4 * variance.max(initial=1e-12)))
    scaled = self.products / self.count / np.outer(deviation, deviation)
    weights = np.linalg.solve(scaled + penalty * np.eye(len(scaled)), self.moments / self.count / deviation) / deviation
    square = weights @ self.products @ weights
    return weights * (weights @ self.moments / square) if square > 0 else weights


def start_ridge(num_features: int) -> Ridge:
  """No places yet."""
  return Ridge(np.zeros((num_features, num_features)), np.zeros(num_features), 0)


def _add(one: Ridge, other: Ridge) -> Ridge:
  return Ridge(one.products + other.products, one.moments + other.moments, one.count + other.count)


def fit_kernel(groups: Sequence[Ridge], *, penalty: float) -> Float[np.ndarray, "c"]:
  """Weights [c] of the features: ridge regression on all groups, of the length that suits the groups left out.

  Each group is predicted by the fit to the others; the length of all is the slope of the truth over these predictions,
  every group weighing the same. A single group keeps the length of least squares.
  """
  whole = functools.reduce(_add, groups)
  kernel = whole.solve(penalty)
  if len(groups) == 1:
    return kernel
  agreement = size = 0.0
  for group in groups:
    products, moments = whole.products - group.products, whole.moments - group.moments
    others = Ridge(products, moments, whole.count - group.count).solve(penalty)
    agreement += others @ group.moments / group.count
    size += others @ group.products @ others / group.count
  # Scenes that share nothing may disagree with every prediction; a map the wrong way round helps nobody.
  return kernel * max(agreement / size, 0.0) if size > 0 else kernel


def fit_gate(
  features: Float[np.ndarray, "n c"],
  is_moving: Bool[np.ndarray, "n"],
  *,
  penalty: float,
  weights: Float[np.ndarray, "n"] | None = None,
) -> tuple[Float[np.ndarray, "c"], float]:
  """Ridge logistic regression, both classes of equal weight, by Newton's method.

  Args:
    features: [n c] of places.
    is_moving: [n] whether they move.
    penalty: relative to features of unit variance and a mean loss.
    weights: [n] of the places within their class; all alike without.

  Returns:
    Weights [c] and bias of the log odds.

  Raises:
    UserError: one of the classes is empty.
  """
  if is_moving.all() or not is_moving.any():
    raise UserError("the gate needs windows in which something moves and photos in which nothing does; give both")
  weights = np.ones(len(features)) if weights is None else weights
  share = 0.5 * weights / np.where(is_moving, weights[is_moving].sum(), weights[~is_moving].sum())
  mean = share @ features
  deviation = np.sqrt(share @ (features - mean) ** 2)
  deviation = np.maximum(deviation, 1e-2 * deviation.max())
  x = np.concatenate([(features - mean) / deviation, np.ones((len(features), 1))], axis=1)
  ridge = penalty * np.eye(x.shape[1])
  ridge[-1, -1] = 0  # the bias is free
  fitted = np.zeros(x.shape[1])
  for _ in range(_NUM_NEWTON_STEPS):
    odds = 1 / (1 + np.exp(-x @ fitted))
    slope = x.T @ (share * (odds - is_moving)) + ridge @ fitted
    curvature = (x * (share * odds * (1 - odds))[:, None]).T @ x + ridge
    fitted -= np.linalg.solve(curvature, slope)
  kernel = fitted[:-1] / deviation
  return kernel, float(fitted[-1] - mean @ kernel)


class PlaceSample:
  """Places that move and places that rest, drawn from windows and photos that are added one by one."""

  def __init__(self):
    """No places yet."""
    self._rng = np.random.default_rng(0)
    self._moving: list[tuple[str, np.ndarray]] = []
    self._resting: list[np.ndarray] = []

  def _draw(self, features: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "m c"]:
    return features[self._rng.permutation(len(features))[:_NUM_PLACES]].astype(np.float64)

  def add_window(self, scene: str, features: Float[np.ndarray, "n c"], log_swing: Float[np.ndarray, "n"]) -> None:
    """Adds the moving places of a window: features [n c] and log swings [n] of all its places."""
    swing = np.exp(log_swing) - FAINT
    self._moving.append((scene, self._draw(features[swing >= MOVES * np.percentile(swing, 95)])))

  def add_still(self, features: Float[np.ndarray, "n c"]) -> None:
    """Adds a photo in which nothing moves: features [n c] of all its places."""
    self._resting.append(self._draw(features))

  def fit_gate(self, penalty: float) -> tuple[Float[np.ndarray, "c"], float]:
    """Weights [c] and bias of the log odds that a place moves, less `CAUTION`.

    Scenes count alike, however many windows they have.

    Raises:
      UserError: there are no windows or no photos; see `fit_gate`.
    """
    counts: dict[str, int] = {}
    for scene, features in self._moving:
      counts[scene] = counts.get(scene, 0) + len(features)
    drawn = [features for _, features in self._moving] + self._resting
    weights = [np.full(len(features), 1 / max(counts[scene], 1)) for scene, features in self._moving]
    weights += [np.ones(len(features)) for features in self._resting]
    is_moving = np.arange(sum(map(len, drawn))) < sum(counts.values())
    kernel, bias = fit_gate(np.concatenate(drawn), is_moving, penalty=penalty, weights=np.concatenate(weights))
    return kernel, bias - CAUTION


def find_log_swing(volume: SpectralVolume, *, stride: int, factor: int) -> Float[np.ndarray, "h2 w2"]:
  """log(swing + 0.1 px) of a volume [k h w 4] over cells of factor x factor: [h/factor w/factor], px of the photo."""
  square = np.square(rms_swing(volume, stride=stride))
  height, width = square.shape
  cells = square.reshape(height // factor, factor, width // factor, factor).mean((1, 3))
  return np.log(np.sqrt(cells) + FAINT)


def fit_swing(
  windows: Iterable[tuple[str, Float[np.ndarray, "h w c"], Float[np.ndarray, "h w"]]],
  stills: Iterable[Float[np.ndarray, "h2 w2 c"]],
  *,
  penalty: float,
  gate_penalty: float,
) -> dict[str, np.ndarray]:
  """Fits the parameters of a `SwingHead`.

  Args:
    windows: (scene, features [h w c], log swing [h w]) of windows in which something moves; see `find_log_swing`.
    stills: features [h w c] of photos in which nothing does.
    penalty: of where.
    gate_penalty: of whether.

  Raises:
    UserError: there are no windows or no stills.
  """
  groups: dict[int, Ridge] = {}
  scenes: dict[str, int] = {}
  places, levels, tops = PlaceSample(), [], []
  for scene, features, log_swing in windows:
    flat = features.reshape(-1, features.shape[-1])
    group = scenes.setdefault(scene, len(scenes) % _NUM_GROUPS)
    groups[group] = groups.get(group, start_ridge(flat.shape[1])).add(flat, log_swing.ravel())
    places.add_window(scene, flat, log_swing.ravel())
    levels.append(float(log_swing.mean()))
    tops.append(float(np.log(np.maximum(np.exp(np.percentile(log_swing, 95)) - FAINT, STILL))))
  if not groups:
    raise UserError("there are no windows to learn from; build some with --clips or --loops")
  for features in stills:
    places.add_still(features.reshape(-1, features.shape[-1]))
  gate, bias = places.fit_gate(gate_penalty)
  fitted = {
    "kernel": fit_kernel(list(groups.values()), penalty=penalty),
    "gate": gate,
    "gate_bias": np.array([bias]),
    "depth": np.array([np.mean(tops) - np.log(STILL)]),
    # Of the typical place; less than 1 by construction, as log swings have it added.
    "faint": np.array([min(FAINT / np.exp(np.mean(levels)), 0.9)]),
  }
  return {name: np.asarray(value, np.float32) for name, value in fitted.items()}


def make_eye(model: ModelSettings, paths: str, height: int, width: int):
  """A function from a photo [h w 3] uint8 to what the frozen networks see of it, [height width c] float32.

  Args:
    model: whose image encoder has the networks.
    paths: files of the networks; see `gid_jax.weights.frozen.read_trunks`.
    height, width: size of the grid.

  Raises:
    UserError: the image encoder has no frozen networks, or their parameters cannot be read.
  """
  params = read_trunks(model, paths)
  if not params:
    raise UserError("a swing is fitted to what frozen image networks see; name some by --config.model.encoder.trunks")
  encoder = make_encoder(model.encoder)

  @jax.jit
  def see(image):
    return encoder.apply({"params": params}, image[None] / 255.0, height=height, width=width, method="see")[0]

  return lambda image: np.asarray(see(np.asarray(image, np.float32)))


def cover(photo: UInt8[np.ndarray, "h w 3"], height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
  """The middle of a photo [h w 3], as large as fits, resized to [height width 3]."""
  zoom = max(height / photo.shape[0], width / photo.shape[1])
  size = max(width, round(photo.shape[1] * zoom)), max(height, round(photo.shape[0] * zoom))
  photo = cv2.resize(photo, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC)
  top, left = (photo.shape[0] - height) // 2, (photo.shape[1] - width) // 2
  return photo[top : top + height, left : left + width]


def fit(settings: TrainSettings, stills: str | Path, output: str | Path, *, penalty: float, gate_penalty: float) -> int:
  """Fits the swing of a motion model to its training windows, writes it, and returns how many windows there were.

  Args:
    settings: of stage "ldm": the model with its image encoder and codec, the data, and `init.encoder`.
    stills: folder of photos in which nothing sways.
    output: file to write, .safetensors.
    penalty: of where, relative to features of unit variance.
    gate_penalty: of whether a place moves.

  Raises:
    UserError: the model is of another kind, data, photos or networks are missing or do not fit, or the file cannot be
      written.
  """
  make_parents(output)  # before all that takes its time
  model, data = expect_model(ModelSettings, settings), settings.data
  factor = make_codec(model.codec, num_bands=model.num_bands).factor
  chains = open_chosen(data, split="train")
  if not chains:
    raise UserError("a swing is fitted to stored windows; give a share to others of config.data.sources than live")
  check_windows(chains, data)
  check_config(settings)
  records = [chain[index] for chain in chains.values() for index in range(len(chain))]
  first = records[0].decode(fields=("image", "spectrum"), bands=[0])
  size, grid = first.image.shape[:2], first.spectrum.shape[1:3]
  see = make_eye(model, settings.init.get("encoder", ""), *(side // factor for side in grid))

  def windows():
    for record in records:
      window = record.decode(fields=("image", "spectrum"), bands=range(model.num_bands))
      volume = SpectralVolume(window.spectrum.astype(np.float32), num_frames=model.num_frames)
      yield window.scene, see(window.image), find_log_swing(volume, stride=size[0] // grid[0], factor=factor)

  resting = (see(cover(photo, *size)) for photo in load_backgrounds(stills))
  head = fit_swing(windows(), resting, penalty=penalty, gate_penalty=gate_penalty)
  described = WeightsSettings("swing", trained_on=freeze(list_scenes(data)))
  export_weights(output, {"swing_head": head}, settings=described, dtype="float32")
  return len(records)


def main(_: list[str]) -> None:
  """Runs `fit` with the flags; a `UserError` becomes one line."""
  values = flags.FLAGS
  if not values["verbosity"].present:
    logging.set_verbosity(logging.WARNING)
  use_compilation_cache()
  penalties = dict(penalty=values.penalty, gate_penalty=values.gate_penalty)
  try:
    num_windows = fit(parse(TrainSettings, values.config), values.stills, values.output, **penalties)
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
  print(f"Wrote {values.output}: fitted to {num_windows} windows")


if __name__ == "__main__":
  config_flags.DEFINE_config_file("config", None, "Motion model and data, such as configs/ldm.py:default.")
  flags.DEFINE_string("stills", None, "Folder of photos in which nothing sways.")
  flags.DEFINE_string("output", None, "File to write, .safetensors.")
  flags.DEFINE_float("penalty", 10.0, "Of where; of features with unit variance.")
  flags.DEFINE_float("gate_penalty", 0.03, "Of whether a place moves.")
  EXAMPLES = {"config": "configs/ldm.py:default", "stills": "photos", "output": "runs/swing.safetensors"}
  flags.mark_flags_as_required(list(EXAMPLES))
  app.run(main, flags_parser=functools.partial(parse_flags, examples=EXAMPLES))
