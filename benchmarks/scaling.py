"""Claim: the U-Net's cost grows linearly in the number of bands and of pixels.

  python -m benchmarks.scaling [--repetitions 5] [--bands 4 8 16 24] [--heights 12 16 24 32 48]
    [--plot scaling.png]

Times the forward pass of a small U-Net with frequency attention and two levels, against K bands and against latent
pixels, with spatial attention at the lower level and without (but for the one in the middle, which is always there).
Prints the exponent p of time ~ size^p between the ends, and R^2 of a straight line. Spatial attention compares all
pairs of its level's pixels, and frequency attention all pairs of bands: those shares are quadratic.
"""

import argparse
import math
import time

import jax
import numpy as np

from gid_jax.models.unet import UNet

FIELDS = dict(channels=32, multipliers=(1, 2), num_blocks=1, head_channels=32, groups=8)


def time_forward(model, num_bands, height, repetitions):
  """Shortest time [s] of one forward pass of latents [1 k h 2h 4]."""
  rng = np.random.default_rng(0)
  latents = rng.normal(size=(1, num_bands, height, 2 * height, 4)).astype(np.float32)
  condition = rng.normal(size=(1, height, 2 * height, 16)).astype(np.float32)
  bands = np.arange(num_bands)[None]
  inputs = jax.device_put((latents, bands, bands, condition))
  params = jax.jit(model.init)(jax.random.key(0, impl="rbg"), *inputs)
  forward = jax.jit(model.apply).lower(params, *inputs).compile()
  times = []
  for _ in range(repetitions + 1):
    started = time.monotonic()
    forward(params, *inputs).block_until_ready()
    times.append(time.monotonic() - started)
  return min(times[1:])


def describe(sizes, seconds):
  """The exponent of growth between the ends, and R^2 of a straight line."""
  exponent = math.log(seconds[-1] / seconds[0]) / math.log(sizes[-1] / sizes[0])
  r_squared = np.corrcoef(sizes, seconds)[0, 1] ** 2
  return f"time ~ size^{exponent:.2f}, straight line R^2 {r_squared:.4f}"


def main():
  """Measures, prints and plots."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--repetitions", type=int, default=5)
  parser.add_argument("--bands", type=int, nargs="+", default=[4, 8, 16, 24])
  parser.add_argument("--heights", type=int, nargs="+", default=[12, 16, 24, 32, 48], help="of latents twice as wide")
  parser.add_argument("--plot", help="picture to write; needs the `plots` extra")
  options = parser.parse_args()
  attention = {"with spatial attention": (1,), "without": ()}
  curves = {}
  for label, levels in attention.items():
    model = UNet(**FIELDS, attention_levels=levels)
    measure = lambda num_bands, height, model=model: time_forward(model, num_bands, height, options.repetitions)
    curves["bands", label] = options.bands, [measure(number, 20) for number in options.bands]
    sizes = [2 * height**2 for height in options.heights]
    curves["pixels", label] = sizes, [measure(4, height) for height in options.heights]
  for (axis, label), (sizes, seconds) in curves.items():
    listed = ", ".join(f"{size}: {1e3 * value:.1f} ms" for size, value in zip(sizes, seconds, strict=True))
    print(f"{axis}, {label}: {describe(sizes, seconds)} ({listed})")
  if options.plot:
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for (axis, label), (sizes, seconds) in curves.items():
      panel = panels[int(axis == "pixels")]
      panel.plot(sizes, 1e3 * np.array(seconds), "o-", label=label)
      panel.set(xlabel=axis, ylabel="forward, ms", xlim=(0, None), ylim=(0, None))
      panel.legend()
    figure.savefig(options.plot, dpi=120)


if __name__ == "__main__":
  main()
