"""Weights as single safetensors files: the embedded ones, and those that users export."""

import dataclasses
import hashlib
import importlib.resources
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import numpy as np
import safetensors
import safetensors.numpy

from gid_jax.configuration import WeightsSettings
from gid_jax.errors import UserError
from gid_jax.files import complete_or_nothing, first_line, make_parents
from gid_jax.parsing import parse, to_plain

MOTION_WEIGHTS = "motion.safetensors"
RENDERER_WEIGHTS = "renderer.safetensors"
PLATE_WEIGHTS = "plate.safetensors"
# The embedded motion weights' frozen image networks: the large part, which new weights leave as it is.
TRUNK_WEIGHTS = "trunks.safetensors"
_FORMAT = "gid-jax weights"
_VERSION = 1


def load_pretrained(name: str, *, directory: str | Path | None = None) -> tuple[dict[str, Any], WeightsSettings]:
  """Loads (parameters, settings) of embedded weights, or of a file of the same name in another directory.

  Args:
    name: `MOTION_WEIGHTS` ("motion.safetensors"), or with a directory also `RENDERER_WEIGHTS`.
    directory: the folder of exported weights; None takes the embedded ones.

  Raises:
    UserError: the file is missing, damaged or of a newer version.
  """
  if directory is not None:
    return import_weights(Path(directory) / name)
  with importlib.resources.as_file(importlib.resources.files("gid_jax") / "pretrained") as folder:
    return import_weights(folder / name)


def load_renderer(directory: str | Path | None) -> tuple[dict[str, Any], WeightsSettings] | None:
  """Loads (parameters, settings) of the trained renderer in `directory`; None without a directory or without one there.

  Raises:
    UserError: the directory does not exist, or the file is damaged or of a newer version.
  """
  if directory is None:
    return None
  if not Path(directory).is_dir():
    raise UserError(f"{directory}: no such folder of weights; check the path")
  has_renderer = (Path(directory) / RENDERER_WEIGHTS).exists()
  return import_weights(Path(directory) / RENDERER_WEIGHTS) if has_renderer else None


def config_to_settings(config: Mapping[str, Any], *, where: str = "config") -> WeightsSettings:
  """What weights say of themselves, of the settings that a training run saved.

  Paths of the machine that trained say nothing to others and are left out.

  Raises:
    UserError: a setting is not known.
  """
  known = {field.name for field in dataclasses.fields(WeightsSettings)}
  chosen = {name: config[name] for name in config if name in known}
  facts = {name: config[name] for name in config if name not in known | {"init", "data", "loss"}}
  return parse(WeightsSettings, chosen | {"training": facts}, where=where)


def export_weights(
  path: str | Path, params: Mapping[str, Any], *, settings: WeightsSettings, dtype: str = "float16"
) -> None:
  """Writes parameters and settings as one safetensors file with a checksum.

  Args:
    path: the file; it appears complete or not at all.
    params: nested dict of arrays, keys without "/".
    settings: what the file says of them.
    dtype: storage type of the floating arrays, "float16" or "float32".

  Raises:
    UserError: a value does not fit into `dtype`, or the file cannot be written.
  """
  path = Path(path)
  tensors = {}
  for name, value in flax.traverse_util.flatten_dict(dict(params), sep="/").items():
    value = np.asarray(value)
    if np.issubdtype(value.dtype, np.floating):
      with np.errstate(over="ignore"):
        stored = value.astype(dtype)
      if not np.isfinite(stored).all():
        raise UserError(f"{path}: {name} has values that are not finite in {dtype}; export as float32")
      value = stored
    tensors[name] = np.ascontiguousarray(value)
  text = json.dumps(to_plain(settings), sort_keys=True)
  metadata = {"format": _FORMAT, "version": str(_VERSION), "settings": text, "sha256": checksum(tensors, text)}
  make_parents(path)
  with complete_or_nothing(path, overwrite=True) as temporary:
    temporary.write_bytes(safetensors.numpy.save(tensors, metadata))


def import_weights(path: str | Path) -> tuple[dict[str, Any], WeightsSettings]:
  """Reads a file of `export_weights` and verifies it; motion weights with the image networks in the file beside them.

  Returns:
    (params, settings): nested dict of NumPy arrays, floating ones as float32, and what the file says of them.

  Raises:
    UserError: the file is missing, damaged, of another kind or of a newer version, or has a setting that is not known.
  """
  try:
    with safetensors.safe_open(str(path), framework="numpy") as file:
      metadata = file.metadata() or {}
      tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
  except FileNotFoundError as error:
    raise UserError(f"{path}: no such weight file; check the path") from error
  except (OSError, safetensors.SafetensorError, TypeError, ValueError) as error:
    raise UserError(f"{path}: not a readable weight file ({first_line(error)}); fetch it again") from error
  if metadata.get("format") != _FORMAT:
    raise UserError(f"{path}: not a weight file of gid-jax; export one with `gid export`")
  version = metadata.get("version", "")
  if version.isascii() and version.isdecimal() and int(version) > _VERSION:
    raise UserError(f"{path}: of format {version}, this gid-jax reads {_VERSION}; upgrade gid-jax")
  text = metadata.get("settings", "")
  if version != str(_VERSION) or metadata.get("sha256") != checksum(tensors, text):
    raise UserError(f"{path}: damaged, its checksum does not match; fetch it again")
  floating = lambda value: np.issubdtype(value.dtype, np.floating)
  params = {name: value.astype(np.float32) if floating(value) else value for name, value in tensors.items()}
  try:
    facts = json.loads(text)
  except ValueError as error:
    raise UserError(f"{path}: its settings are no JSON ({first_line(error)}); export it again") from error
  settings = parse(WeightsSettings, facts, where=f"{path}: settings")
  params = flax.traverse_util.unflatten_dict(params, sep="/")
  trunks = Path(path).with_name(TRUNK_WEIGHTS)
  if Path(path).name == MOTION_WEIGHTS and trunks.exists():
    params["encoder"] = import_weights(trunks)[0]["encoder"] | params.get("encoder", {})
  return params, settings


def checksum(tensors: Mapping[str, np.ndarray], settings: str) -> str:
  """SHA-256 of named arrays, with their types and shapes, and of the text beside them."""
  digest = hashlib.sha256(settings.encode())
  for name in sorted(tensors):
    value = tensors[name]
    digest.update(f"{name} {value.dtype.name} {value.shape}".encode())
    digest.update(value.tobytes())
  return digest.hexdigest()
