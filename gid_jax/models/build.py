"""Networks from settings."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from gid_jax.configuration import ModelSettings, PlateSettings, RendererSettings
from gid_jax.errors import UserError
from gid_jax.models.motion_model import MotionModel
from gid_jax.models.plate import Plate, PlateConfig
from gid_jax.models.renderer import Renderer, RendererConfig

Config = TypeVar("Config")


def make_motion_model(settings: ModelSettings) -> MotionModel:
  """The motion model of a config or of a weights file."""
  return MotionModel(
    codec_part=settings.codec,
    encoder_part=settings.encoder,
    denoiser_part=settings.denoiser,
    num_bands=settings.num_bands,
    volume=settings.volume,
  )


def make_renderer(settings: RendererSettings) -> Renderer:
  """The renderer of a config or of a weights file.

  Raises:
    UserError: it has no such setting.
  """
  return Renderer(_make_config(RendererConfig, settings.renderer, "renderer"))


def make_plate_network(settings: PlateSettings) -> Plate:
  """The plate network of a config or of a weights file.

  Raises:
    UserError: it has no such setting.
  """
  return Plate(_make_config(PlateConfig, settings.plate, "plate"))


def _make_config(kind: Callable[..., Config], settings: Mapping[str, Any], name: str) -> Config:
  try:
    return kind(**settings)
  except TypeError as error:
    raise UserError(f"config.model.{name}: {error}") from error
