"""Settings: what configs and weights files say becomes frozen dataclasses, and mistakes become one line."""

import dataclasses
import importlib
import json
from pathlib import Path

import pytest
from flax.core import FrozenDict

from configs import common, evaluation
from gid_jax.configuration import (
  DataSettings,
  EvaluationSettings,
  LossSettings,
  ModelSettings,
  PlateSettings,
  RendererSettings,
  SamplingSettings,
  TrainSettings,
  WeightsSettings,
)
from gid_jax.data.checks import check_config
from gid_jax.errors import UserError
from gid_jax.models.encoders import ConditionEncoder
from gid_jax.models.unet import UNet
from gid_jax.parsing import Part, look_up, make_part, parse, to_plain
from gid_jax.weights.pretrained import config_to_settings

STAGES = ("vae", "ldm", "ldm_coordinated", "renderer", "plate")
ROWS = sorted(path.stem for path in Path(common.__file__).parent.glob("ablations/[a-z]*.py"))
PARTS = {"codec": {"kind": "paper"}, "encoder": {"kind": "condition"}, "denoiser": {"kind": "unet"}}


def list_configs():
  for stage in STAGES:
    for size in common.SIZES:
      # Sizes that normalise by the photo have no auto-encoder to train.
      if stage != "vae" or not common.fits_photo(size):
        yield stage, size
  for row in ROWS:
    for stage in STAGES:
      try:
        importlib.import_module(f"configs.ablations.{row}").get_config(f"{stage}:tiny")
      except ValueError:
        continue
      yield f"ablations.{row}", f"{stage}:tiny"


@pytest.mark.parametrize("name, spec", list_configs())
def test_every_config_becomes_settings_and_comes_back_through_json(name, spec):
  config = importlib.import_module(f"configs.{name}").get_config(spec)
  settings = parse(TrainSettings, config)
  kinds = {"renderer": RendererSettings, "plate": PlateSettings}
  assert isinstance(settings.model, kinds.get(settings.stage, ModelSettings))
  assert hash(settings) == hash(parse(TrainSettings, config))
  again = parse(TrainSettings, json.loads(json.dumps(to_plain(settings))))
  assert again == settings
  # Nothing that the config says is lost on the way.
  plain = to_plain(settings)
  for section, values in json.loads(config.to_json()).items():
    if isinstance(values, dict):
      assert {key: plain[section][key] for key in values} == values
    else:
      assert plain[section] == values


@pytest.mark.parametrize("name, spec", list_configs())
def test_every_config_fits_its_own_size(name, spec):
  config = importlib.import_module(f"configs.{name}").get_config(spec)
  config.data.directory, config.data.sources = "", {"live": 1.0}
  check_config(parse(TrainSettings, config))


def test_the_evaluation_becomes_settings():
  config = evaluation.get_config()
  assert to_plain(parse(EvaluationSettings, config)) == json.loads(config.to_json())


def test_what_is_left_out_has_its_default():
  settings = parse(WeightsSettings, {"stage": "ldm", "model": PARTS, "sampling": {"steps": 6}, "schedule": {}})
  assert settings.sampling == dataclasses.replace(SamplingSettings(), steps=6) and settings.label == ""
  assert settings.model.num_bands == 16 and settings.trained_on is None and settings.schedule.reach == 0
  assert parse(DataSettings, {}) == DataSettings()


@pytest.mark.parametrize(
  "kind, values, message",
  [
    (DataSettings, {"num_band": 4}, "config.num_band is unknown here; did you mean num_bands?"),
    (DataSettings, {"xyz": 4}, "config.xyz is unknown here; known are directory, num_bands"),
    (DataSettings, {"a\nb": 4}, "config.'a\\nb' is unknown here; known are directory, num_bands"),
    (DataSettings, {"live": {"hight": 4}}, "config.live.hight is unknown here; did you mean height?"),
    (DataSettings, {"num_bands": 4.5}, "config.num_bands=4.5: give a whole number"),
    (DataSettings, {"num_bands": True}, "config.num_bands=True: give a whole number"),
    (DataSettings, {"num_bands": None}, "config.num_bands=None: give a whole number"),
    (DataSettings, {"strength": 1}, "config.strength=1: give true or false"),
    (DataSettings, {"directory": 3}, "config.directory=3: give text"),
    (DataSettings, {"crop": 3}, "config.crop=3: give values in brackets"),
    (DataSettings, {"crop": (3,)}, "config.crop=(3,): give 2 values in brackets"),
    (DataSettings, {"crop": (3, "a")}, "config.crop='a': give a whole number"),
    (DataSettings, 3, "config=3: give settings by their names"),
    (DataSettings, {"live": 3}, "config.live=3: give settings by their names"),
    (DataSettings, {"live": None}, "config.live=None: give settings by their names"),
    (DataSettings, {"sources": 3}, "config.sources=3: give values by their names"),
    (TrainSettings, {"stage": "ldm", "model": "big"}, "config.model='big': give settings by their names"),
    (TrainSettings, {"stage": "ldm", "model": {**PARTS, "renderer": {}}}, "config.model.renderer is unknown here"),
    (SamplingSettings, {"last": "x"}, "config.last='x': give a number"),
    (ModelSettings, {}, "config.codec is missing"),
    (ModelSettings, {**PARTS, "codec": {"factor": 4}}, "config.codec has no `kind`; name one"),
    (ModelSettings, {**PARTS, "codec": "paper"}, "config.codec has no `kind`; name one"),
    (TrainSettings, {"stage": "ldm"}, "config.model is missing"),
    (TrainSettings, {"stage": "dream", "model": PARTS}, "config.stage 'dream' is unknown; use one of vae, ldm"),
    (TrainSettings, {"stage": "ldm", "model": {**PARTS, "swing": True}}, "config.model.swing is unknown here"),
    (TrainSettings, {"stage": "ldm", "model": PARTS, "loss": {"kl": 1.0}}, "config.loss.kl is unknown here"),
  ],
)
def test_mistakes_are_told_in_one_line(kind, values, message):
  with pytest.raises(UserError) as caught:
    parse(kind, values)
  assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_weights_refuse_a_setting_that_is_not_known_and_leave_out_what_is_nobodys():
  config = {"stage": "ldm", "model": PARTS, "seed": 3, "init": {"vae": "/home/me"}, "data": {}, "loss": {}}
  settings = config_to_settings(config)
  assert to_plain(settings.training) == {"seed": 3} and "/home/me" not in json.dumps(to_plain(settings))
  with pytest.raises(UserError, match=r"mine: config\.model\.dreams is unknown here"):
    config_to_settings(config | {"model": {**PARTS, "dreams": 1}}, where="mine: config")


def test_a_part_is_a_name_and_its_fields():
  settings = parse(ModelSettings, {**PARTS, "denoiser": {"kind": "unet", "multipliers": [1, 2]}})
  assert settings.denoiser == Part("unet", FrozenDict(multipliers=(1, 2)))
  assert make_part(settings.denoiser, {"unet": UNet}, what="denoiser", out_channels=3) == UNet(
    multipliers=(1, 2), out_channels=3
  )
  with pytest.raises(UserError, match="the denoiser 'unet' has no setting 'chanels'; did you mean channels"):
    make_part(Part("unet", FrozenDict(chanels=3)), {"unet": UNet}, what="denoiser")
  # What the program decides by itself is no setting.
  with pytest.raises(UserError, match="the denoiser 'unet' has no setting 'out_channels'"):
    make_part(Part("unet", FrozenDict(out_channels=3)), {"unet": UNet}, what="denoiser", out_channels=3)
  with pytest.raises(UserError, match="the image encoder 'condition' needs the setting 'channels'"):
    make_part(Part("condition"), {"condition": ConditionEncoder}, what="image encoder", parent=None)
  with pytest.raises(UserError, match="the codec 'math:sqrt' is not a Linen module"):
    make_part(Part("math:sqrt"), {}, what="codec", num_bands=3)


def test_anybodys_own_is_looked_up_by_module_and_attribute(tmp_path, monkeypatch):
  (tmp_path / "my_part.py").write_text("class Mine:\n  pass\n")
  (tmp_path / "my_broken_part.py").write_text("1 / 0")
  monkeypatch.syspath_prepend(tmp_path)
  assert look_up("my_part:Mine", {}, what="codec").__name__ == "Mine"
  assert look_up("a", {"a": 1}, what="codec") == 1
  for name, message in (
    ("b", "unknown codec 'b'; use one of a, or module:attribute of your own"),
    ("my_part:Yours", "codec 'my_part:Yours' cannot be imported"),
    ("no_such_module:Mine", "codec 'no_such_module:Mine' cannot be imported"),
    ("my_broken_part:Mine", r"'my_broken_part:Mine' cannot be imported \(ZeroDivisionError: division by zero\);"),
    (":Mine", "unknown codec ':Mine'"),
    ("my_part:", "unknown codec 'my_part:'"),
  ):
    with pytest.raises(UserError, match=message):
      look_up(name, {"a": 1}, what="codec")


def test_losses_keep_the_order_of_their_weights():
  assert list(parse(LossSettings, {"weights": {"b": 1.0, "a": 2.0}}).weights) == ["b", "a"]
