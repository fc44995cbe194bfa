"""The renderer: what it does before any training, what it learns from, and its geometry at every scale."""

import helpers
import jax
import jax.numpy as jnp
import judges_reference
import numpy as np
import pytest
from scipy.ndimage import correlate, map_coordinates

from gid_jax.errors import UserError
from gid_jax.models import renderer
from gid_jax.models.resnet import resnet34_params

pytestmark = pytest.mark.usefixtures("quick_compilation")

CONFIG = renderer.RendererConfig(channels=(6, 8, 12), style_dim=8, mapping_layers=1)


def smooth_image(h, w):
  y, x = np.mgrid[:h, :w].astype(np.float32)
  return np.stack([0.5 + 0.3 * np.sin(x / 5), 0.4 + 0.3 * np.cos(y / 6), 0.5 + 0.2 * np.sin((x + y) / 9)], -1)


@pytest.fixture(scope="module")
def model(quick_compilation):
  module = renderer.Renderer(CONFIG)
  shape = (1, 16, 16)
  inputs = (jnp.zeros((*shape, 3)), jnp.zeros((*shape, 2)), jnp.zeros(shape), jnp.zeros((1, 8)))
  key = jax.random.key(0, impl="unsafe_rbg")  # compiles several times faster than the default generator
  return jax.jit(module.apply), jax.jit(module.init)(key, *inputs)


@pytest.mark.parametrize("h,w", [(16, 24), (19, 27)])
def test_no_motion_gives_the_photo_back(model, h, w):
  render, variables = model
  image = smooth_image(h, w)[None]
  noise = jax.random.normal(jax.random.key(1), (1, 8))
  out = render(variables, image, np.zeros((1, h, w, 2)), np.zeros((1, h, w)), noise)
  assert out.rgb.shape == (1, h, w, 3) and out.mask.shape == (1, h, w, 1)
  np.testing.assert_allclose(out.rgb, image, atol=0.02)
  assert np.all((out.mask > 0.8) & (out.mask < 0.97))
  np.testing.assert_allclose(out.rgb, out.mask * image + (1 - out.mask) * out.synthesis, atol=1e-5)


def test_holes_show_the_synthesis_in_colours_of_the_photo(model):
  render, variables = model
  h, w = 16, 24
  image = 0.5 + 0.4 * smooth_image(h, w)[None]  # nowhere darker than 0.5
  flow = np.zeros((1, h, w, 2), np.float32)
  flow[:, :, 8:, 0] = 8.0
  noise = np.ones((1, 8), np.float32)
  out = render(variables, image, flow, np.hypot(*np.moveaxis(flow, -1, 0)), noise)
  holes = (slice(None), slice(None), slice(8, 16))
  assert not np.any(out.mask[holes])
  np.testing.assert_array_equal(out.rgb[holes], out.synthesis[holes])
  assert np.all(out.rgb[holes] > 0.4) and np.all(out.rgb[holes] < 1.1)
  np.testing.assert_allclose(out.rgb[:, :, 16:], image[:, :, 8:-8], atol=0.03)
  # The whole photo leaves the frame: still its colours, and finite.
  gone = render(variables, image, np.full_like(flow, 1000.0), np.ones((1, h, w)), noise)
  assert np.all(np.isfinite(gone.rgb)) and np.all(gone.rgb > 0.4)


def test_every_parameter_learns(model):
  render, variables = model
  key = jax.random.key(2)
  image = jax.random.uniform(key, (2, 16, 24, 3))
  flow = 4.0 * jax.random.normal(key, (2, 16, 24, 2))
  depth, noise = jnp.abs(flow[..., 0]), jax.random.normal(key, (2, 8))

  def loss(variables):
    return jnp.mean(jnp.abs(render(variables, image, flow, depth, noise).rgb - 0.3))

  for path, gradient in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(variables)):
    assert np.all(np.isfinite(gradient)), path
    assert np.any(gradient), path


def test_a_frame_depends_on_its_inputs_only(model):
  render, variables = model
  rng = np.random.default_rng(3)
  image = rng.uniform(size=(2, 16, 24, 3)).astype(np.float32)
  flow = rng.normal(size=(2, 16, 24, 2), scale=2).astype(np.float32)
  depth = np.abs(flow[..., 0])
  noise = rng.normal(size=(2, 8)).astype(np.float32)
  first = render(variables, image, flow, depth, noise)
  np.testing.assert_array_equal(first.rgb, render(variables, image, flow, depth, noise).rgb)
  other = render(variables, image, flow, depth, noise[::-1].copy())
  assert np.any(np.abs(first.synthesis - other.synthesis) > 1e-5)
  swapped = render(variables, *(x[::-1].copy() for x in (image, flow, depth, noise)))
  np.testing.assert_allclose(swapped.rgb[::-1], first.rgb, atol=1e-5)


def test_flow_is_rescaled_per_axis_at_every_scale():
  # 22 x 37 becomes 11 x 19: x shrinks by 19/37, y by exactly a half, so a shift of whole pixels at the coarse
  # scale is 37/19 and 2 pixels per step at the fine one.
  h, w, hs, ws = 22, 37, 11, 19
  coarse = np.random.default_rng(4).normal(size=(1, hs, ws, 5)).astype(np.float32)
  fine = np.zeros((1, h, w, 1), np.float32)
  flow = np.broadcast_to(np.float32([3 * w / ws, 2 * h / hs]), (1, h, w, 2))
  image = np.broadcast_to(smooth_image(h, w), (1, h, w, 3))
  warp = jax.jit(renderer.warp_pyramid)
  scales = warp(image, (fine, coarse), flow, np.ones((1, h, w)))
  np.testing.assert_allclose(scales[1].features[:, 2:, 3:], coarse[:, :-2, :-3], atol=1e-3)
  np.testing.assert_allclose(scales[1].mass[:, 2:, 3:], 1.0, atol=1e-4)
  assert np.all(scales[1].mass[:, :2] < 1e-4) and np.all(scales[1].mass[:, :, :3] < 1e-4)


def test_modulated_conv_is_a_convolution_with_a_demodulated_kernel():
  rng = np.random.default_rng(5)
  x = rng.normal(size=(2, 6, 7, 3)).astype(np.float32)
  style = rng.normal(size=(2, 4)).astype(np.float32)
  module = renderer.ModulatedConv(5)
  params = jax.jit(module.init)(jax.random.key(0, impl="unsafe_rbg"), x, style)["params"]
  found = jax.jit(module.apply)({"params": params}, x, style)
  kernel, dense = np.asarray(params["kernel"], np.float64), params["style"]
  for b in range(2):
    modulated = kernel * (style[b] @ np.asarray(dense["kernel"]) + dense["bias"])[None, None, :, None]
    modulated /= np.sqrt((modulated**2).sum(axis=(0, 1, 2), keepdims=True) + 1e-8)
    for o in range(5):
      expected = sum(correlate(x[b, ..., i], modulated[..., i, o], mode="constant") for i in range(3))
      np.testing.assert_allclose(found[b, ..., o], expected, atol=1e-5)


@pytest.mark.parametrize("splat", ["motion", "linear", "average", "learned"])
def test_what_decides_where_pixels_collide(splat):
  module = renderer.Renderer(renderer.RendererConfig(channels=(6,), style_dim=8, mapping_layers=1, splat=splat))
  # Columns 4 ... 7 move onto columns 8 ... 11, which stay: two pixels a place.
  flow = np.zeros((1, 8, 16, 2), np.float32)
  flow[:, :, 4:8, 0] = 4.0
  weight = np.hypot(*np.moveaxis(flow, -1, 0))
  image = smooth_image(8, 16)[None]
  noise = np.ones((1, 8), np.float32)
  variables = helpers.random_params(module.init, image, flow, weight, noise)
  out = jax.jit(lambda params: module.apply({"params": params}, image, flow, weight, noise))(variables)
  if splat == "learned":
    features = jax.jit(lambda params: module.apply({"params": params}, image, method="encode"))(variables)[0][0]
    expected = helpers.conv(variables["depth"], np.asarray(features))[..., 0]
  else:
    expected = weight[0] if splat in ("motion", "linear") else np.zeros((8, 16))
  if splat == "linear":
    # What rests has weight 0: it is not there, and nothing is mixed with what moves onto it.
    np.testing.assert_allclose(out.mask[0, :, 12:], 0, atol=1e-6)
    expected = np.log(np.maximum(expected, 1e-30))
  moving, still = np.exp(expected[:, 4:8, None]), np.exp(expected[:, 8:12, None])
  blend = (moving * image[0, :, 4:8] + still * image[0, :, 8:12]) / (moving + still)
  warped = (out.rgb - (1 - out.mask) * out.synthesis) / out.mask
  np.testing.assert_allclose(warped[0, :, 8:12], blend, atol=1e-3)


@pytest.mark.parametrize(
  "fields, message",
  [
    (dict(splat="nearest"), "renderer.splat must be one of motion, linear, average, learned, not 'nearest'"),
    (dict(pyramid="vgg"), "renderer.pyramid must be one of residual, resnet34, not 'vgg'"),
    (dict(pyramid="resnet34", channels=(4,) * 7), "renderer.channels: the pyramid resnet34 has 6 scales at most"),
  ],
)
def test_an_unknown_choice_is_an_error(fields, message):
  module = renderer.Renderer(renderer.RendererConfig(**({"channels": (6,)} | fields)))
  with pytest.raises(UserError, match=message):
    jax.eval_shape(module.init, jax.random.key(0), *(np.zeros((1, 8, 8, n)) for n in (3, 2)), np.zeros((1, 8, 8)), 0)


def test_the_papers_features_are_those_of_pytorch():
  torch = pytest.importorskip("torch")
  height, width = 49, 70
  image = np.random.default_rng(6).random((1, height, width, 3), np.float32)
  tensors = judges_reference.make_tensors("resnet")
  torch_tensors = {name: torch.from_numpy(array) for name, array in tensors.items()}
  with torch.no_grad():
    stages = judges_reference.run_resnet_stages(torch_tensors, torch.from_numpy(image.transpose(0, 3, 1, 2)))
  pyramid = renderer.FeaturePyramid(renderer.RendererConfig(channels=(5, 4, 4, 4, 4, 4), pyramid="resnet34"))
  params = helpers.random_params(pyramid.init, image)
  params["resnet34"] = resnet34_params(tensors, source="file")
  found = jax.jit(pyramid.apply)({"params": params}, image)
  np.testing.assert_allclose(found[0][0], helpers.conv(params["stem"], 2 * image[0] - 1), atol=1e-4)
  assert [scale.shape[-1] for scale in found] == [5, 64, 64, 128, 256, 512]
  for i, (scale, stage) in enumerate(zip(found[1:], stages, strict=True), start=1):
    # Feature j of the network is of pixel 2^i j; that of the pyramid is at the centre of the jth of n equal cells.
    sides = (-(-height // 2**i), -(-width // 2**i))
    assert scale.shape[1:3] == stage.shape[2:] == sides
    centres = [((np.arange(n) + 0.5) * size / n - 0.5) / 2**i for n, size in zip(sides, (height, width), strict=True)]
    places = np.stack(np.meshgrid(*centres, indexing="ij"))
    expected = np.stack([map_coordinates(plane, places, order=1, mode="nearest") for plane in stage[0].numpy()], -1)
    np.testing.assert_allclose(scale[0], expected, atol=1e-4 * np.abs(expected).max())
