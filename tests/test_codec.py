"""Slice codecs: what lies around the auto-encoder, and averages that follow the photo."""

import helpers
import jax
import numpy as np
import pytest
import scipy.ndimage

from gid_jax.errors import UserError
from gid_jax.models import codec as codec_module
from gid_jax.models.codec import PaperCodec, PhotoCodec, make_codec
from gid_jax.models.motion_model import MotionModel
from gid_jax.parsing import Part, freeze

pytestmark = pytest.mark.usefixtures("quick_compilation")

FIELDS = dict(channels=4, multipliers=(1, 2), num_blocks=1, latent_channels=3, groups=2)
RNG = np.random.default_rng(0)
SLICES = RNG.normal(scale=20, size=(2, 3, 8, 6, 4)).astype(np.float32)
BANDS = np.array([[4, 0, 2], [1, 1, 3]])
TIMESTEPS = np.array([[0, 10, 999]] * 2)
IMAGE = helpers.smooth_image(16, 12)[None].repeat(2, 0)
PHOTO = PhotoCodec(num_bands=5, factor=2)


def photo_model():
  """A motion model that sees photos through a frozen network."""
  return MotionModel(
    codec_part=Part("photo", freeze(dict(factor=2))),
    encoder_part=Part("condition", freeze(dict(channels=2, hidden=4, trunks=("my_parts:Edges",)))),
    denoiser_part=Part("my_parts:Perceptron", freeze(dict(channels=4))),
    num_bands=5,
  )


def photo_params():
  """The codec's own parameters, any but those of the head."""
  rng = np.random.default_rng(5)
  return {
    "band_scale": rng.uniform(5, 20, 5).astype(np.float32),
    "latent_mean": rng.normal(size=4).astype(np.float32),
    "latent_std": rng.uniform(0.5, 2, 4).astype(np.float32),
    "strength": np.array([1.0], np.float32),
  }


def normalize_by_hand(params, slices, bands):
  scaled = slices / params["band_scale"][bands][..., None, None, None]
  return np.sign(scaled) * np.sqrt(np.abs(scaled))


def run(codec, params, *inputs, method, **options):
  return jax.jit(lambda params: codec.apply({"params": params}, *inputs, method=method, **options))(params)


def test_scaling_by_resolution_ignores_the_band():
  codec = PaperCodec(num_bands=5, normalization="resolution", **FIELDS)
  constants = dict(band_scale=np.full(5, 7.0), latent_mean=np.zeros(3), latent_std=np.ones(3))
  apply = lambda method, slices: codec.apply({"params": constants}, slices, BANDS, method=method)
  scaled = apply("normalize", SLICES)
  np.testing.assert_allclose(scaled, SLICES / [6, 8, 6, 8], rtol=1e-6)
  np.testing.assert_allclose(apply("denormalize", scaled), SLICES, rtol=1e-6)
  with pytest.raises(ValueError, match="'frequency' or 'resolution', not 'pixels'"):
    PaperCodec(num_bands=5, normalization="pixels").init(jax.random.key(0), SLICES, BANDS, method="slices_to_latents")


def test_swing_scales_slices_by_what_the_photo_says():
  # A photo twice the latent grid's size, a head with any weights: places that should swing more are divided by more.
  model = photo_model()
  photos = np.stack([IMAGE[0], IMAGE[1, ::-1] ** 2])
  params = helpers.random_params(model.init, SLICES, BANDS, photos, TIMESTEPS)
  assert "vae" not in params and {"kernel", "gate", "gate_bias", "depth", "faint"} == set(params["swing_head"])
  params["swing_head"]["faint"] = np.array([0.2], np.float32)
  params["strength"] = np.array([1.0], np.float32)
  call = lambda method, *inputs, **options: run(model, params, *inputs, method=method, **options)
  view = call("encode_image", photos, height=4, width=3)
  assert view.swing.shape == (2, 4, 3) and np.ptp(view.swing[0]) > 1e-3
  np.testing.assert_allclose(call("predict_swing", photos, height=4, width=3), view.swing, atol=1e-5)

  latents = call("slices_to_latents", SLICES, BANDS, swing=view.swing, strength=np.ones(2, np.float32))
  factors = np.exp(view.swing)[:, None, :, :, None]
  cells = normalize_by_hand(params, SLICES.reshape(2, 3, 4, 2, 3, 2, 4).mean((3, 5)) / factors, BANDS)
  np.testing.assert_allclose(latents, (cells - params["latent_mean"]) / params["latent_std"], atol=1e-4)

  raw = latents * params["latent_std"] + params["latent_mean"]
  pixels = np.sign(raw) * raw**2 * params["band_scale"][BANDS][..., None, None, None] * factors
  expected = jax.image.resize(pixels, (2, 3, 8, 6, 4), "cubic")
  found = call("latents_to_slices", latents, BANDS, swing=view.swing)
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_evenness_flattens_how_far_places_swing_and_no_more():
  params = photo_params()
  # Phases vary from place to place; how far places swing falls from left to right, over more than a hundredfold.
  rng = np.random.default_rng(1)
  latents = rng.normal(size=(1, 5, 8, 12, 4)) * np.exp(-np.arange(12) / 5)[:, None]
  params["latent_mean"], params["latent_std"] = np.zeros(4, np.float32), np.ones(4, np.float32)
  bands, swing = np.arange(5)[None], np.zeros((1, 8, 12), np.float32)
  decode = lambda evenness: np.asarray(
    run(PHOTO, params, latents.astype(np.float32), bands, swing=swing, evenness=evenness, method="latents_to_slices")
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
  rest = run(PHOTO, params, 0 * latents, bands, swing=swing, evenness=1.0, method="latents_to_slices")
  assert not np.any(rest)


def test_windows_are_divided_by_their_strength_and_samples_get_the_typical():
  params, swing = photo_params() | {"strength": np.array([40.0], np.float32)}, np.zeros((2, 4, 3), np.float32)
  plain, ones = photo_params(), np.ones(2, np.float32)
  strengths = np.array([20.0, 160.0], np.float32)
  encode = lambda params, slices, strength: run(
    PHOTO, params, slices, BANDS, swing=swing, strength=strength, method="slices_to_latents"
  )
  decode = lambda params, latents: np.asarray(
    run(PHOTO, params, latents, BANDS, swing=swing, method="latents_to_slices")
  )
  latents = encode(params, SLICES, strengths)
  scaled = SLICES / strengths[:, None, None, None, None]
  np.testing.assert_allclose(latents, encode(plain, scaled, ones), atol=1e-4)
  np.testing.assert_allclose(decode(params, latents), 40 * decode(plain, latents), rtol=1e-4, atol=1e-3)


def test_sampled_motion_has_the_typical_strength_whatever_was_drawn():
  params = photo_params() | {"strength": np.array([40.0], np.float32)}
  latents = (
    np.random.default_rng(2).normal(size=(2, 5, 8, 12, 4)).astype(np.float32)
    * np.array([1, 3])[:, None, None, None, None]
  )
  swing = np.zeros((2, 8, 12), np.float32)
  swing[0, :, :6] = -2.0
  swing[1] = -1.5  # a photo of nothing
  call = lambda *inputs, method, **options: np.asarray(
    run(PHOTO, params, *inputs, swing=swing, method=method, **options)
  )
  motion = lambda evenness: call(latents, evenness=evenness, method="latents_to_motion")
  slices = call(latents, np.arange(5)[None].repeat(2, 0), method="latents_to_slices")
  for found in (motion(0.0), motion(0.5)):
    lengths = np.sqrt((found[:, 1:] ** 2).sum((1, 4)))
    np.testing.assert_allclose(np.percentile(lengths, 95, axis=(1, 2)), [40, 40 * np.exp(-1.5)], rtol=1e-4)
  found = motion(0.0)
  for sample, plain in zip(found, slices, strict=True):
    np.testing.assert_allclose(sample, plain * np.vdot(sample, plain) / np.vdot(plain, plain), rtol=1e-3, atol=1e-3)
  # At rest nothing is divided by nothing.
  params["latent_mean"] = np.zeros(4, np.float32)
  latents = 0 * latents
  assert not np.any(motion(0.5))


@pytest.mark.usefixtures("unchecked")
def test_what_a_codec_cannot_take_or_lacks_is_refused():
  swing, strength = np.zeros((2, 4, 3), np.float32), np.ones(2, np.float32)
  with pytest.raises(ValueError, match="needs that of the photos"):
    run(PHOTO, photo_params(), SLICES, BANDS, strength=strength, method="slices_to_latents")
  with pytest.raises(ValueError, match="needs the strength"):
    run(PHOTO, photo_params(), SLICES, BANDS, swing=swing, method="slices_to_latents")
  paper = PaperCodec(num_bands=5, **FIELDS)
  for given in (dict(swing=swing), dict(strength=strength)):
    with pytest.raises(ValueError, match="takes neither"):
      paper.init(jax.random.key(0), SLICES, BANDS, method="slices_to_latents", **given)
  blind = photo_model().clone(encoder_part=Part("condition", freeze(dict(channels=2, hidden=4))))
  with pytest.raises(ValueError, match="reads frozen image features"):
    blind.init(jax.random.key(0), SLICES, BANDS, IMAGE, TIMESTEPS)


def test_averaging_is_a_mean_over_cells_and_cubic_interpolation_back():
  codec = PhotoCodec(num_bands=1, factor=4)
  assert (codec.factor, codec.latent_channels) == (4, 4)
  rng = np.random.default_rng(1)
  slices = rng.normal(size=(2, 8, 12, 4)).astype(np.float32)
  params = {"params": {name: value for name, value in photo_params().items()} | {"band_scale": np.ones(1, np.float32)}}
  mean = codec.apply(params, slices, method="average")
  by_hand = [[slices[:, y : y + 4, x : x + 4].mean((1, 2)) for x in (0, 4, 8)] for y in (0, 4)]
  np.testing.assert_allclose(mean, np.moveaxis(np.array(by_hand), 2, 0), atol=1e-6)
  # What is linear in the place survives inside: means of cells lie on the line, and a cubic through them follows it.
  ramp = np.broadcast_to(np.arange(48.0)[None, None, :, None], (1, 16, 48, 4)).astype(np.float32)
  restored = codec.apply(params, codec.apply(params, ramp, method="average"), method="enlarge")
  np.testing.assert_allclose(restored[:, :, 12:36], ramp[:, :, 12:36], atol=1e-3)


def test_a_kind_chooses_the_codec():
  codec = make_codec(Part("paper", freeze(FIELDS)), num_bands=5)
  assert isinstance(codec, PaperCodec) and (codec.factor, codec.latent_channels, codec.num_bands) == (2, 3, 5)
  assert codec.is_trained and not codec.needs_photo
  codec = make_codec(Part("photo", freeze(dict(factor=8))), num_bands=5)
  assert isinstance(codec, PhotoCodec) and codec.factor == 8 and codec.needs_photo and not codec.is_trained
  with pytest.raises(UserError, match=r"the codec 'photo' has no setting 'facter'; did you mean factor\?"):
    make_codec(Part("photo", freeze(dict(facter=8))), num_bands=5)
  with pytest.raises(UserError, match="unknown codec 'area'; use one of paper, photo, or module:attribute"):
    make_codec(Part("area"), num_bands=5)


def test_a_slice_without_motion_does_not_blow_gradients_up(monkeypatch):
  still = np.zeros((1, 8, 8, 4), np.float32)
  codec = PaperCodec(num_bands=5, **FIELDS | {"num_blocks": 0})
  init = lambda key: codec.init(key, key, still, np.array([0]), method="reconstruct")["params"]
  params = jax.jit(init)(jax.random.key(0, impl="rbg"))

  def loss(params, dither):
    monkeypatch.setattr("gid_jax.models.codec._DITHER", dither)
    output = codec.apply({"params": params}, jax.random.key(1), still, np.array([0]), method="reconstruct")[1]
    return (output - 1).sum()

  slopes = jax.jit(jax.grad(loss))
  steepest = lambda dither: max(np.abs(leaf).max() for leaf in jax.tree.leaves(slopes(params, dither)["vae"]))
  assert steepest(codec_module._DITHER) < 1e6
  assert steepest(0.0) > 1e12
