"""Splatting against a pixel-by-pixel NumPy loop in float64, and finite differences for its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import smooth_image
from hypothesis import given, settings
from hypothesis import strategies as st

from gid_jax.motion import splat, warp

pytestmark = pytest.mark.usefixtures("quick_compilation")

sum_splat = jax.jit(splat.sum_splat)
average_splat = jax.jit(splat.average_splat)
linear_splat = jax.jit(splat.linear_splat)
softmax_splat = jax.jit(splat.softmax_splat)
fill_holes = jax.jit(splat.fill_holes)
invert_flow = jax.jit(splat.invert_flow)


def _brute_force(values, flow, log_weights):
  """Sum of b v, of a b v, of a b and of b; the softmax quotient is formed with exact per-target maxima."""
  height, width, channels = values.shape
  landed = {}
  for y in range(height):
    for x in range(width):
      if not np.isfinite(flow[y, x]).all():
        continue
      target_x, target_y = np.float32(x) + flow[y, x, 0], np.float32(y) + flow[y, x, 1]
      if not (-1 < target_x < width and -1 < target_y < height):
        continue
      for column in range(width):
        for row in range(height):
          share = max(0.0, 1 - abs(float(target_x) - column)) * max(0.0, 1 - abs(float(target_y) - row))
          if share > 0:
            landed.setdefault((row, column), []).append((share, log_weights[y, x], values[y, x]))
  plain, blended = np.zeros((2, height, width, channels))
  mass = np.zeros((height, width, 1))
  for place, arrivals in landed.items():
    shares = np.array([a[0] for a in arrivals], np.float64)
    logs = np.log(shares) + np.array([a[1] for a in arrivals], np.float64)
    colours = np.array([a[2] for a in arrivals], np.float64)
    weights = np.exp(logs - logs.max())
    plain[place] = shares @ colours
    blended[place] = weights @ colours / weights.sum()
    mass[place] = shares.sum()
  return plain, blended, mass


def _sample(seed, height=5, width=6, channels=3, reach=2.0):
  rng = np.random.default_rng(seed)
  values = rng.normal(size=(height, width, channels)).astype(np.float32)
  flow = rng.uniform(-reach, reach, size=(height, width, 2)).astype(np.float32)
  depth = rng.uniform(0, 5, size=(height, width)).astype(np.float32)
  return values, flow, depth


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), reach=st.sampled_from([0.3, 2.0, 8.0]), whole=st.booleans())
def test_all_modes_match_the_loop(seed, reach, whole):
  values, flow, depth = _sample(seed, reach=reach)
  flow = np.round(flow) if whole else flow
  total, average, mass = _brute_force(values, flow, np.zeros_like(depth))
  out, got_mass = sum_splat(values, flow)
  np.testing.assert_allclose(out, total, atol=1e-5)
  np.testing.assert_allclose(got_mass, mass, atol=1e-5)
  safe = mass[..., 0] > 1e-3  # the plain average divides by a share that float32 positions know only to 1e-6
  np.testing.assert_allclose(average_splat(values, flow)[0][safe], average[safe], atol=2e-3)
  _, linear, _ = _brute_force(values, flow, np.log(depth + 0.5))
  out, _ = linear_splat(values, flow, depth + 0.5)
  np.testing.assert_allclose(out[safe], linear[safe], atol=2e-3)
  _, soft, _ = _brute_force(values, flow, depth)
  out, got_mass = softmax_splat(values, flow, depth)
  np.testing.assert_allclose(out[safe], soft[safe], atol=5e-3)
  np.testing.assert_allclose(got_mass, mass, atol=1e-5)


def test_zero_flow_changes_nothing():
  values, flow, depth = _sample(1)
  for warped, mass in (
    sum_splat(values, 0 * flow),
    average_splat(values, 0 * flow),
    softmax_splat(values, 0 * flow, depth * 40),
  ):
    np.testing.assert_allclose(warped, values, rtol=1e-5)
    np.testing.assert_array_equal(mass, 1.0)


def test_holes_are_zero_and_nothing_wraps_around():
  values = np.ones((3, 4, 1), np.float32)
  flow = np.broadcast_to(np.float32([-1.0, -1.0]), (3, 4, 2))
  warped, mass = softmax_splat(values, flow, np.zeros((3, 4), np.float32))
  expected = np.zeros((3, 4, 1))
  expected[:2, :3] = 1
  np.testing.assert_allclose(warped, expected, rtol=1e-6)
  np.testing.assert_array_equal(mass, expected)
  half = np.broadcast_to(np.float32([-0.5, 0.0]), (3, 4, 2))
  np.testing.assert_allclose(sum_splat(values, half)[1][0, :, 0], [1, 1, 1, 0.5])


def test_deeper_pixel_wins_a_collision():
  values = np.float32([[[1.0], [2.0], [3.0]]])
  flow = np.float32([[[1, 0], [0, 0], [0, 0]]])
  depth = np.float32([[3.0, 1.0, 0.0]])
  warped, mass = softmax_splat(values, flow, depth)
  expected = (np.exp(3) * 1 + np.exp(1) * 2) / (np.exp(3) + np.exp(1))
  np.testing.assert_allclose(warped[0, :, 0], [0, expected, 3], rtol=1e-5)
  np.testing.assert_allclose(mass[0, :, 0], [0, 2, 1])


@pytest.mark.parametrize("top", [100.0, 1e4, 1e30])
def test_shallow_pixels_render_beside_a_very_deep_one(top):
  values, flow, _ = _sample(3, reach=0.4)
  depth = np.zeros(values.shape[:2], np.float32)
  depth[2, 2] = top
  warped, mass = softmax_splat(values, flow, depth)
  _, expected, _ = _brute_force(values, flow, depth)
  assert (np.asarray(mass) > 0).any()
  safe = np.asarray(mass)[..., 0] > 1e-3
  np.testing.assert_allclose(np.asarray(warped)[safe], expected[safe], atol=5e-3)


def test_sliver_of_a_deep_pixel_stays_bright():
  # A share of 1e-6 times a depth of 60 px wins the pixel; eps must not darken it.
  values = np.float32([[[5.0], [1.0]]])
  flow = np.float32([[[1e-6, 0], [0, 0]]])
  warped, _ = softmax_splat(values, flow, np.float32([[60.0, 0.0]]))
  np.testing.assert_allclose(warped[0, :, 0], [5, 5], rtol=1e-4)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.sampled_from([-300.0, 80.0, 1000.0]))
def test_softmax_ignores_a_common_depth_and_stays_within_the_values(seed, shift):
  values, flow, depth = _sample(seed)
  depth = np.round(depth * 64) / 64  # so that adding the shift is exact
  warped, mass = softmax_splat(values, flow, depth)
  shifted, _ = softmax_splat(values, flow, depth + np.float32(shift))
  np.testing.assert_allclose(shifted, warped, atol=1e-3)
  covered = np.asarray(mass)[..., 0] > 0
  assert (np.asarray(warped)[covered] <= values.max((0, 1)) + 1e-4).all()
  assert (np.asarray(warped)[covered] >= values.min((0, 1)) - 1e-4).all()


def test_unusable_flow_is_dropped_without_poisoning_gradients():
  values, flow, depth = _sample(4)
  flow[2, 3, 0], flow[1, 1, 1], flow[0, 4, 0], flow[4, 0, 1] = np.nan, np.inf, -np.inf, 1e30
  expected, _, mass = _brute_force(values, flow, depth)
  out, got_mass = sum_splat(values, flow)
  np.testing.assert_allclose(out, expected, atol=1e-5)
  np.testing.assert_allclose(got_mass, mass, atol=1e-5)
  for mode in (softmax_splat, linear_splat):
    loss = lambda v, f, d, mode=mode: jnp.sum(mode(v, f, d)[0] ** 2)
    for gradient in jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(values, flow, depth):
      assert np.isfinite(gradient).all()
      np.testing.assert_array_equal(gradient[[2, 1, 0, 4], [3, 1, 4, 0]], 0.0)


def _well_inside(seed):
  """A case in which no source crosses a pixel border within a finite difference."""
  values, flow, depth = _sample(seed, height=4, width=4, channels=2)
  return values, np.floor(flow) + 0.25 + 0.5 * (flow - np.floor(flow)), depth


@pytest.mark.parametrize("mode", ["sum", "average", "linear", "softmax"])
def test_gradients_match_finite_differences(mode):
  inputs = _well_inside(5)
  target = np.random.default_rng(6).normal(size=inputs[0].shape).astype(np.float32)

  def loss(values, flow, depth):
    if mode == "sum":
      warped = sum_splat(values, flow)[0]
    elif mode == "average":
      warped = average_splat(values, flow)[0]
    else:
      warped = (linear_splat if mode == "linear" else softmax_splat)(values, flow, depth)[0]
    return jnp.sum(warped * target)

  gradients = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*inputs)
  run = jax.jit(loss)
  step = 5e-3
  for argument, gradient in enumerate(gradients):
    rng = np.random.default_rng(argument)
    for _ in range(4):
      direction = rng.normal(size=inputs[argument].shape).astype(np.float32)
      moved = [list(inputs), list(inputs)]
      moved[0][argument] = inputs[argument] + step * direction
      moved[1][argument] = inputs[argument] - step * direction
      slope = (run(*moved[0]) - run(*moved[1])) / (2 * step)
      np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=2e-2, atol=2e-2)


def test_softmax_gradients_stay_finite_over_a_great_range_of_depth():
  values, flow, depth = _sample(7)
  loss = lambda v, f, d: jnp.sum(softmax_splat(v, f, d)[0] ** 2)
  slopes = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
  for moved in (flow, np.round(flow), 0 * flow):
    for gradient in slopes(values, moved, 200 * depth):
      assert np.isfinite(gradient).all()


def test_bfloat16_values_are_accumulated_in_float32():
  values = jnp.ones((1, 300, 1), jnp.bfloat16)
  flow = jnp.stack([-jnp.arange(300.0)[None], jnp.zeros((1, 300))], axis=-1)
  total, mass = sum_splat(values, flow)
  assert total.dtype == jnp.bfloat16 and mass.dtype == jnp.float32
  assert float(total[0, 0, 0]) == 300.0  # bfloat16 sums would stop at 256
  assert softmax_splat(values, flow, jnp.zeros((1, 300)))[0].dtype == jnp.bfloat16


def test_vmap_is_a_loop_over_examples():
  batch = [np.stack(parts) for parts in zip(*(_sample(seed) for seed in range(3)), strict=True)]
  warped, mass = jax.jit(jax.vmap(splat.softmax_splat))(*batch)
  for n in range(3):
    one, one_mass = softmax_splat(*(part[n] for part in batch))
    np.testing.assert_allclose(warped[n], one, atol=1e-6)
    np.testing.assert_allclose(mass[n], one_mass, atol=1e-6)


def test_forward_then_backward_by_a_whole_shift_is_the_identity():
  values, _, depth = _sample(9)
  flow = np.broadcast_to(np.float32([1.0, -1.0]), (*depth.shape, 2))
  forward, _ = softmax_splat(values, flow, depth)
  back = warp.sample_linear(forward, flow[..., 0], flow[..., 1])
  np.testing.assert_allclose(back[1:, :-1], values[1:, :-1], rtol=1e-5)


def test_holes_take_the_colours_around_them():
  image = smooth_image(13, 21)
  mass = np.ones((13, 21, 1), np.float32)
  np.testing.assert_allclose(fill_holes(image, mass), image, atol=1e-6)
  mass[4:7, 8:12] = 0
  filled = np.asarray(fill_holes(np.where(mass > 0, image, 9.0), mass))
  around = image[3:8, 7:13]
  assert (filled[4:7, 8:12] > around.min() - 0.1).all() and (filled[4:7, 8:12] < around.max() + 0.1).all()
  constant = np.asarray(fill_holes(np.where(mass > 0, 0.3, 9.0) * np.ones(3, np.float32), mass))
  np.testing.assert_allclose(constant, 0.3, atol=1e-5)
  mass[:] = 0
  mass[12, 20] = 0.1
  np.testing.assert_allclose(fill_holes(np.full_like(image, 0.3), mass), 0.3, atol=1e-5)


def test_an_inverted_flow_leads_back():
  height, width = 40, 60
  y, x = np.mgrid[:height, :width].astype(np.float32)
  move = lambda x, y: np.stack([2 * np.sin(y / 9) + 0.1 * x, 1.5 * np.cos(x / 11)], -1)
  flow = move(x, y).astype(np.float32)
  inverse = invert_flow(flow, np.zeros((height, width), np.float32), np.stack([x, y], -1))
  # From where it comes, by fixed-point iteration on the analytic motion.
  sources = np.stack([x, y], -1)
  for _ in range(60):
    sources = np.stack([x, y], -1) - move(sources[..., 0], sources[..., 1])
  inner = np.s_[6:-6, 8:-8]
  assert np.all(inverse.mass[inner] > 0.5) and np.all(inverse.spread[inner] < 0.2)
  np.testing.assert_allclose(inverse.back[inner], (sources - np.stack([x, y], -1))[inner], atol=0.05)
  np.testing.assert_allclose(inverse.values[inner], sources[inner], atol=0.3)


def test_an_inverted_flow_shows_what_is_in_front_and_fills_holes_from_behind():
  flow = np.zeros((8, 24, 2), np.float32)
  flow[:, 4:8, 0] = 6.0  # onto what stands at columns 10 ... 13
  values = np.float32(flow[..., :1] > 0)
  back, values, mass, spread = invert_flow(flow, flow[..., 0], values)
  front = 1 / (1 + np.exp(-6.0))  # weight of what is in front
  np.testing.assert_allclose(back[:, 10:14], np.broadcast_to([-6 * front, 0.0], (8, 4, 2)), atol=1e-4)
  np.testing.assert_allclose(values[:, 10:14], front, atol=1e-5)
  np.testing.assert_allclose(spread[:, 10:14], 6 * np.sqrt(front * (1 - front)), atol=1e-3)
  np.testing.assert_array_equal(spread[:, 16:], 0)
  np.testing.assert_allclose(back[:, 16:], 0, atol=1e-6)
  np.testing.assert_array_equal(mass[:, 4:8], 0)  # uncovered
  # What moved has e^-6 of a say there.
  assert np.all(np.abs(back[:, 4:8]) < 0.05) and np.all(np.abs(values[:, 4:8]) < 0.01)


def test_an_inverted_flow_weighs_like_softmax_splatting():
  """By one maximum for the image, not one for each pixel, which eps would darken by a tenth of the range."""
  rng = np.random.default_rng(7)
  flow = rng.normal(size=(20, 30, 2), scale=3).astype(np.float32)
  depth = rng.uniform(0, 20, (20, 30)).astype(np.float32)
  values = rng.uniform(size=(20, 30, 3)).astype(np.float32)
  expected, mass = jax.jit(splat.softmax_splat)(values, flow, depth)
  inverse = invert_flow(flow, depth, values)
  covered = np.asarray(mass)[..., 0] >= 1
  assert covered.mean() > 0.3
  np.testing.assert_allclose(inverse.values[covered], np.asarray(expected)[covered], atol=1e-4)
  np.testing.assert_allclose(inverse.mass, mass, atol=1e-5)
  naive = jax.jit(lambda: splat.linear_splat(values, flow, np.exp(depth - depth.max()), eps=1e-7))()[0]
  assert np.abs(naive - expected)[covered].max() > 0.1
  deep = invert_flow(flow, 40 * depth, values)  # more than float32 has room for: still finite, and the nearest wins
  assert all(np.all(np.isfinite(field)) for field in deep)


def test_holes_are_filled_by_weight():
  warped = np.zeros((1, 8, 1), np.float32)
  warped[0, :2], warped[0, 4:] = 1.0, 3.0
  mass = np.float32(np.arange(8).reshape(1, 8, 1) // 2 != 1)  # columns 2 and 3 are open
  weights = np.where(warped > 2, 1e-6, 1.0).astype(np.float32)
  filled = np.asarray(fill_holes(warped, mass, weights=weights))
  np.testing.assert_array_equal(filled[0, [0, 1, 4, 5, 6, 7]], warped[0, [0, 1, 4, 5, 6, 7]])
  plain = np.asarray(fill_holes(warped, mass))
  assert np.all(filled[0, 2:4] < plain[0, 2:4]) and np.all(plain[0, 2:4] > 1.2)


@pytest.mark.parametrize("mode", ["sum", "softmax"])
def test_both_ways_of_adding_up_are_equal_gradients_too(mode, monkeypatch):
  values, flow, depth = _sample(17, height=7, width=9)
  found = []
  for way in (splat._add_rows, splat._add_corners):
    choose = lambda *operands, cpu, default, way=way: way(*operands, **cpu.keywords)
    monkeypatch.setattr(jax.lax, "platform_dependent", choose)

    def run(values, flow, depth):
      warped, mass = splat.softmax_splat(values, flow, depth) if mode == "softmax" else splat.sum_splat(values, flow)
      return (warped**2).sum() + (mass**3).sum(), (warped, mass)

    found.append(jax.jit(jax.value_and_grad(run, (0, 1, 2), has_aux=True))(values, flow, depth))
  for one, other in zip(*map(jax.tree.leaves, found), strict=True):
    np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-5)
  assert np.abs(found[0][1][1]).max() > 0.1


def test_a_weighted_filling_goes_on_evenly():
  x = np.broadcast_to(np.linspace(0, 1, 64, dtype=np.float32), (48, 64))[..., None]
  mass = np.ones((48, 64, 1), np.float32)
  mass[12:36, 20:44] = 0
  ones = np.ones_like(mass)
  # A slope is the mean of its neighbours everywhere.
  plain, smoothed = (np.asarray(fill_holes(x * mass, mass, weights=weights)) for weights in (None, ones))
  assert np.abs(smoothed - x).mean() < 0.8 * np.abs(plain - x).mean()
  np.testing.assert_array_equal(smoothed[mass > 0], x[mass > 0])
