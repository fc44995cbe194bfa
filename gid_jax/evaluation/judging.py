"""All that is measured of one scene: how its motion was predicted, how its videos look to feature networks.

A scene's result is a file of its own, so that an evaluation that is stopped goes on where it was; tables are made of
these files alone.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np
import safetensors
import safetensors.numpy

from gid_jax.errors import UserError
from gid_jax.evaluation.motion import FAINT, Regions, area_under_curve, find_moving, judge_prediction, measure_texture
from gid_jax.evaluation.motion_baselines import average_motion, draw_smooth_noise, rest_still, score_photo
from gid_jax.evaluation.motion_samples import judge_samples
from gid_jax.evaluation.networks.extractors import Extractor
from gid_jax.evaluation.rendering import METRICS, PREDICTORS, REGIONS, judge_pair, measure_flicker
from gid_jax.evaluation.scenes import JudgedScene
from gid_jax.files import complete_or_nothing
from gid_jax.motion.measures import rms_swing
from gid_jax.motion.spectral import motion_power
from gid_jax.pipeline import Animator
from gid_jax.types import SpectralVolume

MODEL = "model"
OTHER_TAKE = "another take of the scene"
STILL = "still"
RENDERER = "renderer"
REAL = "real"
# Of the Gaussian behind smooth noise, in steps of the motion grid: about the size of a flower's head.
_NOISE_SIGMA = 6.0
FRAME_STEP = 10  # networks of single frames see every tenth: neighbours say the same


class SceneResult(NamedTuple):
  """What was measured of one scene.

  Attributes:
    name: of the scene's file or seed.
    scene: what is independent of the others.
    source: "real", "loop" or "synthetic".
    motion: predictor -> metric -> figure.
    rendering: renderer -> "metric, region" -> figure; {} where none was judged.
    features: "network/predictor" -> [n d]; predictor "real" are the clip's own.
  """

  name: str
  scene: str
  source: str
  motion: dict[str, dict[str, float]]
  rendering: dict[str, dict[str, float]]
  features: dict[str, np.ndarray]


def save_result(path: Path, result: SceneResult) -> None:
  """Writes a result complete or not at all."""
  facts = {"name": result.name, "scene": result.scene, "source": result.source}
  facts |= {"motion": json.dumps(result.motion), "rendering": json.dumps(result.rendering)}
  path.parent.mkdir(parents=True, exist_ok=True)
  arrays = {name: np.asarray(values, np.float32) for name, values in result.features.items()}
  with complete_or_nothing(path, overwrite=True) as temporary:
    safetensors.numpy.save_file(arrays or {"none": np.zeros(0, np.float32)}, temporary, metadata=facts)


def find_result(path: Path) -> SceneResult | None:
  """The result of an earlier run; None where there is none, or only a damaged file."""
  try:
    return load_result(path)
  except (OSError, safetensors.SafetensorError, ValueError, KeyError, TypeError):
    return None


def load_result(path: Path) -> SceneResult:
  """Reads what `save_result` wrote.

  Raises:
    Exception: it cannot be read, as its libraries say it.
  """
  with safetensors.safe_open(path, framework="numpy") as file:
    facts = file.metadata()
    features = {name: file.get_tensor(name) for name in file.keys() if name != "none"}  # noqa: SIM118
  motion, rendering = (json.loads(facts[part]) for part in ("motion", "rendering"))
  return SceneResult(facts["name"], facts["scene"], facts["source"], motion, rendering, features)


def predict_blindly(key, scene: JudgedScene, others: Sequence[SpectralVolume]) -> dict[str, SpectralVolume]:
  """Predictions that know nothing of the photo: still, and the mean motion of `others` and noise of their power."""
  volume = scene.volume
  blind = {STILL: rest_still(volume)}
  if others:
    mean, typical = average_motion(others)
    power = np.mean([np.asarray(motion_power(other)) for other in others], axis=0)
    height, width = volume.coefficients.shape[1:3]
    noise = draw_smooth_noise(
      key, power, height=height, width=width, num_frames=volume.num_frames, fps=volume.fps, sigma=_NOISE_SIGMA
    )
    blind |= {"mean motion": mean, "typical motion": typical, "smooth noise": noise}
  return blind


def find_regions(scene: JudgedScene) -> Regions:
  """Where a scene surely moves and surely rests, textured places only."""
  height, width = scene.volume.coefficients.shape[1:3]
  real = rms_swing(scene.volume, stride=_stride(scene))
  return find_moving(real, scene.confidence, measure_texture(scene.image, height=height, width=width))


def judge_motion(
  scene: JudgedScene,
  samples: Sequence[SpectralVolume],
  *,
  blind: Mapping[str, SpectralVolume],
  takes: Sequence[SpectralVolume] = (),
) -> dict[str, dict[str, float]]:
  """Judges every prediction for one photo against its real motion.

  Args:
    scene: with its real motion.
    samples: of the model, [k h w 4] on the grid of the real one.
    blind: other predictions by name.
    takes: motion of other takes of the same scene, the most that can be asked of a prediction.

  Returns:
    Predictor -> metric -> figure; see `judge_prediction`, `judge_samples` and, of "auc" alone, `score_photo`.
  """
  stride, regions = _stride(scene), find_regions(scene)
  compare = lambda volume: judge_prediction(volume, scene.volume, regions, stride=stride)
  mean = lambda results: {name: float(np.mean([result[name] for result in results])) for name in results[0]}
  real = [scene.volume, *takes]
  many = lambda volumes: judge_samples(volumes, real, regions.moving, stride=stride)
  judged = {MODEL: mean([compare(sample) for sample in samples]) | many(samples)}
  judged |= {name: compare(volume) | many([volume]) for name, volume in blind.items()}
  if takes:
    judged[OTHER_TAKE] = mean([compare(take) for take in takes])
  height, width = scene.volume.coefficients.shape[1:3]
  scores = score_photo(scene.image, height=height, width=width)
  return judged | {name: {"auc": area_under_curve(score, regions)} for name, score in scores.items()}


def judge_rendering(
  scene: JudgedScene, animator: Animator, *, vgg_params: Any = None
) -> dict[str, dict[str, float]]:
  """Renders a scene's pairs with the model's renderer and without a network: means over its pairs.

  Args:
    scene: with its pairs.
    animator: whose renderer is judged.
    vgg_params: see `gid_jax.evaluation.rendering.judge_pair`.

  Returns:
    Renderer -> "metric, region" -> figure; NaN where no pair has such a region.
  """
  renderers = {RENDERER: animator.render_flow, **PREDICTORS}
  judged = [judge_pair(scene.image, *pair, renderers=renderers, vgg_params=vgg_params) for pair in scene.pairs]
  metrics = METRICS if vgg_params is not None else tuple(name for name in METRICS if name != "perceptual")
  means: dict[str, dict[str, float]] = {name: {} for name in renderers}
  for name, metric, region in itertools.product(renderers, metrics, REGIONS):
    figures = np.array([pair[name][metric, region] for pair in judged])
    known = figures[np.isfinite(figures)]
    means[name][f"{metric}, {region}"] = float(known.mean()) if len(known) else float("nan")
  return means


def judge_stillness(scene: JudgedScene, volume: SpectralVolume, video: np.ndarray) -> dict[str, dict[str, float]]:
  """Flicker of a filmed volume where it rests (under 0.05 px), beside that of the clip's own camera at these places.

  Args:
    scene: a clip.
    volume: [k h w 4] that was filmed.
    video: [t h w 3] uint8.

  Returns:
    "renderer" and "real" -> "flicker, between frames" and "flicker, from photo" -> grey levels of 255.
  """
  swing = cv2.resize(rms_swing(volume, stride=_stride(scene)), video.shape[2:0:-1], interpolation=cv2.INTER_LINEAR)
  judged = {}
  for name, frames in ((RENDERER, video), (REAL, scene.frames)):
    flicker = measure_flicker(frames, swing < FAINT, photo=scene.frames[0])
    judged[name] = {
      "flicker, between frames": 255 * flicker.between_frames,
      "flicker, from photo": 255 * flicker.from_photo,
    }
  return judged


def film(animator: Animator, scene: JudgedScene, volume: SpectralVolume) -> np.ndarray:
  """The video [t h w 3] uint8 of a scene's photo moved by a volume, as long as the clip and of its size."""
  num_frames = len(scene.frames)
  size = max(scene.frames.shape[1:3])
  return np.stack(list(animator.render(scene.image, volume, frames=num_frames, fps=volume.fps, size=size)))


def check_crop(crop: tuple[int, int], *, height: int, width: int) -> None:
  """Refuses a crop (h, w) that is larger than the frames.

  Raises:
    UserError: it is.
  """
  if crop[0] > height or crop[1] > width:
    raise UserError(
      f"config.crop={crop} is larger than the model's frames, {height}x{width}; give --config.crop='{height, width}'"
    )


def extract_features(frames: np.ndarray, extractor: Extractor, *, crop: tuple[int, int]) -> np.ndarray:
  """Features [n d] of a video [t h w 3], of the middle `crop` (h, w) of every frame (section 9).

  Networks of single frames see every tenth.

  Raises:
    UserError: the crop is larger than the frames.
  """
  height, width = frames.shape[1:3]
  check_crop(crop, height=height, width=width)
  top, left = (height - crop[0]) // 2, (width - crop[1]) // 2
  cropped = np.ascontiguousarray(frames[:, top : top + crop[0], left : left + crop[1]])
  return extractor.extract(cropped if extractor.num_frames > 1 else cropped[::FRAME_STEP])


def extract_kept_features(
  scene: JudgedScene, frames: np.ndarray, extractor: Extractor, *, crop: tuple[int, int], name: str, cache: Path
) -> np.ndarray:
  """`extract_features` [n d] of a video [t h w 3] that no model has a part in, kept in the folder `cache`."""
  key = f"{scene.content}-{extractor.digest}-{extractor.num_frames}-{crop[0]}x{crop[1]}"
  path = cache / "features" / f"{scene.name}-{name}-{key}.npy"
  if not path.exists():
    path.parent.mkdir(parents=True, exist_ok=True)
    with complete_or_nothing(path, overwrite=True) as temporary, temporary.open("wb") as file:
      np.save(file, extract_features(frames, extractor, crop=crop))
  return np.load(path)


def judge_scene(
  key,
  scene: JudgedScene,
  animator: Animator,
  *,
  num_samples: int,
  others: Sequence[SpectralVolume] = (),
  takes: Sequence[SpectralVolume] = (),
  extractors: Sequence[Extractor] = (),
  filmed: Sequence[str] = (),
  crop: tuple[int, int] = (128, 256),
  cache: Path | None = None,
  rendered: bool = True,
  vgg_params: Any = None,
) -> tuple[SceneResult, dict[str, np.ndarray], SpectralVolume]:
  """Measures everything of one scene.

  Args:
    key: of the model's noise and of smooth noise.
    scene: a clip, or a simulated scene, of whose videos nothing is measured.
    animator: the model.
    num_samples: volumes to sample for the photo.
    others: real motion of other scenes, for blind predictions.
    takes: real motion of other takes of this scene.
    extractors: feature networks for the videos.
    filmed: predictors whose videos are judged; those that cannot be made of this scene are left out.
    crop: (h, w) of the frames to show the networks.
    cache: folder of what does not depend on the model; needed where videos are judged.
    rendered: whether to judge the renderer on the scene's pairs.
    vgg_params: see `judge_rendering`.

  Returns:
    (what was measured, the videos by predictor, the first sampled volume).

  Raises:
    UserError: the crop is larger than the frames.
  """
  noise_key, sample_key = jax.random.split(key)
  keys = jax.random.split(sample_key, num_samples)
  # In fours, or memory would grow with the number of samples.
  samples = []
  for start in range(0, num_samples, 4):
    volumes = animator.predict_spectra(keys[start : start + 4], scene.image)
    samples += [volumes.replace(coefficients=values) for values in np.asarray(volumes.coefficients)]
  blind = predict_blindly(noise_key, scene, others)
  motion = judge_motion(scene, samples, blind=blind, takes=takes)
  rendering = judge_rendering(scene, animator, vgg_params=vgg_params) if rendered and scene.pairs else {}
  videos, features = {}, {}
  if len(scene.frames) > 1 and filmed:
    moved = {MODEL: samples[0]} | {name: blind[name] for name in blind if name != STILL}
    videos = {REAL: scene.frames} | {name: film(animator, scene, moved[name]) for name in filmed if name in moved}
    if STILL in filmed:
      videos[STILL] = np.repeat(scene.frames[:1], len(scene.frames), axis=0)
    for name, extractor in itertools.product(videos, extractors):
      if name in (REAL, STILL):
        assert cache is not None
        found = extract_kept_features(scene, videos[name], extractor, crop=crop, name=name, cache=cache)
      else:
        found = extract_features(videos[name], extractor, crop=crop)
      features[f"{extractor.name}/{name}"] = found
  if MODEL in videos and rendering:
    stillness = judge_stillness(scene, samples[0], videos[MODEL])
    rendering = {name: rendering.get(name, {}) | stillness.get(name, {}) for name in {**rendering, **stillness}}
  return SceneResult(scene.name, scene.scene, scene.source, motion, rendering, features), videos, samples[0]


def _stride(scene):
  return scene.frames.shape[1] / scene.volume.coefficients.shape[1]
