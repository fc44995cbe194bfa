"""Claim: the whole chain is right, since the smallest model learns eight windows by heart and samples them again.

  python -m benchmarks.overfit --workdir runs/overfit

Simulates scenes, shrunk to 32x48 pixels, that move in at least a quarter of the picture; trains all three stages of the
motion model on eight of them at the `tiny` size without augmentation; then samples every photo's spectral volume from
noise and compares its displacements, over all pixels and 150 frames, with the true ones: rms error over rms motion.
What the auto-encoder alone loses stands beside it. Interrupted, it goes on where it stopped.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import ClassVar

import cv2
import jax
import numpy as np
import tensorflow_datasets as tfds

from configs import ldm, ldm_coordinated, vae
from data_pipeline.synthetic.scene import sample_scene
from data_pipeline.synthetic.windows import scene_to_window
from gid_jax.data.storage import (
  DATASET_NAME,
  DATASET_VERSION,
  example_to_window,
  make_features,
  open_split,
  window_to_example,
)
from gid_jax.motion.normalization import band_scale
from gid_jax.motion.spectral import spectrum_to_motion
from gid_jax.pipeline import Animator
from gid_jax.train import train
from gid_jax.types import SpectralVolume
from gid_jax.weights.checkpoint import restore_params
from gid_jax.weights.pretrained import config_to_settings

HEIGHT, WIDTH, SHRINK, NUM_BANDS = 32, 48, 5, 16
# Steps, examples a step, learning rate.
RECIPES = {
  "vae": (vae, 10_000, 16, 3e-3),
  "ldm": (ldm, 6_000, 8, 2e-3),
  "ldm_coordinated": (ldm_coordinated, 1_000, 8, 1e-3),
}


def make_windows():
  """Yields windows that move in at least a quarter of the picture."""
  seed = 0
  while True:
    scene = sample_scene(seed, height=SHRINK * HEIGHT, width=SHRINK * WIDTH)
    stride = 2 * SHRINK
    window = scene_to_window(
      scene, num_bands=NUM_BANDS, num_pairs=1, motion_stride=stride, rng=np.random.default_rng(seed)
    )
    amplitude = np.linalg.norm(window.spectrum[1].astype(np.float32), axis=-1)
    seed += 1
    if amplitude.max() > 0 and (amplitude > 0.1 * amplitude.max()).mean() > 0.25:
      shrink = lambda pixels: cv2.resize(pixels, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
      yield window._replace(
        image=shrink(window.image),
        frames=np.stack([shrink(frame) for frame in window.frames]),
        flows=np.stack([shrink(flow.astype(np.float32)) / SHRINK for flow in window.flows]).astype(np.float16),
        depth=(shrink(window.depth.astype(np.float32)) / SHRINK).astype(np.float16),
      )


def write_data(directory: Path) -> None:
  """Writes eight windows to train on and one for the validation that a run asks for."""
  windows = [window for window, _ in zip(make_windows(), range(9), strict=False)]
  with tfds.core.registered.skip_registration():

    class GidWindows(tfds.core.GeneratorBasedBuilder):
      name = DATASET_NAME
      pkg_dir_path = directory  # TFDS would look for its metadata in this package
      url_infos: ClassVar = {}  # nothing is downloaded
      VERSION = tfds.core.Version(DATASET_VERSION)
      BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name="synthetic")]

      def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=make_features())

      def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(windows[:8]), "validation": self._generate_examples(windows[8:])}

      def _generate_examples(self, chosen):
        yield from ((str(index), window_to_example(window)) for index, window in enumerate(chosen))

  builder = GidWindows(data_dir=str(directory), file_format="array_record")
  builder.download_and_prepare(download_config=tfds.download.DownloadConfig(compute_stats="skip"))
  scale = band_scale(np.stack([window.spectrum for window in windows[:8]]), percentile=95)
  statistics = dict(scale=scale.tolist(), num_frames=150, fps=30.0)
  (directory / "statistics.json").write_text(json.dumps(statistics))


def train_stages(workdir: Path) -> None:
  """Trains the three stages, each on the one before."""
  for stage, (module, num_steps, batch_size, learning_rate) in RECIPES.items():
    config = module.get_config("tiny")
    config.data.directory = str(workdir / "data")
    config.data.augmentation = {}
    config.batch_size = batch_size
    config.ema_decay = 0.998
    config.optimizer.num_steps = num_steps
    config.optimizer.learning_rate = learning_rate
    config.optimizer.warmup_steps = 200
    config.log_every = config.eval_every = config.save_every = 500
    config.keep_best = 0
    if stage == "vae":
      config.loss.weights.kl = 1e-8
    else:
      previous = "vae" if stage == "ldm" else "ldm"
      config.init[previous] = str(workdir / previous)
      config.condition_drop = 0.0
      config.data.bands_per_example = NUM_BANDS
      config.data.latent_draws = 1
    state = train(config, workdir / stage)
    if int(state.step) < num_steps:
      sys.exit(f"stopped in stage {stage}; run the same command to go on")


def find_error(truth, found):
  """(rms error of the displacements / rms motion, rms motion in px) of a spectrum [k h w 4]."""
  truth, found = (
    np.asarray(spectrum_to_motion(SpectralVolume(np.asarray(spectrum, np.float32), num_frames=150, fps=30.0)))
    for spectrum in (truth, found)
  )
  motion = float(np.sqrt((truth**2).mean()))
  return float(np.sqrt(((found - truth) ** 2).mean())) / motion, motion


def main():
  """Measures and prints."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--workdir", type=Path, required=True, help="folder of data and runs")
  parser.add_argument("--steps", type=int, default=50, help="sampling steps")
  options = parser.parse_args()
  start = time.monotonic()
  data = options.workdir / "data"
  if not (data / "statistics.json").exists():
    write_data(data)
  train_stages(options.workdir)

  params, config = restore_params(options.workdir / "ldm_coordinated")
  animator = Animator((params, config_to_settings(config)))
  model, bands = animator.motion_model, np.arange(NUM_BANDS)[None]
  apply = lambda array, method: model.apply({"params": params}, array, bands, method=method)
  code = jax.jit(lambda slices: apply(apply(slices, "slices_to_latents"), "latents_to_slices"))
  print("window   motion, px rms   error, of it   of the auto-encoder alone")
  errors = []
  for index, example in enumerate(open_split(data, "synthetic", "train")):
    window = example_to_window(example, fields=("image", "spectrum"), bands=range(NUM_BANDS))
    photo = window.image.astype(np.float32) / 255
    volume = animator.predict_spectrum(jax.random.key(index), photo, steps=options.steps, guidance=0.0)
    error, motion = find_error(window.spectrum, volume.coefficients)
    coding, _ = find_error(window.spectrum, code(window.spectrum[None].astype(np.float32))[0])
    errors.append(error)
    print(f"{index:>6}   {motion:>14.2f}   {error:>12.3f}   {coding:>25.3f}")
  print(f"mean {np.mean(errors):.3f}, worst {max(errors):.3f}, in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
  main()
