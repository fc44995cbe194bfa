"""The costly operations of the networks, without parameters, in forms that are fast on CPUs too.

Each gives the numbers of the plain form to float32 rounding; `benchmarks/unet.py` compares their speed with PyTorch's.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SYMMETRIC = ((1, 1), (1, 1))
_LARGE_KERNEL = 2**22  # numbers in a kernel that no cache holds
_NARROW = 64  # channels, of input or output, that leave one core to work alone


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def group_norm(
  x: Float[Array, "b *n c"],
  scale: Float[Array, "c"],
  bias: Float[Array, "c"],
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
    y = y * jax.nn.sigmoid(y)
  return y.astype(x.dtype).reshape(x.shape), (x, mean, inverse, scale, bias)


def _group_norm_gradient(groups, epsilon, silu, saved, slope):
  x, mean, inverse, scale, bias = saved
  normalized = (_flatten(x) - mean[:, None]) * inverse[:, None]
  group_mean = functools.partial(_group_mean, groups=groups, size=normalized.shape[1])
  slope = _flatten(slope)
  if silu:
    y = normalized * scale + bias
    gate = jax.nn.sigmoid(y)
    slope = slope * gate * (1 + y * (1 - gate))
  bias_slope, scale_slope = slope.sum(axis=1), (slope * normalized).sum(axis=1)
  offset, along = group_mean(bias_slope * scale), group_mean(scale_slope * scale)
  x_slope = (slope * scale - offset[:, None] - normalized * along[:, None]) * inverse[:, None]
  return x_slope.astype(x.dtype).reshape(x.shape), scale_slope.sum(axis=0), bias_slope.sum(axis=0)


group_norm.defvjp(_group_norm, _group_norm_gradient)


def _flatten(x):
  # [b ... c] to [b n c] in float32.
  return x.reshape(x.shape[0], -1, x.shape[-1]).astype(jnp.float32)


def _group_mean(sums, *, groups, size):
  # Sums [b c] over `size` pixels to the mean of each channel's group, [b c].
  b, c = sums.shape
  means = sums.reshape(b, groups, c // groups).sum(axis=-1) / (size * (c // groups))
  return jnp.repeat(means, c // groups, axis=-1)


@jax.custom_vjp
def convolve(x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c c2"]) -> Float[Array, "b h w c2"]:
  """Convolution of [b h w c] with a kernel [3 3 c c2] and zeros around, which keeps the size.

  The same numbers as `jax.lax.conv_general_dilated`, in whichever of several forms suits the shapes. A kernel much
  larger than the image goes through a matrix product, which reads it in place; a convolution rearranges it, and for the
  input's gradient transposes it, which takes longer than the products. With few channels two rows are made at once:
  a CPU's convolutions are split between cores by output channels, and few of them leave all but one idle.
  """
  return _convolve(x, kernel)


def _convolve(x, kernel):
  b, h, w, _ = x.shape
  features = kernel.shape[-1]
  if _is_large(kernel, h * w):
    return _patches(x) @ kernel.reshape(-1, features)
  if min(x.shape[-1], features) > _NARROW or h % 2:
    return _convolve_as_told(x, kernel, dimensions=("NHWC", "HWIO", "NHWC"))
  none = jnp.zeros_like(kernel[:1])
  both = jnp.concatenate([jnp.concatenate([kernel, none]), jnp.concatenate([none, kernel])], axis=-1)
  rows = _convolve_as_told(x, both, dimensions=("NHWC", "HWIO", "NHWC"), strides=(2, 1))
  return rows.reshape(b, h // 2, w, 2, features).transpose(0, 1, 3, 2, 4).reshape(b, h, w, features)


def _convolve_forward(x, kernel):
  return _convolve(x, kernel), (x, kernel)


def _convolve_gradient(saved, slope):
  x, kernel = saved
  h, w, c, features = *x.shape[1:], kernel.shape[-1]
  if h * w <= features:
    taps = jax.lax.dot_general(slope, kernel.reshape(-1, features), (((3,), (1,)), ((), ())))
    (x_slope,) = jax.vjp(_patches, x)[1](taps)
  else:
    x_slope = _convolve(slope, kernel[::-1, ::-1].swapaxes(2, 3))
  if _is_large(kernel, h * w):
    kernel_slope = jnp.einsum("bhwp,bhwo->po", _patches(x), slope).reshape(kernel.shape)
  elif c > features:
    # The wider of the two as the kernel.
    kernel_slope = _convolve_as_told(slope, x, dimensions=("CHWN", "IHWO", "NHWC"))[:, ::-1, ::-1].transpose(1, 2, 3, 0)
  else:
    kernel_slope = _convolve_as_told(x, slope, dimensions=("CHWN", "IHWO", "NHWC")).transpose(1, 2, 0, 3)
  return x_slope, kernel_slope


convolve.defvjp(_convolve_forward, _convolve_gradient)


def _is_large(kernel, num_pixels):
  return num_pixels <= kernel.shape[-1] and kernel.size >= _LARGE_KERNEL


def _convolve_as_told(x, kernel, *, dimensions, strides=(1, 1)):
  return jax.lax.conv_general_dilated(x, kernel, strides, SYMMETRIC, dimension_numbers=dimensions)


def _patches(x):
  # [b h w c] to the 3x3 neighbourhood of each pixel, [b h w 9 c], flat.
  h, w = x.shape[1:3]
  padded = jnp.pad(x, ((0, 0), *SYMMETRIC, (0, 0)))
  return jnp.concatenate([padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)], axis=-1)


def convolve_repeated(x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c c2"]) -> Float[Array, "b h2 w2 c2"]:
  """Convolution, zeros around, of [b h w c] with every pixel repeated to two by two: [b 2h 2w c2].

  Of three taps in a row two always meet the same pixel, so that each of the four output phases is a convolution of the
  small image with a kernel of 2x2 sums: 16 products instead of 36.
  """
  b, h, w, _ = x.shape
  kernels = _sum_taps(kernel)

  def convolve_phase(row, column):
    padding = tuple((1 - phase, phase) for phase in (row, column))
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernels[row][column], (1, 1), padding, dimension_numbers=dimensions)

  rows = [jnp.stack([convolve_phase(row, column) for column in (0, 1)], axis=3) for row in (0, 1)]
  return jnp.stack(rows, axis=2).reshape(b, 2 * h, 2 * w, -1)


# Which of two neighbouring pixels each of the three taps meets, at even and at odd outputs.
_PIXEL_OF_TAP = ((0, 1, 1), (0, 0, 1))


@jax.custom_vjp
def _sum_taps(kernel):
  # [3 3 c c2] to the four kernels [2 2 c c2] of the output phases. Left to itself, the gradient pads every summand.
  def sum_phase(row, column):
    met = lambda phase, pixel: [tap for tap in range(3) if _PIXEL_OF_TAP[phase][tap] == pixel]
    sum_pixel = lambda y, x: sum(kernel[i, j] for i in met(row, y) for j in met(column, x))
    return jnp.stack([jnp.stack([sum_pixel(y, x) for x in (0, 1)]) for y in (0, 1)])

  return [[sum_phase(row, column) for column in (0, 1)] for row in (0, 1)]


def _sum_taps_gradient(_, slopes):
  def sum_phases(i, j):
    phases = [(row, column) for row in (0, 1) for column in (0, 1)]
    return sum(slopes[row][column][_PIXEL_OF_TAP[row][i], _PIXEL_OF_TAP[column][j]] for row, column in phases)

  return (jnp.stack([jnp.stack([sum_phases(i, j) for j in range(3)]) for i in range(3)]),)


_sum_taps.defvjp(lambda kernel: (_sum_taps(kernel), None), _sum_taps_gradient)


def dot_product_attention(
  queries: Float[Array, "b q n d"],
  keys: Float[Array, "b r n d"],
  values: Float[Array, "b r n d"],
  *,
  query_chunk: int = 128,
) -> Float[Array, "b q n d"]:
  """Attention of queries [b q n d] to keys and values [b r n d], n heads; softmax in float32.

  Queries are handled `query_chunk` at a time, also in the gradient: memory grows with one chunk's weights only, and
  they stay in the cache.
  """
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
