"""Simulated films with their exact truth.

  python -m examples.simulate --output films --number 4    # films/scene_7.mp4, films/scene_7.npz and so on
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipeline.synthetic.scene import Scene, sample_scene
from gid_jax.errors import UserError
from gid_jax.files import complete_or_nothing
from gid_jax.media.encoding import write_video

_NUM_TIMES = 10


def make_truth(scene: Scene) -> dict[str, np.ndarray]:
  """What is known of a scene: spectrum [16 h w 4], times [10], displacement [10 h w 2], visible [10 h w]."""
  times = np.linspace(0, scene.num_frames - 1, _NUM_TIMES).round().astype(int)
  return dict(
    spectrum=scene.spectral_volume(min(16, scene.num_frames // 2 + 1)),
    times=times,
    displacement=scene.displacement(times),
    visible=np.stack([scene.visible(time) for time in times]),
  )


def main(argv: Sequence[str] | None = None) -> int:
  """Writes the films and their truth; returns the exit status, 0 or 2."""
  parser = argparse.ArgumentParser(prog="python -m examples.simulate", description="Simulated films with exact truth.")
  parser.add_argument("--output", type=Path, required=True, help="folder to write into; made if it is not there")
  parser.add_argument("--number", type=int, default=4, help="of films")
  parser.add_argument("--seed", type=int, default=7, help="of the first scene")
  parser.add_argument("--frames", type=int, default=150, help="of each film, 30 a second")
  parser.add_argument("--force", action="store_true", help="replace films that exist")
  options = parser.parse_args(argv)
  try:
    options.output.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seed, options.seed + options.number):
      scene = sample_scene(seed, num_frames=options.frames)
      truth = options.output / f"scene_{seed}.npz"
      with complete_or_nothing(truth, overwrite=options.force) as temporary:
        np.savez_compressed(temporary, **make_truth(scene))
      film = truth.with_suffix(".mp4")
      frames = (scene.frame(time) for time in range(options.frames))
      write_video(film, frames, fps=scene.fps, quality=95, overwrite=options.force)
      print(f"Wrote {film} and {truth}: {', '.join(scene.families) or 'still'}")
  except (UserError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(main())
