"""Every loss term against its definition, pixel by pixel in float64, and its slope by finite differences."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gid_jax.errors import UserError
from gid_jax.models.vgg16 import vgg16_features
from gid_jax.training import losses

pytestmark = pytest.mark.usefixtures("quick_compilation")

# Sides and channels all differ and are odd somewhere, so that no axis can stand in for another.
SHAPE = (2, 11, 14, 3)


def draw_pair(seed, shape=SHAPE):
  output, target = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
  return output, target


def mean_over_pixels(function, output, target):
  """Mean of function(output, target) over all numbers, one by one."""
  values = [function(float(o), float(t)) for o, t in zip(output.ravel(), target.ravel(), strict=True)]
  return math.fsum(values) / len(values)


def gradient_by_loops(output, target, num_scales):
  """Mean over scales of mean |dx error| + mean |dy error|; every pixel of a scale is averaged from the full size."""
  total = 0.0
  for scale in range(num_scales):
    side = 2**scale
    height, width = output.shape[1] // side, output.shape[2] // side

    def pixel(image, b, y, x, c, side=side):
      return image[b, side * y : side * (y + 1), side * x : side * (x + 1), c].astype(np.float64).mean()

    for dy, dx in ((0, 1), (1, 0)):
      errors = []
      for b, y, x, c in itertools.product(
        range(output.shape[0]), range(height - dy), range(width - dx), range(output.shape[3])
      ):
        wanted, found = (pixel(image, b, y + dy, x + dx, c) - pixel(image, b, y, x, c) for image in (target, output))
        errors.append(abs(found - wanted))
      total += math.fsum(errors) / len(errors)
  return total / num_scales


def kl_by_loops(mean, log_variance):
  """Integral of p log(p / q) in closed form, summed over an example, averaged over examples."""
  examples = []
  for m, v in zip(mean, log_variance, strict=True):
    values = zip(m.ravel(), v.ravel(), strict=True)
    examples.append(math.fsum((float(a) ** 2 + math.exp(b) - 1 - float(b)) / 2 for a, b in values))
  return sum(examples) / len(examples)


TERMS = {
  "l1": (losses.l1, lambda o, t: mean_over_pixels(lambda a, b: abs(a - b), o, t)),
  "denoising_error": (losses.denoising_error, lambda o, t: mean_over_pixels(lambda a, b: (a - b) ** 2, o, t)),
  "gradient_consistency": (
    lambda o, t: losses.gradient_consistency(o, t, num_scales=3),
    lambda o, t: gradient_by_loops(o, t, 3),
  ),
  "kl": (losses.kl, kl_by_loops),
}


@pytest.mark.parametrize("name", TERMS)
def test_terms_follow_their_definitions(name):
  term, oracle = TERMS[name]
  for seed in range(2):
    output, target = draw_pair(seed)
    np.testing.assert_allclose(jax.jit(term)(output, target), oracle(output, target), rtol=1e-5)


@pytest.mark.parametrize("name", TERMS)
def test_slopes_are_finite_differences(name):
  term, oracle = TERMS[name]
  shape = (2, 8, 10, 2)
  output, target = draw_pair(3, shape)
  # Errors, and their differences between neighbours, stay well away from zero, where absolute values have a corner.
  if name != "kl":
    b, y, x, c = np.indices(shape)
    output = target + np.float32((1 + 0.1 * y**1.5 + 0.13 * x**1.3) * np.where((b + c) % 2, 1, -1))
  slopes = jax.jit(jax.grad(term, argnums=(0, 1)))(output, target)
  pair = [output.astype(np.float64), target.astype(np.float64)]
  rng = np.random.default_rng(4)
  for which, slope in enumerate(slopes):
    for place in zip(*(rng.integers(0, size, 6) for size in shape), strict=True):
      step = np.zeros(shape)
      step[place] = 1e-4
      moved = [[array + sign * step * (index == which) for index, array in enumerate(pair)] for sign in (1, -1)]
      difference = (oracle(*moved[0]) - oracle(*moved[1])) / 2e-4
      np.testing.assert_allclose(slope[place], difference, rtol=1e-3, atol=1e-6)


def test_a_constant_error_has_no_gradient_error():
  _, target = draw_pair(5)
  assert losses.gradient_consistency(target + 3.0, target, num_scales=3) < 1e-5


def test_too_many_scales_are_refused():
  output, target = draw_pair(6)
  assert losses.gradient_consistency(output, target, num_scales=3) > 0  # 11 pixels: 11, 5, 2
  with pytest.raises(UserError, match="4 scales do not fit in 11 x 14 pixels"):
    losses.gradient_consistency(output, target, num_scales=4)


def test_the_unit_normal_is_where_kl_vanishes():
  zeros = np.zeros(SHAPE, np.float32)
  assert losses.kl(zeros, zeros) == 0
  # By the integral itself: of one number, by the trapezium rule.
  mean, log_variance = 0.7, -0.9
  x = np.linspace(-12, 12, 20001)
  density = np.exp(-((x - mean) ** 2) / (2 * np.exp(log_variance))) / np.sqrt(2 * np.pi * np.exp(log_variance))
  log_ratio = -((x - mean) ** 2) / (2 * np.exp(log_variance)) - log_variance / 2 + x**2 / 2
  one = lambda value: np.full((1, 1, 1, 1), value, np.float32)
  np.testing.assert_allclose(losses.kl(one(mean), one(log_variance)), np.trapezoid(density * log_ratio, x), rtol=1e-5)


def test_psnr_is_the_mean_of_the_decibels_of_clipped_pictures():
  rng = np.random.default_rng(7)
  output, target = rng.uniform(-0.3, 1.3, (3, 5, 6, 3)), rng.uniform(size=(3, 5, 6, 3))
  output[1] = target[1] + 0.001  # one much better than the others: the mean of decibels, not of errors
  decibels = []
  for o, t in zip(output, target, strict=True):
    error = mean_over_pixels(lambda a, b: (min(max(a, 0.0), 1.0) - b) ** 2, o, t)
    decibels.append(10 * math.log10(1 / error))
  found = losses.psnr(np.float32(output), np.float32(target))
  np.testing.assert_allclose(found, sum(decibels) / 3, rtol=3e-3)
  np.testing.assert_allclose(losses.psnr(np.float32(target), np.float32(target)), 80, atol=1e-3)


def make_vgg_params():
  """Random weights of the first two blocks."""
  rng = np.random.default_rng(0)
  layers = {"conv1_1": (3, 64), "conv1_2": (64, 64), "conv2_1": (64, 128), "conv2_2": (128, 128)}
  return {
    name: {
      "kernel": np.float32(rng.normal(size=(3, 3, *sizes)) * (2 / (9 * sizes[0])) ** 0.5),
      "bias": np.float32(rng.normal(size=sizes[1])),
    }
    for name, sizes in layers.items()
  }


def test_the_perceptual_distance_is_the_weighted_feature_distance():
  params = make_vgg_params()
  prediction, target = np.random.default_rng(2).uniform(size=(2, 2, 12, 12, 3)).astype(np.float32)
  layers, weights = ("relu1_2", "relu2_2"), (2.0, 0.5)
  loss = lambda p, t: losses.perceptual(params, p, t, layers=layers, weights=weights)
  value, (slope, target_slope) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(prediction, target)
  pairs = [vgg16_features(params, image, layers=layers) for image in (prediction, target)]
  expected = np.mean([w * np.abs(np.subtract(p, t)).mean() for w, p, t in zip(weights, *pairs, strict=True)])
  np.testing.assert_allclose(value, expected, rtol=1e-4)
  assert np.all(np.isfinite(slope)) and np.any(slope) and not np.any(target_slope)
  assert loss(target, target) == 0.0


# The weighted sum


@pytest.mark.parametrize("compile_", [jax.jit, lambda function: function], ids=["compiled", "step by step"])
def test_the_sum_is_that_of_the_formulas_to_the_last_bit(compile_):
  formulas = (
    (lambda l1, g, kl: l1 + 0.2 * g + 1e-6 * kl, ("l1", "gradient", "kl"), {"kl": 1e-6, "gradient": 0.2, "l1": 1.0}),
    (lambda l1, s, _: 0.7 * l1 + 0.5 * s, ("l1", "structure", "psnr"), {"structure": 0.5, "l1": 0.7}),
  )
  for formula, names, weights in formulas:
    expected = compile_(formula)
    found = compile_(lambda *terms, n=names, w=weights: losses.weigh(dict(zip(n, terms, strict=True)), w)[0])
    for terms in np.random.default_rng(8).normal(size=(100, 3)).astype(np.float32):
      np.testing.assert_array_equal(found(*map(jnp.asarray, terms)), expected(*map(jnp.asarray, terms)))


def test_terms_are_summed_in_their_own_order():
  # In float32 1e8 swallows 1: the three orders give three sums.
  terms = {"a": jnp.float32(1e8), "b": jnp.float32(-1e8), "c": jnp.float32(1.0)}
  weights = dict.fromkeys("cba", 1.0)
  assert losses.weigh(terms, weights)[0] == 1.0
  assert losses.weigh({name: terms[name] for name in "acb"}, weights)[0] == 0.0


def test_every_term_is_reported_and_only_weighted_ones_count():
  terms = {"l1": jnp.float32(2.0), "psnr": jnp.float32(30.0), "structure": jnp.float32(-3.0)}
  loss, metrics = losses.weigh(terms, {"structure": 0.5, "l1": 4.0})
  assert loss == metrics["loss"] == 4.0 * 2.0 + 0.5 * -3.0
  assert list(metrics) == ["loss", *terms] and all(metrics[name] == terms[name] for name in terms)
  assert losses.weigh(terms, {})[0] == 0.0
  assert losses.weigh(terms, {"l1": 0.0})[0] == 0.0


def test_a_weight_of_no_term_is_refused():
  with pytest.raises(UserError, match=r"loss weight 'perceptual': .* l1, structure$"):
    losses.weigh({"l1": jnp.zeros(()), "structure": jnp.zeros(())}, {"l1": 1.0, "perceptual": 0.5})
