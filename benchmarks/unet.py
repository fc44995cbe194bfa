"""Claim: the U-Net is as fast as diffusers' PyTorch one on the same cores.

  python -m benchmarks.unet [--size default|paper] [--what forward|train|all] [--bands N] [--repetitions 5] [--kinds]

The same weights, shapes, cores and run for both, float32; the two take turns, and the median, the best and the median
of the pairs' ratios are printed, with how far the two outputs differ and the processor time of all cores together. Each
side's compile time and peak memory come from a process of its own. A train step is the mean squared error, the
gradients of all parameters and an Adam update.
`--kinds` adds the time by kind of operation, from both libraries' profilers; ours run partly side by side, so that
their sum is more than the step. Needs `torch` and `diffusers`; run it on an otherwise idle machine.
"""

import argparse
import collections
import importlib.util
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Kinds of operation, and by what they are known: in the names of PyTorch's operators, and in our modules' names.
KINDS = (
  ("norm and SiLU", r"group_norm|silu", r"norm"),
  ("attention and dense", r"scaled_dot|addmm|::mm|bmm", r"attention|embedding"),
  ("convolution", r"convolution", r"conv|shortcut"),
  ("optimiser", r"foreach|lerp|addc", r"^jit\(train\)/[a-z_]+$"),
)


def make_problem(size, bands):
  """Inputs of both models and the sizes of the U-Net, for one size of configs/common.py."""
  import numpy as np

  from configs.common import MOTION_STRIDES, motion_model
  from gid_jax.configuration import ModelSettings
  from gid_jax.models.codec import make_codec
  from gid_jax.parsing import parse

  config = parse(ModelSettings, motion_model(size, coordination=""))
  codec = make_codec(config.codec, num_bands=config.num_bands)
  height, width = (side // (MOTION_STRIDES[size] * codec.factor) for side in config.image_size)
  fields = dict(config.denoiser.fields) | {"dtype": "float32", "out_channels": codec.latent_channels}
  rng = np.random.default_rng(0)
  latents = rng.normal(size=(1, bands, height, width, fields["out_channels"])).astype(np.float32)
  condition = rng.normal(size=(1, height, width, config.encoder.fields["channels"])).astype(np.float32)
  timesteps, indices = rng.integers(0, 1000, (1, bands)), np.arange(bands)[None]
  return fields, (latents, timesteps, indices, condition)


class Ours:
  """Our U-Net: `forward()` and `train()` wait until the work is done."""

  name = "gid_jax"

  def __init__(self, size, bands):
    import jax
    import optax

    from gid_jax.models.unet import UNet

    fields, self.inputs = make_problem(size, bands)
    self.model = UNet(**fields)
    self.params = jax.device_put(make_params(self.model, self.inputs))
    self.inputs = jax.device_put(self.inputs)
    self.tx = optax.adam(1e-4)
    self.opt_state = None
    self.programs = {}

  def compile(self, what):
    """Compiles one of the two programs; returns the seconds that it took."""
    import jax
    import optax

    def forward(params, *inputs):
      return self.model.apply({"params": params}, *inputs)

    def train(params, opt_state, *inputs):
      loss = lambda params: ((forward(params, *inputs) - inputs[0]) ** 2).mean()
      value, gradient = jax.value_and_grad(loss)(params)
      updates, opt_state = self.tx.update(gradient, opt_state, params)
      return optax.apply_updates(params, updates), opt_state, value

    started = time.monotonic()
    if what == "forward":
      lowered = jax.jit(forward).lower(self.params, *self.inputs)
    else:
      self.opt_state = jax.jit(self.tx.init)(self.params)
      lowered = jax.jit(train, donate_argnums=(0, 1)).lower(self.params, self.opt_state, *self.inputs)
    self.programs[what] = lowered.compile()
    return time.monotonic() - started

  def forward(self):
    """One prediction of all bands."""
    return self.programs["forward"](self.params, *self.inputs).block_until_ready()

  def train(self):
    """One update; returns the loss."""
    self.params, self.opt_state, loss = self.programs["train"](self.params, self.opt_state, *self.inputs)
    return loss.block_until_ready()


class Diffusers:
  """diffusers' U-Net with the same inputs."""

  name = "diffusers"

  def __init__(self, size, bands, state_dict=None):
    import diffusers
    import numpy as np
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    fields, (latents, timesteps, indices, condition) = make_problem(size, bands)
    levels = range(len(fields["multipliers"]))
    attends = [level in fields["attention_levels"] for level in levels]
    torch.manual_seed(0)
    self.model = diffusers.UNet2DModel(
      in_channels=latents.shape[-1] + condition.shape[-1],
      out_channels=fields["out_channels"],
      block_out_channels=tuple(fields["channels"] * multiplier for multiplier in fields["multipliers"]),
      layers_per_block=fields["num_blocks"],
      down_block_types=tuple("AttnDownBlock2D" if attend else "DownBlock2D" for attend in attends),
      up_block_types=tuple("AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)),
      attention_head_dim=fields["head_channels"],
      norm_num_groups=fields["groups"],
      norm_eps=1e-5,
      class_embed_type="timestep",
    )
    if state_dict is not None:
      self.model.load_state_dict({name: torch.tensor(np.asarray(value)) for name, value in state_dict.items()})
    images = np.concatenate([latents[0], np.broadcast_to(condition, (bands, *condition.shape[1:]))], axis=-1)
    self.target = torch.tensor(latents[0].transpose(0, 3, 1, 2).copy())
    self.inputs = (
      torch.tensor(images.transpose(0, 3, 1, 2).copy()),
      torch.tensor(timesteps[0]),
      torch.tensor(indices[0]),
    )
    self.optimizer = None

  def compile(self, what):
    """Nothing to compile; the optimiser is made here."""
    import torch

    if what == "train":
      self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4)
    return 0.0

  def _predict(self):
    images, timesteps, indices = self.inputs
    return self.model(images, timesteps, class_labels=indices).sample

  def forward(self):
    """One prediction of all bands."""
    import torch

    with torch.inference_mode():
      return self._predict()

  def train(self):
    """One update; returns the loss."""
    loss = ((self._predict() - self.target) ** 2).mean()
    self.optimizer.zero_grad()
    loss.backward()
    self.optimizer.step()
    return loss.detach()


def make_params(model, inputs):
  """Random parameters without compiling an initialiser: nothing is zero."""
  import jax
  import numpy as np

  shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
  rng = np.random.default_rng(0)

  def fill(path, leaf):
    values = rng.standard_normal(leaf.shape, dtype=np.float32)
    if path[-1].key == "scale":
      return 1 + 0.1 * values
    return values * np.float32(0.1 if leaf.ndim < 2 else 1 / np.sqrt(np.prod(leaf.shape[:-1])))

  return jax.tree_util.tree_map_with_path(fill, shapes)


def measure_alone(side, size, what, bands):
  """Compile time [s] and peak memory [MiB] of one side in a process of its own."""
  command = [sys.executable, __file__, "--size", size, "--what", what, "--bands", str(bands), "--alone", side.name]
  environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
  return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout)


def run_alone(name, size, what, bands):
  """The child's half of `measure_alone`."""
  side = {side.name: side for side in (Ours, Diffusers)}[name](size, bands)
  seconds = side.compile(what)
  for _ in range(2):
    getattr(side, what)()
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
  print(json.dumps({"compile": seconds, "peak": peak}))


def profile_diffusers(side, what):
  """Milliseconds of one call by kind of operation."""
  from torch.profiler import ProfilerActivity, profile

  with profile(activities=[ProfilerActivity.CPU]) as run:
    getattr(side, what)()
  total = collections.Counter()
  for event in run.key_averages():
    kind = next((kind for kind, pattern, _ in KINDS if re.search(pattern, event.key)), "other")
    total[kind] += event.self_cpu_time_total / 1e3
  return total


def profile_ours(side, what):
  """Milliseconds of one call by kind of operation; a fused operation goes by the name of the last module in it."""
  import jax

  computation, inside, names = "", {}, {}
  for line in side.programs[what].as_text().splitlines():
    if line.endswith("{"):
      computation = line.split(" ")[0].removeprefix("%")
    found = re.search(r'op_name="([^"]*)"', line)
    if found:
      inside[computation] = found[1]
    instruction = re.match(r"\s*(?:ROOT )?%([\w.\-]+) = ", line)
    if instruction:
      called = re.search(r"calls=%([\w.\-]+)", line)
      names[instruction[1]] = found[1] if found else inside.get(called[1], "") if called else ""
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      getattr(side, what)()
    data = jax.profiler.ProfileData.from_file(str(next(Path(folder).rglob("*.xplane.pb"))))
  total = collections.Counter()
  for event in (event for plane in data.planes for line in plane.lines for event in line.events):
    if event.name in names:
      path = names[event.name]
      kind = next((kind for kind, _, pattern in KINDS if re.search(pattern, path)), "other")
      total[kind] += event.duration_ns / 1e6
  return total


def main():
  """Measures and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--size", choices=("default", "paper"), default="default")
  parser.add_argument("--what", choices=("forward", "train", "all"), default="all")
  parser.add_argument("--bands", type=int, help="16, and 2 for training at the paper's size")
  parser.add_argument("--repetitions", type=int, default=5)
  parser.add_argument("--kinds", action="store_true")
  parser.add_argument("--alone", help=argparse.SUPPRESS)
  options = parser.parse_args()
  missing = [name for name in ("torch", "diffusers") if importlib.util.find_spec(name) is None]
  if missing:
    sys.exit(f"the peer needs {' and '.join(missing)}: pip install '.[parity]'")
  for what in ("forward", "train") if options.what == "all" else (options.what,):
    bands = options.bands or (2 if (options.size, what) == ("paper", "train") else 16)
    if options.alone:
      run_alone(options.alone, options.size, what, bands)
    else:
      compare(options.size, what, bands, options.repetitions, kinds=options.kinds)


def compare(size, what, bands, repetitions, *, kinds):
  """Measures one size and program, and prints its part of the table."""
  import jax
  import numpy as np

  from gid_jax.weights.convert import unet_to_tensors

  alone = [measure_alone(side, size, what, bands) for side in (Ours, Diffusers)]
  ours = Ours(size, bands)
  theirs = Diffusers(size, bands, unet_to_tensors(ours.model, jax.device_get(ours.params), naming="diffusers"))
  sides, seconds, busy = (ours, theirs), ([], []), ([], [])
  for side in sides:
    side.compile(what)
  first, second = (np.asarray(getattr(side, what)()) for side in sides)
  if what == "forward":
    second = second.transpose(0, 2, 3, 1)[None]
  error = np.abs(first - second).max() / np.abs(second).max()
  for _ in range(repetitions):
    for side, times, processor in zip(sides, seconds, busy, strict=True):
      started, used = time.monotonic(), time.process_time()
      getattr(side, what)()
      times.append(time.monotonic() - started)
      processor.append(time.process_time() - used)
  ratio = statistics.median(mine / other for mine, other in zip(*seconds, strict=True))
  best = min(seconds[0]) / min(seconds[1])
  print(f"{size} {what}, {bands} bands: ratio {ratio:.2f}, of the best times {best:.2f}; difference {error:.1e}")
  for side, times, processor, one in zip(sides, seconds, busy, alone, strict=True):
    print(
      f"  {side.name:10} {statistics.median(times):8.3f} s (best {min(times):.3f} s)"
      f"   processor {statistics.median(processor):8.3f} s"
      f"   peak {one['peak']:7.0f} MiB   compile {one['compile']:5.1f} s"
    )
  if kinds:
    rows = [profile_ours(ours, what), profile_diffusers(theirs, what)]
    for kind in (*(kind for kind, _, _ in KINDS), "other"):
      print(f"  {kind:22} {rows[0][kind]:9.1f} ms {rows[1][kind]:9.1f} ms")


if __name__ == "__main__":
  main()
