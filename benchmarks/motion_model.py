"""Claims: how well slices are auto-encoded, and that frequency attention helps on held-out windows.

  python benchmarks/motion_model.py --data DIR [--weights FOLDER] [--windows 48]

`DIR` is a data set of `data_pipeline.builder`; its validation split has scenes that were not trained on. Prints, by
source of the windows, the L1 error of the auto-encoder in normalised units (beside that of predicting zero), and the
denoising loss of the full model, of the same weights without frequency attention, and their paired difference.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from gid_jax.diffusion.schedule import add_noise, make_schedule, training_target
from gid_jax.normalization import normalize
from gid_jax.pipeline import Animator, make_motion_model
from gid_jax.storage import example_to_window, list_sources, open_split


def main():
  """Measures and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", required=True)
  parser.add_argument("--weights", help="folder of exported weights; the embedded ones by default")
  parser.add_argument("--windows", type=int, default=48)
  options = parser.parse_args()
  animator = Animator.from_pretrained(options.weights)
  config, params = animator.motion_config, animator.motion_params
  unet = dict(config["model"]["unet"])
  coordinated = make_motion_model(config["model"])
  independent = make_motion_model(config["model"] | {"unet": unet | {"frequency_attention": False}})
  flat = traverse_util.flatten_dict(params, sep="/")
  kept = {path: leaf for path, leaf in flat.items() if "frequency_attention" not in path}
  plain_params = traverse_util.unflatten_dict(kept, sep="/")
  schedule = make_schedule(**config["schedule"])
  num_bands = config["model"]["num_bands"]
  bands = jnp.arange(num_bands)[None]

  @jax.jit
  def errors(key, image, slices):
    time_key, noise_key = jax.random.split(key)
    apply = functools.partial(coordinated.apply, {"params": params})
    latents = apply(slices, bands, method="slices_to_latents")
    truth = normalize(slices, params["band_scale"][bands])
    restored = normalize(apply(latents, bands, method="latents_to_slices"), params["band_scale"][bands])
    condition, _ = apply(image, height=latents.shape[2], width=latents.shape[3], method="encode_image")
    timesteps = jnp.broadcast_to(jax.random.randint(time_key, (), 0, schedule.num_steps), bands.shape)
    noise = jax.random.normal(noise_key, latents.shape)
    noisy = add_noise(schedule, latents, noise, timesteps)
    target = training_target(schedule, latents, noise, timesteps)
    loss = lambda model, params: (
      (model.apply({"params": params}, noisy, timesteps, bands, condition, method="denoise") - target) ** 2
    ).mean()
    return jnp.stack(
      [
        jnp.abs(restored - truth).mean(),
        jnp.abs(truth).mean(),
        loss(coordinated, params),
        loss(independent, plain_params),
      ]
    )

  splits = [open_split(options.data, source, "validation") for source in list_sources(options.data)]
  places = [(examples, i) for examples in splits for i in range(len(examples))]
  places = [places[i] for i in np.random.default_rng(0).permutation(len(places))[: options.windows]]
  rows, sources = [], []
  for index, (examples, i) in enumerate(places):
    window = example_to_window(examples[i], fields=("image", "spectrum"), bands=range(num_bands))
    image, slices = window.image[None] / np.float32(255), window.spectrum[None]
    draws = [errors(jax.random.key(4 * index + draw), image, slices) for draw in range(4)]
    rows.append(np.mean(draws, axis=0))
    sources.append(window.source)
  rows, sources = np.array(rows), np.array(sources)
  print("windows of       number   VAE L1   zero L1   loss with   without   difference (standard error)")
  for name in ("all", *sorted(set(sources))):
    chosen = rows[sources == name] if name != "all" else rows
    l1, zero, with_attention, without = chosen.mean(axis=0)
    gain = chosen[:, 2] - chosen[:, 3]
    error = gain.std(ddof=1) / len(gain) ** 0.5
    print(
      f"{name:<15} {len(chosen):>7} {l1:>8.4f} {zero:>9.4f} {with_attention:>11.4f} {without:>9.4f}"
      f"   {gain.mean():+.4f} ({error:.4f})"
    )


if __name__ == "__main__":
  main()
