"""Claim: motion has the spectrum over places that our schedule expects, and so do latents sampled from a model.

  python -m benchmarks.smoothness --data FOLDER --weights FOLDER [--photos 12] [--slope 1.2] [--reach 40]

Power of latents over spatial frequency (cycles a latent pixel; orthonormal cosine transform, mean of bands, channels
and scenes): of the stored windows, of volumes sampled for the first window's photo of some of these scenes, which the
model was trained on, and what a schedule of that slope and reach expects, of the windows' variance. Then how alike
places are: the correlation of a latent with that of its neighbour, two and four places on.
"""

import argparse
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
from flax.core import FrozenDict

from gid_jax.configuration import DataSettings
from gid_jax.data.examples import measure_strength
from gid_jax.data.records import open_chosen
from gid_jax.diffusion.prediction import predict_spectra
from gid_jax.errors import UserError
from gid_jax.pipeline import Animator

EDGES = (0.0, 0.001, 0.04, 0.1, 0.15, 0.2, 0.3, 0.4, 0.8)
DISTANCES = (1, 2, 4)


def measure_power(latents: np.ndarray) -> np.ndarray:
  """Power [h w] of the cosines of latents [k h w z], mean over bands and channels."""
  return np.square(scipy.fft.dctn(latents, axes=(1, 2), norm="ortho")).mean((0, 3))


def correlate(latents: np.ndarray) -> list[float]:
  """Correlations of latents [k h w z] with themselves some places on, mean of both directions."""
  pairs = [(latents[:, d:], latents[:, :-d], latents[:, :, d:], latents[:, :, :-d]) for d in DISTANCES]
  alike = lambda a, b: (a * b).sum() / np.sqrt(np.square(a).sum() * np.square(b).sum())
  return [float(alike(a, b) + alike(c, d)) / 2 for a, b, c, d in pairs]


def main() -> None:
  """Encodes, samples and prints."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", required=True, help="data set of data_pipeline.builder")
  parser.add_argument("--weights", help="folder of exported weights that average; the embedded ones by default")
  parser.add_argument("--photos", type=int, default=12, help="scenes to sample for")
  parser.add_argument("--slope", type=float, default=1.2)
  parser.add_argument("--reach", type=float, default=40.0)
  options = parser.parse_args()
  animator = Animator.from_pretrained(options.weights)
  model, params, settings = animator.motion_model, animator.motion_params, animator.motion_settings
  if not model.make_codec().needs_photo:
    raise UserError("these weights have no latents that are averages in units of swing and strength")
  bands = jnp.arange(settings.model.num_bands)[None]

  @jax.jit
  def encode(image, spectrum, strength):
    height, width = (side // model.latent_factor for side in spectrum.shape[1:3])
    apply = lambda *inputs, **others: model.apply({"params": params}, *inputs, **others)
    swing = apply(image[None], height=height, width=width, method="predict_swing")
    scales = dict(swing=swing, strength=strength[None])
    return apply(spectrum[None], bands, **scales, method="slices_to_latents")[0]

  data = DataSettings(directory=options.data, sources=FrozenDict(real=1.0, loop=1.0), num_bands=bands.size)
  photos, stored = {}, {}
  for chain in open_chosen(data, split="train").values():
    for index in range(len(chain)):
      window = chain[index].decode(fields=("image", "spectrum"), bands=range(bands.size))
      photos.setdefault(window.scene, window.image / np.float32(255))
      strength = measure_strength(chain[index], num_bands=bands.size)
      latents = encode(window.image / np.float32(255), window.spectrum.astype(np.float32), strength)
      stored.setdefault(window.scene, []).append(np.asarray(latents))
  sampled = {}
  for scene in list(photos)[:: max(1, len(photos) // options.photos)][: options.photos]:
    volume = predict_spectra(
      jax.random.key(0)[None], jnp.asarray(photos[scene]), model=model, params=params, settings=settings
    )
    latents = encode(photos[scene], volume.coefficients[0], params["strength"][0])
    sampled[scene] = [np.asarray(latents)]

  height, width = next(iter(stored.values()))[0].shape[1:3]
  frequency = np.hypot(np.arange(height)[:, None] / (2 * height), np.arange(width) / (2 * width))
  summarize = lambda windows, measure: np.mean([np.mean([measure(x) for x in w], 0) for w in windows.values()], 0)
  sets = {f"windows of {len(stored)} scenes": stored, f"samples of {len(sampled)}": sampled}
  power = {name: summarize(windows, measure_power) for name, windows in sets.items()}
  expected = (1 + (options.reach * frequency) ** 2) ** -options.slope
  power["expected"] = expected * (summarize(stored, measure_power).mean() / expected.mean())
  print("| cycles a latent pixel | " + " | ".join(power) + " |")
  for low, high in itertools.pairwise(EDGES):
    inside = (frequency >= low) & (frequency < high)
    print(f"| {low:.3f} to {high:.3f} | " + " | ".join(f"{p[inside].mean():.2f}" for p in power.values()) + " |")
  for distance, *row in zip(DISTANCES, *(summarize(windows, correlate) for windows in sets.values()), strict=True):
    print(f"| correlation {distance} on | " + " | ".join(f"{value:.2f}" for value in row) + " | |")


if __name__ == "__main__":
  main()
