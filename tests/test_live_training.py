"""The tiny auto-encoder trains on live scenes alone: no data folder, and nothing on disk but its own work folder."""

import functools
import json
import math
import os

import numpy as np
import pytest

from configs import vae
from data_pipeline.synthetic.scene import sample_scene
from data_pipeline.synthetic.source import SceneSource
from gid_jax import train as training
from gid_jax.configuration import TrainSettings
from gid_jax.data import input_pipeline
from gid_jax.data.input_pipeline import measure_scale
from gid_jax.parsing import parse
from gid_jax.weights.checkpoint import restore_params

pytestmark = pytest.mark.usefixtures("quick_compilation")
NUM_BANDS = 4


def make_config():
  config = vae.get_config("tiny")
  config.data.directory = ""
  config.data.sources.live = 1.0
  config.data.live.num_frames = config.model.num_frames = 20
  config.data.num_bands = config.model.num_bands = NUM_BANDS
  config.model.codec.multipliers, config.model.codec.num_blocks = (1,), 0
  config.eval_pictures = False
  return config


def read_losses(workdir, name):
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return {line["step"]: line[name] for line in lines if name in line}


def test_training_on_live_scenes_alone(tmp_path, monkeypatch):
  here = tmp_path / "here"
  here.mkdir()
  monkeypatch.chdir(here)
  measure_few = functools.partial(measure_scale, num_scenes=8)  # quicker
  scenes = {}  # Many are asked for twice.

  def make_once(seed, **settings):
    if seed not in scenes:
      scenes[seed] = sample_scene(seed, **settings)
    return scenes[seed]

  monkeypatch.setattr("data_pipeline.synthetic.source.sample_scene", make_once)
  monkeypatch.setattr(input_pipeline, "measure_scale", measure_few)
  config = make_config()
  state = training.train(config, tmp_path / "run")
  assert os.listdir(here) == [] and int(state.step) == 4
  losses, validation = (read_losses(tmp_path / "run", name) for name in ("loss", "validation_loss"))
  assert list(losses) == [1, 2, 3, 4] and list(validation) == [2, 4]
  assert all(math.isfinite(value) and value > 0 for value in (*losses.values(), *validation.values()))

  params, _ = restore_params(tmp_path / "run")
  source = SceneSource(parse(TrainSettings, config).data.live, "train", motion_stride=2)
  np.testing.assert_allclose(params["band_scale"], measure_few(source, num_bands=NUM_BANDS), rtol=1e-6)
  assert np.all(params["band_scale"] > 0)
