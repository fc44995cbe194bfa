"""The motion model: the parts in the right places, and one tree of parameters."""

import helpers
import jax
import numpy as np
import pytest

from gid_jax.models.motion_model import MotionModel
from gid_jax.models.unet import UNet
from gid_jax.models.vae import VAE
from gid_jax.parsing import Part, freeze

pytestmark = pytest.mark.usefixtures("quick_compilation")

VAE_FIELDS = dict(channels=4, multipliers=(1, 2), num_blocks=1, latent_channels=3, groups=2)
UNET_FIELDS = dict(channels=4, multipliers=(1,), num_blocks=1, attention_levels=(), groups=2)
MODEL = MotionModel(
  codec_part=Part("paper", freeze(VAE_FIELDS)),
  encoder_part=Part("condition", freeze(dict(channels=2, hidden=4))),
  denoiser_part=Part("unet", freeze(UNET_FIELDS)),
  num_bands=5,
)
RNG = np.random.default_rng(0)
SLICES = RNG.normal(scale=20, size=(2, 3, 8, 6, 4)).astype(np.float32)
LATENTS = RNG.normal(size=(2, 3, 4, 3, 3)).astype(np.float32)
BANDS = np.array([[4, 0, 2], [1, 1, 3]])
TIMESTEPS = np.array([[0, 10, 999]] * 2)
IMAGE = helpers.smooth_image(16, 12)[None].repeat(2, 0)


@pytest.fixture(scope="module")
def params():
  return helpers.random_params(MODEL.init, SLICES, BANDS, IMAGE, TIMESTEPS)


def call(method, params, *inputs, **options):
  return jax.jit(lambda params: MODEL.apply({"params": params}, *inputs, method=method, **options))(params)


def test_one_tree_holds_everything(params):
  assert set(params) == {"vae", "encoder", "unet", "band_scale", "latent_mean", "latent_std"}
  assert params["band_scale"].shape == (5,) and params["latent_mean"].shape == params["latent_std"].shape == (3,)
  assert MODEL.latent_factor == 2
  # The auto-encoder is trained first and alone: it makes the same names and shapes.
  init = lambda key: MODEL.init(key, key, SLICES[0], BANDS[0], method="reconstruct")["params"]
  alone = jax.eval_shape(init, jax.random.key(0))
  assert jax.tree.map(np.shape, alone["vae"]) == jax.tree.map(np.shape, params["vae"])
  start = jax.jit(lambda key: {name: init(key)[name] for name in ("band_scale", "latent_mean", "latent_std")})
  neutral = start(jax.random.key(0, impl="rbg"))
  assert np.all(neutral["band_scale"] == 1) and np.all(neutral["latent_std"] == 1)
  assert not np.any(neutral["latent_mean"])


def normalize_by_hand(params, slices, bands):
  scaled = slices / params["band_scale"][bands][..., None, None, None]
  return np.sign(scaled) * np.sqrt(np.abs(scaled))


def test_slices_to_latents_normalises_encodes_and_whitens(params):
  latents = call("slices_to_latents", params, SLICES, BANDS)
  encode = jax.jit(lambda slices: VAE(**VAE_FIELDS).apply({"params": params["vae"]}, slices, method="encode")[0])
  mean = encode(normalize_by_hand(params, SLICES, BANDS).reshape(6, 8, 6, 4)).reshape(2, 3, 4, 3, 3)
  np.testing.assert_allclose(latents, (mean - params["latent_mean"]) / params["latent_std"], atol=1e-4)


def test_latents_to_slices_undoes_it_in_reverse_order(params):
  slices = call("latents_to_slices", params, LATENTS, BANDS)
  decode = jax.jit(lambda latents: VAE(**VAE_FIELDS).apply({"params": params["vae"]}, latents, method="decode"))
  raw = (LATENTS * params["latent_std"] + params["latent_mean"]).reshape(6, 4, 3, 3)
  decoded = np.asarray(decode(raw)).reshape(2, 3, 8, 6, 4)
  expected = np.sign(decoded) * decoded**2 * params["band_scale"][BANDS][..., None, None, None]
  np.testing.assert_allclose(slices, expected, atol=1e-4)


def test_reconstruct_returns_the_normalised_input_first(params):
  normalized, output, mean, log_variance = call("reconstruct", params, jax.random.key(0), SLICES[0], BANDS[0])
  np.testing.assert_allclose(normalized, normalize_by_hand(params, SLICES[0], BANDS[0]), rtol=1e-5)
  assert output.shape == normalized.shape and mean.shape == log_variance.shape == (3, 4, 3, 3)


def test_denoise_is_the_unet_on_the_image_features(params):
  condition, swing = call("encode_image", params, IMAGE, height=4, width=3)
  assert condition.shape == (2, 4, 3, 2) and swing is None
  found = call("denoise", params, LATENTS, TIMESTEPS, BANDS, condition)
  unet = UNet(out_channels=3, **UNET_FIELDS)
  expected = jax.jit(unet.apply)({"params": params["unet"]}, LATENTS, TIMESTEPS, BANDS, condition)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_volume_is_denoised_as_channels_of_one_image():
  model = MODEL.clone(volume=True, num_bands=3)
  bands, timesteps = np.array([[0, 1, 2]] * 2), np.array([[40] * 3, [7] * 3])
  params = helpers.random_params(model.init, SLICES, bands, IMAGE, timesteps)
  kernels = params["unet"]["conv_in"]["kernel"], params["unet"]["conv_out"]["kernel"]
  assert [kernel.shape[2:] for kernel in kernels] == [(3 * 3 + 2, 4), (4, 3 * 3)]
  condition = helpers.smooth_image(4, 3)[None, ..., :2].repeat(2, 0).astype(np.float32)
  run = lambda params: model.apply({"params": params}, LATENTS, timesteps, bands, condition, method="denoise")
  found = jax.jit(run)(params)
  stacked = np.stack([np.concatenate(list(latents), axis=-1) for latents in LATENTS])[:, None]
  unet = UNet(out_channels=9, **UNET_FIELDS)
  output = jax.jit(unet.apply)({"params": params["unet"]}, stacked, timesteps[:, :1], bands[:, :1], condition)
  expected = np.stack([np.split(np.asarray(image), 3, axis=-1) for image in output[:, 0]])
  np.testing.assert_allclose(found, expected, atol=1e-5)
