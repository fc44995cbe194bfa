"""What is exact on accelerators too, where the default rounds factors to bfloat16 or TF32: read off the programs."""

import functools

import helpers
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from gid_jax.flow import estimate
from gid_jax.models.codec import PaperCodec
from gid_jax.models.encoders import SwingHead
from gid_jax.models.renderer import Renderer, RendererConfig
from gid_jax.motion import moving_photo, spectral

BANDS = np.array([[0, 1]])


def find_products(function, *inputs):
  """(shape, whether exact) of every matrix product and convolution of `function(*inputs)`, in order."""

  def walk(program):
    for equation in program.eqns:
      if equation.primitive.name in ("dot_general", "conv_general_dilated"):
        yield equation.outvars[0].aval.shape, equation.params["precision"] == (jax.lax.Precision.HIGHEST,) * 2
      for part in jax.extend.core.jaxprs_in_params(equation.params):
        yield from walk(part)

  return list(walk(jax.make_jaxpr(function)(*inputs).jaxpr))


def bind(module, inputs, **options):
  params = jax.tree.map(jnp.asarray, helpers.random_params(module.init, *inputs, **options))
  return functools.partial(module.apply, {"params": params}, **options)


def test_the_fitted_swing_is_exact():
  head = SwingHead()
  features = np.random.default_rng(0).normal(size=(2, 5, 6, 40)).astype(np.float32)
  assert find_products(bind(head, (features,)), features) == [((2, 5, 6), True), ((2, 5, 6), True)]


def test_decoded_motion_is_exact_training_is_not():
  codec = PaperCodec(num_bands=2, channels=4, multipliers=(1, 2), num_blocks=1, latent_channels=3, groups=2)
  latents = np.random.default_rng(0).normal(size=(1, 2, 4, 5, 3)).astype(np.float32)
  products = find_products(bind(codec, (latents, BANDS), method="latents_to_slices"), latents, BANDS)
  assert len(products) > 10 and all(is_exact for _, is_exact in products)
  inputs = (jax.random.key(0), np.zeros((2, 8, 10, 4), np.float32), BANDS[0])
  products = find_products(bind(codec, inputs, method="reconstruct"), *inputs)
  assert len(products) > 10 and not any(is_exact for _, is_exact in products)


def test_flow_is_exact():
  frames = np.zeros((2, 60, 80, 3), np.float32)
  mesh = Mesh(np.asarray(jax.devices()[:1]), ("targets",))
  estimate_block = functools.partial(estimate._estimate_block, settings=estimate.DEFAULT, mesh=mesh)
  products = find_products(lambda *inputs: estimate_block(*inputs), frames[0], frames)
  assert len(products) > 5 and all(is_exact for _, is_exact in products)


def test_spectra_and_the_motion_of_frames_are_exact():
  motion = np.zeros((30, 8, 10, 2), np.float32)
  volume = spectral.SpectralVolume(np.zeros((4, 8, 10, 4), np.float32), num_frames=30)
  height, width = (side + 2 * moving_photo.MARGIN for side in (8, 10))
  series = np.zeros((8, height * width * 2), np.float32)
  table = np.zeros((3, 4, 2), np.float32)
  for function, given in (
    (lambda motion: spectral.motion_to_spectrum(motion, num_bands=4, fps=30.0).coefficients, (motion,)),
    (lambda volume: spectral.evaluate_motion(volume, np.arange(3)), (volume,)),
    (lambda volume: spectral.resize_spectrum(volume, 16, 20).coefficients, (volume,)),
    (lambda *inputs: moving_photo.evaluate_series(*inputs, 8, 10), (series, table)),
  ):
    products = find_products(function, *given)
    assert products and all(is_exact for _, is_exact in products)


def test_the_mask_of_the_renderer_is_exact():
  renderer = Renderer(RendererConfig(channels=(4, 6), style_dim=5))
  image, flow = np.random.default_rng(0).normal(size=(2, 1, 6, 8, 3)).astype(np.float32)
  inputs = (image, flow[..., :2], image[..., 0], np.ones((1, 5), np.float32))
  products = find_products(bind(renderer, inputs), *inputs)
  assert [is_exact for shape, is_exact in products if shape == (1, 6, 8, 1)] == [True]
