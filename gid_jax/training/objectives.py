"""What each stage learns: how its parameters begin, which of them train, and its loss.

An `Objective` joins the three (`gid_jax.training.objective`). Losses are pure functions (key, params, batch) ->
(loss, metrics) on one global batch: the sum of the terms of `gid_jax.training.losses` that `config.loss.weights` names.
Other terms come in by `terms`.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gid_jax.configuration import (
  LossSettings,
  ModelSettings,
  RendererSettings,
  ScheduleSettings,
  TrainSettings,
  expect_model,
)
from gid_jax.diffusion.schedule import add_noise, draw_timesteps, make_schedule, training_target
from gid_jax.errors import UserError
from gid_jax.models.build import make_motion_model, make_renderer
from gid_jax.models.encoders import FROZEN_TRUNK
from gid_jax.models.motion_model import MotionModel
from gid_jax.models.renderer import Rendering
from gid_jax.models.resnet import resnet34_params
from gid_jax.models.unet import UNet
from gid_jax.models.vgg16 import vgg16_params
from gid_jax.training.losses import denoising_error, gradient_consistency, kl, l1, perceptual, psnr, weigh
from gid_jax.training.objective import Objective, Terms, blank, overlay
from gid_jax.training.plate_objective import make_plate_objective
from gid_jax.training.sharding import fetch, init_params
from gid_jax.types import Batch, Metrics, Params, PRNGKey
from gid_jax.weights.convert import read_tensors, read_unet_init, read_vae_init
from gid_jax.weights.frozen import read_trunks


class Reconstruction(NamedTuple):
  """What the auto-encoder's terms see: normalised slices and their reconstruction [b h w 4], moments [b h2 w2 z]."""

  target: Float[Array, "b h w 4"]
  output: Float[Array, "b h w 4"]
  mean: Float[Array, "b h2 w2 z"]
  log_variance: Float[Array, "b h2 w2 z"]


class Denoised(NamedTuple):
  """What the denoiser's terms see: what it gave and should have given, the latents and what it saw, [b k h w z]."""

  output: Float[Array, "b k h w z"]
  target: Float[Array, "b k h w z"]
  latents: Float[Array, "b k h w z"]
  noisy: Float[Array, "b k h w z"]


class Rendered(NamedTuple):
  """What the renderer's terms see: the rendering of a batch, and the true frames [b h w 3]."""

  rendering: Rendering
  target: Float[Array, "b h w 3"]


def make_objective(
  settings: TrainSettings,
  *,
  band_scale: np.ndarray | None = None,
  strength: np.ndarray | None = None,
  terms: Terms | None = None,
) -> Objective:
  """The objective of `settings.stage`.

  Args:
    settings: of the training.
    band_scale: [k] px, see `needs_band_scale`.
    strength: [1], see `needs_strength`.
    terms: name -> term of one's own, a function of what the stage's terms see (`Reconstruction`, `Denoised`,
      `Rendered` or `gid_jax.training.plate_objective.Filled`); `config.loss.weights` gives each its weight.

  Raises:
    UserError: a file or work folder named in the settings cannot be read, or a weight names no term.
  """
  if not settings.loss.weights:
    raise UserError("config.loss.weights is empty; give at least one term a weight")
  if settings.stage == "vae":
    return make_vae_objective(settings, band_scale=band_scale, terms=terms)
  if settings.stage == "renderer":
    return make_renderer_objective(settings, terms=terms)
  if settings.stage == "plate":
    return make_plate_objective(settings, terms=terms)
  return make_ldm_objective(settings, band_scale=band_scale, strength=strength, terms=terms)


def needs_band_scale(settings: TrainSettings) -> bool:
  """Whether a training takes its band scale from the data: the first of those that make a motion model."""
  if settings.stage == "ldm":
    model = make_motion_model(expect_model(ModelSettings, settings))
    return not settings.init.get("ldm") and not model.make_codec().is_trained
  return settings.stage == "vae"


def needs_strength(settings: TrainSettings) -> bool:
  """Whether a training takes the strength of its samples from the data; see `gid_jax.data.examples.find_strength`."""
  if settings.stage != "ldm" or settings.init.get("ldm"):
    return False
  return make_motion_model(expect_model(ModelSettings, settings)).make_codec().needs_photo


def make_vae_objective(
  settings: TrainSettings, *, band_scale: np.ndarray | None = None, terms: Terms | None = None
) -> Objective:
  """Auto-encoder of frequency slices (section 4.1) on normalised [b h w 4].

  Terms: "l1", "gradient" (consistency of the spatial gradients) and "kl".
  """
  sizes = expect_model(ModelSettings, settings)
  model = make_motion_model(sizes)
  codec = model.make_codec()
  if not codec.is_trained:
    raise UserError(f"config.model.codec.kind={sizes.codec.kind!r} has nothing to train; begin with stage ldm")
  loss, start = settings.loss, settings.init.get("vae", "")
  known: Terms = {
    "l1": lambda seen: l1(seen.output, seen.target),
    "gradient": lambda seen: gradient_consistency(seen.output, seen.target, num_scales=loss.gradient_scales),
    "kl": lambda seen: kl(seen.mean, seen.log_variance),
  } | dict(terms or {})
  init = functools.partial(model.init, method="reconstruct")

  def initialize(key, batches):
    first = next(iter(batches))
    batch = blank(first)
    params = init_params(init, key, key, batch["slice"], batch["band"], batch=first)
    params["band_scale"] = jnp.asarray(band_scale)
    if settings.init.get("photo_vae"):
      params["vae"] = read_vae_init(settings.init["photo_vae"], codec.make_vae(), params["vae"])
    return overlay(params, start, stages=("vae", "ldm", "ldm_coordinated"))[0] if start else params

  def describe(batch):
    key = jax.random.key(0)
    return jax.eval_shape(init, key, key, batch["slice"], batch["band"])["params"]

  def loss_fn(key: PRNGKey, params: Params, batch: Batch) -> tuple[jax.Array, Metrics]:
    results: Any = model.apply({"params": params}, key, batch["slice"], batch["band"], method="reconstruct")
    seen = Reconstruction(*results)
    return weigh({name: term(seen) for name, term in known.items()}, loss.weights)

  return Objective(initialize, describe, lambda path: path.startswith("vae/"), loss_fn, start)


def make_ldm_objective(
  settings: TrainSettings,
  *,
  band_scale: np.ndarray | None = None,
  strength: np.ndarray | None = None,
  terms: Terms | None = None,
) -> Objective:
  """Denoising of latent slices [b k h w z] (section 4): independent bands, or all K coordinated. Term: "denoising".

  Stage "ldm" starts from a trained auto-encoder and its band scale (`config.init.vae`), or with a codec that trains
  none from `band_scale` [k] px and the fitted swing (`config.init.swing`, see `gid_jax.training.swing`), with a new
  denoiser or a U-Net of PyTorch (`config.init.unet`); or it goes on from a trained motion model (`config.init.ldm`).
  It draws a time step for every slice, for a volume one; stage "ldm_coordinated" starts from a trained stage 1
  (`config.init.ldm`), draws one time step for all bands of an example and trains the coordination only, or with
  `config.freeze_bands=False` everything that "ldm" does. Where the start was trained to predict something else, such as
  by a schedule that knew nothing of the spectrum, its last layer begins anew at zero.
  """
  sizes, init = expect_model(ModelSettings, settings), settings.init
  model = make_motion_model(sizes)
  codec, denoiser, denoiser_name = model.make_codec(), model.make_denoiser(), model.denoiser_name
  if settings.schedule is None:
    raise UserError("config.schedule is missing; see configs/ldm.py")
  schedule = make_schedule(**dataclasses.asdict(settings.schedule))
  coordinated = settings.stage == "ldm_coordinated"
  # Bands that see each other are equally noisy, as they will be when sampled.
  one_timestep = coordinated or sizes.volume
  is_complete = coordinated or bool(init.get("ldm"))
  if codec.needs_photo and not (is_complete or init.get("swing")):
    raise UserError(f"config.model.codec.kind={sizes.codec.kind!r} needs a fitted swing; fit one with "
                    "python -m gid_jax.training.swing and name it by --config.init.swing=FILE")  # fmt: skip
  if is_complete:
    start = init.get("ldm", "")
  elif codec.is_trained:
    start = init.get("vae", "")
  else:
    start = init.get("swing", "") if codec.needs_photo else ""
  known: Terms = {"denoising": lambda seen: denoising_error(seen.output, seen.target)} | dict(terms or {})

  def initialize(key, batches):
    batches = iter(batches)
    first = next(batches)
    batch = blank(first)
    timesteps = np.zeros_like(batch["band"])
    params = init_params(model.init, key, batch["slice"], batch["band"], batch["image"], timesteps, batch=first)
    if is_complete:
      params, trained = overlay(params, start, stages=("ldm", "ldm_coordinated"))
      if _list_targets(trained.schedule) == _list_targets(settings.schedule):
        return params
      if coordinated and settings.freeze_bands:
        raise UserError(f"{start}: its denoiser, which this stage freezes, predicts something else; give stage 1 the "
                        "same --config.schedule, or set --config.freeze_bands=False")  # fmt: skip
      # What it sees serves another target too, what it says of it does not.
      trained_denoiser = params[denoiser_name]
      silent = jax.tree.map(jnp.zeros_like, trained_denoiser[denoiser.output_layer])
      return params | {denoiser_name: trained_denoiser | {denoiser.output_layer: silent}}
    if not codec.is_trained and "band_scale" in params:
      params["band_scale"] = jnp.asarray(band_scale)
    if codec.needs_photo and "strength" in params:
      params["strength"] = jnp.asarray(strength)
    if start and codec.is_trained:  # the auto-encoder alone, also of a whole motion model
      rest = {name: params.pop(name) for name in (denoiser_name, "encoder")}
      params = overlay(params, start, stages=("vae", "ldm", "ldm_coordinated"))[0] | rest
    elif start:
      params, _ = overlay(params, start, stages=("swing",))
    if init.get("unet"):
      if not isinstance(denoiser, UNet):
        raise UserError(f"config.init.unet is for a U-Net, not for {sizes.denoiser.kind!r}; set it to ''")
      params[denoiser_name] = read_unet_init(init["unet"], denoiser, params[denoiser_name])
    params["encoder"] |= read_trunks(sizes, init.get("encoder", ""))
    return params | _measure_latents(model, params, itertools.chain([first], batches))

  def describe(batch):
    return jax.eval_shape(
      model.init, jax.random.key(0), batch["slice"], batch["band"], batch["image"], batch["band"]
    )["params"]

  def trainable(path: str) -> bool:
    if coordinated and settings.freeze_bands:
      return denoiser.coordination_path in path
    return path.startswith((f"{denoiser_name}/", "encoder/")) and FROZEN_TRUNK not in path

  def loss_fn(key: PRNGKey, params: Params, batch: Batch) -> tuple[jax.Array, Metrics]:
    apply: Any = functools.partial(model.apply, {"params": params})
    time_key, noise_key, drop_key = jax.random.split(key, 3)
    bands = batch["band"]
    height, width = _find_grid(model, batch)
    view = apply(batch["image"], height=height, width=width, method="encode_image")
    if "latent" in batch:  # encoded beforehand
      latents = batch["latent"]
    else:
      scales = dict(swing=view.swing, strength=batch.get("strength"))
      latents = jax.lax.stop_gradient(apply(batch["slice"], bands, **scales, method="slices_to_latents"))
    keep = jax.random.bernoulli(drop_key, 1 - settings.condition_drop, (latents.shape[0], 1, 1, 1))
    timesteps = draw_timesteps(time_key, (len(bands), 1 if one_timestep else bands.shape[1]), schedule=schedule)
    timesteps = jnp.broadcast_to(timesteps, bands.shape)
    noise = jax.random.normal(noise_key, latents.shape)
    noisy = add_noise(schedule, latents, noise, timesteps)
    output = apply(noisy, timesteps, bands, view.condition * keep, method="denoise")
    seen = Denoised(output, training_target(schedule, latents, noise, timesteps), latents, noisy)
    return weigh({name: term(seen) for name, term in known.items()}, settings.loss.weights)

  return Objective(initialize, describe, trainable, loss_fn, start)


def make_renderer_objective(settings: TrainSettings, *, terms: Terms | None = None) -> Objective:
  """Image-based renderer on pairs (I_0, I_t), [b h w 3] each (section 5).

  It starts from a trained renderer (`config.init.renderer`), or with new parameters; ResNet-34's are those of a file
  with torchvision's names where `config.init.resnet34` gives one.

  Terms: "l1", and "structure": distance of VGG16 features where `config.loss.vgg` names its file, else of gradients.
  """
  model, loss = make_renderer(expect_model(RendererSettings, settings)), settings.loss
  start, resnet = (settings.init.get(name, "") for name in ("renderer", "resnet34"))
  if resnet and model.config.pyramid != "resnet34":
    raise UserError(f"config.init.resnet34 is for the pyramid resnet34, not for {model.config.pyramid!r}; set it to ''")
  known: Terms = {
    "l1": lambda seen: l1(seen.rendering.rgb, seen.target),
    "structure": _make_structure(loss),
  } | dict(terms or {})

  def inputs(batch):
    noise = np.zeros((batch["image"].shape[0], model.config.style_dim), np.float32)
    return batch["image"], batch["flow"], batch["depth"], noise

  def initialize(key, batches):
    first = next(iter(batches))
    params = init_params(model.init, key, *inputs(blank(first)), batch=first)
    if start:
      return overlay(params, start, stages=("renderer",))[0]
    if resnet:
      params["pyramid"]["resnet34"] = resnet34_params(read_tensors(resnet), source=resnet)
    return params

  def describe(batch):
    return jax.eval_shape(model.init, jax.random.key(0), *inputs(batch))["params"]

  def loss_fn(key: PRNGKey, params: Params, batch: Batch) -> tuple[jax.Array, Metrics]:
    noise = jax.random.normal(key, (batch["image"].shape[0], model.config.style_dim))
    rendering: Any = model.apply({"params": params}, batch["image"], batch["flow"], batch["depth"], noise)
    seen = Rendered(rendering, batch["target"])
    total, metrics = weigh({name: term(seen) for name, term in known.items()}, loss.weights)
    return total, metrics | {"psnr": psnr(rendering.rgb, batch["target"])}

  return Objective(initialize, describe, lambda path: True, loss_fn, start)


def _make_structure(loss: LossSettings) -> Callable[[Rendered], Array]:
  if not loss.vgg:
    return lambda seen: gradient_consistency(seen.rendering.rgb, seen.target, num_scales=loss.gradient_scales)
  vgg = vgg16_params(loss.vgg)
  return lambda seen: perceptual(vgg, seen.rendering.rgb, seen.target)


def _find_grid(model: MotionModel, batch: Batch) -> tuple[int, ...]:
  """Height and width of the latents of a batch."""
  if "latent" in batch:
    return batch["latent"].shape[2:4]
  return tuple(side // model.latent_factor for side in batch["slice"].shape[2:4])


def _list_targets(schedule: ScheduleSettings | None) -> tuple:
  """What a schedule has the network predict."""
  if schedule is None:
    return ()
  return schedule.prediction, schedule.reach, schedule.slope if schedule.reach else 0.0


def _measure_latents(model: MotionModel, params: Params, batches: Iterable[Batch]) -> Params:
  """Mean and deviation of the latents per channel, [z] each, over some batches (whitening, supplement).

  Nothing for a codec that does not whiten.
  """
  if "latent_mean" not in params:
    return {}
  # They become constants of the program, which arrays of several processes cannot.
  plain = fetch({name: params[name] for name in params if name != model.denoiser_name}) | {
    "latent_mean": jnp.zeros_like(params["latent_mean"]),
    "latent_std": jnp.ones_like(params["latent_std"]),
  }

  @jax.jit
  def encode(batch):
    apply: Any = functools.partial(model.apply, {"params": jax.tree.map(jnp.asarray, plain)})
    height, width = _find_grid(model, batch)
    swing = apply(batch["image"], height=height, width=width, method="predict_swing")
    scales = dict(swing=swing, strength=batch.get("strength"))
    return apply(batch["slice"], batch["band"], **scales, method="slices_to_latents")

  latents: Any = jnp.concatenate([encode(batch) for batch in batches])
  return {"latent_mean": latents.mean(axis=(0, 1, 2, 3)), "latent_std": latents.std(axis=(0, 1, 2, 3))}
