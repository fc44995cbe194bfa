"""Typos get the nearest name in one line, and a work folder goes on only with the model that it holds."""

import subprocess
import sys
from pathlib import Path

import pytest

from configs import ldm, vae
from gid_jax.configuration import TrainSettings, parse, to_plain
from gid_jax.errors import UserError
from gid_jax.training.settings import check_resumable, check_settings, explain_flags

CHECKOUT = Path(__file__).parents[1]
TINY = "--config=configs/vae.py:tiny"


@pytest.mark.parametrize(
  "flags, expected",
  [
    ([TINY, "--config.optimzer.num_steps=3"], r"no --config.optimzer.num_steps; did you mean --config.optimizer.num_s"),
    ([TINY, "--config.optimizer.num_stpes=3"], "did you mean --config.optimizer.num_steps?"),
    ([TINY, "--config.optimizer.num_stpes", "3"], "did you mean --config.optimizer.num_steps?"),
    ([TINY, "--config.num_steps=3"], "did you mean --config.optimizer.num_steps?"),
    ([TINY, "--config.optimizr=3"], "did you mean --config.optimizer?"),
    ([TINY, "--noconfig.tensorbord"], "no --config.tensorbord; did you mean --config.tensorboard?"),
    ([TINY, "--confg.batch_size=1"], "did you mean --config.batch_size?"),
    (["--config=configs/ldm.py:defualt"], "unknown size 'defualt'"),
    (["--config=configs/ldm.py:defualt"], "did you mean default?"),
    (["--config=configs/ldmm.py:tiny"], "configs/ldmm.py: no such config file; did you mean configs/ldm.py?"),
    (["--config", "configs/ldmm.py"], "did you mean configs/ldm.py?"),
    ([], "--config is missing, such as --config=configs/ldm.py:default"),
  ],
)
def test_a_typo_gets_the_nearest_name(flags, expected, monkeypatch):
  monkeypatch.chdir(CHECKOUT)
  message = explain_flags(["train", "--workdir=w", *flags], KeyError("whatever was raised"))
  assert expected in message and "\n" not in message


def test_a_missing_work_folder_and_what_was_given_instead():
  assert explain_flags(["train", TINY, "--workdri=w"], ValueError()) == (
    "--workdir is missing, such as --workdir=runs/ldm (not --workdri)"
  )


@pytest.mark.parametrize(
  "flag, value, expected",
  [
    ("config.batch_size", "abc", "--config.batch_size=abc: give a whole number, such as 2"),
    ("config.optimizer.learning_rate", "fast", "--config.optimizer.learning_rate=fast: give a number, such as 0.001"),
    ("config.tensorboard", "maybe", "--config.tensorboard=maybe: give true or false, such as False"),
  ],
)
def test_a_value_of_another_kind(flag, value, expected, monkeypatch):
  monkeypatch.chdir(CHECKOUT)
  argv = ["train", TINY, "--workdir=w", f"--{flag}={value}"]
  assert explain_flags(argv, ValueError(f"flag --{flag}={value}: could not convert")) == expected


@pytest.mark.parametrize(
  "flags, expected",
  [
    ([TINY, "--config.optimzer.num_steps=3"], "did you mean --config.optimizer.num_steps?"),
    ([TINY, "--config.batch_size=abc"], "--config.batch_size=abc: give a whole number, such as 2"),
    (["--config=configs/ldmm.py:tiny"], "did you mean configs/ldm.py?"),
    ([TINY, "--config.data.crop=3"], "config.data.crop=(3,): give 2 values in brackets"),
    ([TINY, "more"], "unexpected argument 'more'"),
  ],
)
def test_the_command_prints_one_line_and_ends_with_status_2(flags, expected, tmp_path):
  command = [sys.executable, "-m", "gid_jax.train", f"--workdir={tmp_path}", *flags]
  result = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
  assert result.returncode == 2 and expected in result.stderr
  assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("error: "), result.stderr


@pytest.mark.parametrize(
  "name, value",
  [("batch_size", 0), ("log_every", 0), ("save_every", -1), ("keep_checkpoints", 0), ("optimizer.num_steps", 0)],
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
