"""The fast forms of the costly operations against NumPy and against the plain forms, gradients included."""

import flax.linen as nn
import helpers
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from gid_jax.models import operations


def random_array(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_same_slopes(function, plain, *inputs):
  """Value and gradients of two functions agree, for a random cotangent."""

  def value_and_slopes(function):
    value, pull = jax.vjp(function, *inputs)
    return value, *pull(random_array(*value.shape, seed=9))

  for found, expected in zip(*(jax.jit(lambda f=f: value_and_slopes(f))() for f in (function, plain)), strict=True):
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def plain_convolution(x, kernel):
  return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize("silu", [False, True])
def test_group_norm_and_its_gradient(silu):
  x, slope, scale, bias = random_array(2, 3, 2, 4), random_array(2, 3, 2, 4, seed=1), *random_array(2, 4, seed=2)

  def norm(x, scale, bias):
    return operations.group_norm(x, scale, bias, 2, 1e-5, silu)

  def oracle(x, scale, bias):
    params = {"GroupNorm_0": {"scale": scale, "bias": bias}}
    y = np.array([helpers.group_norm(params, image, groups=2, epsilon=1e-5) for image in x])
    return helpers.silu(y) if silu else y

  inputs = (x, scale, bias)
  value, pull = jax.vjp(norm, *inputs)
  np.testing.assert_allclose(value, oracle(*inputs), atol=1e-5)
  for position, found in enumerate(pull(jnp.asarray(slope))):
    for index in np.ndindex(found.shape):
      sides = []
      for step in (-1e-5, 1e-5):
        moved = [array.astype(np.float64) for array in inputs]
        moved[position][index] += step
        sides.append((slope * oracle(*moved)).sum())
      np.testing.assert_allclose(found[index], (sides[1] - sides[0]) / 2e-5, atol=2e-4)


def test_group_norm_of_a_constant_slice_is_its_bias():
  x, scale, bias = jnp.full((1, 5, 7, 4), 1000.3), jnp.ones(4), jnp.arange(4.0)
  value, pull = jax.vjp(lambda x: operations.group_norm(x, scale, bias, 2, 1e-5, False), x)
  np.testing.assert_allclose(value[0, 2, 3], bias, atol=0.05)
  assert np.all(np.isfinite(pull(value)[0]))


def test_group_norm_measures_in_float32():
  # In bfloat16, sums over many pixels would stop growing and E[x^2] would swamp the contrast.
  x = (8 + 0.5 * random_array(1, 40, 40, 4)).astype(jnp.bfloat16)
  found = operations.group_norm(x, jnp.ones(4), jnp.zeros(4), 2, 1e-5, False)
  assert found.dtype == jnp.bfloat16
  params = {"GroupNorm_0": {"scale": np.ones(4), "bias": np.zeros(4)}}
  expected = helpers.group_norm(params, np.asarray(x[0], np.float32), groups=2, epsilon=1e-5)
  np.testing.assert_allclose(np.asarray(found[0], np.float32), expected, atol=0.02)


# As it is, more output channels than pixels or fewer, so that the input's gradient is a matrix product or not; two rows
# at once, and too many or an odd number of rows for that; two rows at once in the gradient.
@pytest.mark.parametrize(
  "size, channels, features",
  [((2, 2), 3, 6), ((5, 4), 6, 3), ((8, 7), 5, 50), ((8, 9), 5, 70), ((9, 8), 5, 50), ((10, 7), 50, 66)],
)
def test_convolution(size, channels, features):
  x, kernel = random_array(2, *size, channels), random_array(3, 3, channels, features, seed=1)
  assert_same_slopes(operations.convolve, plain_convolution, x, kernel)
  found = operations.convolve(x, kernel)
  expected = helpers.conv({"kernel": kernel, "bias": np.zeros(features)}, x[1])
  np.testing.assert_allclose(found[1], expected, atol=1e-4)


def test_convolution_with_a_kernel_larger_than_the_image(monkeypatch):
  monkeypatch.setattr(operations, "_LARGE_KERNEL", 500)
  x, kernel = random_array(2, 2, 3, 7), random_array(3, 3, 7, 8, seed=1)
  assert_same_slopes(operations.convolve, plain_convolution, x, kernel)


@pytest.mark.parametrize("height", [1, 4])
def test_convolution_of_repeated_pixels(height):
  x, kernel = random_array(2, height, 3, 4), random_array(3, 3, 4, 5, seed=1)
  plain = lambda x, kernel: plain_convolution(x.repeat(2, axis=1).repeat(2, axis=2), kernel)
  assert_same_slopes(operations.convolve_repeated, plain, x, kernel)


@pytest.mark.parametrize("num_queries, num_keys", [(9, 9), (8, 3), (3, 5)])
def test_attention_in_chunks_and_its_gradient(num_queries, num_keys):
  query = random_array(2, num_queries, 3, 4)
  key, value = random_array(2, 2, num_keys, 3, 4, seed=1)
  chunked = lambda *inputs: operations.dot_product_attention(*inputs, query_chunk=2)
  assert_same_slopes(chunked, nn.dot_product_attention, query, key, value)
  logits = np.einsum("bqnd,brnd->bnqr", query, key).astype(np.float64) / 2
  weights = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
  np.testing.assert_allclose(chunked(query, key, value), np.einsum("bnqr,brnd->bqnd", weights, value), atol=1e-5)


# What accelerators get


def attend(query, key, value):
  return operations.dot_product_attention(query, key, value, query_chunk=2)


# Each takes a form of its own on CPUs, also in its gradient: two rows at once, phases, chunks.
COSTLY = {
  "convolve": (operations.convolve, (random_array(2, 8, 4, 50), random_array(3, 3, 50, 50, seed=1))),
  "convolve_repeated": (operations.convolve_repeated, (random_array(2, 4, 3, 4), random_array(3, 3, 4, 5, seed=1))),
  "attend": (attend, tuple(random_array(3, 2, 9, 3, 4))),
}


@pytest.mark.parametrize("name", COSTLY)
def test_accelerators_compute_the_same_with_the_same_slopes(name, monkeypatch):
  function, inputs = COSTLY[name]

  def run(branch):
    taken = []

    def take(*operands, **branches):
      taken.append(branch)
      return branches[branch](*operands)

    def value_and_slopes(*inputs):
      value, pull = jax.vjp(function, *inputs)
      return value, pull(random_array(*value.shape, seed=9))

    with monkeypatch.context() as patch:
      patch.setattr(jax.lax, "platform_dependent", take)
      results = jax.tree.leaves(jax.jit(value_and_slopes)(*inputs))
    assert len(taken) == (1 if name == "attend" else 2)  # the gradient is derived, or has forms of its own
    return results

  found, expected = run("default"), run("cpu")
  for one, other in zip(found, expected, strict=True):
    np.testing.assert_allclose(one, other, atol=2e-5 * np.abs(other).max())


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize(
  "name, plain, sign",
  [
    ("convolve", 3, "stablehlo.concatenate"),
    ("convolve_repeated", 3, "stablehlo.concatenate"),
    ("attend", 0, "stablehlo.while"),
  ],
)
def test_accelerators_get_the_plain_operations(name, plain, sign, platform):
  function, inputs = COSTLY[name]

  def value_and_slopes(*inputs):
    value, pull = jax.vjp(function, *inputs)
    return value, pull(jnp.ones(value.shape))

  def lower(platform):
    return jax.export.export(jax.jit(value_and_slopes), platforms=[platform])(*inputs).mlir_module()

  assert lower(platform).count("stablehlo.convolution") == plain and sign not in lower(platform)
  assert sign in lower("cpu")


def test_attention_survives_large_logits():
  query = 100 * random_array(1, 5, 1, 8)
  attended = operations.dot_product_attention(query, query, query, query_chunk=1)
  np.testing.assert_allclose(attended, query, rtol=1e-5)


def test_attention_keeps_its_softmax_in_float32():
  # 300 equal keys: in bfloat16 a sum of ones stops at 256.
  query, key, value = jnp.zeros((1, 1, 1, 4)), jnp.zeros((1, 300, 1, 4)), jnp.ones((1, 300, 1, 4))
  attended = operations.dot_product_attention(*(x.astype(jnp.bfloat16) for x in (query, key, value)))
  assert attended.dtype == jnp.bfloat16
  np.testing.assert_allclose(attended.astype(jnp.float32), 1.0, rtol=1e-2)
