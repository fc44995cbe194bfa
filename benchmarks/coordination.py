"""Claim: with frequency attention the bands of a sampled volume belong together, as those of a real one do.

  python benchmarks/coordination.py --data DIR... [--held_out_scenes a,b,c] [--simulated 16] [--weights FOLDER]

`DIR` is a data set of `data_pipeline.builder`; its validation split, or the scenes named, were not trained on.
Simulated scenes of seeds that no data set reaches may be added. For every photo a volume is sampled twice from the
same noise: by the full model, and by the same weights without frequency attention (stage 1, "independent
prediction"). Two bands are compared by

  amplitude   Pearson's correlation over the pixels of |S_j| and |S_k|: do they move in the same places,
  coherence   |<S_j, S_k>| / (|S_j| |S_k|) over pixels and axes: do they move in one pattern, up to a common phase,

and a volume by the matrix of all pairs. Printed: the mean over the pairs of different bands, for real, coordinated
and independent volumes, the distance of the matrices from the real ones (rms over pairs, per window), and the paired
gain of coordination with its standard error. Windows of one scene are averaged first: scenes count once.
"""

import argparse

import jax
import numpy as np
from flax import traverse_util

from data_pipeline.synthetic.folders import load_backgrounds, load_sprites
from data_pipeline.synthetic.scene import sample_scene
from data_pipeline.synthetic.windows import scene_to_window
from gid_jax.pipeline import RENDERER_WEIGHTS, Animator, load_pretrained
from gid_jax.spectral import channels_to_complex
from gid_jax.storage import example_to_window, list_sources, open_split


def compare_bands(coefficients):
  """The matrices (amplitude, coherence), [k k] each, of a volume [k h w 4]."""
  values = np.asarray(channels_to_complex(np.asarray(coefficients, np.float32)))
  flat = values.reshape(len(values), -1).astype(np.complex128)
  amplitudes = np.linalg.norm(values, axis=-1).reshape(len(values), -1)
  norms = np.linalg.norm(flat, axis=1)
  return np.corrcoef(amplitudes), np.abs(flat @ flat.conj().T) / np.outer(norms, norms)


def read_windows(options, num_bands):
  """Yields the windows (image, spectrum, scene) that the options ask for."""
  wanted = options.held_out_scenes.split(",") if options.held_out_scenes else None
  for directory in options.data:
    for source in list_sources(directory):
      for split in ("train", "validation") if wanted else ("validation",):
        for example in open_split(directory, source, split):
          window = example_to_window(example, fields=("image", "spectrum"), bands=range(num_bands))
          if wanted is None or window.scene in wanted:
            yield window
  backgrounds = load_backgrounds(options.backgrounds) if options.backgrounds else []
  sprites = load_sprites(options.sprites) if options.sprites else []
  for seed in range(10**6, 10**6 + options.simulated):
    scene = sample_scene(seed, backgrounds=backgrounds, sprites=sprites)
    yield scene_to_window(scene, num_bands=num_bands, num_pairs=1, rng=np.random.default_rng(seed))


def main():
  """Measures and prints."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", nargs="+", required=True)
  parser.add_argument("--held_out_scenes", help="take these scenes of either split; the validation split by default")
  parser.add_argument("--simulated", type=int, default=0, help="number of simulated scenes")
  parser.add_argument("--backgrounds", help="folder of photos behind simulated scenes")
  parser.add_argument("--sprites", help="folder of cut-outs for simulated scenes")
  parser.add_argument("--weights", help="folder of exported weights; the embedded ones by default")
  options = parser.parse_args()
  coordinated = Animator.from_pretrained(options.weights)
  model = coordinated.motion_config["model"]
  flat = traverse_util.flatten_dict(coordinated.motion_params, sep="/")
  plain = {path: leaf for path, leaf in flat.items() if "frequency_attention" not in path}
  unet = model["unet"] | {"frequency_attention": False}
  independent = Animator(
    (traverse_util.unflatten_dict(plain, sep="/"), coordinated.motion_config | {"model": model | {"unet": unet}}),
    load_pretrained(RENDERER_WEIGHTS),
  )
  pairs = ~np.eye(model["num_bands"], dtype=bool)
  rows = {}
  for index, window in enumerate(read_windows(options, model["num_bands"])):
    if not np.all(np.abs(window.spectrum).max(axis=(1, 2, 3)) > 0):
      continue  # nothing moves, so nothing correlates
    image = window.image.astype(np.float32) / 255
    volumes = [window.spectrum] + [
      animator.predict_spectrum(jax.random.key(index), image).coefficients for animator in (coordinated, independent)
    ]
    matrices = np.array([compare_bands(volume) for volume in volumes])[..., pairs]  # [volume kind pair]
    distances = np.sqrt(((matrices[1:] - matrices[:1]) ** 2).mean(axis=-1))
    row = np.concatenate([matrices.mean(axis=-1), distances])
    rows.setdefault(window.scene, []).append(row)
    print(f"{window.scene:<24} {np.round(row, 3).tolist()}", flush=True)
  # [scene, (filmed, coordinated, independent, distance, distance), kind]
  rows = np.array([np.mean(windows, axis=0) for windows in rows.values()])
  print(f"\n{len(rows)} scenes        real   coordinated   independent   distance from real: coord.   indep.   gain")
  for kind, name in enumerate(("amplitude", "coherence")):
    filmed, with_attention, without, near, far = rows[..., kind].mean(axis=0)
    gain = rows[:, 4, kind] - rows[:, 3, kind]
    error = gain.std(ddof=1) / len(gain) ** 0.5
    print(
      f"{name:<17} {filmed:>10.3f} {with_attention:>13.3f} {without:>13.3f} {near:>29.3f} {far:>8.3f}"
      f"   {gain.mean():+.3f} ({error:.3f}), {(gain > 0).sum()} of {len(gain)}"
    )


if __name__ == "__main__":
  main()
