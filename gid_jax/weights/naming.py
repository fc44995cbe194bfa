"""Names and layouts of PyTorch latent diffusion's tensors, as one table that is read in both directions.

A table maps the name of a tensor to the parameters that it holds: one, or query, key and value together. PyTorch's
kernels are [out in h w] and [out in]; ours [h w in out] and [in out].
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import flax.traverse_util
import numpy as np

from gid_jax.errors import UserError
from gid_jax.models.unet import UNet
from gid_jax.models.vae import VAE

Tensors = Mapping[str, np.ndarray]
NAMINGS = ("diffusers", "compvis")
CONTEXT = "context"


class Entry(NamedTuple):
  """What one tensor holds.

  Attributes:
    paths: paths of the parameters, such as "down0_block0/conv1/kernel".
    unit_axes: trailing axes of size 1 that the kernel of a dense layer has in the file.
    num_heads: of several parameters, the rows are ordered [heads, parameters, channels of a head].
  """

  paths: tuple[str, ...]
  unit_axes: int = 0
  num_heads: int = 1


# Kind of module -> ours -> theirs, and `Entry.unit_axes`.
_Parts = dict[str, dict[str, tuple[str, int]]]
_SAME = lambda *names: {name: (name, 0) for name in names}
_ATTENTION = {
  f"{ours}/{part}": (f"transformer_blocks.0.{theirs}.{name}", 0)
  for ours, theirs in (("self_attention", "attn1"), ("cross_attention", "attn2"))
  for part, name in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("out", "to_out.0"))
}
_COMMON: _Parts = {
  "layer": {"": ("", 0)},
  "down": _SAME("conv"),
  "up": _SAME("conv"),
  "transformer": {
    **_SAME("norm"),
    **{name: (name, 2) for name in ("proj_in", "proj_out")},
    **{name: (f"transformer_blocks.0.{name}", 0) for name in ("norm1", "norm2", "norm3")},
    **_ATTENTION,
    "feed_forward_in": ("transformer_blocks.0.ff.net.0.proj", 0),
    "feed_forward_out": ("transformer_blocks.0.ff.net.2", 0),
  },
}
_DIFFUSERS: _Parts = _COMMON | {
  "block": _SAME("norm1", "conv1", "norm2", "conv2")
  | {"embedding": ("time_emb_proj", 0), "shortcut": ("conv_shortcut", 0)},
  "plain": {
    "norm": ("group_norm", 0),
    **{part: (name, 0) for part, name in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("out", "to_out.0"))},
  },
}
_COMPVIS: _Parts = _COMMON | {
  "block": {
    "norm1": ("in_layers.0", 0),
    "conv1": ("in_layers.2", 0),
    "embedding": ("emb_layers.1", 0),
    "norm2": ("out_layers.0", 0),
    "conv2": ("out_layers.3", 0),
    "shortcut": ("skip_connection", 0),
  },
  "plain": _SAME("norm") | {part: ("qkv", 1) for part in ("query", "key", "value")} | {"out": ("proj_out", 1)},
  "down": {"conv": ("op", 0)},
}
_COMPVIS_VAE: _Parts = _COMMON | {
  "block": _SAME("norm1", "conv1", "norm2", "conv2") | {"shortcut": ("nin_shortcut", 0)},
  "plain": _SAME("norm")
  | {part: (name, 2) for part, name in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "proj_out"))},
}
# diffusers' names of plain attention before 0.14.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def count_heads(unet: UNet, width: int) -> int:
  """The heads of an attention over `width` channels."""
  return unet.num_heads or max(1, width // unet.head_channels)


def make_unet_table(unet: UNet, params: Mapping[str, Any], *, naming: str) -> dict[str, Entry]:
  """Tensor names of a U-Net -> what they hold; frequency attention has none.

  Raises:
    UserError: the naming is unknown, or a parameter has no place in a model of these fields.
  """
  _check(naming)
  modules = (_diffusers_unet if naming == "diffusers" else _compvis_unet)(unet)
  parts = _DIFFUSERS if naming == "diffusers" else _COMPVIS
  table = _make_table(modules, parts, params)
  for name, (paths, unit_axes, _) in table.items():
    if len(paths) > 1:
      width = _flatten(params)[paths[0]].shape[-1]
      table[name] = Entry(paths, unit_axes, count_heads(unet, width))
  return table | ({CONTEXT: Entry((CONTEXT,))} if CONTEXT in params else {})


def make_vae_table(vae: VAE, params: Mapping[str, Any], *, naming: str) -> dict[str, Entry]:
  """Tensor names of an auto-encoder -> what they hold; see `make_unet_table`."""
  _check(naming)
  if naming == "diffusers":
    return _make_table(_diffusers_vae(vae), _DIFFUSERS, params)
  return _make_table(_compvis_vae(vae), _COMPVIS_VAE, params)


def _check(naming: str) -> None:
  if naming not in NAMINGS:
    raise UserError(f"Unknown naming {naming!r}; use {' or '.join(map(repr, NAMINGS))}.")


# Each of the following yields (our module, its kind in the dictionaries above, their module).


def _diffusers_unet(unet: UNet) -> Iterator[tuple[str, str, str]]:
  for layer in (1, 2):
    yield f"time_embedding_{layer}", "layer", f"time_embedding.linear_{layer}"
    yield f"frequency_embedding_{layer}", "layer", f"class_embedding.linear_{layer}"
  yield from (
    ("conv_in", "layer", "conv_in"),
    ("norm_out", "layer", "conv_norm_out"),
    ("conv_out", "layer", "conv_out"),
  )
  yield from (("middle_block0", "block", "mid_block.resnets.0"), ("middle_block1", "block", "mid_block.resnets.1"))
  yield "middle_attention", unet.attention, "mid_block.attentions.0"
  levels = len(unet.multipliers)
  for level in range(levels):
    for side, index, num_blocks in (("down", level, unet.num_blocks), ("up", levels - 1 - level, unet.num_blocks + 1)):
      ours, theirs = f"{side}{level}", f"{side}_blocks.{index}"
      for block in range(num_blocks):
        yield f"{ours}_block{block}", "block", f"{theirs}.resnets.{block}"
        if level in unet.attention_levels:
          yield f"{ours}_block{block}_attention", unet.attention, f"{theirs}.attentions.{block}"
      yield f"{ours}_{side}sample", side, f"{theirs}.{side}samplers.0"


def _compvis_unet(unet: UNet) -> Iterator[tuple[str, str, str]]:
  for layer, index in ((1, 0), (2, 2)):
    yield f"time_embedding_{layer}", "layer", f"time_embed.{index}"
    yield f"frequency_embedding_{layer}", "layer", f"label_emb.0.{index}"
  yield from (("conv_in", "layer", "input_blocks.0.0"), ("norm_out", "layer", "out.0"), ("conv_out", "layer", "out.2"))
  yield from (("middle_block0", "block", "middle_block.0"), ("middle_block1", "block", "middle_block.2"))
  yield "middle_attention", unet.attention, "middle_block.1"
  index, levels = 1, len(unet.multipliers)
  for level in range(levels):
    for block in range(unet.num_blocks):
      yield f"down{level}_block{block}", "block", f"input_blocks.{index}.0"
      if level in unet.attention_levels:
        yield f"down{level}_block{block}_attention", unet.attention, f"input_blocks.{index}.1"
      index += 1
    yield f"down{level}_downsample", "down", f"input_blocks.{index}.0"
    index += 1
  index = 0
  for level in reversed(range(levels)):
    attended = level in unet.attention_levels
    for block in range(unet.num_blocks + 1):
      yield f"up{level}_block{block}", "block", f"output_blocks.{index}.0"
      if attended:
        yield f"up{level}_block{block}_attention", unet.attention, f"output_blocks.{index}.1"
      index += 1
    yield f"up{level}_upsample", "up", f"output_blocks.{index - 1}.{1 + attended}"


def _diffusers_vae(vae: VAE) -> Iterator[tuple[str, str, str]]:
  yield from ((name, "layer", name) for name in ("quant_conv", "post_quant_conv"))
  levels = len(vae.multipliers)
  for half, side, num_blocks in (("encoder", "down", vae.num_blocks), ("decoder", "up", vae.num_blocks + 1)):
    for ours, theirs in (("conv_in", "conv_in"), ("norm_out", "conv_norm_out"), ("conv_out", "conv_out")):
      yield f"{half}/{ours}", "layer", f"{half}.{theirs}"
    for index in (0, 1):
      yield f"{half}/middle/block{index + 1}", "block", f"{half}.mid_block.resnets.{index}"
    yield f"{half}/middle/attention", "plain", f"{half}.mid_block.attentions.0"
    for level in range(levels):
      theirs = f"{half}.{side}_blocks.{level if side == 'down' else levels - 1 - level}"
      for block in range(num_blocks):
        yield f"{half}/level{level}_block{block}", "block", f"{theirs}.resnets.{block}"
      yield f"{half}/level{level}_{side}", side, f"{theirs}.{side}samplers.0"


def _compvis_vae(vae: VAE) -> Iterator[tuple[str, str, str]]:
  yield from ((name, "layer", name) for name in ("quant_conv", "post_quant_conv"))
  for half, side, num_blocks in (("encoder", "down", vae.num_blocks), ("decoder", "up", vae.num_blocks + 1)):
    yield from ((f"{half}/{name}", "layer", f"{half}.{name}") for name in ("conv_in", "norm_out", "conv_out"))
    yield from ((f"{half}/middle/block{index}", "block", f"{half}.mid.block_{index}") for index in (1, 2))
    yield f"{half}/middle/attention", "plain", f"{half}.mid.attn_1"
    for level in range(len(vae.multipliers)):
      for block in range(num_blocks):
        yield f"{half}/level{level}_block{block}", "block", f"{half}.{side}.{level}.block.{block}"
      yield f"{half}/level{level}_{side}", side, f"{half}.{side}.{level}.{side}sample"


def _flatten(params: Mapping[str, Any]) -> dict[str, Any]:
  return flax.traverse_util.flatten_dict(dict(params), sep="/")


def _make_table(modules: Iterator[tuple[str, str, str]], parts: _Parts, params: Mapping[str, Any]) -> dict[str, Entry]:
  # Module and PyTorch's leaf -> path; `GroupNorm` wraps Flax's.
  leaves = {}
  for path in _flatten(params):
    module, leaf = path.replace("/GroupNorm_0", "").rsplit("/", 1) if "/" in path else ("", path)
    leaves[module, "bias" if leaf == "bias" else "weight"] = path
  table: dict[str, Entry] = {}
  for module, kind, their_module in modules:
    for part, (their_part, unit_axes) in parts[kind].items():
      for leaf in ("weight", "bias"):
        path = leaves.pop((f"{module}/{part}".rstrip("/"), leaf), None)
        if path is not None:
          name = ".".join(filter(None, (their_module, their_part, leaf)))
          paths = table[name].paths if name in table else ()
          table[name] = Entry((*paths, path), unit_axes)
  strange = [path for path in leaves.values() if "frequency_attention" not in path and path != CONTEXT]
  if strange:
    raise UserError(f"parameter {strange[0]} has no place in a model of these fields; give the fields it was made with")
  return table


def write_table(table: Mapping[str, Entry], params: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The tensors of a table, laid out as PyTorch does, in the dtype of the parameters."""
  flat, tensors = _flatten(params), {}
  for name, (paths, unit_axes, num_heads) in table.items():
    laid = [_to_torch(path, np.asarray(flat[path]), unit_axes) for path in paths]
    if len(laid) > 1:
      laid = [np.stack([value.reshape(num_heads, -1, *value.shape[1:]) for value in laid], axis=1)]
      laid = [laid[0].reshape(-1, *laid[0].shape[3:])]
    tensors[name] = laid[0]
  return tensors


def read_table(table: Mapping[str, Entry], tensors: Tensors, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """The parameters {path: float32 array} of `params`, those of the table taken from tensors.

  A 1x1 convolution and a dense layer are the same, whichever of them a file holds.

  Raises:
    UserError: a tensor is missing, not expected or of another shape.
  """
  flat = {path: np.asarray(value, np.float32) for path, value in _flatten(params).items()}
  found = {_modernize(name): value for name, value in tensors.items()}
  wanted = {name: _torch_shape(entry, flat) for name, entry in table.items()}
  for name, shape in wanted.items():
    if name not in found:
      raise UserError(f"tensor {name} of shape {shape} is missing; take the model's sizes from the file")
    actual, dense = found[name].shape, flat[table[name].paths[0]].ndim == 2
    if actual != shape and not (dense and actual[:2] == shape[:2] and set(actual[2:]) <= {1}):
      raise UserError(f"tensor {name} has shape {actual}, expected {shape}; take the model's sizes from the file")
  unexpected = next((name for name in found if name not in wanted), None)
  if unexpected is not None:
    shape = found[unexpected].shape
    raise UserError(f"tensor {unexpected} of shape {shape} is not expected; take the model's sizes from the file")
  for name, entry in table.items():
    value = np.asarray(found[name], np.float32).reshape(wanted[name])
    if len(entry.paths) > 1:
      grouped = value.reshape(entry.num_heads, len(entry.paths), -1, *value.shape[1:])
      pieces = [grouped[:, index].reshape(-1, *value.shape[1:]) for index in range(len(entry.paths))]
    else:
      pieces = [value]
    for path, piece in zip(entry.paths, pieces, strict=True):
      flat[path] = _from_torch(path, piece, flat[path].ndim)
  return flat


def _to_torch(path: str, value: np.ndarray, unit_axes: int) -> np.ndarray:
  if not path.endswith("/kernel"):
    return value
  if value.ndim == 4:
    return value.transpose(3, 2, 0, 1)
  return value.T.reshape(*value.shape[::-1], *(1,) * unit_axes)


def _from_torch(path: str, value: np.ndarray, num_axes: int) -> np.ndarray:
  if not path.endswith("/kernel"):
    return value
  return value.transpose(2, 3, 1, 0) if num_axes == 4 else value.reshape(value.shape[:2]).T


def _torch_shape(entry: Entry, flat: Mapping[str, np.ndarray]) -> tuple[int, ...]:
  value = np.broadcast_to(np.float32(0), flat[entry.paths[0]].shape)
  shape = _to_torch(entry.paths[0], value, entry.unit_axes).shape
  return (len(entry.paths) * shape[0], *shape[1:])


def _modernize(name: str) -> str:
  """Replaces diffusers' old names of plain attention."""
  parts = name.split(".")
  if "attentions" in parts and len(parts) > 1:
    parts[-2:-1] = _OLD_ATTENTION.get(parts[-2], parts[-2]).split(".")
  return ".".join(parts)
