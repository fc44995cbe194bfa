"""Claim: on scenes that training left out, sampled motion is where the measured motion is, about as strong and as fast.

  python -m benchmarks.held_out --data FOLDER [--weights FOLDER] [--seeds 3]

Takes the first validation window of every scene of a data set, samples motion for its photo and compares with what
was measured: `log swing`, the correlation over the photo of the logarithms of swing + 0.1 px; `where`, the area under
the ROC curve of the swing, between places that reach 30 % of the swing that 5 % exceed and those below 10 %; `how
much`, octaves off; `how fast`, dB off in power per band (`gid_jax.evaluation.motion.judge_prediction`). Means of the
seeds, then of the scenes with their 95 % intervals. Noise of the flow counts as motion: compare weights by it on one
data set.
"""

import argparse

import jax
import numpy as np

from gid_jax.data.records import open_records
from gid_jax.evaluation.motion import Regions, area_under_curve, find_moving, judge_prediction, measure_texture
from gid_jax.evaluation.results import estimate_mean
from gid_jax.motion.measures import rms_swing
from gid_jax.pipeline import Animator
from gid_jax.types import SpectralVolume

FAINT = 0.1  # px
NAMES = ("log swing", "where", "how much", "how fast")


def judge(volume: SpectralVolume, real: SpectralVolume, image: np.ndarray, *, stride: int) -> tuple[float, ...]:
  """The figures of `NAMES`, NaN where a scene has none, of one sampled volume against the measured one."""
  swing, truth = (np.asarray(rms_swing(x, stride=stride)) for x in (volume, real))
  height, width = truth.shape
  top = np.percentile(truth, 95)
  moving, resting = truth > 0.3 * top, truth < 0.1 * top
  area = area_under_curve(swing, Regions(moving, resting)) if resting.any() else np.nan
  texture = measure_texture(image, height=height, width=width)
  judged = judge_prediction(volume, real, find_moving(truth, np.ones_like(truth), texture), stride=stride)
  logs = [np.log(x + FAINT).ravel() for x in (swing, truth)]
  return float(np.corrcoef(*logs)[0, 1]), area, judged["amplitude_error"], judged["spectral_distance"]


def main() -> None:
  """Samples, compares and prints a row for each scene."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--data", required=True, help="data set")
  parser.add_argument("--weights", help="folder of exported weights; the embedded ones by default")
  parser.add_argument("--seeds", type=int, default=3)
  options = parser.parse_args()
  animator = Animator.from_pretrained(options.weights)
  num_bands = animator.motion_model.num_bands
  for source, chain in open_records(options.data, "validation").items():
    rows: dict[str, np.ndarray] = {}
    print(f"{source:24}" + "".join(f"{name:>11}" for name in NAMES))
    for index in range(len(chain)):
      window = chain[index].decode(fields=("image", "spectrum"), bands=range(num_bands))
      if window.scene in rows:
        continue
      image = window.image.astype(np.float32) / 255
      real = SpectralVolume(window.spectrum.astype(np.float32), num_frames=150)
      volumes = animator.predict_spectra(jax.random.split(jax.random.key(0), options.seeds), image)
      stride = image.shape[0] // real.coefficients.shape[1]
      judged = [
        judge(SpectralVolume(np.asarray(x), num_frames=150), real, image, stride=stride) for x in volumes.coefficients
      ]
      rows[window.scene] = np.mean(judged, axis=0)
      print(f"{window.scene[:23]:24}" + "".join(f"{value:11.2f}" for value in rows[window.scene]), flush=True)
    for name, values in zip(NAMES, np.array(list(rows.values())).T, strict=True):
      known = values[np.isfinite(values)]
      if len(known):
        mean = estimate_mean(known)
        print(f"{name}: {mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f}), {len(known)} scenes")
    print()


if __name__ == "__main__":
  main()
