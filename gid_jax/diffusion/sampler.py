"""Drawing latents: one `lax.scan` over DDIM steps, deterministic (eta 0) or ancestral (eta 1).

All K bands of an example share one time step and are denoised together (section 4.2). With eta 1 and every training
step visited (1000 of them, "trailing"), a step is exactly ancestral DDPM sampling with the posterior variance.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gid_jax.diffusion.guidance import Denoiser
from gid_jax.diffusion.schedule import SamplingSteps, Schedule, split_prediction


def draw_noise(keys: Array, shape: tuple[int, ...]) -> Float[Array, "b *s"]:
  """Unit normal noise [b *shape], every example from its own of the `keys` [b]: a batch repeats what singles draw."""
  return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def _signal(schedule: Schedule, timestep):
  """Cumulative product a at a time step; 1 at -1, the clean latent."""
  return jnp.where(timestep < 0, 1.0, schedule.signal[jnp.maximum(timestep, 0)])


def ddim_step(
  latents: Float[Array, "b k h w z"],
  output: Float[Array, "b k h w z"],
  noise: Float[Array, "b k h w z"],
  timestep: Int[Array, ""],
  previous: Int[Array, ""],
  *,
  schedule: Schedule,
  eta: float = 0.0,
) -> Float[Array, "b k h w z"]:
  """One DDIM step from noisy `latents` [b k h w z] at `timestep` to `previous` (-1: clean).

  Args:
    latents: [b k h w z] at `timestep`.
    output: [b k h w z], what the network says of them.
    noise: [b k h w z] unit normal, added eta times as strongly as the DDPM posterior does.
    timestep, previous: indices of training steps.
    schedule: noise levels and kind of prediction.
    eta: 0 deterministic ... 1 ancestral.
  """
  clean, estimate = split_prediction(schedule, output, latents, timestep)
  signal, target = _signal(schedule, timestep), _signal(schedule, previous)
  spread = eta * jnp.sqrt((1 - target) / (1 - signal) * (1 - signal / target))
  direction = jnp.sqrt(jnp.maximum(1 - target - spread**2, 0.0))
  return jnp.sqrt(target) * clean + direction * estimate + spread * noise


def renoise(
  latents: Float[Array, "b k h w z"],
  noise: Float[Array, "b k h w z"],
  timestep: Int[Array, ""],
  noisier: Int[Array, ""],
  *,
  schedule: Schedule,
) -> Float[Array, "b k h w z"]:
  """The forward process from `timestep` (-1: clean) to a noisier one: sqrt(r) z + sqrt(1 - r) n, r = a_noisier / a.

  `latents` and unit normal `noise` are [b k h w z]; the same time step twice changes nothing.
  """
  ratio = _signal(schedule, noisier) / _signal(schedule, timestep)
  return jnp.sqrt(ratio) * latents + jnp.sqrt(1 - ratio) * noise


def sample(
  keys: Array,
  latents: Float[Array, "b k h w z"],
  steps: SamplingSteps,
  *,
  denoise: Denoiser,
  schedule: Schedule,
  eta: float = 0.0,
) -> Float[Array, "b k h w z"]:
  """Denoises latents along `steps` (section 4.3, DDIM; section 6, self-recurrence).

  Start from unit normal noise and the whole of `schedule.sampling_steps`; or call it with pieces of these arrays, one
  after the other, to watch the progress: the steps are data, so every piece of one length shares a compilation.

  Args:
    keys: [b] PRNG keys, one an example, for what is random after the start: eta above 0, or recurrences.
    latents: [b k h w z] at the first time step.
    steps: from `schedule.sampling_steps`, or a stretch of it.
    denoise: the network, perhaps guided; see `guidance`.
    schedule: noise levels and kind of prediction.
    eta: 0 deterministic ... 1 ancestral.
  """
  shape = latents.shape[1:]

  def take_step(carry, step):
    keys, latents = carry
    keys, step_keys, back_keys = jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, 3))(keys), 1, 0)
    output = denoise(latents, step.timesteps)
    noise = draw_noise(step_keys, shape) if eta > 0 else jnp.zeros_like(latents)
    latents = ddim_step(latents, output, noise, step.timesteps, step.previous, schedule=schedule, eta=eta)
    noise = draw_noise(back_keys, shape)
    return (keys, renoise(latents, noise, step.previous, step.resting, schedule=schedule)), None

  steps = SamplingSteps(*map(jnp.asarray, steps))
  if steps.timesteps.shape[0] == 1:
    # Without a loop around them, gradients of convolutions are several times quicker: XLA rewrites them for the CPU's
    # library in straight code only.
    (_, latents), _ = take_step((keys, latents), jax.tree.map(lambda array: array[0], steps))
  else:
    (_, latents), _ = jax.lax.scan(take_step, (keys, latents), steps)
  return latents
