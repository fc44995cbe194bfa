"""Claim: simulated scenes teach where the things of a real photo move.

  python -m benchmarks.what_moves --clips clips --loops loops --backgrounds scenes --sprites cutouts \
      --exclude boiling_water,campfire,fireplace,flames,waterfall,stream,fountain,sea_waves

A small head (two layers, on every 8th pixel; the mean of three) on the frozen ImageNet features of the embedded
weights learns to regress how far each place of a picture moves, log(1 + mean displacement / 0.3 px), from several
kinds of training pictures, and is judged by the area under the ROC curve on pictures of other scenes, averaged over
scenes:

- "real": filmed clips of tier A in the table beside the folder (steady camera); "loops": results that the authors of
  the paper publish. What moves there is measured by optical flow.
- Places that move by a quarter of the scene's 95th percentile (0.5 px at least) against those that move by less than a
  tenth of it (0.2 px), both only where flow is confident: it says nothing about places without texture, and counting
  those as still would reward a gradient filter, which is listed for comparison. "pooled" ranks the places of all
  pictures together, with the same labels.
- Rows trained on films or loops are cross-validated over scenes; takes of one stage (the same backdrop) share a fold.
"""

import argparse
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.stats import rankdata

from data_pipeline.synthetic.scene import sample_scene
from data_pipeline.synthetic.vegetation import segment_vegetation
from gid_jax.errors import UserError
from gid_jax.flow.tracking import mean_magnitude, measure_motion
from gid_jax.media.clip_folder import read_clip_folder
from gid_jax.media.clips import clip_to_sequences
from gid_jax.media.folders import load_backgrounds, load_sprites
from gid_jax.models.encoders import FROZEN_TRUNK, EfficientNetLite0, resize_image
from gid_jax.weights.pretrained import MOTION_WEIGHTS, load_pretrained

CELL = 8
SIZE = {"height": 160, "width": 256}
NUM_FRAMES = 150
NUM_FOLDS = 6


class Picture(NamedTuple):
  """A picture and how far each of its places [h/8 w/8] moves on average, px, and how surely that was measured."""

  kind: str
  scene: str
  image: np.ndarray
  motion: np.ndarray
  confidence: np.ndarray
  judged: bool


def to_cells(values: np.ndarray) -> np.ndarray:
  """Means of [h w] over cells of 8x8: [h/8 w/8]."""
  h, w = values.shape
  return values.astype(np.float32).reshape(h // CELL, CELL, w // CELL, CELL).mean((1, 3))


def measure_folder(folder: str, kind: str, exclude: set[str]) -> Iterable[Picture]:
  """Measures the first window of every video of a folder."""
  files, _ = read_clip_folder(folder)
  for file in files:
    if file.scene in exclude or file.tier == "S":
      continue
    try:
      options = dict(num_frames=NUM_FRAMES, fps=30, stride=10, max_sequences=1, loop=kind == "loops")
      frames = next(iter(clip_to_sequences(file.path, **SIZE, **options)))
    except UserError as error:
      print(f"left out {file.path.name}: {error}", flush=True)
      continue
    motion, confidence, _ = measure_motion(frames)
    yield Picture(
      kind, file.scene, frames[0], to_cells(mean_magnitude(motion)), to_cells(np.asarray(confidence)), file.tier == "A")


def measure_all(options: argparse.Namespace) -> list[Picture]:
  """Measures both folders, or reads what an earlier run has measured."""
  cache = Path(options.cache)
  if cache.exists():
    return [Picture(*fields) for fields in pickle.loads(cache.read_bytes())]
  exclude = set(options.exclude.split(","))
  pictures = [*measure_folder(options.clips, "real", exclude), *measure_folder(options.loops, "loops", exclude)]
  cache.write_bytes(pickle.dumps([tuple(picture) for picture in pictures]))
  return pictures


def make_extractor() -> Callable[[list[np.ndarray]], np.ndarray]:
  """A function from pictures [h w 3] uint8 to their features [n h/8 w/8 c], centred on each picture's mean."""
  params = load_pretrained(MOTION_WEIGHTS)[0]["encoder"][f"{FROZEN_TRUNK}_efficientnet_lite0"]

  @jax.jit
  def extract(images):
    maps = EfficientNetLite0().apply({"params": params}, images.astype(jnp.float32) / 255)
    size = images.shape[1] // CELL, images.shape[2] // CELL
    scaled = [resize_image(x / d, *size) for x, d in zip(maps, EfficientNetLite0.deviations, strict=True)]
    features = jnp.concatenate(scaled[1:], -1)
    return (features - features.mean((1, 2), keepdims=True)).astype(jnp.float16)

  def run(images: list[np.ndarray]) -> np.ndarray:
    padded = np.stack([*images, *[images[-1]] * (-len(images) % 8)])
    return np.concatenate([np.asarray(extract(part)) for part in np.split(padded, len(padded) // 8)])[: len(images)]

  return run


def fit_head(features: np.ndarray, motion: np.ndarray, weights: np.ndarray):
  """Trains three heads on places [n c] that move [n] px, drawn with `weights` [n]; returns places -> mean score."""
  heads = [_fit_one(features, motion, weights, seed=seed) for seed in range(3)]
  return lambda x: np.mean([np.asarray(head(x)) for head in heads], axis=0)


def _fit_one(features: np.ndarray, motion: np.ndarray, weights: np.ndarray, *, seed: int, num_steps: int = 400):
  mean, deviation = (statistic(features[::7].astype(np.float32), 0) for statistic in (np.mean, np.std))
  target = np.log1p(motion / 0.3).astype(np.float32)
  keys = jax.random.split(jax.random.key(seed), 3)
  dense = lambda key, n, m: jax.random.normal(key, (n, m)) / np.sqrt(n)
  params = {
    "first": dense(keys[0], features.shape[1], 128), "bias": jnp.zeros(128),
    "second": dense(keys[1], 128, 128), "bias2": jnp.zeros(128),
    "last": jnp.zeros(128), "level": jnp.array(target.mean()),
  }  # fmt: skip

  def apply(params, x, key=None):
    drop = lambda x, i: x if key is None else x * jax.random.bernoulli(jax.random.fold_in(key, i), 0.7, x.shape) / 0.7
    x = drop((x.astype(jnp.float32) - mean) / (deviation + 1e-3), 0)
    x = drop(jax.nn.silu(x @ params["first"] + params["bias"]), 1)
    return jax.nn.silu(x @ params["second"] + params["bias2"]) @ params["last"] + params["level"]

  tx = optax.adamw(optax.cosine_decay_schedule(1e-3, num_steps), weight_decay=1e-3)

  @jax.jit
  def step(params, state, x, y, key):
    gradient = jax.grad(lambda params: jnp.mean((apply(params, x, key) - y) ** 2))(params)
    updates, state = tx.update(gradient, state, params)
    return optax.apply_updates(params, updates), state

  rng, cumulative, state = np.random.default_rng(seed), np.cumsum(weights / weights.sum()), tx.init(params)
  for index in range(num_steps):
    chosen = np.searchsorted(cumulative, rng.random(4096)).clip(0, len(features) - 1)
    params, state = step(params, state, features[chosen], target[chosen], jax.random.fold_in(keys[2], index))
  return jax.jit(lambda x: apply(params, x))


def area_under_curve(moving: np.ndarray, still: np.ndarray) -> float:
  """Probability that a score of `moving` exceeds one of `still`."""
  ranks = rankdata(np.concatenate([moving, still]))
  return (ranks[: len(moving)].sum() - len(moving) * (len(moving) + 1) / 2) / (len(moving) * len(still))


def judge(name: str, kinds: Iterable[str], pictures: list[Picture], scores: list[np.ndarray]) -> None:
  """Prints the areas of the scores [h/8 w/8] of all pictures."""
  columns = []
  for kind in ("real", "loops"):
    if kind not in kinds:
      columns.append(f"{'-':>8}{'-':>8}")
      continue
    scenes: dict[str, list[float]] = {}
    pooled = []
    for number, picture in enumerate(pictures):
      if picture.kind != kind or not picture.judged:
        continue
      values, top = scores[number], np.percentile(picture.motion, 95)
      moving = (picture.motion > max(0.5, 0.25 * top)) & (picture.confidence > 0.2)
      still = (picture.motion < max(0.2, 0.1 * top)) & (picture.confidence > 0.2)
      pooled.append((values[moving], values[still]))
      if min(moving.sum(), still.sum()) >= 0.02 * values.size:
        scenes.setdefault(picture.scene, []).append(area_under_curve(values[moving], values[still]))
    mean = np.mean([np.mean(areas) for areas in scenes.values()])
    columns.append(f"{mean:8.3f}{area_under_curve(*map(np.concatenate, zip(*pooled, strict=True))):8.3f}")
  print(f"{name:42}{''.join(columns)}", flush=True)


def assign_folds(pictures: list[Picture]) -> list[int]:
  """Scenes in random order over the folds; scenes with several takes are of one stage and share the first fold."""
  names = sorted({(p.kind, p.scene) for p in pictures})
  takes = {name: sum((p.kind, p.scene) == name for p in pictures) for name in names}
  order = np.random.default_rng(1).permutation(len(names))
  folds = {names[i]: 0 if takes[names[i]] > 1 else rank % NUM_FOLDS for rank, i in enumerate(order)}
  return [folds[p.kind, p.scene] for p in pictures]


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  for name in ("clips", "loops", "backgrounds", "sprites"):
    parser.add_argument(f"--{name}", required=name in ("clips", "loops"), default="")
  parser.add_argument("--exclude", default="", help="scenes a,b,c to leave out")
  parser.add_argument("--scenes", type=int, default=1500, help="simulated scenes")
  parser.add_argument("--cache", default="what_moves.pkl", help="file that keeps what was measured")
  options = parser.parse_args()
  cv2.setNumThreads(1)
  pictures = measure_all(options)
  extract = make_extractor()
  backgrounds = load_backgrounds(options.backgrounds) if options.backgrounds else []
  sprites = load_sprites(options.sprites) if options.sprites else []

  def learn(scenes) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(scene.image, to_cells(scene.mean_magnitude())) for scene in scenes]
    return extract([image for image, _ in pairs]), np.stack([motion for _, motion in pairs])

  simulated = {
    "scenes": learn(
      sample_scene(seed, **SIZE, backgrounds=backgrounds, sprites=sprites) for seed in range(options.scenes)),
  }  # fmt: skip
  simulated["fifth"] = tuple(x[: options.scenes // 5] for x in simulated["scenes"])
  features = extract([p.image for p in pictures])
  flat = lambda x: x.reshape(-1, *x.shape[3:])

  def train(names: Iterable[str]) -> list[np.ndarray]:
    data = [np.concatenate([flat(simulated[name][i]) for name in names]) for i in range(2)]
    head = fit_head(*data, np.ones(len(data[0])))
    return [head(f) for f in features]

  print(f"\n{'area under the ROC curve':42}{'real':>8}{'pooled':>8}{'loops':>8}{'pooled':>8}")
  both = ("real", "loops")
  gray = [cv2.cvtColor(p.image, cv2.COLOR_RGB2GRAY).astype(np.float32) for p in pictures]
  slope = lambda g: np.hypot(cv2.Sobel(g, -1, 1, 0), cv2.Sobel(g, -1, 0, 1))
  judge("gradient filter", both, pictures, [to_cells(cv2.GaussianBlur(slope(g), (0, 0), 4)) for g in gray])
  judge("colour and texture of plants", both, pictures, [to_cells(segment_vegetation(p.image)) for p in pictures])
  judge(f"simulated scenes, {options.scenes // 5}", both, pictures, train(["fifth"]))
  from_scenes = train(["scenes"])
  judge(f"simulated scenes, {options.scenes}", both, pictures, from_scenes)

  folds = np.array(assign_folds(pictures))
  motion = np.stack([p.motion for p in pictures])
  weight = np.array([1 / sum(q.scene == p.scene for q in pictures) for p in pictures])

  def cross_validate(extra: tuple[np.ndarray, np.ndarray] | None) -> list[np.ndarray]:
    scores = {}
    for fold in range(NUM_FOLDS):
      inside = folds != fold
      data = [flat(features[inside]), flat(motion[inside])]
      shares = np.repeat(weight[inside], motion[0].size)
      shares /= shares.sum()
      if extra:
        data = [np.concatenate([part, flat(more)]) for part, more in zip(data, extra, strict=True)]
        shares = np.concatenate([shares, np.full(extra[1].size, 1 / extra[1].size)])
      head = fit_head(*data, shares)
      scores |= {number: head(features[number]) for number in np.flatnonzero(~inside)}
    return [scores[number] for number in range(len(pictures))]

  from_films = cross_validate(None)
  judge("real + loops", both, pictures, from_films)
  judge("real + loops, and scenes, one head", both, pictures, cross_validate(simulated["scenes"]))
  mean = [(a + b) / 2 for a, b in zip(from_films, from_scenes, strict=True)]
  judge("real + loops, and scenes, a head each, mean", both, pictures, mean)


if __name__ == "__main__":
  main()
