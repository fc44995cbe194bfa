"""Judging a model: what it is judged on and by which metrics.

  python -m gid_jax.evaluate --config=configs/evaluation.py --workdir=runs/evaluation --config.real.folder=CLIPS \
    --config.feature_weights.vgg16=vgg16.npz

Writes `report.html`, `report.json` and videos into the work folder; the same command goes on where it stopped, and
`--against=OTHER/report.json` marks what differs by more than noise. Needs the extras `eval` and `data`. Two minutes a
clip and ten seconds a simulated scene on two slow CPU cores. A model must not be judged on scenes that it was trained
on: those that its weights name are left out; name others in `exclude`. docs/evaluation.md explains every figure.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """The default: whatever folders are given, four samples a photo."""
  return ml_collections.ConfigDict(
    dict(
      # Folder of exported weights; the embedded ones when empty.
      weights="",
      # Filmed clips and seamless loops; scenes as a,b,c, all of the tiers when empty; takes of each scene, all when 0.
      real=dict(folder="", tiers="A", scenes="", exclude="", takes=0),
      loops=dict(folder="", tiers="A", scenes="", exclude="", takes=0),
      # What measures their motion: default, reference (the published settings) or module:attribute.
      flow="default",
      # Seeds that no data set reaches.
      # Motion is judged on all, the renderer on the first `rendered` of them.
      simulated=dict(number=0, rendered=100, first_seed=1_000_000, backgrounds="", sprites=""),
      # Volumes sampled for a photo; end-point errors of the best of 1, 4 and 16 take as many.
      num_samples=4,
      # Networks for videos, and files of weights for those that need one.
      features=("fvd", "fvd32", "efficientnet_lite0", "vgg16", "fid", "dtfvd", "dtfvd32"),
      feature_weights=dict(fid="", dtfvd="", dtfvd32="", resnet34="", vgg16=""),
      # Predictors whose videos networks see, and which are shown; each is filmed for every clip.
      filmed=("model", "mean motion", "smooth noise", "still"),
      # (h, w) of the frames' middle that networks see (section 9).
      crop=(128, 256),
      # Clips whose videos and pictures are put into the report, the first takes of as many scenes.
      num_shown=6,
      # Folder of measured motion and of the clips' own features, good for any model; one in the work folder when empty.
      cache="",
      seed=0,
    )
  )
