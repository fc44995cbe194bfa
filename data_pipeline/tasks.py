"""What a data set is built from: one task per clip or simulated scene, run on its own and kept on disk.

A finished task is one file, `cache/NAME.windows`: a record of what became of the clip, then its encoded windows. The
file appears complete or not at all. Its record holds a fingerprint of everything that decides the windows (settings,
contents of the files, what measures motion, version of
this package), so that a file of an earlier build counts only for the same task.
"""

import argparse
import hashlib
import json
import multiprocessing
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import msgpack
import numpy as np

from data_pipeline.splits import SPLITS, assign_splits, pick_held_out_seeds
from data_pipeline.synthetic.scene import sample_scene
from data_pipeline.synthetic.windows import scene_to_window
from data_pipeline.trajectories import sequence_to_window
from data_pipeline.worker import end_with_parent
from gid_jax import __version__
from gid_jax.data.storage import window_to_example
from gid_jax.errors import UserError
from gid_jax.files import complete_or_nothing
from gid_jax.flow.estimators import find_estimator
from gid_jax.flow.tracking import digest_measurement
from gid_jax.media.clip_folder import ClipFile
from gid_jax.media.clips import clip_to_sequences
from gid_jax.media.folders import load_photos
from gid_jax.types import Window

SOURCES = ("real", "loop", "synthetic")
# Options that all sources of a data set must share, for its windows to have one shape and meaning.
SHARED_SETTINGS = ("height", "width", "num_frames", "fps", "num_bands", "num_pairs", "motion_stride")
# Settings that say where files lie; what is in them decides, not the place.
FOLDERS = ("backgrounds", "sprites")


class Task(NamedTuple):
  """One clip or simulated scene to turn into windows.

  Attributes:
    name: source and name of the clip or seed, the beginning of its windows' keys: "real-oak_leaves".
    source: one of `SOURCES`.
    path: the video; "" for a simulated scene.
    scene: name of the scene.
    split: "train" or "validation".
    settings: everything else that decides the result, as JSON values.
    fingerprint: of all that decides the windows; not of the split, which only says where they go.
  """

  name: str
  source: str
  path: str
  scene: str
  split: str
  settings: dict[str, Any]
  fingerprint: str


def _describe_file(path: str | Path) -> list:
  # Of the contents, not of the time: a data set that is copied to another machine need not be made again.
  with open(path, "rb") as file:
    return [Path(path).name, hashlib.file_digest(file, "sha256").hexdigest()]


def _describe_folder(folder: str) -> list:
  return [_describe_file(path) for path in sorted(Path(folder).glob("*")) if path.is_file()] if folder else []


def _make_task(source: str, stem: str, path: str, scene: str, split: str, settings: dict, inputs: list) -> Task:
  name = f"{source}-{stem}"
  decisive = {key: value for key, value in settings.items() if key not in FOLDERS}
  text = json.dumps([__version__, name, scene, decisive, inputs], sort_keys=True)
  return Task(name, source, path, scene, split, settings, hashlib.sha256(text.encode()).hexdigest())


def plan_tasks(options: argparse.Namespace, clips: Mapping[str, Sequence[ClipFile]]) -> list[Task]:
  """Lists everything the builder's options ask for.

  Args:
    options: of the builder.
    clips: "real" and "loop" -> the files of their folders.

  Raises:
    UserError: nothing is asked for, a window has fewer bands than asked for, or there is no such estimator of flow.
  """
  most_bands = options.num_frames // 2 + 1
  if not 1 <= options.num_bands <= most_bands:
    raise UserError(f"--num_bands {options.num_bands}: {options.num_frames} frames have 1 to {most_bands} bands.")
  shared = {key: getattr(options, key) for key in SHARED_SETTINGS}
  measurement = digest_measurement(find_estimator(options.flow))
  wanted = [
    (source, file)
    for source, files in clips.items()
    for file in files
    if not {file.scene, file.name, file.path.stem} & {*options.exclude}
  ]
  splits = assign_splits({file.scene for _, file in wanted}, held_out=options.held_out_scenes)
  tasks = []
  for source, (path, scene, _, name) in wanted:
    most = min(2, options.max_windows) if scene in options.minor else options.max_windows
    settings = {
      **shared, "stride": options.stride, "max_windows": most, "rule": options.rule, "flow": options.flow,
      "measurement": measurement,
    }  # fmt: skip
    file = str(path.absolute())
    tasks.append(_make_task(source, name, file, scene, splits[scene], settings, _describe_file(path)))
  folders = {name: str(Path(getattr(options, name)).absolute()) if getattr(options, name) else "" for name in FOLDERS}
  photos = [_describe_folder(folder) for folder in folders.values()]
  held_out_seeds = pick_held_out_seeds(options.synthetic)
  for seed in range(options.synthetic):
    settings = {**shared, "seed": seed, **folders}
    split = SPLITS[seed in held_out_seeds]
    tasks.append(_make_task("synthetic", f"{seed:06d}", "", f"synthetic-{seed}", split, settings, photos))
  if not tasks:
    raise UserError("Nothing to build: give --clips, --loops or --synthetic.")
  return tasks


def _seed_rng(name: str) -> np.random.Generator:
  return np.random.default_rng(zlib.crc32(name.encode()))


def _make_windows(task: Task) -> Iterator[tuple[Window | None, dict[str, str]]]:
  settings = task.settings
  size = {"height": settings["height"], "width": settings["width"]}
  spectrum = {key: settings[key] for key in ("num_bands", "num_pairs", "motion_stride")}
  if task.source == "synthetic":
    backgrounds, sprites = load_photos(settings["backgrounds"], settings["sprites"])
    length = {"num_frames": settings["num_frames"], "fps": settings["fps"]}
    scene = sample_scene(settings["seed"], **size, **length, backgrounds=backgrounds, sprites=sprites)
    yield scene_to_window(scene, **spectrum, rng=_seed_rng(task.name)), {}
    return
  try:
    estimator = find_estimator(settings["flow"])
  except UserError as error:
    # This worker's fault and not the clip's: the next build tries again.
    raise RuntimeError(str(error)) from error
  sequences = clip_to_sequences(
    task.path,
    **size,
    num_frames=settings["num_frames"],
    fps=settings["fps"],
    stride=settings["stride"],
    max_sequences=settings["max_windows"],
    loop=task.source == "loop",
  )
  for index, frames in enumerate(sequences):
    yield sequence_to_window(
      frames,
      **spectrum,
      scene=task.scene,
      source=task.source,
      rng=_seed_rng(f"{task.name}-{index:02d}"),
      rule=settings["rule"],
      estimator=estimator,
    )


def cache_path(task: Task, cache: str | Path) -> Path:
  """The file that holds a finished task."""
  return Path(cache) / f"{task.name}.windows"


def run_task(task: Task, cache: str | Path) -> dict[str, Any]:
  """Makes the windows of one task and keeps them in the cache; whatever the file holds, it becomes a record.

  Args:
    task: what to make.
    cache: the folder of finished tasks.

  Returns:
    The record: the task's fields, "windows" (their names), "verdicts" of every filter rule, "rejected" with reasons,
    "failed" if something unexpected stopped it, "seconds".

  Raises:
    UserError: the cache cannot be written.
  """
  cv2.setNumThreads(1)  # The workers share the cores already.
  began = time.monotonic()
  record = {**task._asdict(), "windows": [], "verdicts": [], "rejected": [], "failed": False}
  examples = []
  try:
    for index, (window, verdicts) in enumerate(_make_windows(task)):
      name = f"{task.name}-{index:02d}"
      if verdicts:
        record["verdicts"].append(verdicts)
      if window is None:
        record["rejected"].append({"name": name, "reason": verdicts[task.settings["rule"]]})
      else:
        examples.append(window_to_example(window))
        record["windows"].append(name)
  except UserError as error:
    record["rejected"].append({"name": task.name, "reason": str(error)})
  except Exception as error:
    # One bad file among thousands must not cost the build. But this may be our mistake: the next build tries again.
    record["rejected"].append({"name": task.name, "reason": f"{type(error).__name__}: {error}"})
    record["failed"] = True
  record["seconds"] = round(time.monotonic() - began, 2)
  _write_items(cache_path(task, cache), [record, *examples])
  return record


def _write_items(path: Path, items: Iterable[Mapping[str, Any]]) -> None:
  with complete_or_nothing(path, overwrite=True) as temporary, open(temporary, "wb") as file:
    for item in items:
      msgpack.pack(item, file)


@lru_cache(maxsize=1)
def _start_process() -> ProcessPoolExecutor:
  # Spawned, because JAX's threads do not survive a fork.
  return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=end_with_parent)


def run_task_apart(task: Task, cache: str | Path) -> dict[str, Any]:
  """Does what `run_task` does in a process kept for it, so that a fault in a decoder costs one clip, not the build."""
  try:
    return _start_process().submit(run_task, task, cache).result()
  except BrokenProcessPool:
    _start_process.cache_clear()
  reason = "the process that read it died: out of memory, or a fault in the decoder"
  rejected = [{"name": task.name, "reason": reason}]
  record = {**task._asdict(), "windows": [], "verdicts": [], "rejected": rejected, "failed": True, "seconds": 0.0}
  _write_items(cache_path(task, cache), [record])
  return record


def find_record(task: Task, cache: str | Path) -> dict[str, Any] | None:
  """Reads the record of a task that this or an earlier build has finished, under its present split.

  Returns:
    The record, or None where the task is not finished or was finished with other settings or another file.
  """
  try:
    with open(cache_path(task, cache), "rb") as file:
      record = next(msgpack.Unpacker(file, read_size=1 << 16, max_buffer_size=0))
  except (OSError, ValueError, StopIteration, msgpack.UnpackException):
    return None
  same = isinstance(record, dict) and record.get("fingerprint") == task.fingerprint
  return {**record, **task._asdict()} if same else None


def read_examples(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
  """Reads the (key, example) pairs of a finished task's file, one at a time."""
  with open(path, "rb") as file:
    unpacker = msgpack.Unpacker(file, read_size=1 << 20, max_buffer_size=0)
    yield from zip(next(unpacker)["windows"], unpacker, strict=True)
