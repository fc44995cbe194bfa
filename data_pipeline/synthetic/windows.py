"""Simulated scenes as training samples."""

import numpy as np

from data_pipeline.synthetic.scene import Scene
from gid_jax.motion.spectral import shrink_vectors
from gid_jax.types import Window


def scene_to_window(
  scene: Scene, *, num_bands: int, num_pairs: int, motion_stride: int = 2, rng: np.random.Generator
) -> Window:
  """Makes a training sample: the spectrum on the motion grid, and later frames with their flow.

  Args:
    scene: simulated.
    num_bands: lowest bands of the spectrum.
    num_pairs: later frames, drawn at random.
    motion_stride: photo pixels per pixel of the motion grid, where vectors are means, in its own pixels.
    rng: draws the frames.

  Raises:
    UserError: the picture's sides are no multiples of `motion_stride`, or the scene has fewer bands.
  """
  size = scene.image.shape[:2]
  times = np.sort(rng.choice(np.arange(1, scene.num_frames), num_pairs, replace=num_pairs >= scene.num_frames))
  return Window(
    image=scene.image,
    spectrum=shrink_vectors(scene.spectral_volume(num_bands), stride=motion_stride).astype(np.float16),
    frames=np.array([scene.frame(t) for t in times], np.uint8).reshape(num_pairs, *size, 3),
    flows=scene.displacement(times).astype(np.float16) if num_pairs else np.zeros((0, *size, 2), np.float16),
    depth=scene.mean_magnitude().astype(np.float16),
    scene=f"synthetic-{scene.seed}",
    source="synthetic",
  )
