"""PyTorch weights of latent diffusion, to ours and back: diffusers' names and those of CompVis.

Two networks have a counterpart with the same numbers: the U-Net of one slice (diffusers `UNet2DModel`, or with
`attention="transformer"` `UNet2DConditionModel`) and the auto-encoder (`AutoencoderKL`). One table of names, made from
the model's fields, serves both directions, so a round trip is exact. Files are safetensors; no pickle is read.

From a photo-inpainting checkpoint to the start of a training run (`config.init.unet`):

  params = read_unet_init("sd-inpainting.safetensors", unet, params)

From exported weights to a folder that diffusers loads with `UNet2DModel.from_pretrained`:

  params, settings = gid_jax.weights.pretrained.import_weights("motion.safetensors")
  unet = gid_jax.models.build.make_motion_model(settings.model).make_denoiser()
  write_tensors("unet/diffusion_pytorch_model.safetensors", unet_to_tensors(unet, params["unet"], naming="diffusers"))
  pathlib.Path("unet/config.json").write_text(json.dumps(unet_to_diffusers_config(unet, params["unet"])))

and back, into parameters of the same sizes: `tensors_to_unet(unet, read_tensors(path), params["unet"])`.

What has no counterpart: frequency attention is left out on the way out and untouched on the way in. The band's
embedding is diffusers' `class_embedding` (class_embed_type="timestep", the band as class label) and `label_emb.0` in
CompVis' names; a file without one gives an embedding whose second layer is zero, so that all bands start alike. The
constant context of a transformer U-Net is the tensor `context` [tokens channels] in both namings; those libraries have
no such parameter, there it is the prompt: `encoder_hidden_states`. A file without one leaves it as it is.

CompVis keeps no number of heads in its weights, but orders them by it: `head_channels` or `num_heads` must be right.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import numpy as np
import safetensors
import safetensors.numpy

from gid_jax.errors import UserError
from gid_jax.files import complete_or_nothing, make_parents
from gid_jax.models.unet import UNet
from gid_jax.models.vae import VAE
from gid_jax.weights.naming import (
  CONTEXT,
  Tensors,
  count_heads,
  make_unet_table,
  make_vae_table,
  read_table,
  write_table,
)

_PICKLES = (".ckpt", ".bin", ".pt", ".pth", ".pkl")
_UNET_PREFIX, _VAE_PREFIX = "model.diffusion_model.", "first_stage_model."
_VAE_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
# A tensor by which each naming is known.
_UNET_SIGNS = dict(diffusers="conv_in.weight", compvis="input_blocks.0.0.weight")
_VAE_SIGNS = dict(diffusers="encoder.mid_block.resnets.0.conv1.weight", compvis="encoder.mid.block_1.conv1.weight")


def unet_to_tensors(unet: UNet, params: Mapping[str, Any], *, naming: str) -> dict[str, np.ndarray]:
  """Names and lays out a U-Net's parameters as PyTorch does; frequency attention is left out.

  Args:
    unet: its fields are used, not its parameters.
    params: its parameters, nested.
    naming: "diffusers" or "compvis".

  Returns:
    {"conv_in.weight": [o i 3 3], ...}, in the dtype of the parameters.

  Raises:
    UserError: the naming is unknown, or the parameters are those of another model.
  """
  return write_table(make_unet_table(unet, params, naming=naming), params)


def tensors_to_unet(unet: UNet, tensors: Tensors, params: Mapping[str, Any]) -> dict[str, Any]:
  """Inverse of `unet_to_tensors` for either naming, which is recognised.

  Args:
    unet: its fields are used, not its parameters.
    tensors: by name; of a whole checkpoint, the part under `model.diffusion_model.` is used.
    params: parameters of the same sizes; they give the shapes, and what has no counterpart is taken from them.

  Returns:
    Nested parameters as float32 NumPy arrays.

  Raises:
    UserError: a tensor is missing, not expected or of another shape, or the naming is unknown.
  """
  tensors = _strip_prefix(tensors, _UNET_PREFIX)
  table = make_unet_table(unet, params, naming=_recognize(tensors, _UNET_SIGNS, "U-Net"))
  if CONTEXT not in tensors:
    table.pop(CONTEXT, None)
  band = [name for name, entry in table.items() if entry.paths[0].startswith("frequency_embedding")]
  has_band = any(name in tensors for name in band)
  if not has_band:
    table = {name: entry for name, entry in table.items() if name not in band}
  flat = read_table(table, tensors, params)
  if not has_band:
    flat |= {path: np.zeros_like(value) for path, value in flat.items() if path.startswith("frequency_embedding_2/")}
  return flax.traverse_util.unflatten_dict(flat, sep="/")


def vae_to_tensors(vae: VAE, params: Mapping[str, Any], *, naming: str) -> dict[str, np.ndarray]:
  """Names and lays out an auto-encoder's parameters as PyTorch does; see `unet_to_tensors`."""
  return write_table(make_vae_table(vae, params, naming=naming), params)


def tensors_to_vae(vae: VAE, tensors: Tensors, params: Mapping[str, Any]) -> dict[str, Any]:
  """Inverse of `vae_to_tensors`; see `tensors_to_unet`. Of a whole checkpoint, `first_stage_model.` is used."""
  tensors = {name: value for name, value in _strip_prefix(tensors, _VAE_PREFIX).items() if name.startswith(_VAE_PARTS)}
  table = make_vae_table(vae, params, naming=_recognize(tensors, _VAE_SIGNS, "auto-encoder"))
  return flax.traverse_util.unflatten_dict(read_table(table, tensors, params), sep="/")


def inpainting_to_unet(unet: UNet, tensors: Tensors, params: Mapping[str, Any]) -> dict[str, Any]:
  """Starts a motion U-Net as a photo-inpainting one (section 4.2, the fine-tuning at 512 x 288).

  With z latent channels, the 2 z + 1 input channels of the file (9) become ours as follows:

    file                           ours
    noisy latent, z                noisy latent, z
    mask, 1                        none: as if it were 0, nothing hidden
    latent of the masked photo, z  condition, the first z: the image encoder learns to speak this language
    none                           condition, the others: zero

  The second layer of the band's embedding is zero and frequency attention is untouched (new, it adds nothing), so the
  start is exactly the pretrained network. It predicts the noise: train with `prediction="epsilon"`.

  Args:
    unet: `attention="transformer"`, with the sizes and heads of the file (8 heads in Stable Diffusion 1).
    tensors: by name, either naming, either form of `proj_in` (convolution or linear).
    params: see `tensors_to_unet`; fewer than z condition channels are an error.

  Returns:
    Nested parameters as float32 NumPy arrays.

  Raises:
    UserError: the file's U-Net has other sizes or is not an inpainting one.
  """
  tensors = _strip_prefix(tensors, _UNET_PREFIX)
  name = _UNET_SIGNS[_recognize(tensors, _UNET_SIGNS, "U-Net")]
  weight, num_inputs = tensors[name], params["conv_in"]["kernel"].shape[2]
  z = weight.shape[1] // 2
  if weight.shape[1] != 2 * unet.out_channels + 1:
    raise UserError(
      f"{name} takes {weight.shape[1]} channels: not inpainting on {unet.out_channels} latent channels, which takes "
      f"{2 * unet.out_channels + 1}; use another file or as many latent channels as it has"
    )
  if num_inputs < 2 * z:
    raise UserError(f"{num_inputs - z} condition channels cannot hold a photo's latent; use at least {z}")
  mapped = np.zeros((weight.shape[0], num_inputs, *weight.shape[2:]), np.float32)
  mapped[:, :z] = weight[:, :z]
  mapped[:, z : 2 * z] = weight[:, z + 1 :]
  return tensors_to_unet(unet, {**tensors, name: mapped}, params)


def read_unet_init(path: str | Path, unet: UNet, params: Mapping[str, Any]) -> dict[str, Any]:
  """Reads the parameters that a U-Net starts from, out of a safetensors file of diffusers or CompVis.

  An inpainting U-Net (9 input channels) goes through `inpainting_to_unet` when `unet` has transformer blocks; any other
  must take as many input channels as `unet` does.

  Args:
    path: a U-Net's file, or a whole checkpoint in CompVis' names.
    unet: the model.
    params: new parameters of it.

  Returns:
    Nested parameters as float32 NumPy arrays.

  Raises:
    UserError: the file cannot be read or its U-Net has other sizes; the message names the tensor.
  """
  tensors = _strip_prefix(read_tensors(path), _UNET_PREFIX)
  try:
    name = _UNET_SIGNS[_recognize(tensors, _UNET_SIGNS, "U-Net")]
    num_file, num_ours = tensors[name].shape[1], params["conv_in"]["kernel"].shape[2]
    if unet.attention == "transformer" and num_file == 2 * unet.out_channels + 1:
      return inpainting_to_unet(unet, tensors, params)
    if num_file != num_ours:
      raise UserError(
        f"its U-Net takes {num_file} channels ({name}), this one {num_ours}; give one of {num_ours}, or with "
        f'attention="transformer" an inpainting one of {2 * unet.out_channels + 1}'
      )
    return tensors_to_unet(unet, tensors, params)
  except UserError as error:
    raise UserError(f"{path}: {error}") from error


def read_vae_init(path: str | Path, vae: VAE, params: Mapping[str, Any]) -> dict[str, Any]:
  """Reads the parameters that an auto-encoder starts from, out of a safetensors file of diffusers or CompVis.

  A photo has 3 channels and a slice 4: the first convolution of the encoder and the last of the decoder are taken from
  `params` where their channels differ; everything between is the photo's.

  Args:
    path: an auto-encoder's file, or a whole checkpoint in CompVis' names.
    vae: the model, with the sizes of the file (128 channels, multipliers 1-2-4-4 for Stable Diffusion).
    params: new parameters of it.

  Returns:
    Nested parameters as float32 NumPy arrays.

  Raises:
    UserError: the file cannot be read or its auto-encoder has other sizes; the message names the tensor.
  """
  tensors = _strip_prefix(read_tensors(path), _VAE_PREFIX)
  try:
    ours = vae_to_tensors(vae, params, naming="diffusers")
    # The same names in both namings.
    for part, channels in (("encoder.conv_in", 1), ("decoder.conv_out", 0)):
      found = tensors.get(f"{part}.weight")
      if found is not None and found.ndim == 4 and found.shape[channels] != vae.slice_channels:
        tensors |= {f"{part}.{leaf}": ours[f"{part}.{leaf}"] for leaf in ("weight", "bias")}
    return tensors_to_vae(vae, tensors, params)
  except UserError as error:
    raise UserError(f"{path}: {error}") from error


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
  """Reads a safetensors file; tensors of 16, 32 or 64-bit floats come as float32.

  Raises:
    UserError: it is a pickle (the message says how to convert it), missing or damaged.
  """
  path = Path(path)
  if path.suffix in _PICKLES:
    raise UserError(
      f"{path}: a pickle can run any code and is not read; turn it into safetensors with PyTorch: "
      f"import torch, safetensors.torch as s; t = torch.load({str(path)!r}, map_location='cpu', weights_only=True); "
      "s.save_file({k: v.clone() for k, v in t.get('state_dict', t).items() if torch.is_tensor(v)}, "
      f"{str(path.with_suffix('.safetensors'))!r})"
    )
  try:
    with safetensors.safe_open(str(path), framework="numpy") as file:
      tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
  except FileNotFoundError as error:
    raise UserError(f"{path}: no such file; check the path") from error
  except (OSError, safetensors.SafetensorError, TypeError, ValueError) as error:
    raise UserError(f"{path}: not a readable safetensors file ({error}); name the .safetensors file itself") from error
  # bfloat16 is not one of NumPy's own kinds of floats.
  floating = lambda value: np.issubdtype(value.dtype, np.floating) or value.dtype.name == "bfloat16"
  return {name: value.astype(np.float32) if floating(value) else value for name, value in tensors.items()}


def write_tensors(path: str | Path, tensors: Tensors) -> None:
  """Writes tensors by name as a safetensors file that PyTorch reads; it appears complete or not at all.

  Raises:
    UserError: the file cannot be written.
  """
  path = Path(path)
  make_parents(path)
  contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
  with complete_or_nothing(path, overwrite=True) as temporary:
    temporary.write_bytes(safetensors.numpy.save(contiguous, {"format": "pt"}))


def unet_to_diffusers_config(unet: UNet, params: Mapping[str, Any]) -> dict[str, Any]:
  """The `config.json` with which diffusers builds the same network; the noise schedule has its own.

  Raises:
    UserError: diffusers has no such network: plain attention with a fixed number of heads, multipliers that do not
      begin with 1.
  """
  if unet.multipliers[0] != 1:
    first = unet.multipliers[0]
    raise UserError(f"diffusers' networks begin with multiplier 1, not {first}: move it into channels")
  transformer = unet.attention == "transformer"
  if unet.num_heads and not transformer:
    raise UserError("diffusers' UNet2DModel has no fixed number of heads: set head_channels and num_heads=None")
  kinds = ("CrossAttn" if transformer else "Attn", "")
  blocks = [kinds[level not in unet.attention_levels] for level in range(len(unet.multipliers))]
  widths = [unet.channels * multiplier for multiplier in unet.multipliers]
  config = dict(
    _class_name="UNet2DConditionModel" if transformer else "UNet2DModel",
    in_channels=int(params["conv_in"]["kernel"].shape[2]),
    out_channels=unet.out_channels,
    block_out_channels=widths,
    layers_per_block=unet.num_blocks,
    down_block_types=[f"{kind}DownBlock2D" for kind in blocks],
    up_block_types=[f"{kind}UpBlock2D" for kind in reversed(blocks)],
    norm_num_groups=unet.groups,
    norm_eps=1e-5,
    class_embed_type="timestep",
  )
  if transformer:
    # diffusers calls the number of heads attention_head_dim here, for old files' sake.
    heads = [count_heads(unet, width) for width in widths]
    return config | dict(attention_head_dim=heads, cross_attention_dim=unet.context_channels)
  return config | dict(attention_head_dim=unet.head_channels)


def _strip_prefix(tensors: Tensors, prefix: str) -> dict[str, np.ndarray]:
  """The part of a whole checkpoint under a prefix, and the context; everything when nothing is under it."""
  stripped = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
  if stripped and CONTEXT in tensors:
    stripped[CONTEXT] = tensors[CONTEXT]
  return stripped or dict(tensors)


def _recognize(tensors: Tensors, signs: Mapping[str, str], network: str) -> str:
  """The naming whose sign is among the tensors."""
  for naming, name in signs.items():
    if name in tensors:
      return naming
  if any("/" in name for name in tensors):
    raise UserError(f"weights of gid-jax itself, not a PyTorch {network}; load them with import_weights")
  raise UserError(f"no {network} of diffusers or CompVis in it: neither {' nor '.join(signs.values())} is there")
