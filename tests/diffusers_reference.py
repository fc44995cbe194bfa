"""Outputs of diffusers' networks on small seeded weights and inputs, for `test_convert.py` and `test_convert_files.py`.

They are stored in data/diffusers.npz, so that the tests need no PyTorch. Every weight is drawn by NumPy from a
generator seeded by the tensor's name: a wrong name is a wrong weight. Made with diffusers 0.42.1 and torch 2.13.0 by

  python tests/diffusers_reference.py
"""

import functools
import math
import pathlib
import zlib

import helpers
import jax
import numpy as np

from gid_jax.models.unet import UNet
from gid_jax.models.vae import VAE
from gid_jax.weights.convert import unet_to_diffusers_config

PATH = pathlib.Path(__file__).parent / "data" / "diffusers.npz"

NAMINGS = ("diffusers", "compvis")
TOLERANCE = 1e-4  # of the largest output

# Name -> (fields of the U-Net, [condition channels, height, width]).
UNETS = {
  "unet_small": (
    dict(channels=8, multipliers=(1, 2), num_blocks=1, attention_levels=(1,), head_channels=4, groups=4),
    (3, 4, 6),
  ),
  "unet_deep": (
    dict(channels=16, multipliers=(1, 2, 3), num_blocks=1, attention_levels=(0, 2), head_channels=16, groups=8),
    (5, 8, 12),
  ),
  "unet_wide": (
    dict(channels=12, multipliers=(1, 4), num_blocks=2, attention_levels=(0, 1), head_channels=6, groups=3),
    (16, 10, 4),
  ),
  "transformer": (
    dict(channels=8, multipliers=(1, 2), num_blocks=1, attention_levels=(0,), num_heads=2, groups=4)
    | dict(attention="transformer", context_tokens=5, context_channels=6),
    (6, 4, 6),
  ),
  "transformer_deep": (
    dict(channels=8, multipliers=(1, 2, 2), num_blocks=1, attention_levels=(0, 1), head_channels=4, groups=8)
    | dict(attention="transformer", context_tokens=3, context_channels=10),
    (4, 8, 4),
  ),
}
# Name -> (fields of the auto-encoder, [height, width] of the latent).
VAES = {
  "vae_factor_4": (dict(channels=8, multipliers=(1, 2, 4), num_blocks=1, groups=4), (2, 3)),
  "vae_factor_8": (dict(channels=8, multipliers=(1, 2, 2, 3), num_blocks=1, groups=8, latent_channels=3), (2, 1)),
  "vae_factor_2": (dict(channels=12, multipliers=(1, 3), num_blocks=2, groups=6, slice_channels=3), (4, 5)),
}
INPAINTING = "transformer"  # also with 9 input channels, as an inpainting U-Net


def load():
  """The stored outputs by name."""
  with np.load(PATH) as arrays:
    return dict(arrays)


def make_tensor(name, shape):
  """The weights of one tensor, drawn from its name: norms about 1, others about unit gain."""
  values = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
  if len(shape) > 1:
    values /= math.sqrt(math.prod(shape[1:]))
  elif name.endswith("weight"):
    values = np.exp(0.3 * values)
  else:
    values *= 0.3
  return values.astype(np.float32)


def make_unet_inputs(case):
  """Latents [1 2 h w 4], time steps [1 2], bands [1 2] and condition [1 h w d] of a case."""
  fields, (channels, height, width) = UNETS[case]
  rng = np.random.default_rng(len(fields) + channels)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  return draw(1, 2, height, width, 4), np.array([[3, 801]]), np.array([[0, 13]]), draw(1, height, width, channels)


def make_context(case):
  """Context [n d] of a transformer U-Net."""
  fields = UNETS[case][0]
  return make_tensor("context", (fields["context_tokens"], fields["context_channels"]))


def make_vae_inputs(case):
  """Slices [2 h w c] and latents [2 h2 w2 z] of a case."""
  fields, (height, width) = VAES[case]
  rng, factor = np.random.default_rng(height), 2 ** (len(fields["multipliers"]) - 1)
  draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
  slices = draw(2, height * factor, width * factor, fields.get("slice_channels", 4))
  return slices, draw(2, height, width, fields.get("latent_channels", 4))


@functools.cache
def make_unet(case, *, condition_channels=None, **fields):
  """A case's U-Net and parameters of no importance."""
  unet = UNet(**(dict(coordination="") | UNETS[case][0] | fields))
  latents, timesteps, bands, condition = make_unet_inputs(case)
  condition = np.zeros((*condition.shape[:3], condition_channels or condition.shape[3]))
  return unet, helpers.random_params(unet.init, latents, timesteps, bands, condition)


@functools.cache
def make_vae(case, **fields):
  """A case's auto-encoder and parameters of no importance."""
  vae = VAE(**(VAES[case][0] | fields))
  slices = np.zeros((*make_vae_inputs(case)[0].shape[:3], vae.slice_channels))
  return vae, helpers.random_params(vae.init, jax.random.key(0), slices)


def name_seeded(tensors):
  """Tensors of the same names and shapes, drawn by `make_tensor`."""
  return {name: make_tensor(name, value.shape) for name, value in tensors.items()}


@functools.cache
def compiled(unet):
  """(params, inputs) -> output, compiled once."""
  return jax.jit(lambda params, *inputs: unet.apply({"params": params}, *inputs))


def relative_difference(output, expected):
  """The largest difference, in units of the largest expected value."""
  assert output.shape == expected.shape
  return np.abs(output - expected).max() / np.abs(expected).max()


def assert_equal_trees(left, right):
  """Two parameter trees are the same, bit by bit."""
  assert jax.tree.structure(left) == jax.tree.structure(right)
  assert all(map(np.array_equal, jax.tree.leaves(left), jax.tree.leaves(right)))


def zeros_like(params):
  """The same tree, all zero."""
  return jax.tree.map(np.zeros_like, params)


def to_torch(x):
  """[b h w c] -> a tensor [b c h w]."""
  import torch

  return torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))


def to_numpy(x):
  """A tensor [b c h w] -> [b h w c]."""
  return np.moveaxis(x.detach().numpy(), 1, -1)


def build(config, tensors=None):
  """diffusers' network of a config.json, with the given weights (all of them, no others) or seeded ones."""
  import diffusers
  import torch

  model = getattr(diffusers, config["_class_name"]).from_config(config).eval()
  if tensors is None:
    tensors = {name: make_tensor(name, tuple(value.shape)) for name, value in model.state_dict().items()}
  model.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in tensors.items()})
  return model


def run_unet(case, model):
  """The output [1 2 h w 4] of diffusers' U-Net; an inpainting one sees a mask of 0 and 4 condition channels."""
  import torch

  latents, timesteps, bands, condition = make_unet_inputs(case)
  condition = condition.repeat(2, axis=0)
  options = dict(class_labels=torch.from_numpy(bands[0]))
  if model.config.class_embed_type is None:
    condition, options = np.concatenate([np.zeros_like(condition[..., :1]), condition[..., :4]], axis=-1), {}
  if "attention" in UNETS[case][0]:
    options["encoder_hidden_states"] = torch.from_numpy(make_context(case))[None].repeat(2, 1, 1)
  with torch.no_grad():
    x = to_torch(np.concatenate([latents[0], condition], axis=-1))
    return to_numpy(model(x, torch.from_numpy(timesteps[0]), **options).sample)[None]


def run_vae(case, model):
  """Mean, log-variance and decoded slices of diffusers' auto-encoder."""
  import torch

  slices, latents = make_vae_inputs(case)
  with torch.no_grad():
    posterior = model.encode(to_torch(slices)).latent_dist
    return tuple(map(to_numpy, (posterior.mean, posterior.logvar, model.decode(to_torch(latents)).sample)))


def make_unet_config(case):
  """diffusers' config of a case."""
  fields, (channels, *_) = UNETS[case]
  return unet_to_diffusers_config(UNet(**fields), {"conv_in": {"kernel": np.zeros((3, 3, 4 + channels, 1))}})


def make_vae_config(case):
  """diffusers' config of a case's auto-encoder; its multipliers begin with 1."""
  vae = VAE(**VAES[case][0])
  levels = len(vae.multipliers)
  return dict(
    _class_name="AutoencoderKL",
    in_channels=vae.slice_channels,
    out_channels=vae.slice_channels,
    latent_channels=vae.latent_channels,
    block_out_channels=[vae.channels * multiplier for multiplier in vae.multipliers],
    layers_per_block=vae.num_blocks,
    down_block_types=["DownEncoderBlock2D"] * levels,
    up_block_types=["UpDecoderBlock2D"] * levels,
    norm_num_groups=vae.groups,
  )


def make_inpainting_config():
  """diffusers' config of the inpainting U-Net."""
  return make_unet_config(INPAINTING) | dict(in_channels=9, class_embed_type=None)


def main():
  """Computes and stores all outputs."""
  outputs = {case: run_unet(case, build(make_unet_config(case))) for case in UNETS}
  outputs["inpainting"] = run_unet(INPAINTING, build(make_inpainting_config()))
  for case in VAES:
    parts = run_vae(case, build(make_vae_config(case)))
    outputs |= {f"{case}_{part}": value for part, value in zip(("mean", "log_variance", "decoded"), parts, strict=True)}
  PATH.parent.mkdir(exist_ok=True)
  np.savez_compressed(PATH, **outputs)


if __name__ == "__main__":
  main()
