"""Converted weights give diffusers' numbers under its names and those of CompVis; round trips are exact."""

import functools
import json
import math
import re

import diffusers_reference as reference
import helpers
import jax
import numpy as np
import pytest

from gid_jax.models.unet import UNet
from gid_jax.weights.convert import (
  tensors_to_unet,
  tensors_to_vae,
  unet_to_diffusers_config,
  unet_to_tensors,
  vae_to_tensors,
)


@pytest.fixture(scope="module", autouse=True)
def _quickly(quick_compilation):
  """Compiles with little care."""


@pytest.fixture(scope="module")
def stored():
  return reference.load()


@functools.cache
def unet_output(case):
  """Our output for the seeded weights, and the parameters that they became."""
  unet, params = reference.make_unet(case)
  params = tensors_to_unet(unet, reference.name_seeded(unet_to_tensors(unet, params, naming="diffusers")), params)
  return reference.compiled(unet)(params, *reference.make_unet_inputs(case)), params


@pytest.mark.parametrize("case", reference.UNETS)
def test_unet_gives_the_numbers_of_diffusers(case, stored):
  assert reference.relative_difference(unet_output(case)[0], stored[case]) < reference.TOLERANCE


@pytest.mark.parametrize("case", reference.VAES)
def test_vae_gives_the_numbers_of_diffusers(case, stored):
  vae, params = reference.make_vae(case)
  params = tensors_to_vae(vae, reference.name_seeded(vae_to_tensors(vae, params, naming="diffusers")), params)

  @jax.jit
  def run(params, slices, latents):
    apply = functools.partial(vae.apply, {"params": params})
    return *apply(slices, method="encode"), apply(latents, method="decode")

  for part, output in zip(
    ("mean", "log_variance", "decoded"), run(params, *reference.make_vae_inputs(case)), strict=True
  ):
    assert reference.relative_difference(output, stored[f"{case}_{part}"]) < reference.TOLERANCE, part


@pytest.mark.parametrize("case", reference.UNETS)
def test_diffusers_runs_our_weights(case):
  pytest.importorskip("diffusers")
  unet, _ = reference.make_unet(case)
  output, params = unet_output(case)
  tensors = unet_to_tensors(unet, params, naming="diffusers")
  tensors.pop("context", None)
  model = reference.build(json.loads(json.dumps(unet_to_diffusers_config(unet, params))), tensors)
  assert reference.relative_difference(output, reference.run_unet(case, model)) < reference.TOLERANCE


@pytest.mark.parametrize("case", reference.VAES)
def test_diffusers_runs_our_auto_encoder(case, stored):
  pytest.importorskip("diffusers")
  vae, params = reference.make_vae(case)
  tensors = reference.name_seeded(vae_to_tensors(vae, params, naming="diffusers"))
  tensors = vae_to_tensors(vae, tensors_to_vae(vae, tensors, params), naming="diffusers")
  outputs = reference.run_vae(case, reference.build(reference.make_vae_config(case), tensors))
  for part, output in zip(("mean", "log_variance", "decoded"), outputs, strict=True):
    assert reference.relative_difference(output, stored[f"{case}_{part}"]) < reference.TOLERANCE, part


@pytest.mark.parametrize("naming", reference.NAMINGS)
@pytest.mark.parametrize("case", reference.UNETS)
def test_unet_round_trip_is_exact(case, naming):
  unet, params = reference.make_unet(case)
  tensors = unet_to_tensors(unet, params, naming=naming)
  assert sum(value.size for value in tensors.values()) == sum(leaf.size for leaf in jax.tree.leaves(params))
  reference.assert_equal_trees(tensors_to_unet(unet, tensors, reference.zeros_like(params)), params)


@pytest.mark.parametrize("naming", reference.NAMINGS)
@pytest.mark.parametrize("case", reference.VAES)
def test_vae_round_trip_is_exact(case, naming):
  vae, params = reference.make_vae(case)
  tensors = vae_to_tensors(vae, params, naming=naming)
  assert sum(value.size for value in tensors.values()) == sum(leaf.size for leaf in jax.tree.leaves(params))
  reference.assert_equal_trees(tensors_to_vae(vae, tensors, reference.zeros_like(params)), params)


@pytest.mark.parametrize("naming", reference.NAMINGS)
def test_frequency_attention_is_left_out_and_untouched(naming):
  unet, params = reference.make_unet("unet_small", coordination="attention")
  separate, _ = reference.make_unet("unet_small")
  tensors = unet_to_tensors(unet, params, naming=naming)
  coordination = {name: value for name, value in params.items() if "frequency_attention" in name}
  stage_1 = {name: value for name, value in params.items() if name not in coordination}
  assert len(coordination) == 7 and tensors.keys() == unet_to_tensors(separate, stage_1, naming=naming).keys()
  template = reference.zeros_like(stage_1) | coordination
  reference.assert_equal_trees(tensors_to_unet(unet, tensors, {name: template[name] for name in params}), params)


def test_a_file_without_band_embedding_makes_all_bands_start_alike():
  unet, params = reference.make_unet("unet_small")
  tensors = unet_to_tensors(unet, params, naming="diffusers")
  plain = {name: value for name, value in tensors.items() if not name.startswith("class_embedding")}
  read = tensors_to_unet(unet, plain, params)
  assert not any(value.any() for value in read["frequency_embedding_2"].values())
  read["frequency_embedding_2"] = params["frequency_embedding_2"]
  reference.assert_equal_trees(read, params)


def test_old_diffusers_names_of_attention():
  vae, params = reference.make_vae("vae_factor_4")
  old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
  rename = lambda name: re.sub("to_q|to_k|to_v|to_out.0", lambda match: old[match[0]], name)
  tensors = {rename(name): value for name, value in vae_to_tensors(vae, params, naming="diffusers").items()}
  assert "decoder.mid_block.attentions.0.proj_attn.bias" in tensors
  reference.assert_equal_trees(tensors_to_vae(vae, tensors, reference.zeros_like(params)), params)


def test_compvis_names_of_a_unet():
  unet, params = reference.make_unet("unet_small")
  names = unet_to_tensors(unet, params, naming="compvis").keys()
  block = {"in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3"}
  widening, attention = block | {"skip_connection"}, {"norm", "qkv", "proj_out"}
  parts = {
    "input_blocks.0.0": None,
    "input_blocks.1.0": block,
    "input_blocks.2.0.op": None,
    "input_blocks.3.0": widening,
    "input_blocks.3.1": attention,
    "middle_block.0": block,
    "middle_block.1": attention,
    "middle_block.2": block,
    **{f"output_blocks.{index}.0": widening for index in range(4)},
    "output_blocks.0.1": attention,
    "output_blocks.1.1": attention,
    "output_blocks.1.2.conv": None,
    **dict.fromkeys(("time_embed.0", "time_embed.2", "label_emb.0.0", "label_emb.0.2", "out.0", "out.2")),
  }
  modules = {name if not inner else f"{name}.{part}" for name, inner in parts.items() for part in inner or "-"}
  assert names == {f"{module}.{leaf}" for module in modules for leaf in ("weight", "bias")}


def test_compvis_names_of_an_auto_encoder():
  vae, params = reference.make_vae("vae_factor_4")
  tensors = vae_to_tensors(vae, params, naming="compvis")
  for name, shape in {
    "encoder.down.0.downsample.conv.weight": (8, 8, 3, 3),
    "encoder.down.1.block.0.nin_shortcut.weight": (16, 8, 1, 1),
    "encoder.mid.attn_1.q.weight": (32, 32, 1, 1),
    "encoder.mid.attn_1.proj_out.bias": (32,),
    "encoder.norm_out.weight": (32,),
    "decoder.mid.block_2.norm1.bias": (32,),
    "decoder.up.2.upsample.conv.bias": (32,),  # the coarsest is the last
    "decoder.up.0.block.1.conv2.weight": (8, 8, 3, 3),
    "post_quant_conv.weight": (4, 4, 1, 1),
  }.items():
    assert tensors[name].shape == shape, name
  assert "decoder.up.0.upsample.conv.weight" not in tensors and "encoder.down.2.downsample.conv.weight" not in tensors


def test_compvis_orders_query_key_and_value_by_head():
  unet, params = reference.make_unet("unet_small")
  tensors, attention = unet_to_tensors(unet, params, naming="compvis"), params["middle_attention"]
  weight, bias = tensors["middle_block.1.qkv.weight"], tensors["middle_block.1.qkv.bias"]
  assert weight.shape == (48, 16, 1)
  x = np.random.default_rng(0).normal(size=16)
  rows = weight[..., 0] @ x + bias
  expected = {part: helpers.dense(attention[part], x) for part in ("query", "key", "value")}
  for head in range(4):
    for index, part in enumerate(("query", "key", "value")):
      start = head * 3 * 4 + index * 4
      np.testing.assert_allclose(rows[start : start + 4], expected[part][4 * head : 4 * head + 4], rtol=1e-5)


@pytest.mark.parametrize("case", ["transformer", "transformer_deep"])
def test_diffusers_own_converter_reads_our_compvis_unet(case):
  single_file = pytest.importorskip("diffusers.loaders.single_file_utils")
  unet, params = reference.make_unet(case)
  tensors = unet_to_tensors(unet, params, naming="compvis")
  checkpoint = {f"model.diffusion_model.{name}": value for name, value in tensors.items()}
  converted = single_file.convert_ldm_unet_checkpoint(checkpoint, unet_to_diffusers_config(unet, params))
  ours = unet_to_tensors(unet, params, naming="diffusers")
  ours.pop("context")
  assert converted.keys() == ours.keys()
  assert all(np.array_equal(value, ours[name]) for name, value in converted.items())


@pytest.mark.parametrize("case", reference.VAES)
def test_diffusers_own_converter_reads_our_compvis_auto_encoder(case):
  single_file = pytest.importorskip("diffusers.loaders.single_file_utils")
  vae, params = reference.make_vae(case)
  tensors = vae_to_tensors(vae, params, naming="compvis")
  checkpoint = {f"first_stage_model.{name}": value for name, value in tensors.items()}
  converted = single_file.convert_ldm_vae_checkpoint(checkpoint, reference.make_vae_config(case))
  ours = vae_to_tensors(vae, params, naming="diffusers")
  assert converted.keys() == ours.keys()
  assert all(np.array_equal(value, ours[name]) for name, value in converted.items())


def test_the_size_of_stable_diffusion():
  # Facts of its U-Net: 859,520,964 numbers in 686 tensors; the inpainting one has five more input channels.
  unet = UNet(
    channels=320,
    multipliers=(1, 2, 4, 4),
    attention_levels=(0, 1, 2),
    attention="transformer",
    num_heads=8,
    coordination="",
  )
  zero = np.zeros((1, 1), int)
  inputs = (np.zeros((1, 1, 8, 8, 4)), zero, zero, np.zeros((1, 8, 8, 5)))
  shapes = jax.eval_shape(unet.init, jax.random.key(0), *inputs)["params"]
  params = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), shapes)
  tensors = unet_to_tensors(unet, params, naming="compvis")
  tensors = {name: value for name, value in tensors.items() if not name.startswith(("label_emb", "context"))}
  assert len(tensors) == 686
  assert sum(math.prod(value.shape) for value in tensors.values()) == 859_520_964 + 5 * 320 * 9
  for name, shape in {
    "input_blocks.0.0.weight": (320, 9, 3, 3),
    "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight": (320, 320),
    "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, 768),
    "input_blocks.7.1.transformer_blocks.0.ff.net.0.proj.weight": (10240, 1280),
    "input_blocks.9.0.op.weight": (1280, 1280, 3, 3),
    "middle_block.1.proj_in.weight": (1280, 1280, 1, 1),
    "output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
    "output_blocks.5.2.conv.weight": (1280, 1280, 3, 3),
    "output_blocks.11.1.transformer_blocks.0.ff.net.2.weight": (320, 1280),
    "out.2.weight": (4, 320, 3, 3),
  }.items():
    assert tensors[name].shape == shape, name
