"""`gid serve` as a process: what it prints, what it refuses, how it ends; and its work with the embedded weights."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from serving import make_picture, send

from gid_jax.app import cli
from gid_jax.app.checks import DEMO_PHOTO
from gid_jax.bundle import load_bundle
from gid_jax.serve.decoder import read_photo
from gid_jax.serve.generation import Generator
from gid_jax.serve.server import listen

CHECKOUT = Path(__file__).parents[1]
RUN = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell takes from what it runs in the background
sys.path.insert(0, {tests!r})
import gid_jax.serve.generation as generation
from serving import {maker}
generation.Generator = lambda weights: {maker}()
from gid_jax.app.cli import main
raise SystemExit(main({arguments!r}))
"""


def list_children(pid):
  """The processes that a process has started and that are still there."""
  return [child for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]


@pytest.mark.parametrize("maker, number", [
  ("FakeMaker", signal.SIGTERM), ("FakeMaker", signal.SIGINT), ("StuckMaker", signal.SIGTERM),
])  # fmt: skip
def test_a_signal_ends_everything_and_leaves_nothing(tmp_path, maker, number):
  (tmp_path / "mine.png").write_bytes(make_picture(3))
  with listen("127.0.0.1", 0) as taken:
    port = taken.getsockname()[1]
    code = RUN.format(tests=str(CHECKOUT / "tests"), maker=maker, arguments=["serve", "mine.png", "--port", str(port)])
    environment = os.environ | {"PYTHONPATH": str(CHECKOUT), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
      [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
      cwd=tmp_path)  # fmt: skip
    first, second = process.stdout.readline(), process.stdout.readline()
  address = first.split()[2]
  assert first == f"Serving on {address} (port {port} is taken)\n" and address.startswith("http://127.0.0.1:")
  with httpx.Client(base_url=address, headers={"origin": address.rstrip("/")}, timeout=600) as client:
    job = send(client)  # which a decoder opens while the signal comes
    with client.stream("GET", "/events", params={"job": job}) as events:
      next(events.iter_lines())
      children = list_children(process.pid)
      process.send_signal(number)
      said, complaints = process.communicate(timeout=300)
  assert not any(Path(f"/proc/{child}").exists() for child in children)
  assert list(tmp_path.glob("gid-serve-*")) == []
  assert (second, said) == ("Press Ctrl-C to end it.\n", "") and "Traceback" not in complaints
  word, status = {signal.SIGTERM: ("terminated", 143), signal.SIGINT: ("interrupted", 130)}[number]
  assert complaints == f"gid: {word}; the page is no longer served\n" and process.returncode == status


@pytest.mark.parametrize("arguments, reason", [
  (["--port", "70000"], "--port is 70000; it must be between 0 and 65535"),
  (["missing.jpg"], "cannot read missing.jpg: no such file"),
  (["text.jpg"], "text.jpg is not an image in a format that can be read here; use JPEG, PNG or WebP"),
  (["text.gid"], "text.gid: damaged, or not a .gid file"),
  (["--host", "nowhere.invalid"], "--host is nowhere.invalid: there is no such address"),
])  # fmt: skip
def test_what_cannot_be_served_is_one_line(tmp_path, monkeypatch, capsys, arguments, reason):
  monkeypatch.chdir(tmp_path)
  for name in ("text.jpg", "text.gid"):
    Path(name).write_text("hello " * 20)
  monkeypatch.setattr("gid_jax.app.serve.configure_jax", lambda: None)
  assert cli.main(["serve", *arguments]) == 2
  said = capsys.readouterr()
  assert said.out == "" and said.err.startswith(f"gid: error: {reason}") and said.err.count("\n") == 1


def test_without_its_libraries_it_says_what_to_install(monkeypatch, capsys):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  assert cli.main(["serve"]) == 2
  assert capsys.readouterr().err == (
    "gid: error: gid serve needs starlette and uvicorn; install them with: pip install '.[serve]'\n")


def test_the_demonstration_is_what_the_embedded_weights_say(quick_compilation, tmp_path):
  """The .gid that comes with the package is of this photo and these weights, and the server samples the same."""
  demo = load_bundle(DEMO_PHOTO.with_suffix(".gid"))
  photo = read_photo(DEMO_PHOTO)
  np.testing.assert_array_equal(demo.photo, photo)
  steps = []
  generator = Generator()
  bundle = generator.sample(photo, demo.seed, lambda phase, done, total: steps.append((phase, done, total)))
  assert steps[:2] == [("seeing", 0, 0), ("compiling", 0, 0)] and steps[2:] == [("sampling", i, 6) for i in range(1, 7)]
  assert bundle.weights_label == demo.weights_label and bundle.settings == demo.settings
  expected = np.asarray(demo.spectrum.coefficients)
  found = np.asarray(bundle.spectrum.coefficients)
  assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()
  assert DEMO_PHOTO.with_suffix(".gid").stat().st_size < 3e6
