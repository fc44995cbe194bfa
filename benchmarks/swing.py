"""Claim: frozen image features tell what moves in a photo, better than any measure of the photo alone.

  python -m benchmarks.swing --clips CLIPS --loops LOOPS --stills PHOTOS --cache FOLDER
    [--weights FOLDER] [--scenes 4 8 16 24]

The features are fitted to the logarithm of swing by ridge regression, and judged by the area under the ROC curve over
the evaluation's regions, averaged over scenes, on scenes that the fit has not seen: folds of scenes, the indoor pots,
which share a backdrop, in one. Flames are left out. `--stills` is a folder
of photos in which nothing sways: every second one is fitted to, the others tell how much would move in them. The last
table is the curve over training scenes, with the strongest penalty.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from gid_jax.configuration import ModelSettings
from gid_jax.errors import UserError
from gid_jax.evaluation.motion import (
  Regions,
  area_under_curve,
  covers_enough,
  find_moving,
  measure_texture,
  median_ratio,
)
from gid_jax.evaluation.motion_baselines import score_photo
from gid_jax.evaluation.results import estimate_mean
from gid_jax.evaluation.scenes import list_clips, read_clip
from gid_jax.media.folders import load_backgrounds
from gid_jax.models.encoders import combine_odds
from gid_jax.motion.measures import rms_swing
from gid_jax.training.swing import FAINT, MOVES, PlaceSample, cover, find_log_swing, make_eye, start_ridge
from gid_jax.weights.pretrained import MOTION_WEIGHTS, load_pretrained

NUM_FOLDS = 8
STILL = 0.03  # px, of the row that fits photos of nothing as places that swing so much
NUM_DRAWS = 3  # of each number of the curve over training scenes
POTS = ("alocasia", "carnations", "hat", "orange_rose", "telephone", "yellow_tulip")
FLAMES = ("candle", "candle_pillar", "fireplace", "campfire", "flames", "candle_2", "candle_3")


class Clip(NamedTuple):
  """A clip: its first frame [h w 3], swing [hm wm] px, regions, log swing [h/8 w/8], scene and source."""

  image: np.ndarray
  swing: np.ndarray
  regions: Regions
  log_swing: np.ndarray
  scene: str
  source: str


def read_clips(options: argparse.Namespace, model: ModelSettings) -> list[Clip]:
  """Reads all clips and loops, measured now or earlier, as a model's settings say."""
  clips = []
  for source, folder in (("real", options.clips), ("loop", options.loops)):
    for file in list_clips(folder):
      if file.scene in FLAMES:
        continue
      try:
        scene = read_clip(file, model, source=source, cache=options.cache)
      except UserError as error:
        print(f"left out {file.path.name}: {error}", flush=True)
        continue
      height, width = scene.volume.coefficients.shape[1:3]
      swing = rms_swing(scene.volume, stride=2)
      texture = measure_texture(scene.image, height=height, width=width)
      image = np.uint8(255 * np.asarray(scene.image) + 0.5)
      regions = find_moving(swing, scene.confidence, texture)
      log_swing = find_log_swing(scene.volume, stride=2, factor=4)
      clips.append(Clip(image, swing, regions, log_swing, scene.scene, source))
  return clips


def assign_folds(clips: Sequence[Clip]) -> np.ndarray:
  """The fold of every clip; all of a scene in one."""
  names = sorted({clip.scene for clip in clips} - set(POTS))
  order = np.random.default_rng(1).permutation(len(names))
  folds = {names[i]: 1 + rank % (NUM_FOLDS - 1) for rank, i in enumerate(order)} | dict.fromkeys(POTS, 0)
  return np.array([folds[clip.scene] for clip in clips])


def centre(array: np.ndarray) -> np.ndarray:
  """[h w c] or [h w] less its mean over the photo."""
  return array - array.mean((0, 1))


def cross_validate(features: Sequence[np.ndarray], clips: Sequence[Clip], folds: np.ndarray, *, penalty: float,
                   within: bool, stills: Sequence[np.ndarray] = (), num_scenes: int = 999,
                   draw: int = 0) -> list[np.ndarray]:  # fmt: skip
  """Log swings [h/8 w/8] of all clips from fits without their fold.

  Args:
    features: [h/8 w/8 c] of every clip.
    within: whether levels of whole clips are taken out of features and target; otherwise of all places together.
    stills: features of photos to be fitted to as swinging by `STILL` px, with the weight of a clip each.
    num_scenes: at most so many scenes are fitted to, drawn at random.
    draw: which.
  """
  predicted: list = [None] * len(clips)
  for fold in range(NUM_FOLDS):
    inside = np.flatnonzero(folds != fold)
    names = sorted({clips[i].scene for i in inside})
    kept = set(np.random.default_rng(draw).permutation(names)[:num_scenes])
    inside = [i for i in inside if clips[i].scene in kept]
    pairs = [(features[i].reshape(-1, features[i].shape[-1]), clips[i].log_swing.ravel()) for i in inside]
    pairs += [
      (still.reshape(-1, still.shape[-1]), np.full(still[..., 0].size, np.log(STILL + FAINT))) for still in stills
    ]
    if not within:
      pairs = [tuple(np.concatenate(parts) for parts in zip(*pairs, strict=True))]
    ridge = start_ridge(pairs[0][0].shape[1])
    for pair in pairs:
      ridge = ridge.add(*pair)
    weights = ridge.solve(penalty)
    level = np.mean([clips[i].log_swing.mean() for i in inside])
    mean = np.mean([features[i].mean((0, 1)) for i in inside], axis=0)
    for i in np.flatnonzero(folds == fold):
      predicted[i] = (centre(features[i]) if within else features[i] - mean) @ weights + level
  return predicted


def report(name: str, clips: Sequence[Clip], scores: Callable[[int], np.ndarray], *, is_log: bool = True) -> None:
  """Prints the areas under the ROC curve, and of log swings how far the amount is off."""
  cells = []
  for source in ("real", "loop"):
    chosen = [i for i, clip in enumerate(clips) if clip.source == source]
    groups = [clips[i].scene for i in chosen]
    maps = [cv2.resize(np.float32(scores(i)), clips[i].swing.shape[::-1]) for i in chosen]
    areas = [area_under_curve(m, clips[i].regions) for m, i in zip(maps, chosen, strict=True)]
    found = estimate_mean(areas, groups=groups)
    cells.append(f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]")
    if is_log:
      ratios = [
        median_ratio(np.exp(m) - FAINT, clips[i].swing, clips[i].regions.moving)
        for m, i in zip(maps, chosen, strict=True)
      ]
      off = estimate_mean(ratios, groups=groups)
      cells.append(f"{off.value:.2f} [{off.low:.2f}, {off.high:.2f}]")
    else:
      cells.append("")
  print(f"| {name} | {' | '.join(cells)} |", flush=True)


def compare_scenes(clips: Sequence[Clip], scores: Sequence[np.ndarray]) -> None:
  """Prints in how many scenes the areas exceed those of each measure of the photo alone."""
  areas: dict[tuple[str, str], list] = {}
  for clip, score in zip(clips, scores, strict=True):
    height, width = clip.swing.shape
    maps = {"fit": cv2.resize(np.float32(score), (width, height))} | score_photo(
      clip.image / 255, height=height, width=width
    )
    if all(map(covers_enough, clip.regions)):
      found = [area_under_curve(m, clip.regions) for m in maps.values()]
      areas.setdefault((clip.source, clip.scene), []).append(found)
  for source in ("real", "loop"):
    means = np.array([np.mean(rows, axis=0) for (kind, _), rows in areas.items() if kind == source])
    above = (means[:, :1] > means[:, 1:]).sum(0)
    shares = ", ".join(f"{name} {count}" for name, count in zip([*maps][1:], above, strict=True))
    print(f"{source}: within, penalty 300 is above, in so many of {len(means)} scenes: {shares}", flush=True)


def main() -> None:
  """Measures and prints."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  for name in ("clips", "loops", "stills"):
    parser.add_argument(f"--{name}", required=True)
  parser.add_argument("--cache", type=Path, required=True, help="folder of measured motion")
  parser.add_argument("--weights", help="folder of exported weights; the embedded ones by default")
  parser.add_argument("--scenes", type=int, nargs="*", default=[4, 8, 16, 24], help="of the curve")
  options = parser.parse_args()
  model = load_pretrained(MOTION_WEIGHTS, directory=options.weights)[1].model
  h, w = model.image_size
  clips = read_clips(options, model)
  folds = assign_folds(clips)
  judged = {
    s: {c.scene for c in clips if c.source == s and all(map(covers_enough, c.regions))} for s in ("real", "loop")
  }
  print(f"{len(judged['real'])} filmed scenes and {len(judged['loop'])} loops can be judged for where\n")
  see = make_eye(model, "", h // 8, w // 8)
  resize = lambda image, height, width: cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
  usual = [see(clip.image) for clip in clips]
  small = [see(resize(clip.image, h // 2, w // 2)) for clip in clips]
  enlarged = [see(cv2.resize(clip.image, (2 * w, 2 * h), interpolation=cv2.INTER_CUBIC)) for clip in clips]
  photos = [see(cover(photo, h, w)) for photo in load_backgrounds(options.stills)]

  print("| | filmed: where | octaves off | loops: where | octaves off |\n|---|---|---|---|---|")
  for name in ("gradient", "greenness", "saturation", "centre"):
    shapes = [dict(zip(("height", "width"), clip.swing.shape, strict=True)) for clip in clips]
    report(name, clips, lambda i, n=name, s=shapes: score_photo(clips[i].image / 255, **s[i])[n], is_log=False)
  fit = lambda features, **how: cross_validate(features, clips, folds, **({"penalty": 30.0, "within": True} | how))
  both = [np.concatenate(pair, -1) for pair in zip(usual, enlarged, strict=True)]
  rows = {
    "all places together": fit(usual, within=False),
    "all places together, and photos of nothing": fit(usual, within=False, stills=photos[::2]),
    "within each clip": fit(usual),
    "within, penalty 1": fit(usual, penalty=1.0),
    "within, penalty 300": fit(usual, penalty=300.0),
    f"within, photo of {w // 2}x{h // 2}": fit(small),
    f"within, photo enlarged to {2 * w}x{2 * h}": fit(enlarged),
    "within, both sizes": fit(both),
  }
  for name, predicted in rows.items():
    report(name, clips, lambda i, p=predicted: p[i])
  print()
  compare_scenes(clips, rows["within, penalty 300"])
  print("\n| fitted to | filmed: where | octaves off | loops: where | octaves off |\n|---|---|---|---|---|")
  for number in options.scenes:
    for draw in range(NUM_DRAWS):
      predicted = fit(usual, penalty=300.0, num_scenes=number, draw=draw)
      report(f"{number} scenes, draw {draw + 1}", clips, lambda i, p=predicted: p[i])

  flat = lambda features: features.reshape(-1, features.shape[-1])
  moving, resting = [], []
  for fold in range(NUM_FOLDS):
    outside, places = folds == fold, PlaceSample()
    for i in np.flatnonzero(~outside):
      places.add_window(clips[i].scene, flat(usual[i]), clips[i].log_swing.ravel())
    for features in photos[::2]:
      places.add_still(flat(features))
    kernel, bias = places.fit_gate(0.03)
    moves = lambda features, kernel=kernel, bias=bias: np.ravel(combine_odds((features @ kernel + bias)[None]) > 0)
    for i in np.flatnonzero(outside):
      swing = np.exp(clips[i].log_swing.ravel()) - FAINT
      moving.append(moves(usual[i])[swing >= MOVES * np.percentile(swing, 95)].mean())
    resting += [moves(features).mean() for features in photos[1::2]]
  quantiles = lambda values: ", ".join(f"{value:.2f}" for value in np.quantile(values, (0, 0.05, 0.5, 0.95, 1)))
  print(f"\nshare of places that count as moving, 0, 5, 50, 95, 100 %: of those that move in unseen clips "
        f"{quantiles(moving)}; of unseen photos of nothing {quantiles(resting)}")  # fmt: skip


if __name__ == "__main__":
  main()
