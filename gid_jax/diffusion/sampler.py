"""Drawing latents: one `lax.scan` over DDIM steps, deterministic (eta 0) or ancestral (eta 1)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gid_jax.diffusion.guidance import Denoiser
from gid_jax.diffusion.schedule import Schedule, split_prediction
from gid_jax.types import PRNGKey


def ddim_step(
  key: PRNGKey,
  latents: Float[Array, "b k h w z"],
  output: Float[Array, "b k h w z"],
  timestep: Int[Array, ""],
  previous: Int[Array, ""],
  *,
  schedule: Schedule,
  eta: float = 0.0,
) -> Float[Array, "b k h w z"]:
  """One step from noisy `latents` [b k h w z] at `timestep` to `previous` (-1: clean), given the network's output."""
  clean, noise = split_prediction(schedule, output, latents, timestep)
  signal = schedule.signal[timestep]
  target = jnp.where(previous < 0, 1.0, schedule.signal[jnp.maximum(previous, 0)])
  spread = eta * jnp.sqrt((1 - target) / (1 - signal) * (1 - signal / target))
  direction = jnp.sqrt(jnp.maximum(1 - target - spread**2, 0.0))
  fresh = jax.random.normal(key, latents.shape) if eta > 0 else 0.0
  return jnp.sqrt(target) * clean + direction * noise + spread * fresh


def sample(
  key: PRNGKey,
  latents: Float[Array, "b k h w z"],
  timesteps: Int[Array, "s"],
  previous: Int[Array, "s"],
  *,
  denoise: Denoiser,
  schedule: Schedule,
  eta: float = 0.0,
) -> Float[Array, "b k h w z"]:
  """Denoises [b k h w z] through `timesteps` [s], each leading to `previous` [s] (section 4.3, DDIM).

  Start from unit normal noise and the whole of `schedule.sampling_steps`; or call it with pieces of these arrays, one
  after the other, to watch the progress: the steps are data, so every piece of one length shares a compilation.
  """

  def body(carry, step):
    latents, key = carry
    timestep, previous = step
    key, step_key = jax.random.split(key)
    output = denoise(latents, timestep)
    latents = ddim_step(step_key, latents, output, timestep, previous, schedule=schedule, eta=eta)
    return (latents, key), None

  (latents, _), _ = jax.lax.scan(body, (latents, key), (timesteps, previous))
  return latents
