"""What README prints, run as it is printed, and the files that it is run on.

The programs that README's shell lines call are put before the real ones in PATH and add what makes them small.
"""

import csv
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import cv2
import helpers
import numpy as np
import pytest
from PIL import Image

from examples import simulate
from gid_jax.media.clips import read_clip

CHECKOUT = Path(__file__).parents[1]
LOOPS = ("fern", "flower_0", "lotus", "yellow")  # three of them are held out; all nine take their time
EXAMPLES = CHECKOUT / "examples"
README = (CHECKOUT / "README.md").read_text()

# What follows a command's own arguments.
SMALL = {
  "data_pipeline.builder": "--height 32 --width 48 --num_frames 16 --num_bands 4 --num_pairs 1 --max_windows 1"
  " --num_workers 0",
  "gid_jax.evaluate": "--config.simulated.number=1 --config.simulated.rendered=1 --config.num_samples=1"
  " --config.features=() --config.loops.scenes=lotus --config.filmed=('model','still') --config.weights=my_weights",
  "animate": "--frames 3 --size 64",
}
# Stands in the place of a file of configs/: the same settings, of parts that compile in a moment, for two steps.
SMALL_CONFIG = """
import importlib.util

import training_runs

def get_config(size=""):
  spec = importlib.util.spec_from_file_location("printed", {path!r})
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config(size)
  config.model.update(image_size=(32, 48), num_bands=4, num_frames=16)
  training_runs.replace_parts(config, {{"denoiser": {{"kind": "my_parts:Perceptron", "channels": 8}}}})
  config.model.encoder.update(trunks=("my_parts:Edges",), channels=4, hidden=8)
  config.model.encoder.trunk_fields = {{}}
  if "encoder" in config.init:
    config.init.encoder = "1"
  config.optimizer.update(num_steps=2, warmup_steps=1)
  config.update(batch_size=1, num_init_batches=1, num_eval_batches=1, eval_every=2, save_every=2, eval_pictures=False)
  return config
"""


def read_block(section):
  """The first shell block of a section of README."""
  text = README.split(f"\n## {section}\n")[1].split("\n## ")[0]
  return re.search(r"```sh\n(.*?)```", text, re.DOTALL).group(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A working folder as README supposes one, with a photo, and the small programs beside it."""
  root = tmp_path_factory.mktemp("readme")
  work, programs = root / "work", root / "bin"
  for path in (work, programs):
    path.mkdir()
  (work / "examples" / "loops").mkdir(parents=True)
  for path in (*(EXAMPLES / "loops" / f"{name}.mp4" for name in LOOPS), EXAMPLES / "photos"):
    (work / path.relative_to(CHECKOUT)).symlink_to(path)
  (work / "examples" / "loops.csv").symlink_to(EXAMPLES / "loops.csv")
  (work / "configs").mkdir()
  for path in (CHECKOUT / "configs").glob("*.py"):
    if path.stem.startswith("ldm"):
      (work / "configs" / path.name).write_text(SMALL_CONFIG.format(path=str(path)))
    else:
      (work / "configs" / path.name).symlink_to(path)
  with Image.open(EXAMPLES / "photos" / "sunflowers.jpg") as photo:
    photo.resize((96, 54)).save(work / "photo.jpg")
  lines = [f"  {name}) small=({' '.join(map(repr_shell, flags.split()))}) ;;" for name, flags in SMALL.items()]
  cases = "\n".join(['case "$1" in', *lines, "  *) small=() ;;", "esac"])
  scripts = dict(
    pip="exit 0",
    gid=f'{cases}\nexec "{sys.executable}" -m gid_jax "$@" "${{small[@]}}"',
    python=f'shift\n{cases}\nexec "{sys.executable}" -m "$@" "${{small[@]}}"',
  )
  for name, script in scripts.items():
    path = programs / name
    path.write_text(f"#!/usr/bin/env bash\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
  return work


def repr_shell(word):
  return "'" + word.replace("'", "'\\''") + "'"


def run(script, folder):
  """Runs lines of shell in a folder; fails with what they said."""
  environment = dict(
    os.environ,
    PATH=f"{folder.parent / 'bin'}:{os.environ['PATH']}",
    PYTHONPATH=f"{CHECKOUT}:{CHECKOUT / 'tests'}",
    JAX_PLATFORMS="cpu",
    XLA_FLAGS=helpers.QUICK_XLA,
  )
  done = subprocess.run(
    ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
  return done.stdout


@pytest.mark.usefixtures("quick_compilation")
def test_training_and_judging_run_as_printed(folder):
  run(read_block("Train it"), folder)
  assert {path.name for path in (folder / "my_weights").iterdir()} >= {"motion.safetensors"}
  assert len(read_clip(folder / "mine.mp4").frames) == 3
  run(read_block("Judge it"), folder)
  assert "lotus" in (folder / "runs" / "evaluation" / "report.html").read_text()


def test_simulated_films_follow_their_truth(tmp_path):
  assert simulate.main(["--output", str(tmp_path), "--number", "1", "--frames", "20"]) == 0
  film, truth = read_clip(tmp_path / "scene_7.mp4"), np.load(tmp_path / "scene_7.npz")
  assert truth["spectrum"].shape == (11, 160, 256, 4)
  y, x = np.mgrid[:160, :256].astype(np.float32)
  rest, moved = [], []
  for time, displacement, visible in zip(truth["times"], truth["displacement"], truth["visible"], strict=True):
    swings = visible & (np.hypot(*np.moveaxis(displacement, -1, 0)) > 1)
    there = (x + displacement[..., 0]).astype(np.float32), (y + displacement[..., 1]).astype(np.float32)
    later = film.frames[time].astype(np.float32)
    followed = cv2.remap(later, *there, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    first = film.frames[0].astype(np.float32)
    rest.append(np.square(later - first)[swings].mean() if swings.any() else 0)
    moved.append(np.square(followed - first)[swings].mean() if swings.any() else 0)
  assert np.mean(rest) > 4 * np.mean(moved) > 0
  assert simulate.main(["--output", str(tmp_path), "--number", "1", "--frames", "20"]) == 2  # nothing is replaced


def test_all_that_ships_is_named_with_its_licence():
  rows = list(csv.DictReader((EXAMPLES / "loops.csv").open()))
  assert {row["file"] for row in rows} == {path.name for path in (EXAMPLES / "loops").iterdir()}
  assert {row["licence"] for row in rows} == {"CC0-1.0"}
  assert sum(path.stat().st_size for path in EXAMPLES.rglob("*") if path.is_file()) < 10e6
  text = (EXAMPLES / "README.md").read_text()
  photos = [path.stem for path in (EXAMPLES / "photos").glob("*.jpg")]
  assert all(stem in text for stem in photos)
  assert f"{len(list((EXAMPLES / 'photos' / 'still').iterdir()))} photos in which nothing sways" in text
