"""Steps against NumPy, diffusers and DDPM, and whole ways against data whose perfect denoiser is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gid_jax.diffusion import guidance, sampler, schedule

pytestmark = pytest.mark.usefixtures("quick_compilation")

PREDICTIONS = ("epsilon", "v", "x0")
BETAS = dict(beta_start=0.0015, beta_end=0.0195)
SIGNAL = np.cumprod(1 - np.linspace(BETAS["beta_start"] ** 0.5, BETAS["beta_end"] ** 0.5, 1000) ** 2)
MEAN, DEVIATION = 1.5, 0.4


def estimates(prediction, output, noisy, signal):
  """(clean, noise) in float64."""
  alpha, sigma = np.sqrt(signal), np.sqrt(1 - signal)
  if prediction == "epsilon":
    return (noisy - sigma * output) / alpha, output
  if prediction == "v":
    return alpha * noisy - sigma * output, sigma * noisy + alpha * output
  return output, (noisy - alpha * output) / sigma


def plausible(made, timestep, seed):
  """Noisy latents, a network's inexact output for them, and fresh noise, [1 2 3 4 4] each."""
  rng = np.random.default_rng(seed)
  clean, noise, error, fresh = rng.normal(size=(4, 1, 2, 3, 4, 4)).astype(np.float32)
  noisy = schedule.add_noise(made, clean, noise, timestep)
  return np.asarray(noisy), np.asarray(schedule.training_target(made, clean, noise, timestep)) + 0.1 * error, fresh


CASES = [
  (prediction, eta, spacing)
  for prediction in PREDICTIONS for eta in (0.0, 0.5, 1.0) for spacing in ("leading", "trailing")
]  # fmt: skip


@pytest.mark.parametrize("prediction, eta, spacing", CASES)
def test_steps_are_those_of_the_ddim_paper(prediction, eta, spacing):
  made = schedule.make_schedule(**BETAS, prediction=prediction)
  step = jax.jit(lambda *inputs: sampler.ddim_step(*inputs, schedule=made, eta=eta))
  for timestep, previous, _ in zip(*schedule.sampling_steps(made, 20, spacing=spacing), strict=True):
    noisy, output, fresh = plausible(made, timestep, int(timestep))
    signal, target = SIGNAL[timestep], SIGNAL[previous] if previous >= 0 else 1.0
    clean, noise = estimates(prediction, output, noisy.astype(np.float64), signal)
    sigma = eta * np.sqrt((1 - target) / (1 - signal)) * np.sqrt(1 - signal / target)
    expected = np.sqrt(target) * clean + np.sqrt(max(1 - target - sigma**2, 0)) * noise + sigma * fresh
    # The clean estimate from epsilon divides by alpha, 0.01 at the noisiest step.
    np.testing.assert_allclose(step(noisy, output, fresh, timestep, previous), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prediction, eta, spacing", [case for case in CASES if case[1] != 0.5])
def test_steps_equal_those_of_diffusers(prediction, eta, spacing):
  diffusers, torch = pytest.importorskip("diffusers"), pytest.importorskip("torch")
  leading = spacing == "leading"
  peer = diffusers.DDIMScheduler(
    num_train_timesteps=1000, beta_schedule="scaled_linear", **BETAS, clip_sample=False,
    prediction_type={"epsilon": "epsilon", "v": "v_prediction", "x0": "sample"}[prediction],
    timestep_spacing=spacing, steps_offset=int(leading), set_alpha_to_one=not leading)  # fmt: skip
  made = schedule.make_schedule(**BETAS, prediction=prediction)
  step = jax.jit(lambda *inputs: sampler.ddim_step(*inputs, schedule=made, eta=eta))
  # The same noise predictor for both: what it says depends on the latents, which are carried from step to step.
  gains = np.random.default_rng(0).normal(size=(1, 2, 3, 4, 4)).astype(np.float32)
  for num_samples in (10, 50, 250):
    peer.set_timesteps(num_samples)
    steps = schedule.sampling_steps(made, num_samples, spacing=spacing)
    np.testing.assert_array_equal(steps.timesteps, peer.timesteps.numpy())
    latents = np.random.default_rng(1).normal(size=gains.shape).astype(np.float32)
    for index, (timestep, previous, _) in enumerate(zip(*steps, strict=True)):
      predicted = np.sin(gains * latents + timestep).astype(np.float32)
      clean = (latents - np.sqrt(1 - SIGNAL[timestep]) * predicted) / np.sqrt(SIGNAL[timestep])
      output = np.asarray(schedule.training_target(made, clean.astype(np.float32), predicted, timestep))
      fresh = np.random.default_rng(index).normal(size=gains.shape).astype(np.float32)
      to_torch = lambda array: torch.from_numpy(np.array(array))
      expected = peer.step(
        to_torch(output), int(timestep), to_torch(latents), eta=eta,
        variance_noise=to_torch(fresh) if eta else None).prev_sample.numpy()  # fmt: skip
      found = np.asarray(step(latents, output, fresh, timestep, previous))
      np.testing.assert_allclose(found, expected, atol=1e-5 * max(1, np.abs(expected).max()))
      latents = np.clip(expected, -4, 4)


def test_ancestral_steps_through_all_of_the_schedule_are_ddpm():
  made = schedule.make_schedule(**BETAS)
  timesteps, previous, _ = schedule.sampling_steps(made, 1000)
  for timestep, before in [pair for pair in zip(timesteps, previous, strict=True) if pair[0] in (999, 500, 20, 1)]:
    noisy, output, fresh = plausible(made, timestep, int(timestep))
    ratio = SIGNAL[timestep] / SIGNAL[before]
    mean = (noisy - (1 - ratio) / np.sqrt(1 - SIGNAL[timestep]) * output) / np.sqrt(ratio)
    deviation = np.sqrt((1 - SIGNAL[before]) / (1 - SIGNAL[timestep]) * (1 - ratio))
    found = sampler.ddim_step(noisy, output, fresh, timestep, before, schedule=made, eta=1.0)
    np.testing.assert_allclose(found, mean + deviation * fresh, atol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_step_to_clean_is_the_clean_estimate(eta):
  made = schedule.make_schedule(**BETAS)
  noisy, _, fresh = plausible(made, 400, 2)
  found = sampler.ddim_step(noisy, 0.5 * noisy, fresh, 400, -1, schedule=made, eta=eta)
  np.testing.assert_allclose(found, noisy * (1 - 0.5 * np.sqrt(1 - SIGNAL[400])) / np.sqrt(SIGNAL[400]), atol=1e-5)


def test_renoising_is_the_forward_process():
  made = schedule.make_schedule(**BETAS)
  latents, noise = np.random.default_rng(0).normal(size=(2, 1, 4, 50, 50, 4)).astype(np.float32)
  np.testing.assert_allclose(
    sampler.renoise(latents, noise, -1, 300, schedule=made), schedule.add_noise(made, latents, noise, 300), atol=1e-6)
  np.testing.assert_array_equal(sampler.renoise(latents, noise, 300, 300, schedule=made), latents)
  # Noised to step 200 and on to 700 is noised to 700.
  halfway = schedule.add_noise(made, np.full_like(latents, 2.0), latents, 200)
  found = np.asarray(sampler.renoise(halfway, noise, 200, 700, schedule=made))
  np.testing.assert_allclose(found.mean(), 2 * np.sqrt(SIGNAL[700]), atol=0.02)
  np.testing.assert_allclose(found.std(), np.sqrt(1 - SIGNAL[700]), atol=0.02)


def exact_output(made, latents, timestep):
  """What a perfect network says about latents whose clean values are N(MEAN, DEVIATION^2)."""
  signal = made.signal[timestep]
  variance = signal * DEVIATION**2 + 1 - signal
  clean = MEAN + jnp.sqrt(signal) * DEVIATION**2 / variance * (latents - jnp.sqrt(signal) * MEAN)
  noise = (latents - jnp.sqrt(signal) * clean) / jnp.sqrt(1 - signal)
  return schedule.training_target(made, clean, noise, timestep)


@pytest.fixture(scope="module")
def draw():
  def draw(made, keys, latents, steps, eta, weight, order):
    denoise = lambda latents, timestep: exact_output(made, latents, timestep)
    if weight:
      linear = lambda clean: clean.sum(axis=(1, 2, 3, 4))
      denoise = guidance.guided(denoise, linear, schedule=made, weight=weight)
    begun = latents if isinstance(latents, sampler.Draw) else sampler.begin(latents)
    return sampler.sample(keys, begun, steps, denoise=denoise, schedule=made, eta=eta, order=order)

  jitted = jax.jit(draw, static_argnames=("eta", "weight", "order"))

  def run(made, seed, latents, steps, eta=0.0, weight=0.0, order=1, whole=False):
    keys = jax.random.split(jax.random.key(seed), len(jax.tree.leaves(latents)[0]))
    found = jitted(made, keys, latents, steps, eta=eta, weight=weight, order=order)
    return found if whole else np.asarray(found.latents)

  return run


NOISE = np.random.default_rng(0).normal(size=(2, 2, 16, 16, 4)).astype(np.float32)
NOISE = (NOISE - NOISE.mean()) / NOISE.std()


@pytest.mark.parametrize(
  "prediction, eta, recurrences", [("epsilon", 0.0, 1), ("v", 0.0, 1), ("x0", 0.0, 1), ("v", 1.0, 1), ("v", 0.0, 2)]
)
def test_samples_have_the_distribution_of_the_data(draw, prediction, eta, recurrences):
  made = schedule.make_schedule(**BETAS, prediction=prediction)
  samples = draw(made, 1, NOISE, schedule.sampling_steps(made, 1000, recurrences=recurrences), eta)
  # The noise at the start has the mean and deviation of its distribution; of what steps add, 4,096 values, three
  # standard errors of both are below 0.02.
  np.testing.assert_allclose(samples.mean(), MEAN, atol=0.02)
  np.testing.assert_allclose(samples.std(), DEVIATION, atol=0.02)
  correlation = np.corrcoef(samples.ravel(), NOISE.ravel())[0, 1]
  assert correlation > 0.999 if (eta, recurrences) == (0, 1) else abs(correlation) < 0.5
  assert np.std(samples, axis=(2, 3, 4)).min() > 0.9 * DEVIATION


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_guidance_by_a_linear_loss_moves_the_distribution(draw, prediction):
  # N(m, s^2) times exp(-u x) is N(m - u s^2, s^2), and a linear loss is guided exactly.
  made = schedule.make_schedule(**BETAS, prediction=prediction)
  samples = draw(made, 1, NOISE, schedule.sampling_steps(made, 1000), weight=3.0)
  np.testing.assert_allclose(samples.mean(), MEAN - 3 * DEVIATION**2, atol=0.02)
  np.testing.assert_allclose(samples.std(), DEVIATION, atol=0.02)


def test_leading_steps_end_one_step_before_clean(draw):
  # The last of them leads to time step 0, where a trace of noise is left.
  made = schedule.make_schedule(**BETAS)
  samples = draw(made, 1, NOISE, schedule.sampling_steps(made, 100, spacing="leading"))
  np.testing.assert_allclose(samples.mean(), np.sqrt(SIGNAL[0]) * MEAN, atol=0.02)
  np.testing.assert_allclose(samples.std(), np.sqrt(SIGNAL[0] * DEVIATION**2 + 1 - SIGNAL[0]), atol=0.02)


@pytest.mark.parametrize("length, order", [(1, 1), (5, 1), (1, 2), (5, 2)])
def test_pieces_of_the_steps_are_the_whole(draw, length, order):
  made = schedule.make_schedule(**BETAS)
  steps = schedule.sampling_steps(made, 20)
  whole = draw(made, 1, NOISE, steps, order=order)
  pieces = NOISE
  for start in range(0, 20, length):
    piece = schedule.SamplingSteps(*(part[start : start + length] for part in steps))
    pieces = draw(made, start, pieces, piece, order=order, whole=True)
  np.testing.assert_allclose(pieces.latents, whole, atol=1e-5)


def integrate(made, steps, order):
  """Largest error of a way from the exact solution for noise z: MEAN + DEVIATION z, but for the start's signal."""
  denoise = lambda latents, timestep: exact_output(made, latents, timestep)
  noise = np.linspace(-2, 2, 64).reshape(1, 1, 8, 8, 1).astype(np.float32)
  signal = SIGNAL[steps.timesteps[0]]
  score = (noise - np.sqrt(signal) * MEAN) / np.sqrt(signal * DEVIATION**2 + 1 - signal)
  last = SIGNAL[steps.previous[-1]] if steps.previous[-1] >= 0 else 1.0
  exact = np.sqrt(last) * MEAN + np.sqrt(last * DEVIATION**2 + 1 - last) * score
  keys = jax.random.split(jax.random.key(0), 1)
  found = sampler.sample(keys, sampler.begin(noise), steps, denoise=denoise, schedule=made, order=order).latents
  return np.abs(found - exact).max()


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_errors_of_the_second_order_fall_with_the_square_of_the_step(prediction):
  # Even steps of log signal over noise, up to time step 200: beyond, single training steps are too coarse.
  made = schedule.make_schedule(**BETAS, prediction=prediction)
  levels = np.log(SIGNAL / (1 - SIGNAL))
  errors = {}
  for order in (1, 2):
    for number in (8, 16, 32):
      wanted = np.linspace(levels[-1], levels[200], number + 1)
      visited = np.abs(levels - wanted[:, None]).argmin(axis=1)
      steps = schedule.SamplingSteps(visited[:-1], visited[1:], visited[1:])
      errors[order, number] = integrate(made, steps, order)
  assert 1.6 < errors[1, 16] / errors[1, 32] < 2.4
  assert 3.0 < errors[2, 16] / errors[2, 32] < 5.5 and errors[2, 8] < errors[1, 16]


def test_second_order_steps_equal_those_of_diffusers():
  diffusers, torch = pytest.importorskip("diffusers"), pytest.importorskip("torch")
  peer = diffusers.DPMSolverMultistepScheduler(
    num_train_timesteps=1000, beta_schedule="scaled_linear", **BETAS, prediction_type="v_prediction", solver_order=2,
    algorithm_type="dpmsolver++", solver_type="midpoint", timestep_spacing="trailing", lower_order_final=True,
    final_sigmas_type="zero")  # fmt: skip
  made = schedule.make_schedule(**BETAS, prediction="v")
  peer.set_timesteps(10)
  visited = peer.timesteps.numpy()
  steps = schedule.SamplingSteps(visited, np.append(visited[1:], -1), np.append(visited[1:], -1))
  latents = np.random.default_rng(0).normal(size=(1, 1, 4, 4, 2)).astype(np.float32)
  keys = jax.random.split(jax.random.key(0), 1)
  found = sampler.sample(
    keys, sampler.begin(latents), steps, denoise=lambda z, t: exact_output(made, z, t), schedule=made, order=2)
  expected = torch.from_numpy(latents)
  for timestep in visited:
    output = np.array(exact_output(made, expected.numpy(), int(timestep)))
    expected = peer.step(torch.from_numpy(output), int(timestep), expected).prev_sample
  np.testing.assert_allclose(found.latents, expected.numpy(), atol=2e-5)


@pytest.mark.parametrize("order", [1, 2])
def test_a_way_that_ends_early_leaves_the_mean_of_what_noise_hides(draw, order):
  made = schedule.make_schedule(**BETAS, prediction="v")
  samples = draw(made, 1, NOISE, schedule.sampling_steps(made, 200, spacing="logsnr", last=0.3), order=order)
  # Wiener: of the variance, the share that the noisy latents at time step 300 tell remains.
  told = SIGNAL[300] * DEVIATION**2
  np.testing.assert_allclose(samples.mean(), MEAN, atol=0.02)
  np.testing.assert_allclose(samples.std(), DEVIATION * np.sqrt(told / (told + 1 - SIGNAL[300])), atol=0.01)


@pytest.mark.parametrize(
  "number, last",
  [(1, 0.02), (2, 0.02), (6, 0.02), (50, 0.02), (700, 0.02), (980, 0.02), (1000, 0.02), (6, 0.15), (995, 0.15)],
)
def test_steps_even_in_signal_over_noise(number, last):
  made = schedule.make_schedule(**BETAS)
  steps = schedule.sampling_steps(made, number, spacing="logsnr", last=last)
  assert steps.timesteps[0] == 999 and steps.previous[-1] == -1
  np.testing.assert_array_equal(steps.previous[:-1], steps.timesteps[1:])
  assert (np.diff(steps.timesteps) < 0).all() and len(steps.timesteps) == number
  if number > 1:
    assert steps.timesteps[-1] == min(1000 * last, 1000 - number)
  if number == 6:
    levels = np.log(SIGNAL / (1 - SIGNAL))[steps.timesteps]
    np.testing.assert_allclose(np.diff(levels), np.diff(levels).mean(), rtol=0.02)


def test_few_steps_of_second_order_end_closer_than_twice_as_many_of_the_first():
  made = schedule.make_schedule(**BETAS, prediction="v")
  few = integrate(made, schedule.sampling_steps(made, 6, spacing="logsnr"), 2)
  assert few < 0.7 * integrate(made, schedule.sampling_steps(made, 12), 1)


@pytest.mark.parametrize("order, eta", [(0, 0.0), (3, 0.0), (2, 0.5)])
def test_other_orders_are_refused(order, eta):
  made = schedule.make_schedule(**BETAS)
  with pytest.raises(ValueError, match=f"not {order} with eta {eta}"):
    sampler.sample(jax.random.split(jax.random.key(0), 2), sampler.begin(NOISE), schedule.sampling_steps(made, 2),
                   denoise=lambda z, t: z, schedule=made, eta=eta, order=order)  # fmt: skip


@pytest.mark.parametrize("eta, recurrences", [(1.0, 1), (0.0, 2)])
def test_an_example_does_not_depend_on_its_batch(draw, eta, recurrences):
  made = schedule.make_schedule(**BETAS)
  steps = schedule.sampling_steps(made, 5, recurrences=recurrences)
  keys = jax.random.split(jax.random.key(0), 2)
  run = lambda keys, latents: sampler.sample(
    keys, sampler.begin(latents), steps, denoise=lambda z, t: exact_output(made, z, t), schedule=made, eta=eta).latents
  both = np.asarray(run(keys, NOISE))
  np.testing.assert_allclose(run(keys[1:], NOISE[1:])[0], both[1], atol=1e-5)
  assert np.abs(run(keys[:1], NOISE[1:])[0] - both[1]).max() > 1e-3
