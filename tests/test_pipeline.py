"""Sizes and grids of the animator, and a whole animation with tiny untrained networks."""

import dataclasses
import math
import os
import subprocess
import sys
import textwrap

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import ldm_coordinated
from configs import renderer as renderer_config
from gid_jax import pipeline, rendering, sizes
from gid_jax.diffusion import prediction
from gid_jax.diffusion.guidance import loop_loss
from gid_jax.diffusion.sampler import begin
from gid_jax.diffusion.schedule import SamplingSteps, make_schedule
from gid_jax.errors import UserError
from gid_jax.models.build import make_motion_model
from gid_jax.models.motion_model import View
from gid_jax.models.renderer import Renderer, RendererConfig
from gid_jax.types import SpectralVolume
from gid_jax.weights.pretrained import config_to_settings

SIDES = st.integers(2, 5000)
NUM_BANDS = 3


@settings(max_examples=60, deadline=None)
@given(width=SIDES, aspect=st.floats(0.1, 10), multiple=st.sampled_from([16, 32]))
def test_working_size_has_the_photos_aspect_and_the_training_area(width, aspect, multiple):
  height = max(1, round(width / aspect))
  area = 160 * 256
  h, w = sizes.working_size(height, width, area=area, multiple=multiple)
  assert h % multiple == w % multiple == 0 and h > 0 and w > 0
  assert area / 1.4 < h * w < area * 1.4
  wanted = min(max(width / height, 0.25), 4.0)
  assert wanted / 1.15 < w / h < wanted * 1.15


def test_working_size_of_the_training_photos_is_the_training_size():
  assert sizes.working_size(160, 256, area=160 * 256, multiple=32) == (160, 256)
  assert sizes.working_size(1600, 2560, area=160 * 256, multiple=32) == (160, 256)


@pytest.mark.parametrize(
  "size, photo, expected",
  [
    ("inpainting_512", (288, 512), (288, 512)),
    ("inpainting_512", (1080, 1920), (288, 512)),
    ("paper", (160, 256), (160, 256)),
    ("default", (320, 512), (160, 256)),
  ],
)
def test_a_model_works_at_the_size_that_it_was_trained_at(size, photo, expected):
  # Sizes need no parameters.
  config = ldm_coordinated.get_config(size).to_dict()
  shown = renderer_config.get_config(size).to_dict()
  animator = pipeline.Animator(({}, config_to_settings(config)), ({}, config_to_settings(shown)))
  assert animator.working_size(*photo) == expected


@settings(deadline=None)
@given(height=SIDES, width=SIDES, long_side=st.none() | st.integers(2, 2000))
def test_output_size_is_even_and_never_larger(height, width, long_side):
  h, w = sizes.output_size(height, width, long_side=long_side)
  scale = min(1.0, (long_side or math.inf) / max(height, width))
  for found, ideal in ((h, height * scale), (w, width * scale)):
    assert found % 2 == 0
    # Even sizes lose less than two pixels; two are the least a video has.
    assert ideal - 2 < found < ideal + 0.01 or found == 2


@settings(max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(2, 40)] * 4), st.integers(0, 99))
def test_resized_images_keep_range_and_flat_colours(shapes, seed):
  height, width, new_height, new_width = shapes
  image = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
  resized = sizes.resize_image(image, new_height, new_width)
  assert resized.shape == (new_height, new_width, 3) and resized.dtype == np.float32
  assert resized.min() >= 0 and resized.max() <= 1
  flat = np.full((height, width, 3), image[0, 0], np.float32)
  np.testing.assert_allclose(sizes.resize_image(flat, new_height, new_width) - image[0, 0], 0, atol=1e-5)


def test_shrinking_averages_areas():
  image = np.random.default_rng(0).random((6, 8, 3)).astype(np.float32)
  expected = image.reshape(3, 2, 4, 2, 3).mean(axis=(1, 3))
  np.testing.assert_allclose(sizes.resize_image(image, 3, 4), expected, atol=1e-6)
  np.testing.assert_array_equal(sizes.resize_image(image, 6, 8), image)


@pytest.fixture(scope="module")
def animator(quick_compilation):
  motion = ldm_coordinated.get_config("tiny").to_dict()
  motion["model"]["num_bands"] = NUM_BANDS
  motion["model"]["codec"] |= {"multipliers": (1, 2), "num_blocks": 0}
  motion["model"]["denoiser"] |= {"multipliers": (1,), "attention_levels": (0,), "num_blocks": 0}
  loop = {"steps": 2, "weight": 0.5, "recurrences": 2}
  motion["sampling"] |= {"steps": 3, "guidance": 0.5, "spacing": "trailing", "order": 1, "loop": loop}
  motion = config_to_settings(motion)
  model = make_motion_model(motion.model)
  bands = np.zeros((1, NUM_BANDS), np.int32)
  inputs = (np.zeros((1, NUM_BANDS, 16, 24, 4)), bands, np.zeros((1, 32, 48, 3)), bands)
  motion_params = helpers.random_params(model.init, *inputs)

  # The renderer keeps its own start, at which it shows the photo.
  render = renderer_config.get_config("tiny").to_dict()
  network = Renderer(RendererConfig(**render["model"]["renderer"]))
  shape = (1, 8, 8)
  inputs = (jnp.zeros((*shape, 3)), jnp.zeros((*shape, 2)), jnp.zeros(shape), jnp.zeros((1, network.config.style_dim)))
  render_params = jax.jit(network.init)(jax.random.key(0, impl="rbg"), *inputs)["params"]
  return pipeline.Animator((motion_params, motion), (render_params, config_to_settings(render)))


PHOTO = helpers.smooth_image(45, 70)


@pytest.fixture(scope="module")
def spectrum(animator):
  calls = []
  found = animator.predict_spectrum(
    jax.random.key(0), PHOTO, progress=lambda done, total: calls.append((done, total))
  )
  assert calls == [(1, 3), (2, 3), (3, 3)]
  return found


def render(animator, spectrum, **options):
  return np.stack(list(animator.render(PHOTO, spectrum, **options)))


def test_the_spectrum_lies_on_the_motion_grid(animator, spectrum):
  height, width = animator.working_size(45, 70)
  assert height % 4 == width % 4 == 0
  assert spectrum.coefficients.shape == (NUM_BANDS, height // 2, width // 2, 4)
  assert (spectrum.num_frames, spectrum.fps) == (150, 30.0)
  assert np.all(np.isfinite(spectrum.coefficients)) and np.any(spectrum.coefficients)


def test_a_seed_gives_its_own_motion(animator, spectrum):
  again = animator.predict_spectrum(jax.random.key(0), PHOTO)
  np.testing.assert_array_equal(again.coefficients, spectrum.coefficients)
  other = animator.predict_spectrum(jax.random.key(1), PHOTO)
  assert np.max(np.abs(other.coefficients - spectrum.coefficients)) > 1e-2


def test_guidance_and_steps_can_be_chosen(animator, spectrum):
  # Two steps reuse the program of three: a step at a time.
  for options in (dict(steps=2), dict(guidance=3.0)):
    other = animator.predict_spectrum(jax.random.key(0), PHOTO, **options)
    assert other.coefficients.shape == spectrum.coefficients.shape
    assert np.max(np.abs(other.coefficients - spectrum.coefficients)) > 1e-3
  # Without guidance the second evaluation is left out; the result is that of hardly any.
  predict = lambda weight: animator.predict_spectrum(jax.random.key(0), PHOTO, guidance=weight)
  plain, hardly = (np.asarray(predict(weight).coefficients) for weight in (0, 1e-7))
  np.testing.assert_allclose(plain / np.abs(plain).max(), hardly / np.abs(plain).max(), atol=1e-4)
  with pytest.raises(UserError, match="1001"):
    animator.predict_spectrum(jax.random.key(0), PHOTO, steps=1001)


def test_several_keys_are_one_batch(animator, spectrum):
  keys = jnp.stack([jax.random.key(1), jax.random.key(0)])
  volumes = animator.predict_spectra(keys, PHOTO)
  assert volumes.coefficients.shape == (2, *spectrum.coefficients.shape)
  assert (volumes.num_frames, volumes.fps) == (spectrum.num_frames, spectrum.fps)
  size = np.abs(spectrum.coefficients).max()
  np.testing.assert_allclose(volumes.coefficients[1] / size, spectrum.coefficients / size, atol=1e-4)
  other = animator.predict_spectrum(jax.random.key(1), PHOTO)
  np.testing.assert_allclose(volumes.coefficients[0] / size, other.coefficients / size, atol=1e-4)


def test_a_loop_follows_the_gradient_of_the_seam(animator):
  model, params, settings = animator.motion_model, animator.motion_params, animator.motion_settings
  height, width = (length // 4 for length in animator.working_size(45, 70))
  noisy = np.random.default_rng(5).normal(size=(1, NUM_BANDS, height, width, 4)).astype(np.float32)
  condition = jax.random.normal(jax.random.key(6), (1, height, width, settings.model.encoder.fields["channels"]))
  timestep, weight = 400, jnp.float32(0.05)
  steps = SamplingSteps(np.array([timestep]), np.array([-1]), np.array([-1]))
  noise_levels = make_schedule(**dataclasses.asdict(settings.schedule))

  def clean(latents, loop_weight):
    keys, view = jax.random.key(0)[None], View(condition, None)
    return prediction._sample(
      model, params, noise_levels, keys, begin(jnp.array(latents)), view, jnp.float32(0.5), loop_weight, steps,
      num_frames=150, fps=30.0, eta=0.0, order=1).latents

  def loss(latents):
    volumes = prediction._decode_latents(model, params, clean(latents, None), None, evenness=0.0)
    return float(loop_loss(SpectralVolume(volumes, num_frames=150), cell=model.latent_factor)[0])

  signal = float(noise_levels.signal[timestep])
  # The clean estimate moves by -(sigma / alpha) u sigma grad_z L.
  gradient = (clean(noisy, None) - clean(noisy, weight)) * signal**0.5 / (float(weight) * (1 - signal))
  gradient = np.asarray(gradient, np.float64)
  for direction in (gradient, *np.random.default_rng(7).normal(size=(2, *noisy.shape))):
    direction = (direction / np.linalg.norm(direction)).astype(np.float32)
    slope = (loss(noisy + 0.02 * direction) - loss(noisy - 0.02 * direction)) / 0.04
    np.testing.assert_allclose(np.vdot(gradient, direction), slope, atol=0.03 * np.linalg.norm(gradient))


def test_a_loop_has_steps_of_its_own(animator, spectrum):
  calls = []
  loop = animator.predict_spectrum(
    jax.random.key(0), PHOTO, loop=True, progress=lambda done, total: calls.append((done, total)))
  assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
  assert loop.coefficients.shape == spectrum.coefficients.shape and np.all(np.isfinite(loop.coefficients))
  again = animator.predict_spectrum(jax.random.key(0), PHOTO, loop=True)
  np.testing.assert_array_equal(again.coefficients, loop.coefficients)
  assert animator.period == 5.0


def sway(animator, pixels):
  """A volume in which every pixel swings to the right and back within a second, `pixels` of the photo wide."""
  height, width = animator.working_size(45, 70)
  coefficients = np.zeros((6, height // 2, width // 2, 4), np.float32)
  coefficients[5, ..., 0] = -pixels / 2 * (width / 2) / 70 * 150 / 2
  return SpectralVolume(coefficients, num_frames=150, fps=30.0)


def test_a_video_begins_on_the_photo_and_moves_it(animator):
  frames = render(animator, sway(animator, 8.0), frames=31)
  assert frames.shape == (31, 44, 70, 3) and frames.dtype == np.uint8
  photo = 255 * sizes.resize_image(PHOTO, 44, 70)
  assert np.max(np.abs(frames[0] - photo)) < 6
  # Half a second on, everything is 8 px further right; after the whole second it is back.
  moved = np.abs(frames[15, 4:-4, 16:-4] - photo[4:-4, 8:-12])
  assert np.mean(moved) < 3 < np.mean(np.abs(frames[15, 4:-4, 16:-4] - photo[4:-4, 16:-4]))
  np.testing.assert_allclose(frames[30].astype(int), frames[0], atol=1)


def test_a_trained_renderer_is_optional(animator):
  plain = rendering.ImageRenderer()
  volume = sway(animator, 8.0)
  photo = np.uint8(255 * sizes.resize_image(PHOTO, 44, 70) + 0.5)
  frames, trained = (np.stack(list(r.render(np.float32(photo / 255), volume, frames=16))) for r in (plain, animator))
  np.testing.assert_array_equal(frames[0], photo)  # nothing has moved yet: the photo bit for bit
  # Where the photo has not moved away from, it is the same photo; the network shows in what is left.
  np.testing.assert_allclose(frames[15, 4:-4, 16:-4].astype(int), trained[15, 4:-4, 16:-4], atol=2)
  flow = np.zeros((44, 70, 2), np.float32)
  flow[:, 35:, 0] = 6.0
  shown = [np.asarray(r.render_flow(photo / 255, flow, flow[..., 0])) for r in (plain, animator)]
  assert np.abs(shown[0] - shown[1])[:, 36:40].max() > 0.02
  np.testing.assert_allclose(shown[0][:, 44:], (photo / 255)[:, 38:-6], atol=7.5e-4)


def test_a_trained_renderer_shows_the_photo_where_it_lands(quick_compilation):
  # Whatever the network says: a network of random numbers shows in holes alone, the rest is gathered as without one.
  settings = config_to_settings(renderer_config.get_config("tiny").to_dict())
  network = Renderer(RendererConfig(**settings.model.renderer))
  inputs = [np.zeros(shape, np.float32) for shape in ((1, 8, 8, 3), (1, 8, 8, 2), (1, 8, 8), (1, 64))]
  params = helpers.random_params(network.init, *inputs)
  renderers = rendering.ImageRenderer(), rendering.ImageRenderer((params, settings))
  photo = helpers.smooth_image(48, 64)
  flow = np.zeros((48, 64, 2), np.float32)
  flow[:, 32:, 0] = 8.0  # opens columns 32 ... 39
  plain, trained = (np.asarray(renderer.render_flow(photo, flow, flow[..., 0])) for renderer in renderers)
  np.testing.assert_allclose(trained[:, :31], photo[:, :31], atol=7.5e-4)
  np.testing.assert_allclose(trained[:, 41:], plain[:, 41:], atol=1e-6)
  assert np.abs(trained - plain)[:, 33:39].min(axis=-1).max() > 0.05


def test_the_same_request_gives_the_same_frames(animator, spectrum):
  first = render(animator, spectrum, frames=4)
  np.testing.assert_array_equal(render(animator, spectrum, frames=4), first)
  assert np.any(first[3] != first[0])


def test_number_of_devices_does_not_matter():
  code = """
    import jax, numpy as np
    from configs import renderer as renderer_config
    from gid_jax import rendering
    from gid_jax.models.renderer import Renderer, RendererConfig
    from gid_jax.types import SpectralVolume
    from gid_jax.weights.pretrained import config_to_settings
    jax.config.update("jax_disable_most_optimizations", True)
    assert jax.local_device_count() == 2
    used = []
    plain = rendering._render_frames

    def spy(*args, mesh, **options):
      used.append(mesh.size)
      return plain(*args, mesh=mesh, **options)

    rendering._render_frames = spy
    config = renderer_config.get_config("tiny").to_dict()
    config["model"]["renderer"]["channels"] = (4, 8)
    network = Renderer(RendererConfig(**config["model"]["renderer"]))
    inputs = [np.zeros(shape, np.float32) for shape in ((1, 8, 8, 3), (1, 8, 8, 2), (1, 8, 8), (1, 64))]
    params = jax.jit(network.init)(jax.random.key(0, impl="rbg"), *inputs)["params"]
    renderer = rendering.ImageRenderer((params, config_to_settings(config)))
    photo = np.random.default_rng(0).random((45, 70, 3), np.float32)
    coefficients = np.float32(np.random.default_rng(1).normal(size=(3, 20, 30, 4)) * 40)
    volume = SpectralVolume(coefficients, num_frames=150)
    together = np.stack(list(renderer.render(photo, volume, frames=5)))
    rendering._MAX_PIXELS_TOGETHER = rendering._MAX_PIXELS_OF_BLOCK = 44 * 70
    alone = np.stack(list(renderer.render(photo, volume, frames=5)))
    assert used == [2] + [1] * 5, used
    assert together.shape == (5, 44, 70, 3)
    np.testing.assert_array_equal(together, alone)
    assert all(np.any(later != alone[0]) for later in alone[1:])
  """
  environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": helpers.QUICK_XLA}
  result = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True, timeout=300
  )
  assert result.returncode == 0, result.stdout + result.stderr


def test_accelerators_render_many_frames_at_once(animator, spectrum, monkeypatch):
  expected = render(animator, spectrum, frames=4)
  asked, plain = [], rendering._count_together

  def count_as_on_a_gpu(platform, number):
    asked.append(platform)
    return plain("gpu", number)

  monkeypatch.setattr(rendering, "_count_together", count_as_on_a_gpu)
  found = render(animator, spectrum, frames=2)  # another number, another program
  assert set(asked) == {"cpu"} and plain("cpu", 3) is None and plain("gpu", 3) == 3
  assert np.abs(found.astype(int) - expected[:2]).max() <= 1


def test_without_magnification_the_video_is_a_still(animator, spectrum):
  frames = render(animator, spectrum, frames=4, magnify=0.0)
  np.testing.assert_array_equal(frames, np.broadcast_to(frames[0], frames.shape))
  assert np.max(np.abs(frames[0] - 255 * sizes.resize_image(PHOTO, 44, 70))) < 6


def test_twice_the_frame_rate_shows_the_same_motion(animator, spectrum):
  slow, fast = render(animator, spectrum, frames=4), render(animator, spectrum, frames=7, fps=60.0)
  np.testing.assert_array_equal(fast[::2], slow)
  assert np.any(fast[1] != fast[0])


def test_a_smaller_video_keeps_the_aspect(animator, spectrum):
  assert render(animator, spectrum, frames=1, size=40).shape == (1, 24, 40, 3)
