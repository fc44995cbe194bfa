"""The slice auto-encoder against the same network written in NumPy, layer by layer."""

import helpers
import jax
import numpy as np
import pytest

from gid_jax.models.layers import BOTTOM_RIGHT
from gid_jax.models.vae import VAE

pytestmark = pytest.mark.usefixtures("quick_compilation")

MODEL = VAE(channels=4, multipliers=(1, 2), num_blocks=1, latent_channels=3, slice_channels=4, groups=2)
SLICES = np.random.default_rng(0).normal(size=(2, 8, 6, 4)).astype(np.float32)
BLOCK = dict(groups=2, epsilon=1e-6)


@pytest.fixture(scope="module")
def params():
  return helpers.random_params(MODEL.init, jax.random.key(0), SLICES)


@pytest.fixture(scope="module")
def encode():
  return jax.jit(lambda params, slices: MODEL.apply({"params": params}, slices, method="encode"))


@pytest.fixture(scope="module")
def decode():
  return jax.jit(lambda params, latents: MODEL.apply({"params": params}, latents, method="decode"))


def middle(params, x):
  x = helpers.res_block(params["block1"], x, **BLOCK)
  x = helpers.spatial_attention(params["attention"], x, num_heads=1, **BLOCK)
  return helpers.res_block(params["block2"], x, **BLOCK)


def finish(params, x):
  return helpers.conv(params["conv_out"], helpers.silu(helpers.group_norm(params["norm_out"], x, **BLOCK)))


def encode_by_hand(params, image):
  encoder = params["encoder"]
  x = helpers.res_block(encoder["level0_block0"], helpers.conv(encoder["conv_in"], image), **BLOCK)
  x = helpers.conv(encoder["level0_down"]["conv"], x, stride=2, padding=BOTTOM_RIGHT)
  x = helpers.res_block(encoder["level1_block0"], x, **BLOCK)
  return helpers.conv(params["quant_conv"], finish(encoder, middle(encoder["middle"], x)))


def decode_by_hand(params, latent):
  decoder = params["decoder"]
  x = helpers.conv(decoder["conv_in"], helpers.conv(params["post_quant_conv"], latent))
  x = middle(decoder["middle"], x)
  for block in range(2):
    x = helpers.res_block(decoder[f"level1_block{block}"], x, **BLOCK)
  x = helpers.conv(decoder["level1_up"]["conv"], np.kron(x, np.ones((2, 2, 1))))
  for block in range(2):
    x = helpers.res_block(decoder[f"level0_block{block}"], x, **BLOCK)
  return finish(decoder, x)


def test_encode(params, encode):
  mean, log_variance = encode(params, SLICES)
  assert MODEL.factor == 2 and mean.shape == log_variance.shape == (2, 4, 3, 3)
  for index in range(2):
    moments = encode_by_hand(params, SLICES[index])
    np.testing.assert_allclose(mean[index], moments[..., :3], atol=1e-4)
    np.testing.assert_allclose(log_variance[index], moments[..., 3:], atol=1e-4)


def test_log_variance_is_clamped(params, encode):
  quant = params["quant_conv"]
  bias = quant["bias"] + np.float32([0, 0, 0, 100, -100, 0])
  mean, log_variance = encode(params | {"quant_conv": quant | {"bias": bias}}, SLICES)
  np.testing.assert_array_equal(mean, encode(params, SLICES)[0])
  assert np.all(log_variance[..., 0] == 20) and np.all(log_variance[..., 1] == -30)


def test_decode(params, decode):
  latents = np.random.default_rng(1).normal(size=(2, 4, 3, 3)).astype(np.float32)
  found = decode(params, latents)
  assert found.shape == (2, 8, 6, 4)
  for index in range(2):
    np.testing.assert_allclose(found[index], decode_by_hand(params, latents[index]), atol=1e-4)


def test_call_decodes_a_sample_of_the_latent(params, encode, decode):
  call = jax.jit(lambda key, params: MODEL.apply({"params": params}, key, SLICES))
  key = jax.random.key(3)
  output, mean, log_variance = call(key, params)
  noise = jax.random.normal(key, mean.shape)
  np.testing.assert_allclose(output, decode(params, mean + np.exp(log_variance / 2) * noise), atol=1e-4)
  np.testing.assert_allclose(mean, encode(params, SLICES)[0], atol=1e-5)
  assert np.any(np.abs(call(jax.random.key(4), params)[0] - output) > 1e-2)
