"""Finds data of another kind than the model before training starts: one line that says which and what to change."""

from collections.abc import Mapping
from typing import Any

from gid_jax.data.records import LIVE, Chain, list_datasets, list_folders, open_records, read_description
from gid_jax.errors import UserError
from gid_jax.models.vae import make_codec

_LATENT_STAGES = ("ldm", "ldm_coordinated")


def check_windows(sources: Mapping[str, Chain], config: Any) -> None:
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


def check_config(config: Any) -> None:
  """Compares the `model` part of a whole config with its `data` part and with the data folder's description.

  Bands, frames, rate and motion grid must be the model's; so must the photos' size, as the model's is where it will be
  used, unless a crop is asked for; and the sides must be divisible as often as the networks halve them.

  Raises:
    UserError: something does not fit.
  """
  model, data, live = config.model, config.data, config.data.sources.get(LIVE, 0) > 0
  if data.get("latent_draws", 0) < 0 or (data.get("latent_draws", 0) and config.stage not in _LATENT_STAGES):
    raise UserError(
      f"config.data.latent_draws={data.latent_draws}; only stages {' and '.join(_LATENT_STAGES)} can keep latents, "
      "choose how many draws of each window, or 0 for none"
    )
  for name in ("num_bands", "motion_stride"):
    if name in model and model[name] != data[name]:
      raise UserError(f"config.model.{name}={model[name]} but config.data.{name}={data[name]}; give both the same")
  for name in ("num_frames", "fps"):
    if name in model and live and data.live[name] != model[name]:
      raise UserError(
        f"config.data.live.{name}={data.live[name]} but config.model.{name}={model[name]}; give both the same"
      )
    for folder in list_folders(data.directory) if name in model and data.directory else ():
      stored = read_description(folder).get(name, model[name])
      if stored != model[name]:
        raise UserError(
          f"{folder}: built with {name}={stored}, but config.model.{name}={model[name]}; set config.model.{name} to "
          f"{stored} or build again with --{name} {model[name]}"
        )
  for place, size in _list_sizes(data, live):
    _check_size(place, size, config)


def _list_sizes(data: Any, live: bool) -> list[tuple[str, tuple[int, int]]]:
  """(h, w) of what the networks will see, by where it comes from."""
  if data.crop:
    return [("config.data.crop", tuple(data.crop))]
  sizes = []
  for dataset in list_datasets(open_records(data.directory, "train")) if data.directory else ():
    record = dataset[0]
    sizes.append((record.place, record.decode(fields=("image",)).image.shape[:2]))
  return [*sizes, ("config.data.live", (data.live["height"], data.live["width"]))] if live else sizes


def _check_size(place: str, size: tuple[int, int], config: Any) -> None:
  model = config.model
  if not config.data.crop and size != tuple(model.image_size):
    raise UserError(
      f"{place} is {size[0]}x{size[1]} but config.model.image_size={tuple(model.image_size)}, the size that the model "
      f"will work at; give --config.model.image_size='{size[0], size[1]}' or build again in the other size"
    )
  if "vae" not in model:
    return
  multiple = model.motion_stride * make_codec(model.vae).factor
  if config.stage != "vae":
    multiple *= 2 ** (len(model.unet.multipliers) - 1)
  if size[0] % multiple or size[1] % multiple:
    raise UserError(
      f"{place} is {size[0]}x{size[1]}, but the networks halve the sides until both must be multiples of {multiple}; "
      "choose such a config.data.crop"
    )
