"""The command line of training and evaluation: typos get the nearest name in one line, and help names every setting."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from configs import evaluation, vae
from gid_jax.training.command_line import explain_flags
from gid_jax.training.settings import flatten_settings

CHECKOUT = Path(__file__).parents[1]
TINY = "--config=configs/vae.py:tiny"


def call(program, *arguments, folder=CHECKOUT, **variables):
  """Runs `python -m gid_jax.PROGRAM` in a folder."""
  command = [sys.executable, "-m", f"gid_jax.{program}", *arguments]
  return subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, **variables})


def fail(program, *arguments, **options):
  """The one line that a wrong command prints."""
  result = call(program, *arguments, **options)
  assert result.returncode == 2, result.stderr
  assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("error: "), result.stderr
  return result.stderr.strip()


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
    (["--config=configs/ldm.py:us"], "use one of tiny, default, large, paper, inpainting_512"),
    (["--config=configs/ablations/bands_4.py:ldn"], "did you mean ldm?"),
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
    ([TINY, "--config.data.crop=3"], "config.data.crop=(3,): give 2 values in brackets"),
    ([TINY, "more"], "unexpected argument 'more'"),
  ],
)
def test_the_command_prints_one_line_and_ends_with_status_2(flags, expected, tmp_path):
  assert expected in fail("train", f"--workdir={tmp_path}", *flags)


def test_a_size_that_is_like_none_gets_no_suggestion(monkeypatch):
  monkeypatch.chdir(CHECKOUT)
  message = explain_flags(["train", "--workdir=w", "--config=configs/ldm.py:huge"], ValueError())
  assert message.endswith("unknown size 'huge'; use one of tiny, default, large, paper, inpainting_512")


def test_a_command_without_arguments_names_what_is_missing():
  assert fail("train") == "error: --config is missing, such as --config=configs/ldm.py:default"
  assert fail("evaluate") == "error: --config is missing, such as --config=configs/evaluation.py"
  evaluate = ("evaluate", "--config=configs/evaluation.py")
  assert fail(*evaluate) == "error: --workdir is missing, such as --workdir=runs/evaluation"


@pytest.mark.parametrize(
  "program, source, make, option",
  [("train", "configs/vae.py:tiny", lambda: vae.get_config("tiny"), "-h"),
   ("evaluate", "configs/evaluation.py", evaluation.get_config, "--help")],
)
def test_help_says_what_the_program_does_and_lists_every_setting(program, source, make, option):
  result = call(program, option)
  assert result.returncode == 0 and result.stderr == ""
  for part in (f"python -m gid_jax.{program}", "--config: ", "--workdir: ", "--help"):
    assert part in result.stdout
  assert "--config.seed" not in result.stdout
  text = call(program, f"--config={source}", "--help").stdout
  assert (CHECKOUT / source.partition(":")[0]).read_text().split('"""')[1].splitlines()[0] in text
  listed = dict(re.findall(r'^--config\.([\w.]+)="?(.*?)"?$', text, re.MULTILINE))
  assert listed == {name: str(value) for name, value in flatten_settings(make().to_dict())}


def test_help_of_a_config_that_cannot_be_read_is_an_error():
  assert "unknown size 'huge'" in fail("train", "--config=configs/ldm.py:huge", "--help")


def test_a_config_is_found_with_the_files_beside_it_from_any_folder(tmp_path):
  # The package and nothing else of the checkout.
  (tmp_path / "packages").mkdir()
  (tmp_path / "packages" / "gid_jax").symlink_to(CHECKOUT / "gid_jax")
  elsewhere = dict(folder=tmp_path, PYTHONPATH=str(tmp_path / "packages"))
  for source, flag, expected in (
    ("vae.py:tiny", "--config.batch_sise=3", "did you mean --config.batch_size?"),
    ("ablations/bands_4.py:vae:tiny", "--config.data.directory=nothing", "No data set in nothing"),
  ):
    flags = (f"--config={CHECKOUT}/configs/{source}", f"--workdir={tmp_path}/run")
    assert expected in fail("train", *flags, flag, **elsewhere)


def test_a_config_takes_the_files_beside_it_not_those_of_the_current_folder(tmp_path):
  configs = tmp_path / "configs"
  configs.mkdir()
  (configs / "__init__.py").touch()
  (configs / "common.py").write_text("raise ValueError('their own')")
  (configs / "mine.py").write_text("from configs import common")
  assert "their own" in fail("train", f"--config={configs}/mine.py", f"--workdir={tmp_path}/run")
  # A file that does not lie in a package of that name shares the current folder's.
  (configs / "__init__.py").unlink()
  (configs / "common.py").unlink()
  (configs / "mine.py").write_text("from configs import common\nget_config = common.check_size")
  assert "unknown size 'my'" in fail("train", f"--config={configs}/mine.py:my", f"--workdir={tmp_path}/run")


def test_a_missing_library_is_told_in_one_line():
  code = "import runpy, sys; sys.modules['clu'] = None; runpy.run_module('gid_jax.train', run_name=sys.argv[1])"
  for name, status in (("__main__", 2), ("gid_jax.train", 1)):
    command = [sys.executable, "-c", code, name]
    result = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert result.returncode == status
    assert "clu is missing; install it with: pip install '.[train]'" in result.stderr.splitlines()[-1]
    assert ("Traceback" in result.stderr) == (name != "__main__")
