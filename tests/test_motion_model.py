"""The motion model: constants in the right places around the auto-encoder, and one tree of parameters."""

import helpers
import jax
import numpy as np
import pytest
import scipy.ndimage

from gid_jax.models.motion_model import MotionModel
from gid_jax.models.unet import UNet
from gid_jax.models.vae import VAE

VAE_FIELDS = dict(channels=4, multipliers=(1, 2), num_blocks=1, latent_channels=3, groups=2)
UNET_FIELDS = dict(channels=4, multipliers=(1,), num_blocks=1, attention_levels=(), groups=2)
MODEL = MotionModel(
  vae_fields=VAE_FIELDS,
  encoder_fields=dict(kind="resnet", channels=2, hidden=4),
  unet_fields=UNET_FIELDS,
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


def test_scaling_by_resolution_ignores_the_band():
  model = MODEL.clone(normalization="resolution")
  constants = dict(band_scale=np.full(5, 7.0), latent_mean=np.zeros(3), latent_std=np.ones(3))
  apply = lambda method, slices: model.apply({"params": constants}, slices, BANDS, method=method)
  scaled = apply("normalize", SLICES)
  np.testing.assert_allclose(scaled, SLICES / [6, 8, 6, 8], rtol=1e-6)
  np.testing.assert_allclose(apply("denormalize", scaled), SLICES, rtol=1e-6)
  with pytest.raises(ValueError, match="'frequency' or 'resolution', not 'pixels'"):
    MODEL.clone(normalization="pixels").init(jax.random.key(0), SLICES, BANDS, IMAGE, TIMESTEPS)


def test_swing_scales_slices_by_what_the_photo_says():
  # A photo twice the latent grid's size, a head with any weights: places that should swing more are divided by more.
  model = MODEL.clone(
    swing=True,
    vae_fields=dict(kind="area", factor=2),
    encoder_fields=dict(kind="efficientnet_lite0", channels=2, hidden=4),
  )
  photos = np.stack([IMAGE[0], IMAGE[1, ::-1] ** 2])
  params = helpers.random_params(model.init, SLICES, BANDS, photos, TIMESTEPS)
  assert "vae" not in params and {"kernel", "gate", "gate_bias", "depth", "faint"} == set(params["swing_head"])
  params["swing_head"]["faint"] = np.array([0.2], np.float32)
  run = lambda method, *inputs, **options: jax.jit(
    lambda params: model.apply({"params": params}, *inputs, method=method, **options)
  )(params)
  view = run("encode_image", photos, height=4, width=3)
  assert view.swing.shape == (2, 4, 3) and np.ptp(view.swing[0]) > 1e-3
  np.testing.assert_allclose(run("predict_swing", photos, height=4, width=3), view.swing, atol=1e-5)

  latents = run("slices_to_latents", SLICES, BANDS, swing=view.swing)
  factors = np.exp(view.swing)[:, None, :, :, None]
  cells = normalize_by_hand(params, SLICES.reshape(2, 3, 4, 2, 3, 2, 4).mean((3, 5)) / factors, BANDS)
  np.testing.assert_allclose(latents, (cells - params["latent_mean"]) / params["latent_std"], atol=1e-4)

  raw = latents * params["latent_std"] + params["latent_mean"]
  pixels = np.sign(raw) * raw**2 * params["band_scale"][BANDS][..., None, None, None] * factors
  expected = jax.image.resize(pixels, (2, 3, 8, 6, 4), "cubic")
  np.testing.assert_allclose(run("latents_to_slices", latents, BANDS, swing=view.swing), expected, rtol=1e-3, atol=1e-3)


def test_evenness_flattens_how_far_places_swing_and_no_more():
  model = MODEL.clone(vae_fields=dict(kind="area", factor=2))
  params = helpers.random_params(model.init, SLICES, BANDS, IMAGE, TIMESTEPS)
  # Phases vary from place to place; how far places swing falls from left to right, over more than a hundredfold.
  rng = np.random.default_rng(1)
  latents = rng.normal(size=(1, 5, 8, 12, 4)) * np.exp(-np.arange(12) / 5)[:, None]
  params["latent_mean"], params["latent_std"] = np.zeros(4, np.float32), np.ones(4, np.float32)
  bands = np.arange(5)[None]
  decode = lambda evenness: np.asarray(
    model.apply({"params": params}, latents.astype(np.float32), bands, evenness=evenness, method="latents_to_slices")
  )
  plain, half, even = (decode(evenness) for evenness in (0.0, 0.5, 1.0))
  # Gains by hand, on cells, as the decoder is linear in what it enlarges.
  raw = np.sign(latents) * latents**2 * params["band_scale"][:, None, None, None]
  square = scipy.ndimage.gaussian_filter((raw[:, 1:] ** 2).sum((1, 4))[0], 1.0, mode="nearest", truncate=3.0)
  for slices, evenness in ((half, 0.5), (even, 1.0)):
    gain = np.maximum(square / square.mean(), 1e-3) ** (-evenness / 2)  # least places are enlarged no further
    expected = jax.image.resize(raw * gain[:, :, None], (1, 5, 16, 24, 4), "cubic")
    np.testing.assert_allclose(slices, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
  spread = lambda slices: np.std(np.log((slices[:, 1:] ** 2).sum((1, 2, 4))))
  assert spread(plain) > 1.5 * spread(half) > 2 * spread(even)
  # At rest nothing is divided by nothing.
  assert not np.any(model.apply({"params": params}, 0 * latents, bands, evenness=1.0, method="latents_to_slices"))


def test_unit_strength_divides_by_the_windows_and_multiplies_by_the_typical():
  model, mean = (
    MODEL.clone(unit_strength=strength, vae_fields=dict(kind="area", factor=2)) for strength in (True, False)
  )
  params = helpers.random_params(model.init, SLICES, BANDS, IMAGE, TIMESTEPS)
  params["strength"] = np.array([40.0], np.float32)
  run = lambda model, params, *inputs, **options: jax.jit(
    lambda params: model.apply({"params": params}, *inputs, **options)
  )(params)
  plain = {name: part for name, part in params.items() if name != "strength"}
  strengths = np.array([20.0, 160.0], np.float32)
  latents = run(model, params, SLICES, BANDS, strength=strengths, method="slices_to_latents")
  scaled = SLICES / strengths[:, None, None, None, None]
  np.testing.assert_allclose(latents, run(mean, plain, scaled, BANDS, method="slices_to_latents"), atol=1e-4)
  slices = run(model, params, latents, BANDS, method="latents_to_slices")
  expected = 40 * np.asarray(run(mean, plain, latents, BANDS, method="latents_to_slices"))
  np.testing.assert_allclose(slices, expected, rtol=1e-4, atol=1e-3)
  with pytest.raises(ValueError, match="needs the strength"):
    run(model, params, SLICES, BANDS, method="slices_to_latents")


def test_sampled_motion_has_the_typical_strength_whatever_was_drawn():
  model = MODEL.clone(unit_strength=True, vae_fields=dict(kind="area", factor=2), swing=True,
                      encoder_fields=dict(kind="efficientnet_lite0", channels=2, hidden=4))  # fmt: skip
  params = helpers.random_params(model.init, SLICES, BANDS, IMAGE, TIMESTEPS)
  params["strength"] = np.array([40.0], np.float32)
  latents = (
    np.random.default_rng(2).normal(size=(2, 5, 8, 12, 4)).astype(np.float32)
    * np.array([1, 3])[:, None, None, None, None]
  )
  swing = np.zeros((2, 8, 12), np.float32)
  swing[0, :, :6] = -2.0
  swing[1] = -1.5  # a photo of nothing
  motion = lambda evenness: np.asarray(
    model.apply({"params": params}, latents, swing=swing, evenness=evenness, method="latents_to_motion")
  )
  slices = model.apply(
    {"params": params}, latents, np.arange(5)[None].repeat(2, 0), swing=swing, method="latents_to_slices"
  )
  for found in (motion(0.0), motion(0.5)):
    lengths = np.sqrt((found[:, 1:] ** 2).sum((1, 4)))
    np.testing.assert_allclose(np.percentile(lengths, 95, axis=(1, 2)), [40, 40 * np.exp(-1.5)], rtol=1e-4)
  found = motion(0.0)
  for sample, plain in zip(found, np.asarray(slices), strict=True):
    np.testing.assert_allclose(sample, plain * np.vdot(sample, plain) / np.vdot(plain, plain), rtol=1e-3, atol=1e-3)
  # At rest nothing is divided by nothing.
  params["latent_mean"] = np.zeros(4, np.float32)
  latents = 0 * latents
  assert not np.any(motion(0.5))


def test_swing_must_be_given_where_it_is_used_and_only_there(params):
  with pytest.raises(ValueError, match="needs that of the photos"):
    call("slices_to_latents", params, SLICES, BANDS, swing=np.zeros((2, 4, 3), np.float32))
  for message, parts in (
    ("kind 'area'", dict(swing=True)),
    ("kind 'area'", dict(unit_strength=True)),
    ("efficientnet_lite0", dict(swing=True, vae_fields=dict(kind="area", factor=2))),
  ):
    with pytest.raises(ValueError, match=message):
      MODEL.clone(**parts).init(jax.random.key(0), SLICES, BANDS, IMAGE, TIMESTEPS)


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


def test_a_slice_without_motion_does_not_blow_gradients_up(monkeypatch, quick_compilation):
  still = np.zeros((1, 8, 8, 4), np.float32)
  init = lambda key: MODEL.init(key, key, still, np.array([0]), method="reconstruct")["params"]
  params = jax.jit(init)(jax.random.key(0, impl="rbg"))

  def steepest():
    def loss(params):
      output = MODEL.apply({"params": params}, jax.random.key(1), still, np.array([0]), method="reconstruct")[1]
      return (output - 1).sum()

    return max(np.abs(leaf).max() for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(params)["vae"]))

  assert steepest() < 1e6
  monkeypatch.setattr("gid_jax.models.motion_model._DITHER", 0.0)
  assert steepest() > 1e12
