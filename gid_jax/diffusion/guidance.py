"""Ways to steer the denoiser while sampling. A denoiser maps (latents [b k h w z], time step) to the network output.

Guidance by a condition and guidance by a loss are both denoisers made of denoisers, so they combine freely:

  e = (1 + w) e_cond - w e_uncond + u sigma grad_z L(clean estimate of z),    sigma = sqrt(1 - a)    (eq. 5).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gid_jax.diffusion.schedule import Schedule, shift_noise, split_prediction
from gid_jax.motion import spectral
from gid_jax.types import AnyArray, SpectralVolume

Denoiser = Callable[[Float[Array, "b k h w z"], Int[Array, ""]], Float[Array, "b k h w z"]]
LatentLoss = Callable[[Float[Array, "b k h w z"]], Float[Array, "b"]]


def classifier_free(
  network: Callable[..., Float[Array, "b k h w z"]],
  condition: Float[AnyArray, "b h w d"],
  *,
  weight: float | Array,
) -> Denoiser:
  """Classifier-free guidance (section 4.3): (1 + w) e_cond - w e_uncond; the empty condition is all zeros.

  The network's output is combined as it is. For a given z_t the noise is affine in it, whether it is the noise, v or
  x0, and the weights add up to 1, so this equals combining the noise estimates.

  Args:
    network: (latents [b k h w z], time step, condition [b h w d]) -> output [b k h w z].
    condition: image features [b h w d].
    weight: w >= 0; 1.75 in the paper. Both branches are evaluated as one batch.

  Returns:
    A denoiser from (latents [b k h w z], time step) to the guided output [b k h w z].
  """

  def denoise(latents, timestep):
    both = network(
      jnp.concatenate([latents, latents]), timestep, jnp.concatenate([condition, jnp.zeros_like(condition)])
    )
    conditional, unconditional = jnp.split(both, 2)
    return (1 + weight) * conditional - weight * unconditional

  return denoise


def guided(denoise: Denoiser, loss_fn: LatentLoss, *, schedule: Schedule, weight: float | Array) -> Denoiser:
  """Guidance by any loss on the clean estimate ("universal guidance"): adds u sigma grad_z L to the noise (eq. 5).

  The gradient is taken with respect to the noisy latents, through `denoise` and `loss_fn`. Networks that predict v or
  x0 get the same step: the sum is formed in noise space and converted back.

  Args:
    denoise: the denoiser to steer; classifier-free guidance may be inside.
    loss_fn: clean latents [b k h w z] -> one loss an example [b]; examples must not influence one another.
    schedule: noise levels and kind of prediction of `denoise`.
    weight: u >= 0; larger follows the loss more closely.

  Returns:
    A denoiser from (latents [b k h w z], time step) to the steered output [b k h w z].
  """

  def steer(latents, timestep):
    def total_loss(latents):
      output = denoise(latents, timestep)
      clean, _ = split_prediction(schedule, output, latents, timestep)
      return loss_fn(clean).sum(), output

    gradient, output = jax.grad(total_loss, has_aux=True)(latents)
    shift = weight * jnp.sqrt(1 - schedule.signal[timestep]) * gradient
    return shift_noise(schedule, output, shift, timestep)

  return steer


def seam_gaps(spectrum: SpectralVolume) -> tuple[Float[Array, "*b h w 2"], Float[Array, "*b h w 2"]]:
  """What changes from the last frame of one period to its first: displacement and velocity (section 6, eq. 5).

  The paper's frames 1 ... T are the samples t = 0 ... T-1 that a video of one period shows. The series is T-periodic,
  so playing on after T-1 meets sample 0 again, one frame later: F[T] = F[1] asks the field to cross the seam without
  moving, and its velocity, the series' exact time derivative, not to change there.

  Args:
    spectrum: coefficients [*b k h w 4] in pixels.

  Returns:
    F(T-1) - F(0) in pixels and F'(T-1) - F'(0) in pixels per frame, both [*b h w 2].
  """

  def gaps(coefficients):
    volume = spectrum.replace(coefficients=coefficients)
    ends = np.array([0, spectrum.num_frames - 1])
    motion, velocity = spectral.evaluate_motion(volume, ends), spectral.evaluate_velocity(volume, ends)
    return motion[1] - motion[0], velocity[1] - velocity[0]

  for _ in spectrum.coefficients.shape[:-4]:
    gaps = jax.vmap(gaps)
  return gaps(spectrum.coefficients)


def loop_loss(spectrum: SpectralVolume, *, cell: int) -> Float[Array, "*b"]:
  """L = |F[T] - F[1]|_1 + |F'[T] - F'[1]|_1 of eq. 5, both gaps as `seam_gaps` defines them.

  The paper leaves the units open. Here the norm sums over the pixels, and they are chosen so that u means the same for
  every grid, model and frame rate: displacements count as fractions of sqrt(h w), velocities as such fractions per
  second, and the area of one latent pixel counts as 1. The push on a latent then depends neither on how many there are
  nor on how finely their motion is drawn. (Per frame, the velocity would hardly count beside the displacement.)

  Args:
    spectrum: coefficients [*b k h w 4] in pixels of the h x w grid.
    cell: pixels of that grid a latent pixel, per axis.

  Returns:
    One loss a volume, [*b].
  """
  height, width = spectrum.coefficients.shape[-3:-1]
  position, velocity = seam_gaps(spectrum)
  total = (jnp.abs(position) + spectrum.fps * jnp.abs(velocity)).sum(axis=(-3, -2, -1))
  return total / (cell**2 * (height * width) ** 0.5)
