"""Every configuration loads, makes a model, and says which sizes and stages there are."""

import importlib
import math
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import common
from gid_jax.configuration import ModelSettings
from gid_jax.diffusion.schedule import make_schedule, sampling_steps
from gid_jax.models.build import make_motion_model
from gid_jax.models.unet import UNet
from gid_jax.parsing import parse

STAGES = ("vae", "ldm", "ldm_coordinated", "renderer", "plate")
ROWS = sorted(path.stem for path in Path(common.__file__).parent.glob("ablations/[a-z]*.py"))


def load(name, spec):
  return importlib.import_module(f"configs.{name}").get_config(spec)


def count_parameters(config):
  """Parameters by part, found without making any."""
  model, (height, width) = make_motion_model(parse(ModelSettings, config.model)), config.model.image_size
  stride, bands = config.model.motion_stride, np.arange(config.model.num_bands)[None]
  slices = np.zeros((*bands.shape, height // stride, width // stride, 4), np.float32)
  image = np.zeros((1, height, width, 3), np.float32)
  shapes = jax.eval_shape(model.init, jax.random.key(0), slices, bands, image, np.zeros_like(bands))["params"]
  return {part: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)) for part, tree in shapes.items()}, shapes


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("size", common.SIZES)
def test_every_stage_has_every_size(stage, size):
  if stage == "vae" and common.fits_photo(size):
    with pytest.raises(ValueError, match=f"begin with configs/ldm.py:{size}"):
      load(stage, size)
    return
  config = load(stage, size)
  assert (config.stage, config.size) == (stage, size)
  assert config.optimizer.warmup_steps < config.optimizer.num_steps
  height, width = config.model.image_size
  assert (config.data.live.height, config.data.live.width) == (height, width)
  if stage not in ("renderer", "plate"):
    grid = config.model.motion_stride * make_motion_model(parse(ModelSettings, config.model)).latent_factor
    assert height % grid == 0 and width % grid == 0
    first = [name for name in ("vae", "swing") if config.init.get(name)]
    assert first == {"vae": [], "ldm": ["swing" if common.fits_photo(size) else "vae"], "ldm_coordinated": []}[stage]


def test_an_unknown_size_is_an_error():
  with pytest.raises(ValueError, match="unknown size 'huge'; use one of tiny, default, large, paper"):
    load("vae", "huge")


def test_one_override_changes_model_and_data():
  config = load("ldm", "default")
  config.lock()
  config.model.num_bands, config.model.num_frames = 8, 120
  assert config.data.num_bands == 8 and config.data.live.num_frames == 120


def test_our_larger_model_is_twenty_times_the_size():
  sizes = [count_parameters(load("ldm", size))[0]["unet"] for size in ("default", "large", "paper")]
  assert 15 < sizes[1] / sizes[0] < 30 and sizes[1] < sizes[2] / 3


@pytest.mark.parametrize("size", ["default", "paper"])
def test_the_unet_that_is_timed_is_the_one_that_is_trained(size):
  benchmark = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "unet.py"))
  fields, inputs = benchmark["make_problem"](size, 2)
  timed = jax.eval_shape(UNet(**fields).init, jax.random.key(0), *inputs)["params"]
  config = load("ldm", size)
  assert jax.tree.map(np.shape, timed) == jax.tree.map(np.shape, count_parameters(config)[1]["unet"])
  cell = config.model.motion_stride * make_motion_model(parse(ModelSettings, config.model)).latent_factor
  assert inputs[0].shape[2:4] == tuple(side // cell for side in config.model.image_size)


def test_the_papers_numbers():
  config = load("ldm_coordinated", "paper")
  parts, shapes = count_parameters(config)
  # Base 128, multipliers 1-4-8: about 240 million parameters besides frequency attention (supplement).
  independent, _ = count_parameters(load("ldm", "paper"))
  assert 2.2e8 < independent["unet"] < 2.8e8 and parts["unet"] > independent["unet"]
  assert shapes["unet"]["conv_in"]["kernel"].shape == (3, 3, 20, 128)
  assert shapes["unet"]["conv_out"]["kernel"].shape[-1] == 4
  attention = {name for name in shapes["unet"] if name.endswith("_attention") and "frequency" not in name}
  assert {name[:5] for name in attention} == {"down1", "down2", "up1_b", "up2_b", "middl"}
  schedule = make_schedule(**config.schedule)
  betas = np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2
  np.testing.assert_allclose(schedule.signal, np.cumprod(1 - betas), rtol=1e-5)
  timesteps = sampling_steps(schedule, config.sampling.steps, spacing=config.sampling.spacing).timesteps
  np.testing.assert_array_equal(timesteps, np.arange(0, 1000, 4)[::-1] + 1)
  assert config.sampling.guidance == 1.75 and config.schedule.prediction == "epsilon"


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_table_2(row):
  module = importlib.import_module(f"configs.ablations.{row}")
  with pytest.raises(ValueError, match=f"{row} has no stage 'flow'; use one of"):
    module.get_config("flow")
  with pytest.raises(ValueError, match="changes the paper's model, which size 'default' is not"):
    module.get_config(f"{next(stage for stage in STAGES if _has_stage(module, stage))}:default")
  stages = [stage for stage in STAGES if _has_stage(module, stage)]
  assert stages
  for stage in stages:
    config, full = module.get_config(f"{stage}:tiny"), load(stage, "tiny")
    if row in ("full", "independent"):
      assert config.model == full.model
    else:
      assert config.model != full.model
    if stage != "renderer":
      num_bands = int(row.removeprefix("bands_")) if row.startswith("bands_") else 16
      assert config.data.num_bands == config.model.num_bands == num_bands
  if stages[-1] != "renderer":
    count_parameters(config)


def _has_stage(module, stage):
  try:
    return module.get_config(f"{stage}:tiny").stage == stage
  except ValueError:
    return False


def test_there_is_a_file_for_every_row():
  assert set(ROWS) == {
    "bands_4", "bands_8", "bands_24", "full", "scale_with_resolution", "independent", "volume", "average_splat",
    "baseline_splat", "linear_splat",
  }  # fmt: skip


def test_a_row_names_its_own_folders_and_shares_the_others():
  init = lambda row, stage: importlib.import_module(f"configs.ablations.{row}").get_config(stage).init
  assert init("bands_4", "ldm_coordinated").ldm == "runs/bands_4/ldm"
  assert init("volume", "ldm").vae == init("full", "ldm").vae == "runs/vae"
  volume = importlib.import_module("configs.ablations.volume").get_config("ldm:paper")
  assert volume.data.bands_per_example == 16
  _, shapes = count_parameters(volume)
  assert shapes["unet"]["conv_in"]["kernel"].shape[2] == 16 * 4 + 16
  assert shapes["unet"]["conv_out"]["kernel"].shape[3] == 64
