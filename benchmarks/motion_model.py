"""Claim: the denoiser knows more of motion on held-out windows than its spectrum over the photo.

  python -m benchmarks.motion_model --data DIR [--weights FOLDER] [--windows 48]

`DIR` is a data set of `data_pipeline.builder`; its validation split has scenes that were not trained on. Prints, by
source of the windows, the denoising loss of the model, of what its schedule expects of the noisy latents alone
(a network that says nothing), and their paired difference.
"""

import argparse
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from gid_jax.data.examples import measure_strength
from gid_jax.data.records import open_records
from gid_jax.diffusion.schedule import add_noise, make_schedule, training_target
from gid_jax.pipeline import Animator


def main():
  """Measures and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", required=True)
  parser.add_argument("--weights", help="folder of exported weights; the embedded ones by default")
  parser.add_argument("--windows", type=int, default=48)
  options = parser.parse_args()
  animator = Animator.from_pretrained(options.weights)
  settings, params, model = animator.motion_settings, animator.motion_params, animator.motion_model
  schedule = make_schedule(**dataclasses.asdict(settings.schedule))
  num_bands, needs_strength = settings.model.num_bands, model.make_codec().needs_photo
  bands = jnp.arange(num_bands)[None]

  @jax.jit
  def losses(key, image, slices, strength):
    time_key, noise_key = jax.random.split(key)
    apply = functools.partial(model.apply, {"params": params})
    height, width = (side // model.latent_factor for side in slices.shape[2:4])
    view = apply(image, height=height, width=width, method="encode_image")
    strength = strength[None] if needs_strength else None
    latents = apply(slices, bands, swing=view.swing, strength=strength, method="slices_to_latents")
    timesteps = jnp.broadcast_to(jax.random.randint(time_key, (), 0, schedule.num_steps), bands.shape)
    noise = jax.random.normal(noise_key, latents.shape)
    target = training_target(schedule, latents, noise, timesteps)
    noisy = add_noise(schedule, latents, noise, timesteps)
    output = apply(noisy, timesteps, bands, view.condition, method="denoise")
    return jnp.stack([((output - target) ** 2).mean(), (target**2).mean()])

  chains = open_records(options.data, "validation").values()
  records = [chain[i] for chain in chains for i in range(len(chain))]
  records = [records[i] for i in np.random.default_rng(0).permutation(len(records))[: options.windows]]
  rows, sources = [], []
  for index, record in enumerate(records):
    window = record.decode(fields=("image", "spectrum"), bands=range(num_bands))
    inputs = window.image[None] / np.float32(255), window.spectrum[None].astype(np.float32)
    strength = measure_strength(record, num_bands=num_bands)
    rows.append(np.mean([losses(jax.random.key(16 * index + draw), *inputs, strength) for draw in range(16)], axis=0))
    sources.append(window.source)
  rows, sources = np.array(rows), np.array(sources)
  print("windows of       number   loss   expectation alone   difference (standard error)")
  for name in ("all", *sorted(set(sources))):
    chosen = rows[sources == name] if name != "all" else rows
    loss, alone = chosen.mean(axis=0)
    gain = chosen[:, 0] - chosen[:, 1]
    error = gain.std(ddof=1) / len(gain) ** 0.5
    print(f"{name:<15} {len(chosen):>7} {loss:>6.4f} {alone:>19.4f}   {gain.mean():+.4f} ({error:.4f})")


if __name__ == "__main__":
  main()
