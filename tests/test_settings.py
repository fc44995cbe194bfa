"""Settings that make no sense are refused, and a work folder goes on only with the model that it holds."""

from pathlib import Path

import pytest

from configs import ldm, vae
from gid_jax.configuration import TrainSettings
from gid_jax.errors import UserError
from gid_jax.parsing import parse, to_plain
from gid_jax.training.settings import check_resumable, check_settings


@pytest.mark.parametrize(
  "name, value",
  [("batch_size", 0), ("log_every", 0), ("save_every", -1), ("keep_checkpoints", 0), ("optimizer.num_steps", 0),
   ("loss.gradient_scales", 0)],
)
def test_counts_must_be_positive(name, value):
  config = vae.get_config("tiny")
  check_settings(parse(TrainSettings, config))
  config.update_from_flattened_dict({name: value})
  with pytest.raises(UserError, match=rf"config\.{name}={value}; choose 1 or more"):
    check_settings(parse(TrainSettings, config))


def test_brackets_hold_numbers_and_sizes_are_pairs():
  config = vae.get_config("tiny")
  config.data.crop = (64,)
  with pytest.raises(UserError, match=r"config.data.crop=\(64,\): give 2 values in brackets"):
    parse(TrainSettings, config)
  config.data.crop = (64, "wide")
  with pytest.raises(UserError, match=r"config\.data\.crop='wide': give a whole number"):
    parse(TrainSettings, config)


def resume(change, *, module=vae):
  """Goes on with a tiny auto-encoder's folder after `change` to its settings."""
  saved, current = vae.get_config("tiny"), module.get_config("tiny")
  change(current)
  saved, current = (to_plain(parse(TrainSettings, config)) for config in (saved, current))
  return check_resumable(saved, current, directory=Path("runs/x"))


def test_other_settings_are_told_of():
  def change(config):
    config.optimizer.num_steps, config.batch_size, config.data.crop = 8, 4, (16, 16)

  expected = {"config.optimizer.num_steps 4 -> 8", "config.batch_size 2 -> 4", "config.data.crop None -> [16, 16]"}
  assert set(resume(change)) == expected
  assert resume(lambda config: None) == []


def test_another_model_or_stage_is_an_error():
  def change(config):
    config.model.denoiser.channels = 128

  with pytest.raises(UserError, match=r"runs/x: config.model.denoiser.channels is 32 there and 128 here; use another"):
    resume(change)
  with pytest.raises(UserError, match=r"config.stage is 'vae' there and 'ldm' here"):
    resume(lambda config: None, module=ldm)


def test_what_only_changes_the_computation_is_none():
  def change(config):
    config.model.denoiser.dtype = "bfloat16"

  assert resume(change) == ["config.model.denoiser.dtype 'float32' -> 'bfloat16'"]
