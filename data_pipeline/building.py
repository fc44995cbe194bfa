"""Building a data set: what is missing is made on Beam, then written source by source (`data_pipeline.builder`)."""

import argparse
import contextlib
import json
import shlex
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.dataset import write_source
from data_pipeline.splits import check_splits, check_windows
from data_pipeline.statistics import write_statistics
from data_pipeline.tasks import SHARED_SETTINGS, Task, cache_path, find_record, plan_tasks, run_task, run_task_apart
from data_pipeline.trajectories import FILTER_RULES
from gid_jax.data.storage import DATASET_NAME, DATASET_VERSION
from gid_jax.errors import UserError
from gid_jax.files import complete_or_nothing, describe_failure, lock_folder
from gid_jax.media.clip_folder import ClipFile, read_clip_folder

Records = dict[str, dict[str, Any]]


def _write_lines(path: Path, items: Sequence[Mapping[str, Any]]) -> None:
  with complete_or_nothing(path, overwrite=True) as temporary:
    temporary.write_text("".join(json.dumps(item) + "\n" for item in items))


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
      command = f"exec {shlex.quote(sys.executable)} -m data_pipeline.worker 2> {log}"
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


def find_files(options: argparse.Namespace) -> dict[str, list[ClipFile]]:
  """Lists the clips of each filmed source; what is skipped goes to the standard error.

  Raises:
    UserError: see `read_clip_folder`.
  """
  found = {}
  for source, folder in (("real", options.clips), ("loop", options.loops)):
    if folder:
      found[source], skipped = read_clip_folder(folder)
      if skipped:
        print(f"{folder}: skipped {', '.join(skipped)}", file=sys.stderr)
  return found


def build(options: argparse.Namespace) -> dict[str, Any]:
  """Builds the data set that the options of `data_pipeline.builder` describe.

  Returns:
    Counts: "windows" by source and split, "removed" by filter rule and reason, "rejected" in total.

  Raises:
    UserError: nothing to build, no window to train on or to validate on came out of it, the options do not fit what is
      there, or another build is at work there.
  """
  tasks = plan_tasks(options, find_files(options))
  output = Path(options.output)
  with lock_folder(output, work="build", option="--output") as locked:
    try:
      (output / "cache").mkdir(exist_ok=True)
    except OSError as error:
      raise UserError(f"--output {output}: no folder can be made there ({describe_failure(error)}).") from error
    for leftover in (*output.glob(".gid-*"), *output.glob("cache/.gid-*")) if locked else ():
      leftover.unlink(missing_ok=True)
    return _build_tasks(tasks, output, options)


def _build_tasks(tasks: Sequence[Task], output: Path, options: argparse.Namespace) -> dict[str, Any]:
  cache = output / "cache"
  before = _read_records(output)
  sources: dict[str, list[Task]] = {}
  for task in tasks:
    sources.setdefault(task.source, []).append(task)
  kept = [record for record in before.values() if record["source"] not in sources]
  _check_shared_settings(tasks, kept, output)
  check_splits(
    [(task.scene, task.split) for task in tasks],
    kept={record["split"] for record in kept if record["windows"]},
    held_out=options.held_out_scenes,
  )
  filmed = [task.split for task in tasks if task.path] + [r["split"] for r in kept if r["path"] and r["windows"]]
  if filmed and "validation" not in filmed and options.held_out_scenes is None:
    print("The clips show one scene: only simulated ones are left to validate on.", file=sys.stderr)
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
  check_windows(list(records.values()), rejected, listed=output / "rejected.jsonl", held_out=options.held_out_scenes)
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
