"""Finds data of another kind than the model before training starts: one line that says which and what to change."""

from collections.abc import Mapping

from gid_jax.configuration import DataSettings, ModelSettings, TrainSettings
from gid_jax.data.records import LIVE, Chain, list_datasets, list_folders, open_records, read_description
from gid_jax.errors import UserError
from gid_jax.models.build import make_motion_model

_LATENT_STAGES = ("ldm", "ldm_coordinated")


def check_windows(sources: Mapping[str, Chain], config: DataSettings) -> None:
  """Compares each data set's first window with the `data` part of a config: number of bands and motion grid.

  Raises:
    UserError: one does not fit.
  """
  for dataset in list_datasets(sources):
    record = dataset[0]
    if record.num_bands < config.num_bands:
      raise UserError(
        f"{record.place} has {record.num_bands} bands but config.data.num_bands={config.num_bands}; set "
        f"config.data.num_bands and config.model.num_bands to {record.num_bands}, "
        f"or build again with --num_bands {config.num_bands}"
      )
    window = record.decode(fields=("image", "spectrum"), bands=[0])
    size, grid = window.image.shape[:2], window.spectrum.shape[1:3]
    if size != (grid[0] * config.motion_stride, grid[1] * config.motion_stride):
      raise UserError(
        f"{record.place}: photo {size[0]}x{size[1]}, motion {grid[0]}x{grid[1]}, which does not fit "
        f"config.data.motion_stride={config.motion_stride}; use the size of config that the data was built for"
      )


def check_config(config: TrainSettings) -> None:
  """Compares the `model` part of a whole config with its `data` part and with the data folder's description.

  Bands, frames, rate and motion grid must be the model's; so must the photos' size, as the model's is where it will be
  used, unless a crop is asked for; and the sides must be multiples of what the networks need.

  Raises:
    UserError: something does not fit.
  """
  model, data, live = config.model, config.data, config.data.sources.get(LIVE, 0) > 0
  if data.latent_draws < 0 or (data.latent_draws and config.stage not in _LATENT_STAGES):
    raise UserError(
      f"config.data.latent_draws={data.latent_draws}; only stages {' and '.join(_LATENT_STAGES)} can keep latents, "
      "choose how many draws of each window, or 0 for none"
    )
  if isinstance(model, ModelSettings):
    _check_motion(model, data, live)
  for place, size in _list_sizes(data, live):
    _check_size(place, size, config)


def _check_motion(model: ModelSettings, data: DataSettings, live: bool) -> None:
  for name in ("num_bands", "motion_stride"):
    there, here = getattr(model, name), getattr(data, name)
    if there != here:
      raise UserError(f"config.model.{name}={there} but config.data.{name}={here}; give both the same")
  for name in ("num_frames", "fps"):
    wanted = getattr(model, name)
    if live and getattr(data.live, name) != wanted:
      raise UserError(
        f"config.data.live.{name}={getattr(data.live, name)} but config.model.{name}={wanted}; give both the same"
      )
    for folder in list_folders(data.directory) if data.directory else ():
      stored = read_description(folder).get(name, wanted)
      if stored != wanted:
        raise UserError(
          f"{folder}: built with {name}={stored}, but config.model.{name}={wanted}; set config.model.{name} to "
          f"{stored} or build again with --{name} {wanted}"
        )
  if make_motion_model(model).make_codec().needs_photo and not data.strength:
    raise UserError(f"config.model.codec.kind={model.codec.kind!r} needs the strength of windows; set "
                    "config.data.strength to True")  # fmt: skip


def _list_sizes(data: DataSettings, live: bool) -> list[tuple[str, tuple[int, int]]]:
  """(h, w) of what the networks will see, by where it comes from."""
  if data.crop:
    return [("config.data.crop", data.crop)]
  sizes = []
  for dataset in list_datasets(open_records(data.directory, "train")) if data.directory else ():
    record = dataset[0]
    sizes.append((record.place, record.decode(fields=("image",)).image.shape[:2]))
  return [*sizes, ("config.data.live", (data.live.height, data.live.width))] if live else sizes


def _check_size(place: str, size: tuple[int, int], config: TrainSettings) -> None:
  model = config.model
  if not config.data.crop and size != tuple(model.image_size):
    raise UserError(
      f"{place} is {size[0]}x{size[1]} but config.model.image_size={tuple(model.image_size)}, the size that the model "
      f"will work at; give --config.model.image_size='{size[0], size[1]}' or build again in the other size"
    )
  if not isinstance(model, ModelSettings):
    return
  network = make_motion_model(model)
  multiple = model.motion_stride * (network.latent_factor if config.stage == "vae" else network.cell)
  if size[0] % multiple or size[1] % multiple:
    raise UserError(
      f"{place} is {size[0]}x{size[1]}, but the networks need sides that are multiples of {multiple}; "
      "choose such a config.data.crop"
    )
