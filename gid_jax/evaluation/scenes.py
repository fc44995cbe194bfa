"""What a model is judged on: real clips with their measured motion, and simulated scenes with their true one.

Every clip is brought to the model's own grid, rate and length, so that predicted and real volumes compare pixel by
pixel. Measured motion is kept in a folder and measured once, whichever model is judged.
"""

import hashlib
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float, UInt8

from gid_jax.configuration import ModelSettings
from gid_jax.errors import UserError
from gid_jax.files import complete_or_nothing
from gid_jax.flow.estimators import DEFAULT_FLOW, FlowEstimator
from gid_jax.flow.tracking import digest_measurement, mean_magnitude, measure_motion
from gid_jax.media.clip_folder import ClipFile, find_table, read_clip_folder
from gid_jax.media.clips import clip_to_sequences
from gid_jax.motion.spectral import motion_to_spectrum, shrink_vectors
from gid_jax.types import SpectralVolume

# Of a clip, to judge renderers by; spread evenly, as neighbours say the same.
NUM_PAIRS = 2


class Pair(NamedTuple):
  """A later frame of a scene and the way there, from which a renderer is to make it.

  Attributes:
    flow: [h w 2] displacement of the photo's pixels, the camera's shift included.
    depth: [h w] mean length of the displacement over time, pixels.
    frame: [h w 3] uint8.
  """

  flow: Float[np.ndarray, "h w 2"]
  depth: Float[np.ndarray, "h w"]
  frame: UInt8[np.ndarray, "h w 3"]


class JudgedScene(NamedTuple):
  """A photo, what became of it, and how surely that is known.

  Attributes:
    name: unique.
    scene: what it shows.
    source: "real", "loop" or "synthetic".
    frames: [t h w 3] uint8; only the photo, t = 1, of simulated scenes.
    volume: [k hm wm 4] on the motion grid, pixels of that grid.
    confidence: [hm wm] in [0, 1]; 1 where motion is exact.
    pairs: to judge a renderer by.
    content: short name of the frames by their content; "" of simulated scenes.
  """

  name: str
  scene: str
  source: str
  frames: UInt8[np.ndarray, "t h w 3"]
  volume: SpectralVolume
  confidence: Float[np.ndarray, "hm wm"]
  pairs: tuple[Pair, ...] = ()
  content: str = ""

  @property
  def image(self) -> Float[np.ndarray, "h w 3"]:
    """The photo [h w 3] float32 in [0, 1]."""
    return self.frames[0].astype(np.float32) / 255


def list_clips(
  folder: str | Path,
  *,
  tiers: Collection[str] = ("A",),
  scenes: Collection[str] = (),
  exclude: Collection[str] = (),
  takes: int = 0,
) -> list[ClipFile]:
  """The videos of a folder that are to be judged by, by name; what is skipped goes to the standard error.

  Args:
    folder: of videos.
    tiers: those to take.
    scenes: take only these; all when empty.
    exclude: scenes to leave out, such as those that the model was trained on.
    takes: so many of each scene, the first by name; all when 0.

  Raises:
    UserError: no video is left, a scene that was named is not there, or see `read_clip_folder`.
  """
  files, skipped = read_clip_folder(folder)
  if skipped:
    print(f"{folder}: skipped {', '.join(skipped)}", file=sys.stderr)
  unknown = {*scenes, *exclude} - {file.scene for file in files}
  if unknown & {*scenes}:
    raise UserError(f"{folder} holds no scene {', '.join(sorted(unknown & {*scenes}))}; see {find_table(folder)}")
  if unknown:
    print(f"{folder}: no scene {', '.join(sorted(unknown))} to leave out", file=sys.stderr)
  wanted = [f for f in files if f.tier in tiers and f.scene not in exclude and (not scenes or f.scene in scenes)]
  if not wanted:
    raise UserError(f"{folder}: no clip of tier {', '.join(tiers)} is left to judge by; exclude fewer scenes")
  counts, chosen = Counter(), []
  for file in wanted:
    counts[file.scene] += 1
    if not takes or counts[file.scene] <= takes:
      chosen.append(file)
  return chosen


def read_clip(
  file: ClipFile,
  model: ModelSettings,
  *,
  source: str,
  cache: str | Path,
  estimator: FlowEstimator = DEFAULT_FLOW,
) -> JudgedScene:
  """Reads a clip and its motion, measured now or earlier.

  Args:
    file: of the clip.
    model: the `model` part of a motion model's config: image_size, num_frames, fps, num_bands, motion_stride.
    source: "real", or "loop" for a clip that is a seamless loop.
    cache: folder of measured motion.
    estimator: of the optical flow.

  Raises:
    UserError: see `gid_jax.media.clips.clip_to_sequences`.
  """
  height, width = model.image_size
  grid = dict[str, Any](num_frames=model.num_frames, fps=model.fps, height=height, width=width)
  frames = next(iter(clip_to_sequences(file.path, **grid, max_sequences=1, loop=source == "loop")))
  # By content: another video of the same name, or another way to cut it, is another motion.
  content = hashlib.sha256(frames.tobytes()).hexdigest()[:16]
  measured_by = f"{model.num_bands}-{model.motion_stride}-{digest_measurement(estimator)}"
  path = Path(cache) / f"{file.name}-{measured_by}-{content}.safetensors"
  times = np.linspace(0, len(frames), NUM_PAIRS + 2).astype(int)[1:-1]
  measured = _read_measured(path)
  if measured is None:
    motion, confidence, shift = measure_motion(frames, estimator=estimator)
    stride = model.motion_stride
    coefficients = np.asarray(motion_to_spectrum(motion, num_bands=model.num_bands).coefficients)
    measured = {
      "coefficients": shrink_vectors(coefficients, stride=stride).astype(np.float32),
      "confidence": _shrink(np.asarray(confidence, np.float32), stride),
      "flows": (motion[times] + shift[times, None, None]).astype(np.float16),
      "depth": mean_magnitude(motion).astype(np.float16),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with complete_or_nothing(path, overwrite=True) as temporary:
      safetensors.numpy.save_file(measured, temporary)
  volume = SpectralVolume(measured["coefficients"], num_frames=model.num_frames, fps=model.fps)
  flows, depth = measured["flows"].astype(np.float32), measured["depth"].astype(np.float32)
  pairs = tuple(Pair(flow, depth, frames[time]) for flow, time in zip(flows, times, strict=True))
  return JudgedScene(file.name, file.scene, source, frames, volume, measured["confidence"], pairs, content)


def _read_measured(path: Path) -> dict[str, np.ndarray] | None:
  try:
    return safetensors.numpy.load_file(path)
  except (OSError, safetensors.SafetensorError):  # not there, or damaged
    return None


def simulate_scenes(
  sample_scene: Callable[..., Any],
  seeds: Collection[int],
  model: ModelSettings,
  *,
  backgrounds: Sequence[np.ndarray] = (),
  sprites: Sequence[np.ndarray] = (),
) -> Iterator[JudgedScene]:
  """Yields simulated scenes with their exact motion and a pair each; those that stand wholly still are skipped.

  Args:
    sample_scene: makes a scene of a seed, `data_pipeline.synthetic.scene.sample_scene`.
    seeds: of the scenes; those of training data are small numbers.
    model: see `read_clip`.
    backgrounds: [h w 3] each, see `gid_jax.media.folders.load_backgrounds`.
    sprites: [h w 4] each, see `gid_jax.media.folders.load_sprites`.
  """
  height, width = model.image_size
  stride = model.motion_stride
  for seed in seeds:
    scene = sample_scene(
      seed, height=height, width=width, num_frames=model.num_frames, fps=model.fps,
      backgrounds=backgrounds, sprites=sprites,
    )  # fmt: skip
    coefficients = shrink_vectors(scene.spectral_volume(model.num_bands), stride=stride).astype(np.float32)
    if not coefficients.any():
      continue
    volume = SpectralVolume(coefficients, num_frames=model.num_frames, fps=model.fps)
    certain = np.ones(coefficients.shape[1:3], np.float32)
    time = int(np.random.default_rng(seed).integers(1, model.num_frames))
    pair = Pair(scene.displacement([time])[0], scene.mean_magnitude(), scene.frame(time))
    name = f"synthetic-{seed}"
    yield JudgedScene(name, name, "synthetic", scene.image[None], volume, certain, (pair,))


def _shrink(values, stride):
  # Means of [h w] over stride x stride pixels.
  height, width = values.shape
  return values.reshape(height // stride, stride, width // stride, stride).mean((1, 3))
