"""What scripts of benchmarks/ are tried on: tiny films, photos, data and random weights."""

import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import filming
import helpers
import jax
import numpy as np
import pytest
import videos

from configs import ldm_coordinated, renderer
from gid_jax.configuration import ModelSettings
from gid_jax.models.build import make_motion_model
from gid_jax.models.renderer import Renderer, RendererConfig
from gid_jax.parsing import parse
from gid_jax.types import Window
from gid_jax.weights.pretrained import MOTION_WEIGHTS, RENDERER_WEIGHTS, config_to_settings, export_weights

CHECKOUT = Path(__file__).parents[1]
HEIGHT, WIDTH, NUM_BANDS, NUM_FRAMES = 48, 64, 4, 24
MARKS = [
  pytest.mark.usefixtures("quick_compilation"),
  # Some tables have figures that two films cannot give.
  pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:.*divide", "ignore:.*invalid value"),
]


def make_config(module, size):
  """A config of `size` whose networks are as small as they can be."""
  config = module.get_config(size)
  model = config.model
  model.image_size, model.num_bands, model.num_frames = (HEIGHT, WIDTH), NUM_BANDS, NUM_FRAMES
  model.denoiser.update(channels=32, multipliers=(1,), attention_levels=(), num_blocks=0)
  if size == "tiny":
    model.codec.update(channels=8, multipliers=(1, 2), num_blocks=0)
  elif size == "default":
    model.encoder.update(trunks=("my_parts:Edges",), channels=8, hidden=16)
    model.encoder.trunk_fields = {}
  return config


def export_motion(folder, config):
  """Writes random weights of a motion model."""
  model = make_motion_model(parse(ModelSettings, config.model))
  slices = np.zeros((1, NUM_BANDS, HEIGHT // 2, WIDTH // 2, 4), np.float32)
  bands = np.zeros((1, NUM_BANDS), np.int32)
  params = helpers.random_params(model.init, slices, bands, np.zeros((1, HEIGHT, WIDTH, 3), np.float32), bands)
  params["band_scale"] = np.linspace(20, 5, NUM_BANDS, dtype=np.float32)
  export_weights(folder / MOTION_WEIGHTS, params, settings=config_to_settings(config.to_dict() | {"trained_on": {}}))


def make_world(root):
  """Folders of films, loops, photos, weights (with an auto-encoder and with averages) and a data set in `root`."""
  folder = {}
  for name in ("clips", "loops", "photos", "weights", "learned", "data"):
    folder[name] = root / name
    folder[name].mkdir()
  for kind, names in (("clips", ("moss", "daffodils")), ("loops", ("fern", "reed"))):
    for seed, name in enumerate(names):
      frames = filming.film(filming.make_texture(seed=seed), filming.make_swing(extent=6.0 - seed))
      videos.encode(folder[kind] / f"{name}.mp4", list(frames))
  for seed in range(4):
    cv2.imwrite(str(folder["photos"] / f"{seed}.png"), filming.make_texture(seed=seed))

  config = renderer.get_config("tiny")
  config.model.image_size, config.model.renderer.channels = (HEIGHT, WIDTH), (4, 8)
  network, photo = Renderer(RendererConfig(**config.model.renderer)), np.zeros((1, HEIGHT, WIDTH, 3), np.float32)
  noise = np.zeros((1, network.config.style_dim), np.float32)
  params = helpers.random_params(network.init, photo, photo[..., :2], photo[..., 0], noise)
  for name, size in (("weights", "default"), ("learned", "tiny")):
    export_weights(folder[name] / RENDERER_WEIGHTS, params, settings=config_to_settings(config.to_dict()))
    export_motion(folder[name], make_config(ldm_coordinated, size))

  for source in ("real", "loop", "synthetic"):
    windows = {split: [make_window(source, seed) for seed in range(4)] for split in ("train", "validation")}
    scale = np.linspace(20, 5, 16).tolist()
    helpers.write_dataset(folder["data"], source, windows, statistics={"scale": scale, "num_frames": 150, "fps": 30.0})
  return SimpleNamespace(**folder, cache=root / "measured")


def make_window(source, seed):
  """A smooth photo, waves in sixteen bands, and two later frames."""
  rng = np.random.default_rng(seed)
  shape = (16, HEIGHT // 2, WIDTH // 2, 4)
  waves = helpers.smooth_image(*shape[1:3])[..., [0, 1, 2, 0]] * rng.normal(size=(16, 1, 1, 4))
  return Window(
    image=np.uint8(255 * helpers.smooth_image(HEIGHT, WIDTH)),
    spectrum=np.float16(20 * waves),
    frames=np.zeros((2, HEIGHT, WIDTH, 3), np.uint8),
    flows=np.ones((2, HEIGHT, WIDTH, 2), np.float16),
    depth=np.ones((HEIGHT, WIDTH), np.float16),
    scene=f"{source}{seed}",
    source=source,
  )


def make_runner(monkeypatch, capsys):
  """A function that runs a script in this process, from the checkout, and gives what it printed."""
  monkeypatch.chdir(CHECKOUT)
  # What belongs to the whole process would outlive the script.
  monkeypatch.setattr(jax.config, "update", lambda name, value: None)
  monkeypatch.setattr(cv2, "setNumThreads", lambda number: None)

  def run_script(name, *arguments, **constants):
    module = importlib.import_module(f"benchmarks.{name}")
    for constant, value in constants.items():
      monkeypatch.setattr(module, constant, value)
    monkeypatch.setattr(sys, "argv", [module.__file__, *map(str, arguments)])
    module.main()
    return capsys.readouterr().out

  return run_script


def run_alone(*arguments, status=0):
  """Runs a command of the checkout in a process of its own and gives what it printed."""
  result = subprocess.run([sys.executable, *map(str, arguments)], cwd=CHECKOUT, capture_output=True, text=True)
  assert result.returncode == status, result.stderr
  return result.stdout if status == 0 else result.stderr


def find_numbers(line):
  return [float(number) for number in re.findall(r"-?\d+\.\d+(?:e[-+]\d+)?", line)]
