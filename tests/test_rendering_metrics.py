"""Rendering metrics against NumPy loops, and predictors on motions whose result is known."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from gid_jax.errors import UserError
from gid_jax.evaluation import rendering
from gid_jax.training import losses
from tests.helpers import smooth_image

pytestmark = pytest.mark.usefixtures("quick_compilation")


def _noisy_pair(height=19, width=17, seed=0):
  rng = np.random.default_rng(seed)
  truth = rng.uniform(size=(height, width, 3)).astype(np.float32)
  return np.clip(truth + rng.normal(size=truth.shape, scale=0.2), 0, 1).astype(np.float32), truth


def _ssim_by_loops(frame, truth):
  """Window by window, with weighted means, variances and the covariance written out."""
  offsets = np.arange(-5, 6)
  weights = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
  weights = (weights / weights.sum())[..., None]
  height, width = frame.shape[:2]
  result = np.zeros((height - 10, width - 10))
  for y in range(height - 10):
    for x in range(width - 10):
      a, b = (v[y : y + 11, x : x + 11].astype(np.float64) for v in (frame, truth))
      mean_a, mean_b = (weights * a).sum((0, 1)), (weights * b).sum((0, 1))
      var_a, var_b = (weights * (a - mean_a) ** 2).sum((0, 1)), (weights * (b - mean_b) ** 2).sum((0, 1))
      covariance = (weights * (a - mean_a) * (b - mean_b)).sum((0, 1))
      similarity = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
      similarity /= (mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4)
      result[y, x] = similarity.mean()
  return result


def test_psnr_is_exact_for_a_known_error():
  truth = smooth_image(6, 8)
  assert rendering.psnr(truth + 0.1, truth) == pytest.approx(20, abs=1e-4)
  frame, mask = truth.copy(), np.zeros((6, 8), bool)
  mask[:2], frame[:2] = True, frame[:2] + 0.01
  assert rendering.psnr(frame, truth, mask=mask) == pytest.approx(40, abs=1e-3)
  assert rendering.psnr(frame, truth) == pytest.approx(40 + 10 * np.log10(3), abs=1e-3)
  assert rendering.psnr(truth, truth) == pytest.approx(58.92, abs=0.01)
  assert np.isnan(rendering.psnr(truth, truth, mask=np.zeros((6, 8), bool)))


def test_bytes_and_fractions_are_the_same_picture():
  frame, truth = _noisy_pair()
  frame, truth = np.rint(frame * 255).astype(np.uint8), np.rint(truth * 255).astype(np.uint8)
  for metric in (rendering.psnr, rendering.ssim):
    assert metric(frame, truth) == pytest.approx(metric(frame / 255, truth / 255), abs=1e-9)
  assert rendering.psnr(truth / 255 * 3 - 1, truth) == rendering.psnr(np.clip(truth / 255 * 3 - 1, 0, 1), truth)


@pytest.mark.parametrize("seed", range(2))
def test_ssim_matches_loops(seed):
  frame, truth = _noisy_pair(seed=seed)
  expected = _ssim_by_loops(frame, truth)
  np.testing.assert_allclose(rendering.ssim_map(frame, truth), expected, atol=1e-9)
  mask = np.zeros(frame.shape[:2], bool)
  mask[:8, 9:] = True
  assert rendering.ssim(frame, truth) == pytest.approx(expected.mean(), abs=1e-9)
  assert rendering.ssim(frame, truth, mask=mask) == pytest.approx(expected[:3, 4:].mean(), abs=1e-9)


def test_ssim_of_special_pairs():
  frame, truth = _noisy_pair()
  assert rendering.ssim(truth, truth) == pytest.approx(1, abs=1e-12)
  grey = np.full((12, 12, 3), 0.4)
  luminance = (2 * 0.4 * 0.6 + 1e-4) / (0.4**2 + 0.6**2 + 1e-4)
  assert rendering.ssim(grey, grey + 0.2) == pytest.approx(luminance, abs=1e-9)
  border = np.ones(frame.shape[:2], bool)
  border[5:-5, 5:-5] = False
  assert np.isnan(rendering.ssim(frame, truth, mask=border))
  with pytest.raises(UserError, match="at least 11"):
    rendering.ssim(frame[:10], truth[:10])


def test_ssim_matches_scikit_image():
  metrics = pytest.importorskip("skimage.metrics")
  frame, truth = _noisy_pair(40, 30)
  options = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, channel_axis=-1)
  expected = metrics.structural_similarity(truth.astype(np.float64), frame.astype(np.float64), **options)
  assert rendering.ssim(frame, truth) == pytest.approx(expected, abs=1e-9)
  expected = metrics.peak_signal_noise_ratio(truth.astype(np.float64), frame.astype(np.float64), data_range=1.0)
  assert rendering.psnr(frame, truth) == pytest.approx(expected, abs=1e-9)


@pytest.fixture(scope="module")
def vgg_params():
  rng = np.random.default_rng(0)
  params, previous = {}, 3
  for block, (size, channels) in enumerate(zip((2, 2, 3, 3, 3), (64, 128, 256, 512, 512), strict=True), start=1):
    for conv in range(1, size + 1):
      kernel = rng.standard_normal((3, 3, previous, channels), np.float32) * np.sqrt(2 / (9 * previous))
      params[f"conv{block}_{conv}"] = {"kernel": kernel, "bias": np.zeros(channels, np.float32)}
      previous = channels
  return params


def test_perceptual_distance_within_masks(vgg_params):
  truth = smooth_image(35, 48)  # odd: a row is dropped where the network halves
  changed = truth.copy()
  changed[:16, :16] = 0.2
  masks = np.zeros((4, 35, 48), bool)
  masks[0] = True
  masks[1, :, :32] = masks[2, :, 32:] = True
  found = rendering.perceptual_distances(vgg_params, np.stack([truth, changed]), truth, masks)
  assert found.shape == (2, 4)
  np.testing.assert_array_equal(found[0, :3], 0)
  assert np.isnan(found[:, 3]).all()
  loss = jax.jit(losses.perceptual)(vgg_params, changed[None], truth[None])
  assert found[1, 0] == pytest.approx(float(loss), rel=1e-5)
  # 32 and 16 of 48 columns, whole blocks at every layer: the parts make up the whole.
  assert found[1, 1] * 2 / 3 + found[1, 2] / 3 == pytest.approx(found[1, 0], rel=1e-4)
  assert found[1, 1] > found[1, 2]


def test_disoccluded_pixels_of_a_moving_square():
  flow = np.zeros((12, 16, 2), np.float32)
  flow[3:9, 4:8] = 3, 0
  expected = np.zeros((12, 16), bool)
  expected[3:9, 4:7] = True  # it left these and covers others
  np.testing.assert_array_equal(rendering.find_disoccluded(flow), expected)
  assert not rendering.find_disoccluded(np.zeros((12, 16, 2))).any()
  entering = rendering.find_disoccluded(np.full((12, 16, 2), (-2, 0), np.float32))
  np.testing.assert_array_equal(np.flatnonzero(entering[0]), [14, 15])


@pytest.mark.parametrize("shift", [2.2, 2.4, 2.6, 2.8])
def test_a_gap_counts_with_its_width(shift):
  flow = np.zeros((4, 20, 2), np.float32)
  flow[:, 10:] = shift, 0
  assert rendering.find_disoccluded(flow)[0].sum() == round(shift)


def test_predictors_move_an_image_as_a_whole():
  image = smooth_image(12, 16)
  flow = np.full((12, 16, 2), (2, 1), np.float32)
  depth = np.ones((12, 16), np.float32)
  for name in ("average splat", "softmax splat", "backward warp"):
    frame = rendering.PREDICTORS[name](image, flow, depth)
    np.testing.assert_allclose(frame[1:, 2:], image[:-1, :-2], atol=1e-5)
    assert np.asarray(frame).min() >= image.min() - 1e-5  # nothing is left black where the photo ended
  np.testing.assert_array_equal(rendering.PREDICTORS["photo"](image, flow, depth), image)


def test_predictors_differ_where_two_pixels_meet():
  image = np.zeros((3, 8, 3), np.float32)
  image[:, 2] = 1.0
  flow, depth = np.zeros((3, 8, 2), np.float32), np.zeros((3, 8), np.float32)
  flow[:, 2], depth[:, 2] = (2, 0), 20
  np.testing.assert_allclose(rendering.predict_by_average(image, flow, depth)[:, 4], 0.5, atol=1e-5)
  np.testing.assert_allclose(rendering.predict_by_softmax(image, flow, depth)[:, 4], 1.0, atol=1e-5)
  # What it left behind is filled from its black neighbours, not with what went away.
  assert np.asarray(rendering.predict_by_softmax(image, flow, depth))[:, 2].max() < 0.5


def test_a_pair_is_judged_by_region(vgg_params):
  rng = np.random.default_rng(0)
  image = ndimage.gaussian_filter(rng.uniform(size=(24, 32, 3)), (1, 1, 0)).astype(np.float32)
  image = (image - image.min()) / np.ptp(image)
  flow, depth = np.zeros((24, 32, 2), np.float32), np.zeros((24, 32), np.float32)
  flow[6:18, 10:20], depth[6:18, 10:20] = (4, 0), 4
  truth = image.copy()
  truth[6:18, 14:24] = image[6:18, 10:20]
  truth[6:18, 10:14] = 0.5
  renderers = {**rendering.PREDICTORS, "oracle": lambda image, flow, depth: truth}
  scores = rendering.judge_pair(image, flow, depth, truth, renderers=renderers, vgg_params=vgg_params)
  assert scores.keys() == renderers.keys()
  expected = {(metric, region) for metric in rendering.METRICS for region in rendering.REGIONS}
  assert all(row.keys() == expected for row in scores.values())
  best = scores["oracle"]
  for region in rendering.REGIONS:
    assert best["psnr", region] == pytest.approx(58.92, abs=0.01)
    assert best["ssim", region] == pytest.approx(1)
    assert best["perceptual", region] == 0
  softmax = scores["softmax splat"]
  assert softmax["psnr", "visible"] > 40 > softmax["psnr", "disoccluded"]
  assert softmax["psnr", "whole"] > scores["average splat"]["psnr", "whole"] > scores["photo"]["psnr", "whole"]
  area = 12 * 4 / (24 * 32)  # the regions make up the whole
  errors = {region: 10 ** (-softmax["psnr", region] / 10) for region in rendering.REGIONS}
  assert errors["whole"] == pytest.approx(area * errors["disoccluded"] + (1 - area) * errors["visible"], rel=1e-2)


def test_a_pair_without_motion_or_network():
  image = np.rint(smooth_image(16, 16) * 255).astype(np.uint8)
  scores = rendering.judge_pair(
    image, np.zeros((16, 16, 2)), np.zeros((16, 16)), image, renderers=rendering.PREDICTORS
  )
  for row in scores.values():
    assert row["psnr", "whole"] > 58 and row["ssim", "visible"] == pytest.approx(1)
    assert np.isnan(row["psnr", "disoccluded"]) and np.isnan(row["ssim", "disoccluded"])
    assert not any(metric == "perceptual" for metric, _ in row)


def test_flicker_counts_still_pixels_only():
  photo = smooth_image(6, 8)
  still = np.zeros((6, 8), bool)
  still[:, :4] = True
  frames = np.stack([photo] * 4)
  frames[:, :, 4:] += np.random.default_rng(0).uniform(0, 0.1, size=frames[:, :, 4:].shape)
  assert rendering.measure_flicker(frames, still, photo=photo) == (0, 0)
  frames[1::2, :, :4] += 0.02
  flicker = rendering.measure_flicker(iter(frames), still, photo=photo)
  assert flicker.between_frames == pytest.approx(0.02, rel=1e-4)
  assert flicker.from_photo == pytest.approx(0.01, rel=1e-4)
  half = rendering.measure_flicker([photo + 0.02] * 3, still, photo=photo)
  assert half.between_frames == 0 and half.from_photo == pytest.approx(0.02, rel=1e-4)
  assert np.isnan(rendering.measure_flicker(frames[:1], still, photo=photo).between_frames)
  assert np.isnan(rendering.measure_flicker(frames, ~np.ones((6, 8), bool), photo=photo)).all()
  with pytest.raises(UserError, match="no frames"):
    rendering.measure_flicker([], still, photo=photo)
