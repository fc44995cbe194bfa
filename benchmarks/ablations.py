"""Claim: which of the paper's ablations (Table 2) reproduce at a small scale, and which do not.

  python -m data_pipeline.builder --output data/small --clips CLIPS --loops LOOPS --synthetic 400 --num_bands 24 \
    --height 80 --width 128 --stride 40 --max_windows 6 --held_out_scenes SCENES
  python -m benchmarks.ablations --data data/small --clips CLIPS --workdir runs/ablations [--stop_after train]

Trains every row of the table (`configs/ablations/`) with one seed, judges all of them on the clips whose scenes the
data set holds out (`python -m gid_jax.evaluate`), and writes `ablations.md` with the paper's figures beside: distances
with 95 % intervals over scenes, and the difference from the full model, both judged on the same scenes. Every step is
a command that goes on where it was stopped, so the script does too; what is finished is not done again.

`--size tiny` (default) works at the data set's own size with the recipe below, hours on two CPU cores; `--size paper`
trains as its configurations say.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gid_jax.evaluation.frechet import NUM_RESAMPLES, estimate_frechet, frechet_distance
from gid_jax.evaluation.judging import MODEL, REAL, STILL, SceneResult, load_result
from gid_jax.evaluation.results import Estimate, bootstrap, estimate_mean
from gid_jax.weights.checkpoint import checkpoint_directory, list_steps
from gid_jax.weights.pretrained import RENDERER_WEIGHTS


class Row(NamedTuple):
  """A row of Table 2.

  Attributes:
    title: the paper's name.
    stages: what it trains itself; the rest is the full model's.
    paper: the paper's FVD and FVD32.
  """

  title: str
  stages: tuple[str, ...]
  paper: tuple[float, float]


MOTION = ("vae", "ldm", "ldm_coordinated")
ROWS = {
  "full": Row("Full (K = 16)", (*MOTION, "renderer"), (47.1, 62.9)),
  "bands_4": Row("K = 4", MOTION, (60.3, 78.4)),
  "bands_8": Row("K = 8", MOTION, (52.1, 68.7)),
  "bands_24": Row("K = 24", MOTION, (48.2, 65.1)),
  "scale_with_resolution": Row("Scale w/ resolution", MOTION, (62.7, 80.1)),
  "independent": Row("Independent pred.", (), (52.5, 71.3)),
  "volume": Row("Volume pred.", ("ldm",), (53.7, 71.1)),
  "average_splat": Row("Average splat", ("renderer",), (51.4, 68.9)),
  "baseline_splat": Row("Baseline splat", ("renderer",), (49.5, 66.8)),
}
PAPER_STILL = (237.5, 316.7)
# Distances in the paper's networks that need no file, and what says more of the motion with few clips.
NETWORKS = ("FVD", "FVD32")
METRICS = {"auc": "where", "median_ratio": "how much, octaves", "spectral_distance": "how fast, dB"}
# Of `tiny`: steps, batch, learning rate.
RECIPE = {
  "vae": (600, 16, 2e-3),
  "ldm": (700, 8, 1e-3),
  "ldm_coordinated": (200, 2, 6e-4),
  "renderer": (300, 4, 1e-3),
}
# And what else `tiny` changes: a pretrained eye, as one trained from nothing learns so few scenes by heart.
NETWORKS_OF_TINY = {
  "codec": {"channels": 24, "groups": 8, "multipliers": (1, 2, 4)},
  "encoder": {"trunks": ("efficientnet_lite0",), "channels": 32, "hidden": 64},
  "denoiser": {"channels": 64, "groups": 16, "head_channels": 32},
}


def find_run(workdir: Path, row: str, stage: str) -> Path:
  """The work folder of the training that a row's stage comes from: its own or the full model's."""
  return workdir / (row if stage in ROWS[row].stages else "full") / stage


def find_motion(workdir: Path, row: str) -> Path:
  """The work folder of a row's motion model."""
  return find_run(workdir, row, "ldm" if row in ("independent", "volume") else "ldm_coordinated")


def describe_training(row: str, stage: str, options: argparse.Namespace) -> tuple[list[str], int | None]:
  """Flags that train one stage of a row, and its number of steps where this script sets it."""
  config = f"configs/ablations/{row}.py:{stage}:{options.size}"
  flags = [f"--config={config}", f"--config.data.directory={options.data}"]
  earlier = {"ldm": "vae", "ldm_coordinated": "ldm"}.get(stage)
  if earlier:
    flags.append(f"--config.init.{earlier}={find_run(options.workdir, row, earlier)}")
  if stage == "renderer" and options.vgg16:
    flags.append(f"--config.loss.vgg={options.vgg16}")
  if options.size != "tiny":
    return flags, None
  num_steps, batch_size, learning_rate = RECIPE[stage]
  values = {
    "model.image_size": tuple(options.image_size),
    "optimizer.num_steps": num_steps,
    "optimizer.warmup_steps": num_steps // 20,
    "optimizer.learning_rate": learning_rate,
    "batch_size": batch_size,
    "ema_decay": 0.99,
    "log_every": 50,
    "eval_every": num_steps // 2,
    "num_eval_batches": 8,
    "num_init_batches": 8,
    "save_every": 200,
    "keep_checkpoints": 1,
    "eval_pictures": False,  # sampling them compiles longer than a stage trains
  }
  if stage == "renderer":
    values["model.renderer.channels"] = (16,) if row == "baseline_splat" else (16, 32, 64)  # the one has one scale
  else:
    for part, fields in NETWORKS_OF_TINY.items():
      values |= {f"model.{part}.{name}": value for name, value in fields.items()}
  if stage == "vae":
    values["data.crop"] = tuple(side // 2 for side in options.image_size)
  if stage == "ldm" and row != "volume":
    values["data.bands_per_example"] = 2
  return flags + [f"--config.{name}={value}" for name, value in values.items()], num_steps


def run(*arguments: str, cache: Path) -> None:
  """Runs a Python command, compiled programs kept in a folder; its failure, which it has explained, ends the script."""
  environment = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1"}
  if status := subprocess.run([sys.executable, *arguments], env=environment | os.environ).returncode:
    sys.exit(status)


def train_row(row: str, options: argparse.Namespace) -> None:
  """Trains what a row does not share, and exports its weights."""
  for stage in ROWS[row].stages:
    workdir = find_run(options.workdir, row, stage)
    flags, num_steps = describe_training(row, stage, options)
    if num_steps is None or num_steps not in list_steps(checkpoint_directory(workdir)):
      print(f"--- {row}: {stage}", flush=True)
      run("-m", "gid_jax.train", *flags, f"--workdir={workdir}", cache=options.workdir / "compiled")
  weights = options.workdir / row / "weights"
  if not (weights / RENDERER_WEIGHTS).exists():
    models = {"motion": find_motion(options.workdir, row), "renderer": find_run(options.workdir, row, "renderer")}
    flags = [f"--{name}={path}" for name, path in (models | {"output": weights}).items()]
    run("-m", "gid_jax", "export", *flags, cache=options.workdir / "compiled")


def list_held_out(data: Path) -> list[str]:
  """The filmed scenes of a data set that no training saw."""
  records = [json.loads(line) for line in (data / "records.jsonl").read_text().splitlines()]
  return sorted({r["scene"] for r in records if (r["source"], r["split"]) == ("real", "validation")})


def judge_row(row: str, options: argparse.Namespace) -> list[SceneResult]:
  """Evaluates a row's weights on the held-out clips."""
  print(f"--- {row}: evaluation", flush=True)
  workdir = options.workdir / row / "evaluation"
  # The middle 4:5 of the height, as 256x128 of 256x160 (section 7).
  crop = (options.image_size[0] * 4 // 5, options.image_size[1])
  values = {
    "weights": options.workdir / row / "weights",
    "real.folder": options.clips,
    "real.scenes": ",".join(list_held_out(options.data)),
    "real.takes": 1,
    "num_samples": 2,
    "features": ("fvd", "fvd32", "efficientnet_lite0"),
    "filmed": (MODEL, STILL),
    "crop": crop,
    "num_shown": 3,
    "cache": options.workdir / "measured",
  }
  flags = [f"--config.{name}={value}" for name, value in values.items()]
  run("-m", "gid_jax.evaluate", "--config=configs/evaluation.py", f"--workdir={workdir}", *flags,
      cache=options.workdir / "compiled")  # fmt: skip
  return [load_result(path) for path in sorted((workdir / "results").glob("real-*.safetensors"))]


def gather(results: Sequence[SceneResult], network: str, predictor: str) -> tuple[np.ndarray, list[str]]:
  """Features of all scenes [n d] and the scene of each."""
  parts = [(result.features[f"{network}/{predictor}"], result.scene) for result in results]
  return np.concatenate([part for part, _ in parts]), [scene for part, scene in parts for _ in part]


Features = tuple[np.ndarray, Sequence[str]]  # [n d] and the scene of each


def estimate_difference(features: Features, best: Features, real: Features) -> Estimate:
  """How much larger the Fréchet distance of `features` from `real` is than that of `best`, with its interval.

  Both are measured on the same drawn scenes, so that what is hard for both does not blur the comparison. The interval
  is moved back by the mean rise of resampled sets, as `gid_jax.evaluation.frechet.estimate_frechet` does.
  """
  scenes = sorted(set(real[1]))
  rows = [[rows[np.array(groups) == scene] for scene in scenes] for rows, groups in (features, best, real)]
  values: list[float] = []

  def measure(chosen):
    ours, others, truth = (np.concatenate([parts[index] for index in chosen]) for parts in rows)
    values.append(frechet_distance(ours, truth) - frechet_distance(others, truth))
    return values[-1]

  estimate = bootstrap(measure, len(scenes), num_resamples=NUM_RESAMPLES)
  rise = float(np.mean(values[1:])) - estimate.value if len(values) > 1 else 0.0
  return estimate._replace(low=estimate.low - rise, high=estimate.high - rise)


def draw_estimate(estimate: Estimate, digits: int) -> str:
  """A figure with its interval in brackets."""
  value, low, high = (f"{number:.{digits}f}" for number in estimate[:3])
  return f"{value} [{low}, {high}]"


def draw_tables(results: dict[str, list[SceneResult]]) -> str:
  """Markdown, a line a row: distances beside the paper's, then motion; with how far each is from the full model's."""
  full = results["full"]
  heads = [f"paper {network}" for network in NETWORKS]
  heads += [head for network in NETWORKS for head in (network, f"{network}, less full")]
  distances = [["row", *heads], ["---"] * (len(heads) + 1)]
  heads = [head for metric in METRICS.values() for head in (metric, "less full")]
  motions = [["row", *heads], ["---"] * (len(heads) + 1)]
  for row, judged in [("still", full), *results.items()]:
    predictor = STILL if row == "still" else MODEL
    title, paper = ("Repeat I0", PAPER_STILL) if row == "still" else (ROWS[row].title, ROWS[row].paper)
    cells = [title, *map(str, paper)]
    for network in NETWORKS:
      ours, real = gather(judged, network, predictor), gather(judged, network, REAL)
      best = gather(full, network, MODEL)
      cells.append(draw_estimate(estimate_frechet(ours[0], real[0], ours[1], real[1]), 0))
      difference = estimate_difference(ours, best, real)
      cells.append("" if row == "full" else draw_estimate(difference, 0))
    distances.append(cells)
    cells, scenes = [title], [result.scene for result in judged]
    for metric in METRICS:
      ours, best = (
        np.array([result.motion[name].get(metric, np.nan) for result in of])
        for of, name in ((judged, predictor), (full, MODEL))
      )
      cells.append(draw_estimate(estimate_mean(ours, groups=scenes), 2))
      cells.append("" if row == "full" else draw_estimate(estimate_mean(ours - best, groups=scenes), 2))
    motions.append(cells)
  lines = [*distances, [], *motions]
  return "".join(f"| {' | '.join(cells)} |\n" if cells else "\n" for cells in lines)


def main() -> None:
  """Trains, judges and writes the table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", type=Path, required=True, help="data set of data_pipeline.builder, 24 bands")
  parser.add_argument("--clips", type=Path, required=True, help="folder of filmed clips, with its table beside it")
  parser.add_argument("--workdir", type=Path, required=True, help="folder of runs and of ablations.md")
  parser.add_argument("--size", default="tiny", choices=("tiny", "paper"))
  parser.add_argument("--image_size", type=int, nargs=2, default=(80, 128), help="height and width of the data set")
  parser.add_argument("--vgg16", help="npz of VGG16's convolutions, for the renderer's perceptual loss")
  parser.add_argument("--rows", nargs="+", choices=ROWS, default=[*ROWS], help="do only these, on one machine of many")
  parser.add_argument("--stop_after", choices=("train",), help="do not judge")
  options = parser.parse_args()
  for row in options.rows:
    train_row(row, options)
  if options.stop_after:
    return
  tables = draw_tables({row: judge_row(row, options) for row in dict.fromkeys(["full", *options.rows])})
  (options.workdir / "ablations.md").write_text(tables)
  print(tables)


if __name__ == "__main__":
  main()
