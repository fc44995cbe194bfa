"""Small films, and the builds of data sets from them that several files of tests share."""

import cv2
import numpy as np
import pytest

from data_pipeline import builder, building, splits, tasks
from gid_jax.data.storage import example_to_window, list_sources, open_split
from gid_jax.media.encoding import write_video

NUM_FRAMES, NUM_BANDS = 16, 4
SMALL = [
  *("--num_frames", str(NUM_FRAMES), "--num_bands", str(NUM_BANDS), "--num_pairs", "2"),
  *("--height", "32", "--width", "48", "--stride", "10"),
]


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


def make_videos(folder):
  """Films of leaves that sway, one each that is too lively, damaged and too short, and a loop, into a folder."""
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


def read_all(output):
  """(source, split) -> windows."""
  found = {}
  for source in list_sources(output):
    for split in splits.SPLITS:
      examples = open_split(output, source, split)
      found[source, split] = [example_to_window(examples[i]) for i in range(len(examples))]
  return found


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
