"""The `gid` command: what it says, what it refuses, and that it never leaves half a file."""

import gc
import io
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import types
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from motion_volumes import make_volume
from PIL import Image

from gid_jax.app import checks, cli
from gid_jax.errors import UserError
from gid_jax.media import clips, photos

CHECKOUT = Path(__file__).parents[1]
# Of a motion that is neither too small to be seen nor tears.
SPECTRUM = make_volume(num_frames=150, fps=30.0, scale=3.0)
CONFIGURED_VARIABLES = (
  "XLA_PYTHON_CLIENT_PREALLOCATE",
  "JAX_COMPILATION_CACHE_DIR",
  "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
  "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES",
)


class FakeAnimator:
  """Stands in for the engine: records what it was asked and yields frames of one brightness after the other."""

  period = 5.0
  calls: ClassVar[list] = []
  failure: BaseException | None = None

  @classmethod
  def from_pretrained(cls, directory=None):
    return cls()

  def predict_spectrum(self, key, image, *, steps=None, loop=False, progress=None):
    self.calls.append(("predict", key, image, steps, loop))
    for done in range(steps or 10):
      progress(done + 1, steps or 10)
    return SPECTRUM

  def render(self, image, spectrum, *, frames=150, fps=30.0, magnify=1.0, size=None):
    self.calls.append(("render", spectrum, frames, fps, magnify, size))
    for index in range(frames):
      if index == 2 and self.failure is not None:
        raise self.failure
      yield np.full((32, 48, 3), min(40 + 10 * index, 250), np.uint8)


@pytest.fixture(autouse=True)
def engine(monkeypatch, tmp_path):
  """Puts the fake engine in place and keeps the environment and the working folder as they were."""
  fake = types.ModuleType("gid_jax.pipeline")
  monkeypatch.setattr(FakeAnimator, "calls", [])
  monkeypatch.setattr(FakeAnimator, "failure", None)
  fake.Animator = FakeAnimator
  monkeypatch.setitem(sys.modules, "gid_jax.pipeline", fake)
  for name in CONFIGURED_VARIABLES:
    monkeypatch.setenv(name, "")  # so that the end of the test restores it, whatever the command sets
    monkeypatch.delenv(name)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  folder = tmp_path / "work"
  folder.mkdir()
  monkeypatch.chdir(folder)
  return FakeAnimator


@pytest.fixture
def photo(engine):
  """A photo of 48 x 32 pixels in the working folder."""
  Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)).save("beach.png")
  return "beach.png"


def assert_refused(capsys, *arguments, match):
  """The command ends with status 2, one line on stderr that says `match`, and no new file."""
  before = sorted(os.listdir())
  assert cli.main(["animate", *map(str, arguments)]) == 2
  lines = capsys.readouterr().err.splitlines()
  assert len(lines) == 1
  assert lines[0].startswith("gid: error: ")
  assert match in lines[0]
  assert sorted(os.listdir()) == before


# What it does


def test_animate_writes_beside_the_photo_and_says_so(photo, engine, capsys):
  assert cli.main(["animate", photo, "--frames", "5", "--fps", "25"]) == 0
  assert sorted(os.listdir()) == ["beach.png", "beach_animated.mp4"]
  clip = clips.read_clip("beach_animated.mp4")
  np.testing.assert_allclose(clip.frames.mean(axis=(1, 2, 3)), 40 + 10 * np.arange(5), atol=3)
  np.testing.assert_allclose(clip.times, np.arange(5) / 25, atol=1e-3)
  out = capsys.readouterr().out
  assert "JAX " in out.splitlines()[0] and "device" in out.splitlines()[0]
  assert "Sampling" in out and "Rendering" in out and "10/10" in out and "5/5" in out
  last = out.splitlines()[-1]
  assert last.startswith("Wrote beach_animated.mp4: 48x32, 5 frames, 25 fps, 0.2 s, ")


def test_animate_hands_over_every_option(photo, engine):
  given = {"--seed": 7, "--steps": 3, "--frames": 4, "--fps": 12.5, "--wind": "windy", "--magnify": -1.5}
  given |= {"--size": 640}
  flags = [text for option, value in given.items() for text in (option, str(value))]
  assert cli.main(["animate", photo, "--output", "out.webm", *flags]) == 0
  (_, key, image, steps, loop), render = engine.calls
  import jax

  np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(jax.random.key(7)))
  np.testing.assert_array_equal(image, photos.read_image(photo))
  assert steps == 3 and not loop
  assert render == ("render", SPECTRUM, 4, 12.5, -3.0, 640)  # twice a breeze
  assert sorted(os.listdir()) == ["beach.png", "out.webm"]


@pytest.mark.parametrize("fps, num_frames", [("10", 50), ("12.5", 62), ("0.3", 2)])
def test_a_loop_is_one_period(photo, engine, fps, num_frames):
  assert cli.main(["loop", photo, "--fps", fps]) == 0
  (*_, loop), (*_, frames, shown_fps, _, _) = engine.calls
  assert loop and frames == num_frames
  # The frame after the last would be the first again, exactly one period later.
  assert frames / shown_fps == engine.period
  assert len(clips.read_clip("beach_loop.mp4").frames) == num_frames


def test_animate_without_a_photo_takes_the_bundled_one(photo, engine, monkeypatch, tmp_path):
  bundled = tmp_path / "bundled.png"
  shutil.copy(photo, bundled)
  monkeypatch.setattr(checks, "DEMO_PHOTO", bundled)
  assert cli.main(["animate", "--frames", "3"]) == 0
  assert sorted(os.listdir()) == ["beach.png", "gid_demo.mp4"]
  assert os.listdir(tmp_path) != [] and not (tmp_path / "bundled_animated.mp4").exists()


def test_animate_never_overwrites_without_force(photo, engine, capsys):
  Path("beach_animated.mp4").write_bytes(b"precious")
  named = ["--output", "beach_animated.mp4"]
  assert_refused(capsys, photo, *named, match="beach_animated.mp4 already exists; use --force or --output")
  assert engine.calls == []
  for number in (2, 3):
    assert cli.main(["animate", photo, "--frames", "3"]) == 0
    assert f"Wrote beach_animated_{number}.mp4" in capsys.readouterr().out
  assert Path("beach_animated.mp4").read_bytes() == b"precious"
  assert cli.main(["animate", photo, "--frames", "3", "--force"]) == 0
  assert len(clips.read_clip("beach_animated.mp4").frames) == 3


def test_a_photo_that_lost_its_end_marker_is_animated_with_one_line(photo, engine, capsys):
  Image.open(photo).convert("RGB").save("a.jpg", quality=90)
  data = Path("a.jpg").read_bytes()
  Path("cut.jpg").write_bytes(data[:-2])
  Path("half.jpg").write_bytes(data[: len(data) // 2])
  assert cli.main(["animate", "cut.jpg"]) == 0
  assert capsys.readouterr().err.splitlines() in (
    [], ["gid: warning: cut.jpg is cut off at its end; all its pixels are there"])
  np.testing.assert_array_equal(engine.calls[0][2], photos.read_image("a.jpg"))
  assert_refused(capsys, "half.jpg", match="half.jpg is truncated or damaged")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".gif"])
def test_animate_accepts_unusual_photos(suffix, engine):
  rng = np.random.default_rng(1)
  if suffix == ".png":  # 16-bit grey
    Image.fromarray(np.full((20, 20), 32768, np.uint16)).save("a.png")
  elif suffix == ".tif":
    Image.fromarray(rng.integers(0, 256, (20, 20, 4), np.uint8), "CMYK").save("a.tif")
  elif suffix == ".jpg":
    Image.fromarray(rng.integers(0, 256, (20, 20, 4), np.uint8), "CMYK").save("a.jpg")
  else:
    Image.new("RGB", (20, 20), "red").save(
      "a.gif", save_all=True, append_images=[Image.new("RGB", (20, 20), "blue")], duration=50)
  assert cli.main(["animate", f"a{suffix}", "--frames", "2"]) == 0
  image = engine.calls[0][2]
  assert image.shape == (20, 20, 3)
  if suffix == ".png":
    np.testing.assert_allclose(image, 32768 / 65535, atol=1e-6)
  if suffix == ".gif":
    np.testing.assert_allclose(image, np.broadcast_to([1.0, 0, 0], image.shape))


# What it refuses


def test_refuses_photos_that_are_none(capsys, engine):
  def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

  header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
  Path("huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")))
  Path("text.jpg").write_text("not a photo\n" * 50)
  Path("empty.jpg").touch()
  Image.new("RGB", (1, 1)).save("dot.png")
  Image.fromarray(np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)).save("whole.jpg")
  Path("cut.jpg").write_bytes(Path("whole.jpg").read_bytes()[:-1500])
  Path("folder.jpg").mkdir()
  assert_refused(capsys, "missing.jpg", match="cannot read missing.jpg: no such file")
  assert_refused(capsys, "https://example.org/a.jpg", match="a.jpg: a web address; download it first")
  assert_refused(capsys, "folder.jpg", match="folder.jpg holds no photos")
  assert_refused(capsys, "empty.jpg", match="empty.jpg is empty")
  assert_refused(capsys, "text.jpg", match="text.jpg is not an image")
  assert_refused(capsys, "cut.jpg", match="cut.jpg is truncated or damaged")
  assert_refused(capsys, "dot.png", match="dot.png is 1 x 1 pixels")
  assert_refused(capsys, "huge.png", match="huge.png holds more than 250 megapixels (20000 x 20000); resize it")
  assert engine.calls == []


@pytest.mark.parametrize(
  "option, values",
  {
    "--steps": ["0", "1001", "-1"],
    "--frames": ["1", "0", "-5"],
    "--fps": ["0", "-30", "nan", "inf"],
    "--magnify": ["nan", "inf"],
    "--size": ["0", "-1", "1000000"],
    "--seed": ["-1", str(2**40)],
  }.items(),
)
def test_refuses_values_out_of_range(photo, engine, capsys, option, values):
  for value in values:
    assert_refused(capsys, photo, option, value, match=f"{option} is {value}")
  assert engine.calls == []


def test_refuses_outputs_before_the_work(photo, engine, capsys):
  Path("folder.mp4").mkdir()
  Image.new("RGB", (20, 20)).save("photo.webp")
  assert_refused(capsys, photo, "--output", "a.avi", match="use one of .mp4, .webm, .mov, .gif")
  assert_refused(capsys, photo, "--output", "no/a.mp4", match="the folder no does not exist")
  assert_refused(capsys, photo, "--output", "beach.png/a.mp4", match="the folder beach.png does not exist")
  assert_refused(capsys, photo, "--output", "a.gif", "--fps", "60", match="at most 50")
  assert_refused(capsys, "photo.webp", "--output", "photo.webp", "--force", match="is the input itself")
  assert engine.calls == []


UNPRIVILEGED = """
import os, sys
from gid_jax.app.cli import main
main(["animate", "missing.jpg"])  # loads what the command needs while it can still be read
if os.geteuid() == 0:
  os.setgroups([])
  os.setgid(65534)
  os.setuid(65534)
sys.exit(main(["animate", sys.argv[1]]))
"""


def run_unprivileged(photo, folder):
  """Runs `gid animate` as a user without rights of its own, even where the tests run as root."""
  command = [sys.executable, "-c", UNPRIVILEGED, photo]
  environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
  return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_refuses_without_permission(photo):
  with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
    folder = Path(name)
    (folder / "closed").mkdir()
    shutil.copy(photo, folder / "secret.png")
    shutil.copy(photo, folder / "closed" / "beach.png")
    os.chmod(folder, 0o755)
    os.chmod(folder / "secret.png", 0)
    os.chmod(folder / "closed", 0o555)
    unreadable = run_unprivileged("secret.png", folder)
    unwritable = run_unprivileged("closed/beach.png", folder)
    os.chmod(folder / "closed", 0o755)
    assert os.listdir(folder / "closed") == ["beach.png"]
  assert (unreadable.returncode, unwritable.returncode) == (2, 2)
  assert unreadable.stderr.splitlines()[1:] == ["gid: error: cannot read secret.png: permission denied"]
  assert unwritable.stderr.splitlines()[1:] == [
    "gid: error: cannot write into closed: permission denied; choose another --output"]


def test_unreadable_photo_is_one_line(photo, capsys, monkeypatch):
  real_open = open

  def refuse(path, *arguments, **options):
    if str(path).endswith(photo):
      raise PermissionError(13, "Permission denied", str(path))
    return real_open(path, *arguments, **options)

  monkeypatch.setattr("builtins.open", refuse)
  assert_refused(capsys, photo, match="cannot read beach.png: permission denied")


def test_full_disk_is_one_line_and_leaves_nothing(photo):
  # A limit on the size of files makes the kernel refuse the write, as a full disk does.
  script = """
import resource, sys, types
import numpy as np
from gid_jax.app import cli
from gid_jax.types import SpectralVolume

class Animator:
  period = 2.0
  @classmethod
  def from_pretrained(cls, directory): return cls()
  def predict_spectrum(self, key, image, **options):
    return SpectralVolume(np.zeros((2, 4, 6, 4), np.float32), num_frames=4, fps=2.0)
  def render(self, image, spectrum, *, frames, **options):
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    return (np.random.default_rng(i).integers(0, 256, (64, 64, 3), np.uint8) for i in range(frames))

sys.modules["gid_jax.pipeline"] = types.ModuleType("gid_jax.pipeline")
sys.modules["gid_jax.pipeline"].Animator = Animator
sys.exit(cli.main(sys.argv[1:]))
"""
  command = [sys.executable, "-c", script, "animate", photo, "--frames", "12", "--output", "a.mp4"]
  environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
  result = subprocess.run(command, env=environment, capture_output=True, text=True)
  assert result.returncode == 2
  assert result.stderr.splitlines()[-1].startswith("gid: error: cannot write a.mp4: ")
  assert "Traceback" not in result.stderr
  assert os.listdir() == ["beach.png"]


def test_error_of_the_engine_is_one_line(photo, engine, capsys, monkeypatch):
  monkeypatch.setattr(engine, "failure", UserError("the weights\nare damaged"))
  assert_refused(capsys, photo, match="the weights are damaged")


def test_interrupt_is_quiet_and_leaves_nothing(photo, engine, capsys, monkeypatch):
  monkeypatch.setattr(engine, "failure", KeyboardInterrupt())
  assert cli.main(["animate", photo, "--frames", "4"]) == 130
  assert "Traceback" not in capsys.readouterr().err
  assert os.listdir() == ["beach.png"]


def test_a_library_that_fails_is_one_line(photo, engine, capsys, monkeypatch):
  monkeypatch.setattr(engine, "failure", ZeroDivisionError("a fault\nof ours"))
  assert_refused(capsys, photo, match="ZeroDivisionError: a fault; this should not have happened")
  monkeypatch.setenv("GID_TRACEBACK", "1")
  with pytest.raises(ZeroDivisionError):
    cli.main(["animate", photo, "--frames", "4"])


def test_sigterm_leaves_nothing(photo, engine, capsys, monkeypatch):
  def render(self, *_, **options):
    yield np.zeros((32, 48, 3), np.uint8)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)

  monkeypatch.setattr(engine, "render", render)
  before = signal.getsignal(signal.SIGTERM)
  assert cli.main(["animate", photo, "--frames", "4"]) == 143
  assert capsys.readouterr().err == "gid: terminated; nothing was written\n"
  assert os.listdir() == ["beach.png"]
  assert signal.getsignal(signal.SIGTERM) == before


def test_what_was_written_before_a_signal_is_named(photo, engine, capsys, monkeypatch):
  def draw(*_, **options):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)

  monkeypatch.setattr("gid_jax.app.pictures.draw_motion", draw)
  assert cli.main(["animate", photo, "--frames", "4", "--motion", "motion.png"]) == 143
  assert capsys.readouterr().err == "gid: terminated; written before: beach_animated.mp4\n"
  assert sorted(os.listdir()) == ["beach.png", "beach_animated.mp4"]


def test_a_signal_while_garbage_is_collected_is_not_lost(photo, engine, monkeypatch):
  def kill(*_):  # by every collection, as JAX has it call a function of its own
    gc.callbacks.remove(kill)
    os.kill(os.getpid(), signal.SIGTERM)
    list(range(100))  # a place where the signal is heard

  def render(self, *_, **options):
    yield np.zeros((32, 48, 3), np.uint8)
    gc.callbacks.append(kill)
    gc.collect()
    time.sleep(10)

  monkeypatch.setattr(engine, "render", render)
  assert cli.main(["animate", photo, "--frames", "4"]) == 143
  assert os.listdir() == ["beach.png"]


def test_a_console_that_cannot_print_a_name_is_no_failure(photo, engine, capsys, monkeypatch):
  console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", write_through=True)
  monkeypatch.setattr(sys, "stdout", console)
  os.rename(photo, "\u5199\u771f.png")
  assert cli.main(["animate", "\u5199\u771f.png", "--frames", "2"]) == 0
  assert b"Wrote \\u5199\\u771f_animated.mp4: " in console.buffer.getvalue()
