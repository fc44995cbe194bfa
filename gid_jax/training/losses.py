"""What the stages minimise, one function a term, and the weighted sum of them.

Terms are pure and return one number for a global batch. `weigh` adds them up and reports each of them.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gid_jax.errors import UserError
from gid_jax.models.vgg16 import VGG16_LAYER_WEIGHTS, VGG16_LAYERS, vgg16_features
from gid_jax.types import AnyArray, Metrics


def weigh(terms: Mapping[str, Array], weights: Mapping[str, float]) -> tuple[Array, Metrics]:
  """Adds up weights[name] * terms[name] in the order of `terms`, first plus second, plus third, and so on.

  Args:
    terms: name -> term, [] each. One without a weight is only reported.
    weights: name -> factor.
  Returns:
    The loss [], and the metrics: the loss as "loss", and every term, unweighted, under its name.
  Raises:
    UserError: a weight whose name no term has.
  """
  unknown = [name for name in weights if name not in terms]
  if unknown:
    raise UserError(f"loss weight {unknown[0]!r}: there is no such term; weigh some of {', '.join(terms)}")
  weighted = [weights[name] * term for name, term in terms.items() if name in weights]
  loss = sum(weighted[1:], start=weighted[0]) if weighted else jnp.zeros(())
  return loss, {"loss": loss, **terms}


def l1(output: Float[AnyArray, "*b c"], target: Float[AnyArray, "*b c"]) -> Float[Array, ""]:
  """Mean absolute error of [*b c], in the unit of its inputs (sections 4.1 and 5)."""
  return jnp.abs(output - target).mean()


def l1_within(
  output: Float[AnyArray, "b h w c"], target: Float[AnyArray, "b h w c"], mask: Float[AnyArray, "b h w 1"]
) -> Float[Array, ""]:
  """Mean absolute error of [b h w c] where a mask [b h w 1] is 1 and not 0; mean over the examples."""
  errors = (jnp.abs(output - target) * mask).mean(-1).sum((1, 2))
  return (errors / jnp.maximum(jnp.sum(mask, (1, 2, 3)), 1.0)).mean()


def gradient_consistency(
  output: Float[AnyArray, "b h w c"], target: Float[AnyArray, "b h w c"], *, num_scales: int
) -> Float[Array, ""]:
  """Mean absolute difference of the spatial gradients at several scales (multi-scale gradient consistency, 4.1).

  Args:
    output: [b h w c], any channels.
    target: [b h w c].
    num_scales: at scale s both are averaged over 2^s x 2^s pixels before the finite differences in x and y.
  Returns:
    The mean over the scales of mean |dx error| + mean |dy error|, per pixel of each scale.
  Raises:
    UserError: the coarsest scale has a side of less than two pixels.
  """
  _, h, w, _ = output.shape
  if min(h, w) >> (num_scales - 1) < 2:
    raise UserError(f"gradient_consistency: {num_scales} scales do not fit in {h} x {w} pixels; use fewer scales.")
  # Averages and differences are linear, so they may act on the error itself.
  error, total = output - target, jnp.zeros(())
  for scale in range(num_scales):
    if scale > 0:
      error = _halve(error)
    total += jnp.abs(jnp.diff(error, axis=2)).mean() + jnp.abs(jnp.diff(error, axis=1)).mean()
  return total / num_scales


def kl(mean: Float[AnyArray, "b h w c"], log_variance: Float[AnyArray, "b h w c"]) -> Float[Array, ""]:
  """KL divergence of N(mean, exp(log_variance)) from the unit normal, in nats (section 4.1).

  Summed over the latent [h w c] of an example and averaged over the batch.
  """
  return 0.5 * (mean**2 + jnp.exp(log_variance) - 1.0 - log_variance).sum(axis=(1, 2, 3)).mean()


def denoising_error(output: Float[AnyArray, "*b c"], target: Float[AnyArray, "*b c"]) -> Float[Array, ""]:
  """Mean square error of [*b c], the network's output against what the schedule has it predict (section 4)."""
  return ((output - target) ** 2).mean()


def perceptual(
  vgg_params: Mapping[str, Mapping[str, AnyArray]],
  output: Float[AnyArray, "b h w 3"],
  target: Float[AnyArray, "b h w 3"],
  *,
  layers: Sequence[str] = VGG16_LAYERS,
  weights: Sequence[float] = VGG16_LAYER_WEIGHTS,
) -> Float[Array, ""]:
  """VGG16 perceptual distance: weighted mean over layers of the mean absolute difference (section 5).

  Args:
    vgg_params: from `gid_jax.models.vgg16.vgg16_params`.
    output: [b h w 3] RGB in [0, 1].
    target: [b h w 3] RGB in [0, 1]; no gradient flows into it.
    layers: names for `vgg16_features`.
    weights: one factor per layer; the default brings all layers of the Keras weights to the same size.
  """
  predicted = vgg16_features(vgg_params, output, layers=layers)
  wanted = vgg16_features(vgg_params, jax.lax.stop_gradient(target), layers=layers)
  terms = [w * jnp.mean(jnp.abs(p - t)) for w, p, t in zip(weights, predicted, wanted, strict=True)]
  return jnp.stack(terms).mean()


def psnr(output: Float[AnyArray, "b h w 3"], target: Float[AnyArray, "b h w 3"]) -> Float[Array, ""]:
  """Peak signal-to-noise ratio in dB, mean over the batch of [b h w 3] RGB, at most 80; `output` is clipped to [0, 1].

  A figure to watch, not to train on.
  """
  mse = ((jnp.clip(output, 0, 1) - target) ** 2).mean(axis=(1, 2, 3))
  return (-10 * jnp.log10(mse + 1e-8)).mean()


def psnr_within(
  output: Float[AnyArray, "b h w 3"], target: Float[AnyArray, "b h w 3"], mask: Float[AnyArray, "b h w 1"]
) -> Float[Array, ""]:
  """`psnr` of [b h w 3] where a mask [b h w 1] is 1 and not 0."""
  squares = (((jnp.clip(output, 0.0, 1.0) - target) ** 2) * mask).mean(-1).sum((1, 2))
  mse = squares / jnp.maximum(jnp.sum(mask, (1, 2, 3)), 1.0)
  return (-10 * jnp.log10(mse + 1e-8)).mean()


def _halve(x: AnyArray) -> AnyArray:
  """Means of 2x2 blocks of [b h w c], dropping an odd last row or column."""
  b, h, w, c = x.shape
  return x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))
