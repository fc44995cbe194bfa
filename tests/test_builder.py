"""Building a data set: split by scene, resumption, rejections, counts, and the same bytes from any build."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import stored_windows

import data_pipeline
from data_pipeline import builder, building, splits, tasks
from gid_jax.data.scenes import list_scenes
from gid_jax.data.storage import example_to_window, list_sources, open_split
from gid_jax.files import lock_folder
from gid_jax.media.encoding import write_video

NUM_FRAMES, NUM_BANDS = 16, 4
SMALL = [
  *("--num_frames", str(NUM_FRAMES), "--num_bands", str(NUM_BANDS), "--num_pairs", "2"),
  *("--height", "32", "--width", "48", "--stride", "10"),
]
CHECKOUT = Path(__file__).parents[1]


def write_swing(path, seed, *, amplitude=1.5, num_frames=26, num_resting=32):
  """Writes a clip in which the lower part of a texture swings and its upper `num_resting` rows rest."""
  rng = np.random.default_rng(seed)
  image = cv2.GaussianBlur(rng.standard_normal((64, 96, 3)).astype(np.float32), (0, 0), 2)
  image = np.clip(image / image.std() * 40 + 128, 0, 255).astype(np.uint8)
  frames = []
  for t in range(num_frames):
    matrix = np.array([[1, 0, amplitude * np.sin(2 * np.pi * t / 8)], [0, 1, 0]], np.float32)
    moved = cv2.warpAffine(image, matrix, (96, 64), borderMode=cv2.BORDER_REFLECT)
    frames.append(np.concatenate([image[:num_resting], moved[num_resting:]]))
  write_video(path, frames, fps=30, quality=95)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
  folder = tmp_path_factory.mktemp("videos")
  (folder / "clips").mkdir()
  (folder / "loops").mkdir()
  for seed, name in enumerate(["fern_0", "sim_fern_view2_0", "oak_0", "named"]):
    write_swing(folder / "clips" / f"{name}.mp4", seed)
  write_swing(folder / "clips" / "storm_0.mp4", 7, amplitude=8, num_resting=0)
  (folder / "clips" / "broken.mp4").write_bytes(b"not a video")
  write_swing(folder / "clips" / "pond_0.mp4", 8, num_frames=5)
  (folder / "clips.csv").write_text("file,scene\nnamed.mp4,oak\n")
  write_swing(folder / "loops" / "rose.mp4", 9, num_frames=16)
  return folder


def arguments(videos, output, *more):
  sources = ["--clips", str(videos / "clips"), "--loops", str(videos / "loops"), "--held_out_scenes", "oak"]
  return ["--output", str(output), *sources, "--num_workers", "0", *SMALL, *more]


def build(videos, output, *more):
  return building.build(builder.parse_options(arguments(videos, output, *more)))


@pytest.fixture(scope="module")
def built(videos, tmp_path_factory):
  output = tmp_path_factory.mktemp("built")
  return output, build(videos, output)


def read_all(output):
  """(source, split) -> windows."""
  found = {}
  for source in list_sources(output):
    for split in splits.SPLITS:
      examples = open_split(output, source, split)
      found[source, split] = [example_to_window(examples[i]) for i in range(len(examples))]
  return found


def contents(output):
  """Every byte of the data set and of what is said about it, without cache and times taken."""
  files = [p for p in output.rglob("*") if p.is_file() and p.relative_to(output).parts[0] != "cache"]
  return {str(p.relative_to(output)): p.read_bytes() for p in files if p.name != "records.jsonl"}


def refuse(capsys, arguments):
  """The one line with which the builder ends, status 2."""
  capsys.readouterr()
  with pytest.raises(SystemExit) as end:
    builder.main([str(argument) for argument in arguments])
  error = capsys.readouterr().err.splitlines()
  assert end.value.code == 2 and error[-1].startswith("error: "), error
  return error[-1]


def plan(*options):
  """The tasks of a command line, by name."""
  parsed = builder.parse_options([str(option) for option in options])
  return {task.name: task for task in tasks.plan_tasks(parsed, building.find_files(parsed))}


def forbid_work(monkeypatch):
  def fail(*_):
    raise AssertionError("was run again")

  monkeypatch.setattr(building, "run_task", fail)


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


def test_bad_options_say_what_to_do(videos, tmp_path, capsys):
  assert "Nothing to build" in refuse(capsys, ["--output", tmp_path])
  assert "No folder" in refuse(capsys, ["--output", tmp_path, "--clips", tmp_path / "none"])
  assert "16 frames have 1 to 9 bands" in refuse(
    capsys, ["--output", tmp_path, "--synthetic", "2", *SMALL, "--num_bands", "10"]
  )
  (tmp_path / "file").touch()
  assert "cannot write there" in refuse(capsys, ["--output", tmp_path / "file", "--synthetic", "2"])
  with pytest.raises(SystemExit):
    builder.main(["--output", str(tmp_path), "clips"])
  assert "unrecognised argument 'clips'; flags for Apache Beam go after --" in capsys.readouterr().err
  (tmp_path / "clips").symlink_to(videos / "clips")
  (tmp_path / "clips.csv").write_text("name\noak\n")
  assert "needs the columns" in refuse(capsys, ["--output", tmp_path / "out", "--clips", tmp_path / "clips"])


def test_few_clips_of_ones_own_hold_out_a_scene(videos, tmp_path, capsys):
  folder = tmp_path / "clips"
  folder.mkdir()
  for number, name in enumerate(("fern_0", "sim_fern_view2_0", "oak_0")):
    (folder / f"IMG_000{number}.mp4").write_bytes((videos / "clips" / f"{name}.mp4").read_bytes())
  (folder / "._IMG_0000.mp4").touch()
  command = ["--output", str(tmp_path / "out"), "--clips", str(folder), "--num_workers", "0", *SMALL]
  counts = building.build(builder.parse_options(command))
  assert counts["windows"] == {"real/train": 8, "real/validation": 4}
  first, second = capsys.readouterr().err.splitlines()
  assert first == f"{folder}: skipped ._IMG_0000.mp4 (hidden)"
  assert re.match(r"Windows of one scene only, IMG_000\d, are there to validate on: give clips of more scenes", second)
  assert len({window.scene for found in read_all(tmp_path / "out").values() for window in found}) == 3


def test_one_scene_alone_is_refused_before_any_work(videos, tmp_path, capsys, monkeypatch):
  (tmp_path / "clips").mkdir()
  for number in range(2):
    (tmp_path / "clips" / f"fern_{number}.mp4").symlink_to(videos / "clips" / "fern_0.mp4")
  command = ["--output", tmp_path / "out", "--clips", tmp_path / "clips", "--num_workers", "0", *SMALL]
  forbid_work(monkeypatch)
  assert "All is one scene, fern, which leaves nothing to validate on" in refuse(capsys, command)
  assert "fir: no such scene" in refuse(capsys, [*command, "--held_out_scenes", "fir"])
  assert "nothing to train on" in refuse(capsys, [*command, "--held_out_scenes", "fern"])


def test_held_out_scenes_without_a_window_are_told(videos, tmp_path, capsys):
  command = arguments(videos, tmp_path, "--held_out_scenes", "pond,storm", "--exclude", "named,oak_0,broken")
  assert "No validation window came out" in refuse(capsys, command)
  builder.main([*command, "--held_out_scenes", "rose"])
  assert len(read_all(tmp_path)["loop", "validation"]) == 4


def test_two_builds_into_one_folder_are_one_too_many(videos, tmp_path, capsys):
  command = ["--output", tmp_path, "--loops", videos / "loops", "--held_out_scenes=", "--num_workers", "0", *SMALL]
  (tmp_path / "cache").mkdir()
  others = tmp_path / "cache" / ".gid-0123.windows"
  others.touch()
  with lock_folder(tmp_path, work="build", option="--output") as locked:
    assert locked
    assert "another build is writing into" in refuse(capsys, command)
    assert others.exists()
  builder.main([str(part) for part in command])
  assert not others.exists()  # Of a build that was killed.
  assert {path.name for path in tmp_path.rglob("*") if ".gid" in path.name} == set()


def test_two_writers_of_one_task_leave_a_whole_file(tmp_path):
  path = tmp_path / "real-oak.windows"

  def interrupted():
    yield {"windows": ["a"]}
    tasks._write_items(path, [{"windows": ["b"]}, {"image": b"2"}])
    yield {"image": b"1"}

  tasks._write_items(path, interrupted())
  assert list(tasks.read_examples(path)) == [("a", {"image": b"1"})]
  assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["apache_beam", "msgpack", "tensorflow_datasets"])
def test_missing_packages_are_named(name, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, name, None)
  # Loaded already, perhaps with it.
  for module in ("building", "dataset", "tasks"):
    monkeypatch.delitem(sys.modules, f"data_pipeline.{module}", raising=False)
    monkeypatch.delattr(data_pipeline, module, raising=False)
  error = refuse(capsys, ["--output", "/nowhere", "--synthetic", "2"])
  assert error == f"error: {name} is missing; install it with: pip install '.[data]'"


def test_the_command_itself_names_a_missing_package():
  code = (
    "import runpy, sys; sys.modules['apache_beam'] = None\n"
    "runpy.run_module('data_pipeline.builder', run_name='__main__')"
  )
  command = [sys.executable, "-c", code, "--output", "/nowhere", "--synthetic", "2"]
  ended = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
  assert ended.returncode == 2
  assert ended.stderr == "error: apache_beam is missing; install it with: pip install '.[data]'\n"


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
