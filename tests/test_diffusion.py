"""Noise schedule, guidance and DDIM: against NumPy in float64 and a data distribution whose denoiser is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gid_jax.diffusion import guidance, sampler, schedule

PREDICTIONS = ("epsilon", "v", "clean")
BETAS = dict(beta_start=0.0015, beta_end=0.0195)


def cumulative(num_steps, beta_start, beta_end):
  """a_t one by one."""
  signal, product = [], 1.0
  for index in range(num_steps):
    root = beta_start**0.5 + (beta_end**0.5 - beta_start**0.5) * index / (num_steps - 1)
    product *= 1 - root**2
    signal.append(product)
  return np.array(signal)


@pytest.mark.parametrize("num_steps, beta_start, beta_end", [(1000, 0.0015, 0.0195), (50, 0.001, 0.02)])
def test_signal_is_the_cumulative_product(num_steps, beta_start, beta_end):
  made = schedule.make_schedule(num_steps=num_steps, beta_start=beta_start, beta_end=beta_end)
  assert made.num_steps == num_steps and made.signal.dtype == np.float32
  np.testing.assert_allclose(made.signal, cumulative(num_steps, beta_start, beta_end), rtol=1e-6)


def test_the_noise_levels_of_stable_diffusion():
  # sigma / alpha of its first and last step, as every sampler for it prints them.
  signal = np.asarray(schedule.make_schedule(beta_start=0.00085, beta_end=0.012).signal, np.float64)
  np.testing.assert_allclose(np.sqrt((1 - signal) / signal)[[0, -1]], [0.0292, 14.6146], rtol=2e-3)


def test_unknown_words_are_errors():
  with pytest.raises(ValueError, match="noise"):
    schedule.make_schedule(prediction="noise")
  made = schedule.make_schedule()
  with pytest.raises(ValueError, match="karras"):
    schedule.sampling_steps(made, 10, spacing="karras")
  for num_samples in (0, 1001, -3):
    with pytest.raises(ValueError, match=r"1 \.\.\. 1000"):
      schedule.sampling_steps(made, num_samples)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), timesteps=st.lists(st.integers(0, 999), min_size=6, max_size=6))
def test_noising_and_splitting_are_inverse(prediction, seed, timesteps):
  made = schedule.make_schedule(**BETAS, prediction=prediction)
  clean, noise = np.random.default_rng(seed).normal(size=(2, 2, 3, 2, 2, 4)).astype(np.float32)
  timesteps = np.reshape(timesteps, (2, 3))
  noisy = schedule.add_noise(made, clean, noise, timesteps)
  signal = cumulative(1000, **BETAS)[timesteps][..., None, None, None]
  np.testing.assert_allclose(noisy, np.sqrt(signal) * clean + np.sqrt(1 - signal) * noise, atol=1e-5)
  output = schedule.training_target(made, clean, noise, timesteps)
  expected = {"epsilon": noise, "v": np.sqrt(signal) * noise - np.sqrt(1 - signal) * clean, "clean": clean}
  np.testing.assert_allclose(output, expected[prediction], atol=1e-5)
  found_clean, found_noise = schedule.split_prediction(made, output, noisy, timesteps)
  np.testing.assert_allclose(found_clean, clean, atol=2e-4)
  np.testing.assert_allclose(found_noise, noise, atol=2e-4)


@pytest.mark.parametrize("num_samples", [1, 4, 50, 250, 500])
def test_leading_steps_are_those_of_latent_diffusion(num_samples):
  timesteps, previous = schedule.sampling_steps(schedule.make_schedule(), num_samples, spacing="leading")
  ascending = [step + 1 for step in range(0, 1000, 1000 // num_samples)]
  assert timesteps.tolist() == ascending[::-1]
  assert previous.tolist() == [0, *ascending[:-1]][::-1]


@pytest.mark.parametrize("spacing, last", [("leading", 0), ("trailing", -1)])
@settings(max_examples=50, deadline=None)
@given(total=st.integers(2, 300), data=st.data())
def test_steps_descend_through_the_whole_schedule(spacing, last, total, data):
  num_samples = data.draw(st.integers(1, total - 1))
  made = schedule.Schedule(signal=np.linspace(1, 0, total))
  timesteps, previous = schedule.sampling_steps(made, num_samples, spacing=spacing)
  assert len(timesteps) == num_samples and previous[-1] == last
  assert np.all(timesteps < total) and np.all(timesteps > previous)
  np.testing.assert_array_equal(timesteps[1:], previous[:-1])
  # No step is much longer than another, and pure noise is where the first begins.
  stride = total / num_samples
  lengths = timesteps - previous
  if spacing == "trailing":
    assert timesteps[0] == total - 1 and np.all(np.abs(lengths - stride) <= 1)
  else:
    assert timesteps[0] >= total - stride - 1 and lengths[-1] == 1 and np.all(np.abs(lengths[:-1] - stride) <= 1)


def test_classifier_free_guidance():
  gain = np.random.default_rng(0).normal(size=(1, 2, 3, 4)).astype(np.float32)
  latents = np.random.default_rng(1).normal(size=(1, 5, 2, 3, 4)).astype(np.float32)

  def network(latents, timestep, condition):
    return latents * timestep + condition[:, None] ** 2 + 3.0

  for weight in (0.0, 1.75):
    found = guidance.classifier_free(network, gain, weight=weight)(latents, 2)
    conditional, unconditional = 2 * latents + gain**2 + 3, 2 * latents + 3
    np.testing.assert_allclose(found, (1 + weight) * conditional - weight * unconditional, rtol=1e-5)


MEAN, DEVIATION = 1.5, 0.4


def exact_output(made, latents, timestep):
  """What a perfect network says about latents whose clean values are N(MEAN, DEVIATION^2)."""
  signal = made.signal[timestep]
  variance = signal * DEVIATION**2 + 1 - signal
  clean = MEAN + jnp.sqrt(signal) * DEVIATION**2 / variance * (latents - jnp.sqrt(signal) * MEAN)
  noise = (latents - jnp.sqrt(signal) * clean) / jnp.sqrt(1 - signal)
  return schedule.training_target(made, clean, noise, timestep)


@pytest.fixture(scope="module")
def draw():
  def draw(made, key, latents, timesteps, previous, eta):
    denoise = lambda latents, timestep: exact_output(made, latents, timestep)
    return sampler.sample(key, latents, timesteps, previous, denoise=denoise, schedule=made, eta=eta)

  return jax.jit(draw, static_argnames="eta")


NOISE = np.random.default_rng(0).normal(size=(1, 4, 32, 32, 4)).astype(np.float32)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_samples_have_the_distribution_of_the_data(draw, prediction, eta):
  made = schedule.make_schedule(**BETAS, prediction=prediction)
  steps = schedule.sampling_steps(made, 1000)
  samples = np.asarray(draw(made, jax.random.key(1), NOISE, *steps, eta))
  # 16,384 values: three standard errors of mean and deviation are 0.009 and 0.007.
  np.testing.assert_allclose(samples.mean(), MEAN, atol=0.02)
  np.testing.assert_allclose(samples.std(), DEVIATION, atol=0.02)
  correlation = np.corrcoef(samples.ravel(), NOISE.ravel())[0, 1]
  assert correlation > 0.999 if eta == 0 else abs(correlation) < 0.5
  assert np.std(samples, axis=(2, 3, 4)).min() > 0.9 * DEVIATION


def test_leading_steps_end_one_step_before_clean(draw):
  # The last of them leads to time step 0, where a trace of noise is left.
  made = schedule.make_schedule(**BETAS)
  steps = schedule.sampling_steps(made, 100, spacing="leading")
  samples = np.asarray(draw(made, jax.random.key(1), NOISE, *steps, 0.0))
  signal = 1 - BETAS["beta_start"]
  np.testing.assert_allclose(samples.mean(), np.sqrt(signal) * MEAN, atol=0.02)
  np.testing.assert_allclose(samples.std(), np.sqrt(signal * DEVIATION**2 + 1 - signal), atol=0.02)


def test_pieces_of_the_steps_are_the_whole(draw):
  made = schedule.make_schedule(**BETAS)
  timesteps, previous = schedule.sampling_steps(made, 100)
  whole = draw(made, jax.random.key(1), NOISE, timesteps, previous, 0.0)
  pieces = NOISE
  for start in range(0, 100, 25):
    piece = slice(start, start + 25)
    pieces = draw(made, jax.random.key(start), pieces, timesteps[piece], previous[piece], 0.0)
  np.testing.assert_allclose(pieces, whole, atol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_step_to_clean_is_the_clean_estimate(eta):
  made = schedule.make_schedule(**BETAS)
  noisy = np.random.default_rng(2).normal(size=(1, 1, 2, 2, 4)).astype(np.float32)
  found = sampler.ddim_step(jax.random.key(0), noisy, 0.5 * noisy, 400, -1, schedule=made, eta=eta)
  signal = cumulative(1000, **BETAS)[400]
  np.testing.assert_allclose(found, noisy * (1 - 0.5 * np.sqrt(1 - signal)) / np.sqrt(signal), atol=1e-5)
