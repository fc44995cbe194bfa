"""All that is measured of one scene: how its motion was predicted, how its videos look to feature networks.

A scene's result is a file of its own, so that an evaluation that is stopped goes on where it was; tables are made of
these files alone.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import safetensors
import safetensors.numpy

from gid_jax.encoding import complete_or_nothing
from gid_jax.evaluation.extractors import Extractor
from gid_jax.evaluation.motion import (
  Regions,
  area_under_curve,
  find_moving,
  judge_prediction,
  measure_texture,
  rms_displacement,
)
from gid_jax.evaluation.motion_baselines import average_motion, draw_smooth_noise, rest_still, score_photo
from gid_jax.evaluation.motion_samples import judge_samples
from gid_jax.evaluation.scenes import JudgedScene
from gid_jax.pipeline import Animator
from gid_jax.spectral import motion_power
from gid_jax.types import SpectralVolume

MODEL = "model"
OTHER_TAKE = "another take of the scene"
STILL = "still"
# Of blind predictions those whose videos are judged too.
_FILMED = ("mean motion", "smooth noise")
# Of the Gaussian behind smooth noise, in steps of the motion grid: about the size of a flower's head.
_NOISE_SIGMA = 6.0
_FRAME_STEP = 5  # networks of single frames see every fifth: neighbours say the same


class SceneResult(NamedTuple):
  """What was measured of one scene.

  Attributes:
    name: of the scene's file or seed.
    scene: what is independent of the others.
    source: "real", "loop" or "synthetic".
    motion: predictor -> metric -> figure.
    features: "network/predictor" -> [n d]; predictor "real" are the clip's own.
  """

  name: str
  scene: str
  source: str
  motion: dict[str, dict[str, float]]
  features: dict[str, np.ndarray]


def save_result(path: Path, result: SceneResult) -> None:
  """Writes a result complete or not at all."""
  facts = {"name": result.name, "scene": result.scene, "source": result.source, "motion": json.dumps(result.motion)}
  path.parent.mkdir(parents=True, exist_ok=True)
  arrays = {name: np.asarray(values, np.float32) for name, values in result.features.items()}
  with complete_or_nothing(path, overwrite=True) as temporary:
    safetensors.numpy.save_file(arrays or {"none": np.zeros(0, np.float32)}, temporary, metadata=facts)


def load_result(path: Path) -> SceneResult:
  """Reads what `save_result` wrote."""
  with safetensors.safe_open(path, framework="numpy") as file:
    facts = file.metadata()
    features = {name: file.get_tensor(name) for name in file.keys() if name != "none"}  # noqa: SIM118
  return SceneResult(facts["name"], facts["scene"], facts["source"], json.loads(facts["motion"]), features)


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
  real = rms_displacement(scene.volume, stride=_stride(scene))
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


def film(animator: Animator, scene: JudgedScene, volume: SpectralVolume) -> np.ndarray:
  """The video [t h w 3] uint8 of a scene's photo moved by a volume, as long as the clip and of its size."""
  num_frames = len(scene.frames)
  size = max(scene.frames.shape[1:3])
  return np.stack(list(animator.render(scene.image, volume, frames=num_frames, fps=volume.fps, size=size)))


def extract_features(
  videos: Mapping[str, np.ndarray], extractors: Sequence[Extractor], *, crop: tuple[int, int]
) -> dict[str, np.ndarray]:
  """Features of videos [t h w 3] by network and predictor, of the middle `crop` (h, w) of every frame (section 9)."""
  features = {}
  for name, frames in videos.items():
    height, width = frames.shape[1:3]
    top, left = (height - crop[0]) // 2, (width - crop[1]) // 2
    cropped = np.ascontiguousarray(frames[:, top : top + crop[0], left : left + crop[1]])
    for extractor in extractors:
      frames = cropped if extractor.num_frames > 1 else cropped[::_FRAME_STEP]
      features[f"{extractor.name}/{name}"] = extractor.extract(frames)
  return features


def judge_scene(
  key,
  scene: JudgedScene,
  animator: Animator,
  *,
  num_samples: int,
  others: Sequence[SpectralVolume],
  takes: Sequence[SpectralVolume] = (),
  extractors: Sequence[Extractor] = (),
  crop: tuple[int, int] = (128, 256),
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
    crop: (h, w) of the frames to show them.

  Returns:
    (what was measured, the videos by predictor, the first sampled volume).
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
  videos, features = {}, {}
  if len(scene.frames) > 1:
    videos = {"real": scene.frames, MODEL: film(animator, scene, samples[0])}
    videos |= {name: film(animator, scene, blind[name]) for name in _FILMED if name in blind}
    videos[STILL] = np.repeat(scene.frames[:1], len(scene.frames), axis=0)
    features = extract_features(videos, extractors, crop=crop)
  return SceneResult(scene.name, scene.scene, scene.source, motion, features), videos, samples[0]


def _stride(scene):
  return scene.frames.shape[1] / scene.volume.coefficients.shape[1]
