"""The denoiser: bands are separate without frequency attention, meet with it, and have no order of their own."""

import functools
import math

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gid_jax.models.denoiser import cast_params, casts_params
from gid_jax.models.unet import UNet

pytestmark = pytest.mark.usefixtures("quick_compilation")

SIZE = dict(channels=8, multipliers=(1, 2), num_blocks=1, attention_levels=(1,), head_channels=8, groups=4)
COORDINATED, SEPARATE = (UNet(**SIZE, coordination=kind) for kind in ("attention", ""))


def make_inputs(seed=0):
  rng = np.random.default_rng(seed)
  latents = rng.normal(size=(2, 3, 4, 6, 4)).astype(np.float32)
  timesteps = rng.integers(0, 1000, (2, 3))
  bands = np.array([[0, 4, 9], [15, 2, 3]])
  return latents, timesteps, bands, rng.normal(size=(2, 4, 6, 5)).astype(np.float32)


@functools.cache
def compiled(model):
  return jax.jit(lambda params, *inputs: model.apply({"params": params}, *inputs))


@pytest.fixture(scope="module")
def params():
  return helpers.random_params(COORDINATED.init, *make_inputs())


def without_coordination(params):
  return {name: value for name, value in params.items() if "frequency_attention" not in name}


def test_stage_2_with_zero_projections_is_stage_1(params):
  inputs = make_inputs()
  zeroed = {
    name: value | {"out": jax.tree.map(np.zeros_like, value["out"])} if "frequency_attention" in name else value
    for name, value in params.items()
  }
  separate = compiled(SEPARATE)(without_coordination(params), *inputs)
  np.testing.assert_allclose(compiled(COORDINATED)(zeroed, *inputs), separate, atol=1e-5)
  assert np.max(np.abs(compiled(COORDINATED)(params, *inputs) - separate)) > 0.1


def test_stage_1_treats_every_band_by_itself(params):
  latents, timesteps, bands, condition = make_inputs()
  stage_1 = without_coordination(params)
  together = compiled(SEPARATE)(stage_1, latents, timesteps, bands, condition)
  assert together.shape == latents.shape and together.dtype == np.float32
  alone = compiled(SEPARATE)(
    stage_1,
    latents.reshape(6, 1, 4, 6, 4),
    timesteps.reshape(6, 1),
    bands.reshape(6, 1),
    condition.repeat(3, axis=0),
  )
  np.testing.assert_allclose(together, alone.reshape(latents.shape), atol=1e-5)


@pytest.mark.parametrize("model, meet", [(SEPARATE, False), (COORDINATED, True)])
def test_only_frequency_attention_lets_bands_meet(params, model, meet):
  latents, timesteps, bands, condition = make_inputs()
  params = params if meet else without_coordination(params)

  def respond(latents):
    return compiled(model)(params, latents, timesteps, bands, condition)

  changed = latents.copy()
  changed[0, 1] += 1.0
  difference = np.abs(respond(changed) - respond(latents)).max(axis=(2, 3, 4))
  assert difference[0, 1] > 1e-2
  others = difference[0, [0, 2]]
  assert np.all(others > 1e-3) if meet else np.all(others < 1e-6)
  assert np.all(difference[1] < 1e-6)  # another example is never touched


def test_bands_have_no_order_but_their_index(params):
  latents, timesteps, bands, condition = make_inputs()
  order = [2, 0, 1]
  first = compiled(COORDINATED)(params, latents, timesteps, bands, condition)
  shuffled = compiled(COORDINATED)(params, latents[:, order], timesteps[:, order], bands[:, order], condition)
  np.testing.assert_allclose(shuffled, first[:, order], atol=1e-5)


def test_time_band_and_condition_matter(params):
  latents, timesteps, bands, condition = make_inputs()
  stage_1 = without_coordination(params)
  run = functools.partial(compiled(SEPARATE), stage_1)
  first = run(latents, timesteps, bands, condition)
  for other in (
    run(latents, timesteps + 50, bands, condition),
    run(latents, timesteps, bands + 1, condition),
    run(latents, timesteps, bands, condition + 0.5),
    run(latents, bands, timesteps, condition),  # the two embeddings are not one sum of the same
  ):
    assert np.all(np.abs(other - first).max(axis=(2, 3, 4)) > 1e-3)


def test_low_precision_computes_in_bfloat16_and_keeps_float32_outside(params):
  model, inputs = UNet(**SIZE, dtype="bfloat16"), make_inputs()
  shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
  assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
  program = jax.make_jaxpr(model.apply)({"params": params}, *inputs)
  assert program.out_avals[0].dtype == np.float32
  convolutions = [line for line in str(program).splitlines() if "conv_general_dilated[" in line]
  assert convolutions and all("bf16" in line for line in convolutions)


def test_parameters_cast_beforehand_change_no_bit():
  # The transformer's attention has the layer norms, and a context.
  fields = dict(channels=8, multipliers=(1,), num_blocks=0, groups=4, dtype="bfloat16")
  model, inputs = UNet(**fields, attention="transformer", context_tokens=3, context_channels=6), make_inputs()
  params = helpers.random_params(model.init, *inputs)
  cast = jax.jit(lambda params: cast_params(model, params))(params)
  np.testing.assert_array_equal(compiled(model)(cast, *inputs), compiled(model)(params, *inputs))
  types = {jax.tree_util.keystr(path): leaf.dtype for path, leaf in jax.tree_util.tree_leaves_with_path(cast)}
  assert {kind for name, kind in types.items() if "norm" in name} == {np.dtype("float32")}
  assert {kind for name, kind in types.items() if "norm" not in name} == {jnp.dtype("bfloat16")}
  # What does not tell how it computes is left as it is.
  foreign = cast_params(UNet(**fields, coordination="my_parts:MeanOverBands"), params)
  kept = [jax.tree.leaves(value)[0].dtype for name, value in foreign.items() if "frequency_attention" in name]
  assert kept and set(kept) == {np.dtype("float32")} and not casts_params(COORDINATED)


def test_the_paper_size():
  # About 240 M parameters in stage 1, two levels of three with spatial attention.
  model = UNet(channels=128, multipliers=(1, 4, 8), num_blocks=2, attention_levels=(1, 2), coordination="")
  inputs = (jnp.zeros((1, 1, 8, 8, 4)), jnp.zeros((1, 1), int), jnp.zeros((1, 1), int), jnp.zeros((1, 8, 8, 16)))
  shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
  assert 200e6 < sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)) < 280e6


def test_any_latent_size():
  # 5 x 7 becomes 3 x 4 and 2 x 2 below; every pixel counts, those at the cropped edges too.
  model = UNet(**SIZE | {"multipliers": (1, 1, 1)}, coordination="")
  rng = np.random.default_rng(1)
  latents, condition = rng.normal(size=(1, 2, 5, 7, 4)), rng.normal(size=(1, 5, 7, 5))
  inputs = (latents, np.array([[3, 900]]), np.array([[0, 1]]), condition)
  params = helpers.random_params(model.init, *inputs)
  first = compiled(model)(params, *inputs)
  assert first.shape == latents.shape
  latents[:, :, 4, 6] += 1.0
  changed = compiled(model)(params, latents, *inputs[1:])
  assert np.all(np.abs(changed - first).max(axis=-1) > 1e-5)


def test_rematerialisation_changes_no_number(params):
  fields = SIZE | {"multipliers": (1,), "num_blocks": 0, "attention_levels": ()}
  plain, again = UNet(**fields), UNet(**fields, remat=True)
  inputs = make_inputs()
  params = helpers.random_params(plain.init, *inputs)
  initialized = jax.eval_shape(again.init, jax.random.key(0), *inputs)["params"]
  assert jax.tree.map(jnp.shape, initialized) == jax.tree.map(jnp.shape, params)
  assert "remat" in str(jax.make_jaxpr(lambda params: again.apply({"params": params}, *inputs))(params))

  def value_and_grad(model):
    return jax.jit(jax.value_and_grad(lambda params: (model.apply({"params": params}, *inputs) ** 2).mean()))(params)

  (loss, slopes), (expected_loss, expected_slopes) = value_and_grad(again), value_and_grad(plain)
  np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
  jax.tree.map(
    lambda slope, expected: np.testing.assert_allclose(slope, expected, atol=1e-5 * max(1.0, np.abs(expected).max())),
    slopes,
    expected_slopes,
  )
