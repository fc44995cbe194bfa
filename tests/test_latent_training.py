"""Stage 1 trains on cached latents: the same loss as by encoding, and exact resume without encoding again."""

import json
import math

import jax
import numpy as np
import pytest
import training_runs

from gid_jax import train as training
from gid_jax.configuration import TrainSettings
from gid_jax.models.build import make_motion_model
from gid_jax.parsing import parse
from gid_jax.training.objectives import make_objective
from gid_jax.weights.checkpoint import CheckpointStore

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  training_runs.write_windows(folder)
  config = training_runs.make_quick_config(folder, quick=("denoiser", "encoder"), num_steps=4, batch_size=4)
  config.save_every, config.data.latent_draws = 2, 2
  config.init.vae = str(folder / "start.safetensors")
  training_runs.export_start(folder / "start.safetensors", config, stage="vae")
  return config


class Killed(Exception):
  """The end of a run between two saves."""


def test_an_interrupted_run_on_cached_latents_ends_like_an_uninterrupted_one(config, tmp_path, monkeypatch):
  expected = training.train(config, tmp_path / "whole")
  lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
  losses = [line["loss"] for line in lines if "loss" in line]
  assert len(losses) == 4 and all(math.isfinite(loss) and loss > 0 for loss in losses)
  assert any(math.isfinite(line.get("validation_loss", math.nan)) for line in lines)

  class StoreOfAKilledRun(CheckpointStore):
    def should_save(self, step, **options):
      if step == 3:
        raise Killed
      return super().should_save(step, **options)

  with monkeypatch.context() as patch:
    patch.setattr(training, "CheckpointStore", StoreOfAKilledRun)
    with pytest.raises(Killed):
      training.train(config, tmp_path / "killed")
  times = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed" / "latents").iterdir()}
  state = training.train(config, tmp_path / "killed")
  assert {path: path.stat().st_mtime_ns for path in (tmp_path / "killed" / "latents").iterdir()} == times
  jax.tree.map(np.testing.assert_array_equal, state.params, expected.params)
  jax.tree.map(np.testing.assert_array_equal, state.ema_params, expected.ema_params)


def test_the_loss_of_latents_is_that_of_their_slices(config):
  settings = parse(TrainSettings, config)
  objective, model = make_objective(settings), make_motion_model(settings.model)
  rng = np.random.default_rng(0)
  slices = np.float32(rng.normal(size=(2, 1, 16, 24, 4)))
  bands, image = np.array([[1], [3]], np.int32), np.float32(rng.uniform(size=(2, 32, 48, 3)))
  batch = {"slice": slices, "band": bands, "image": image}
  params = objective.initialize(jax.random.key(0, impl="rbg"), [batch])
  latents = model.apply({"params": params}, slices, bands, method="slices_to_latents")
  key, loss_fn = jax.random.key(1), jax.jit(objective.loss_fn)
  expected, _ = loss_fn(key, params, batch)
  found, _ = loss_fn(key, params, {"latent": latents, "band": bands, "image": image})
  np.testing.assert_allclose(found, expected, rtol=1e-5)
