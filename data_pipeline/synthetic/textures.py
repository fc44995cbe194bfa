"""Fine structure of what ribbons are made of: blades, leaves, petals, bark; each a picture laid along the ribbon."""

import cv2
import numpy as np

from data_pipeline.synthetic.shapes import smooth_noise

LENGTH, WIDTH = 96, 48  # texels along and across a ribbon
BLADE, LEAF, PETAL, BARK, FLUFF, CLUMP = range(6)


def make_textures(rng: np.random.Generator) -> np.ndarray:
  """Draws the textures of one scene: [6 LENGTH WIDTH 3] float32, factors of a ribbon's colour with a mean about 1.

  The index is BLADE, LEAF, PETAL, BARK, FLUFF (hairs and florets) or CLUMP (a handful of small leaves); rows
  run from root to tip, columns from left to right.
  """
  along, across = np.meshgrid(np.linspace(0, 1, LENGTH), np.linspace(-1, 1, WIDTH), indexing="ij")
  grain = cv2.GaussianBlur(rng.normal(size=(2, LENGTH, WIDTH)).transpose(1, 2, 0), (0, 0), sigmaX=0.8, sigmaY=14)
  streaks, strands = np.moveaxis(grain / grain.std((0, 1)), -1, 0)
  cells, blotches, leaves = (
    smooth_noise(rng, LENGTH, WIDTH, coarsest=coarsest, octaves=octaves)
    for coarsest, octaves in ((6, 5), (2, 2), (7, 3))
  )
  rib = np.exp(-((across / rng.uniform(0.05, 0.12)) ** 2)) * rng.choice([-0.7, 1])  # darker on some plants
  number, slant = rng.integers(5, 10), rng.uniform(0.25, 0.6)
  side = np.cos(2 * np.pi * number * (along - slant * np.abs(across) ** 1.3))
  veins = np.clip(side, 0.7, 1) * 3.3 - 2.3
  quilt = 0.5 * side * (1 - np.abs(across))  # between the side veins a leaf bulges
  rim = np.clip((np.abs(across) - 0.7) / 0.3, 0, 1)
  blade = 1 + 0.10 * streaks + 0.05 * cells + rng.uniform(0, 0.3) * rib
  leaf = 1 + 0.07 * cells + 0.10 * blotches + rng.uniform(0.1, 0.3) * rib + rng.uniform(0.04, 0.16) * veins
  leaf += rng.uniform(0, 0.14) * quilt + rng.uniform(-0.12, 0.15) * rim
  petal = (
    1
    + 0.06 * streaks
    + 0.03 * cells
    + 0.05 * blotches
    + 0.10 * rim
    - 0.08 * np.exp(-((across / 0.2) ** 2)) * (1 - along)
  )
  bark = 1 + 0.2 * streaks + 0.14 * cells + 0.1 * blotches - 0.3 * across**2
  fluff = 1 + 0.3 * strands + 0.12 * cells
  clump = 1 + 0.34 * leaves + 0.12 * cells
  shades = np.stack([blade, leaf, petal, bark, fluff, clump])[..., None]
  tint = 1 + 0.05 * blotches[..., None] * rng.normal(size=3)
  return np.clip(shades * tint, 0.2, 2).astype(np.float32)
