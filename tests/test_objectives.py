"""What each stage's loss is made of: oracles from the same keys, and which parameters train."""

import dataclasses
import functools

import helpers
import jax
import jax.numpy as jnp
import judges_reference
import numpy as np
import pytest
import safetensors.numpy
import training_runs
from flax import traverse_util

from configs import ldm, ldm_coordinated, renderer, vae
from gid_jax.configuration import TrainSettings
from gid_jax.diffusion.schedule import draw_timesteps, make_schedule
from gid_jax.errors import UserError
from gid_jax.models import vgg16
from gid_jax.models.build import make_motion_model
from gid_jax.models.renderer import Renderer, RendererConfig
from gid_jax.parsing import parse
from gid_jax.training import losses, objectives
from gid_jax.training.objectives import make_objective

pytestmark = pytest.mark.usefixtures("quick_compilation")

NUM_BANDS = training_runs.NUM_BANDS
HEIGHT, WIDTH = 16, 24  # of the photo; the motion grid has half the sides, the latents a quarter
VGG_CHANNELS = (4, 4, 6, 8, 8)
STAGES = {"ldm": ldm, "ldm_coordinated": ldm_coordinated}


def make_config(module, **changes):
  """The smallest model of a stage; `changes` are paths in the config, with __ for dots."""
  config = renderer.get_config("tiny") if module is renderer else training_runs.make_config(module, "")
  with config.unlocked():
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in changes.items()})
  return parse(TrainSettings, config)


def make_batch(num_examples, *, seed=0):
  """Latents encoded beforehand among the rest; all bands of every example, in order."""
  rng = np.random.default_rng(seed)
  normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
  return {
    "image": rng.uniform(size=(num_examples, HEIGHT, WIDTH, 3)).astype(np.float32),
    "slice": 10 * normal(num_examples, NUM_BANDS, HEIGHT // 2, WIDTH // 2, 4),
    "band": np.tile(np.arange(NUM_BANDS, dtype=np.int32), (num_examples, 1)),
    "latent": 0.5 + normal(num_examples, NUM_BANDS, HEIGHT // 4, WIDTH // 4, 4),
  }


def flatten(params):
  return traverse_util.flatten_dict(params, sep="/")


def make_params(config, batch):
  model = make_motion_model(config.model)
  return helpers.random_params(model.init, batch["slice"], batch["band"], batch["image"], batch["band"])


# How parameters begin


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
  """Exported weights of what the stages build on, by their names in `config.init`."""
  folder = tmp_path_factory.mktemp("starts")
  trained, fitted = str(folder / "ldm.safetensors"), str(folder / "swing.safetensors")
  training_runs.export_start(trained, make_tiny("ldm"), stage="ldm")
  training_runs.export_start(fitted, make_tiny("photo"), stage="swing")
  return {"vae": trained, "ldm": trained, "swing": fitted}


def make_tiny(stage):
  """The smallest model of a stage; "photo" is stage "ldm" of one without an auto-encoder."""
  if stage == "renderer":
    return renderer.get_config("tiny")
  config = training_runs.make_config({"vae": vae, "photo": ldm, **STAGES}[stage], "")
  if stage == "photo":
    config.model.codec = dict(kind="photo", factor=4)
    config.model.encoder.trunks = ("efficientnet_lite0",)
  return config


@pytest.mark.parametrize(
  "stage, start",
  [
    ("vae", ""),
    ("ldm", "vae"),
    ("ldm", "ldm"),
    ("photo", "swing"),
    ("ldm_coordinated", "ldm"),
    ("renderer", ""),
  ],
)
def test_parameters_are_described_as_they_are_made(stage, start, starts):
  config = make_tiny(stage)
  if start:
    config.init[start] = starts[start]
  settings, batch = parse(TrainSettings, config), make_batch(2)
  del batch["latent"]
  if stage == "photo":
    batch["strength"] = np.ones(2, np.float32)
  if stage == "vae":
    batch |= {"slice": batch["slice"][:, 0], "band": batch["band"][:, 0]}
  if stage == "renderer":
    batch |= {"flow": np.zeros((2, HEIGHT, WIDTH, 2), np.float32), "depth": np.ones((2, HEIGHT, WIDTH), np.float32)}
  scale, strength = np.ones(NUM_BANDS, np.float32), np.ones(1, np.float32)
  objective = make_objective(settings, band_scale=scale, strength=strength)
  # Traced, not computed: no more than shapes is asked for.
  made = jax.eval_shape(lambda key: objective.initialize(key, [batch]), jax.random.key(0))
  described = objective.describe(batch)
  paths = lambda params: {path: (leaf.shape, leaf.dtype) for path, leaf in flatten(params).items()}
  assert paths(described) == paths(made)


def test_the_papers_renderer_starts_with_the_users_resnet(tmp_path, monkeypatch):
  path = tmp_path / "resnet34.safetensors"
  tensors = judges_reference.make_tensors("resnet")
  safetensors.numpy.save_file(tensors, path)
  changes = {"model__renderer__channels": (4, 4), "init__resnet34": str(path)}
  with pytest.raises(UserError, match=r"init\.resnet34 is for the pyramid resnet34, not for 'residual'"):
    make_objective(make_config(renderer, **changes))
  objective = make_objective(make_config(renderer, **changes, model__renderer__pyramid="resnet34"))
  assert objective.trainable("pyramid/resnet34/conv1/kernel")
  batch = make_batch(1) | {
    "flow": np.zeros((1, HEIGHT, WIDTH, 2), np.float32), "depth": np.ones((1, HEIGHT, WIDTH), np.float32)
  }  # fmt: skip
  # No initialiser is compiled: what it would draw is not what is asked for.
  fill = lambda init, *inputs, batch: helpers.random_params(init, *inputs[1:])
  monkeypatch.setattr(objectives, "init_params", fill)
  params = objective.initialize(jax.random.key(0), [batch])
  scale = tensors["bn1.weight"] / np.sqrt(tensors["bn1.running_var"] + 1e-5)
  expected = tensors["conv1.weight"].transpose(2, 3, 1, 0) * scale
  np.testing.assert_allclose(params["pyramid"]["resnet34"]["conv1"]["kernel"], expected, rtol=1e-5)
  path.unlink()
  with pytest.raises(UserError, match=r"resnet34.safetensors: no such file"):
    objective.initialize(jax.random.key(0), [batch])


# Denoising


def denoise_by_hand(key, params, batch, *, config):
  """The error of the network's output, every key in the order of use, and which examples kept their condition."""
  model, schedule = make_motion_model(config.model), make_schedule(**dataclasses.asdict(config.schedule))
  apply = functools.partial(model.apply, {"params": params})
  time_key, noise_key, drop_key = jax.random.split(key, 3)
  latents = apply(batch["slice"], batch["band"], method="slices_to_latents")
  timesteps = draw_timesteps(time_key, latents.shape[:2], schedule=schedule)
  signal = schedule.signal[timesteps][..., None, None, None]
  alpha, sigma = jnp.sqrt(signal), jnp.sqrt(1 - signal)
  noise = jax.random.normal(noise_key, latents.shape)
  view = apply(batch["image"], height=latents.shape[2], width=latents.shape[3], method="encode_image")
  keep = jax.random.uniform(drop_key, (len(latents), 1, 1, 1)) < 1 - config.condition_drop
  condition = jnp.where(keep, view.condition, 0.0)
  output = apply(alpha * latents + sigma * noise, timesteps, batch["band"], condition, method="denoise")
  return ((output - (alpha * noise - sigma * latents)) ** 2).mean(), keep


def test_the_denoising_loss_is_the_error_of_the_network_with_and_without_a_condition():
  config = make_config(ldm, condition_drop=0.5)
  batch = make_batch(4)
  del batch["latent"]
  batch["band"] = np.random.default_rng(0).permuted(batch["band"], axis=1)
  params, key = make_params(config, batch), jax.random.key(5)
  loss, metrics = jax.jit(make_objective(config).loss_fn)(key, params, batch)
  expected, keep = jax.jit(functools.partial(denoise_by_hand, config=config))(key, params, batch)
  assert keep.any() and not keep.all()
  np.testing.assert_allclose([loss, metrics["loss"]], expected, rtol=1e-5)


def test_conditions_are_dropped_example_by_example_as_often_as_wanted():
  drop, num_keys = 0.3, 200
  loss_fn = make_objective(make_config(ldm, condition_drop=drop)).loss_fn
  batch = make_batch(2)
  params = make_params(make_config(ldm), batch)
  keys = jax.random.split(jax.random.key(0), num_keys)
  many = jax.jit(lambda image: jax.vmap(lambda key: loss_fn(key, params, batch | {"image": image})[0])(keys))
  plain = many(batch["image"])
  dropped = []
  for example in range(2):
    # A photo whose condition is zero may be any photo.
    image = batch["image"].copy()
    image[example] = 1 - image[example]
    dropped.append(np.asarray(many(image) == plain))
  deviation = np.sqrt(drop * (1 - drop) / (2 * num_keys))
  assert abs(np.mean(dropped) - drop) < 3.5 * deviation
  # One of the two alone: with chances of their own.
  alone = 2 * drop * (1 - drop)
  assert abs(np.mean(dropped[0] != dropped[1]) - alone) < 3.5 * np.sqrt(alone * (1 - alone) / num_keys)


@pytest.mark.parametrize(
  "stage, volume, prediction",
  [
    ("ldm", False, "epsilon"),
    ("ldm", False, "v"),
    ("ldm", False, "x0"),
    ("ldm", True, "v"),
    ("ldm_coordinated", False, "v"),
  ],
)
def test_the_target_follows_the_prediction_and_the_time_steps_the_stage(stage, volume, prediction):
  config = make_config(STAGES[stage], model__volume=volume, schedule__prediction=prediction)
  batch = make_batch(3)
  params = make_params(config, batch)
  # A network that says nothing: the loss is the size of the target.
  params["unet"]["conv_out"] = jax.tree.map(np.zeros_like, params["unet"]["conv_out"])
  key = jax.random.key(2)
  loss, _ = jax.jit(make_objective(config).loss_fn)(key, params, batch)

  time_key, noise_key, _ = jax.random.split(key, 3)
  shared = volume or stage == "ldm_coordinated"
  schedule = make_schedule(**dataclasses.asdict(config.schedule))
  shape = (3, 1 if shared else NUM_BANDS)
  timesteps = np.broadcast_to(draw_timesteps(time_key, shape, schedule=schedule), (3, NUM_BANDS))
  signal = np.asarray(schedule.signal, np.float64)[timesteps]
  noise, latents = np.asarray(jax.random.normal(noise_key, batch["latent"].shape)), batch["latent"]
  expected = 0.0
  for example in range(3):
    for band in range(NUM_BANDS):
      n, z, a = noise[example, band], latents[example, band], signal[example, band]
      target = {"epsilon": n, "v": np.sqrt(a) * n - np.sqrt(1 - a) * z, "x0": z}[prediction]
      expected += (target**2).mean() / (3 * NUM_BANDS)
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


# Auto-encoder and renderer


def test_the_auto_encoder_loss_is_l1_plus_gradients_plus_kl():
  config = make_config(vae, loss__weights__gradient=0.3, loss__weights__kl=0.002, loss__gradient_scales=2)
  rng = np.random.default_rng(0)
  batch = {
    "slice": 10 * rng.normal(size=(2, HEIGHT // 2, WIDTH // 2, 4)).astype(np.float32),
    "band": np.int32([1, 3]),
  }
  model, key = make_motion_model(config.model), jax.random.key(3)
  params = helpers.random_params(model.init, key, batch["slice"], batch["band"], method="reconstruct")
  objective = make_objective(config, band_scale=np.ones(NUM_BANDS, np.float32))
  loss, metrics = jax.jit(objective.loss_fn)(key, params, batch)

  reconstruct = jax.jit(functools.partial(model.apply, method="reconstruct"))
  normalized, output, mean, log_variance = reconstruct({"params": params}, key, batch["slice"], batch["band"])
  expected = {
    "l1": losses.l1(output, normalized),
    "gradient": losses.gradient_consistency(output, normalized, num_scales=2),
    "kl": losses.kl(mean, log_variance),
  }
  assert metrics.keys() == {"loss", *expected}
  for name, value in expected.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-4)
  # Each of the three is large enough here to be missed.
  parts = [float(metrics["l1"]), 0.3 * float(metrics["gradient"]), 0.002 * float(metrics["kl"])]
  assert min(parts) > 0.01 * max(parts)
  np.testing.assert_allclose([loss, metrics["loss"]], sum(parts), rtol=1e-6)


def write_vgg(path):
  """Random weights of all layers of a VGG16 of VGG_CHANNELS."""
  rng, previous = np.random.default_rng(0), 3
  arrays = {}
  for block, (size, channels) in enumerate(zip((2, 2, 3, 3, 3), VGG_CHANNELS, strict=True), start=1):
    for conv in range(1, size + 1):
      kernel = rng.normal(size=(3, 3, previous, channels)) * (2 / (9 * previous)) ** 0.5
      arrays |= {f"block{block}_conv{conv}_kernel": np.float16(kernel)}
      arrays |= {f"block{block}_conv{conv}_bias": np.zeros(channels, np.float16)}
      previous = channels
  np.savez(path, **arrays)


@pytest.mark.parametrize("structure", ["gradients", "features"])
def test_the_renderer_loss_is_l1_plus_structure(structure, tmp_path, monkeypatch):
  path = tmp_path / "vgg.npz"
  if structure == "features":
    monkeypatch.setattr(vgg16, "_BLOCK_CHANNELS", VGG_CHANNELS)
    write_vgg(path)
  config = make_config(
    renderer,
    model__renderer__channels=(4, 4),
    loss__weights__l1=0.7,
    loss__weights__structure=0.4,
    loss__vgg=str(path) if structure == "features" else "",
  )
  rng = np.random.default_rng(0)
  flow = rng.normal(size=(2, HEIGHT, WIDTH, 2)).astype(np.float32)
  image, target = rng.uniform(size=(2, 2, HEIGHT, WIDTH, 3)).astype(np.float32)
  batch = {"image": image, "flow": flow, "depth": np.hypot(*np.moveaxis(flow, -1, 0)), "target": target}
  model, key = Renderer(RendererConfig(**config.model.renderer)), jax.random.key(4)
  noise = jax.random.normal(key, (2, model.config.style_dim))
  inputs = (batch["image"], batch["flow"], batch["depth"], noise)
  params = helpers.random_params(model.init, *inputs)
  loss, metrics = jax.jit(make_objective(config).loss_fn)(key, params, batch)

  output = jax.jit(model.apply)({"params": params}, *inputs).rgb
  if structure == "features":
    compare = jax.jit(functools.partial(losses.perceptual, vgg16.vgg16_params(path)))
  else:
    compare = functools.partial(losses.gradient_consistency, num_scales=2)
  expected = {
    "l1": losses.l1(output, target),
    "structure": compare(output, target),
    "psnr": losses.psnr(output, target),
  }
  assert metrics.keys() == {"loss", *expected}
  for name, value in expected.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-4)
  wanted = 0.7 * float(metrics["l1"]) + 0.4 * float(metrics["structure"])
  np.testing.assert_allclose([loss, metrics["loss"]], wanted, rtol=1e-6)


# What trains


def list_paths(config):
  """Paths of all parameters of a motion model, without making them."""
  model = make_motion_model(config.model)
  size = config.model.image_size
  image = np.zeros((1, *size, 3), np.float32)
  slices = np.zeros((1, NUM_BANDS, *(side // config.model.motion_stride for side in size), 4), np.float32)
  bands = np.zeros((1, NUM_BANDS), np.int32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), slices, bands, image, bands)["params"]
  return set(traverse_util.flatten_dict(shapes, sep="/"))


def shorten(paths, *, depth=1):
  return {"/".join(path.split("/")[:depth]) for path in paths}


CONSTANTS = {"band_scale", "latent_mean", "latent_std"}


def split_paths(config):
  """(trained, left alone) by the stage of a config."""
  paths, trainable = list_paths(config), make_objective(config).trainable
  trained = {path for path in paths if trainable(path)}
  return trained, paths - trained


def test_the_auto_encoder_stage_trains_the_auto_encoder():
  trained, kept = split_paths(make_config(vae))
  assert shorten(trained) == {"vae"} and shorten(kept) == {"encoder", "unet"} | CONSTANTS


def test_stage_one_trains_denoiser_and_encoder():
  trained, kept = split_paths(make_config(ldm))
  assert shorten(trained) == {"encoder", "unet"} and shorten(kept) == {"vae"} | CONSTANTS


def test_stage_one_leaves_imagenet_features_and_what_was_fitted_alone():
  config = ldm.get_config("default")
  config.model.num_bands = NUM_BANDS
  config.model.image_size = (64, 64)
  unet = config.model.denoiser
  unet.multipliers, unet.attention_levels, unet.num_blocks = (1,), (), 0
  trained, kept = split_paths(parse(TrainSettings, config))
  assert shorten(trained) == {"encoder", "unet"}
  assert shorten(kept) == {"encoder", "swing_head", "strength"} | CONSTANTS
  inside = {path for path in kept if path.startswith("encoder/")}
  frozen = {f"encoder/frozen_trunk_{name}" for name in ("efficientnet_lite0", "dinov2_vits14")}
  assert shorten(inside, depth=2) == frozen
  assert not frozen & shorten(trained, depth=2) and len(inside) > 50


@pytest.mark.parametrize("freeze", [True, False])
def test_stage_two_trains_the_frequency_attention_alone_or_everything(freeze):
  trained, kept = split_paths(make_config(ldm_coordinated, freeze_bands=freeze))
  attention = {path for path in trained | kept if "frequency_attention" in path}
  assert len(attention) >= 4 and shorten(attention) == {"unet"}
  if freeze:
    assert trained == attention
  else:
    assert trained > attention and shorten(trained) == {"encoder", "unet"} and shorten(kept) == {"vae"} | CONSTANTS


def test_the_whole_renderer_trains():
  trainable = make_objective(make_config(renderer)).trainable
  model = Renderer(RendererConfig(channels=(4, 4)))
  inputs = [np.zeros(shape, np.float32) for shape in ((1, 8, 8, 3), (1, 8, 8, 2), (1, 8, 8), (1, 64))]
  shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
  assert all(map(trainable, traverse_util.flatten_dict(shapes, sep="/")))
