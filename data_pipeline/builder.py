"""Builds a training data set from clips, seamless loops, simulated scenes and moved photos, on Apache Beam.

  python -m data_pipeline.builder --output windows --clips clips --loops loops --synthetic 700 --num_workers 8

writes `gid_windows/SOURCE/1.0.0/` for each source given (`real`, `loop`, `synthetic`, `pseudo`): a TensorFlow Datasets
folder of array_record files, read without TensorFlow, split by scene so that no scene is in both `train` and
`validation`. `--pseudo N --moved_photos FOLDER` moves photos by assumed physics, for training only. Beside it
lie `statistics.json` with the scale of every band, `rejected.jsonl` with every clip and window that was left out and
why, `records.jsonl` with what became of every clip, and `cache/` with the windows of every finished clip.

A worker uses one core, so give as many as there are. A build that was killed goes on after the last finished clip and
ends with the same data set; so does one with another number of workers. Clips made with other options or changed since
are made again, and sources not named keep what they have. `cache/` may be deleted to halve the space: the data set
stays, and a later build with other clips or options begins from nothing.

Any Beam runner makes the windows when its flags follow `--`. The folders must be at the same path on all its machines,
for example on a network file system, and the package must be installed there. On a Flink cluster:

  python -m data_pipeline.builder --output /shared/windows --clips /shared/clips -- \
    --runner=FlinkRunner --flink_master=flink:8081 --parallelism=64 \
    --environment_type=DOCKER --environment_config=registry/gid-jax-worker
"""

import argparse
import contextlib
import json
import logging
import os
import shlex
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.dataset import write_source
from data_pipeline.statistics import write_statistics
from data_pipeline.tasks import SHARED_SETTINGS, Task, cache_path, find_record, plan_tasks, run_task, run_task_apart
from data_pipeline.trajectories import FILTER_RULES
from gid_jax.data.storage import DATASET_NAME, DATASET_VERSION
from gid_jax.errors import UserError

Records = dict[str, dict[str, Any]]

def _write_text(path: Path, text: str) -> None:
  temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
  temporary.write_text(text)
  os.replace(temporary, path)


def _write_lines(path: Path, items: Sequence[Mapping[str, Any]]) -> None:
  _write_text(path, "".join(json.dumps(item) + "\n" for item in items))


def _read_records(output: Path) -> Records:
  try:
    records = [json.loads(line) for line in (output / "records.jsonl").read_text().splitlines()]
  except FileNotFoundError:
    return {}
  except ValueError:
    raise UserError(f"{output / 'records.jsonl'} is damaged: delete it and build again.") from None
  return {record["name"]: record for record in records}


def _check_shared_settings(tasks: Sequence[Task], kept: Sequence[Mapping[str, Any]], output: Path) -> None:
  for record in kept:
    for key in SHARED_SETTINGS:
      before, now = record["settings"][key], tasks[0].settings[key]
      if before != now:
        raise UserError(
          f"{output} holds windows of source {record['source']!r} made with --{key} {before}, not {now}: "
          f"build that source again in the same command, or give another --output."
        )


@contextlib.contextmanager
def _report_progress(todo: Sequence[Task], cache: Path) -> Iterator[None]:
  """Prints a line for each task whose file appears, whichever machine wrote it."""
  pending, stop = {task.name: task for task in todo}, threading.Event()

  def look() -> None:
    for task in [task for task in pending.values() if cache_path(task, cache).exists()]:
      record = find_record(task, cache)
      assert record is not None  # A file of another task was deleted before.
      del pending[task.name]
      line = f"[{len(todo) - len(pending)}/{len(todo)}] {task.name}: {len(record['windows'])} windows"
      lost = record["rejected"]
      reason = f", {len(lost)} rejected ({lost[0]['reason']})" if lost else ""
      print(f"{line} in {record['seconds']} s{reason}", flush=True)

  def watch() -> None:
    while not stop.wait(1.0):
      look()

  thread = threading.Thread(target=watch, daemon=True)
  thread.start()
  try:
    yield
  finally:
    stop.set()
    thread.join()
    look()


def _run_tasks(todo: Sequence[Task], cache: Path, options: argparse.Namespace) -> None:
  """Makes the windows of every task that is not finished: Create -> Reshuffle -> run_task."""
  # Imported where it is used: Beam takes seconds and warns about cloud clients that are not installed.
  import apache_beam as beam
  from apache_beam.options.pipeline_options import PipelineOptions
  from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
  from apache_beam.transforms.environments import SubprocessSDKEnvironment

  if options.beam_options:
    runner, pipeline_options = None, PipelineOptions(options.beam_options)
  else:
    environment = None
    if options.num_workers > 0:
      # New processes, because JAX's threads do not survive a fork; what they say goes to a file.
      log = shlex.quote(str(cache / "workers.log"))
      command = f"{shlex.quote(sys.executable)} -m apache_beam.runners.worker.sdk_worker_main 2> {log}"
      environment = SubprocessSDKEnvironment.from_command_string(command)
    runner = FnApiRunner(default_environment=environment)
    flags = {"direct_num_workers": max(options.num_workers, 1), "direct_running_mode": None}
    pipeline_options = PipelineOptions([], **flags)
  work = run_task if not options.beam_options and options.num_workers < 1 else run_task_apart
  with _report_progress(todo, cache), beam.Pipeline(runner, options=pipeline_options) as pipeline:
    _ = pipeline | beam.Create(todo) | beam.Reshuffle() | beam.Map(work, str(cache))


def _count(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  removed = {rule: Counter(v[rule] for r in records for v in r["verdicts"] if v[rule]) for rule in FILTER_RULES}
  return {
    "windows": dict(Counter(f"{r['source']}/{r['split']}" for r in records for _ in r["windows"])),
    "removed": {rule: dict(counts) for rule, counts in removed.items()},
    "rejected": sum(len(record["rejected"]) for record in records),
  }


def _is_complete(output: Path, tasks: Sequence[Task], before: Records) -> bool:
  """Whether a source's data set is there and is what its tasks would give."""
  source = tasks[0].source
  listed = {name for name, record in before.items() if record["source"] == source}
  same = listed == {task.name for task in tasks} and all(
    before[task.name]["fingerprint"] == task.fingerprint and before[task.name]["split"] == task.split for task in tasks
  ) and not any(before[name]["failed"] for name in listed)
  empty = not any(before[name]["windows"] for name in listed)
  info = output / DATASET_NAME / source / DATASET_VERSION / "dataset_info.json"
  return same and (empty or info.exists())


def build(options: argparse.Namespace) -> dict[str, Any]:
  """Builds the data set that the options describe; see the module's docstring.

  Returns:
    Counts: "windows" by source and split, "removed" by filter rule and reason, "rejected" in total.

  Raises:
    UserError: nothing to build, no training window came out of it, or the options do not fit what is there.
  """
  tasks = plan_tasks(options)
  output = Path(options.output)
  cache = output / "cache"
  before = _read_records(output)
  sources: dict[str, list[Task]] = {}
  for task in tasks:
    sources.setdefault(task.source, []).append(task)
  kept = [record for record in before.values() if record["source"] not in sources]
  _check_shared_settings(tasks, kept, output)
  cache.mkdir(parents=True, exist_ok=True)
  for leftover in (*output.glob("*.tmp"), *cache.glob("*.tmp")):
    leftover.unlink()
  changed = {source: todo for source, todo in sources.items() if not _is_complete(output, todo, before)}
  # In scattered order: a build stopped half-way then holds some of every scene.
  order = sorted((t for todo in changed.values() for t in todo), key=lambda task: zlib.crc32(task.name.encode()))
  todo = [task for task in order if (find_record(task, cache) or {"failed": True})["failed"]]
  for task in todo:
    cache_path(task, cache).unlink(missing_ok=True)
  print(f"{len(tasks)} clips and scenes, {len(tasks) - len(todo)} of them finished before", flush=True)
  if todo:
    _run_tasks(todo, cache, options)
  records = {record["name"]: record for record in kept}
  for task in tasks:
    record = before[task.name] if task.source not in changed else find_record(task, cache)
    if record is None:
      raise UserError(f"{task.path or task.name} was changed or taken away while it was read: build again.")
    records[task.name] = record
  if changed:
    # Until all is done, nothing says that these sources are complete.
    _write_lines(output / "records.jsonl", [r for r in before.values() if r["source"] not in changed])
    for source, its_tasks in changed.items():
      filled = [(task.split, str(cache_path(task, cache))) for task in its_tasks if records[task.name]["windows"]]
      write_source(output, source, filled, beam_options=options.beam_options)
  rejected = [{**lost, "scene": record["scene"]} for record in records.values() for lost in record["rejected"]]
  _write_lines(output / "rejected.jsonl", rejected)
  counts = _count(list(records.values()))
  _print_counts(counts, options.rule, output)
  if not any(key.endswith("/train") for key in counts["windows"]):
    raise UserError(f"No training window came out: see {output / 'rejected.jsonl'}, and give more clips.")
  _update_statistics(output, bool(changed), options)
  if changed:
    _write_lines(output / "records.jsonl", list(records.values()))
  return counts


def _print_counts(counts: Mapping[str, Any], used: str, output: Path) -> None:
  print(f"windows: {counts['windows'] or 'none'}")
  for rule, removed in counts["removed"].items():
    verb = "removed" if rule == used else "would remove"
    print(f"rule {rule} ({FILTER_RULES[rule]}) {verb}: {removed or 'nothing'}")
  print(f"rejected: {counts['rejected']}, listed in {output / 'rejected.jsonl'}", flush=True)


def _update_statistics(output: Path, changed: bool, options: argparse.Namespace) -> None:
  try:
    statistics = json.loads((output / "statistics.json").read_text())
  except (FileNotFoundError, ValueError):
    statistics = {}
  if changed or statistics.get("percentile") != options.percentile:
    length = {"num_frames": options.num_frames, "fps": options.fps}
    statistics = write_statistics(output, **length, percentile=options.percentile)
  print(f"scale at the {options.percentile:g}th percentile: {[round(s, 3) for s in statistics['scale']]}")


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
  """Parses the command line of the builder."""

  def names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]

  parser = argparse.ArgumentParser(prog="python -m data_pipeline.builder", description="Build a training data set.")
  parser.add_argument("--output", required=True, help="folder of the data set")
  parser.add_argument("--clips", default="", help="folder of filmed clips, with an optional table <folder>.csv")
  parser.add_argument("--loops", default="", help="folder of seamless loops, likewise")
  parser.add_argument("--synthetic", type=int, default=0, help="number of simulated scenes")
  parser.add_argument("--backgrounds", default="", help="folder of photos behind simulated scenes")
  parser.add_argument("--sprites", default="", help="folder of cut-outs with alpha for simulated scenes")
  parser.add_argument("--pseudo", type=int, default=0, help="number of photos with assumed motion, for training only")
  parser.add_argument("--moved_photos", default="", help="folder of photos with plants to move for --pseudo")
  parser.add_argument("--held_out_scenes", type=names, help="validation scenes a,b,c; a tenth of all by default")
  parser.add_argument("--exclude", type=names, default=[], help="scenes or file stems to leave out")
  parser.add_argument("--minor", type=names, default=[], help="scenes of which to keep at most 2 windows a clip")
  parser.add_argument("--rule", choices=list(FILTER_RULES), default="main", help="filter rule that decides")
  parser.add_argument("--stride", type=int, default=10, help="frames between the starts of a clip's windows")
  parser.add_argument("--max_windows", type=int, default=8, help="windows a clip")
  parser.add_argument("--num_frames", type=int, default=150)
  parser.add_argument("--fps", type=float, default=30.0)
  parser.add_argument("--height", type=int, default=160)
  parser.add_argument("--width", type=int, default=256)
  parser.add_argument("--num_bands", type=int, default=16)
  parser.add_argument("--num_pairs", type=int, default=6)
  parser.add_argument("--motion_stride", type=int, choices=(1, 2), default=2, help="pixels from one motion to the next")
  parser.add_argument("--percentile", type=float, default=95.0, help="of the normalisation scale")
  parser.add_argument("--num_workers", type=int, default=2, help="processes, one core each; 0: in this one")
  parser.add_argument("beam_options", nargs="*", help="after --: flags of Apache Beam, for any other runner")
  options = parser.parse_args(arguments)
  if options.beam_options and not options.beam_options[0].startswith("--"):
    parser.error(f"unrecognised argument {options.beam_options[0]!r}; flags for Apache Beam go after --")
  return options


def main(arguments: Sequence[str] | None = None) -> None:
  """Entry point of `python -m data_pipeline.builder`."""
  try:
    build(parse_options(arguments))
  except UserError as error:
    raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
  # One core a worker, so that workers do not fight and give the same numbers however many there are.
  os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  for noisy in ("apache_beam", "absl", "root"):
    logging.getLogger(noisy).setLevel(logging.ERROR)
  main()
