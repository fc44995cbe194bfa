"""What the builder of data sets says to bad options, too few scenes, another build and missing packages."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from building_films import SMALL, arguments, forbid_work, make_videos, read_all, refuse

import data_pipeline
from data_pipeline import builder, building, tasks
from gid_jax.files import lock_folder

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
  return make_videos(tmp_path_factory.mktemp("videos"))


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
