"""Claim: what steps of the large sizes compute and move, and the time that chips need for it at least.

  python -m benchmarks.roofline

Traces each step from shapes, as an accelerator gets it, and counts its convolutions and matrix products. Nothing is
measured, compiled or allocated. Chips are said to compute and to move at once, at the full rates of their data sheets.
"""

import functools
import importlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.extend
import numpy as np

from gid_jax.configuration import TrainSettings
from gid_jax.diffusion import prediction
from gid_jax.models.build import make_motion_model, make_renderer
from gid_jax.models.denoiser import cast_params
from gid_jax.parsing import parse
from gid_jax.train import make_optimizer
from gid_jax.training.objectives import make_objective
from gid_jax.training.train_state import create_train_state, train_step
from gid_jax.weights.pretrained import config_to_settings

# Stage, size and examples; size and weight of guidance.
TRAINED = (("vae", "paper", 8), ("ldm", "paper", 8), ("ldm_coordinated", "paper", 2), ("ldm", "large", 8),
           ("ldm_coordinated", "large", 2), ("renderer", "paper", 4), ("ldm", "inpainting_512", 4))  # fmt: skip
SAMPLED = (("paper", 1.75), ("paper", 0.0), ("large", 0.0), ("inpainting_512", 1.75))

class Chip(NamedTuple):
  """What a vendor's data sheet says of a chip: dense operations a second in bfloat16, and bytes a second of memory."""

  peak: float
  bandwidth: float


CHIPS = {
  "A100": Chip(312e12, 2.04e12),  # SXM, 80 GB
  "H100": Chip(989e12, 3.35e12),  # SXM
  "H200": Chip(989e12, 4.8e12),  # SXM
  "TPU v5e": Chip(197e12, 0.82e12),
}


class Work(NamedTuple):
  """What convolutions and matrix products take.

  Attributes:
    half: operations of those of bfloat16, twice the multiplications.
    single: of those of float32.
    num_bytes: operands and results of each, read and written once; attention's weights stay inside it.
  """

  half: float = 0.0
  single: float = 0.0
  num_bytes: float = 0.0

  @property
  def operations(self) -> float:
    """All of them."""
    return self.half + self.single

  def seconds(self, chip: Chip) -> tuple[float, float]:
    """The least (computing, moving) on a chip, in float32 at half the peak, as TensorFloat-32 is."""
    return (self.half + 2 * self.single) / chip.peak, self.num_bytes / chip.bandwidth


def find_chip(kind: str) -> Chip | None:
  """The chip that a device's kind names, such as "NVIDIA H200" or "TPU v5 lite"."""
  kind = kind.replace("v5 lite", "v5e")
  return next((chip for name, chip in CHIPS.items() if name in kind), None)


def count_bytes(tree: Any) -> int:
  """Bytes of a tree of arrays or shapes."""
  return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def count_work(function: Callable, *inputs: Any) -> Work:
  """What `function(*inputs)`, of arrays or shapes, takes in the forms of accelerators; loops as often as they run."""
  return _count(jax.make_jaxpr(function)(*inputs).jaxpr)


def _count(program) -> Work:
  total = Work()
  for equation in program.eqns:
    for part in _work_of(equation):
      total = Work(*(sum(pair) for pair in zip(total, part, strict=True)))
  return total


def _work_of(equation):
  name, params = equation.primitive.name, equation.params
  if name == "cond":
    yield _count(params["branches"][-1].jaxpr)  # where the platform decides, what is for CPUs comes before
  elif name == "scan":
    yield Work(*(params["length"] * amount for amount in _count(params["jaxpr"].jaxpr)))
  elif name in ("dot_general", "conv_general_dilated"):
    left, right, result = (variable.aval for variable in (*equation.invars, equation.outvars[0]))
    moved = [left, right, result]
    if name == "dot_general":
      (contracted, _), (batch, _) = params["dimension_numbers"]
      operations = 2 * result.size * math.prod(left.shape[axis] for axis in contracted)
      if len(batch) == 2:  # attention of the heads of examples
        moved.remove(max(moved, key=lambda array: array.size))
    else:
      taps = right.size // right.shape[params["dimension_numbers"].rhs_spec[0]]
      operations = 2 * result.size * taps / math.prod(params["lhs_dilation"])  # the rest of them are zeros
    is_half = max(left.dtype.itemsize, right.dtype.itemsize) == 2
    yield Work(operations * is_half, operations * (not is_half), sum(a.size * a.dtype.itemsize for a in moved))
  else:
    yield from map(_count, jax.extend.core.jaxprs_in_params(params))


def get_config(stage: str, size: str):
  """A stage of a size that begins with nothing, so that no file is read."""
  config = importlib.import_module(f"configs.{stage}").get_config(size)
  for name in config.init:
    config.init[name] = "nothing" if name == "swing" and config.init[name] else ""
  return config


def make_shapes(config, num):
  """(parameters, batch) of a stage as shapes, `num` examples."""
  height, width = config.model.image_size
  array = lambda *shape, dtype=np.float32: jax.ShapeDtypeStruct((num, *shape), dtype)
  key, photo = jax.random.key(0), array(height, width, 3)
  if config.stage == "renderer":
    model = make_renderer(config.model)
    batch = dict(image=photo, target=photo, flow=array(height, width, 2), depth=array(height, width))
    noise = array(model.config.style_dim)
    return jax.eval_shape(model.init, key, photo, batch["flow"], batch["depth"], noise)["params"], batch
  stride, bands = config.model.motion_stride, config.model.num_bands
  taken = {"vae": 1, "ldm": config.data.bands_per_example}.get(config.stage, bands)
  crop = config.data.crop or (height, width)
  slices, numbers = array(taken, crop[0] // stride, crop[1] // stride, 4), array(taken, dtype=np.int32)
  model = make_motion_model(config.model)
  if config.stage == "vae":
    drop = lambda shape: jax.ShapeDtypeStruct((num, *shape.shape[2:]), shape.dtype)
    batch = dict(slice=drop(slices), band=drop(numbers))
    init = functools.partial(model.init, method="reconstruct")
    return jax.eval_shape(init, key, key, batch["slice"], batch["band"])["params"], batch
  params = jax.eval_shape(model.init, key, slices, numbers, photo, numbers)["params"]
  strength = {"strength": array()} if config.data.strength else {}
  return params, dict(image=photo, slice=slices, band=numbers) | strength


def make_step(stage: str, size: str, number: int) -> tuple[Callable, tuple]:
  """A train step of `number` examples and its arguments (key, state, batch) as shapes."""
  config = parse(TrainSettings, get_config(stage, size))
  params, batch = make_shapes(config, number)
  scale = np.ones(config.model.num_bands, np.float32) if stage == "vae" else None
  objective, tx = make_objective(config, band_scale=scale), make_optimizer(config.optimizer)
  state = jax.eval_shape(functools.partial(create_train_state, trainable=objective.trainable, tx=tx), params)
  step = functools.partial(train_step, loss_fn=objective.loss_fn, tx=tx, ema_decay=config.ema_decay)
  return step, (jax.eval_shape(lambda: jax.random.key(0)), state, batch)


def cast_shapes(model: Any, params: Any) -> Any:
  """The shapes of a motion model's parameters with the types that sampling casts them to."""
  name = model.denoiser_name
  return params | {name: jax.eval_shape(functools.partial(cast_params, model.make_denoiser()), params[name])}


def make_sampler(size: str, guidance: float) -> tuple[Callable, tuple]:
  """One sampling step, and its arguments as shapes."""
  config = get_config("ldm_coordinated", size)
  settings = config_to_settings(config.to_dict())
  model, (height, width) = make_motion_model(settings.model), settings.model.image_size
  params, batch = make_shapes(parse(TrainSettings, config), 1)
  plan = prediction._plan(model, settings, height, width, steps=None, guidance=guidance, loop=False)
  encode = lambda params, image: prediction._encode_image(model, params, image[0], *plan.shape[1:3])
  view = jax.eval_shape(encode, params, batch["image"])
  seeds = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0)[None]))
  options = dict(impl="threefry2x32", **plan.options)
  begin = lambda seeds: prediction._begin(seeds, impl=options["impl"], shape=plan.shape)
  cast = cast_shapes(model, params)

  def step(params, seeds, draw, view):
    weights = plan.weights
    return prediction._step(model, params, plan.schedule, seeds, draw, view, *weights, plan.take(0), **options)

  return step, (cast, *jax.eval_shape(begin, seeds), view)


def main() -> None:
  """Prints the table of `docs/accelerators.md`."""
  names = " | ".join(CHIPS)
  print(f"| step | TFLOP | of float32 | GB | {names} |\n|---|---|---|---|{'---|' * len(CHIPS)}")

  def print_row(what: str, work: Work) -> None:
    # Computing and moving at once at best: the longer of the two.
    times = [1e3 * max(work.seconds(chip)) for chip in CHIPS.values()]
    limits = ["" if max(work.seconds(chip)) == work.seconds(chip)[0] else " (memory)" for chip in CHIPS.values()]
    cells = " | ".join(f"{time:.2f} ms{limit}" for time, limit in zip(times, limits, strict=True))
    share = work.single / work.operations
    print(f"| {what} | {work.operations / 1e12:.2f} | {share:.0%} | {work.num_bytes / 1e9:.1f} | {cells} |", flush=True)

  for size, guidance in SAMPLED:
    step, inputs = make_sampler(size, guidance)
    print_row(f"sampling, `{size}`, {'guided' if guidance else 'unguided'}", count_work(step, *inputs))
  for stage, size, number in TRAINED:
    step, inputs = make_step(stage, size, number)
    work = count_work(step, *inputs)
    # The state is read and written whole, by no product.
    work = work._replace(num_bytes=work.num_bytes + 2 * count_bytes(inputs[1].replace(frozen={})))
    print_row(f"training, `{stage}:{size}`, {number} examples", work)


if __name__ == "__main__":
  main()
