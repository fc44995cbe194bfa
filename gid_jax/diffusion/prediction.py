"""Photo to spectral volumes: the sampler around the parts of a trained motion model (section 4).

A photo's features are computed once; then the latents of all K bands, one set an example, take their steps together.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gid_jax.configuration import ModelSettings, WeightsSettings
from gid_jax.diffusion.guidance import classifier_free, guided, loop_loss
from gid_jax.diffusion.sampler import Draw, begin, draw_noise, sample
from gid_jax.diffusion.schedule import SamplingSteps, Schedule, make_schedule, sampling_steps
from gid_jax.errors import UserError
from gid_jax.models.denoiser import cast_params, casts_params
from gid_jax.models.motion_model import MotionModel, View
from gid_jax.programs import keep
from gid_jax.types import AnyArray, SpectralVolume

Progress = Callable[[int, int], None]
# For what runs once a photo, in milliseconds as it is.
_QUICK = {"xla_backend_optimization_level": 0}


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
    UserError: `steps` is outside 1 ... 1000, or the weights are not those of a motion model.
  """
  plan = _plan(model, settings, *image.shape[:2], steps=steps, guidance=guidance, loop=loop)
  view: View = _encode_image(model, params, image, *plan.shape[1:3])
  seeds, draw = _begin(jax.random.key_data(keys), impl=str(jax.random.key_impl(keys)), shape=plan.shape)
  if casts_params(model.make_denoiser()):
    params = {**params, model.denoiser_name: _cast_params(model, params[model.denoiser_name])}
  # A step at a time: any number of steps shares one compiled program, and the user sees them pass.
  total = len(plan.way.timesteps)
  for index in range(total):
    before = draw
    seeds, draw = _step(
      model, params, plan.schedule, seeds, draw, view, *plan.weights, plan.take(index),
      impl=str(jax.random.key_impl(keys)), **plan.options)  # fmt: skip
    if progress is not None and index:
      before.latents.block_until_ready()  # one step behind, so that the device has the next one waiting
      progress(index, total)
  if progress is not None:
    draw.latents.block_until_ready()
    progress(total, total)
  slices = _decode_latents(model, params, draw.latents, view.swing, evenness=plan.evenness)
  return SpectralVolume(slices, num_frames=plan.options["num_frames"], fps=plan.options["fps"])


def prepare_spectra(
  keys: Any,
  image: Any,
  *,
  model: MotionModel,
  params: Mapping[str, Any],
  settings: WeightsSettings,
  steps: int | None = None,
  guidance: float | None = None,
  loop: bool = False,
) -> SpectralVolume:
  """Loads or compiles, in threads, what `predict_spectra` runs for arrays of these shapes: structs will do.

  Returns:
    The volumes [b k h2 w2 4] as a struct.

  Raises:
    UserError: see `predict_spectra`.
  """
  plan = _plan(model, settings, *image.shape[:2], steps=steps, guidance=guidance, loop=loop)
  impl = str(jax.random.key_impl(keys))
  view: View = _encode_image.prepare(model, params, image, *plan.shape[1:3])
  seeds, draw = _begin.prepare(jax.random.key_data(keys), impl=impl, shape=plan.shape)
  if casts_params(model.make_denoiser()):
    params = {**params, model.denoiser_name: _cast_params.prepare(model, params[model.denoiser_name])}
  _, draw = _step.prepare(
    model, params, plan.schedule, seeds, draw, view, *plan.weights, plan.take(0), impl=impl, **plan.options)
  slices = _decode_latents.prepare(model, params, draw.latents, view.swing, evenness=plan.evenness)
  return SpectralVolume(slices, num_frames=plan.options["num_frames"], fps=plan.options["fps"])


class _Plan(NamedTuple):
  """How volumes are sampled: `weights` are of guidance and of loops, `options` what `_step` is compiled for."""

  shape: tuple[int, int, int, int]
  schedule: Schedule
  way: SamplingSteps
  weights: tuple[np.float32 | None, np.float32 | None]
  evenness: float
  options: dict[str, Any]

  def take(self, index: int) -> SamplingSteps:
    return SamplingSteps(*(np.asarray(part[index : index + 1], np.int32) for part in self.way))


def _plan(model, settings, height, width, *, steps, guidance, loop) -> _Plan:
  sizes, sampling = settings.model, settings.sampling
  if not isinstance(sizes, ModelSettings) or settings.schedule is None or sampling is None:
    raise UserError(f"weights of stage {settings.stage!r} cannot be sampled; export a stage ldm or ldm_coordinated")
  schedule = make_schedule(**dataclasses.asdict(settings.schedule))
  if steps is None:
    steps = sampling.loop.steps if loop else sampling.steps
  guidance = sampling.guidance if guidance is None else guidance
  try:
    recurrences = sampling.loop.recurrences if loop else 1
    way = sampling_steps(schedule, steps, spacing=sampling.spacing, last=sampling.last, recurrences=recurrences)
  except ValueError as error:
    raise UserError(str(error)) from error
  grid = sizes.motion_stride * model.latent_factor
  # Without guidance the second, unconditional evaluation of every step is saved.
  weights = (
    None if guidance == 0 else np.float32(guidance),
    np.float32(sampling.loop.weight) if loop and sampling.loop.weight else None,
  )
  # Guidance changes where a step is going, which the step before knew nothing of.
  order = 1 if loop else sampling.order
  options = {"num_frames": sizes.num_frames, "fps": sizes.fps, "eta": sampling.eta, "order": order}
  shape = sizes.num_bands, height // grid, width // grid, model.latent_channels
  return _Plan(shape, schedule, way, weights, sampling.evenness, options)


@keep(others=("model", "height", "width"))
def _encode_image(model: MotionModel, params, image, height, width):
  return model.apply({"params": params}, image[None], height=height, width=width, method="encode_image")


@keep(others=("model",))
def _cast_params(model: MotionModel, params):
  return cast_params(model.make_denoiser(), params)


@keep(others=("model", "evenness"), options=_QUICK)
def _decode_latents(model: MotionModel, params, latents, swing, *, evenness):
  swing = _repeat(swing, len(latents))
  slices: Any = model.apply({"params": params}, latents, swing=swing, evenness=evenness, method="latents_to_motion")
  return slices


def _repeat(swing, number):
  return None if swing is None else jnp.broadcast_to(swing, (number, *swing.shape[1:]))


@keep(others=("impl", "shape"), options=_QUICK)
def _begin(seeds, *, impl, shape):
  keys = jax.random.wrap_key_data(seeds, impl=impl)
  noise_keys, keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
  return jax.random.key_data(keys), begin(draw_noise(noise_keys, shape))


# Compiled in half the time, and as quick: its products are a library's.
@keep(
  others=("model", "impl", "num_frames", "fps", "eta", "order"), options={"xla_backend_optimization_level": 1})
def _step(model, params, schedule, seeds, draw, view, weight, loop_weight, steps, *, impl, num_frames, fps, eta, order):
  keys = jax.random.wrap_key_data(seeds, impl=impl)
  keys, step_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
  draw = _sample(
    model, params, schedule, step_keys, draw, view, weight, loop_weight, steps, num_frames=num_frames, fps=fps, eta=eta,
    order=order)  # fmt: skip
  return jax.random.key_data(keys), draw


@functools.partial(jax.jit, static_argnames=("model", "num_frames", "fps", "eta", "order"))
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
