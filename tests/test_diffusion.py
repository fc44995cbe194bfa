"""Noise schedule and time steps against NumPy in float64."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gid_jax.diffusion import schedule

pytestmark = pytest.mark.usefixtures("quick_compilation")

PREDICTIONS = ("epsilon", "v", "x0")
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
  with pytest.raises(ValueError, match="recurrences must be 1"):
    schedule.sampling_steps(made, 10, recurrences=0)
  with pytest.raises(ValueError, match="less than 1 of all, not 1"):
    schedule.sampling_steps(made, 10, spacing="logsnr", last=1.0)


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
  expected = {"epsilon": noise, "v": np.sqrt(signal) * noise - np.sqrt(1 - signal) * clean, "x0": clean}
  np.testing.assert_allclose(output, expected[prediction], atol=1e-5)
  found_clean, found_noise = schedule.split_prediction(made, output, noisy, timesteps)
  np.testing.assert_allclose(found_clean, clean, atol=2e-4)
  np.testing.assert_allclose(found_noise, noise, atol=2e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_more_noise_is_less_signal(prediction):
  made = schedule.make_schedule(**BETAS, prediction=prediction)
  output, noisy, shift = np.random.default_rng(3).normal(size=(3, 2, 3, 2, 2, 4)).astype(np.float32)
  timesteps = np.array([[0, 10, 300], [500, 700, 999]])
  signal = cumulative(1000, **BETAS)[timesteps][..., None, None, None]
  clean, noise = schedule.split_prediction(made, output, noisy, timesteps)
  shifted = schedule.shift_noise(made, output, shift, timesteps)
  found_clean, found_noise = schedule.split_prediction(made, shifted, noisy, timesteps)
  # From the clean estimate alone the noise of time step 0 has but two digits left, so x0 is compared by the clean one.
  np.testing.assert_allclose(
    (found_clean - clean) * np.sqrt(signal / (1 - signal)), -shift, atol=2e-4 if prediction != "x0" else 2e-3)
  np.testing.assert_allclose(found_noise - noise, shift, atol=2e-3 if prediction == "x0" else 2e-4)


def test_recurrences_go_back_to_where_the_step_began():
  made = schedule.make_schedule()
  once = schedule.sampling_steps(made, 4)
  thrice = schedule.sampling_steps(made, 4, recurrences=3)
  expected = [(t, p, rest) for t, p, _ in zip(*once, strict=True) for rest in (t, t, p)]
  assert list(zip(*thrice, strict=True)) == expected


@pytest.mark.parametrize("num_samples", [1, 4, 50, 250, 500])
def test_leading_steps_are_those_of_latent_diffusion(num_samples):
  timesteps, previous, _ = schedule.sampling_steps(schedule.make_schedule(), num_samples, spacing="leading")
  ascending = [step + 1 for step in range(0, 1000, 1000 // num_samples)]
  assert timesteps.tolist() == ascending[::-1]
  assert previous.tolist() == [0, *ascending[:-1]][::-1]


@pytest.mark.parametrize("spacing, last", [("leading", 0), ("trailing", -1)])
@settings(max_examples=50, deadline=None)
@given(total=st.integers(2, 300), data=st.data())
def test_steps_descend_through_the_whole_schedule(spacing, last, total, data):
  num_samples = data.draw(st.integers(1, total - 1))
  made = schedule.Schedule(signal=np.linspace(1, 0, total))
  timesteps, previous, resting = schedule.sampling_steps(made, num_samples, spacing=spacing)
  assert len(timesteps) == num_samples and previous[-1] == last
  assert np.all(timesteps < total) and np.all(timesteps > previous)
  np.testing.assert_array_equal(timesteps[1:], previous[:-1])
  np.testing.assert_array_equal(resting, previous)
  # No step is much longer than another, and pure noise is where the first begins.
  stride = total / num_samples
  lengths = timesteps - previous
  if spacing == "trailing":
    assert timesteps[0] == total - 1 and np.all(np.abs(lengths - stride) <= 1)
  else:
    assert timesteps[0] >= total - stride - 1 and lengths[-1] == 1 and np.all(np.abs(lengths[:-1] - stride) <= 1)


def covariance(height, width, reach, slope):
  """Of Gaussian latents of a spectrum, [places places], mean variance 1."""
  powers, basis = [], []
  for y in range(height):
    for x in range(width):
      rows = np.cos(np.pi * y * (np.arange(height) + 0.5) / height) * np.sqrt((1 if y == 0 else 2) / height)
      columns = np.cos(np.pi * x * (np.arange(width) + 0.5) / width) * np.sqrt((1 if x == 0 else 2) / width)
      powers.append((1 + reach**2 * ((y / (2 * height)) ** 2 + (x / (2 * width)) ** 2)) ** -slope)
      basis.append(np.outer(rows, columns).ravel())
  return (np.array(basis).T * (np.array(powers) / np.mean(powers))) @ np.array(basis)


@pytest.mark.parametrize("timestep", [3, 400, 990])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_what_is_expected_of_gaussian_latents_is_their_conditional_mean(prediction, timestep):
  height, width = 5, 8
  made = schedule.make_schedule(prediction=prediction, reach=20.0, slope=1.2)
  spread = covariance(height, width, 20.0, 1.2)
  assert spread[0, 1] > 0.5 * spread[0, 0] > abs(spread[0, -1])
  signal = float(made.signal[timestep])
  noisy = np.random.default_rng(0).normal(size=(1, height, width, 2)).astype(np.float32)
  whole = signal * spread + (1 - signal) * np.eye(height * width)
  clean = np.sqrt(signal) * spread @ np.linalg.solve(whole, noisy.reshape(-1, 2))
  noise = np.sqrt(1 - signal) * np.linalg.solve(whole, noisy.reshape(-1, 2))
  # A network that says nothing leaves the conditional means.
  found = schedule.split_prediction(made, np.zeros_like(noisy), noisy, np.array([timestep]))
  np.testing.assert_allclose(found[0].reshape(-1, 2), clean, atol=1e-3)
  np.testing.assert_allclose(found[1].reshape(-1, 2), noise, atol=1e-3)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_target_is_what_the_expectation_leaves(prediction):
  rng = np.random.default_rng(0)
  clean, noise = rng.normal(size=(2, 3, 4, 5, 6, 2)).astype(np.float32)
  timesteps = rng.integers(20, 800, (3, 4))
  made = schedule.make_schedule(prediction=prediction, reach=20.0, slope=1.2)
  target = schedule.training_target(made, clean, noise, timesteps)
  noisy = schedule.add_noise(made, clean, noise, timesteps)
  found = schedule.split_prediction(made, target, noisy, timesteps)
  np.testing.assert_allclose(found[0], clean, atol=1e-3)
  np.testing.assert_allclose(found[1], noise, atol=1e-3)
  with pytest.raises(ValueError, match="reach must be 0 or more"):
    schedule.make_schedule(reach=-1.0)


def test_timesteps_to_train_at_are_evenly_apart_and_each_as_likely():
  made = schedule.make_schedule(num_steps=12)
  drawn = np.asarray(jax.vmap(lambda key: schedule.draw_timesteps(key, (2, 3), schedule=made))(
    jax.random.split(jax.random.key(0), 4000)))  # fmt: skip
  assert drawn.shape == (4000, 2, 3)
  # Six of twelve: one from every pair of neighbours, or the pairs begin one later.
  np.testing.assert_array_equal(np.diff(np.sort(drawn.reshape(4000, 6)), axis=1), 2)
  counts = np.stack([np.bincount(place, minlength=12) for place in drawn.reshape(4000, 6).T])
  assert counts.shape == (6, 12) and abs(counts / 4000 - 1 / 12).max() < 4 * np.sqrt(1 / 12 / 4000)
