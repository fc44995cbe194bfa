"""What tests of `gid animate` with a fake engine share."""

import os

import fake_animator
import numpy as np
from PIL import Image

from gid_jax.app import cli


def install(monkeypatch, folder):
  """Works in a folder with beach.png, by an engine that compiles nothing, which is returned."""
  fake_animator.install(monkeypatch)
  monkeypatch.chdir(folder)
  y, x = np.mgrid[:32, :48]
  Image.fromarray(np.stack([40 + 4 * x, 60 + 3 * y, 100 + x + y], -1).astype(np.uint8)).save("beach.png")
  return fake_animator.FakeAnimator


def run(*arguments):
  return cli.main([*map(str, arguments)])


def assert_refused(capsys, *arguments, match):
  """The command ends with status 2, one line on stderr that says `match`, and no new file."""
  before = sorted(os.listdir())
  assert run(*arguments) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("gid: error: ") and match in line, line
  assert sorted(os.listdir()) == before
