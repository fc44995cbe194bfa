"""Claim: what an accelerator takes for everything that is costly, and how near that is to its peak.

  python -m benchmarks.accelerator [--output accelerator.json] [--seconds 450] [--only flow training ...] [--tiny]

Measures, one after the other: pairs of optical flow a second; the U-Net of `paper` forward, and a train step, with the
share of the peak that they reach; a guided and an unguided sampling step; a photo to 150 frames; frames a second at
four sizes; splatting, beside the same in PyTorch where that has CUDA. What fails, such as for want of memory, leaves
the rest; what has not begun after `--seconds` is left out. Prints a table in Markdown, and writes JSON after each.
Numbers are random but for the photo and the embedded weights. `--tiny` shows on any machine that all of it runs.
What chips need at least, `python -m benchmarks.roofline` counts.
"""

import argparse
import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

import gid_jax
from benchmarks.render import measure
from benchmarks.roofline import (
  Work,
  cast_shapes,
  count_work,
  find_chip,
  get_config,
  make_sampler,
  make_shapes,
  make_step,
)
from gid_jax.configuration import TrainSettings
from gid_jax.devices import configure_jax
from gid_jax.diffusion import prediction
from gid_jax.flow.estimate import estimate_flow
from gid_jax.media.photos import read_image
from gid_jax.models.build import make_motion_model
from gid_jax.motion import splat
from gid_jax.parsing import parse
from gid_jax.pipeline import Animator
from gid_jax.weights.pretrained import config_to_settings

Row = tuple[str, str, float]  # what, unit, value


def make_numbers(shapes: Any) -> Any:
  """Small random numbers of these shapes and types, made on the device; whole numbers are 0."""
  leaves, tree = jax.tree.flatten(shapes)

  def make(key):
    is_real = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating)
    draw = lambda i, leaf: 0.02 * jax.random.normal(jax.random.fold_in(key, i), leaf.shape, leaf.dtype)
    return [draw(i, leaf) if is_real(leaf) else jnp.zeros(leaf.shape, leaf.dtype) for i, leaf in enumerate(leaves)]

  return jax.tree.unflatten(tree, jax.jit(make)(jax.random.key(0, impl="rbg")))


def take_time(function: Callable, *, least: float) -> float:
  """Seconds of a call, the median of three or of so many as take `least` seconds; the first is not counted."""
  times: list[float] = []
  jax.block_until_ready(function())
  while len(times) < 3 or sum(times) < least:
    started = time.perf_counter()
    jax.block_until_ready(function())
    times.append(time.perf_counter() - started)
  return float(np.median(times))


def rate_work(what: str, seconds: float, work: Work) -> Iterator[Row]:
  """Milliseconds, operations a second, and the share of the peak where this is known."""
  yield what, "ms", 1e3 * seconds
  yield what, "TFLOP/s", work.operations / seconds / 1e12
  chip = find_chip(jax.devices()[0].device_kind)
  if chip is not None:
    yield what, "share of the peak", work.operations / seconds / chip.peak


# What is measured


def measure_flow(options: argparse.Namespace) -> Iterator[Row]:
  """Pairs of a smooth picture that shifts."""
  height, width, number = (32, 48, 3) if options.tiny else (160, 256, 149)
  rng = np.random.default_rng(0)
  texture = cv2.GaussianBlur(rng.random((height + 16, width + 16, 3), np.float32), (0, 0), 1.5)
  texture = (texture - texture.min()) / np.ptp(texture)
  shifts = (4 + 4 * np.sin(np.arange(number + 1) / 5)).astype(int)
  frames = np.stack([texture[shift : shift + height, shift : shift + width] for shift in shifts])
  seconds = take_time(lambda: estimate_flow(frames[0], frames[1:]), least=0 if options.tiny else 5)
  yield f"flow, {width}x{height}", "pairs/s", number / seconds


def measure_unet(options: argparse.Namespace) -> Iterator[Row]:
  """The U-Net alone, all bands of one example."""
  size = "tiny" if options.tiny else "paper"
  config = parse(TrainSettings, get_config("ldm_coordinated", size))
  model = make_motion_model(config.model)
  params, batch = make_shapes(config, 1)
  height, width = (side // model.latent_factor for side in batch["slice"].shape[2:4])
  view = jax.eval_shape(
    lambda params, image: model.apply({"params": params}, image, height=height, width=width, method="encode_image"),
    params, batch["image"])  # fmt: skip
  latents = jax.ShapeDtypeStruct((1, config.model.num_bands, height, width, model.latent_channels), np.float32)
  forward = lambda params, *inputs: model.apply({"params": params}, *inputs, method="denoise")
  inputs = cast_shapes(model, params), latents, batch["band"], batch["band"], view.condition
  work, arrays, program = count_work(forward, *inputs), make_numbers(inputs), jax.jit(forward)
  seconds = take_time(lambda: program(*arrays), least=0 if options.tiny else 3)
  yield from rate_work(f"U-Net of `{size}`, forward", seconds, work)


def measure_training(options: argparse.Namespace) -> Iterator[Row]:
  """A step of stage 1; half as many examples where there is not enough memory."""
  size, number = ("tiny", 1) if options.tiny else ("paper", 32)
  while True:
    try:
      seconds, work = time_training(size, number, least=0 if options.tiny else 5)
      break
    except jax.errors.JaxRuntimeError as error:
      if "RESOURCE_EXHAUSTED" not in str(error) or number == 1:
        raise
      number //= 2
  what = f"train step of `ldm:{size}`, {number} examples"
  yield what, "examples/s", number / seconds
  yield from rate_work(what, seconds, work)


def time_training(size: str, number: int, *, least: float) -> tuple[float, Work]:
  """Seconds of a train step of stage 1 with `number` examples, and what it takes."""
  step, (_, *shapes) = make_step("ldm", size, number)
  key, program = jax.random.key(0), jax.jit(step, donate_argnums=1)
  state, batch = make_numbers(tuple(shapes))

  def run():
    nonlocal state
    state, metrics = program(key, state, batch)
    return metrics

  return take_time(run, least=least), count_work(step, key, *shapes)


def measure_sampling(options: argparse.Namespace) -> Iterator[Row]:
  """Steps as they are taken for a photo: what thirty take more than ten."""
  size, counts = ("tiny", (1, 2)) if options.tiny else ("paper", (10, 30))
  config = get_config("ldm_coordinated", size)
  settings = config_to_settings(config.to_dict())
  model, params = make_motion_model(settings.model), make_numbers(make_shapes(parse(TrainSettings, config), 1)[0])
  image = jnp.full((*settings.model.image_size, 3), 0.5)
  for name, guidance in (("guided", 1.75), ("unguided", 0.0)):
    sample = functools.partial(
      prediction.predict_spectra, jax.random.key(0)[None], image, model=model, params=params, settings=settings,
      guidance=guidance)  # fmt: skip
    few, many = (take_time(functools.partial(sample, steps=steps), least=0) for steps in counts)
    seconds = max((many - few) / (counts[1] - counts[0]), 1e-9)
    step, inputs = make_sampler(size, guidance)
    yield from rate_work(f"sampling step of `{size}`, {name}", seconds, count_work(step, *inputs))


def read_photo(width: int, height: int) -> np.ndarray:
  """The bundled photo, resized to a size whatever its aspect."""
  photo = read_image(Path(gid_jax.__file__).parent / "pretrained" / "photo.jpg")
  return np.clip(cv2.resize(photo, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)


def measure_photo(options: argparse.Namespace) -> Iterator[Row]:
  """The embedded weights, everything but encoding."""
  animator = Animator.from_pretrained(options.weights)
  (width, height), number = ((64, 48), 2) if options.tiny else ((640, 360), 150)
  photo = read_photo(width, height)

  def animate():
    spectrum = animator.predict_spectrum(jax.random.key(0), photo)
    return [frame[0, 0] for frame in animator.render(photo, spectrum, frames=number)]

  yield f"photo to {number} frames of {width}x{height}", "s", take_time(animate, least=0)


def measure_rendering(options: argparse.Namespace) -> Iterator[Row]:
  """Frames of the embedded weights, along one volume."""
  animator, number = Animator.from_pretrained(options.weights), 1 if options.tiny else 96
  spectrum = animator.predict_spectrum(jax.random.key(0), read_photo(*((64, 48) if options.tiny else (512, 288))))
  for width, height in ((64, 48),) if options.tiny else ((256, 160), (512, 288), (1920, 1080), (3840, 2160)):
    photo = read_photo(width, height)
    render = lambda frames, photo=photo: animator.render(photo, spectrum, frames=frames)
    measure(render, number)
    yield f"frames of {width}x{height}", "frames/s", float(np.median([measure(render, number)[0] for _ in range(3)]))


def measure_splatting(options: argparse.Namespace) -> Iterator[Row]:
  """Softmax splatting of features, and its gradient."""
  height, width, channels = (16, 24, 4) if options.tiny else (288, 512, 64)
  rng = np.random.default_rng(0)
  values, flow = rng.normal(size=(height, width, channels)), 4 * rng.normal(size=(height, width, 2))
  arrays = tuple(np.float32(array) for array in (values, flow, rng.random((height, width))))
  what, least = f"splat of {width}x{height}x{channels}", 0 if options.tiny else 1
  ours = jax.device_put(arrays)
  forward = jax.jit(splat.softmax_splat)
  backward = jax.jit(jax.grad(lambda *inputs: splat.softmax_splat(*inputs)[0].sum(), argnums=(0, 1, 2)))
  yield what, "ms", 1e3 * take_time(lambda: forward(*ours), least=least)
  yield f"{what}, gradient", "ms", 1e3 * take_time(lambda: backward(*ours), least=least)
  try:
    import torch
  except ImportError:
    return
  if not (torch.cuda.is_available() or options.tiny):
    return
  device = "cuda" if torch.cuda.is_available() else "cpu"
  theirs = [torch.from_numpy(array).to(device) for array in arrays]

  def wait(run):
    result = run()
    if device == "cuda":
      torch.cuda.synchronize()
    return [array.shape for array in result]

  def slopes():
    inputs = [array.clone().requires_grad_() for array in theirs]
    peer_splat(*inputs).sum().backward()
    return [array.grad for array in inputs]

  difference = np.abs(np.asarray(forward(*ours)[0]) - peer_splat(*theirs).cpu().numpy()).max()
  yield f"{what}, PyTorch", "ms", 1e3 * take_time(lambda: wait(lambda: [peer_splat(*theirs)]), least=least)
  yield f"{what}, gradient, PyTorch", "ms", 1e3 * take_time(lambda: wait(slopes), least=least)
  yield f"{what}, largest difference", "", float(difference)


def peer_splat(values, flow, depth):
  """Softmax splatting [h w c] in PyTorch, by `index_add`."""
  import torch

  height, width, channels = values.shape
  y, x = torch.meshgrid(*(torch.arange(side, device=values.device) for side in (height, width)), indexing="ij")
  target_x, target_y = x + flow[..., 0], y + flow[..., 1]
  left, top = target_x.detach().floor(), target_y.detach().floor()
  weight = (depth - depth.detach().max()).exp()[..., None]
  columns = torch.cat([values * weight, weight], -1)
  total = torch.zeros(height * width + 1, channels + 1, device=values.device)
  for dy in (0, 1):
    for dx in (0, 1):
      column, row = left + dx, top + dy
      share = (1 - (target_x - column).abs()) * (1 - (target_y - row).abs())
      inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
      index = torch.where(inside, row * width + column, height * width).long().reshape(-1)
      total = total.index_add(0, index, (columns * share[..., None]).reshape(-1, channels + 1))
  total = total[:-1].reshape(height, width, channels + 1)
  return torch.where(total[..., -1:] > 0, total[..., :-1] / (total[..., -1:] + 1e-7), 0)


MEASUREMENTS = {
  "flow": measure_flow,
  "unet": measure_unet,
  "sampling": measure_sampling,
  "photo": measure_photo,
  "rendering": measure_rendering,
  "splatting": measure_splatting,
  "training": measure_training,
}


def main() -> None:
  """Measures what is asked for, prints and writes it."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--output", type=Path, default=Path("accelerator.json"))
  parser.add_argument("--seconds", type=float, default=450, help="after which nothing new is begun")
  parser.add_argument("--only", nargs="+", choices=tuple(MEASUREMENTS), default=tuple(MEASUREMENTS))
  parser.add_argument("--weights", help="folder of exported weights; the embedded ones by default")
  parser.add_argument("--tiny", action="store_true", help="at sizes that say nothing")
  options = parser.parse_args()
  configure_jax()
  started, device = time.monotonic(), jax.devices()[0]
  found: dict[str, Any] = {"device": device.device_kind, "jax": jax.__version__, "rows": [], "failed": {}}
  print(f"{device.device_kind}, JAX {jax.__version__}\n\n| what | unit | value |\n|---|---|---|", flush=True)
  for name in options.only:
    begun = time.monotonic()
    if begun - started > options.seconds:
      found["failed"][name] = "left out: the time was over"
      continue
    try:
      for what, unit, value in MEASUREMENTS[name](options):
        found["rows"].append({"what": what, "unit": unit, "value": value})
        print(f"| {what} | {unit} | {value:.4g} |", flush=True)
    except Exception as error:  # whatever it is, the rest is measured
      found["failed"][name] = f"{type(error).__name__}: {error}"[:500]
    memory = (device.memory_stats() or {}).get("peak_bytes_in_use")
    found.setdefault("seconds", {})[name] = time.monotonic() - begun
    found.setdefault("peak_bytes", {})[name] = memory
    options.output.write_text(json.dumps(found, indent=2) + "\n")
  options.output.write_text(json.dumps(found, indent=2) + "\n")
  for name, reason in found["failed"].items():
    print(f"{name} failed: {reason}")


if __name__ == "__main__":
  main()
