"""Claim: metrics respond: each is monotone in the damage that it is meant for, and its blind spots are written down.

  python -m benchmarks.damage --clips CLIPS --cache FOLDER [--scenes a,b,c] [--frames 32] [--vgg16 FILE]

Damages real clips and their measured motion, one take a scene, by every damage of `damages.py` and prints in
Markdown what every metric makes of it at growing strength: of damaged motion against the real one, of damaged
clips against the clips themselves, and of films of damaged motion against films of the real one. A film is the photo
splatted along the motion, so that no model has a part in any figure. Then it lists whether each metric is monotone in
the damages that it is meant for, and what hardly moves it. Exits with status 1 if one is not monotone.

Takes 25 minutes on two busy cores, seven of them for VGG16. Features and measured motion are kept in the folder of
--cache, from where the next run takes them.
"""

import argparse
import functools
import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.damages import DAMAGES, draw_takes, is_monotone, measure_worsening
from gid_jax.evaluation.frechet import frechet_distance, kernel_distance
from gid_jax.evaluation.judging import find_regions
from gid_jax.evaluation.motion import judge_prediction
from gid_jax.evaluation.motion_samples import judge_samples
from gid_jax.evaluation.networks.extractors import Extractor, load_extractor
from gid_jax.evaluation.rendering import measure_flicker, perceptual_distances, predict_by_softmax, psnr, ssim
from gid_jax.evaluation.scenes import JudgedScene, list_clips, read_clip
from gid_jax.evaluation.tables import MOTION_COLUMNS
from gid_jax.files import complete_or_nothing
from gid_jax.models.vgg16 import vgg16_params
from gid_jax.motion.spectral import evaluate_motion, motion_magnitude, resize_motion
from gid_jax.types import SpectralVolume
from gid_jax.weights.pretrained import MOTION_WEIGHTS, load_pretrained

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
# Of damaged motion, as every strength and network takes half a minute.
FILMED = (0.0, 0.5, 1.0)
FILM_NETWORKS = ("FVD", "EffLite0-Fréchet")
NUM_SCENES = 8
NUM_SAMPLES = 5  # of which a quarter, a half, ... repeat the first
# VGG16 takes half a second a frame: it sees every eighth, and every 16th is compared with the clip's own.
FRAME_STEPS = {"VGG16-Fréchet": 8}
COMPARED = slice(8, None, 16)
BLIND = 0.05  # share of a metric's largest response in its table, below which it counts as blind
BETTER = {name: column.better for name, column in MOTION_COLUMNS.items()} | {"psnr": "higher", "ssim": "higher"}

Curves = dict[tuple[str, str], np.ndarray]  # (damage, metric) -> [s] figures, NaN where not measured


def main():
  """Measures, prints the tables and sets the exit status."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--clips", required=True, help="folder of real clips")
  parser.add_argument("--cache", required=True, help="folder of what was measured")
  parser.add_argument("--scenes", help=f"those to take; the first {NUM_SCENES} of the folder by default")
  parser.add_argument("--frames", type=int, default=32, help="of each clip, for all metrics but those of motion")
  parser.add_argument("--vgg16", help="npz of VGG16's convolutions, for its distances")
  options = parser.parse_args()
  scenes = read_scenes(options.clips, options.scenes, Path(options.cache))
  clips = [scene.frames[: options.frames] for scene in scenes]
  kinds = ["fvd", "fvd32", "efficientnet_lite0", *(["vgg16"] if options.vgg16 else [])]
  extractors = [load_extractor(kind, weights=options.vgg16 if kind == "vgg16" else None) for kind in kinds]
  vgg_params = vgg16_params(options.vgg16) if options.vgg16 else None
  measure = functools.partial(compare_features, cache=Path(options.cache))
  film_extractors = [extractor for extractor in extractors if extractor.name in FILM_NETWORKS]

  motion, frames, films = {}, {}, {}
  for name, kind in DAMAGES.items():
    print(name, file=sys.stderr, flush=True)
    if kind.acts_on == "frames":
      damaged = [damage_all(name, clips, strength) for strength in STRENGTHS]
      frames |= tabulate(name, [measure(extractors, videos, damaged[0]) for videos in damaged])
      frames |= tabulate(name, average(
        compare_clips(scene, videos, vgg_params) for scene, *videos in zip(scenes, *damaged, strict=True)
      ))  # fmt: skip
    elif kind.acts_on == "volume":
      damaged = [damage_all(name, [scene.volume for scene in scenes], strength) for strength in STRENGTHS]
      motion |= tabulate(name, average(
        judge_volumes(scene, volumes) for scene, *volumes in zip(scenes, *damaged, strict=True)
      ))  # fmt: skip
      videos = [
        [film(scene, volume, options.frames) for scene, volume in zip(scenes, volumes, strict=True)]
        if strength in FILMED else None
        for strength, volumes in zip(STRENGTHS, damaged, strict=True)
      ]  # fmt: skip
      films |= tabulate(name, [measure(film_extractors, some, videos[0]) if some else {} for some in videos])
    else:
      motion |= tabulate(name, average(judge_sets(name, scene, number) for number, scene in enumerate(scenes)))
  sys.exit(report({"Motion": motion, "Clips": frames, "Films of damaged motion": films}, scenes, options.frames))


def read_scenes(folder: str, wanted: str | None, cache: Path) -> list[JudgedScene]:
  """The first take of every wanted scene, with its motion."""
  model = load_pretrained(MOTION_WEIGHTS)[1].model
  files = {}
  for file in list_clips(folder, scenes=wanted.split(",") if wanted else ()):
    files.setdefault(file.scene, file)
  chosen = list(files.values())[: None if wanted else NUM_SCENES]
  return [read_clip(file, model, source="real", cache=cache) for file in chosen]


def damage_all(name: str, samples: Sequence, strength: float) -> list:
  """One damage to every scene's sample; the next scene's motion is the wrong one."""
  others = [*samples[1:], samples[0]]
  apply = DAMAGES[name].apply
  pairs = enumerate(zip(samples, others, strict=True))
  return [apply(jax.random.key(number), sample, other, strength) for number, (sample, other) in pairs]


# --- what is measured ---------------------------------------------------------------------------------------------


def judge_volumes(scene: JudgedScene, volumes: Sequence[SpectralVolume]) -> list[dict[str, float]]:
  """Motion metrics of a scene's volume, damaged at every strength."""
  regions, stride = find_regions(scene), grid_stride(scene)
  judged = [
    judge_prediction(volume, scene.volume, regions, stride=stride)
    | judge_samples([volume], [scene.volume], regions.moving, stride=stride)
    for volume in volumes
  ]
  return [{metric: row[metric] for metric in MOTION_COLUMNS} for row in judged]


def judge_sets(name: str, scene: JudgedScene, number: int) -> list[dict[str, float]]:
  """Metrics of sets of samples: takes of the scene, damaged at every strength, against other takes of it."""
  moving, stride = find_regions(scene).moving, grid_stride(scene)
  takes = draw_takes(jax.random.key(number), scene.volume, 2 * NUM_SAMPLES)
  samples, real = takes[:NUM_SAMPLES], takes[NUM_SAMPLES:]
  damaged = [DAMAGES[name].apply(jax.random.key(number), samples, None, strength) for strength in STRENGTHS]
  return [judge_samples(some, real, moving, stride=stride) for some in damaged]


def compare_clips(scene: JudgedScene, videos: Sequence[np.ndarray], vgg_params) -> list[dict[str, float]]:
  """Metrics of single frames and of flicker at rest, of a clip damaged at every strength."""
  clip, *damaged = videos
  times = range(len(clip))[COMPARED]
  still = find_regions(scene).still
  for axis in (0, 1):
    still = still.repeat(clip.shape[1 + axis] // still.shape[axis], axis)
  found = []
  for video in videos:
    found.append({metric.__name__: np.mean([metric(video[t], clip[t]) for t in times]) for metric in (psnr, ssim)})
    found[-1] |= measure_flicker(video, still, photo=clip[0])._asdict()
  if vgg_params is not None:
    everywhere = np.ones((1, *clip.shape[1:3]), bool)
    compare = lambda t: perceptual_distances(vgg_params, np.stack([video[t] for video in damaged]), clip[t], everywhere)
    distances = [0.0, *np.mean([compare(t)[:, 0] for t in times], axis=0)]
    found = [row | {"perceptual": distance} for row, distance in zip(found, distances, strict=True)]
  return found


def compare_features(
  extractors: Sequence[Extractor], videos: Sequence[np.ndarray], originals: Sequence[np.ndarray], *, cache: Path
) -> dict[str, float]:
  """Fréchet distances of videos of all scenes from the original ones, and kernel distances in features of frames."""
  found = {}
  for extractor in extractors:
    features, real = (extract(extractor, some, cache) for some in (videos, originals))
    found[extractor.name] = frechet_distance(features, real)
    if extractor.num_frames == 1:
      found[extractor.name.replace("Fréchet", "kernel")] = kernel_distance(features, real)
  return found


def extract(extractor: Extractor, videos: Sequence[np.ndarray], cache: Path) -> np.ndarray:
  """Features of videos, extracted once."""
  window, step = extractor.num_frames, FRAME_STEPS.get(extractor.name, 1)
  frames = np.concatenate([video[: len(video) // window * window : step] for video in videos])
  content = hashlib.sha256(frames.tobytes()).hexdigest()[:16]
  path = cache / "features" / f"{extractor.digest}-{window}-{content}.npy"
  if not path.exists():
    path.parent.mkdir(parents=True, exist_ok=True)
    with complete_or_nothing(path, overwrite=True) as temporary:
      np.save(temporary, extractor.extract(frames))
  return np.load(path)


def film(scene: JudgedScene, volume: SpectralVolume, num_frames: int) -> np.ndarray:
  """The photo moved by a volume: [t h w 3] uint8."""
  height, width = scene.image.shape[:2]
  depth = motion_magnitude(volume, anchor_first_frame=True) * grid_stride(scene)
  depth = jax.image.resize(depth, (height, width), "bilinear")
  return np.stack([render_frame(scene.image, volume, depth, jnp.float32(time)) for time in range(num_frames)])


@jax.jit
def render_frame(image, volume, depth, time):
  """One frame of a film."""
  motion = evaluate_motion(volume, time[None], anchor_first_frame=True)[0]
  frame = predict_by_softmax(image, resize_motion(motion, *image.shape[:2]), depth)
  return (jnp.clip(frame, 0, 1) * 255 + 0.5).astype(jnp.uint8)


def grid_stride(scene: JudgedScene) -> float:
  """Pixels of the photo a step of the motion grid."""
  return scene.frames.shape[1] / scene.volume.coefficients.shape[1]


# --- what is printed ----------------------------------------------------------------------------------------------


def average(scenes: Iterable[list[dict[str, float]]]) -> list[dict[str, float]]:
  """Means over scenes of figures by strength; over those that a metric can be measured in at all strengths."""
  scenes = list(scenes)
  means = [{} for _ in STRENGTHS]
  for metric in scenes[0][0]:
    values = np.array([[row[metric] for row in scene] for scene in scenes])
    known = values[np.isfinite(values).all(1)]
    for row, mean in zip(means, known.mean(0) if len(known) else [], strict=False):
      row[metric] = float(mean)
  return means


def tabulate(damage: str, rows: Sequence[Mapping[str, float]]) -> Curves:
  """Figures of one damage by strength; {} where a strength was not measured."""
  return {(damage, metric): np.array([row.get(metric, np.nan) for row in rows]) for metric in rows[0]}


def report(tables: Mapping[str, Curves], scenes: Sequence[JudgedScene], num_frames: int) -> int:
  """Prints everything and returns the exit status."""
  names = ", ".join(scene.name for scene in scenes)
  print(f"{len(scenes)} clips, {num_frames} frames of each where motion is not measured: {names}.\n")
  for title, curves in tables.items():
    print_table(title, curves)
  status = print_meant(tables)
  print_blind(tables)
  return status


def print_table(title: str, curves: Curves) -> None:
  """Damages and strengths downwards, metrics to the right, and a verdict under each damage."""
  damages, metrics = (list(dict.fromkeys(names)) for names in zip(*curves, strict=True))
  print(f"**{title}**\n\n| damage | strength | " + " | ".join(metrics) + " |")
  print("|---|---|" + "---|" * len(metrics))
  for damage in damages:
    for number, strength in enumerate(STRENGTHS):
      cells = [curves[damage, metric][number] if (damage, metric) in curves else np.nan for metric in metrics]
      if np.isfinite(cells).any():
        print(f"| {damage} | {strength:g} | " + " | ".join(f"{x:.3g}" if np.isfinite(x) else "" for x in cells) + " |")
    verdicts = [judge(curves, damage, metric) if (damage, metric) in curves else "" for metric in metrics]
    print(f"| {damage} | monotone | " + " | ".join(verdicts) + " |")
  print(
    f"\nBold: meant for this damage. blind: worsens by less than {BLIND:.0%} of the most that it worsens by in this "
    "table. better: looks better than without damage. A star: blind by definition. Kernel distances have no bias, and "
    "so are below 0 where the two sets are one.\n"
  )


def judge(curves: Curves, damage: str, metric: str) -> str:
  """A verdict in a word."""
  monotone = "yes" if is_monotone(worsen(curves, damage, metric)) else "no"
  if metric in DAMAGES[damage].meant_for:
    return f"**{monotone}**"
  share = measure_share(curves, damage, metric)
  word = "better" if share < -BLIND else "blind" if share < BLIND else monotone
  return word + "*" * (metric in DAMAGES[damage].blind)


def worsen(curves: Curves, damage: str, metric: str) -> np.ndarray:
  """[s] see `measure_worsening`."""
  return measure_worsening(curves[damage, metric], better=BETTER.get(metric, "lower"))


def measure_share(curves: Curves, damage: str, metric: str) -> float:
  """The response to a damage, at the strength where it is largest, as a share of the largest to any."""
  responses = {name: worsen(curves, name, metric) for name, other in curves if other == metric}
  largest = max(np.nanmax(response) for response in responses.values())
  response = responses[damage]
  extreme = response[np.nanargmax(np.abs(response))]
  return float(extreme / largest) if largest > 0 else 0.0


def print_meant(tables: Mapping[str, Curves]) -> int:
  """Lists whether metrics are monotone in what they are meant for; returns how many are not, at most 1."""
  print("**Monotone in the damage that it is meant for**\n")
  measured = tables["Motion"] | tables["Clips"]
  status = 0
  for damage, kind in DAMAGES.items():
    missing = [metric for metric in kind.meant_for if (damage, metric) not in measured]
    if missing:
      print(f"- not measured, for want of weights: {', '.join(missing)}, {damage}")
    for metric in (metric for metric in kind.meant_for if metric not in missing):
      monotone = is_monotone(worsen(measured, damage, metric))
      status |= not monotone
      figures = " ".join(f"{value:.3g}" for value in measured[damage, metric])
      print(f"- {'yes' if monotone else 'NO'}: {metric}, {damage}: {figures}")
  print()
  return int(status)


def print_blind(tables: Mapping[str, Curves]) -> None:
  """Lists what hardly moves a metric, and the predicted blind spots that are none."""
  print(f"**Blind spots**: at most {BLIND:.0%} of the largest response in the table, or it looks better\n")
  for title, curves in tables.items():
    for metric in dict.fromkeys(name for _, name in curves):
      found = []
      for damage in (name for name, other in curves if other == metric):
        share = measure_share(curves, damage, metric)
        predicted = metric in DAMAGES[damage].blind
        if share < BLIND or predicted:
          where = "predicted" if predicted and share < BLIND else "predicted, but responds" if predicted else "found"
          found.append(f"{damage} ({100 * share:z.1f} %, {where})")
      if found:
        print(f"- {title}, {metric}: {'; '.join(found)}")


if __name__ == "__main__":
  main()
