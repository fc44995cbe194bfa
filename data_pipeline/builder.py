"""Builds a training data set from clips, seamless loops and simulated scenes.

  python -m data_pipeline.builder --output windows --clips clips --loops loops --synthetic 700

writes one `.safetensors` per window into `train/` and `validation/`, split by scene so that no scene is in both;
`records/` with what became of every clip; `rejected.jsonl` with every clip and window that was left out and why; and
`statistics.json` with the scale of every band. A build that was killed goes on where it stopped: a clip with a record
is finished, and every window is drawn from its own name, so the result is the same. A record made with other options
is made again.
"""

import argparse
import csv
import json
import multiprocessing
import os
import re
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from safetensors.numpy import save_file

from data_pipeline.clips import clip_to_sequences, find_clips, seam_ratio
from data_pipeline.statistics import write_statistics
from data_pipeline.synthetic import load_backgrounds, load_sprites, sample_scene, scene_to_window
from data_pipeline.trajectories import FILTER_RULES, sequence_to_window
from gid_jax.errors import UserError
from gid_jax.media import read_clip
from gid_jax.types import Window

SPLITS = ("train", "validation")
# Of the published loops, those that close stay under 3 and those that do not start at 5.
_MAX_SEAM_RATIO = 4.0


class Task(NamedTuple):
  """One clip, or one simulated scene, to turn into windows.

  Attributes:
    name: source and file stem or seed, the beginning of its windows' file names: "real-oak_leaves".
    source: "real", "loop" or "synthetic".
    path: the video; "" for a simulated scene.
    scene: name of the scene.
    split: "train" or "validation".
    settings: everything else that decides the result, as JSON values.
  """

  name: str
  source: str
  path: str
  scene: str
  split: str
  settings: dict[str, Any]


def file_to_scene(path: str | Path) -> str:
  """Guesses the scene from a file name: its stem without a trailing number, `sim_x_view1_0` being scene x."""
  return re.sub(r"_\d+$", "", re.sub(r"^sim_(.*?)(_view\d+)?(_\d+)?$", r"\1", Path(path).stem))


def read_scenes(folder: str | Path) -> dict[str, str]:
  """Reads the scene of each file from the table beside a folder (`clips/` has `clips.csv`), where there is one."""
  table = Path(folder).with_suffix(".csv")
  if not table.exists():
    return {}
  with open(table, newline="") as file:
    return {Path(row["file"]).name: row["scene"] for row in csv.DictReader(file)}


def scene_to_split(scene: str, *, held_out: Sequence[str] | None) -> str:
  """Assigns a scene to a split: by the list, or without one a tenth of the scenes by a hash of the name."""
  if held_out is None:
    return SPLITS[zlib.crc32(scene.encode()) % 10 == 0]
  return SPLITS[scene in held_out]


def save_window(path: str | Path, window: Window) -> None:
  """Writes a window as safetensors, its two names as metadata, complete or not at all.

  Not as npz: NumPy reads its headers through Python's own parser, which Python 3.11 cannot run in several threads.
  """
  path = Path(path)
  temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
  fields = window._asdict()
  names = {name: fields.pop(name) for name in ("scene", "source")}
  save_file({name: np.ascontiguousarray(value) for name, value in fields.items()}, temporary, metadata=names)
  os.replace(temporary, path)


def _write_text(path: Path, text: str) -> None:
  temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
  temporary.write_text(text)
  os.replace(temporary, path)


def _seed_rng(name: str) -> np.random.Generator:
  return np.random.default_rng(zlib.crc32(name.encode()))


@lru_cache(maxsize=1)
def _load_photos(backgrounds: str, sprites: str) -> tuple[list, list]:
  return load_backgrounds(backgrounds) if backgrounds else [], load_sprites(sprites) if sprites else []


def _make_windows(task: Task) -> Iterator[tuple[Window | None, dict[str, str]]]:
  settings = task.settings
  size = {"height": settings["height"], "width": settings["width"]}
  if task.source == "synthetic":
    backgrounds, sprites = _load_photos(settings["backgrounds"], settings["sprites"])
    length = {"num_frames": settings["num_frames"], "fps": settings["fps"]}
    scene = sample_scene(settings["seed"], **size, **length, backgrounds=backgrounds, sprites=sprites)
    bands = {"num_bands": settings["num_bands"], "num_pairs": settings["num_pairs"]}
    yield scene_to_window(scene, **bands, rng=_seed_rng(task.name)), {}
    return
  clip = read_clip(task.path)
  sequences = clip_to_sequences(
    clip,
    **size,
    num_frames=settings["num_frames"],
    fps=settings["fps"],
    stride=settings["stride"],
    max_sequences=settings["max_windows"],
    wrap=task.source == "loop" and seam_ratio(clip.frames) <= _MAX_SEAM_RATIO,
  )
  for index, frames in enumerate(sequences):
    yield sequence_to_window(
      frames,
      num_bands=settings["num_bands"],
      num_pairs=settings["num_pairs"],
      scene=task.scene,
      source=task.source,
      rng=_seed_rng(f"{task.name}-{index:02d}"),
      rule=settings["rule"],
    )


def run_task(task: Task, output: str | Path) -> dict[str, Any]:
  """Makes the windows of one task and its record; never raises, whatever the file holds.

  Args:
    task: what to make.
    output: the data set's folder, with its `train`, `validation` and `records`.

  Returns:
    The record: the task's fields, names of the windows, verdicts of every filter rule, rejections with reasons.
  """
  output, began = Path(output), time.monotonic()
  for split in SPLITS:
    for stale in (output / split).glob(f"{task.name}-*.safetensors"):
      stale.unlink()
  record = {**task._asdict(), "windows": [], "verdicts": [], "rejected": []}
  try:
    for index, (window, verdicts) in enumerate(_make_windows(task)):
      name = f"{task.name}-{index:02d}"
      if verdicts:
        record["verdicts"].append(verdicts)
      if window is None:
        record["rejected"].append({"name": name, "reason": verdicts[task.settings["rule"]]})
      else:
        save_window(output / task.split / f"{name}.safetensors", window)
        record["windows"].append(name)
  except Exception as error:
    # One bad file among thousands must not cost the build: its reason is listed.
    reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    record["rejected"].append({"name": task.name, "reason": reason})
  record["seconds"] = round(time.monotonic() - began, 2)
  _write_text(output / "records" / f"{task.name}.json", json.dumps(record, indent=1) + "\n")
  return record


def plan_tasks(options: argparse.Namespace) -> list[Task]:
  """Lists everything the options ask for.

  Raises:
    UserError: nothing is asked for, a folder has no videos, or two files would share a name.
  """
  shared = {key: getattr(options, key) for key in ("height", "width", "num_frames", "fps", "num_bands", "num_pairs")}
  tasks = []
  for source, folder, stride in (
    ("real", options.clips, options.stride),
    ("loop", options.loops, options.loop_stride),
  ):
    scenes = read_scenes(folder) if folder else {}
    for path in find_clips(folder) if folder else []:
      scene = scenes.get(path.name, file_to_scene(path))
      if scene in options.exclude or path.stem in options.exclude:
        continue
      most = min(2, options.max_windows) if scene in options.minor else options.max_windows
      settings = {**shared, "stride": stride, "max_windows": most, "rule": options.rule}
      split = scene_to_split(scene, held_out=options.held_out_scenes)
      tasks.append(Task(f"{source}-{path.stem}", source, str(path), scene, split, settings))
  for seed in range(options.synthetic):
    settings = {**shared, "seed": seed, "backgrounds": options.backgrounds, "sprites": options.sprites}
    split = SPLITS[seed % 10 == 9]
    tasks.append(Task(f"synthetic-{seed:06d}", "synthetic", "", f"synthetic-{seed}", split, settings))
  if not tasks:
    raise UserError("Nothing to build: give --clips, --loops or --synthetic.")
  repeated = [name for name, count in Counter(task.name for task in tasks).items() if count > 1]
  if repeated:
    raise UserError(f"Two files are both called {repeated[0]}: rename one, window names come from file names.")
  return tasks


def _is_finished(task: Task, output: Path) -> bool:
  try:
    record = json.loads((output / "records" / f"{task.name}.json").read_text())
  except (OSError, ValueError):
    return False
  same = all(record.get(key) == value for key, value in task._asdict().items())
  return same and all((output / task.split / f"{name}.safetensors").exists() for name in record["windows"])


def _start_worker() -> None:
  cv2.setNumThreads(1)


def build(options: argparse.Namespace) -> dict[str, Any]:
  """Builds the data set that the options describe; see the module's docstring.

  Returns:
    Counts: "windows" by source and split, "removed" by filter rule and reason, "rejected" in total.

  Raises:
    UserError: nothing to build, or no window came out of it.
  """
  tasks = plan_tasks(options)
  output = Path(options.output)
  for folder in (*SPLITS, "records"):
    (output / folder).mkdir(parents=True, exist_ok=True)
  for leftover in output.glob("*/*.tmp"):
    leftover.unlink()
  # In scattered order, filmed ones first: a build stopped half-way then holds some of every scene.
  order = sorted(tasks, key=lambda task: (task.source == "synthetic", zlib.crc32(task.name.encode())))
  todo = [task for task in order if not _is_finished(task, output)]
  print(f"{len(tasks)} clips and scenes, {len(tasks) - len(todo)} of them finished before", flush=True)
  for number, record in enumerate(_run_all(todo, output, options.num_workers), 1):
    kept, lost = len(record["windows"]), len(record["rejected"])
    done = f"[{number}/{len(todo)}] {record['name']}: {kept} windows in {record['seconds']} s"
    print(done + (f", {lost} rejected ({record['rejected'][0]['reason']})" if lost else ""), flush=True)
  records = [json.loads((output / "records" / f"{task.name}.json").read_text()) for task in tasks]
  rejected = [{**lost, "scene": record["scene"]} for record in records for lost in record["rejected"]]
  _write_text(output / "rejected.jsonl", "".join(json.dumps(lost) + "\n" for lost in rejected))
  counts = {
    "windows": dict(Counter(f"{r['source']}/{r['split']}" for r in records for _ in r["windows"])),
    "removed": {
      rule: dict(Counter(v[rule] for r in records for v in r["verdicts"] if v[rule])) for rule in FILTER_RULES
    },
    "rejected": len(rejected),
  }
  statistics = write_statistics(output, num_frames=options.num_frames, fps=options.fps, percentile=options.percentile)
  print(f"windows: {counts['windows']}")
  for rule, removed in counts["removed"].items():
    used = "removed" if rule == options.rule else "would remove"
    print(f"rule {rule} ({FILTER_RULES[rule]}) {used}: {removed or 'nothing'}")
  print(f"rejected: {len(rejected)}, listed in {output / 'rejected.jsonl'}")
  print(f"scale at the {options.percentile:g}th percentile: {[round(s, 3) for s in statistics['scale']]}")
  return counts


def _run_all(tasks: Sequence[Task], output: Path, num_workers: int) -> Iterator[dict[str, Any]]:
  if num_workers <= 1:
    yield from (run_task(task, output) for task in tasks)
    return
  # Spawned, because JAX's threads do not survive a fork.
  context = multiprocessing.get_context("spawn")
  with ProcessPoolExecutor(num_workers, mp_context=context, initializer=_start_worker) as pool:
    yield from pool.map(run_task, tasks, [output] * len(tasks))


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
  """Parses the command line of the builder."""

  def names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]

  parser = argparse.ArgumentParser(description="Build a training data set.")
  parser.add_argument("--output", required=True, help="folder of the data set")
  parser.add_argument("--clips", default="", help="folder of filmed clips, with an optional table <folder>.csv")
  parser.add_argument("--loops", default="", help="folder of seamless loops, likewise")
  parser.add_argument("--synthetic", type=int, default=0, help="number of simulated scenes")
  parser.add_argument("--backgrounds", default="", help="folder of photos behind simulated scenes")
  parser.add_argument("--sprites", default="", help="folder of cut-outs with alpha for simulated scenes")
  parser.add_argument("--held_out_scenes", type=names, help="validation scenes a,b,c; a tenth of all by default")
  parser.add_argument("--exclude", type=names, default=[], help="scenes or file stems to leave out")
  parser.add_argument("--minor", type=names, default=[], help="scenes of which to keep at most 2 windows a clip")
  parser.add_argument("--rule", choices=list(FILTER_RULES), default="main", help="filter rule that decides")
  parser.add_argument("--stride", type=int, default=50, help="frames between the starts of a clip's windows")
  parser.add_argument("--loop_stride", type=int, default=25, help="the same for loops")
  parser.add_argument("--max_windows", type=int, default=8, help="windows a clip")
  parser.add_argument("--num_frames", type=int, default=150)
  parser.add_argument("--fps", type=float, default=30.0)
  parser.add_argument("--height", type=int, default=160)
  parser.add_argument("--width", type=int, default=256)
  parser.add_argument("--num_bands", type=int, default=16)
  parser.add_argument("--num_pairs", type=int, default=6)
  parser.add_argument("--percentile", type=float, default=95.0, help="of the normalisation scale")
  parser.add_argument("--num_workers", type=int, default=2)
  return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
  """Entry point of `python -m data_pipeline.builder`."""
  try:
    build(parse_options(arguments))
  except UserError as error:
    raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
  main()
