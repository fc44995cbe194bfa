"""Optical flow against scenes whose motion is known exactly."""

import dataclasses
import functools
import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from helpers import QUICK_XLA, run
from videos import assert_refused

from gid_jax.flow import estimate, pyramid
from gid_jax.flow.estimate import DEFAULT, REFERENCE, FlowSettings, estimate_flow

pytestmark = pytest.mark.usefixtures("quick_compilation")

HEIGHT, WIDTH = 48, 64
# Three levels, of 64, 32 and 16 pixels.
SETTINGS = dataclasses.replace(DEFAULT, min_size=16)


@pytest.fixture(scope="module", autouse=True)
def exact_rest(quick_compilation):
  """Compiles flow so that what rests is zero to the last bit and nothing is pushed over the picture's edge by rounding.

  As users compile it, what rests moves by up to 1e-6 px.
  """
  compiled = jax.jit(
    estimate._estimate_block.__wrapped__,
    static_argnames=("settings", "mesh"),
    compiler_options={"xla_cpu_use_fusion_emitters": True} if QUICK_XLA else None,
  )
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(estimate, "_estimate_block", compiled)
    yield


def texture_at(x, y, *, seed=0):
  """Colours [... 3] in 0 ... 1 of an endless picture, a sum of waves 5 to 60 px long, at any position."""
  rng = np.random.default_rng(seed)
  lengths, angles = np.exp(rng.uniform(np.log(5), np.log(60), 40)), rng.uniform(0, 2 * np.pi, 40)
  phases, heights = rng.uniform(0, 2 * np.pi, (40, 3)), np.sqrt(lengths)
  heights *= 0.14 / np.sqrt(np.sum(heights**2) / 2)
  along = 2 * np.pi / lengths * (np.cos(angles) * x[..., None] + np.sin(angles) * y[..., None])
  return 0.5 + np.sum(heights[:, None] * np.sin(along[..., None] + phases), -2)


def grid(height, width):
  y, x = np.mgrid[:height, :width].astype(float)
  return x, y


def film(field, *, height=HEIGHT, width=WIDTH):
  """The picture after every point p of it has gone to p + field(p): the exact target of the exact flow."""
  to_x, to_y = grid(height, width)
  x, y = to_x, to_y
  for _ in range(60):  # The fields contract.
    u, v = field(x, y)
    x, y = to_x - u, to_y - v
  return texture_at(x, y).astype(np.float32)


def shift_by(dx, dy):
  return lambda x, y: (np.full_like(x, dx), np.full_like(x, dy))


def affine(matrix, dx=0.0, dy=0.0):
  """The field (matrix - 1)(p - centre) + (dx, dy)."""

  def field(x, y):
    x, y = x - (WIDTH - 1) / 2, y - (HEIGHT - 1) / 2
    return matrix[0][0] * x + matrix[0][1] * y - x + dx, matrix[1][0] * x + matrix[1][1] * y - y + dy

  return field


def random_field(seed):
  """A smooth field of waves 40 to 90 px long, up to about 3 px."""
  rng = np.random.default_rng(seed)
  waves = rng.uniform(2 * np.pi / 90, 2 * np.pi / 40, (2, 3)), rng.uniform(0, 2 * np.pi, (2, 2, 3))

  def field(x, y):
    numbers, (angles, phases) = waves[0], waves[1]
    return tuple(
      np.sin(n * (np.cos(a) * x[..., None] + np.sin(a) * y[..., None]) + p).sum(-1)
      for n, a, p in zip(numbers, angles, phases, strict=True)
    )

  return field


TURN = np.deg2rad(4)
# Each field with the mean and the largest end-point error allowed, px; found were 0.010, 0.002, 0.017, 0.020 and 0.04.
FIELDS = {
  "a fraction of a pixel": (shift_by(0.3, -0.45), 0.013, 0.04),
  "12 pixels": (shift_by(12.0, -3.0), 0.004, 0.02),
  "a turn about the centre": (affine([[np.cos(TURN), -np.sin(TURN)], [np.sin(TURN), np.cos(TURN)]]), 0.022, 0.12),
  "an affine field": (affine([[1.04, 0.03], [-0.02, 0.95]], 0.8, -0.5), 0.025, 0.12),
  "smooth field 0": (random_field(0), 0.055, 0.35),
  "smooth field 1": (random_field(1), 0.055, 0.35),
  "smooth field 2": (random_field(2), 0.055, 0.35),
  "rest": (shift_by(0.0, 0.0), 0.0, 0.0),
}


@pytest.fixture(scope="module")
def scene(quick_compilation):
  """The reference, one target of each field, and their flow and confidence."""
  reference = texture_at(*grid(HEIGHT, WIDTH)).astype(np.float32)
  targets = np.stack([film(field) for field, *_ in FIELDS.values()])
  return reference, targets, *estimate_flow(reference, targets, settings=SETTINGS)


def end_point_error(flow, field, *, margin):
  """Error [n] px where both ends of the true displacement are at least `margin` px inside."""
  height, width = flow.shape[:2]
  x, y = grid(height, width)
  u, v = field(x, y)
  inside = np.ones((height, width), bool)
  for end_x, end_y in ((x, y), (x + u, y + v)):
    inside &= (np.minimum(end_x, end_y) >= margin) & (end_x <= width - 1 - margin) & (end_y <= height - 1 - margin)
  return np.hypot(flow[..., 0] - u, flow[..., 1] - v)[inside]


# Accuracy


@pytest.mark.parametrize("name", FIELDS)
def test_flow_of_a_known_field(scene, name):
  field, mean, largest = FIELDS[name]
  flow = scene[2][list(FIELDS).index(name)]
  error = end_point_error(flow, field, margin=4)
  assert len(error) > 1000
  assert error.mean() <= mean and error.max() <= largest


@pytest.mark.parametrize(
  ("height", "width", "settings", "mean"),
  [(39, 25, DEFAULT, 0.02), (9, 17, REFERENCE, 0.02)],
  ids=["portrait of odd sides", "tiny, published settings"],
)
def test_any_size_and_the_published_settings(height, width, settings, mean):
  field = shift_by(-0.6, 0.3)
  reference = texture_at(*grid(height, width)).astype(np.float32)
  flow, confidence = estimate_flow(reference, film(field, height=height, width=width)[None], settings=settings)
  assert flow.shape == (1, height, width, 2) and confidence.shape == (1, height, width)
  error = end_point_error(flow[0], field, margin=2)
  assert error.mean() < mean


def test_reference_holds_the_published_numbers():
  found = dataclasses.asdict(REFERENCE)
  published = dict(smoothness=0.012, pyramid_ratio=0.75, min_size=20, relaxation=1.8)
  published |= dict(num_warps=7, extra_warps=1, num_sweeps=30, extra_sweeps=3)
  published |= dict(data_epsilon=1e-3, smoothness_epsilon=1e-3)
  assert found == published | dict(coarse_smoothness=1.0, rest=0.0, median=False, check_backward=False)


@pytest.mark.parametrize("level", [0, 2])
def test_work_and_smoothness_of_a_level(monkeypatch, level):
  settings = dataclasses.replace(REFERENCE, coarse_smoothness=1.5, smoothness=0.01)
  counts = {}

  def loop(low, high, body, state):
    counts["warps"] = high - low
    return body(low, state)

  def solve(*arrays, num_sweeps, relaxation):
    counts["sweeps"] = num_sweeps
    assert relaxation == 1.8
    return arrays[-2:]  # the weights between neighbours in place of the step

  monkeypatch.setattr(jax.lax, "fori_loop", loop)
  monkeypatch.setattr(estimate, "relax", solve)
  zero = np.zeros((8, 9))
  right, below = run(lambda f, u: estimate._refine(f, f, u, u, level, settings), np.zeros((15, 8, 9)), zero)
  assert counts == {"warps": 7 + level, "sweeps": 30 + 3 * level}
  weight = 0.5 * 0.01 * 1.5**level / 1e-3  # alpha psi' of a flow at rest
  np.testing.assert_allclose(right[:, :-1], weight, rtol=1e-5)
  np.testing.assert_allclose(below[:-1], weight, rtol=1e-5)
  assert not right[:, -1].any() and not below[-1].any()


# What must not matter


def test_number_and_order_of_targets_do_not_matter(scene):
  reference, targets, flow, confidence = scene
  order = np.array([3, 1, 0, 5, 7, 6, 2, 4, 3, 0, 6])  # more than a block
  calls = []
  others = estimate_flow(reference, targets[order], settings=SETTINGS, progress=lambda *c: calls.append(c))
  np.testing.assert_array_equal(others[0], flow[order])
  np.testing.assert_array_equal(others[1], confidence[order])
  assert calls == [(8, 11), (11, 11)]
  alone = estimate_flow(reference, targets[4:5], settings=SETTINGS)
  np.testing.assert_array_equal(alone[0], flow[4:5])
  np.testing.assert_array_equal(alone[1], confidence[4:5])


def test_number_of_devices_does_not_matter():
  code = """
    import jax, numpy as np
    from gid_jax.flow import estimate as flow
    jax.config.update("jax_disable_most_optimizations", True)
    assert jax.local_device_count() == 2
    used = []
    plain = flow._estimate_block

    def spy(*args, mesh, **options):
      used.append(mesh.size)
      return plain(*args, mesh=mesh, **options)

    flow._estimate_block = spy
    reference, *targets = np.random.default_rng(0).random((12, 9, 17, 3), np.float32)  # tiny, and of odd sides
    targets = np.stack(targets)
    together = flow.estimate_flow(reference, targets)
    parts = [flow.estimate_flow(reference, part) for part in (targets[:8], targets[8:])]
    assert used == [2, 1, 1], used
    for i, shape in enumerate([(11, 9, 17, 2), (11, 9, 17)]):
      assert together[i].shape == shape
      np.testing.assert_array_equal(together[i], np.concatenate([part[i] for part in parts]))
    assert np.isfinite(together[0]).all() and np.abs(together[0]).max() > 0.1
  """
  environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
  result = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True, timeout=300
  )
  assert result.returncode == 0, result.stdout + result.stderr


def test_accelerators_take_all_targets_of_a_share_at_once(scene, monkeypatch):
  reference, targets, flow, confidence = scene
  monkeypatch.setattr(estimate, "_share_size", lambda platform, height, width: 5)  # the last share is not full
  asked, plain = [], estimate._count_together

  def count_as_on_a_gpu(platform, number):
    asked.append(number)
    return plain("gpu", number)

  monkeypatch.setattr(estimate, "_count_together", count_as_on_a_gpu)
  estimate._estimate_block.clear_cache()
  try:
    found = estimate_flow(reference, targets, settings=SETTINGS)
  finally:
    estimate._estimate_block.clear_cache()
  assert asked == [5]
  np.testing.assert_allclose(found[0], flow, atol=1e-3)
  # Last bits decide whether what moves along the picture's edge has left it, and is not seen.
  assert np.mean(np.abs(found[1] - confidence) > 1e-3) < 5e-3


def test_an_accelerators_share_of_targets_fits_its_memory():
  assert [estimate._share_size("cpu", *size) for size in ((160, 256), (9, 9))] == [8, 8]
  # Five seconds at once of small frames, and never fewer than a CPU takes.
  sizes = [(9, 9), (160, 256), (512, 512), (2160, 3840)]
  assert [estimate._share_size("gpu", *size) for size in sizes] == [75, 75, 11, 8]


# Confidence


def test_repeated_frame_rests_and_is_trusted(scene):
  rest = list(FIELDS).index("rest")
  assert not scene[2][rest].any()
  # Nothing looks more like the reference.
  assert (scene[3] <= scene[3][rest]).all() and scene[3][rest].mean() > 0.65


def test_pixels_that_left_the_frame_are_not_trusted_and_follow_the_others(scene):
  confidence, resting = (scene[3][list(FIELDS).index(name)] for name in ("12 pixels", "rest"))
  assert confidence[:, -11:].max() == 0 and confidence[:2].max() == 0
  np.testing.assert_allclose(confidence[6:, :-16], resting[6:, :-16], rtol=0.02)
  flow = scene[2][list(FIELDS).index("12 pixels")][6:, -12:]
  assert np.linalg.norm(flow - [12, -3], axis=-1).mean() < 1.2  # px; found 0.77


def place_square(ground, dx, dy, *, top, left, size):
  """The ground [h w 3] with a textured square in front, moved by a whole number of pixels."""
  image = np.array(ground)
  image[top + dy : top + dy + size, left + dx : left + dx + size] = texture_at(*grid(size, size), seed=7)
  return image.astype(np.float32)


def test_flat_wall_is_not_trusted_and_follows_little():
  rng = np.random.default_rng(0)
  wall, moves = np.full((HEIGHT, WIDTH, 3), 0.65), np.array([[3, 2], [2, -3]])
  images = [place_square(wall, *d, top=18, left=2, size=14) for d in ((0, 0), *moves)]
  images = (np.stack(images) + rng.normal(0, 1.5 / 255, (3, *wall.shape))).astype(np.float32)
  flow, confidence = estimate_flow(images[0], images[1:], settings=SETTINGS)
  inside, far = np.s_[:, 21:29, 5:13], np.s_[:, :, 40:]
  error = np.linalg.norm(flow[inside] - moves[:, None, None], axis=-1)
  assert error.mean() < 0.075  # px; found 0.056
  assert confidence[inside].mean() > 0.7 and confidence[far].mean() < 0.03
  # Without `rest` the whole wall follows, by 3.1 of the square's 3.6 px; with it, by 1.5 px.
  assert np.linalg.norm(flow[far], axis=-1).mean() < 2


def test_flow_back_lowers_the_confidence_of_hidden_pixels():
  height, width = 39, 25
  ground, place = texture_at(*grid(height, width), seed=5), dict(top=12, left=5, size=12)
  reference, target = place_square(ground, 0, 0, **place), place_square(ground, 0, 3, **place)
  plain_flow, plain = estimate_flow(reference, target[None])
  flow, checked = estimate_flow(reference, target[None], settings=dataclasses.replace(DEFAULT, check_backward=True))
  np.testing.assert_allclose(flow, plain_flow, atol=1e-4)
  assert (checked <= plain + 1e-5).all()
  hidden, still, square = np.s_[0, 25:27, 7:15], np.s_[0, :, 20:], np.s_[0, 14:22, 7:15]
  assert checked[hidden].mean() < 0.5 * plain[hidden].mean()
  for seen in (still, square):
    assert checked[seen].mean() > 0.9 * plain[seen].mean()


def test_confidence_has_the_levels_it_promises():
  x, _ = grid(24, 30)
  ramp = jnp.asarray(x[..., None] * np.ones(3) / 255, jnp.float32)
  flatness = run(lambda image: estimate._flatness(pyramid.image_to_features(image)), ramp)
  np.testing.assert_allclose(flatness[8:-8, 8:-8], 0.5, atol=1e-3)
  # A tenth of the energy of an edge counts: at twice the threshold 0.4 / 1.4.
  np.testing.assert_allclose(run(estimate._texture, 4 * ramp)[8:-8, 8:-8], 0.4 / 1.4, atol=1e-3)
  u, v = jnp.full((2, 24, 30), jnp.array([3.0, 4.0])[:, None, None])
  back = run(estimate._consistency, u, v, 0.6 - u, -0.8 - v)  # 1 px off after 5 px
  np.testing.assert_allclose(back, np.exp(-1), rtol=1e-5)


# Bad input


@pytest.mark.parametrize(
  ("shape", "shapes", "settings", "match"),
  [
    ((16, 16, 3), (2, 16, 17, 3), {}, "of its size"),
    ((16, 16), (2, 16, 16), {}, r"\[h w 3\]"),
    ((16, 16, 4), (2, 16, 16, 4), {}, r"\[h w 3\]"),
    ((16, 16, 3), (16, 16, 3), {}, r"\[n h w 3\]"),
    ((16, 16, 3), (0, 16, 16, 3), {}, "n >= 1"),
    ((7, 16, 3), (1, 7, 16, 3), {}, "16x7 pixels"),
    ((16, 16, 3), (1, 16, 16, 3), {"pyramid_ratio": 1.0}, "pyramid_ratio"),
    ((16, 16, 3), (1, 16, 16, 3), {"relaxation": 2.0}, "relaxation"),
    ((16, 16, 3), (1, 16, 16, 3), {"data_epsilon": 0.0}, "epsilons must be positive"),
    ((16, 16, 3), (1, 16, 16, 3), {"smoothness_epsilon": -1.0}, "epsilons must be positive"),
    ((16, 16, 3), (1, 16, 16, 3), {"smoothness": 0.0}, "smoothness"),
    ((16, 16, 3), (1, 16, 16, 3), {"coarse_smoothness": 0.0}, "smoothness"),
    ((16, 16, 3), (1, 16, 16, 3), {"min_size": 0}, "min_size"),
    ((16, 16, 3), (1, 16, 16, 3), {"rest": -1e-4}, "rest"),
    ((16, 16, 3), (1, 16, 16, 3), {"num_warps": 0}, "warps"),
  ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named(shape, shapes, settings, match):
  images = (np.zeros(size, np.float32) for size in (shape, shapes))
  assert_refused(functools.partial(estimate_flow, settings=FlowSettings(**settings)), *images, match=match)


# Parts


def test_flow_grows_with_the_pyramid_by_the_true_ratio_of_each_axis(monkeypatch):
  sizes = [(15, 33), (10, 21), (7, 17)]
  levels = []

  def refine(reference, target, u, v, level, settings):
    levels.append(level)
    return (u + 1, v - 2) if level == 2 else (u, v)

  monkeypatch.setattr(estimate, "_refine", refine)
  images = [jnp.zeros((15, *size)) for size in sizes]
  u, v = estimate._coarse_to_fine(images, images, DEFAULT)
  assert levels == [2, 1, 0]
  np.testing.assert_allclose(u, np.full((15, 33), 33 / 17), rtol=1e-5)
  np.testing.assert_allclose(v, np.full((15, 33), -2 * 15 / 7), rtol=1e-5)


def test_median_is_that_of_three_by_three():
  values = np.random.default_rng(0).normal(size=(9, 14)).astype(np.float32)
  np.testing.assert_array_equal(
    run(estimate._median, values), scipy.ndimage.median_filter(values, size=3, mode="nearest")
  )
