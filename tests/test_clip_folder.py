"""Which files of a folder are clips, and which scene each shows."""

import os

import pytest

from gid_jax.errors import UserError
from gid_jax.media import clip_folder


@pytest.fixture
def folder(tmp_path):
  folder = tmp_path / "films"
  folder.mkdir()
  return folder


def touch(folder, *names):
  for name in names:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()


def list_names(folder):
  paths, skipped = clip_folder.find_clips(folder)
  return [str(path.relative_to(folder)) for path in paths], skipped


def test_videos_are_found_in_the_folder_and_below(folder):
  touch(folder, "b.mp4", "a.MOV", "notes.txt", "day/c.webm", "day/night/d.mkv", "empty/notes.txt")
  assert list_names(folder) == (["a.MOV", "b.mp4", "day/c.webm", "day/night/d.mkv"], [])


def test_what_only_looks_like_a_video_is_skipped_and_named(folder):
  touch(folder, "oak.mov", "._oak.mov", "event.mov/inside.mp4", ".trash/gone.mp4")
  (folder / "dead.mp4").symlink_to(folder / "nowhere.mp4")
  os.mkfifo(folder / "pipe.mp4")
  found, skipped = list_names(folder)
  assert found == ["event.mov/inside.mp4", "oak.mov"]
  assert skipped == ["._oak.mov (hidden)", "dead.mp4 (dead link)", "event.mov (a folder)", "pipe.mp4 (not a file)"]


def test_links_are_followed_and_never_in_a_circle(folder, tmp_path):
  touch(tmp_path / "elsewhere", "fern.mp4")
  touch(folder, "oak.mp4")
  (folder / "linked").symlink_to(tmp_path / "elsewhere")
  (folder / "circle").symlink_to(folder)
  (folder / "moss.mp4").symlink_to(folder / "oak.mp4")
  assert list_names(folder) == (["linked/fern.mp4", "moss.mp4", "oak.mp4"], [])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_skipped(folder):
  touch(folder, "oak.mp4", "secret.mp4", "closed/fern.mp4")
  (folder / "secret.mp4").chmod(0)
  (folder / "closed").chmod(0)
  try:
    assert list_names(folder) == (["oak.mp4"], ["closed (folder may not be read)", "secret.mp4 (may not be read)"])
  finally:
    (folder / "closed").chmod(0o700)


def test_a_folder_without_videos_is_refused_in_one_line(folder):
  for place in (folder / "nowhere", folder):
    with pytest.raises(UserError, match=r"\.mp4") as refusal:
      clip_folder.find_clips(place)
    assert "\n" not in str(refusal.value) and str(place) in str(refusal.value)
  touch(folder, "._oak.mov")
  with pytest.raises(UserError, match=r"skipped \._oak\.mov \(hidden\)"):
    clip_folder.find_clips(folder)


def test_two_files_of_one_name_are_refused(folder):
  touch(folder, "a/oak.mp4", "a/oak.mov")
  with pytest.raises(UserError, match="both called a-oak: rename one"):
    clip_folder.read_clip_folder(folder)


def test_files_of_one_name_in_several_folders_are_several(folder):
  touch(folder, "meadow/001.mp4", "trees/001.mp4", "trees/oak_1.mp4", "meadow/oak_2.mp4", "002.mp4")
  folder.with_name("films.csv").write_text("file,scene\ntrees/001.mp4,birch\n")
  files, _ = clip_folder.read_clip_folder(folder)
  assert {file.name: file.scene for file in files} == {
    "002": "002", "meadow-001": "meadow-001", "meadow-oak_2": "oak", "trees-001": "birch", "trees-oak_1": "oak"}


def test_scenes_come_from_the_table_or_else_from_the_name(folder):
  touch(folder, "oak_1.mp4", "oak_2.mp4", "day/x.mp4", "y.mp4")
  # As a spreadsheet writes it, with one cell left empty.
  text = "\ufefffile,scene,tier\r\nx.mp4,fern,B\r\ny.mp4,,\r\n"
  folder.with_name("films.csv").write_text(text, encoding="utf-8", newline="")
  files, _ = clip_folder.read_clip_folder(folder)
  assert [(file.path.name, file.scene, file.tier) for file in files] == [
    ("x.mp4", "fern", "B"), ("oak_1.mp4", "oak", "A"), ("oak_2.mp4", "oak", "A"), ("y.mp4", "y", "A")]


def test_the_table_of_a_folder_with_a_dot_in_its_name(tmp_path):
  touch(tmp_path, "films.2024/a.mp4", "films.csv")
  (tmp_path / "films.2024.csv").write_text("file,scene\na.mp4,fern\n")
  files, _ = clip_folder.read_clip_folder(f"{tmp_path}/films.2024/")
  assert files[0].scene == "fern"


@pytest.mark.parametrize("content", [b"name\noak\n", b"file,scene\n\xff\xfe,oak\n"])
def test_a_bad_table_is_refused(folder, content):
  touch(folder, "oak.mp4")
  folder.with_name("films.csv").write_bytes(content)
  with pytest.raises(UserError, match=r"films\.csv: (needs the columns|not a readable table)"):
    clip_folder.read_clip_folder(folder)


@pytest.mark.parametrize(
  ("file", "scene"),
  [
    ("sim_orange_rose_view4_0.mp4", "orange_rose"),
    ("orange_rose_2.mp4", "orange_rose"),
    ("sim_hat_1.mp4", "hat"),
    ("oak.mp4", "oak"),
    ("oak_1.mp4", "oak"),
    ("oak-2.mp4", "oak"),
    ("oak (3).mp4", "oak"),
    ("route66.mp4", "route66"),
    ("video_of_oak_1.mp4", "video_of_oak"),
    ("shrub_windy_2.mp4", "shrub_windy"),
  ],
)
def test_scene_of_a_file_name(file, scene):
  assert clip_folder.file_to_scene(file) == scene


@pytest.mark.parametrize(
  "stem",
  [
    "IMG_0001", "IMG_E0001", "IMG_0001 (2)", "DSC_0001", "DSC00012", "_MG_0001", "MVI_0001", "DJI_0001",
    "DJI_20240101120000_0001_D", "PXL_20240101_120000123", "PXL_20240101_120000123.TS", "VID_20240101_120000",
    "VID-20240101-WA0001", "GOPR0001", "GX010001", "P1000123", "C0001", "20240101_120000", "2024-01-01 12-00-00",
    "00012", "video_1", "clip_1", "Clip 2", "shot-3", "Screen Recording 2024-01-01",
    "WhatsApp Video 2024-01-01 at 12.00.00",
  ],
)  # fmt: skip
def test_a_name_that_says_nothing_is_a_scene_of_its_own(stem):
  assert clip_folder.file_to_scene(f"{stem}.mp4") == stem
