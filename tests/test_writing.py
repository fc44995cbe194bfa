"""Videos that are written: colours, times, memory, and that they are complete or absent."""

import os
import subprocess
import sys
import weakref

import av
import numpy as np
import pytest
from PIL import Image
from videos import SWATCHES, assert_refused, moving_frames, read_swatches, swatch_frame

from gid_jax.errors import UserError
from gid_jax.media import clips, encoding


@pytest.mark.parametrize("suffix", encoding.VIDEO_SUFFIXES)
def test_write_video_keeps_colours_and_times(tmp_path, suffix):
  frames = [swatch_frame() for _ in range(5)]
  for index, frame in enumerate(frames):
    frame[0, index] = 77  # identical frames may be merged
  written = encoding.write_video(tmp_path / f"a{suffix}", iter(frames), fps=25)
  assert written == (tmp_path / f"a{suffix}", 128, 64, 5, (tmp_path / f"a{suffix}").stat().st_size)
  assert os.listdir(tmp_path) == [f"a{suffix}"]
  if suffix == ".webp":
    with Image.open(tmp_path / "a.webp") as picture:
      assert picture.n_frames == 5 and picture.info["loop"] == 0
      picture.seek(3)
      decoded = np.asarray(picture.convert("RGB"))
      assert picture.info["timestamp"] == 3 * 40
  else:
    clip = clips.read_clip(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(clip.times, np.arange(5) / 25, atol=1e-3)
    decoded = clip.frames[3]
  np.testing.assert_allclose(read_swatches(decoded).astype(int), SWATCHES, atol=4)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_write_video_says_bt709_limited_range(tmp_path, suffix):
  encoding.write_video(tmp_path / f"a{suffix}", [swatch_frame()] * 2, fps=30)
  with av.open(str(tmp_path / f"a{suffix}")) as container:
    context = container.streams.video[0].codec_context
    assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
    assert context.pix_fmt == "yuv420p"
    luma = next(container.decode(video=0)).to_ndarray()[:64]
  white, black = luma[16, 112], luma[48, 16]
  assert abs(int(white) - 235) <= 1 and abs(int(black) - 16) <= 1


def test_write_video_puts_the_index_first(tmp_path):
  encoding.write_video(tmp_path / "a.mp4", moving_frames(5), fps=30)
  data = (tmp_path / "a.mp4").read_bytes()
  assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_write_video_repeats_the_edge_of_odd_sizes(tmp_path, suffix):
  frame = np.full((33, 47, 3), 100, np.uint8)
  frame[-1] = 200
  written = encoding.write_video(tmp_path / f"a{suffix}", [frame] * 2, fps=30, quality=100)
  assert (written.height, written.width) == (34, 48)
  decoded = clips.read_clip(tmp_path / f"a{suffix}").frames[0].astype(int)
  np.testing.assert_allclose(decoded[33, :40], 200, atol=8)
  np.testing.assert_allclose(decoded[16], 100, atol=4)


@pytest.mark.parametrize("suffix", encoding.VIDEO_SUFFIXES)
def test_write_video_lets_go_of_frames_as_it_goes(tmp_path, suffix):
  alive = []

  def frames():
    made = []
    for frame in moving_frames(30):
      made.append(weakref.ref(frame))
      alive.append(sum(reference() is not None for reference in made))
      yield frame

  encoding.write_video(tmp_path / f"a{suffix}", frames(), fps=30)
  assert max(alive) <= 4


def test_write_video_quality_trades_size(tmp_path):
  frames = [np.random.default_rng(i).integers(0, 256, (64, 64, 3), np.uint8) for i in range(4)]
  for suffix in (".mp4", ".webm", ".webp"):
    sizes = [
      encoding.write_video(tmp_path / f"{quality}{suffix}", frames, fps=30, quality=quality).num_bytes
      for quality in (20, 60, 95)
    ]
    assert sizes == sorted(sizes) and sizes[0] < 0.7 * sizes[2]


@pytest.mark.usefixtures("unchecked")
def test_write_video_refuses_in_one_line(tmp_path):
  def write(name, frames=(), **options):
    encoding.write_video(tmp_path / name, frames, **{"fps": 30, **options})

  (tmp_path / "there.mp4").write_bytes(b"precious")
  assert_refused(write, "a.avi", match=r"'\.avi'; use one of \.mp4, \.webm, \.mov, \.gif")
  assert_refused(write, "a", match="unknown video format")
  assert_refused(write, "there.mp4", match="already exists; use --force or --output")
  assert_refused(write, "none.mp4", match="no frames")
  assert_refused(write, "no/a.mp4", match=r"the folder .*no does not exist")
  assert_refused(lambda: write("a.gif", moving_frames(2), fps=60), match="at most 50")
  assert_refused(lambda: write("a.mp4", moving_frames(2), fps=float("nan")), match="must be positive")
  with pytest.raises(ValueError, match="expected uint8"):
    write("float.mp4", [np.zeros((16, 16, 3), np.float32)])
  with pytest.raises(ValueError, match="expected uint8"):
    write("sizes.mp4", [np.zeros((16, 16, 3), np.uint8), np.zeros((16, 18, 3), np.uint8)])
  assert os.listdir(tmp_path) == ["there.mp4"]
  assert (tmp_path / "there.mp4").read_bytes() == b"precious"


def test_write_video_overwrites_when_told(tmp_path):
  (tmp_path / "a.mp4").write_bytes(b"old")
  encoding.write_video(tmp_path / "a.mp4", moving_frames(3), fps=30, overwrite=True)
  assert len(clips.read_clip(tmp_path / "a.mp4").frames) == 3


@pytest.mark.parametrize("suffix", encoding.VIDEO_SUFFIXES)
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, UserError])
def test_write_video_leaves_nothing_when_the_frames_fail(tmp_path, suffix, error):
  def frames():
    yield from moving_frames(4)
    raise error("stop")

  (tmp_path / f"a{suffix}").write_bytes(b"precious")
  with pytest.raises(error):
    encoding.write_video(tmp_path / f"a{suffix}", frames(), fps=30, overwrite=True)
  assert os.listdir(tmp_path) == [f"a{suffix}"]
  assert (tmp_path / f"a{suffix}").read_bytes() == b"precious"


FULL_DISK = """
import resource, sys
import numpy as np
from gid_jax.errors import UserError
from gid_jax.media import encoding
noise = [np.random.default_rng(i).integers(0, 256, (64, 64, 3), np.uint8) for i in range(12)]
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for name in sys.argv[1:]:
  try:
    encoding.write_video(name, noise, fps=30)
  except UserError as error:
    print(error)
"""


def test_writing_to_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
  # A limit on the size of files makes the kernel refuse writes half way, as a full disk does.
  names = [str(tmp_path / f"a{suffix}") for suffix in encoding.VIDEO_SUFFIXES]
  result = subprocess.run([sys.executable, "-c", FULL_DISK, *names], capture_output=True, text=True, check=True)
  lines = result.stdout.splitlines()
  assert len(lines) == len(names) and result.stderr == ""
  for name, line in zip(names, lines, strict=True):
    assert line.startswith(f"cannot write {name}: ")
  assert os.listdir(tmp_path) == []
