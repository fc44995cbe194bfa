"""The README's `gid` lines, typed one after the other in one folder, with an engine that compiles nothing."""

import glob
import io
import re
import shlex
import sys
from pathlib import Path

import fake_animator
import numpy as np
import pytest
from PIL import Image

from gid_jax.app import cli, doctor, inspection
from gid_jax.media import encoding

CHECKOUT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "docs/command.md", "docs/touch.md")


def find_lines(document):
  blocks = re.findall(r"```sh\n(.*?)```", (CHECKOUT / document).read_text(), re.DOTALL)
  return [line for block in blocks for line in block.splitlines() if line.startswith("gid ")]


def split_line(line):
  """The words of a line as a shell gives them, and the files of its input and output."""
  words, files, arguments = iter(shlex.split(line, comments=True)[1:]), {}, []
  quoted = re.findall(r"'([^']*)'", line)
  for word in words:
    if word in "<>":
      files[word] = next(words)
    elif glob.has_magic(word) and word not in quoted:
      arguments += sorted(glob.glob(word))
    else:
      arguments.append(word)
  return arguments, files


@pytest.fixture
def folder(monkeypatch, tmp_path):
  """What the documents speak of: photo.jpg, a clip, a mask, folders of photos and trained weights."""
  fake_animator.install(monkeypatch)
  monkeypatch.setattr(cli, "configure_jax", lambda: None)
  monkeypatch.setattr(inspection, "measure_spectrum", lambda *_, **options: fake_animator.FakeAnimator.spectrum)
  monkeypatch.setattr(cli, "_inspect_video", lambda request, console: b"a picture")
  monkeypatch.setattr(doctor, "examine", lambda: 0)
  monkeypatch.setattr(cli, "export", lambda request: request.output.mkdir())
  monkeypatch.chdir(tmp_path)
  photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8))
  Path("holidays").mkdir()
  Path("out").mkdir()
  for name in ("examples/photos", "examples/loops"):
    Path(name).mkdir(parents=True)
  for name in ("photo.jpg", "beach.jpg", "holidays/a.jpg", "examples/photos/oak.jpg", "examples/photos/elm.jpg"):
    photo.save(name)
  Image.new("L", (48, 32), 255).save("house.png")
  for name in ("clip.mp4", "examples/loops/lotus.mp4"):
    encoding.write_video(Path(name), (np.roll(np.asarray(photo) // 2 + 60, i // 2, axis=1) for i in range(18)), fps=30)
  return tmp_path


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_lines_of_a_document_run_in_order(folder, capfdbinary, monkeypatch, document):
  lines = find_lines(document)
  assert lines
  for line in lines:
    arguments, files = split_line(line)
    is_photo = arguments[0] == "-" or Path(arguments[0]).exists()
    if "--watch" in arguments or arguments[0] == "serve" or not (is_photo or arguments[0] in cli._COMMANDS):
      continue  # which ends when it is interrupted, or is not of this command
    is_page = any(argument.endswith("html") for argument in arguments)
    if (is_photo or arguments[0] == "animate") and not is_page:
      arguments += ["--frames", "2"]
    data = Path(files["<"]).read_bytes() if "<" in files else b""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    capfdbinary.readouterr()
    assert cli.main(arguments) == 0, line
    streams = capfdbinary.readouterr()
    assert b"gid: error" not in streams.err
    if ">" in files:
      Path(files[">"]).write_bytes(streams.out)
      with open(files[">"], "rb") as file:
        assert file.read(12)[4:8] == b"ftyp" or Path(files[">"]).suffix == ".webp"


def test_the_readme_shows_the_commands():
  typed = " ".join(find_lines("README.md"))
  for text in ("gid photo.jpg", "gid loop", "gid doctor", "gid inspect", "--seed", "--wind", "-o"):
    assert text in typed
