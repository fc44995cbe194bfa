"""Ways to steer the denoiser while sampling. A denoiser maps (latents [b k h w z], time step) to the network output."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Denoiser = Callable[[Float[Array, "b k h w z"], Int[Array, ""]], Float[Array, "b k h w z"]]


def classifier_free(
  network: Callable[..., Float[Array, "b k h w z"]], condition: Float[Array, "b h w d"], *, weight: float | Array
) -> Denoiser:
  """Classifier-free guidance (section 4.3): (1 + w) e_cond - w e_uncond; the empty condition is all zeros.

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
