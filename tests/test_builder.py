"""Building a data set: split by scene, resumption, rejections, counts, and the same bytes from any build."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import stored_windows
from building_films import NUM_BANDS, SMALL, arguments, build, forbid_work, make_videos, plan, read_all, refuse

from data_pipeline import builder, building, tasks
from gid_jax.data.scenes import list_scenes

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
  return make_videos(tmp_path_factory.mktemp("videos"))


@pytest.fixture(scope="module")
def built(videos, tmp_path_factory):
  output = tmp_path_factory.mktemp("built")
  return output, build(videos, output)


def contents(output):
  """Every byte of the data set and of what is said about it, without cache and times taken."""
  files = [p for p in output.rglob("*") if p.is_file() and p.relative_to(output).parts[0] != "cache"]
  return {str(p.relative_to(output)): p.read_bytes() for p in files if p.name != "records.jsonl"}


def test_no_scene_is_in_both_splits(built):
  output, counts = built
  windows = read_all(output)
  scenes = {key: {window.scene for window in found} for key, found in windows.items()}
  assert scenes == {
    ("real", "train"): {"fern"},
    ("real", "validation"): {"oak"},
    ("loop", "train"): {"rose"},
    ("loop", "validation"): set(),
  }
  assert counts["windows"] == {f"{s}/{split}": len(found) for (s, split), found in windows.items() if found}
  # Two starts, each in full view and closer up, of two clips a split.
  assert counts["windows"] == {"real/train": 8, "real/validation": 8, "loop/train": 4}
  for (source, _), found in windows.items():
    for window in found:
      assert window.source == source
      assert window.spectrum.shape == (NUM_BANDS, 16, 24, 4)
      assert window.frames.shape == (2, 32, 48, 3) and window.flows.shape == (2, 32, 48, 2)


def test_a_training_knows_the_scenes_of_its_data(built):
  output, _ = built
  stored = {source: {window.scene for window in read_all(output)[source, "train"]} for source in ("real", "loop")}
  assert list_scenes(stored_windows.make_config(output)) == {source: sorted(names) for source, names in stored.items()}
  assert stored["real"] and stored["loop"]


def test_rejections_are_listed_with_their_reasons(built):
  output, counts = built
  lines = [json.loads(line) for line in (output / "rejected.jsonl").read_text().splitlines()]
  reasons = {line["name"]: line["reason"] for line in lines}
  assert len(lines) == counts["rejected"]
  assert "broken.mp4" in reasons["real-broken"]
  assert "No shot" in reasons["real-pond_0"]
  assert reasons["real-storm_0-00"] == "camera"


def test_filter_counts_match_the_verdicts(built):
  output, counts = built
  records = [json.loads(line) for line in (output / "records.jsonl").read_text().splitlines()]
  verdicts = [verdict for record in records for verdict in record["verdicts"]]
  for rule, removed in counts["removed"].items():
    assert sum(removed.values()) == sum(1 for verdict in verdicts if verdict[rule])
  (storm,) = (record for record in records if record["name"] == "real-storm_0")
  lost = len(storm["verdicts"])
  assert lost and counts["removed"]["main"] == {"camera": lost}
  assert sum(counts["windows"].values()) == len(verdicts) - lost
  # Small swings in half of the picture: under 1 px on average over all of it.
  assert counts["removed"]["supplement"]["still"] > 0


def test_killed_build_ends_with_the_same_bytes_with_one_worker_or_two(videos, tmp_path_factory, tmp_path):
  # Not compared with a build in this process, where JAX may run under other flags and round otherwise.
  complete = tmp_path_factory.mktemp("complete")
  three = ("--exclude", "named,sim_fern_view2_0,storm,pond,broken")
  command = [sys.executable, "-m", "data_pipeline.builder", *arguments(videos, complete, *three)]
  subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, check=True)
  command = [sys.executable, "-m", "data_pipeline.builder", *arguments(videos, tmp_path, *three)]
  two = subprocess.Popen([*command, "--num_workers", "2"], cwd=CHECKOUT, stdout=subprocess.DEVNULL)
  try:
    while two.poll() is None and not list(tmp_path.glob("cache/*.windows")):
      time.sleep(0.05)
  finally:
    os.kill(two.pid, signal.SIGKILL)
    two.wait()
  finished = {p.name for p in tmp_path.glob("cache/*.windows")}
  assert finished and not (tmp_path / "statistics.json").exists()
  (tmp_path / "building" / "half").mkdir(parents=True)  # As if it had been killed while the records were written.
  one = subprocess.run([*command, "--num_workers", "1"], cwd=CHECKOUT, capture_output=True, text=True)
  assert one.returncode == 0, one.stderr
  assert re.fullmatch("Windows of one scene only, oak, .*\n", one.stderr)
  # What its workers finished within a second after its death counts too.
  found = re.search(r"(\d+) of them finished before", one.stdout)
  assert found and int(found[1]) >= len(finished)
  assert contents(tmp_path) == contents(complete)


def test_a_worker_ends_with_its_build():
  """Also while it is at work: its output ends, which waits for every process that may write to it."""
  waits = "import time; from data_pipeline import worker as w; w.end_with_parent(); print(flush=True); time.sleep(999)"
  starts = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {waits!r}])"
  with subprocess.Popen([sys.executable, "-c", starts], cwd=CHECKOUT, stdout=subprocess.PIPE) as build:
    assert build.stdout.readline() == b"\n"
    build.kill()
    assert build.stdout.read() == b""


def test_failure_while_writing_loses_no_work(built, videos, tmp_path, monkeypatch):
  complete, _ = built
  with monkeypatch.context() as patch:
    patch.setattr("data_pipeline.dataset.OrderedWriter.write", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      build(videos, tmp_path)
  assert not (tmp_path / "gid_windows").exists()
  forbid_work(monkeypatch)
  build(videos, tmp_path)
  assert contents(tmp_path) == contents(complete)


def test_same_build_again_changes_nothing(built, videos, monkeypatch):
  output, counts = built
  times = {p: p.stat().st_mtime_ns for p in output.glob("gid_windows/**/*")}
  before = contents(output)
  forbid_work(monkeypatch)
  assert build(videos, output) == counts
  assert contents(output) == before
  assert {p: p.stat().st_mtime_ns for p in output.glob("gid_windows/**/*")} == times


def test_beam_writes_the_same_bytes(built, videos, tmp_path, monkeypatch):
  complete, _ = built
  (tmp_path / "cache").symlink_to(complete / "cache")
  monkeypatch.setattr(building, "run_task_apart", None)
  build(videos, tmp_path, "--", "--runner=FnApiRunner")
  assert contents(tmp_path) == contents(complete)


def test_options_and_files_that_change_are_built_again(videos, tmp_path):
  clips = tmp_path / "clips"
  clips.mkdir()
  for name in ("fern_0", "oak_0"):
    (clips / f"{name}.mp4").write_bytes((videos / "clips" / f"{name}.mp4").read_bytes())
  names = []
  command = ["--output", str(tmp_path / "out"), "--clips", str(clips), "--num_workers", "0", *SMALL]

  def again(*more):
    times = lambda: {p.stem: p.stat().st_mtime_ns for p in tmp_path.glob("out/cache/*.windows")}
    before = times()
    builder.main([*command, *more])
    names[:] = [name for name, time in times().items() if before.get(name) != time]
    return {key: {window.scene for window in found} for key, found in read_all(tmp_path / "out").items()}

  assert again("--held_out_scenes", "oak") == {("real", "train"): {"fern"}, ("real", "validation"): {"oak"}}
  assert sorted(names) == ["real-fern_0", "real-oak_0"]
  # A new split moves the windows without making them again.
  assert again("--held_out_scenes", "fern") == {("real", "train"): {"oak"}, ("real", "validation"): {"fern"}}
  assert names == []
  again("--held_out_scenes", "fern", "--num_bands", "3")
  assert sorted(names) == ["real-fern_0", "real-oak_0"]
  assert {len(window.spectrum) for found in read_all(tmp_path / "out").values() for window in found} == {3}
  # Copies of the same files elsewhere and at another time are the same clips; another content is not.
  clips = clips.rename(tmp_path / "moved")
  command[command.index("--clips") + 1] = str(clips)
  os.utime(clips / "oak_0.mp4", (1, 1))
  again("--held_out_scenes", "fern", "--num_bands", "3")
  assert names == []
  (clips / "oak_0.mp4").write_bytes((clips / "fern_0.mp4").read_bytes())
  again("--held_out_scenes", "fern", "--num_bands", "3")
  assert names == ["real-oak_0"]
  assert again("--held_out_scenes=", "--num_bands", "3", "--exclude", "fern") == {
    ("real", "train"): {"oak"},
    ("real", "validation"): set(),
  }


def test_sources_not_named_stay_and_must_fit(videos, tmp_path, capsys):
  loops = ["--output", str(tmp_path), "--loops", str(videos / "loops"), "--num_workers", "0", *SMALL]
  builder.main([*loops, "--held_out_scenes="])
  first = (tmp_path / "gid_windows/loop/1.0.0/dataset_info.json").stat().st_mtime_ns
  scenes = ["--output", str(tmp_path), "--synthetic", "10", "--num_workers", "0", *SMALL]
  counts = building.build(builder.parse_options(scenes))
  assert counts["windows"] == {"loop/train": 4, "synthetic/train": 9, "synthetic/validation": 1}
  assert (tmp_path / "gid_windows/loop/1.0.0/dataset_info.json").stat().st_mtime_ns == first
  (window,) = read_all(tmp_path)["synthetic", "validation"]
  assert (window.source, window.scene) == ("synthetic", "synthetic-9")
  assert "'loop' made with --num_bands 4, not 2" in refuse(capsys, [*scenes, "--num_bands", "2"])


def test_unexpected_failure_is_listed_and_tried_again(videos, tmp_path, monkeypatch, capsys):
  loops = ["--loops", str(videos / "loops"), "--held_out_scenes="]
  command = ["--output", str(tmp_path), *loops, "--num_workers", "0", *SMALL]
  with monkeypatch.context() as patch:
    patch.setattr(tasks, "sequence_to_window", lambda *_, **__: 1 / 0)
    assert re.search(
      r"No training window came out: see .*rejected\.jsonl, and give more clips; 1 of 1 rejected: ZeroDiv",
      refuse(capsys, command))
  assert "ZeroDivisionError: division by zero" in (tmp_path / "rejected.jsonl").read_text()
  builder.main(command)
  assert (tmp_path / "rejected.jsonl").read_text() == ""
  assert len(read_all(tmp_path)["loop", "train"]) == 4


def test_dead_process_costs_its_clip_only(videos, tmp_path, monkeypatch):
  task, *_ = plan(*arguments(videos, tmp_path)).values()
  monkeypatch.setattr(tasks, "end_with_parent", os.abort)
  try:
    record = tasks.run_task_apart(task, tmp_path)
  finally:
    tasks._start_process.cache_clear()
  assert record["windows"] == [] and "process that read it died" in record["rejected"][0]["reason"]
  assert tasks.find_record(task, tmp_path) == record and record["failed"]


def test_exclude_and_minor_limit_the_windows(videos, tmp_path):
  more = ["--exclude", "oak,sim_fern_view2_0", "--minor", "rose", "--motion_stride", "1"]
  by_name = plan(*arguments(videos, tmp_path, *more))
  assert not {"real-named", "real-oak_0", "real-sim_fern_view2_0"} & by_name.keys()
  assert by_name["loop-rose"].settings["max_windows"] == 2
  assert by_name["real-fern_0"].settings["max_windows"] == 8
  assert {task.settings["motion_stride"] for task in by_name.values()} == {1}


def test_no_tensorflow_is_needed(videos, tmp_path):
  command = ["--output", str(tmp_path), "--synthetic", "2", "--num_workers", "0", *SMALL]
  code = (
    "import sys; from data_pipeline import builder; from gid_jax.data.storage import open_split, example_to_window\n"
    f"builder.main({command!r})\n"
    f"example_to_window(open_split({str(tmp_path)!r}, 'synthetic', 'train')[0])\n"
    "sys.exit('tensorflow' in sys.modules)"
  )
  assert subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT).returncode == 0


PLUGIN = """
import numpy as np

class Still:
  name, version = "still", "{version}"

  def __call__(self, reference, targets, *, progress=None):
    flow = np.zeros((*targets.shape[:3], 2), np.float32)
    flow[:, : targets.shape[1] // 2] = {shift}
    return flow, np.ones(targets.shape[:3], np.float32)

estimator = Still()
"""


def test_flow_of_ones_own_builds_a_data_set(videos, tmp_path, monkeypatch, capsys):
  name = f"own_flow_{tmp_path.name}"
  (tmp_path / f"{name}.py").write_text(PLUGIN.format(version=1, shift=0.75))
  monkeypatch.syspath_prepend(tmp_path)
  loops = ["--loops", videos / "loops", "--held_out_scenes=", "--flow", f"{name}:estimator"]
  command = [str(part) for part in ("--output", tmp_path / "out", *loops, "--num_workers", "1", *SMALL)]
  before = plan(*command)["loop-rose"]
  assert before.fingerprint != plan(*command[: -len(SMALL)], *SMALL, "--flow", "default")["loop-rose"].fingerprint
  # Spawned workers are told sys.path by this process only through the environment.
  monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', CHECKOUT)}")
  builder.main(command)
  windows = read_all(tmp_path / "out")["loop", "train"]
  assert len(windows) == 4
  for window in windows:
    for flow in window.flows:
      found = flow.astype(np.float32)
      np.testing.assert_allclose(found[:16], 0.75, atol=0.05)  # damped where texture is weak
      np.testing.assert_allclose(found[16:], 0, atol=0.05)
  # Another version is another measurement.
  monkeypatch.setattr(sys.modules[name].Still, "version", "2")
  assert plan(*command)["loop-rose"].fingerprint != before.fingerprint
  assert "unknown flow 'lucas'; use one of default, reference, or" in refuse(capsys, [*command, "--flow", "lucas"])
