"""Files of PyTorch weights as a start: an inpainting U-Net, a photo's auto-encoder; wrong ones told in one line."""

import pickle

import diffusers_reference as reference
import jax
import ml_dtypes
import numpy as np
import pytest

from gid_jax.configuration import WeightsSettings
from gid_jax.errors import UserError
from gid_jax.models.unet import UNet
from gid_jax.weights.convert import (
  read_tensors,
  read_unet_init,
  read_vae_init,
  tensors_to_unet,
  unet_to_diffusers_config,
  unet_to_tensors,
  vae_to_tensors,
  write_tensors,
)
from gid_jax.weights.pretrained import export_weights


@pytest.fixture(scope="module", autouse=True)
def _quickly(quick_compilation):
  """Compiles with little care."""


@pytest.fixture(scope="module")
def stored():
  return reference.load()


def make_inpainting_tensors(naming):
  """The seeded tensors of an inpainting U-Net with the sizes of a case; it has neither bands nor a context."""
  unet, params = reference.make_unet(reference.INPAINTING, condition_channels=5)
  params = tensors_to_unet(unet, reference.name_seeded(unet_to_tensors(unet, params, naming="diffusers")), params)
  tensors = unet_to_tensors(unet, params, naming=naming)
  return {name: value for name, value in tensors.items() if not name.startswith(("class_emb", "label_emb", "context"))}


def test_start_from_an_inpainting_unet_is_exactly_it(tmp_path, stored):
  unet, params = reference.make_unet(reference.INPAINTING)
  params = params | {"context": reference.make_context(reference.INPAINTING)}
  tensors = make_inpainting_tensors("diffusers")
  write_tensors(tmp_path / "unet.safetensors", tensors)
  start = read_unet_init(tmp_path / "unet.safetensors", unet, params)
  output = reference.compiled(unet)(start, *reference.make_unet_inputs(reference.INPAINTING))
  assert reference.relative_difference(output, stored["inpainting"]) < reference.TOLERANCE
  np.testing.assert_array_equal(start["context"], params["context"])

  # The same out of a whole checkpoint with CompVis' names, with proj_in as a linear layer and with a context.
  whole = {f"model.diffusion_model.{name}": value for name, value in make_inpainting_tensors("compvis").items()}
  whole = {name: value[..., 0, 0] if "proj_in.weight" in name else value for name, value in whole.items()}
  whole |= {"cond_stage_model.ids": np.arange(3), "first_stage_model.x": np.ones(2), "context": params["context"]}
  write_tensors(tmp_path / "whole.safetensors", whole)
  template = params | {"context": np.zeros_like(params["context"])}
  reference.assert_equal_trees(read_unet_init(tmp_path / "whole.safetensors", unet, template), start)


def test_a_plain_unet_of_the_same_channels_is_a_start_too(tmp_path):
  unet, params = reference.make_unet("unet_small")
  write_tensors(tmp_path / "x.safetensors", unet_to_tensors(unet, params, naming="compvis"))
  reference.assert_equal_trees(read_unet_init(tmp_path / "x.safetensors", unet, reference.zeros_like(params)), params)


def test_start_from_the_auto_encoder_of_photos(tmp_path):
  photo_vae, photos = reference.make_vae("vae_factor_4", slice_channels=3)
  vae, params = reference.make_vae("vae_factor_4")
  tensors = vae_to_tensors(photo_vae, photos, naming="compvis")
  whole = {f"first_stage_model.{name}": value for name, value in tensors.items()} | {"model_ema.decay": np.ones(())}
  write_tensors(tmp_path / "x.safetensors", whole)
  start = read_vae_init(tmp_path / "x.safetensors", vae, params)
  for half, name in (("encoder", "conv_in"), ("decoder", "conv_out")):
    reference.assert_equal_trees(start[half].pop(name), params[half][name])
    start[half][name] = photos[half][name]
  reference.assert_equal_trees({name: start[name] for name in photos}, photos)


def test_files_of_half_precision(tmp_path):
  values = np.array([[1.5, -2.25], [0.0, 96.0]])
  tensors = {"f16": values.astype(np.float16), "bf16": values.astype(ml_dtypes.bfloat16), "f64": values}
  write_tensors(tmp_path / "deeper" / "x.safetensors", tensors | {"ids": np.arange(4)})
  read = read_tensors(tmp_path / "deeper" / "x.safetensors")
  for name in tensors:
    assert read[name].dtype == np.float32
    np.testing.assert_array_equal(read[name], values)
  assert read["ids"].dtype == np.int64
  assert [path.name for path in (tmp_path / "deeper").iterdir()] == ["x.safetensors"]


class _Trap:
  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return (open, (str(self.path), "w"))


@pytest.mark.parametrize("suffix", [".ckpt", ".bin", ".pt", ".pth"])
def test_a_pickle_is_never_executed(tmp_path, suffix):
  path = tmp_path / f"model{suffix}"
  path.write_bytes(pickle.dumps(_Trap(tmp_path / "sprung")))
  with pytest.raises(UserError, match=r"safetensors.*torch\.load") as error:
    read_tensors(path)
  assert "\n" not in str(error.value) and not (tmp_path / "sprung").exists()
  path.rename(tmp_path / "renamed.safetensors")
  with pytest.raises(UserError, match="not a readable safetensors file"):
    read_tensors(tmp_path / "renamed.safetensors")
  assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda t: t.pop("mid_block.resnets.1.conv2.bias"), r"mid_block.resnets.1.conv2.bias of shape \(16,\) is missing"),
    (lambda t: t.update({"up_blocks.7.x": np.ones((2, 3))}), r"up_blocks.7.x of shape \(2, 3\) is not expected"),
    (
      lambda t: t.update({"conv_out.weight": np.ones((4, 8, 1, 1))}),
      r"conv_out.weight has shape \(4, 8, 1, 1\), expected \(4, 8, 3, 3\)",
    ),
    (
      lambda t: t.update({"mid_block.attentions.0.to_q.weight": np.ones((16, 8))}),
      r"attentions.0.to_q.weight has shape \(16, 8\), expected \(16, 16\)",
    ),
    (lambda t: t.pop("class_embedding.linear_1.bias"), r"class_embedding.linear_1.bias of shape \(32,\) is missing"),
    (lambda t: t.update({"conv_in.weight": np.ones((8, 9, 3, 3))}), "takes 9 channels .*this one 7"),
    (lambda t: t.clear(), "no U-Net of diffusers or CompVis"),
  ],
)
def test_wrong_tensors_are_named(tmp_path, change, message):
  unet, params = reference.make_unet("unet_small")
  tensors = unet_to_tensors(unet, params, naming="diffusers")
  change(tensors)
  path = tmp_path / "x.safetensors"
  write_tensors(path, tensors)
  with pytest.raises(UserError, match=message) as error:
    read_unet_init(path, unet, params)
  assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_other_wrong_input(tmp_path):
  unet, params = reference.make_unet("unet_small")
  with pytest.raises(UserError, match="'diffusers' or 'compvis'"):
    unet_to_tensors(unet, params, naming="keras")
  with pytest.raises(UserError, match=r"down0_block0_attention/.* has no place"):
    unet_to_tensors(unet, reference.make_unet("unet_wide")[1], naming="diffusers")
  with pytest.raises(UserError, match="no such file"):
    read_tensors(tmp_path / "none.safetensors")
  with pytest.raises(UserError, match=r"name the \.safetensors file itself"):
    read_tensors(tmp_path)
  export_weights(tmp_path / "ours.safetensors", {"unet": params}, settings=WeightsSettings("ldm"))
  with pytest.raises(UserError, match="weights of gid-jax itself"):
    read_unet_init(tmp_path / "ours.safetensors", unet, params)
  narrow, narrow_params = reference.make_unet(reference.INPAINTING, condition_channels=3)
  write_tensors(tmp_path / "9.safetensors", make_inpainting_tensors("compvis"))
  with pytest.raises(UserError, match="3 condition channels cannot hold a photo's latent; use at least 4"):
    read_unet_init(tmp_path / "9.safetensors", narrow, narrow_params)
  with pytest.raises(UserError, match="no fixed number of heads"):
    unet_to_diffusers_config(UNet(num_heads=2), params)
  with pytest.raises(UserError, match="begin with multiplier 1, not 2"):
    unet_to_diffusers_config(UNet(multipliers=(2, 4)), params)
  with pytest.raises(UserError, match="Unknown attention 'none'"):
    jax.eval_shape(UNet(attention="none").init, jax.random.key(0), *reference.make_unet_inputs("unet_small"))
