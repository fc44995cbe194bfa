"""The costly operations of the networks, without parameters, in forms that are fast on CPUs too.

Each gives the numbers of the plain form to float32 rounding; `benchmarks/unet.py` compares their speed with PyTorch's.
Accelerators get the plain forms of all but `group_norm`, whose form is the same everywhere.
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gid_jax.types import AnyArray

SYMMETRIC = ((1, 1), (1, 1))
_LARGE_KERNEL = 2**22  # numbers in a kernel that no cache holds
_LONELY = range(48, 65)  # output channels that leave all but one core idle, and are enough to be worth a detour


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def group_norm(
  x: Float[AnyArray, "b *n c"],
  scale: Float[AnyArray, "c"],
  bias: Float[AnyArray, "c"],
  groups: int,
  epsilon: float,
  silu: bool,
) -> Float[Array, "b *n c"]:
  """Normalises [b ... c] by groups of channels, then scales, shifts and, with `silu`, applies SiLU; float32 inside.

  Its gradient keeps nothing but the input and its statistics, and makes the rest again in one pass.
  """
  return _group_norm(x, scale, bias, groups, epsilon, silu)[0]


def _group_norm(x, scale, bias, groups, epsilon, silu):
  flat = _flatten(x)
  group_mean = functools.partial(_group_mean, groups=groups, size=flat.shape[1])
  # Pixels are summed first, which leaves the channels side by side. E[x^2] - E[x]^2 would lose all digits where a slice
  # hardly moves.
  mean = group_mean(flat.sum(axis=1))
  centered = flat - mean[:, None]
  inverse = jax.lax.rsqrt(group_mean(jnp.square(centered).sum(axis=1)) + epsilon)
  y = centered * (inverse * scale)[:, None] + bias
  if silu:
    y = y * _sigmoid(y)
  return y.astype(x.dtype).reshape(x.shape), (x, mean, inverse, scale, bias)


def _group_norm_gradient(groups, epsilon, silu, saved, slope):
  x, mean, inverse, scale, bias = saved
  normalized = (_flatten(x) - mean[:, None]) * inverse[:, None]
  group_mean = functools.partial(_group_mean, groups=groups, size=normalized.shape[1])
  slope = _flatten(slope)
  if silu:
    y = normalized * scale + bias
    gate = _sigmoid(y)
    slope = slope * (gate * (1 + y * (1 - gate)))
  bias_slope, scale_slope = slope.sum(axis=1), (slope * normalized).sum(axis=1)
  offset, along = group_mean(bias_slope * scale), group_mean(scale_slope * scale)
  x_slope = (slope * scale - offset[:, None] - normalized * along[:, None]) * inverse[:, None]
  return x_slope.astype(x.dtype).reshape(x.shape), scale_slope.sum(axis=0), bias_slope.sum(axis=0)


group_norm.defvjp(_group_norm, _group_norm_gradient)


def _sigmoid(x):
  # `jax.nn.sigmoid` takes twice as long on CPUs.
  return 1 / (1 + jnp.exp(-x))


def _flatten(x):
  # [b ... c] to [b n c] in float32.
  return x.reshape(x.shape[0], -1, x.shape[-1]).astype(jnp.float32)


def _group_mean(sums, *, groups, size):
  # Sums [b c] over `size` pixels to the mean of each channel's group, [b c].
  b, c = sums.shape
  means = sums.reshape(b, groups, c // groups).sum(axis=-1) / (size * (c // groups))
  return jnp.repeat(means, c // groups, axis=-1)


@jax.custom_vjp
def convolve(x: Float[AnyArray, "b h w c"], kernel: Float[AnyArray, "3 3 c c2"]) -> Float[Array, "b h w c2"]:
  """Convolution of [b h w c] with a kernel [3 3 c c2] and zeros around, which keeps the size.

  The same numbers as `jax.lax.conv_general_dilated`, which accelerators use as it is; CPUs have other forms for some
  shapes, and for the gradients.
  """
  return jax.lax.platform_dependent(x, kernel, cpu=_convolve, default=_convolve_plainly)


def _convolve_plainly(x, kernel, *, strides=(1, 1)):
  return jax.lax.conv_general_dilated(x, kernel, strides, SYMMETRIC, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _convolve(x, kernel):
  b, h, w, _ = x.shape
  features = kernel.shape[-1]
  if h * w <= features and kernel.size >= _LARGE_KERNEL:
    # A matrix product reads the kernel in place; a convolution rearranges it, which takes longer than the products.
    return _patches(x) @ kernel.reshape(-1, features)
  if features not in _LONELY or h % 2:
    return _convolve_plainly(x, kernel)
  # Two rows at once, as twice the features: work is split between cores by blocks of these, and here is only one.
  none = jnp.zeros_like(kernel[:1])
  both = jnp.concatenate([jnp.concatenate([kernel, none]), jnp.concatenate([none, kernel])], axis=-1)
  rows = _convolve_plainly(x, both, strides=(2, 1))
  return rows.reshape(b, h // 2, w, 2, features).transpose(0, 1, 3, 2, 4).reshape(b, h, w, features)


def _convolve_gradient(saved, slope):
  gradient_plainly = lambda x, kernel, slope: jax.vjp(_convolve_plainly, x, kernel)[1](slope)
  gradient = lambda x, kernel, slope: (_input_slope(kernel, slope), _kernel_slope(x, slope))
  return jax.lax.platform_dependent(*saved, slope, cpu=gradient, default=gradient_plainly)


convolve.defvjp(lambda x, kernel: (convolve(x, kernel), (x, kernel)), _convolve_gradient)


def _input_slope(kernel, slope):
  _, h, w, features = slope.shape
  if h * w > features:
    return _convolve(slope, kernel[::-1, ::-1].swapaxes(2, 3))
  taps = jax.lax.dot_general(slope, kernel.reshape(-1, features), (((3,), (1,)), ((), ())))
  x = jax.ShapeDtypeStruct((*slope.shape[:3], kernel.shape[2]), slope.dtype)
  return jax.linear_transpose(_patches, x)(taps)[0]


def _kernel_slope(x, slope):
  # A convolution over rows only, of images [h] whose channels are all the pixels of a row of all examples: long sums,
  # which the plain form, with the batch as channels, has not. The kernel's columns are features beside each other.
  b, h, w, c = x.shape
  shifted = jnp.pad(slope.transpose(1, 0, 2, 3), ((0, 0), (0, 0), (1, 1), (0, 0)))
  columns = jnp.concatenate([shifted[:, :, 2 - j : 2 - j + w] for j in range(3)], axis=-1)
  rows = x.transpose(3, 1, 0, 2).reshape(c, h, b * w)
  sums = jax.lax.conv_general_dilated(
    rows, columns.reshape(h, b * w, -1), (1,), SYMMETRIC[:1], dimension_numbers=("NWC", "WIO", "NWC")
  )
  return sums.reshape(c, 3, 3, -1).transpose(1, 2, 0, 3)


def _patches(x):
  # [b h w c] to the 3x3 neighbourhood of each pixel, [b h w 9 c], flat.
  h, w = x.shape[1:3]
  padded = jnp.pad(x, ((0, 0), *SYMMETRIC, (0, 0)))
  return jnp.concatenate([padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)], axis=-1)


@jax.custom_vjp
def convolve_repeated(x: Float[AnyArray, "b h w c"], kernel: Float[AnyArray, "3 3 c c2"]) -> Float[Array, "b h2 w2 c2"]:
  """Convolution, zeros around, of [b h w c] with every pixel repeated to two by two: [b 2h 2w c2].

  Of three taps in a row two always meet the same pixel, so that each of the four output phases is a convolution of the
  small image with a kernel of 2x2 sums: 16 products instead of 36. The gradient takes 9 for each of its two: every tap
  sees the output's slope moved by a pixel and summed over two by two. So do CPUs; accelerators repeat and convolve.
  """
  return jax.lax.platform_dependent(x, kernel, cpu=_convolve_phases, default=_convolve_repeated_plainly)


def _convolve_repeated_plainly(x, kernel):
  return _convolve_plainly(x.repeat(2, axis=1).repeat(2, axis=2), kernel)


def _convolve_phases(x, kernel):
  b, h, w, _ = x.shape

  def convolve_phase(row, column):
    padding = tuple((1 - phase, phase) for phase in (row, column))
    dimensions = ("NHWC", "HWIO", "NHWC")
    summed = _sum_taps(_sum_taps(kernel, row, axis=0), column, axis=1)
    return jax.lax.conv_general_dilated(x, summed, (1, 1), padding, dimension_numbers=dimensions)

  rows = [jnp.stack([convolve_phase(row, column) for column in (0, 1)], axis=3) for row in (0, 1)]
  return jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, -1)


def _sum_taps(kernel, phase, *, axis):
  # Three taps to two pixels: at even outputs the last two taps meet one pixel, at odd ones the first two.
  first, second, third = (jax.lax.slice_in_dim(kernel, tap, tap + 1, axis=axis) for tap in range(3))
  pixels = (first + second, third) if phase else (first, second + third)
  return jnp.concatenate(pixels, axis=axis)


def _convolve_repeated_gradient(saved, slope):
  gradient_plainly = lambda x, kernel, slope: jax.vjp(_convolve_repeated_plainly, x, kernel)[1](slope)
  return jax.lax.platform_dependent(*saved, slope, cpu=_phases_gradient, default=gradient_plainly)


def _phases_gradient(x, kernel, slope):
  b, h, w, c = x.shape
  phases = slope.reshape(b, h, 2, w, 2, -1)
  # [b h w 9 c2]: for each tap what reaches a pixel of the small image.
  rows = _sum_slopes(phases[:, :, 0], phases[:, :, 1], axis=1)
  taps = [tap for row in rows for tap in _sum_slopes(row[:, :, :, 0], row[:, :, :, 1], axis=2)]
  taps = jnp.concatenate(taps, axis=-1).reshape(b * h * w, -1)
  x_slope = taps @ kernel.transpose(0, 1, 3, 2).reshape(-1, c)
  kernel_slope = x.reshape(-1, c).T @ taps
  return x_slope.reshape(x.shape), kernel_slope.reshape(c, 3, 3, -1).transpose(1, 2, 0, 3)


def _sum_slopes(even, odd, *, axis):
  # Of an axis' even and odd outputs those that the first, the middle and the last tap take from each pixel.
  size = even.shape[axis]

  def move(slope, before):
    padding = [(0, 0)] * slope.ndim
    padding[axis] = (before, 1 - before)
    return jax.lax.slice_in_dim(jnp.pad(slope, padding), 1 - before, size + 1 - before, axis=axis)

  return move(even, 0) + odd, even + odd, even + move(odd, 1)


convolve_repeated.defvjp(lambda x, kernel: (convolve_repeated(x, kernel), (x, kernel)), _convolve_repeated_gradient)


def dot_product_attention(
  queries: Float[AnyArray, "b q n d"],
  keys: Float[AnyArray, "b r n d"],
  values: Float[AnyArray, "b r n d"],
  *,
  query_chunk: int = 128,
) -> Float[Array, "b q n d"]:
  """Attention of queries [b q n d] to keys and values [b r n d], n heads; softmax in float32.

  CPUs handle queries `query_chunk` at a time, also in the gradient: memory grows with one chunk's weights only, and
  they stay in the cache. Accelerators get JAX's own attention: cuDNN's, which never writes the weights, on NVIDIA GPUs
  for half-precision inputs with heads that it knows, and XLA's elsewhere.
  """
  branches = dict(cpu=functools.partial(_attend_in_chunks, query_chunk=query_chunk), default=_attend_plainly)
  if _fits_cudnn(queries, keys):
    branches["cuda"] = functools.partial(_attend_plainly, implementation="cudnn")
  return jax.lax.platform_dependent(queries, keys, values, **branches)


def _fits_cudnn(queries, keys):
  is_half = queries.dtype in (jnp.bfloat16, jnp.float16)
  has_known_heads = queries.shape[-1] % 8 == 0 and queries.shape[-1] <= 128
  # The gradient refuses odd numbers of queries or keys.
  return _has_cudnn() and is_half and has_known_heads and queries.shape[1] % 2 == keys.shape[1] % 2 == 0


def _has_cudnn():
  # JAX looks for cuDNN and the GPU when it traces, for whatever platform. So without an NVIDIA GPU it cannot be asked
  # for, and programs that are lowered for CUDA there have XLA's attention.
  device = jax.devices()[0]
  if device.platform != "gpu" or "cuda" not in device.client.platform_version:
    return False
  return float(device.compute_capability) >= 8


def _attend_plainly(queries, keys, values, *, implementation: Literal["xla", "cudnn"] = "xla"):
  return jax.nn.dot_product_attention(queries, keys, values, implementation=implementation)


def _attend_in_chunks(queries, keys, values, *, query_chunk):
  dtype, num_queries = queries.dtype, queries.shape[1]
  queries, keys, values = (x.transpose(0, 2, 1, 3) for x in (queries * queries.shape[-1] ** -0.5, keys, values))

  def attend(queries):
    logits = jnp.einsum("bnqd,bnrd->bnqr", queries, keys, preferred_element_type=jnp.float32)
    # The largest logit cancels out; its slope is none of the softmax's.
    weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
    total = weights.sum(axis=-1, keepdims=True)
    attended = jnp.einsum("bnqr,bnrd->bnqd", weights.astype(dtype), values, preferred_element_type=jnp.float32)
    return (attended / total).astype(dtype).transpose(0, 2, 1, 3)

  if num_queries <= 2 * query_chunk:
    return attend(queries)
  num_chunks = -(-num_queries // query_chunk)
  queries = jnp.pad(queries, ((0, 0), (0, 0), (0, num_chunks * query_chunk - num_queries), (0, 0)))
  b, n, _, d = queries.shape
  chunks = queries.reshape(b, n, num_chunks, query_chunk, d).transpose(2, 0, 1, 3, 4)
  attended = jax.lax.map(jax.checkpoint(attend), chunks)
  return attended.transpose(1, 0, 2, 3, 4).reshape(b, -1, n, d)[:, :num_queries]
