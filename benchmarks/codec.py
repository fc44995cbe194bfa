"""Claim: averages over cells keep more of a measured slice than a small convolutional auto-encoder does.

  python -m benchmarks.codec --clips CLIPS --loops LOOPS --cache FOLDER --weights FOLDER

Slices are encoded to an eighth of the photo's size and decoded: mean absolute error in normalised units
where flow is confident, and root mean square error of the coefficients over that of the coefficients. One take a scene.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gid_jax.errors import UserError
from gid_jax.evaluation.motion import CONFIDENCE
from gid_jax.evaluation.results import estimate_mean
from gid_jax.evaluation.scenes import list_clips, read_clip
from gid_jax.models.codec import PaperCodec, PhotoCodec, make_codec
from gid_jax.motion.normalization import denormalize, normalize
from gid_jax.weights.pretrained import MOTION_WEIGHTS, load_pretrained


def main() -> None:
  """Measures and prints."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--clips", required=True)
  parser.add_argument("--loops", required=True)
  parser.add_argument("--cache", type=Path, required=True, help="folder of measured motion")
  parser.add_argument("--weights", required=True, help="folder of weights with a convolutional auto-encoder")
  options = parser.parse_args()
  params, settings = load_pretrained(MOTION_WEIGHTS, directory=options.weights)
  model = settings.model
  learned = make_codec(model.codec, num_bands=model.num_bands)
  if not isinstance(learned, PaperCodec):
    raise UserError("these weights average; give others with --weights")
  convolutional, scale = learned.make_vae(), jnp.asarray(params["band_scale"])
  averages = PhotoCodec(num_bands=model.num_bands, factor=learned.factor)

  @jax.jit
  def restore(raw):
    apply = lambda inputs, method: convolutional.apply({"params": params["vae"]}, inputs, method=method)
    learned = apply(apply(normalize(raw, scale), "encode")[0], "decode")
    # These average and interpolate pixels, and normalise in between, which loses nothing.
    return learned, normalize(averages.enlarge(averages.average(raw)), scale)

  print("| | zeros | convolutional | averages | of the coefficients: convolutional | averages |")
  for source, folder in (("real", options.clips), ("loop", options.loops)):
    rows = {}
    for file in list_clips(folder):
      if file.scene in rows:
        continue
      try:
        scene = read_clip(file, model, source=source, cache=options.cache)
      except UserError:
        continue
      raw = jnp.asarray(scene.volume.coefficients)
      truth, sure = normalize(raw, scale), np.asarray(scene.confidence) > CONFIDENCE
      found = restore(raw)
      apart = [float(jnp.abs(x - truth)[:, sure].mean()) for x in (0 * truth, *found)]
      size = jnp.square(raw)[:, sure].sum()
      lost = [float(jnp.sqrt(jnp.square(denormalize(x, scale) - raw)[:, sure].sum() / size)) for x in found]
      rows[file.scene] = [*apart, *lost]
    estimates = [estimate_mean(column) for column in zip(*rows.values(), strict=True)]
    cells = " | ".join(f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" for e in estimates)
    print(f"| {source}, {len(rows)} scenes | {cells} |", flush=True)


if __name__ == "__main__":
  main()
