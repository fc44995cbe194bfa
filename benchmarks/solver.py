"""Claim: six multistep steps, even in signal over noise, end closer to where many steps would than twelve of DDIM.

  python -m benchmarks.solver [--weights FOLDER] [--photos PHOTO...] [--guidance 1] [--reference 64]

Denoises the same noise for the same photo with every way, and prints how far its latents end from those of a long way
(`--reference` steps of second order, evenly spaced in time): root mean square of the difference over that of the long
way's, and the ratio of their sizes, bands from 1. Slices go with the square of latents, so 0.9 there is 0.8 in motion.
"""

import argparse
import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import gid_jax
from gid_jax.diffusion.guidance import classifier_free
from gid_jax.diffusion.sampler import begin, draw_noise, sample
from gid_jax.diffusion.schedule import SamplingSteps, make_schedule, sampling_steps
from gid_jax.media import photos
from gid_jax.pipeline import Animator
from gid_jax.sizes import resize_image

WAYS = [
  (number, spacing, order)
  for number in (12, 8, 6, 4) for spacing, order in (("trailing", 1), ("trailing", 2), ("logsnr", 1), ("logsnr", 2))
]  # fmt: skip


def make_sampler(animator: Animator, photo: np.ndarray, guidance: float):
  """A function from a way to the latents [1 k h w z] that it leads to."""
  settings, params, model = animator.motion_settings, animator.motion_params, animator.motion_model
  schedule = make_schedule(**dataclasses.asdict(settings.schedule))
  image = jnp.asarray(resize_image(photo, *animator.working_size(*photo.shape[:2])))[None]
  grid = settings.model.motion_stride * model.latent_factor
  height, width = image.shape[1] // grid, image.shape[2] // grid
  apply = lambda *inputs, **options: model.apply({"params": params}, *inputs, **options)
  condition = apply(image, height=height, width=width, method="encode_image").condition
  keys = jax.random.split(jax.random.key(1), 1)
  noise = draw_noise(keys, (settings.model.num_bands, height, width, model.latent_channels))
  bands = jnp.arange(noise.shape[1])

  def network(latents, timestep, condition):
    # Guidance doubles the batch.
    timesteps, numbers = (jnp.broadcast_to(part, latents.shape[:2]) for part in (timestep, bands))
    return apply(latents, timesteps, numbers, condition, method="denoise")

  denoise = classifier_free(network, condition, weight=jnp.float32(guidance))

  @functools.partial(jax.jit, static_argnames="order")
  def step(draw, steps, order):
    return sample(keys, draw, steps, denoise=denoise, schedule=schedule, order=order)

  def run(number: int, spacing: str, order: int) -> np.ndarray:
    way, draw = sampling_steps(schedule, number, spacing=spacing), begin(noise)
    for index in range(len(way.timesteps)):
      draw = step(draw, SamplingSteps(*(part[index : index + 1] for part in way)), order)
    return np.asarray(draw.latents)

  return run


def main():
  """Measures and prints."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--weights", help="folder of exported weights; the embedded ones by default")
  parser.add_argument("--photos", nargs="+", default=[str(Path(gid_jax.__file__).parent / "pretrained" / "photo.jpg")])
  parser.add_argument("--guidance", type=float, default=1.0)
  parser.add_argument("--reference", type=int, default=64)
  options = parser.parse_args()
  animator = Animator.from_pretrained(options.weights)
  found: dict[tuple, list] = {way: [] for way in WAYS}
  for path in options.photos:
    run = make_sampler(animator, photos.read_image(path), options.guidance)
    goal = run(options.reference, "trailing", 2)
    for way in WAYS:
      latents = run(*way)
      size = lambda array: np.sqrt(np.mean(array[:, 1:] ** 2))
      found[way].append((size(latents - goal) / size(goal), size(latents) / size(goal)))
  print("| steps | spacing | order | distance | size |\n|---|---|---|---|---|")
  for way, values in found.items():
    distance, ratio = np.mean(values, axis=0)
    print(f"| {' | '.join(map(str, way))} | {distance:.3f} | {ratio:.2f} |")


if __name__ == "__main__":
  main()
