"""The process of `gid`: signals from its first moment to its last."""

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

CHECKOUT = Path(__file__).parents[1]
# A fake engine in a process of its own: at the place named it tells who listens, and waits for a signal.
RUN = """
import sys, threading, time
sys.path[:0] = [{tests!r}]

def wait(*_, **__):
  sys.stdout.write("here\\n"); sys.stdout.flush()
  time.sleep(60)

def compile_for_ever():
  from gid_jax import programs
  programs._pool().submit(time.sleep, 60)

if {place!r} == "importing":
  class Finder:
    def find_spec(self, name, *_):
      if name == "tyro":
        wait()
  sys.meta_path.insert(0, Finder())
else:
  from gid_jax import pipeline
  from gid_jax.app import moving
  from fake_animator import FakeAnimator

  class Engine(FakeAnimator):
    def predict_spectrum(self, *_, **options):
      if {place!r} != "nowhere":
        compile_for_ever()
      return wait() if {place!r} == "sampling" else self.spectrum
    def render(self, image, spectrum, **options):
      yield from list(super().render(image, spectrum, **options))[:2]
      if {place!r} == "rendering":
        wait()

  moving.configure_jax = lambda: None
  pipeline.Animator = Engine

sys.argv = ["gid", "photo.png", "--frames", "4", *{options!r}]
from gid_jax.app.start import run
run()
"""
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


# As a terminal starts a program.
LISTEN = f"[signal.signal(number, signal.SIG_DFL) for number in {[*map(int, STATUS)]}]"


def start(place, folder, *options, before=LISTEN):
  """Starts the command in a process that has run `before`, a line of Python."""
  code = RUN.format(tests=str(CHECKOUT / "tests"), place=place, options=options)
  first = f"import os, signal, sys; {before}; os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
  return subprocess.Popen(
    [sys.executable, "-c", first, code], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    env={**os.environ, "PYTHONPATH": str(CHECKOUT), "GID_CACHE": "off"})


@pytest.mark.parametrize("place, number", [
  ("importing", signal.SIGINT), ("sampling", signal.SIGINT), ("rendering", signal.SIGHUP),
])  # fmt: skip
def test_a_signal_ends_it_at_once_with_one_line_and_leaves_nothing(tmp_path, place, number):
  Image.new("RGB", (48, 32)).save(tmp_path / "photo.png")
  process = start(place, tmp_path)
  while process.stdout.readline() != b"here\n":
    assert process.poll() is None, process.stderr.read()
  process.send_signal(number)
  _, said = process.communicate(timeout=50)  # though a program is being compiled for longer
  if place == "importing":
    assert (process.returncode, said) == (-number, b"")
  else:
    word = "interrupted" if number == signal.SIGINT else "terminated"
    assert (process.returncode, said) == (STATUS[number], f"gid: {word}; nothing was written\n".encode())
  assert os.listdir(tmp_path) == ["photo.png"]


def test_what_nohup_starts_outlives_the_terminal(tmp_path):
  Image.new("RGB", (48, 32)).save(tmp_path / "photo.png")
  process = start("rendering", tmp_path, before="signal.signal(signal.SIGHUP, signal.SIG_IGN)")
  while process.stdout.readline() != b"here\n":
    assert process.poll() is None, process.stderr.read()
  process.send_signal(signal.SIGHUP)
  process.send_signal(signal.SIGTERM)
  _, said = process.communicate(timeout=50)
  assert process.returncode == 143 and said == b"gid: terminated; nothing was written\n"


def test_warnings_get_into_no_video_where_standard_error_is_closed(tmp_path):
  picture = io.BytesIO()
  Image.new("RGB", (48, 32)).save(picture, "JPEG")
  (tmp_path / "photo.png").write_bytes(picture.getvalue()[:-2])  # one line says that its end is missing
  process = start("nowhere", tmp_path, "--output", "-", before="os.close(2)")
  video, _ = process.communicate(timeout=50)
  assert process.returncode == 0 and video[4:8] == b"ftyp"


def test_jax_is_imported_after_its_environment_is_set(tmp_path):
  Image.new("RGB", (48, 32)).save(tmp_path / "photo.png")
  code = """
import sys
from gid_jax.app import moving
moving.configure_jax = lambda: sys.exit("late" if "jax" in sys.modules else "in time")
from gid_jax.app.cli import main
main(["animate", "photo.png"])
"""
  environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
  done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
  assert done.stderr == "in time\n"
