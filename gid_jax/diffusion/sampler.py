"""Drawing latents: one `lax.scan` over DDIM steps, deterministic (eta 0) or ancestral (eta 1), or over multistep ones.

A deterministic step solves an ordinary differential equation as if the clean estimate stayed what it is. With order 2
it goes on as it has changed since the step before (Lu et al. 2022, DPM-Solver++ 2M), which costs nothing: few steps
then end closer to where many would.

All K bands of an example share one time step and are denoised together (section 4.2). With eta 1 and every training
step visited (1000 of them, "trailing"), a step is exactly ancestral DDPM sampling with the posterior variance.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from gid_jax.diffusion.guidance import Denoiser
from gid_jax.diffusion.schedule import SamplingSteps, Schedule, Timestep, shift_noise, split_prediction
from gid_jax.types import AnyArray


def draw_noise(keys: AnyArray, shape: tuple[int, ...]) -> Float[Array, "b *s"]:
  """Unit normal noise [b *shape], every example from its own of the `keys` [b]: a batch repeats what singles draw."""
  return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


class Draw(NamedTuple):
  """Latents on their way from noise to clean.

  Attributes:
    latents: [b k h w z] as noisy as the time step they have reached.
    clean: [b k h w z], the last step's estimate of where they are going.
    timestep: [] int32, at which that was; -1 before the first step.
  """

  latents: Float[Array, "b k h w z"]
  clean: Float[Array, "b k h w z"]
  timestep: Int[Array, ""]


def begin(latents: Float[AnyArray, "b k h w z"]) -> Draw:
  """Starts a way from unit normal noise [b k h w z], or from latents at any time step."""
  latents = jnp.asarray(latents)
  return Draw(latents, jnp.zeros_like(latents), jnp.int32(-1))


def _signal(schedule: Schedule, timestep):
  """Cumulative product a at a time step; 1 at -1, the clean latent."""
  return jnp.where(timestep < 0, 1.0, schedule.signal[jnp.maximum(timestep, 0)])


def ddim_step(
  latents: Float[AnyArray, "b k h w z"],
  output: Float[AnyArray, "b k h w z"],
  noise: Float[AnyArray, "b k h w z"],
  timestep: Timestep,
  previous: Timestep,
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


def extrapolate(
  draw: Draw, output: Float[AnyArray, "b k h w z"], timestep: Timestep, previous: Timestep, *,
  schedule: Schedule,
) -> Float[Array, "b k h w z"]:  # fmt: skip
  """The output [b k h w z] whose clean estimate goes on changing as it has since the last step (DPM-Solver++ 2M).

  Linearly in the logarithm of signal over noise, to the middle of the step. Where there is no step before, where the
  last was at the same time step, and for the step to clean, which is infinitely long, `output` itself.
  """
  levels = [jnp.log(_signal(schedule, t) / (1 - _signal(schedule, t))) for t in (draw.timestep, timestep, previous)]
  is_first = (draw.timestep <= timestep) | (previous < 0)
  share = jnp.where(is_first, 0.0, (levels[2] - levels[1]) / jnp.where(is_first, 1.0, 2 * (levels[1] - levels[0])))
  clean, _ = split_prediction(schedule, output, draw.latents, timestep)
  # A clean estimate that is larger by d, of the same noisy latents, is a noise estimate smaller by alpha / sigma d.
  signal = _signal(schedule, timestep)
  return shift_noise(schedule, output, -jnp.sqrt(signal / (1 - signal)) * share * (clean - draw.clean), timestep)


def renoise(
  latents: Float[AnyArray, "b k h w z"],
  noise: Float[AnyArray, "b k h w z"],
  timestep: Timestep,
  noisier: Timestep,
  *,
  schedule: Schedule,
) -> Float[Array, "b k h w z"]:
  """The forward process from `timestep` (-1: clean) to a noisier one: sqrt(r) z + sqrt(1 - r) n, r = a_noisier / a.

  `latents` and unit normal `noise` are [b k h w z]; the same time step twice changes nothing.
  """
  ratio = _signal(schedule, noisier) / _signal(schedule, timestep)
  return jnp.sqrt(ratio) * latents + jnp.sqrt(1 - ratio) * noise


def sample(
  keys: AnyArray,
  draw: Draw,
  steps: SamplingSteps,
  *,
  denoise: Denoiser,
  schedule: Schedule,
  eta: float = 0.0,
  order: int = 1,
) -> Draw:
  """Denoises latents along `steps` (section 4.3, DDIM; section 6, self-recurrence).

  Start from unit normal noise and the whole of `schedule.sampling_steps`; or call it with pieces of these arrays, one
  after the other, to watch the progress: the steps are data, so every piece of one length shares a compilation.

  Args:
    keys: [b] PRNG keys, one an example, for what is random after the start: eta above 0, or recurrences.
    draw: from `begin`, with latents at the first time step; or from the piece before.
    steps: from `schedule.sampling_steps`, or a stretch of it.
    denoise: the network, perhaps guided; see `guidance`.
    schedule: noise levels and kind of prediction.
    eta: 0 deterministic ... 1 ancestral.
    order: 1 is DDIM, 2 looks at the step before too; see `extrapolate`.

  Raises:
    ValueError: `order` is neither 1 nor 2, or is 2 with `eta` above 0.
  """
  if order not in (1, 2) or (order == 2 and eta > 0):
    raise ValueError(f"order must be 1, or 2 with eta 0, not {order} with eta {eta}")
  shape = draw.latents.shape[1:]

  def take_step(carry, step):
    keys, draw = carry
    keys, step_keys, back_keys = jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, 3))(keys), 1, 0)
    output = denoise(draw.latents, step.timesteps)
    clean, _ = split_prediction(schedule, output, draw.latents, step.timesteps)
    if order == 2:
      output = extrapolate(draw, output, step.timesteps, step.previous, schedule=schedule)
    noise = draw_noise(step_keys, shape) if eta > 0 else jnp.zeros_like(draw.latents)
    latents = ddim_step(draw.latents, output, noise, step.timesteps, step.previous, schedule=schedule, eta=eta)
    noise = draw_noise(back_keys, shape)
    latents = renoise(latents, noise, step.previous, step.resting, schedule=schedule)
    return (keys, Draw(latents, clean, step.timesteps)), None

  steps = SamplingSteps(*(jnp.asarray(part, jnp.int32) for part in steps))
  if steps.timesteps.shape[0] == 1:
    # Without a loop around them, gradients of convolutions are several times quicker: XLA rewrites them for the CPU's
    # library in straight code only.
    (_, draw), _ = take_step((keys, draw), jax.tree.map(lambda array: array[0], steps))
  else:
    (_, draw), _ = jax.lax.scan(take_step, (keys, draw), steps)
  return draw
