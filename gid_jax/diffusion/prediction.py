"""Photo to spectral volumes: the sampler around the parts of a trained motion model (section 4).

A photo's features are computed once; then the latents of all K bands, one set an example, take their steps together.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from gid_jax.configuration import ModelSettings, WeightsSettings
from gid_jax.diffusion.guidance import classifier_free, guided, loop_loss
from gid_jax.diffusion.sampler import Draw, begin, draw_noise, sample
from gid_jax.diffusion.schedule import SamplingSteps, Schedule, make_schedule, sampling_steps
from gid_jax.errors import UserError
from gid_jax.models.motion_model import MotionModel, View
from gid_jax.types import AnyArray, SpectralVolume

Progress = Callable[[int, int], None]


def predict_spectra(
  keys: AnyArray,
  image: Float[AnyArray, "h w 3"],
  *,
  model: MotionModel,
  params: Mapping[str, Any],
  settings: WeightsSettings,
  steps: int | None = None,
  guidance: float | None = None,
  loop: bool = False,
  progress: Progress | None = None,
) -> SpectralVolume:
  """Samples one spectral volume of a photo for each key, all in one batch (section 4, section 6 for loops).

  Without `loop` a volume is periodic too, but may hurry across the seam between its last frame and its first. Motion
  self-guidance (eq. 5) calms it there; a step costs the gradient through U-Net and decoder, several times as much.

  Args:
    keys: [b] PRNG keys; a key gives the same volume alone and in any batch, up to rounding.
    image: [h w 3] float32 RGB in [0, 1], of a size that the model can take (`Animator.working_size`).
    model, params, settings: of the motion weights.
    steps: DDIM steps; the weights' own number, of loops or others, when None.
    guidance: classifier-free weight w; the weights' own when None.
    loop: guide the motion towards a calm seam, with the weight u (None: not at all) and the recurrences of `settings`.
    progress: called as (done, total) after every step, recurrences counted.

  Returns:
    Volumes [b k h2 w2 4] on the motion grid, pixels of that grid.

  Raises:
    UserError: `steps` is outside 1 ... 1000.
  """
  sizes, sampling = settings.model, settings.sampling
  if not isinstance(sizes, ModelSettings) or settings.schedule is None or sampling is None:
    raise UserError(f"weights of stage {settings.stage!r} cannot be sampled; export a stage ldm or ldm_coordinated")
  schedule = make_schedule(**dataclasses.asdict(settings.schedule))
  if steps is None:
    steps = sampling.loop.steps if loop else sampling.steps
  guidance = sampling.guidance if guidance is None else guidance
  # Guidance changes where a step is going, which the step before knew nothing of.
  order = 1 if loop else sampling.order
  try:
    recurrences = sampling.loop.recurrences if loop else 1
    way = sampling_steps(schedule, steps, spacing=sampling.spacing, last=sampling.last, recurrences=recurrences)
  except ValueError as error:
    raise UserError(str(error)) from error

  grid = sizes.motion_stride * model.latent_factor
  height, width = image.shape[0] // grid, image.shape[1] // grid
  view: View = _encode_image(model, params, image, height, width)
  noise_keys, keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
  draw = begin(draw_noise(noise_keys, (sizes.num_bands, height, width, model.latent_channels)))
  # A step at a time: any number of steps shares one compiled program, and the user sees them pass.
  total = len(way.timesteps)
  for index in range(total):
    keys, step_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    draw = _sample(
      model,
      params,
      schedule,
      step_keys,
      draw,
      view,
      # Without it the second, unconditional evaluation of every step is saved.
      None if guidance == 0 else jnp.float32(guidance),
      jnp.float32(sampling.loop.weight) if loop and sampling.loop.weight else None,
      SamplingSteps(*(part[index : index + 1] for part in way)),
      num_frames=sizes.num_frames,
      fps=sizes.fps,
      eta=sampling.eta,
      order=order,
    )
    if progress is not None:
      draw.latents.block_until_ready()
      progress(index + 1, total)
  slices = _decode_latents(model, params, draw.latents, view.swing, evenness=sampling.evenness)
  return SpectralVolume(slices, num_frames=sizes.num_frames, fps=sizes.fps)


@functools.partial(jax.jit, static_argnames=("model", "height", "width"))
def _encode_image(model: MotionModel, params, image, height, width):
  return model.apply({"params": params}, image[None], height=height, width=width, method="encode_image")


@functools.partial(jax.jit, static_argnames=("model", "evenness"))
def _decode_latents(model: MotionModel, params, latents, swing, *, evenness):
  swing = _repeat(swing, len(latents))
  slices: Any = model.apply({"params": params}, latents, swing=swing, evenness=evenness, method="latents_to_motion")
  return slices


def _repeat(swing, number):
  return None if swing is None else jnp.broadcast_to(swing, (number, *swing.shape[1:]))


@functools.partial(
  jax.jit, static_argnames=("model", "num_frames", "fps", "eta", "order"), donate_argnames=("draw",)
)
def _sample(
  model: MotionModel, params, schedule: Schedule, keys, draw: Draw, view: View, weight, loop_weight,
  steps: SamplingSteps, *, num_frames, fps, eta, order,
):  # fmt: skip
  apply: Any = functools.partial(model.apply, {"params": params})
  num_examples, num_bands = draw.latents.shape[:2]
  bands = jnp.arange(num_bands)

  def network(latents, timestep, condition):
    shape = latents.shape[:2]
    timesteps, all_bands = jnp.broadcast_to(timestep, shape), jnp.broadcast_to(bands, shape)
    return apply(latents, timesteps, all_bands, condition, method="denoise")

  def seam(clean):
    # As strong as it is: brought to one strength, estimates of much noise, which are faint, would be pushed too hard.
    all_bands = jnp.broadcast_to(bands, clean.shape[:2])
    swing = _repeat(view.swing, len(clean))
    slices = apply(clean, all_bands, swing=swing, method="latents_to_slices")
    return loop_loss(SpectralVolume(slices, num_frames=num_frames, fps=fps), cell=model.latent_factor)

  condition = jnp.broadcast_to(view.condition, (num_examples, *view.condition.shape[1:]))
  if weight is None:
    denoise = lambda latents, timestep: network(latents, timestep, condition)
  else:
    denoise = classifier_free(network, condition, weight=weight)
  if loop_weight is not None:
    denoise = guided(denoise, seam, schedule=schedule, weight=loop_weight)
  return sample(keys, draw, steps, denoise=denoise, schedule=schedule, eta=eta, order=order)
