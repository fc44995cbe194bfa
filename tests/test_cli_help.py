"""The `gid` command before any work: help and version."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gid_jax.app import cli, outputs
from gid_jax.media import encoders

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
  """A cache folder and a working folder of the test's own, and none of the variables that the command sets."""
  for name in ("JAX_COMPILATION_CACHE_DIR", "XLA_PYTHON_CLIENT_PREALLOCATE"):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.chdir(tmp_path)


def run_isolated(code, **environment):
  environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), **environment}
  return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(
  "arguments, status",
  [(["--help"], 0), ([], 0), (["animate", "--help"], 0), (["--version"], 0), (["animate", "missing.jpg"], 2),
   (["animate", "missing.gid"], 2), (["animate", "missing.jpg", "absent.jpg"], 2),
   (["animate", "--steps", "0"], 2), (["animate", "--steps", "many"], 2), (["dance"], 2), (["lop"], 2),
   (["missing.jpg"], 2), (["loop", "--help"], 0), (["loop", "missing.jpg"], 2), (["doctor", "--help"], 0),
   (["animate", "-", "-o", "a.avi"], 2), (["animate", "--watch", "missing"], 2),
   (["serve", "--help"], 0), (["serve", "missing.jpg"], 2), (["serve", "--port", "-1"], 2),
   (["inspect", "--help"], 0), (["inspect"], 2), (["inspect", "missing.mp4"], 2)],
)
def test_answers_without_importing_anything_heavy(arguments, status):
  result = run_isolated(f"""
import sys
from gid_jax.app.cli import main
try:
  status = main({arguments!r})
except SystemExit as end:
  status = end.code
heavy = {{"jax", "jaxlib", "flax", "cv2", "av", "numpy", "PIL", "optax"}} & set(sys.modules)
print("\\nSTATUS", status, "HEAVY", sorted(heavy))
""")
  assert result.stdout.splitlines()[-1] == f"STATUS {status} HEAVY []"
  assert "Traceback" not in result.stderr


def test_help_names_every_option_and_version_is_the_package(capsys):
  from gid_jax import __version__

  with pytest.raises(SystemExit) as end:
    cli.main(["animate", "--help"])
  assert end.value.code == 0
  text = capsys.readouterr().out
  options = ("--output", "--seed", "--steps", "--frames", "--fps", "--wind", "--magnify", "--size", "--save",
             "--force", "--bands", "--mask", "--still", "--direction", "--speed", "--duration", "-o", "--format",
             "--codec",
             "--side-by-side", "--xt", "--motion", "--no-note", "--watch", "--json")  # fmt: skip
  for option in options:
    assert option in text
  assert "PHOTO or VIDEO" in text
  with pytest.raises(SystemExit):
    cli.main(["inspect", "--help"])
  text = capsys.readouterr().out
  for option in ("VIDEO", "--output", "--start", "--force", ".[plots]"):
    assert option in text
  with pytest.raises(SystemExit):
    cli.main(["serve", "--help"])
  text = capsys.readouterr().out
  for option in ("PHOTO or x.gid", "--host", "--port", "--name", "--open", "--weights", ".[serve]"):
    assert option in text
  assert cli.main(["--version"]) == 0
  assert capsys.readouterr().out == f"gid {__version__}\n"


def test_suffixes_agree_with_the_encoder():
  assert outputs.VIDEO_CODECS == encoders.VIDEO_CODECS
