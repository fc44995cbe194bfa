"""Guidance: the combinations by hand, gradients by finite differences, and the seam of a loop by NumPy's FFT."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gid_jax.diffusion import guidance, schedule
from gid_jax.types import SpectralVolume

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.mark.parametrize("weight", [0.0, 1.75])
def test_classifier_free_guidance(weight):
  gain = np.random.default_rng(0).normal(size=(1, 2, 3, 4)).astype(np.float32)
  latents = np.random.default_rng(1).normal(size=(1, 5, 2, 3, 4)).astype(np.float32)

  def network(latents, timestep, condition):
    return latents * timestep + condition[:, None] ** 2 + 3.0

  found = guidance.classifier_free(network, gain, weight=weight)(latents, 2)
  conditional, unconditional = 2 * latents + gain**2 + 3, 2 * latents + 3
  np.testing.assert_allclose(found, (1 + weight) * conditional - weight * unconditional, rtol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
def test_guidance_adds_the_gradient_of_the_loss_to_the_noise(prediction):
  made = schedule.make_schedule(prediction=prediction)
  mix = np.random.default_rng(0).normal(size=(4, 4)) / 2
  latents = np.random.default_rng(1).normal(size=(2, 1, 1, 2, 4))
  timestep, weight = 600, 5.0
  signal = float(made.signal[timestep])
  alpha, sigma = np.sqrt(signal), np.sqrt(1 - signal)

  def network(latents, xp):
    return xp.tanh(latents @ mix)

  def split(output, latents):
    if prediction == "epsilon":
      return (latents - sigma * output) / alpha, output
    if prediction == "v":
      return alpha * latents - sigma * output, sigma * latents + alpha * output
    return output, (latents - alpha * output) / sigma

  def loss(latents):
    return np.sum(np.sin(split(network(latents, np), latents)[0]) ** 2)

  gradient = np.zeros_like(latents)
  for place in np.ndindex(*latents.shape):
    step = np.zeros_like(latents)
    step[place] = 1e-5
    gradient[place] = (loss(latents + step) - loss(latents - step)) / 2e-5
  steered = guidance.guided(
    lambda latents, timestep: network(latents, jnp),
    lambda clean: (jnp.sin(clean) ** 2).sum(axis=(1, 2, 3, 4)),
    schedule=made,
    weight=weight,
  )
  clean, noise = split(np.asarray(steered(jnp.asarray(latents, jnp.float32), timestep)), latents)
  expected = split(network(latents, np), latents)[1] + weight * sigma * gradient
  np.testing.assert_allclose(noise, expected, atol=2e-3)
  np.testing.assert_allclose(alpha * clean + sigma * noise, latents, atol=1e-4)


def volume(seed, *, num_bands=5, num_frames=24, height=3, width=4):
  coefficients = np.random.default_rng(seed).normal(size=(num_bands, height, width, 4)).astype(np.float32)
  return SpectralVolume(coefficients, num_frames=num_frames)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num_bands=st.integers(1, 6), num_frames=st.sampled_from([12, 24, 25]))
def test_the_seam_lies_between_the_last_frame_and_the_first(seed, num_bands, num_frames):
  spectrum = volume(seed, num_bands=num_bands, num_frames=num_frames)
  complex_bins = spectrum.coefficients[..., :2] + 1j * spectrum.coefficients[..., 2:].astype(np.float64)
  motion = np.fft.irfft(complex_bins, num_frames, axis=0)
  rate = 2j * np.pi * np.arange(num_bands)[:, None, None, None] / num_frames
  velocity = np.fft.irfft(rate * complex_bins, num_frames, axis=0)
  position_gap, velocity_gap = guidance.seam_gaps(spectrum)
  np.testing.assert_allclose(position_gap, motion[-1] - motion[0], atol=1e-5)
  np.testing.assert_allclose(velocity_gap, velocity[-1] - velocity[0], atol=1e-5)
  expected = (np.abs(position_gap) + 30 * np.abs(velocity_gap)).sum() / (4 * np.sqrt(12))
  np.testing.assert_allclose(guidance.loop_loss(spectrum, cell=2), expected, rtol=1e-4)


def test_batches_have_a_loss_each():
  volumes = [volume(seed) for seed in range(3)]
  batch = volumes[0].replace(coefficients=np.stack([one.coefficients for one in volumes]))
  found = guidance.loop_loss(batch, cell=4)
  np.testing.assert_allclose(found, [guidance.loop_loss(one, cell=4) for one in volumes], rtol=1e-5)


def test_the_push_on_a_latent_is_the_same_on_every_grid():
  # The same scene on a grid twice as fine: twice the pixels a side, twice as long displacements.
  coarse = volume(0, height=4, width=8)
  fine = coarse.replace(coefficients=2 * coarse.coefficients.repeat(2, axis=1).repeat(2, axis=2))

  def push(spectrum, cell):
    height, width = spectrum.coefficients.shape[1] // cell, spectrum.coefficients.shape[2] // cell

    def loss(gains):  # every latent scales the motion of its own cell
      gains = gains.repeat(cell, axis=0).repeat(cell, axis=1)[None, ..., None]
      return guidance.loop_loss(spectrum.replace(coefficients=spectrum.coefficients * gains), cell=cell)

    return np.asarray(jax.grad(loss)(jnp.ones((height, width))))

  expected = push(coarse, 2)
  assert np.all(expected > 0)
  np.testing.assert_allclose(push(fine, 4), expected, rtol=1e-4)  # a coarser auto-encoder: the same latents
  # The same auto-encoder: four latents in place of one, each pushed as much on average.
  height, width = expected.shape
  blocks = push(fine, 2).reshape(height, 2, width, 2).mean(axis=(1, 3))
  np.testing.assert_allclose(blocks, expected, rtol=1e-4)
