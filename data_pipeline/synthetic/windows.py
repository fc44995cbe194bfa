"""Simulated scenes as training samples."""

import numpy as np

from data_pipeline.synthetic.scene import Scene
from data_pipeline.trajectories import shrink_vectors
from gid_jax.types import Window


def scene_to_window(
  scene: Scene, *, num_bands: int, num_pairs: int, motion_stride: int = 2, rng: np.random.Generator
) -> Window:
  """Makes a training sample: spectrum on every `motion_stride`-th pixel and `num_pairs` random later frames with flow.

  Raises UserError for a picture whose sides are no multiples of `motion_stride`.
  """
  times = np.sort(rng.choice(np.arange(1, scene.num_frames), num_pairs, replace=num_pairs >= scene.num_frames))
  return Window(
    image=scene.image,
    spectrum=shrink_vectors(scene.spectral_volume(num_bands), stride=motion_stride).astype(np.float16),
    frames=np.stack([scene.frame(t) for t in times]),
    flows=scene.displacement(times).astype(np.float16),
    depth=scene.mean_magnitude().astype(np.float16),
    scene=f"{scene.source}-{scene.seed}",
    source=scene.source,
  )
