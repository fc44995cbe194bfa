"""Denoisers: what predicts noise, v or the clean latents from noisy ones (section 4.2).

Ours is the U-Net of `gid_jax.models.unet`. Another one is a Linen module with the call and the attributes of
`Denoiser`, named by `config.model.denoiser.kind` as "module:Class"; the remaining settings there are its fields, beside
`out_channels`.
"""

from typing import Any, Protocol

import jax
from jaxtyping import Array, Float, Int

from gid_jax.models.unet import COORDINATIONS, UNet
from gid_jax.parsing import Part, make_part
from gid_jax.types import AnyArray, Params


class Denoiser(Protocol):
  """What a motion model asks of a denoiser.

  Attributes:
    out_channels: channels of a latent, or of all K side by side for volume prediction.
    multiple: the sides of the latents must be multiples of it.
    favoured_multiple: multiples that it loses nothing at, such as those that it halves without remainder.
    output_layer: name of the last layer, which begins anew where what is predicted changes.
    coordination_path: what the path of every parameter contains that lets bands see each other; stage 2 trains these.
  """

  out_channels: int
  multiple: int
  favoured_multiple: int
  output_layer: str
  coordination_path: str

  def __call__(
    self,
    latents: Float[AnyArray, "b k h w z"],
    timesteps: Int[AnyArray, "b k"],
    bands: Int[AnyArray, "b k"],
    condition: Float[AnyArray, "b h w d"],
  ) -> Float[Array, "b k h w z"]:
    """Denoises [b k h w z] at time steps [b k] for bands [b k], given image features [b h w d]; same shape out."""
    ...


DENOISERS = {"unet": UNet}


def make_denoiser(part: Part, *, out_channels: int) -> Any:
  """The `Denoiser` of a config's `denoiser` part, without a parent.

  Raises:
    UserError: nothing has this name, or it has no such setting.
  """
  return make_part(part, DENOISERS, what="denoiser", out_channels=out_channels, parent=None)


def name_denoiser(part: Part) -> str:
  """Under which name its parameters stand: the kind of one of ours, "denoiser" for another."""
  return part.kind if part.kind in DENOISERS else "denoiser"


def cast_params(denoiser: Any, params: Params) -> Params:
  """A denoiser's parameters in the type that its layers cast them to, to call it many times with: the same output.

  Those of normalisations stay float32. So does everything of a denoiser or a coordination from outside, which do not
  tell what they cast.
  """
  if not casts_params(denoiser):
    return params
  is_foreign = denoiser.coordination not in COORDINATIONS

  def cast(path, leaf):
    name = jax.tree_util.keystr(path)
    is_kept = "norm" in name or (is_foreign and denoiser.coordination_path in name)
    return leaf if is_kept else leaf.astype(denoiser.dtype)

  return jax.tree_util.tree_map_with_path(cast, params)


def casts_params(denoiser: Any) -> bool:
  """Whether `cast_params` has anything to do."""
  return isinstance(denoiser, UNet) and denoiser.dtype != "float32"
