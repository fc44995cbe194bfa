"""The forward process: z_t = sqrt(a_t) z_0 + sqrt(1 - a_t) n, with a_t the cumulative product of 1 - beta.

A network may predict the noise n ("epsilon"), the velocity v = sqrt(a) n - sqrt(1 - a) z_0 ("v"), or z_0 ("x0").

Neighbouring places move alike, and how much so can be measured beforehand: the spectrum of latents over the photo. A
schedule that knows it subtracts from the target what follows for Gaussian latents of that spectrum, by a linear filter
of the noisy ones. The network learns the rest, and what it has not learnt yet stays as smooth as motion is.
"""

import math
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gid_jax.types import AnyArray, PRNGKey

Timestep = Int[AnyArray, ""] | np.integer | int
Timesteps = Int[AnyArray, "..."] | np.integer | int


@flax.struct.dataclass
class Schedule:
  """Noise levels of the N training steps.

  Attributes:
    signal: [n] float32, the cumulative product a_t of 1 - beta, falling.
    prediction: what the network predicts, "epsilon", "v" or "x0".
    reach: latent pixels over which clean latents are alike; 0 expects nothing of them. See `expect`.
    slope: how steeply their power falls with frequency.
  """

  signal: Float[Array, "n"]
  prediction: str = flax.struct.field(pytree_node=False, default="epsilon")
  reach: float = flax.struct.field(pytree_node=False, default=0.0)
  slope: float = flax.struct.field(pytree_node=False, default=0.0)

  @property
  def num_steps(self) -> int:
    """Number N of training steps."""
    return self.signal.shape[0]


def make_schedule(
  *,
  num_steps: int = 1000,
  beta_start: float = 0.0015,
  beta_end: float = 0.0195,
  prediction: str = "epsilon",
  reach: float = 0.0,
  slope: float = 0.0,
) -> Schedule:
  """Latent diffusion's "square linear" schedule of [num_steps]: betas = linspace(sqrt b0, sqrt b1, N)^2.

  Raises:
    ValueError: unknown `prediction`, or a negative `reach`.
  """
  if prediction not in ("epsilon", "v", "x0"):
    raise ValueError(f"prediction must be 'epsilon', 'v' or 'x0', not {prediction!r}")
  if reach < 0:
    raise ValueError(f"reach must be 0 or more latent pixels, not {reach}")
  betas = np.linspace(beta_start**0.5, beta_end**0.5, num_steps, dtype=np.float64) ** 2
  return Schedule(jnp.asarray(np.cumprod(1 - betas), jnp.float32), prediction, reach, slope)


def draw_timesteps(key: PRNGKey, shape: tuple[int, ...], *, schedule: Schedule) -> Int[Array, "*shape"]:
  """Time steps of `shape` to train at, each in 0 ... N-1 with equal chance, and evenly apart from one another.

  The loss depends on the time step more than on anything else, so this takes noise off the gradients of small batches
  (Kingma et al. 2021, Variational Diffusion Models, appendix I.1).
  """
  number = math.prod(shape)
  places = (jax.random.uniform(key) + jnp.arange(number) / number) % 1.0
  return jnp.minimum((places * schedule.num_steps).astype(jnp.int32), schedule.num_steps - 1).reshape(shape)


def _levels(schedule: Schedule, timesteps, ndim: int):
  signal = schedule.signal[timesteps]
  signal = signal.reshape(signal.shape + (1,) * (ndim - signal.ndim))
  return jnp.sqrt(signal), jnp.sqrt(1 - signal)


def add_noise(
  schedule: Schedule, clean: Float[AnyArray, "*b c"], noise: Float[AnyArray, "*b c"], timesteps: Timesteps
) -> Float[Array, "*b c"]:
  """Noisy latents at `timesteps` (0 ... N-1), which index the leading axes of `clean` [*b ... c]."""
  alpha, sigma = _levels(schedule, timesteps, clean.ndim)
  return alpha * clean + sigma * noise


def expect(
  schedule: Schedule, noisy: Float[AnyArray, "*b h w c"], timesteps: Timesteps
) -> Float[Array, "*b h w c"]:
  """What the network's output would be for `noisy` latents [*b h w c] at `timesteps`, were clean ones Gaussian.

  Their power would be P(f) = (1 + (reach f)^2)^-slope over its mean, f being the frequency in cycles a latent pixel.
  Given z_t, the noise and the clean latent are sigma / (a P + sigma^2) and sqrt(a) P / (a P + sigma^2) times z_t, each
  in the basis of cosines that level out at the borders (Wiener's filter).
  """
  height, width = noisy.shape[-3:-1]
  frequency = np.hypot(np.arange(height)[:, None] / (2 * height), np.arange(width) / (2 * width))
  power = (1 + (schedule.reach * frequency) ** 2) ** -schedule.slope
  power = (power / power.mean()).astype(np.float32)[..., None]
  alpha, sigma = _levels(schedule, timesteps, noisy.ndim)
  gains = {"epsilon": sigma, "v": alpha * sigma * (1 - power), "x0": alpha * power}
  gain = gains[schedule.prediction] / (alpha**2 * power + sigma**2)
  cosines = jax.scipy.fft.dctn(jnp.asarray(noisy), axes=(-3, -2), norm="ortho")
  return jax.scipy.fft.idctn(gain * cosines, axes=(-3, -2), norm="ortho")


def training_target(
  schedule: Schedule, clean: Float[AnyArray, "*b c"], noise: Float[AnyArray, "*b c"], timesteps: Timesteps
) -> Float[Array, "*b c"]:
  """What the network should output [*b ... c] at `timesteps`, by the schedule's kind of prediction."""
  clean, noise = jnp.asarray(clean), jnp.asarray(noise)
  alpha, sigma = _levels(schedule, timesteps, clean.ndim)
  target = {"epsilon": noise, "v": alpha * noise - sigma * clean, "x0": clean}[schedule.prediction]
  return target - expect(schedule, alpha * clean + sigma * noise, timesteps) if schedule.reach else target


def split_prediction(
  schedule: Schedule, output: Float[AnyArray, "*b c"], noisy: Float[AnyArray, "*b c"], timesteps: Timesteps
) -> tuple[Float[Array, "*b c"], Float[Array, "*b c"]]:
  """Turns the network's output [*b ... c] for `noisy` at `timesteps` into (clean, noise) estimates of that shape."""
  output, noisy = jnp.asarray(output), jnp.asarray(noisy)
  alpha, sigma = _levels(schedule, timesteps, noisy.ndim)
  if schedule.reach:
    output = output + expect(schedule, noisy, timesteps)
  if schedule.prediction == "epsilon":
    return (noisy - sigma * output) / alpha, output
  if schedule.prediction == "v":
    return alpha * noisy - sigma * output, sigma * noisy + alpha * output
  return output, (noisy - alpha * output) / sigma


def shift_noise(
  schedule: Schedule, output: Float[AnyArray, "*b c"], shift: Float[AnyArray, "*b c"], timesteps: Timesteps
) -> Float[Array, "*b c"]:
  """The output [*b ... c] whose noise estimate is that of `output` plus `shift` [*b ... c], z_t staying what it is.

  More noise in the same z_t means less signal: the clean estimate changes by -sigma / alpha times `shift`.
  """
  output, shift = jnp.asarray(output), jnp.asarray(shift)
  alpha, sigma = _levels(schedule, timesteps, output.ndim)
  return output + {"epsilon": 1.0, "v": 1 / alpha, "x0": -sigma / alpha}[schedule.prediction] * shift


class SamplingSteps(NamedTuple):
  """Where a sampler goes, from noisy to clean; any stretch of the three arrays is itself a way.

  Attributes:
    timesteps: [s] time step at which the network is asked.
    previous: [s] the less noisy time step that its answer leads to; -1 means clean.
    resting: [s] time step at which the latents are left: `previous`, or noised back to where the step began.
  """

  timesteps: Int[AnyArray, "s"]
  previous: Int[AnyArray, "s"]
  resting: Int[AnyArray, "s"]


def sampling_steps(
  schedule: Schedule, num_samples: int, *, spacing: str = "trailing", recurrences: int = 1, last: float = 0.02
) -> SamplingSteps:
  """The time steps to visit, from noisy to clean, and where each of them leads.

  "leading" is latent diffusion's DDIM choice, range(0, N, N // s) + 1, spread evenly where s does not divide N; its
  last step leads to time step 0. "trailing" begins at the last training step and ends at the clean latent. "logsnr"
  does too, in even steps of the logarithm of signal over noise, which the multistep sampler wants where steps are few
  (Lu et al. 2022, DPM-Solver), and ends with the clean latent that the network expects at `last`: where the noise there
  hides a detail, the sample has its mean instead of one draw of it.

  Args:
    schedule: noise levels of the N training steps.
    num_samples: how many time steps to visit, 1 ... N.
    spacing: "leading", "trailing" or "logsnr"; with many steps of the last, where the nearest time step is taken, the
      next free one is.
    recurrences: how often every step is taken; before the next time the result is noised back to where the step began
      (self-recurrence), which gives guidance several tries. 1 is plain sampling; the paper's loops take 2.
    last: of "logsnr", the time step to visit last, as a share of N, from 0 to less than 1; an earlier one where so many
      steps do not fit above it.

  Returns:
    As many time steps as were asked for, times `recurrences`.

  Raises:
    ValueError: `num_samples`, `recurrences` or `last` out of range, or unknown spacing.
  """
  total = schedule.num_steps
  if not 1 <= num_samples <= total:
    raise ValueError(f"the number of sampling steps must lie in 1 ... {total}, not {num_samples}")
  if recurrences < 1:
    raise ValueError(f"recurrences must be 1 or more, not {recurrences}")
  if not 0 <= last < 1:
    raise ValueError(f"the last time step must be a share of 0 to less than 1 of all, not {last}")
  if spacing == "leading":
    ascending = np.minimum(np.arange(num_samples) * total // num_samples + 1, total - 1)
    previous = np.concatenate([[0], ascending[:-1]])
  elif spacing == "trailing":
    ascending = np.round(np.arange(1, num_samples + 1) * total / num_samples).astype(int) - 1
    previous = np.concatenate([[-1], ascending[:-1]])
  elif spacing == "logsnr":
    signal = np.asarray(schedule.signal, np.float64)
    levels = np.log(signal / (1 - signal))
    first = min(int(last * total), total - num_samples)
    wanted = np.linspace(levels[first], levels[-1], num_samples) if num_samples > 1 else levels[-1:]
    ascending = _spread(np.abs(levels - wanted[:, None]).argmin(axis=1), total)
    previous = np.concatenate([[-1], ascending[:-1]])
  else:
    raise ValueError(f"spacing must be 'leading', 'trailing' or 'logsnr', not {spacing!r}")
  timesteps, previous = (np.repeat(steps[::-1], recurrences) for steps in (ascending, previous))
  resting = np.where(np.arange(timesteps.size) % recurrences < recurrences - 1, timesteps, previous)
  return SamplingSteps(timesteps, previous, resting)


def _spread(indices: Int[np.ndarray, "s"], total: int) -> Int[np.ndarray, "s"]:
  """Moves equal ones of rising indices [s] below `total` to the next free places; indices that differ stay."""
  order = np.arange(indices.size)
  return np.minimum(np.maximum.accumulate(indices - order), total - indices.size) + order
