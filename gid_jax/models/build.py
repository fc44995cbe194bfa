"""Networks from settings, of a config file or of a weights file."""

from collections.abc import Mapping
from typing import Any

from flax.core import FrozenDict

from gid_jax.models.motion_model import MotionModel


def hashable(fields: Mapping[str, Any]) -> Mapping[str, Any]:
  """Frozen, with tuples for the lists that JSON makes of them, so that a module of these fields can be hashed."""
  return FrozenDict({name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})


def make_motion_model(config: Mapping[str, Any]) -> MotionModel:
  """The motion model of a config's `model` part (from a config file or from a weights file)."""
  return MotionModel(
    vae_fields=hashable(config["vae"]),
    encoder_fields=hashable(config["encoder"]),
    unet_fields=hashable(config["unet"]),
    num_bands=config["num_bands"],
    normalization=config["normalization"],
    volume=config["volume"],
    swing=config["swing"],
    unit_strength=config["unit_strength"],
  )
