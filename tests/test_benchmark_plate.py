"""The script of `benchmarks/plate.py` runs, at sizes that say nothing of its claim."""

import sys

import cv2
import helpers
import numpy as np
import pytest
import training_runs

from benchmarks import plate
from configs import plate as plate_config
from gid_jax.configuration import PlateSettings
from gid_jax.models.build import make_plate_network
from gid_jax.parsing import parse
from gid_jax.types import Window
from gid_jax.weights.pretrained import config_to_settings, export_weights

pytestmark = pytest.mark.usefixtures("quick_compilation")


def make_window(seed):
  """A disc of much motion on a still ground, and a frame that has uncovered some of it."""
  y, x = np.mgrid[:48, :64]
  disc = np.hypot(y - 24, x - 30) < 9
  return Window(
    image=np.uint8(255 * np.random.default_rng(seed).uniform(size=(48, 64, 3))),
    spectrum=np.zeros((16, 24, 32, 4), np.float16),
    frames=np.full((1, 48, 64, 3), 100, np.uint8),
    flows=np.float16(disc[..., None] * [6.0, 0.0])[None],
    depth=np.float16(4 * disc),
    scene=f"scene{seed}",
    source="real",
  )


def test_the_script(tmp_path, monkeypatch, capsys):
  photos = tmp_path / "photos"
  photos.mkdir()
  for i in range(20):
    cv2.imwrite(str(photos / f"{i:02}.png"), np.uint8(255 * helpers.smooth_image(40, 64) * (i + 1) / 20))
  config = plate_config.get_config("tiny")
  config.model.plate.channels = (4,)
  network = make_plate_network(parse(PlateSettings, config.model))
  image = np.zeros((1, 8, 8, 3), np.float32)
  params = helpers.random_params(network.init, image, image[..., :1])
  export_weights(tmp_path / "plate.safetensors", params, settings=config_to_settings(config.to_dict()))
  windows = {split: [make_window(seed) for seed in range(2)] for split in ("train", "validation")}
  helpers.write_dataset(tmp_path, "real", windows, statistics={"scale": training_runs.SCALE.tolist()})
  arguments = ["--backgrounds", photos, "--data", tmp_path, "--scenes", 1, "--sheet", tmp_path / "sheet.png"]
  monkeypatch.setattr(sys, "argv", ["plate", *map(str, arguments), "--weights", str(tmp_path / "plate.safetensors")])
  capsys.readouterr()
  plate.main()
  tables = capsys.readouterr().out.strip().split("\n\n")
  assert [table.split(":")[0] for table in tables] == ["photos", "simulated", "real"]
  for table in tables:
    names = [line.split()[0] for line in table.splitlines()[1:]]
    assert names == ["Telea", "averages", "smooth", "patches", "network"] and "+0.00 dB" in table
  # Photo, holes, and four of the ways.
  assert cv2.imread(str(tmp_path / "sheet.png")).shape == (2 * plate.CROP, 6 * plate.CROP, 3)
