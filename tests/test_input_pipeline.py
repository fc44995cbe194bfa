"""Input pipeline: augmentation against exact coordinates, shapes, mixtures and exact resume."""

import itertools
import json

import ml_collections
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from gid_jax import input_pipeline as ip
from gid_jax.errors import UserError
from gid_jax.types import Window

SIZE, NUM_BANDS, NUM_FRAMES = (32, 48), 4, 3
SOURCES = {"real": 6, "loop": 3, "synthetic": 5}


def make_window(rng, source="real", **changes):
  height, width = SIZE
  pixels = lambda *shape: rng.integers(0, 256, shape, dtype=np.uint8)
  numbers = lambda *shape: rng.normal(size=shape).astype(np.float16)
  window = Window(
    image=pixels(height, width, 3),
    spectrum=numbers(NUM_BANDS, height // 2, width // 2, 4),
    frames=pixels(NUM_FRAMES, height, width, 3),
    flows=numbers(NUM_FRAMES, height, width, 2),
    depth=abs(numbers(height, width)),
    scene="meadow",
    source=source,
  )
  return window._replace(**changes)


def write_window(path, window):
  path.parent.mkdir(parents=True, exist_ok=True)
  arrays = {name: value for name, value in window._asdict().items() if not isinstance(value, str)}
  save_file(arrays, path, metadata={"scene": window.scene, "source": window.source})


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  """A data folder; band k of window i holds the value 100 i + k, so a batch tells what it was made from."""
  directory, rng, index = tmp_path_factory.mktemp("data"), np.random.default_rng(0), 0
  for split, (source, count) in itertools.product(("train", "validation"), SOURCES.items()):
    for _ in range(count):
      spectrum = np.zeros((NUM_BANDS, SIZE[0] // 2, SIZE[1] // 2, 4), np.float16)
      spectrum += (100 * index + np.arange(NUM_BANDS))[:, None, None, None]
      write_window(directory / split / f"{source}-{index:03d}.safetensors", make_window(rng, source, spectrum=spectrum))
      index += 1
  (directory / "statistics.json").write_text(json.dumps({"scale": [3.0, 2.0, 1.5, 1.0], "percentile": 95}))
  return directory


def make_config(data, **changes):
  config = ml_collections.ConfigDict(
    {
      "directory": str(data),
      "num_bands": NUM_BANDS,
      "sources": {},
      "augment": False,
      "bands_per_example": 2,
      "crop": ml_collections.config_dict.placeholder(tuple),
      "num_threads": 2,
    }
  )
  config.update(changes)
  return config


def take(iterator, count):
  return list(itertools.islice(iterator, count))


def assert_same_batches(left, right):
  assert len(left) == len(right)
  for a, b in zip(left, right, strict=True):
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])


# Reading


def test_window_round_trip_and_partial_read(tmp_path):
  window = make_window(np.random.default_rng(1))
  write_window(tmp_path / "a.safetensors", window)
  read = ip.read_window(tmp_path / "a.safetensors")
  for name in Window._fields:
    np.testing.assert_array_equal(getattr(read, name), getattr(window, name))
  part = ip.read_window(tmp_path / "a.safetensors", fields=["image"])
  np.testing.assert_array_equal(part.image, window.image)
  assert part.spectrum.size == 0 and part.scene == "meadow"


def test_bad_data_is_a_user_error(tmp_path, data):
  with pytest.raises(UserError, match="not a readable"):
    ip.read_window(tmp_path / "none.safetensors")
  good = next((data / "train").glob("*.safetensors")).read_bytes()
  (tmp_path / "cut.safetensors").write_bytes(good[: len(good) // 2])
  with pytest.raises(UserError, match=r"cut\.safetensors"):
    ip.read_window(tmp_path / "cut.safetensors")
  save_file({"image": np.zeros(2)}, tmp_path / "poor.safetensors")
  with pytest.raises(UserError, match=r"poor\.safetensors"):
    ip.read_window(tmp_path / "poor.safetensors")
  with pytest.raises(UserError, match=r"no \*\.safetensors"):
    ip.list_windows(tmp_path, "train")


def test_scale_is_read_and_checked(tmp_path, data):
  np.testing.assert_array_equal(ip.read_scale(data, num_bands=2), np.float32([3, 2]))
  with pytest.raises(UserError, match="4 bands"):
    ip.read_scale(data, num_bands=5)
  with pytest.raises(UserError, match="statistics"):
    ip.read_scale(tmp_path, num_bands=2)


def test_two_folders_are_listed_by_file_name(tmp_path):
  for name in ("b/train/real-1.safetensors", "a/train/real-2.safetensors", "a/train/real-0.safetensors"):
    write_window(tmp_path / name, make_window(np.random.default_rng(0)))
  names = [file.name for file in ip.list_windows([tmp_path / "a", tmp_path / "b"], "train")]
  assert names == ["real-0.safetensors", "real-1.safetensors", "real-2.safetensors"]


# Augmentation: the oracle moves both ends of every vector by an exact formula on pixel centres.


def affine_window(rng, dtype=np.float32):
  """A window whose every field is affine in position, so that bilinear interpolation is exact inside."""
  height, width = SIZE
  gradient, offset = rng.uniform(-0.05, 0.05, (NUM_BANDS + NUM_FRAMES, 2, 2, 2)), rng.uniform(-3, 3, (2, 2))

  def motion(index, part, points):
    return points @ gradient[index, part].T + offset[part]

  y, x = np.mgrid[:height, :width]
  points = np.stack([x, y], -1).astype(float)
  # Motion-grid pixel (i, j) sits in the middle of four photo pixels; its unit is two photo pixels.
  gy, gx = np.mgrid[: height // 2, : width // 2]
  grid_points = np.stack([2 * gx + 0.5, 2 * gy + 0.5], -1)
  spectrum = [
    np.concatenate([motion(k, 0, grid_points) / 2, motion(k, 1, grid_points) / 2], -1) for k in range(NUM_BANDS)
  ]
  flows = [motion(NUM_BANDS + n, 0, points) for n in range(NUM_FRAMES)]
  image = np.stack([x * 4, y * 6, x + y], -1).astype(np.uint8)
  window = Window(
    image=image,
    spectrum=np.stack(spectrum).astype(dtype),
    frames=np.stack([image] * NUM_FRAMES),
    flows=np.stack(flows).astype(dtype),
    depth=(1 + 0.1 * x).astype(dtype),
    scene="s",
    source="synthetic",
  )
  return window, motion


def check_transform(window, motion, moved, forward, backward, zoom):
  """`forward` maps points of the source photo to the new one, `backward` the other way; both on pixel centres."""
  height, width = moved.image.shape[:2]
  y, x = np.mgrid[:height, :width]
  gy, gx = np.mgrid[: height // 2, : width // 2]
  points = np.stack([x, y], -1).astype(float)
  grid_points = np.stack([2 * gx + 0.5, 2 * gy + 0.5], -1)
  inside = (slice(3, -3), slice(3, -3))

  def expected(index, part, where):
    start = backward(where)
    return forward(start + motion(index, part, start)) - where

  for n in range(NUM_FRAMES):
    np.testing.assert_allclose(
      moved.flows[n][inside], expected(NUM_BANDS + n, 0, points)[inside], atol=0.01
    )
  for k in range(NUM_BANDS):
    for part in (0, 1):
      np.testing.assert_allclose(
        moved.spectrum[k][inside][..., 2 * part : 2 * part + 2],
        (expected(k, part, grid_points) / 2)[inside],
        atol=0.01,
      )
  source = backward(points)
  np.testing.assert_allclose(moved.depth[inside], (zoom * (1 + 0.1 * source[..., 0]))[inside], atol=0.01)
  colours = np.stack([source[..., 0] * 4, source[..., 1] * 6, source.sum(-1)], -1)
  np.testing.assert_allclose(moved.image[inside], colours[inside], atol=1)
  np.testing.assert_array_equal(moved.frames[0], moved.image)


def test_flip_is_an_exact_mirror():
  window, motion = affine_window(np.random.default_rng(2))
  flipped = ip.flip_window(window)
  mirror = lambda p: np.stack([SIZE[1] - 1 - p[..., 0], p[..., 1]], -1)
  check_transform(window, motion, flipped, mirror, mirror, 1.0)
  np.testing.assert_array_equal(flipped.image, window.image[:, ::-1])
  np.testing.assert_array_equal(flipped.spectrum, window.spectrum[:, :, ::-1] * np.float32([-1, 1, -1, 1]))
  twice = ip.flip_window(flipped)
  np.testing.assert_array_equal(twice.flows, window.flows)


@settings(max_examples=10, deadline=None)
@given(zoom=st.floats(1, 1.5), left=st.floats(0, 1), top=st.floats(0, 1), size=st.sampled_from([SIZE, (24, 32)]))
def test_zoom_crop_scales_vectors(zoom, left, top, size):
  window, motion = affine_window(np.random.default_rng(3))
  offset = np.array([left * (SIZE[1] - size[1] / zoom), top * (SIZE[0] - size[0] / zoom)])
  moved = ip.zoom_crop(window, zoom=zoom, offset=tuple(offset), size=size)
  assert moved.image.shape[:2] == size and moved.spectrum.shape[1:3] == (size[0] // 2, size[1] // 2)
  forward = lambda p: (p + 0.5 - offset) * zoom - 0.5
  backward = lambda p: (p + 0.5) / zoom + offset - 0.5
  check_transform(window, motion, moved, forward, backward, zoom)


@settings(max_examples=10, deadline=None)
@given(degrees=st.floats(-5, 5))
def test_rotation_turns_vectors(degrees):
  window, motion = affine_window(np.random.default_rng(4))
  moved = ip.rotate(window, degrees=degrees)
  turn = np.exp(1j * np.radians(degrees))
  half = np.array([SIZE[1] / 2, SIZE[0] / 2])
  # The least zoom at which the turned-back corners of the output lie inside the photo.
  corners = np.array([half[0] + 1j * half[1], half[0] - 1j * half[1]]) / turn
  zoom = max((abs(corners.real) / half[0]).max(), (abs(corners.imag) / half[1]).max())

  def rotate_points(p, factor):
    z = (p[..., 0] + 0.5 - half[0] + 1j * (p[..., 1] + 0.5 - half[1])) * factor
    return np.stack([z.real + half[0] - 0.5, z.imag + half[1] - 0.5], -1)

  forward = lambda p: rotate_points(p, zoom * turn)
  backward = lambda p: rotate_points(p, 1 / (zoom * turn))
  check_transform(window, motion, moved, forward, backward, zoom)


def test_composition_equals_one_after_the_other():
  window, _ = affine_window(np.random.default_rng(5))
  first, second = ip.rotation_matrix(4.0, SIZE), ip.zoom_matrix(1.3, (3.0, 5.0))
  twice = ip.warp_window(ip.warp_window(window, first), second)
  once = ip.warp_window(window, ip.compose(second, first))
  inside = (slice(None), slice(6, -6), slice(6, -6))
  np.testing.assert_allclose(once.flows[inside], twice.flows[inside], atol=0.02)


def test_colour_jitter_treats_a_pair_alike_and_stays_in_range():
  image = np.random.default_rng(6).uniform(size=(8, 9, 3)).astype(np.float32)
  first, second = ip.jitter_colours(np.random.default_rng(7), [image, image])
  np.testing.assert_array_equal(first, second)
  assert first.dtype == np.float32 and first.min() >= 0 and first.max() <= 1
  assert abs(first - image).max() > 0.01
  # The same draw written out step by step.
  gamma, brightness, contrast, saturation = np.random.default_rng(7).uniform(0.8, 1.2, 4)
  expected = image**gamma * brightness
  expected = (expected - expected.mean()) * contrast + expected.mean()
  gray = (expected @ [0.299, 0.587, 0.114])[..., None]
  np.testing.assert_allclose(first, np.clip(gray + (expected - gray) * saturation, 0, 1), atol=1e-5)


# Batches

SHAPES = {
  "vae": {"slice": (3, 16, 24, 4), "band": (3,)},
  "ldm": {"image": (3, 32, 48, 3), "slice": (3, 2, 16, 24, 4), "band": (3, 2)},
  "ldm_coordinated": {"image": (3, 32, 48, 3), "slice": (3, 4, 16, 24, 4), "band": (3, 4)},
  "renderer": {"image": (3, 32, 48, 3), "target": (3, 32, 48, 3), "flow": (3, 32, 48, 2), "depth": (3, 32, 48)},
}


@pytest.mark.parametrize("stage", ip.STAGES)
@pytest.mark.parametrize("augment", [False, True])
def test_batches_have_the_promised_shapes_and_types(data, stage, augment):
  batch = next(ip.make_train_iterator(make_config(data, augment=augment), stage=stage, seed=0, batch_size=3))
  assert {name: array.shape for name, array in batch.items()} == SHAPES[stage]
  for name, array in batch.items():
    assert array.dtype == (np.int32 if name == "band" else np.float32)
  if "image" in batch:
    assert batch["image"].min() >= 0 and 0.5 < batch["image"].max() <= 1


@pytest.mark.parametrize("stage", ["vae", "ldm", "ldm_coordinated"])
def test_slices_are_of_the_bands_named(data, stage):
  seen = set()
  for batch in take(ip.make_train_iterator(make_config(data), stage=stage, seed=0, batch_size=3), 10):
    values = batch["slice"][..., 0, 0, 0]
    np.testing.assert_array_equal(values % 100, batch["band"])
    bands = batch["band"].reshape(3, -1)
    assert all(len(set(row)) == len(row) for row in bands)
    seen |= set(bands.ravel().tolist())
  assert seen == set(range(NUM_BANDS))


def test_crop_without_augmentation_copies_pixels(data):
  windows = [ip.read_window(file) for file in ip.list_windows(data, "train")]
  config = make_config(data, crop=(16, 24))
  for batch in take(ip.make_train_iterator(config, stage="renderer", seed=0, batch_size=3), 3):
    assert batch["target"].shape == (3, 16, 24, 3) and batch["flow"].shape == (3, 16, 24, 2)
    for image, target, flow in zip(batch["image"], batch["target"], batch["flow"], strict=True):
      places = [
        (window, top, left)
        for window in windows
        for top in range(0, 17, 2)
        for left in range(0, 25, 2)
        if np.array_equal(image, np.float32(window.image[top : top + 16, left : left + 24]) / 255)
      ]
      assert len(places) == 1
      window, top, left = places[0]
      cut = (slice(top, top + 16), slice(left, left + 24))
      assert any(
        np.array_equal(target, np.float32(frame[cut]) / 255) and np.array_equal(flow, vectors[cut])
        for frame, vectors in zip(window.frames, window.flows, strict=True)
      )


def test_every_window_once_an_epoch(data):
  batches = take(ip.make_train_iterator(make_config(data), stage="ldm_coordinated", seed=0, batch_size=7), 4)
  windows = np.concatenate([batch["slice"][:, 0, 0, 0, 0] // 100 for batch in batches])
  for epoch in (windows[:14], windows[14:]):
    np.testing.assert_array_equal(np.sort(epoch), np.arange(14))
  assert not np.array_equal(windows[:14], windows[14:])


def test_mixture_has_the_asked_proportions(data):
  config = make_config(data, sources={"real": 0.25, "loop": 0.75, "synthetic": 0.0})
  batches = take(ip.make_train_iterator(config, stage="ldm_coordinated", seed=0, batch_size=8), 10)
  windows = np.concatenate([batch["slice"][:, 0, 0, 0, 0] // 100 for batch in batches])
  real, loop = windows < 6, (windows >= 6) & (windows < 9)
  assert real.mean() == 0.25
  assert loop.mean() == 0.75


@pytest.mark.parametrize("stage", ["vae", "renderer"])
def test_resume_is_exact(data, stage):
  config = make_config(data, augment=True, sources={"real": 1.0, "synthetic": 2.0})
  make = lambda **kwargs: ip.make_train_iterator(config, stage=stage, batch_size=2, **{"seed": 3, **kwargs})
  iterator = make()
  take(iterator, 3)
  state = json.loads(json.dumps(iterator.get_state()))
  expected = take(iterator, 12)
  resumed = make()
  resumed.set_state(state)
  assert_same_batches(take(resumed, 12), expected)
  iterator.set_state(state)
  assert_same_batches(take(iterator, 2), expected[:2])
  name = "slice" if stage == "vae" else "flow"
  assert not np.array_equal(take(make(seed=4), 1)[0][name], take(make(), 1)[0][name])


def test_processes_share_the_global_batch_and_resume_in_another_number(data):
  config = make_config(data, augment=True)
  make = lambda **kwargs: ip.make_train_iterator(config, stage="vae", seed=0, batch_size=4, **kwargs)
  whole, shares = make(), [make(process_index=i, process_count=2) for i in range(2)]
  for _ in range(3):
    batch, parts = next(whole), [next(share) for share in shares]
    for name in batch:
      np.testing.assert_array_equal(np.stack([part[name] for part in parts], 1).reshape(batch[name].shape), batch[name])
  alone = make()
  alone.set_state(shares[0].get_state())
  assert_same_batches(take(alone, 1), take(whole, 1))
  with pytest.raises(UserError, match="divide"):
    ip.make_train_iterator(config, stage="vae", seed=0, batch_size=3, process_count=2)


@pytest.mark.parametrize("stage", ip.STAGES)
def test_eval_batches_repeat_and_come_from_validation(data, stage):
  config = make_config(data, augment=True, crop=(16, 24))
  make = lambda: list(ip.make_eval_batches(config, stage=stage, batch_size=4, num_batches=10))
  batches = make()
  assert len(batches) == 4  # 14 windows
  assert_same_batches(batches, make())
  if "slice" in batches[0]:
    values = np.concatenate([batch["slice"][..., 0, 0, 0].ravel() for batch in batches])
    assert {int(value) // 100 for value in values} == set(range(14, 28))
  if "image" in batches[0]:
    centres = [ip.read_window(file).image[8:24, 12:36] for file in ip.list_windows(data, "validation")]
    assert any(np.array_equal(batches[0]["image"][0], np.float32(centre) / 255) for centre in centres)


@pytest.mark.parametrize(
  ("stage", "changes", "message"),
  [
    ("unet", {}, "unknown stage"),
    ("ldm", {"bands_per_example": 5}, "bands_per_example"),
    ("vae", {"num_bands": 9}, "num_bands=9"),
    ("renderer", {"crop": (64, 64)}, "crop"),
    ("renderer", {"crop": (15, 24)}, "even"),
    ("vae", {"sources": {"film": 1.0}}, "film"),
    ("vae", {"sources": {"real": 0.0}}, "weight"),
    ("vae", {"directory": "/nowhere"}, "/nowhere"),
  ],
)
def test_settings_that_do_not_fit_are_user_errors(data, stage, changes, message):
  with pytest.raises(UserError, match=message):
    next(ip.make_train_iterator(make_config(data, **changes), stage=stage, seed=0, batch_size=2))
