"""The building blocks against a NumPy forward written with loops over heads, bands and pixels."""

import math

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gid_jax.models import layers

pytestmark = pytest.mark.usefixtures("quick_compilation")


def random_array(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run(module, *inputs):
  """Random parameters of a module and its output for the inputs."""
  params = helpers.random_params(module.init, *inputs)
  return params, np.asarray(jax.jit(module.apply)({"params": params}, *inputs))


@pytest.mark.parametrize("positions", [np.array([[0, 1, 7], [15, 500, 999]]), np.array([0.5, 3.25])])
def test_sinusoidal_embedding_is_cosines_then_sines(positions):
  found = layers.sinusoidal_embedding(jnp.asarray(positions), 6)
  assert found.shape == (*positions.shape, 6)
  for index in np.ndindex(positions.shape):
    angles = [positions[index] * 10000 ** (-i / 3) for i in range(3)]
    expected = [math.cos(angle) for angle in angles] + [math.sin(angle) for angle in angles]
    np.testing.assert_allclose(found[index], expected, atol=2e-4)


@pytest.mark.parametrize("channels, groups, used", [(8, 4, 4), (6, 4, 3), (7, 4, 1), (2, 32, 2)])
def test_group_norm(channels, groups, used):
  # So little contrast that 1e-5, 1e-6 and none give clearly different results; far from zero, as a still slice is.
  x = 3 + 2e-3 * random_array(2, 3, 4, channels)
  for epsilon in (1e-5, 1e-6):
    module = layers.GroupNorm(groups=groups, epsilon=epsilon)
    params, found = run(module, x)
    expected = [helpers.group_norm(params, image, groups=used, epsilon=epsilon) for image in x]
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize("channels, epsilon, with_embedding", [(6, 1e-5, True), (4, 1e-6, False)])
def test_res_block(channels, epsilon, with_embedding):
  x = 1e-2 * random_array(2, 4, 3, 4)
  inputs = (x, random_array(2, 5, seed=1)) if with_embedding else (x,)
  module = layers.ResBlock(channels, epsilon=epsilon, groups=2)
  params, found = run(module, *inputs)
  assert ("shortcut" in params) == (channels != 4)
  for index in range(2):
    example = [array[index].astype(np.float64) for array in inputs]
    expected = helpers.res_block(params, *example, groups=2, epsilon=epsilon)
    np.testing.assert_allclose(found[index], expected, atol=1e-4)


def test_spatial_attention_in_uneven_chunks():
  x = random_array(2, 3, 3, 8)
  module = layers.SpatialAttention(num_heads=2, groups=4, query_chunk=4)
  params, found = run(module, x)
  for image, output in zip(x, found, strict=True):
    expected = helpers.spatial_attention(params, image, num_heads=2, groups=4, epsilon=1e-6)
    np.testing.assert_allclose(output, expected, atol=1e-5)


def test_frequency_attention_with_relative_positions_on_keys_and_values():
  # Distances reach 9 while embeddings reach 2: far bands share the last one.
  bands = np.array([[0, 1, 5, 9], [3, 2, 1, 0]])
  x = random_array(2, 4, 1, 3, 8)
  module = layers.FrequencyAttention(max_distance=2, num_heads=2, groups=2)
  params, found = run(module, x, bands)
  assert params["relative_key"].shape == params["relative_value"].shape == (5, 4)
  for b in range(2):
    tokens = np.array([helpers.group_norm(params["norm"], slice_, groups=2, epsilon=1e-5) for slice_ in x[b]])
    query, key, value = (helpers.dense(params[name], tokens) for name in ("query", "key", "value"))
    for y, x_ in np.ndindex(1, 3):
      attended = np.zeros((4, 8))
      for head in (slice(0, 4), slice(4, 8)):
        for q in range(4):
          distance = [min(max(bands[b, q] - bands[b, r], -2), 2) + 2 for r in range(4)]
          seen = [key[r, y, x_, head] + params["relative_key"][distance[r]] for r in range(4)]
          weights = helpers.softmax(np.array([query[q, y, x_, head] @ k for k in seen]) / 2)
          taken = [value[r, y, x_, head] + params["relative_value"][distance[r]] for r in range(4)]
          attended[q, head] = sum(weight * v for weight, v in zip(weights, taken, strict=True))
      expected = x[b, :, y, x_] + helpers.dense(params["out"], attended)
      np.testing.assert_allclose(found[b, :, y, x_], expected, atol=1e-5)


@pytest.mark.parametrize("padding", [layers.SYMMETRIC, layers.BOTTOM_RIGHT])
def test_downsample_pads_as_told(padding):
  x = random_array(1, 6, 4, 3)
  params, found = run(layers.Downsample(padding=padding), x)
  assert found.shape == (1, 3, 2, 3)
  np.testing.assert_allclose(found[0], helpers.conv(params["conv"], x[0], stride=2, padding=padding), atol=1e-5)


def test_upsample_repeats_and_filters():
  x = random_array(1, 3, 2, 3)
  params, found = run(layers.Upsample(), x)
  repeated = np.kron(x[0], np.ones((2, 2, 1)))
  np.testing.assert_allclose(found[0], helpers.conv(params["conv"], repeated), atol=1e-5)
  # Cropped to the size of a level with odd sides; what is cropped off is not seen by the filter.
  cropped = layers.Upsample().apply({"params": params}, x, (5, 3))
  np.testing.assert_allclose(cropped[0], helpers.conv(params["conv"], repeated[:5, :3]), atol=1e-5)


@pytest.mark.parametrize("way", ["join", "vmap"])
def test_over_bands_runs_one_set_of_parameters_on_every_band(monkeypatch, way):
  monkeypatch.setattr(layers, "MAP_BANDS", way)
  x, embedding = random_array(2, 3, 4, 4, 4), random_array(2, 3, 5, seed=1)
  params, found = run(layers.over_bands(layers.ResBlock)(4, groups=2), x, embedding)
  for b, k in np.ndindex(2, 3):
    expected = helpers.res_block(params, x[b, k], embedding[b, k].astype(np.float64), groups=2, epsilon=1e-6)
    np.testing.assert_allclose(found[b, k], expected, atol=1e-4)


@pytest.mark.parametrize(
  ("module", "fields", "in_axes", "second"),
  [(layers.ResBlock, {"channels": 4, "groups": 2}, 1, random_array(2, 3, 5)), (layers.Upsample, {}, (1, None), (5, 8))],
)
def test_joined_bands_equal_nn_vmap(monkeypatch, module, fields, in_axes, second):
  x, params, outcomes = random_array(2, 3, 4, 4, 4), None, []
  for way in ("vmap", "join"):
    monkeypatch.setattr(layers, "MAP_BANDS", way)
    mapped = layers.over_bands(module, in_axes=in_axes)(**fields)
    params = params or helpers.random_params(lambda key, x, mapped=mapped: mapped.init(key, x, second), x)
    apply = lambda params, mapped=mapped: mapped.apply({"params": params}, x, second)
    loss = lambda params, apply=apply: (apply(params) ** 2).sum()
    outcomes.append((apply(params), jax.grad(loss)(params)))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *outcomes)


def test_frequency_attention_starts_as_nothing_and_learns():
  bands, x, target = np.arange(3)[None], random_array(1, 3, 2, 2, 4), random_array(1, 3, 2, 2, 4, seed=1)
  module = layers.FrequencyAttention(num_heads=2, groups=2)
  params = jax.jit(module.init)(jax.random.key(0, impl="rbg"), x, bands)["params"]
  loss = lambda params: ((module.apply({"params": params}, x, bands) - target) ** 2).sum()
  value_and_grad = jax.jit(jax.value_and_grad(loss))
  value, gradient = value_and_grad(params)
  np.testing.assert_allclose(value, ((x - target) ** 2).sum(), rtol=1e-6)
  assert np.any(gradient["out"]["kernel"])
  # Once the output projection has moved, everything learns; only a key's bias never matters before a softmax.
  _, gradient = value_and_grad(jax.tree.map(lambda param, slope: param - 0.01 * slope, params, gradient))
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    assert np.any(np.abs(leaf) > 1e-6) or name == "key/bias", name
