"""What the plate network learns: to close holes that were cut into photos (section 5; Zhao et al. 2021)."""

import functools
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float

from gid_jax.configuration import PlateSettings, TrainSettings, expect_model
from gid_jax.models.build import make_plate_network
from gid_jax.models.vgg16 import vgg16_params
from gid_jax.training.losses import gradient_consistency, l1_within, perceptual, psnr_within, weigh
from gid_jax.training.objective import Objective, Terms, blank, overlay
from gid_jax.training.sharding import init_params
from gid_jax.types import Batch, Metrics, Params, PRNGKey


class Filled(NamedTuple):
  """What the plate's terms see: the filled photo [b h w 3], the photo without holes, and the holes [b h w 1]."""

  output: Float[Array, "b h w 3"]
  target: Float[Array, "b h w 3"]
  hole: Float[Array, "b h w 1"]


def make_plate_objective(settings: TrainSettings, *, terms: Terms | None = None) -> Objective:
  """Photos [b h w 3] with holes [b h w 1] to be closed.

  Terms: "hole", the mean absolute error inside the holes, and "structure", of the whole picture: distance of VGG16
  features where `config.loss.vgg` names its file, else of gradients.
  """
  model, loss = make_plate_network(expect_model(PlateSettings, settings)), settings.loss
  start = settings.init.get("plate", "")
  if loss.vgg:
    compare = functools.partial(perceptual, vgg16_params(loss.vgg))
  else:
    compare = functools.partial(gradient_consistency, num_scales=loss.gradient_scales)
  known: Terms = {
    "hole": lambda seen: l1_within(seen.output, seen.target, seen.hole),
    "structure": lambda seen: compare(seen.output, seen.target),
  } | dict(terms or {})

  def initialize(key, batches):
    first = next(iter(batches))
    # Its parameters have the same shapes for every size of photo, and a small one compiles sooner.
    batch = blank({name: first[name][:1] for name in ("image", "hole")})
    params = init_params(model.init, key, batch["image"], batch["hole"], batch=first)
    return overlay(params, start, stages=("plate",))[0] if start else params

  def describe(batch):
    return jax.eval_shape(model.init, jax.random.key(0), batch["image"], batch["hole"])["params"]

  def loss_fn(key: PRNGKey, params: Params, batch: Batch) -> tuple[jax.Array, Metrics]:
    del key  # nothing is drawn
    output: Any = model.apply({"params": params}, batch["image"], batch["hole"])
    seen = Filled(output, batch["image"], batch["hole"])
    total, metrics = weigh({name: term(seen) for name, term in known.items()}, loss.weights)
    return total, metrics | {"psnr": psnr_within(*seen)}

  return Objective(initialize, describe, lambda path: True, loss_fn, start)
