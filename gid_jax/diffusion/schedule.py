"""The forward process: z_t = sqrt(a_t) z_0 + sqrt(1 - a_t) n, with a_t the cumulative product of 1 - beta.

A network may predict the noise n ("epsilon"), the velocity v = sqrt(a) n - sqrt(1 - a) z_0 ("v"), or z_0 ("clean").
"""

import flax.struct
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


@flax.struct.dataclass
class Schedule:
  """Noise levels of the N training steps.

  Attributes:
    signal: [n] float32, the cumulative product a_t of 1 - beta, falling.
    prediction: what the network predicts, "epsilon", "v" or "clean".
  """

  signal: Float[Array, "n"]
  prediction: str = flax.struct.field(pytree_node=False, default="epsilon")

  @property
  def num_steps(self) -> int:
    """Number N of training steps."""
    return self.signal.shape[0]


def make_schedule(
  *, num_steps: int = 1000, beta_start: float = 0.0015, beta_end: float = 0.0195, prediction: str = "epsilon"
) -> Schedule:
  """Latent diffusion's "square linear" schedule of [num_steps]: betas = linspace(sqrt b0, sqrt b1, N)^2.

  Raises:
    ValueError: unknown `prediction`.
  """
  if prediction not in ("epsilon", "v", "clean"):
    raise ValueError(f"prediction must be 'epsilon', 'v' or 'clean', not {prediction!r}")
  betas = np.linspace(beta_start**0.5, beta_end**0.5, num_steps, dtype=np.float64) ** 2
  return Schedule(jnp.asarray(np.cumprod(1 - betas), jnp.float32), prediction)


def _levels(schedule: Schedule, timesteps, ndim: int):
  signal = schedule.signal[timesteps]
  signal = signal.reshape(signal.shape + (1,) * (ndim - signal.ndim))
  return jnp.sqrt(signal), jnp.sqrt(1 - signal)


def add_noise(
  schedule: Schedule, clean: Float[Array, "*b c"], noise: Float[Array, "*b c"], timesteps: Int[Array, "..."]
) -> Float[Array, "*b c"]:
  """Noisy latents at `timesteps` (0 ... N-1), which index the leading axes of `clean` [*b ... c]."""
  alpha, sigma = _levels(schedule, timesteps, clean.ndim)
  return alpha * clean + sigma * noise


def training_target(
  schedule: Schedule, clean: Float[Array, "*b c"], noise: Float[Array, "*b c"], timesteps: Int[Array, "..."]
) -> Float[Array, "*b c"]:
  """What the network should output [*b ... c] at `timesteps`, by the schedule's kind of prediction."""
  alpha, sigma = _levels(schedule, timesteps, clean.ndim)
  return {"epsilon": noise, "v": alpha * noise - sigma * clean, "clean": clean}[schedule.prediction]


def split_prediction(
  schedule: Schedule, output: Float[Array, "*b c"], noisy: Float[Array, "*b c"], timesteps: Int[Array, "..."]
) -> tuple[Float[Array, "*b c"], Float[Array, "*b c"]]:
  """Turns the network's output [*b ... c] for `noisy` at `timesteps` into (clean, noise) estimates of that shape."""
  alpha, sigma = _levels(schedule, timesteps, noisy.ndim)
  if schedule.prediction == "epsilon":
    return (noisy - sigma * output) / alpha, output
  if schedule.prediction == "v":
    return alpha * noisy - sigma * output, sigma * noisy + alpha * output
  return output, (noisy - alpha * output) / sigma


def sampling_steps(
  schedule: Schedule, num_samples: int, *, spacing: str = "trailing"
) -> tuple[Int[np.ndarray, "s"], Int[np.ndarray, "s"]]:
  """The time steps [s] to visit, from noisy to clean, and the one each leads to ([s]; -1 means clean).

  "leading" is latent diffusion's DDIM choice, range(0, N, N // s) + 1, spread evenly where s does not divide N; its
  last step leads to time step 0. "trailing" begins at the last training step and ends at the clean latent.

  Raises:
    ValueError: `num_samples` outside 1 ... N, or unknown spacing.
  """
  total = schedule.num_steps
  if not 1 <= num_samples <= total:
    raise ValueError(f"the number of sampling steps must lie in 1 ... {total}, not {num_samples}")
  if spacing == "leading":
    ascending = np.minimum(np.arange(num_samples) * total // num_samples + 1, total - 1)
    previous = np.concatenate([[0], ascending[:-1]])
  elif spacing == "trailing":
    ascending = np.round(np.arange(1, num_samples + 1) * total / num_samples).astype(int) - 1
    previous = np.concatenate([[-1], ascending[:-1]])
  else:
    raise ValueError(f"spacing must be 'leading' or 'trailing', not {spacing!r}")
  return ascending[::-1].copy(), previous[::-1].copy()
