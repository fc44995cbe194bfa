"""Claim: the whole chain is right, since the smallest model learns a few scenes by heart and samples them again.

  python benchmarks/overfit.py --workdir runs/overfit

Simulates nine scenes of 32x48 pixels, trains all three stages of the motion model on them at the `tiny` size without
augmentation, then samples every photo's spectral volume from noise and compares its displacements, over all pixels and
150 frames, with the true ones: rms error over rms motion. Interrupted, it goes on where it stopped.
"""

import argparse
import time
from pathlib import Path

import jax
import numpy as np

from configs import ldm, ldm_coordinated, vae
from data_pipeline import builder
from gid_jax.checkpoint import restore_params
from gid_jax.pipeline import RENDERER_WEIGHTS, Animator, load_pretrained
from gid_jax.spectral import spectrum_to_motion
from gid_jax.storage import example_to_window, open_split
from gid_jax.train import train
from gid_jax.types import SpectralVolume

# Steps, examples a step, learning rate.
RECIPES = {
  "vae": (vae, 3_000, 24, 4e-3),
  "ldm": (ldm, 4_000, 9, 4e-3),
  "ldm_coordinated": (ldm_coordinated, 2_000, 9, 4e-3),
}


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
    if stage == "vae":
      config.loss.kl = 1e-8
    else:
      config.init["vae" if stage == "ldm" else "ldm"] = str(workdir / ("vae" if stage == "ldm" else "ldm"))
      config.condition_drop = 0.0
      config.data.bands_per_example = config.data.num_bands
    train(config, workdir / stage)


def main():
  """Measures and prints."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--workdir", type=Path, required=True, help="folder of data and runs")
  parser.add_argument("--steps", type=int, default=50, help="sampling steps")
  options = parser.parse_args()
  start = time.monotonic()
  data = options.workdir / "data"
  if not (data / "statistics.json").exists():
    builder.main(f"--output {data} --synthetic 10 --height 32 --width 48 --num_workers 2".split())
  train_stages(options.workdir)

  animator = Animator(restore_params(options.workdir / "ldm_coordinated"), load_pretrained(RENDERER_WEIGHTS))
  examples = open_split(data, "synthetic", "train")
  print("window    motion, px rms    error, of it    of the auto-encoder alone")
  errors = []
  for index in range(len(examples)):
    window = example_to_window(examples[index], fields=("image", "spectrum"), bands=range(16))
    volume = animator.predict_spectrum(
      jax.random.key(index), window.image.astype(np.float32) / 255, steps=options.steps, guidance=0.0
    )
    bands = np.arange(16)[None]
    apply = lambda *args, method: animator._motion_model.apply({"params": animator.motion_params}, *args, method=method)
    restored = apply(
      apply(window.spectrum[None], bands, method="slices_to_latents"), bands, method="latents_to_slices"
    )[0]
    truth, sampled, coded = (
      np.asarray(spectrum_to_motion(SpectralVolume(np.asarray(spectrum, np.float32), num_frames=150, fps=30.0)))
      for spectrum in (window.spectrum, volume.coefficients, restored)
    )
    norm = np.sqrt((truth**2).mean())
    error, coding = (float(np.sqrt(((x - truth) ** 2).mean()) / norm) for x in (sampled, coded))
    errors.append(error)
    print(f"{index:>6}    {norm:>14.2f}    {error:>12.3f}    {coding:>24.3f}")
  print(f"mean {np.mean(errors):.3f}, worst {max(errors):.3f}, in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
  main()
