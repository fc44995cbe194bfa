import cv2
import numpy as np
import pytest

from data_pipeline.synthetic import props
from data_pipeline.synthetic.folders import load_backgrounds, load_sprites
from data_pipeline.synthetic.scene import Scene, sample_scene
from data_pipeline.synthetic.wind import Wind
from data_pipeline.synthetic.windows import scene_to_window
from data_pipeline.synthetic.world import World
from gid_jax.errors import UserError
from gid_jax.types import Window

TINY = {"height": 48, "width": 64, "num_frames": 20}


def first_moving_scene(**options) -> Scene:
  for seed in range(20):
    scene = sample_scene(seed, **{**TINY, **options})
    if (scene.mean_magnitude() > 0.3).mean() > 0.05:
      return scene
  raise AssertionError("no scene of twenty moves")


def textured_sprite(height: int = 60, width: int = 40) -> np.ndarray:
  y, x = np.mgrid[:height, :width]
  waves = 128 + 60 * np.sin(0.9 * x) * np.cos(0.7 * y)
  return np.stack([waves, 255 - waves, waves / 2, np.full_like(waves, 255)], -1).astype(np.uint8)


def build_scene(kind: str, seed: int) -> Scene:
  """A scene with one cut-out, rooted or hung, on a plain gray background."""
  rng, shape = np.random.default_rng(seed), (96, 128)
  world = World(rng, Wind(rng, num_frames=30, fps=30.0, width=shape[1]), shape)
  sprite = textured_sprite().astype(np.float32)
  {"rooted": props.add_rooted, "hung": props.add_hung}[kind](world, sprite, (40, 36 if kind == "rooted" else 10))
  return Scene(seed, np.full((*shape, 3), 90, np.float32), world, num_frames=30, fps=30.0, camera=None)


def build_lively_scene(kind: str) -> tuple[Scene, int]:
  """The first such scene with a displacement above 4 px, and the frame where it is largest."""
  for seed in range(20):
    scene = build_scene(kind, seed)
    farthest = np.linalg.norm(scene.displacement(np.arange(30)), axis=-1).max((1, 2))
    if farthest.max() > 4:
      return scene, int(farthest.argmax())
  raise AssertionError("no scene of twenty moves by 4 px")


def test_same_seed_same_scene_and_other_seed_other_scene():
  one, two, other = (sample_scene(seed, **TINY) for seed in (3, 3, 4))
  np.testing.assert_array_equal(one.frame(7.5), two.frame(7.5))
  np.testing.assert_array_equal(one.displacement([7.5]), two.displacement([7.5]))
  assert (one.image != other.image).any()


def test_scene_is_exact_at_frame_zero():
  scene = first_moving_scene()
  assert scene.image.shape == (48, 64, 3) and scene.image.dtype == np.uint8
  np.testing.assert_array_equal(scene.frame(0), scene.image)
  assert not scene.displacement([0.0]).any()
  assert scene.visible(0).all()
  assert scene.displacement([5.0]).any()


def test_background_stays_still():
  scene = first_moving_scene()
  everywhere = scene.displacement(np.arange(20))
  assert not everywhere[:, scene.layer_ids == 0].any()
  far = cv2.dilate((scene.layer_ids > 0).astype(np.uint8), np.ones((41, 41))) == 0
  if far.any():
    scene._camera = None  # its noise changes from frame to frame
    np.testing.assert_array_equal(scene.frame(9)[far], scene.frame(0)[far])


@pytest.mark.parametrize("num_bands", [1, 4, 11])
def test_spectral_volume_is_the_fft_of_the_displacement(num_bands):
  scene = first_moving_scene()
  truth = np.fft.rfft(scene.displacement(np.arange(20)).astype(np.float64), axis=0)[:num_bands]
  volume = scene.spectral_volume(num_bands)
  assert volume.shape == (num_bands, 48, 64, 4) and volume.dtype == np.float32
  np.testing.assert_allclose(volume[..., :2], truth.real, atol=2e-4)
  np.testing.assert_allclose(volume[..., 2:], truth.imag, atol=2e-4)


def test_spectral_volume_rejects_too_many_bands():
  with pytest.raises(UserError, match="lower num_bands"):
    sample_scene(0, **TINY).spectral_volume(12)


def test_what_was_behind_is_seen_when_a_thing_leaves():
  scene, time = build_lively_scene("hung")
  left = cv2.dilate((scene._draw_parts(time)[1::3, 1::3] > 0).astype(np.uint8), np.ones((5, 5))) == 0
  left &= scene.layer_ids > 0
  assert left.sum() > 5
  np.testing.assert_array_equal(scene.frame(time)[left], 90)


def test_visible_is_false_where_a_thing_has_moved_over_the_background():
  scene, time = build_lively_scene("hung")
  covered = (scene._draw_parts(time)[1::3, 1::3] > 0) & (scene.layer_ids == 0)
  assert covered.sum() > 5
  assert not scene.visible(time)[covered].any()
  assert scene.visible(time)[:, :15].all()


def test_roots_are_still_and_tips_move():
  scene, _ = build_lively_scene("rooted")
  moved = np.hypot(*np.moveaxis(scene.displacement(np.arange(30)), -1, 0)).max(0)
  column = moved[38:94, 60]
  assert column[-1] < 0.2 and column[0] > 1


def test_hung_thing_turns_rigidly_about_its_pivot():
  scene = build_scene("hung", 1)
  y, x = np.nonzero(scene.layer_ids)
  rest = np.stack([x, y], -1) - np.array([60.0, 10.0])  # pivot: middle of the upper edge
  for move in scene.displacement([6.0, 17.0]):
    now = rest + move[y, x]
    np.testing.assert_allclose(np.hypot(*now.T), np.hypot(*rest.T), atol=1e-3)


def test_frame_shows_no_flicker_where_nothing_moves():
  still = Scene(
    0,
    np.random.default_rng(0).uniform(0, 255, (32, 32, 3)).astype(np.float32),
    World(np.random.default_rng(0), Wind(np.random.default_rng(0), num_frames=20, fps=30.0, width=32), (32, 32)),
    num_frames=20,
    fps=30.0,
    camera=None,
  )  # fmt: skip
  np.testing.assert_array_equal(still.frame(13), still.image)
  assert not still.spectral_volume(3).any() and still.visible(13).all()


def test_some_scenes_are_still_and_most_move():
  moving = [(sample_scene(seed, **TINY).mean_magnitude() > 0.1).mean() > 0.005 for seed in range(24)]
  assert 0.5 < np.mean(moving) < 1


def test_given_backgrounds_and_sprites_are_used():
  red = np.zeros((40, 90, 3), np.uint8)
  red[..., 0] = 250
  shares = []
  for seed in range(8):
    image = sample_scene(seed, **TINY, backgrounds=[red], sprites=[textured_sprite()]).image.astype(int)
    shares.append(((image[..., 0] > 120) & (image[..., 1:].max(-1) < 60)).mean())
  assert max(shares) > 0.5


def test_window_has_agreed_shapes_and_scaling():
  scene = first_moving_scene()
  window = scene_to_window(scene, num_bands=5, num_pairs=3, rng=np.random.default_rng(0))
  assert isinstance(window, Window)
  assert window.scene == f"synthetic-{scene.seed}" and window.source == "synthetic"
  assert window.spectrum.shape == (5, 24, 32, 4) and window.spectrum.dtype == np.float16
  assert window.frames.shape == (3, 48, 64, 3) and window.frames.dtype == np.uint8
  assert window.flows.shape == (3, 48, 64, 2) and window.flows.dtype == np.float16
  full = scene.spectral_volume(5)
  quad = (full[:, ::2, ::2] + full[:, 1::2, ::2] + full[:, ::2, 1::2] + full[:, 1::2, 1::2]) / 4
  np.testing.assert_allclose(window.spectrum, quad / 2, rtol=2e-3, atol=2e-3)
  every = scene.displacement(np.arange(20))
  np.testing.assert_allclose(window.depth, np.linalg.norm(every, axis=-1).mean(0), rtol=2e-3, atol=2e-3)
  frames = np.stack([scene.frame(t) for t in range(20)])
  for image, flow in zip(window.frames, window.flows, strict=True):
    times = [t for t in range(1, 20) if (frames[t] == image).all()]
    assert any(np.allclose(flow, every[t], rtol=2e-3, atol=2e-3) for t in times)


def test_window_rejects_odd_sizes():
  scene = sample_scene(0, height=33, width=40, num_frames=4)
  with pytest.raises(UserError, match="multiples of the motion stride"):
    scene_to_window(scene, num_bands=2, num_pairs=1, rng=np.random.default_rng(0))


def test_scene_rejects_tiny_pictures():
  with pytest.raises(UserError, match="16x16"):
    sample_scene(0, height=8, width=64)


def test_folders_load_as_rgb_and_rgba_with_limited_size(tmp_path):
  photo = np.zeros((300, 1024, 3), np.uint8)
  photo[..., 0] = 255  # red
  cv2.imwrite(str(tmp_path / "a.png"), photo[..., ::-1])
  sprite = textured_sprite()
  cv2.imwrite(str(tmp_path / "b.png"), cv2.cvtColor(sprite, cv2.COLOR_RGBA2BGRA))
  (tmp_path / "notes.txt").write_text("not a picture")
  backgrounds, sprites = load_backgrounds(tmp_path), load_sprites(tmp_path)
  assert [image.shape for image in backgrounds] == [(150, 512, 3), (60, 40, 3)]
  assert tuple(backgrounds[0][0, 0]) == (255, 0, 0)
  assert len(sprites) == 1
  np.testing.assert_array_equal(sprites[0], sprite)


def test_empty_folder_is_a_user_error(tmp_path):
  with pytest.raises(UserError, match="no readable picture"):
    load_backgrounds(tmp_path)
