"""`gid export`: the averaged and frozen parameters of a run become one weights file, without the trainer's paths."""

import math
import sys

import jax.numpy as jnp
import numpy as np

from gid_jax.app import cli
from gid_jax.parsing import to_plain
from gid_jax.training.train_state import TrainState
from gid_jax.weights.checkpoint import CheckpointStore, checkpoint_directory
from gid_jax.weights.pretrained import import_weights

TRAINED_ON = {"real": ["fern", "oak"], "loop": []}


class Position:
  """A data iterator that has read nothing."""

  def get_state(self):
    return {"batches": 0}


def save_run(workdir, *, stage="ldm", step=7, average=0.5, validation_loss=math.inf):
  state = TrainState(
    step=jnp.int32(step),
    params={"unet": {"kernel": jnp.zeros((2, 3))}},
    ema_params={"unet": {"kernel": jnp.full((2, 3), average)}},
    opt_state={"moment": jnp.ones((2, 3))},
    frozen={"vae": {"kernel": jnp.full((4,), 2.0)}, "band_scale": jnp.arange(3.0)},
  )
  parts = {"codec": {"kind": "paper"}, "encoder": {"kind": "condition"}, "denoiser": {"kind": "unet"}}
  config = {"stage": stage, "model": {"num_bands": 3, **parts}, "sampling": {"steps": 8}, "seed": 4}
  config |= {"init": {"vae": "/home/me/runs"}, "data": {}, "loss": {}, "trained_on": TRAINED_ON}
  store = CheckpointStore(checkpoint_directory(workdir))
  store.save(step, state=state, iterator=Position(), config=config, validation_loss=validation_loss)
  store.close()


def test_export_joins_averaged_and_frozen_parameters(tmp_path, capsys):
  save_run(tmp_path / "run")
  assert cli.main(["export", "--motion", str(tmp_path / "run"), "--output", str(tmp_path / "weights")]) == 0
  assert "motion.safetensors" in capsys.readouterr().out
  assert [path.name for path in (tmp_path / "weights").iterdir()] == ["motion.safetensors"]
  params, settings = import_weights(tmp_path / "weights" / "motion.safetensors")
  np.testing.assert_array_equal(params["unet"]["kernel"], np.full((2, 3), 0.5, np.float32))
  np.testing.assert_array_equal(params["vae"]["kernel"], np.full(4, 2, np.float32))
  np.testing.assert_array_equal(params["band_scale"], np.arange(3, dtype=np.float32))
  assert set(params) == {"unet", "vae", "band_scale"}
  assert settings.stage == "ldm" and settings.model.num_bands == 3 and settings.sampling.steps == 8
  assert to_plain(settings.trained_on) == TRAINED_ON and to_plain(settings.training) == {"seed": 4}


def test_export_of_the_best_checkpoint(tmp_path):
  save_run(tmp_path / "run", step=7, average=0.25, validation_loss=1.0)
  save_run(tmp_path / "run", step=8, average=0.75, validation_loss=2.0)
  for flags, average in (([], 0.75), (["--best"], 0.25)):
    assert cli.main(["export", "--motion", str(tmp_path / "run"), "--output", str(tmp_path), *flags]) == 0
    params, _ = import_weights(tmp_path / "motion.safetensors")
    np.testing.assert_array_equal(params["unet"]["kernel"], np.full((2, 3), average, np.float32))


def test_export_takes_the_stage_that_is_asked_for_and_labels_it(tmp_path, capsys):
  save_run(tmp_path / "run")
  assert cli.main(["export", "--renderer", str(tmp_path / "run"), "--output", str(tmp_path / "weights")]) == 2
  assert "holds stage 'ldm'; --renderer takes renderer" in capsys.readouterr().err
  assert not (tmp_path / "weights").exists()
  options = ["--output", str(tmp_path), "--label", "0.6"]
  assert cli.main(["export", "--motion", str(tmp_path / "run"), *options]) == 0
  assert import_weights(tmp_path / "motion.safetensors")[1].label == "0.6"


def test_export_without_orbax_says_what_to_install(tmp_path, capsys, monkeypatch):
  save_run(tmp_path / "run")
  for name in ("orbax", "orbax.checkpoint"):
    monkeypatch.setitem(sys.modules, name, None)
  assert cli.main(["export", "--motion", str(tmp_path / "run"), "--output", str(tmp_path)]) == 2
  error = capsys.readouterr().err
  assert "pip install '.[train]'" in error and error.count("\n") == 1


def test_export_without_a_run_is_one_line(tmp_path, capsys):
  assert cli.main(["export", "--output", str(tmp_path)]) == 2
  assert "nothing to export" in capsys.readouterr().err
  assert cli.main(["export", "--renderer", str(tmp_path / "none"), "--output", str(tmp_path)]) == 2
  error = capsys.readouterr().err
  assert error.startswith("gid: error: ") and "no checkpoint" in error and error.count("\n") == 1
