"""What CUDA and TPU are given, read off the programs: plain convolutions, JAX's attention, nothing that is for CPUs.

Everything is traced from shapes; nothing is compiled and no weights are made. Blocks that networks repeat at every
level stand there once.
"""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from jax.sharding import Mesh

from benchmarks import roofline
from gid_jax import rendering
from gid_jax.configuration import TrainSettings
from gid_jax.flow import estimate
from gid_jax.models import operations
from gid_jax.models.build import make_renderer
from gid_jax.motion import moving_photo, splat
from gid_jax.motion.moving_photo import MovingPhoto
from gid_jax.motion.warp import DENSITY
from gid_jax.parsing import parse
from gid_jax.sizes import count_room, motion_size
from gid_jax.types import SpectralVolume

PLATFORMS = ("cuda", "tpu")
FUSED = "__cudnn$fmhaSoftmax"


def like(x):
  return jax.ShapeDtypeStruct(x.shape, x.dtype)


def mark(shapes):
  """A stand-in for a form that is for CPUs: found by its name in any program that takes it."""

  def stand_in(*inputs, **options):
    def cpu_form(*inputs):
      zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes(*inputs))
      return jax.tree.map(lambda zero: zero + inputs[0].sum().astype(zero.dtype), zeros)

    return jax.jit(cpu_form)(*inputs)

  return stand_in


CPU_FORMS = {
  "_convolve": lambda x, kernel: jax.ShapeDtypeStruct((*x.shape[:3], kernel.shape[3]), x.dtype),
  "_input_slope": lambda kernel, slope: jax.ShapeDtypeStruct((*slope.shape[:3], kernel.shape[2]), slope.dtype),
  "_kernel_slope": lambda x, slope: jax.ShapeDtypeStruct((3, 3, x.shape[3], slope.shape[3]), x.dtype),
  "_convolve_phases": lambda x, kernel: jax.ShapeDtypeStruct(
    (x.shape[0], 2 * x.shape[1], 2 * x.shape[2], kernel.shape[3]), x.dtype
  ),
  "_phases_gradient": lambda x, kernel, slope: (like(x), like(kernel)),
  "_attend_in_chunks": lambda queries, keys, values: like(queries),
}


@pytest.fixture(scope="module", autouse=True)
def traces_of_its_own():
  """JAX keeps the traces of jitted functions: those of other tests have no marks, and none may be left to them."""
  jax.clear_caches()
  yield
  jax.clear_caches()


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
  """What asks for the device at hand finds an NVIDIA GPU, and what CPUs would get is marked."""
  for name, shapes in CPU_FORMS.items():
    monkeypatch.setattr(operations, name, mark(shapes))
  monkeypatch.setattr(operations, "_has_cudnn", lambda: True)
  monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
  monkeypatch.setattr(estimate, "_count_together", lambda platform, number: number)
  monkeypatch.setattr(rendering, "_count_together", lambda platform, number: number)
  get_config = roofline.get_config

  def get_shallow_config(stage, size):
    config = get_config(stage, size)
    for part in () if stage == "renderer" else (config.model.denoiser, config.model.codec):
      if "num_blocks" in part:
        part.num_blocks = 0  # on the way up, one is left
    return config

  monkeypatch.setattr(roofline, "get_config", get_shallow_config)


def lower(function, *inputs, platforms=PLATFORMS):
  """{platform: StableHLO} of a function, in all of which nothing is for CPUs and nothing runs on the host."""
  traced, texts = jax.jit(function).trace(*inputs), {}
  for platform in platforms:
    known = (FUSED, f"{FUSED}Backward") if platform == "cuda" else ()
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    calls = set(re.findall(r"custom_call @([\w$]+)", text))
    assert "cpu_form" not in text and calls <= set(known), (platform, calls)
    texts[platform] = text
  return texts


def test_the_marks_are_seen():
  x, kernel = (jax.ShapeDtypeStruct(shape, np.float32) for shape in ((1, 4, 4, 8), (3, 3, 8, 8)))
  heads = jax.ShapeDtypeStruct((1, 16, 2, 8), np.float32)

  def slopes(function):
    return lambda *inputs: jax.grad(lambda *inputs: function(*inputs).sum(), argnums=(0, 1))(*inputs)

  for function, inputs in (
    (operations.convolve, (x, kernel)),
    (slopes(operations.convolve), (x, kernel)),
    (operations.convolve_repeated, (x, kernel)),
    (slopes(operations.convolve_repeated), (x, kernel)),
    (operations.dot_product_attention, (heads, heads, heads)),
  ):
    text = jax.jit(function).trace(*inputs).lower(lowering_platforms=("cpu",)).as_text()
    assert "cpu_form" in text


# Every part of every size once: the renderers differ in nothing but the photo's size, the auto-encoders in how often
# they halve, and frequencies meet alike in `large` and `paper`.
STEPS = [
  ("vae", "paper"),
  *(("ldm", size) for size in ("paper", "large", "inpainting_512")),
  *(("ldm_coordinated", size) for size in ("paper", "inpainting_512")),
  ("renderer", "paper"),
]


@pytest.mark.parametrize("stage, size", STEPS)
def test_train_steps(stage, size):
  step, inputs = roofline.make_step(stage, size, 2)
  texts, (_, state, _) = lower(step, *inputs), inputs
  is_kernel = lambda leaf: len(leaf.shape) == 4 and leaf.shape[:2] == (3, 3)
  kernels = sum(map(is_kernel, jax.tree.leaves(state.params)))
  for text in texts.values():
    # One forward and two for the gradient, but for the first layer's input, each over two axes of space.
    dimensions = re.findall(r"stablehlo\.convolution\(.*?dim_numbers = \[([^]]*)\]x", text)
    assert len(dimensions) >= 3 * kernels - 2, (len(dimensions), kernels)
    assert all(set(part.split(", ")) >= {"0", "1"} and len(part.split(", ")) == 4 for part in dimensions)
  # Their U-Net computes in bfloat16; auto-encoders, frozen eyes and the renderer in float32, which cuDNN has not.
  is_half = stage.startswith("ldm")
  assert (FUSED in texts["cuda"]) == is_half and (f"{FUSED}Backward" in texts["cuda"]) == is_half


@pytest.mark.parametrize("size, guidance", [("paper", 1.75), ("paper", 0.0), ("inpainting_512", 1.75), ("large", 0.0)])
def test_sampling_steps_cast_no_parameters(size, guidance):
  step, (params, *inputs) = roofline.make_sampler(size, guidance)
  unet = params["unet"]
  kernels = {"x".join(map(str, leaf.shape)) for leaf in jax.tree.leaves(unet) if len(leaf.shape) > 1}
  found = lambda text: kernels & set(
    re.findall(r"stablehlo\.convert %arg\d+ : \(tensor<([\dx]+)xf32>\) -> tensor<[\dx]+xbf16>", text)
  )
  assert not any(map(found, lower(step, params, *inputs).values()))
  # What normalisations hold stays as it is.
  kept = [leaf.dtype == np.float32 for leaf in jax.tree.leaves(unet)]
  assert 0 < sum(kept) < len(kept) / 2
  if (size, guidance) == ("paper", 0.0):
    whole = params | {"unet": jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.float32), unet)}
    (text,) = lower(step, whole, *inputs, platforms=("cuda",)).values()
    assert len(found(text)) > 5


def test_flow():
  frames = jax.ShapeDtypeStruct((4, 160, 256, 3), np.float32)
  mesh = Mesh(np.asarray(jax.devices()[:1]), ("targets",))
  block = lambda reference, targets: estimate._estimate_block(
    reference, targets, settings=estimate.DEFAULT, mesh=mesh)
  for text in lower(block, jax.ShapeDtypeStruct(frames.shape[1:], np.float32), frames).values():
    assert "tensor<4x160x256x" in text  # all targets together


@pytest.mark.parametrize("is_trained", [False, True])
def test_blocks_of_frames(is_trained):
  shown, number = (288, 512), 8
  grid = motion_size(*shown)
  float32 = lambda *shape: jax.ShapeDtypeStruct(shape, np.float32)
  volume = SpectralVolume(float32(16, 80, 128, 4))
  series, depth = jax.eval_shape(
    lambda volume: rendering._lay_out(
      volume, np.float32(1), height=grid[0], width=grid[1], anchor_first_frame=True), volume)
  image, depth = jax.eval_shape(rendering._extend._function, float32(*grid, 3), depth)
  lattice = jax.ShapeDtypeStruct((DENSITY**2 * count_room(*shown),), np.uint32)
  photo = MovingPhoto(lattice, np.array(shown, np.int32), image, depth)
  model = network = None
  if is_trained:
    config = parse(TrainSettings, roofline.get_config("renderer", "paper"))
    model = make_renderer(config.model)
    params, batch = roofline.make_shapes(config, 1)
    inputs = params, like(batch["image"]), batch["depth"], float32(1, model.config.style_dim)
    look = lambda params, *inputs: rendering._look._function(model, params, *(array[0] for array in inputs))
    network = jax.eval_shape(look, *inputs)
  mesh = Mesh(np.asarray(jax.devices()[:1]), ("frames",))
  block = lambda network, photo, series, times: rendering._render_frames(
    model, network, photo, series, times, mesh=mesh, num_frames=150, anchor_first_frame=True)
  height, width = (side + 2 * moving_photo.MARGIN for side in grid)
  for text in lower(block, network, photo, series, float32(number)).values():
    assert f"tensor<{number}x{height}x{width}x" in text and "xui8>" in text


def test_splatting_with_gradients():
  values, flow = (jax.ShapeDtypeStruct((160, 256, channels), np.float32) for channels in (16, 2))
  depth = jax.ShapeDtypeStruct((160, 256), np.float32)
  loss = lambda *inputs: splat.softmax_splat(*inputs)[0].sum()
  for text in lower(jax.grad(loss, argnums=(0, 1, 2)), values, flow, depth).values():
    assert text.count("stablehlo.scatter") >= 2
    assert math.prod((160 + 3, 256 + 3)) == 42217 and "tensor<42217x17xf32>" in text  # sums are of float32
