"""Claim: our ViT-S/14 gives the tokens that another program computes from DINOv2's weights, within 1e-3.

  python -m benchmarks.vit --weights dinov2_vits14_fp16.safetensors [--reference REFERENCE.npz]

Weights have the names of Hugging Face's `Dinov2Model`. The reference holds a photo `image_N` [N N 3] in [0, 1], N a
multiple of 14, and `tokens_N` [1+(N/14)^2 384], the tokens after the last normalisation: printed is the norm of the
difference over the norm of the reference, in float32 and in bfloat16. The time is that of one photo of 518x322 pixels,
compiled: the median and the range of some repetitions.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from gid_jax.models.vit import DINOv2ViTS14

DTYPES = ("float32", "bfloat16")
HEIGHT, WIDTH = 322, 518


def see(params, image, *, dtype):
  """A function without arguments that gives the last tokens [n 384] of a photo [h w 3], and waits for them."""
  module = DINOv2ViTS14(layers=(12,), long_side=0, dtype=dtype)
  apply = jax.jit(lambda params, image: module.apply({"params": params}, image[None], method="tokens")[0][0])
  return lambda: jax.block_until_ready(apply(params, image))


def main() -> None:
  """Compares, measures and prints."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--weights", required=True, help="safetensors file")
  parser.add_argument("--reference", help="npz file")
  parser.add_argument("--repetitions", type=int, default=5)
  options = parser.parse_args()
  params = jax.tree.map(jnp.asarray, DINOv2ViTS14.read(options.weights))
  number = sum(leaf.size for leaf in jax.tree.leaves(params))
  print(f"{number / 1e6:.2f} million parameters, {2 * number / 1e6:.1f} MB in float16")
  if options.reference:
    with np.load(options.reference) as arrays:
      pairs = {name: (arrays[name], arrays[f"tokens_{name[6:]}"]) for name in arrays.files if name.startswith("image_")}
    for name, (image, expected) in pairs.items():
      for dtype in DTYPES:
        found = np.asarray(see(params, image, dtype=dtype)())
        apart = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        print(f"{name}, {dtype}: relative difference {apart:.2e}, largest {np.abs(found - expected).max():.2e}")
  image = np.random.default_rng(0).uniform(size=(HEIGHT, WIDTH, 3)).astype(np.float32)
  for dtype in DTYPES:
    look, times = see(params, image, dtype=dtype), []
    start = time.perf_counter()
    look()
    compiled = time.perf_counter() - start
    for _ in range(options.repetitions):
      start = time.perf_counter()
      look()
      times.append(time.perf_counter() - start)
    print(
      f"{WIDTH}x{HEIGHT}, {dtype}: {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f}), "
      f"with compiling {compiled:.1f} s"
    )


if __name__ == "__main__":
  main()
