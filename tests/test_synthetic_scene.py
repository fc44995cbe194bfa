"""Scenes as a whole: exact truth, what is seen, what they hold, the same everywhere from a seed, and no two alike."""

import hashlib
import itertools
import os
import subprocess
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_pipeline.synthetic import families
from data_pipeline.synthetic.layers import Texture
from data_pipeline.synthetic.scene import Scene, sample_scene
from data_pipeline.synthetic.wind import LINEAR, Wind, course_index
from data_pipeline.synthetic.windows import scene_to_window
from data_pipeline.synthetic.world import World
from gid_jax.errors import UserError
from gid_jax.media.folders import load_backgrounds, load_photos, load_sprites
from gid_jax.types import Window

TINY = {"height": 48, "width": 64, "num_frames": 20}
SHAPE = (96, 128)
# (rows, columns) of two rectangles, the second in front; the first one leaves the picture at times.
RECTANGLES = (np.array([[20, 60], [4, 50]]), np.array([[35, 80], [44, 90]]))


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
  """The first scenes, all before one photo."""
  photo = np.random.default_rng(0).integers(0, 255, (12, 16, 3)).astype(np.uint8)
  photo = cv2.resize(photo, (128, 96), interpolation=cv2.INTER_CUBIC)
  return [sample_scene(seed, height=80, width=128, num_frames=20, backgrounds=[photo]) for seed in range(30)]


@pytest.fixture(scope="module")
def moving() -> Scene:
  """The first tiny scene with some motion and some background."""
  for seed in range(40):
    scene = sample_scene(seed, **TINY)
    if (scene.mean_magnitude() > 0.3).mean() > 0.05 and (scene.layer_ids == 0).mean() > 0.1:
      return scene
  raise AssertionError("no scene of forty moves before its background")


def make_sprite(height: int = 60, width: int = 40) -> np.ndarray:
  y, x = np.mgrid[:height, :width]
  waves = 128 + 60 * np.sin(0.9 * x) * np.cos(0.7 * y)
  return np.stack([waves, 255 - waves, waves / 2, np.full_like(waves, 255)], -1).astype(np.uint8)


def make_world(seed: int) -> World:
  rng = np.random.default_rng(seed)
  return World(rng, Wind(rng, num_frames=30, fps=30.0, width=SHAPE[1]), SHAPE)


def show(world: World) -> Scene:
  """The scene of a world before plain gray, as light."""
  return Scene(0, np.full((*SHAPE, 3), 90, np.float32), world, num_frames=30, fps=30.0, camera=None)


def add_rectangle(world: World, number: int, *, scale: float, shadow: float = 0.0) -> int:
  """Adds one of the rectangles, which slides along x (the first) or y; returns its course."""
  (top, bottom), (left, right) = RECTANGLES[number]
  pad = 30
  rgba = np.zeros((bottom - top + 2 * pad, right - left + 2 * pad, 4), np.uint8)
  rgba[pad:-pad, pad:-pad] = [200, 40 + 100 * number, 20, 255]
  basis = np.zeros((1, *rgba.shape[:2], 2), np.float32)
  basis[..., number] = 1
  course = course_index(world.wind.add_driver(1.5, x=60, scale=scale), LINEAR)
  corner = (int(left) - pad, int(top) - pad)
  world.layers.append(Texture(SHAPE, corner, rgba, basis, np.array([course]), world.new_part(), shadow=shadow))
  return course


def depth_in_rectangle(x, y, number: int) -> np.ndarray:
  """How far inside a rectangle the points are, pixels; below zero outside. Its edges are those of its pixels."""
  (top, bottom), (left, right) = RECTANGLES[number] - 0.5
  return np.minimum(np.minimum(x - left, right - x), np.minimum(y - top, bottom - y))


@pytest.mark.parametrize("seed", range(4))
def test_visible_is_what_geometry_says(seed):
  world = make_world(seed)
  courses = [add_rectangle(world, number, scale=14.0) for number in (0, 1)]
  scene, hidden, mixed = show(world), 0, 0
  x, y = np.meshgrid(np.arange(SHAPE[1], dtype=float), np.arange(SHAPE[0], dtype=float))
  ids = np.where(depth_in_rectangle(x, y, 1) > 0, 2, np.where(depth_in_rectangle(x, y, 0) > 0, 1, 0))
  np.testing.assert_array_equal(scene.layer_ids, ids)
  for time in (0.0, 4.5, 11.0, 19.5, 26.0):
    aside, down = world.wind.courses(np.array([time]))[0][courses]
    u, v = x + aside * (ids == 1), y + down * (ids == 2)
    first, second = depth_in_rectangle(u - aside, v, 0), depth_in_rectangle(u, v - down, 1)
    top = np.where(second > 0, 2, np.where(first > 0, 1, 0))
    frame = np.minimum(np.minimum(u + 0.5, SHAPE[1] - 0.5 - u), np.minimum(v + 0.5, SHAPE[0] - 0.5 - v))
    clear = (np.abs(first) > 1) & (np.abs(second) > 1) & (np.abs(frame) > 0.01)
    expected = (top == ids) & (frame > 0)
    seen, wholly = scene.visible(time), scene.visible(time, wholly=True)
    np.testing.assert_array_equal(seen[clear], expected[clear])
    np.testing.assert_array_equal((wholly | (np.abs(frame) < 1))[clear], (expected | (np.abs(frame) < 1))[clear])
    assert not (wholly & ~seen).any()
    hidden, mixed = hidden + (clear & ~expected).sum(), mixed + (seen & ~wholly).sum()
  assert hidden > 300 and mixed > 100


def test_frames_show_what_lies_in_front_where_it_is():
  world = make_world(1)
  courses = [add_rectangle(world, number, scale=14.0) for number in (0, 1)]
  scene = show(world)
  x, y = np.meshgrid(np.arange(SHAPE[1], dtype=float), np.arange(SHAPE[0], dtype=float))
  for time in (0.0, 7.5, 22.0):
    aside, down = world.wind.courses(np.array([time]))[0][courses]
    first, second = depth_in_rectangle(x - aside, y, 0), depth_in_rectangle(x, y - down, 1)
    expected = np.where((second > 0)[..., None], [200, 140, 20], np.where((first > 0)[..., None], [200, 40, 20], 90))
    clear = (np.abs(first) > 2) & (np.abs(second) > 2)
    np.testing.assert_array_equal(scene.frame(time)[clear], expected[clear])


@pytest.mark.parametrize("light", [-0.2, 0.2])
def test_shadows_fall_below_and_away_from_the_light(light):
  world = make_world(2)
  world.light = light
  add_rectangle(world, 1, scale=1.0, shadow=0.5)
  image = show(world).image[..., 0].astype(int)
  (_, bottom), (left, right) = np.int64(RECTANGLES[1])
  beside = {-1: image[60, left - 7 : left - 1].mean(), 1: image[60, right + 1 : right + 7].mean()}
  away = -np.sign(light)
  assert image[bottom + 1, 60] < 80 and beside[away] < 85 and beside[away] < beside[-away] - 2
  assert (image[:, :30] == 90).all() and image[image != 200].max() == 90  # none far away, nothing lit


def test_same_seed_same_scene_and_other_seed_other_scene():
  one, two, other = (sample_scene(seed, **TINY) for seed in (3, 3, 4))
  np.testing.assert_array_equal(one.frame(7.5), two.frame(7.5))
  np.testing.assert_array_equal(one.displacement([7.5]), two.displacement([7.5]))
  assert (one.image != other.image).any()


def make_checksum() -> str:
  """Of pictures, spectra and families of a dozen scenes; another process runs this too."""
  digest = hashlib.sha256()
  for seed in range(12):
    scene = sample_scene(seed, **TINY, sprites=[make_sprite(), make_sprite(30, 50)])
    for array in (scene.image, scene.frame(7.5), scene.spectral_volume(5), scene.visible(7.5)):
      digest.update(np.ascontiguousarray(array).tobytes())
    digest.update(" ".join(scene.families).encode())
  return digest.hexdigest()


def test_another_process_makes_the_same_scenes():
  seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
  code = "import cv2; cv2.setNumThreads(1); import test_synthetic_scene as t; print(t.make_checksum())"
  paths = [str(Path(__file__).parents[1]), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
  environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(paths)}
  there = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
  assert there.stdout.strip() == make_checksum()


def test_scene_is_exact_at_frame_zero(moving):
  assert moving.image.shape == (48, 64, 3) and moving.image.dtype == np.uint8
  np.testing.assert_array_equal(moving.frame(0), moving.image)
  assert not moving.displacement([0.0]).any()
  assert moving.visible(0).all()
  assert moving.displacement([5.0]).any()


def test_background_stays_still(moving):
  everywhere = moving.displacement(np.arange(20))
  assert not everywhere[:, moving.layer_ids == 0].any() and everywhere.any()


@pytest.mark.parametrize("num_bands", [1, 4, 11])
def test_spectral_volume_is_the_fft_of_the_displacement(moving, num_bands):
  truth = np.fft.rfft(moving.displacement(np.arange(20)).astype(np.float64), axis=0)[:num_bands]
  volume = moving.spectral_volume(num_bands)
  assert volume.shape == (num_bands, 48, 64, 4) and volume.dtype == np.float32
  tolerance = 1e-5 * max(1.0, np.abs(truth).max())
  np.testing.assert_allclose(volume[..., :2], truth.real, atol=tolerance)
  np.testing.assert_allclose(volume[..., 2:], truth.imag, atol=tolerance)


def test_mean_magnitude_is_that_of_the_displacement(moving):
  lengths = np.linalg.norm(moving.displacement(np.arange(20)).astype(np.float64), axis=-1)
  np.testing.assert_allclose(moving.mean_magnitude(), lengths.mean(0), rtol=1e-4, atol=1e-5)


def test_frame_shows_no_flicker_where_nothing_moves():
  background = np.random.default_rng(0).uniform(0, 255, (*SHAPE, 3)).astype(np.float32)
  still = Scene(0, background, make_world(0), num_frames=20, fps=30.0, camera=None)
  np.testing.assert_array_equal(still.frame(13), still.image)
  assert not still.spectral_volume(3).any() and still.visible(13).all()


def test_some_scenes_are_still_and_most_move(scenes):
  moves = [(scene.mean_magnitude() > 0.1).mean() > 0.005 for scene in scenes]
  assert 0.6 < np.mean(moves) < 1


def find_detail(scene: Scene) -> np.ndarray:
  """The fine detail of what stands before the background, zero elsewhere: [h w]."""
  gray = cv2.cvtColor(scene.image, cv2.COLOR_RGB2GRAY).astype(np.float32)
  return (gray - cv2.GaussianBlur(gray, (0, 0), 3)) * (scene.layer_ids > 0)


def correlate(one: np.ndarray, two: np.ndarray) -> float:
  """Largest correlation of two details over all shifts, mirrored or not."""
  norms = np.linalg.norm(one) * np.linalg.norm(two) + 1e-9
  spectrum = np.fft.rfft2(one)
  products = [np.fft.irfft2(spectrum * np.fft.rfft2(other).conj(), one.shape) for other in (two, two[:, ::-1])]
  return float(np.max(products) / norms)


def test_no_two_scenes_share_more_than_the_background(scenes):
  details = [find_detail(scene) for scene in scenes if (scene.layer_ids > 0).sum() > 200]
  volumes = [scene.spectral_volume(6)[1:].ravel() for scene in scenes]
  volumes = [volume / np.linalg.norm(volume) for volume in volumes if volume.any()]
  assert len(details) > 15 and len(volumes) > 15
  assert max(correlate(one, two) for one, two in itertools.combinations(details, 2)) < 0.6
  assert max(one @ two for one, two in itertools.combinations(volumes, 2)) < 0.8
  copy = 0.7 * np.roll(details[0], (5, 9), (0, 1))[:, ::-1]  # what would be found
  assert correlate(details[0], copy) > 0.95


def test_every_family_is_in_five_percent_of_the_scenes_and_is_built(monkeypatch):
  built, counts = [], {}
  for name in dir(families):
    if name.startswith("add_"):
      monkeypatch.setattr(families, name, lambda *_, name=name, **__: built.append(name))
  num = 8000
  for seed in range(num):
    built.clear()
    rng = np.random.default_rng(seed)
    world = types.SimpleNamespace(rng=rng)
    setting, metres = families.draw_setting(rng)
    low, high = families.SETTINGS[setting].metres
    assert low <= metres <= high
    found = families.compose(world, setting, [make_sprite] if seed % 2 else [])
    builders = {"water plants": "add_water_plants", "cutout": "add_sprites"}
    assert {builders.get(name, f"add_{name}") for name in found if name != "still"} == set(built)
    assert seed % 2 or "cutout" not in found
    for name in found:
      counts[name] = counts.get(name, 0) + (2 if name == "cutout" else 1)
  assert counts.keys() == {"grass", "flowers", "branches", "trees", "cloth", "hanging", "flames", "water plants",
                           "cutout", "rigid", "still"}  # fmt: skip
  assert min(counts.values()) >= 0.05 * num, counts


def test_given_backgrounds_and_sprites_are_used():
  red = np.zeros((40, 90, 3), np.uint8)
  red[..., 0] = 250
  shares, held = [], set()
  for seed in range(12):
    scene = sample_scene(seed, **TINY, backgrounds=[red], sprites=[make_sprite()])
    image = scene.image.astype(int)
    shares.append(((image[..., 0] > 120) & (image[..., 1:].max(-1) < 60)).mean())
    held |= set(scene.families)
  assert max(shares) > 0.5 and "cutout" in held


def test_spectral_volume_rejects_too_many_bands(moving):
  with pytest.raises(UserError, match="lower num_bands"):
    moving.spectral_volume(12)


@pytest.mark.parametrize("changes", [{"height": 8}, {"width": 15}, {"num_frames": 1}])
def test_scene_rejects_tiny_pictures_and_single_frames(changes):
  with pytest.raises(UserError, match=r"sample_scene: .*16x16 px and 2 frames"):
    sample_scene(0, **{**TINY, **changes})


# Windows and folders


def test_a_window_may_have_no_later_frames(moving):
  window = scene_to_window(moving, num_bands=2, num_pairs=0, rng=np.random.default_rng(0))
  assert window.frames.shape == (0, 48, 64, 3) and window.frames.dtype == np.uint8
  assert window.flows.shape == (0, 48, 64, 2)


def test_window_has_agreed_shapes_and_scaling(moving):
  window = scene_to_window(moving, num_bands=5, num_pairs=3, rng=np.random.default_rng(0))
  assert isinstance(window, Window)
  assert window.scene == f"synthetic-{moving.seed}" and window.source == "synthetic"
  assert window.spectrum.shape == (5, 24, 32, 4) and window.spectrum.dtype == np.float16
  assert window.frames.shape == (3, 48, 64, 3) and window.frames.dtype == np.uint8
  assert window.flows.shape == (3, 48, 64, 2) and window.flows.dtype == np.float16
  full = moving.spectral_volume(5)
  quad = (full[:, ::2, ::2] + full[:, 1::2, ::2] + full[:, ::2, 1::2] + full[:, 1::2, 1::2]) / 4
  np.testing.assert_allclose(window.spectrum, quad / 2, rtol=2e-3, atol=2e-3)
  every = moving.displacement(np.arange(20))
  np.testing.assert_allclose(window.depth, np.linalg.norm(every, axis=-1).mean(0), rtol=2e-3, atol=2e-3)
  frames = np.stack([moving.frame(t) for t in range(20)])
  for image, flow in zip(window.frames, window.flows, strict=True):
    times = [t for t in range(1, 20) if (frames[t] == image).all()]
    assert any(np.allclose(flow, every[t], rtol=2e-3, atol=2e-3) for t in times)


def test_window_rejects_odd_sizes():
  scene = sample_scene(0, height=33, width=40, num_frames=4)
  with pytest.raises(UserError, match="multiples of the motion stride"):
    scene_to_window(scene, num_bands=2, num_pairs=1, rng=np.random.default_rng(0))


def test_folders_load_as_rgb_and_rgba_with_limited_size(tmp_path):
  photo = np.zeros((300, 1024, 3), np.uint8)
  photo[..., 0] = 255  # red
  cv2.imwrite(str(tmp_path / "a.png"), photo[..., ::-1])
  sprite = make_sprite()
  cv2.imwrite(str(tmp_path / "b.png"), cv2.cvtColor(sprite, cv2.COLOR_RGBA2BGRA))
  (tmp_path / "notes.txt").write_text("not a picture")
  backgrounds, sprites = load_backgrounds(tmp_path), load_sprites(tmp_path)
  assert [image.shape for image in backgrounds] == [(150, 512, 3), (60, 40, 3)]
  assert tuple(backgrounds[0][0, 0]) == (255, 0, 0)
  assert len(sprites) == 1
  np.testing.assert_array_equal(sprites[0], sprite)
  np.testing.assert_array_equal(load_photos("", str(tmp_path))[1][0], sprite)
  assert load_photos("", str(tmp_path))[0] == []


def test_cut_outs_of_16_bits_and_lines_of_pixels_are_read(tmp_path):
  sprite = make_sprite()
  cv2.imwrite(str(tmp_path / "a.png"), cv2.cvtColor(sprite, cv2.COLOR_RGBA2BGRA).astype(np.uint16) * 257)
  cv2.imwrite(str(tmp_path / "b.png"), np.full((1, 2000, 4), 9, np.uint8))
  deep, line = load_sprites(tmp_path)
  assert deep.dtype == np.uint8 and line.shape == (1, 512, 4)
  np.testing.assert_array_equal(deep, sprite)


def test_folders_without_such_pictures_are_user_errors(tmp_path):
  with pytest.raises(UserError, match="no readable picture"):
    load_backgrounds(tmp_path)
  cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20, 3), np.uint8))
  with pytest.raises(UserError, match=r"no picture in .* has an alpha channel"):
    load_sprites(tmp_path)
