"""What `gid inspect` measures and draws, on a film whose motion is known."""

import io

import filming
import numpy as np
import pytest
from PIL import Image

from gid_jax.app import inspection, inspection_sheet
from gid_jax.errors import UserError
from gid_jax.media import encoding, shots
from gid_jax.motion import visualize
from gid_jax.motion.spectral import motion_power
from gid_jax.types import SpectralVolume

pytestmark = pytest.mark.usefixtures("careful_flow")
MOTION = filming.make_swing()


@pytest.fixture(scope="module")
def video(tmp_path_factory):
  """One second of a swing at 2 Hz, 30 frames."""
  path = tmp_path_factory.mktemp("film") / "swing.mp4"
  encoding.write_video(path, filming.film(filming.make_texture(), MOTION), fps=30, quality=95)
  return path


@pytest.fixture(scope="module")
def found(video):
  return inspection.inspect_video(video)


def test_the_numbers_are_those_of_the_film(found):
  assert found.shot.frames.shape == (30, 80, 128, 3)
  assert found.shot.source_size == (80, 128) and abs(found.shot.source_fps - 30) < 0.01
  assert inspection.peak_frequency(found.spectrum) == 2.0
  exact = np.abs(np.fft.rfft(MOTION, axis=0)[2, ..., 0]) ** 2
  power = np.asarray(motion_power(found.spectrum))
  assert 0.75 < power[2, 0] / exact.mean() < 1.25
  assert power[2, 1] < 0.02 * power[2, 0]
  assert np.linalg.norm(found.motion - MOTION, axis=-1).mean() < 0.15
  assert np.all(found.shift == 0)
  assert 25 < found.row < 55


def test_reconstructions_explain_the_film(found):
  film = found.shot.frames.astype(np.float64)
  assert abs(found.still.error - np.abs(film - film[0]).mean()) < 1e-3
  np.testing.assert_array_equal(found.still.slice_xt, found.shot.frames[:, found.row])
  assert found.measured.error < 0.5 * found.still.error
  assert found.kept.error < 0.5 * found.still.error
  assert found.num_bands == 16 and found.kept.slice_xt.shape == (30, 128, 3)


def test_moving_by_whole_pixels_is_exact_and_holes_take_what_is_near():
  frames = np.full((2, 32, 32, 3), 200, np.uint8)
  frames[:, 10:14, 10:14] = 40
  motion = np.zeros((2, 32, 32, 2), np.float32)
  motion[1, 10:14, 10:14, 0] = 4
  frames[1] = 200
  frames[1, 10:14, 14:18] = 40
  result = inspection.reconstruct(frames, motion, row=11)
  np.testing.assert_array_equal(result.slice_xt[0], frames[0, 11])
  # The square lies above the wall by W, its mean displacement: 2 px.
  covered = (40 * np.exp(2) + 200) / (np.exp(2) + 1)
  np.testing.assert_allclose(result.slice_xt[1, 14:18], covered, atol=0.51)
  np.testing.assert_array_equal(result.slice_xt[1, 18:], 200)
  assert np.all(result.slice_xt[1, 10:14] > 60)  # uncovered: mixed from the wall and the square, never black
  hole = np.abs(result.slice_xt[1, 10:14].astype(float) - 200).mean()
  np.testing.assert_allclose(result.error, (hole + covered - 40) * 16 / 32**2 / 2, rtol=0.1)


def test_a_drift_is_no_peak_but_a_slow_swing_alone_is():
  times = np.arange(60) / 60

  def peak(signal):
    motion = np.zeros((60, 4, 4, 2))
    motion[..., 0] = signal[:, None, None]
    bands = np.fft.rfft(motion, axis=0)
    coefficients = np.concatenate([bands.real, bands.imag], -1)
    return inspection.peak_frequency(SpectralVolume(coefficients, num_frames=60, fps=30.0))

  assert peak(8 * times + np.sin(2 * np.pi * 7 * times)) == 3.5
  assert peak(np.sin(2 * np.pi * times)) == 0.5
  assert peak(np.sin(2 * np.pi * 29 * times)) == 14.5


def test_the_page_is_a_picture_with_all_its_parts(found):
  picture = np.asarray(Image.open(io.BytesIO(inspection_sheet.inspection_to_png(found))).convert("RGB")).astype(int)
  assert picture.shape[1] == 1872 and picture.shape[0] > 1200
  # Nothing touches the edge of the page, and every ninth of it holds something.
  border = np.concatenate([picture[:8].ravel(), picture[-8:].ravel(), picture[:, :8].ravel(), picture[:, -8:].ravel()])
  assert np.all(border == 255)
  drawn = picture.min(-1) < 225
  for part in np.array_split(drawn[250:], 3):
    for panel in np.array_split(part, 3, axis=1):
      assert panel.mean() > 0.02


@pytest.mark.parametrize(
  "value, rounded", [(0.1, 0.1), (0.11, 0.15), (1.0, 1), (1.7, 2), (2.1, 3), (6.1, 8), (8.2, 10), (99, 100)])
def test_scales_are_round(value, rounded):
  assert abs(visualize.round_up(value) - rounded) < 1e-9


def test_rendered_frames_are_compared_at_their_own_time():
  film = np.zeros((20, 4, 4, 3), np.uint8) + np.arange(20, dtype=np.uint8)[:, None, None, None]
  shot = shots.Shot(film, 30.0, (4, 4), 30.0)
  # 45 frames per second: every third frame falls on every second of the film, up to its end.
  comparison = inspection.FilmComparison(shot, fps=45)
  frames = [np.full((8, 8, 3), 10, np.uint8) for _ in range(40)]
  assert len(list(comparison.watch(frames))) == 40
  assert comparison.num_frames == 10
  assert abs(comparison.error - np.abs(np.arange(0, 20, 2) - 10).mean()) < 1e-5
  assert abs(comparison.still_error - np.arange(0, 20, 2).mean()) < 1e-5


# Reading


def test_a_shot_begins_where_it_is_told(tmp_path):
  pattern = (40 + 20 * (np.indices((16, 24)).sum(0) // 4 % 2)).astype(np.uint8)[..., None]
  frames = np.repeat(pattern, 3, -1) + (2 * np.arange(91, dtype=np.uint8))[:, None, None, None]
  encoding.write_video(tmp_path / "grey.mp4", frames, fps=60)
  keep = lambda height, width: (height, width)
  whole = shots.read_shot(tmp_path / "grey.mp4", size=keep)
  np.testing.assert_allclose(whole.frames.mean((1, 2, 3)), 50 + 4 * np.arange(len(whole.frames)), atol=3)
  assert len(whole.frames) == 46 and abs(whole.source_fps - 60) < 0.1
  late = shots.read_shot(tmp_path / "grey.mp4", size=lambda h, w: (h // 2, w // 2), start=0.5, num_frames=20)
  assert late.frames.shape == (20, 8, 12, 3) and late.source_size == (16, 24)
  np.testing.assert_allclose(late.frames.mean((1, 2, 3)), 110 + 4 * np.arange(20), atol=3)
  assert (late.index, late.start) == (30, pytest.approx(0.5))
  with pytest.raises(UserError, match=r"--start is 7 s, but .*grey.mp4 ends after 1.5 s"):
    shots.read_shot(tmp_path / "grey.mp4", size=keep, start=7)
  with pytest.raises(UserError, match=r"grey.mp4 lasts 0.32 s after --start 1.2; .* needs 0.5 s or more"):
    shots.read_shot(tmp_path / "grey.mp4", size=keep, start=1.2)


@pytest.mark.parametrize("count, expected", [(2, False), (14, False), (20, True)])
def test_a_gif_is_a_video_from_half_a_second_on(tmp_path, count, expected):
  rng = np.random.default_rng(0)
  first, *others = (Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)) for _ in range(count))
  first.save(tmp_path / "a.gif", save_all=True, append_images=others, duration=40)
  assert shots.is_video(tmp_path / "a.gif") == expected


def test_the_content_tells_photos_from_videos(tmp_path, video):
  image = Image.new("RGB", (20, 20), "red")
  for suffix in (".jpg", ".png", ".webp", ".tif", ".bmp", ".gif"):
    image.save(tmp_path / f"photo{suffix}")
    assert not shots.is_video(tmp_path / f"photo{suffix}"), suffix
  image.save(tmp_path / "photo.mp4", "PNG")
  assert not shots.is_video(tmp_path / "photo.mp4")
  (tmp_path / "video.jpg").write_bytes(video.read_bytes())
  assert shots.is_video(tmp_path / "video.jpg")
  (tmp_path / "text.mov").write_text("neither")
  (tmp_path / "text.jpg").write_text("neither")
  assert shots.is_video(tmp_path / "text.mov") and not shots.is_video(tmp_path / "text.jpg")
