"""What each stage learns: how its parameters begin, which of them train, and its loss.

An `Objective` joins the three. Losses are pure functions (key, params, batch) -> (loss, metrics) on one global batch.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from gid_jax.diffusion.schedule import add_noise, draw_timesteps, make_schedule, training_target
from gid_jax.errors import UserError
from gid_jax.models.build import make_motion_model
from gid_jax.models.encoders import FROZEN_TRUNK, efficientnet_lite0_params
from gid_jax.models.motion_model import MotionModel, make_unet
from gid_jax.models.renderer import Renderer, RendererConfig
from gid_jax.models.vae import VAE, AreaCodec, make_codec
from gid_jax.models.vgg16 import vgg16_params
from gid_jax.training.losses import gradient_consistency as gradient_loss
from gid_jax.training.losses import perceptual as perceptual_loss
from gid_jax.types import Batch, LossFn, Metrics, Params, PRNGKey
from gid_jax.weights.checkpoint import restore_params
from gid_jax.weights.convert import read_unet_init, read_vae_init
from gid_jax.weights.pretrained import MOTION_WEIGHTS, import_weights, load_pretrained


class Objective(NamedTuple):
  """One training stage.

  Attributes:
    initialize: (key, a few training batches of [b ...] arrays) -> parameters, earlier stages included.
    trainable: whether the parameter at a path such as "unet/conv_in/kernel" is trained.
    loss_fn: (key, params, batch) -> (loss, metrics).
    start: the work folder or exported weights file whose parameters `initialize` takes over; "" for none.
  """

  initialize: Callable[[PRNGKey, Sequence[Batch]], Params]
  trainable: Callable[[str], bool]
  loss_fn: LossFn
  start: str


def make_objective(
  config: Any, *, band_scale: np.ndarray | None = None, strength: np.ndarray | None = None
) -> Objective:
  """The objective of `config.stage`.

  Some need `band_scale` [k] px, see `needs_band_scale`, or `strength` [1], see `needs_strength`.

  Raises:
    UserError: unknown stage, or a file or work folder named in the config cannot be read.
  """
  if config.stage == "vae":
    return make_vae_objective(config, band_scale=band_scale)
  if config.stage in ("ldm", "ldm_coordinated"):
    return make_ldm_objective(config, band_scale=band_scale, strength=strength)
  if config.stage == "renderer":
    return make_renderer_objective(config)
  raise UserError(f"config.stage {config.stage!r} is unknown; use vae, ldm, ldm_coordinated or renderer")


def needs_band_scale(config: Any) -> bool:
  """Whether a training takes its band scale from the data: the first of those that make a motion model."""
  if config.stage == "ldm":
    return not config.init.ldm and isinstance(make_codec(config.model.vae), AreaCodec)
  return config.stage == "vae"


def needs_strength(config: Any) -> bool:
  """Whether a training takes the strength of its samples from the data; see `gid_jax.data.examples.find_strength`."""
  return config.stage == "ldm" and config.model.unit_strength and not config.init.ldm


def make_vae_objective(config: Any, *, band_scale: np.ndarray) -> Objective:
  """Auto-encoder of frequency slices: L1 + w_g gradient consistency + w_kl KL on normalised [b h w 4] (section 4.1)."""
  model = make_motion_model(config.model)
  if model.averages:
    raise UserError("config.model.vae.kind='area' has nothing to train; begin with stage ldm")
  weights, start = config.loss, config.init.vae

  def initialize(key, batches):
    batch = _blank(batches[0])
    init = jax.jit(functools.partial(model.init, method="reconstruct"))
    params = init(key, key, batch["slice"], batch["band"])["params"] | {"band_scale": jnp.asarray(band_scale)}
    if config.init.photo_vae:
      params["vae"] = read_vae_init(config.init.photo_vae, VAE(**model.vae_fields), params["vae"])
    return _overlay(params, start, stages=("vae", "ldm", "ldm_coordinated"))[0] if start else params

  def loss_fn(key: PRNGKey, params: Params, batch: Batch) -> tuple[jax.Array, Metrics]:
    results: Any = model.apply({"params": params}, key, batch["slice"], batch["band"], method="reconstruct")
    normalized, output, mean, log_variance = results
    l1 = jnp.abs(output - normalized).mean()
    gradient = gradient_loss(output, normalized, num_scales=weights.gradient_scales)
    kl = 0.5 * (mean**2 + jnp.exp(log_variance) - 1.0 - log_variance).sum(axis=(1, 2, 3)).mean()
    loss = l1 + weights.gradient * gradient + weights.kl * kl
    return loss, {"loss": loss, "l1": l1, "gradient": gradient, "kl": kl}

  return Objective(initialize, lambda path: path.startswith("vae/"), loss_fn, start)


def make_ldm_objective(
  config: Any, *, band_scale: np.ndarray | None = None, strength: np.ndarray | None = None
) -> Objective:
  """Denoising of latent slices [b k h w z] (section 4): independent bands, or all K with frequency attention.

  Stage "ldm" starts from a trained auto-encoder and its band scale (`config.init.vae`), or with one that averages from
  `band_scale` [k] px and the fitted swing (`config.init.swing`, see `gid_jax.training.swing`), with a new U-Net or one
  of PyTorch (`config.init.unet`); or it goes on from a trained motion model (`config.init.ldm`). It draws a time step
  for every slice, for a volume one; stage "ldm_coordinated" starts from a trained stage 1 (`config.init.ldm`), draws
  one time step for all bands of an example and trains the frequency attention only, or with `config.freeze_bands=False`
  everything that "ldm" does. Where the start was trained to predict something else, such as by a schedule that knew
  nothing of the spectrum, its last layer begins anew at zero.
  """
  model = make_motion_model(config.model)
  schedule = make_schedule(**config.schedule)
  coordinated = config.stage == "ldm_coordinated"
  # Bands that see each other are equally noisy, as they will be when sampled.
  one_timestep = coordinated or config.model.volume
  is_complete = coordinated or bool(config.init.ldm)
  if model.swing and not (is_complete or config.init.swing):
    raise UserError("config.model.swing=True needs a fitted swing; fit one with python -m gid_jax.training.swing and "
                    "name it by --config.init.swing=FILE")  # fmt: skip
  if is_complete:
    start = config.init.ldm
  elif model.averages:
    start = config.init.swing if model.swing else ""
  else:
    start = config.init.vae

  def initialize(key, batches):
    batch = _blank(batches[0])
    timesteps = np.zeros_like(batch["band"])
    params = jax.jit(model.init)(key, batch["slice"], batch["band"], batch["image"], timesteps)["params"]
    if is_complete:
      params, settings = _overlay(params, start, stages=("ldm", "ldm_coordinated"))
      if _list_targets(settings["schedule"]) == _list_targets(config.schedule):
        return params
      if coordinated and config.freeze_bands:
        raise UserError(f"{start}: its U-Net, which this stage freezes, predicts something else; give stage 1 the same "
                        "--config.schedule, or set --config.freeze_bands=False")  # fmt: skip
      # What it sees serves another target too, what it says of it does not.
      silent = jax.tree.map(jnp.zeros_like, params["unet"]["conv_out"])
      return params | {"unet": params["unet"] | {"conv_out": silent}}
    if model.averages:
      params["band_scale"] = jnp.asarray(band_scale)
    if model.unit_strength:
      params["strength"] = jnp.asarray(strength)
    if start:
      stages = ("swing",) if model.averages else ("vae", "ldm", "ldm_coordinated")
      params, _ = _overlay(params, start, stages=stages)
    if config.init.unet:
      params["unet"] = read_unet_init(config.init.unet, make_unet(model), params["unet"])
    if config.model.encoder.kind == "efficientnet_lite0":
      params["encoder"][FROZEN_TRUNK] = jax.tree.map(jnp.asarray, _read_trunk(config.init.encoder))
    return params | _measure_latents(model, params, batches)

  def trainable(path: str) -> bool:
    if coordinated and config.freeze_bands:
      return "frequency_attention" in path
    return path.startswith(("unet/", "encoder/")) and FROZEN_TRUNK not in path

  def loss_fn(key: PRNGKey, params: Params, batch: Batch) -> tuple[jax.Array, Metrics]:
    apply = lambda *args, **kwargs: model.apply({"params": params}, *args, **kwargs)
    time_key, noise_key, drop_key = jax.random.split(key, 3)
    bands = batch["band"]
    height, width = _find_grid(model, batch)
    view = apply(batch["image"], height=height, width=width, method="encode_image")
    if "latent" in batch:  # encoded beforehand
      latents = batch["latent"]
    else:
      scales = dict(swing=view.swing, strength=batch.get("strength"))
      latents = jax.lax.stop_gradient(apply(batch["slice"], bands, **scales, method="slices_to_latents"))
    keep = jax.random.bernoulli(drop_key, 1 - config.condition_drop, (latents.shape[0], 1, 1, 1))
    timesteps = draw_timesteps(time_key, (len(bands), 1 if one_timestep else bands.shape[1]), schedule=schedule)
    timesteps = jnp.broadcast_to(timesteps, bands.shape)
    noise = jax.random.normal(noise_key, latents.shape)
    noisy = add_noise(schedule, latents, noise, timesteps)
    output = apply(noisy, timesteps, bands, view.condition * keep, method="denoise")
    loss = ((output - training_target(schedule, latents, noise, timesteps)) ** 2).mean()
    return loss, {"loss": loss}

  return Objective(initialize, trainable, loss_fn, start)


def make_renderer_objective(config: Any) -> Objective:
  """Image-based renderer on pairs (I_0, I_t), [b h w 3] each (section 5): L1, and VGG16 features or image gradients."""
  model = Renderer(RendererConfig(**config.model.renderer))
  weights, start = config.loss, config.init.renderer
  vgg = vgg16_params(weights.vgg) if weights.vgg else None

  def initialize(key, batches):
    batch = _blank(batches[0])
    noise = np.zeros((batch["image"].shape[0], model.config.style_dim), np.float32)
    params = jax.jit(model.init)(key, batch["image"], batch["flow"], batch["depth"], noise)["params"]
    return _overlay(params, start, stages=("renderer",))[0] if start else params

  def loss_fn(key: PRNGKey, params: Params, batch: Batch) -> tuple[jax.Array, Metrics]:
    noise = jax.random.normal(key, (batch["image"].shape[0], model.config.style_dim))
    output = model.apply({"params": params}, batch["image"], batch["flow"], batch["depth"], noise).rgb
    l1 = jnp.abs(output - batch["target"]).mean()
    mse = ((jnp.clip(output, 0, 1) - batch["target"]) ** 2).mean(axis=(1, 2, 3))
    psnr = (-10 * jnp.log10(mse + 1e-8)).mean()
    if vgg is None:
      structure = gradient_loss(output, batch["target"], num_scales=weights.gradient_scales)
    else:
      structure = perceptual_loss(vgg, output, batch["target"])
    loss = weights.l1 * l1 + weights.structure * structure
    return loss, {"loss": loss, "l1": l1, "structure": structure, "psnr": psnr}

  return Objective(initialize, lambda path: True, loss_fn, start)


def _find_grid(model: MotionModel, batch: Batch) -> tuple[int, ...]:
  """Height and width of the latents of a batch."""
  if "latent" in batch:
    return batch["latent"].shape[2:4]
  return tuple(side // model.latent_factor for side in batch["slice"].shape[2:4])


def _blank(batch: Batch) -> dict[str, np.ndarray]:
  """Zeros of a batch's shapes: all that parameters need to know, and the same program on any mesh."""
  return {name: np.zeros(array.shape, array.dtype) for name, array in batch.items()}


def _list_targets(schedule: Any) -> tuple:
  """What a schedule has the network predict."""
  return schedule["prediction"], schedule["reach"], schedule["slope"] if schedule["reach"] else 0.0


def _overlay(params: Params, source: str, *, stages: Sequence[str]) -> tuple[Params, Mapping[str, Any]]:
  """Puts trained parameters over freshly made ones: those of a work folder or of an exported weights file.

  A part that this stage's model lacks (frequency attention in stage 1) is left out. Returns them with the settings that
  they were trained with.

  Raises:
    UserError: `source` holds another stage than one of `stages`, or a model of other sizes.
  """
  trained, settings = (import_weights if source.endswith(".safetensors") else restore_params)(source)
  if settings["stage"] not in stages:
    raise UserError(f"{source}: holds stage {settings['stage']!r}; name a trained {stages[0]!r}")
  flat = traverse_util.flatten_dict(params)
  trained = {path: leaf for path, leaf in traverse_util.flatten_dict(trained).items() if path in flat}
  if any(np.shape(leaf) != np.shape(flat[path]) for path, leaf in trained.items()):
    raise UserError(f"{source}: its model differs from this config's; train both stages with the same model sizes")
  trained = {path: jnp.asarray(leaf) for path, leaf in trained.items()}
  return traverse_util.unflatten_dict(flat | trained), settings


def _read_trunk(path: str) -> Params:
  """ImageNet features from a PyTorch file, or the ones inside the embedded weights when no path is given."""
  if path:
    return efficientnet_lite0_params(path)
  return load_pretrained(MOTION_WEIGHTS)[0]["encoder"][FROZEN_TRUNK]


def _measure_latents(model: MotionModel, params: Params, batches: Sequence[Batch]) -> Params:
  """Mean and deviation of the latents per channel, [z] each, over some batches (whitening, supplement)."""
  plain = params | {
    "latent_mean": jnp.zeros_like(params["latent_mean"]),
    "latent_std": jnp.ones_like(params["latent_std"]),
  }

  @jax.jit
  def encode(batch):
    apply, swing = functools.partial(model.apply, {"params": plain}), None
    if model.swing:
      height, width = _find_grid(model, batch)
      swing = apply(batch["image"], height=height, width=width, method="predict_swing")
    scales = dict(swing=swing, strength=batch.get("strength"))
    return apply(batch["slice"], batch["band"], **scales, method="slices_to_latents")

  latents: Any = jnp.concatenate([encode(batch) for batch in batches])
  return {"latent_mean": latents.mean(axis=(0, 1, 2, 3)), "latent_std": latents.std(axis=(0, 1, 2, 3))}
