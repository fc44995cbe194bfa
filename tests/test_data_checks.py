"""Data of another kind than the model: one line that says which and what to change."""

import json

import pytest
from stored_windows import NUM_BANDS, SIZE, make_config, write_sources

from gid_jax.configuration import TrainSettings
from gid_jax.data.checks import check_config
from gid_jax.errors import UserError
from gid_jax.parsing import parse


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  directory = tmp_path_factory.mktemp("data")
  write_sources(directory, {"real": 1})
  return directory


def make_whole_config(data, *, stage="ldm", model=(), **changes):
  live = dict(height=SIZE[0], width=SIZE[1], num_frames=20, fps=10.0)
  sizes = {
    "image_size": SIZE,
    "motion_stride": 2,
    "num_bands": NUM_BANDS,
    "num_frames": 20,
    "fps": 10.0,
    "codec": {"kind": "paper", "multipliers": (1, 2)},
    "encoder": {"kind": "condition", "channels": 2, "hidden": 4},
    "denoiser": {"kind": "unet", "multipliers": (1, 2)},
    **dict(model),
  }
  if stage == "renderer":
    sizes = {"image_size": SIZE, "renderer": {}}
  data = make_config(data, live=live, **changes)
  return parse(TrainSettings, {"stage": stage, "data": data, "model": sizes})


def test_data_that_fits_passes(data):
  check_config(make_whole_config(data))
  check_config(make_whole_config(data, latent_draws=2))
  check_config(make_whole_config(data, crop=(16, 24)))
  check_config(make_whole_config("", sources={"live": 1.0}))
  check_config(make_whole_config(data, stage="renderer", crop=(6, 10)))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"model": {"num_bands": 8}}, r"config\.model\.num_bands=8 but config\.data\.num_bands=4; give both the same"),
    ({"model": {"motion_stride": 1}}, r"config\.model\.motion_stride=1 but config\.data\.motion_stride=2"),
    ({"model": {"num_frames": 150}},
     r"DATA: built with num_frames=20, but config\.model\.num_frames=150; set .* to 20 or .* --num_frames 150"),
    ({"model": {"fps": 30.0}}, r"DATA: built with fps=10\.0, but config\.model\.fps=30\.0"),
    ({"model": {"fps": 30.0}, "data": "", "sources": {"live": 1.0}},
     r"config\.data\.live\.fps=10\.0 but config\.model\.fps=30\.0"),
    ({"model": {"image_size": (64, 96)}},
     r"DATA/.*: record 0 is 32x48 but config\.model\.image_size=\(64, 96\).*config\.model\.image_size='\(32, 48\)'"),
    ({"model": {"image_size": (64, 96)}, "data": "", "sources": {"live": 1.0}}, r"config\.data\.live is 32x48"),
    ({"model": {"codec": {"kind": "paper", "multipliers": (1,) * 6}}},
     "record 0 is 32x48, .* multiples of 64; .*config.data.crop"),
    ({"crop": (16, 22)}, r"config\.data\.crop is 16x22, .* multiples of 4"),
    ({"stage": "vae", "crop": (16, 22)}, r"config\.data\.crop is 16x22, .* multiples of 4"),
    ({"stage": "vae", "latent_draws": 1}, "latent_draws=1; only stages ldm and ldm_coordinated"),
    ({"latent_draws": -1}, "latent_draws=-1; .* 0 for none"),
  ],
)
def test_data_of_another_kind_is_told(data, changes, message):
  config = make_whole_config(**({"data": data} | changes))
  with pytest.raises(UserError, match=message.replace("DATA", str(data))) as caught:
    check_config(config)
  assert "\n" not in str(caught.value)


def test_a_folder_without_description_is_not_asked_for_one(data, tmp_path):
  write_sources(tmp_path, {"real": 1})
  for text in ("{", json.dumps({"scale": [1.0]})):
    (tmp_path / "statistics.json").write_text(text)
    check_config(make_whole_config(tmp_path, model={"fps": 25.0}))
  with pytest.raises(UserError, match=f"{data}: built with fps"):
    check_config(make_whole_config(f"{tmp_path},{data}", model={"fps": 25.0}))
