"""A picture of a simulated scene, all that is known of it, and the next eleven seeds.

  python -m data_pipeline.synthetic.sheet 7    # synthetic_7.png
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_pipeline.synthetic.scene import Scene, sample_scene
from gid_jax.app.inspection import peak_frequency
from gid_jax.app.sheet import COLUMN, GAP, GREY, LEFTS, MARGIN, WIDTH, Page
from gid_jax.errors import UserError
from gid_jax.files import complete_or_nothing
from gid_jax.media.folders import load_photos
from gid_jax.motion import visualize
from gid_jax.types import SpectralVolume

_NUM_BANDS = 16
_SIX_GAP = 0.14
_SIX = (WIDTH - 2 * MARGIN - 5 * _SIX_GAP) / 6  # width of a picture where six stand in a row
_POWER_HEIGHT = 2.9
_HIDDEN = np.array([255, 0, 170], np.float32)


def scenes_to_png(scenes: Sequence[Scene]) -> bytes:
  """Draws a page about the first scene, ending with the photos of all scenes, as a PNG file.

  Raises:
    UserError: matplotlib is not installed.
  """
  scene = scenes[0]
  height, width = scene.image.shape[:2]
  panel, small = (COLUMN - 0.75) / width * height, _SIX / width * height
  maps = 2.55 + panel + 0.85
  strip = maps + panel + 0.85
  power = strip + small + 0.95
  sheet = power + _POWER_HEIGHT + 1.25
  num_rows = -(-len(scenes) // 6)
  page = Page(sheet + num_rows * (small + 0.36) + 0.2)

  motion = scene.displacement(np.arange(scene.num_frames))
  lengths = np.linalg.norm(motion, axis=-1)
  edge = height // 10  # At the very edge the row would be hard to see, and things leave the picture.
  row = edge + visualize.find_liveliest_row(motion[:, edge : height - edge]) if lengths.any() else height // 2
  farthest = int(lengths.mean((1, 2)).argmax()) or scene.num_frames // 2
  spectrum = SpectralVolume(
    scene.spectral_volume(scene.num_frames // 2 + 1), num_frames=scene.num_frames, fps=scene.fps)
  frames = np.stack([scene.frame(float(time)) for time in range(scene.num_frames)])
  peak = peak_frequency(spectrum) if lengths.any() else None

  _draw_header(page, scene, lengths, peak)
  _draw_pictures(page, scene, motion, row, farthest, 2.55, panel)
  _draw_maps(page, scene, lengths, farthest, maps, panel)
  _draw_later_frames(page, scene, frames, strip, small)
  num_bands = min(_NUM_BANDS, scene.num_frames // 2 + 1)
  page.draw_power(LEFTS[0], power, _POWER_HEIGHT, spectrum, num_bands=num_bands, peak=peak)
  page.title(LEFTS[1], power, "X–t slice", note="the dashed row of every frame, as the scene renders it")
  page.draw_slice(
    LEFTS[1], power, 2 * COLUMN + GAP, _POWER_HEIGHT, visualize.slice_xt(frames, row), begin=0,
    end=scene.num_frames / scene.fps)
  _draw_contact_sheet(page, scenes, sheet, small)
  return page.to_png()


def _draw_header(page: Page, scene: Scene, lengths: np.ndarray, peak: float | None):
  height, width = scene.image.shape[:2]
  magnitude = lengths.mean(0)
  top = magnitude[magnitude >= np.quantile(magnitude, 0.95)].mean()
  parts = len(np.unique(scene.layer_ids)) - bool(np.any(scene.layer_ids == 0))
  page.head(
    f"Simulated scene {scene.seed}",
    f"{', '.join(scene.families) or 'nothing but the background'}  ·  {width} × {height} px,"
    f" {scene.num_frames} frames at {scene.fps:g} fps ({scene.num_frames / scene.fps:.3g} s)  ·  all of it exact:"
    " computed, not measured",
    (
      ("none" if peak is None else f"{peak:.2f} Hz", "peak of the motion power"),
      (f"{magnitude.mean():.2f} px", "mean displacement"),
      (f"{top:.2f} px", "liveliest 5 % of the pixels"),
      (f"{lengths.max():.1f} px", "farthest that any pixel goes"),
      (f"{100 * (magnitude > 0.1).mean():.0f} %", "of the pixels move over 0.1 px"),
      (f"{parts}", "parts in view"),
    ))


def _draw_pictures(
  page: Page, scene: Scene, motion: np.ndarray, row: int, farthest: int, top: float, height: float
):
  width, seconds = COLUMN - 0.75, farthest / scene.fps
  page.title(LEFTS[0], top, "First frame", note="dashed: the row of the X–t slice below")
  axes, _ = page.place_image(LEFTS[0], top, width, height, scene.image)
  page.draw_row(axes, row)
  page.title(LEFTS[1], top, f"The frame at {seconds:.2f} s", note="farthest from the first one")
  page.place_image(LEFTS[1], top, width, height, scene.frame(float(farthest)))
  page.title(LEFTS[2], top, "Displacement", note=f"from the first frame to the one at {seconds:.2f} s")
  page.draw_flow(LEFTS[2], top, width, height, motion[farthest])


def _draw_maps(page: Page, scene: Scene, lengths: np.ndarray, farthest: int, top: float, height: float):
  width = COLUMN - 0.75
  magnitude = lengths.mean(0)
  largest = visualize.round_up(max(float(np.quantile(magnitude, 0.995)), 0.1))
  page.title(LEFTS[0], top, "Mean length of the displacement", note="over all frames, in pixels")
  _, image = page.place_image(
    LEFTS[0], top, width, height, magnitude, cmap="inferno", vmin=0, vmax=largest, interpolation="nearest")
  page.draw_scale(image, LEFTS[0] + width, top, height, ticks=(0, largest / 2, largest))

  page.title(LEFTS[1], top, "Parts", note="one colour each; grey: the background")
  page.place_image(LEFTS[1], top, width, height, parts_to_colors(scene.layer_ids), interpolation="nearest")

  visible = scene.visible(float(farthest))
  page.title(
    LEFTS[2], top, f"Still seen at {farthest / scene.fps:.2f} s",
    note=f"magenta: covered or out of the picture by then, {100 * (~visible).mean():.1f} %")
  faded = 0.6 * scene.image + 0.4 * 255
  picture = np.where(visible[..., None], faded, _HIDDEN).astype(np.uint8)
  page.place_image(LEFTS[2], top, width, height, picture, interpolation="nearest")


def parts_to_colors(layer_ids: np.ndarray) -> np.ndarray:
  """Gives every part of [h w] its own colour, neighbouring numbers far apart, and part 0 grey: [h w 3] float32."""
  parts, index = np.unique(layer_ids, return_inverse=True)
  golden = (np.sqrt(5) - 1) / 2
  angle = 2 * np.pi * golden * parts
  # Hue from the direction, and paler or fuller from part to part, so that nearby hues differ too.
  radius = 0.55 + 0.4 * np.mod(parts * golden**2 * 3, 1)
  vectors = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
  colors = visualize.flow_to_colors(vectors.astype(np.float32), max_magnitude=1.0)
  colors[parts == 0] = 0.3
  return colors[index.reshape(layer_ids.shape)]


def _draw_later_frames(page: Page, scene: Scene, frames: np.ndarray, top: float, height: float):
  # Under half a second apart, so that the eye can follow a swing.
  step = max(1, min(round(0.4 * scene.fps), (len(frames) - 1) // 6))
  page.title(MARGIN, top, "Later frames", note="what was covered at first and comes into view is rendered, not guessed")
  for index in range(6):
    time = min((index + 1) * step, len(frames) - 1)
    left = MARGIN + index * (_SIX + _SIX_GAP)
    page.place_image(left, top, _SIX, height, frames[time])
    page.write(left, top + height + 0.2, f"{time / scene.fps:.2f} s", color=GREY)


def _draw_contact_sheet(page: Page, scenes: Sequence[Scene], top: float, height: float):
  page.title(
    MARGIN, top, f"Seeds {scenes[0].seed} to {scenes[-1].seed}", note="first frames, and the families in each scene")
  for index, scene in enumerate(scenes):
    row, column = divmod(index, 6)
    left, upper = MARGIN + column * (_SIX + _SIX_GAP), top + row * (height + 0.36)
    page.place_image(left, upper, _SIX, height, scene.image)
    page.write(left, upper + height + 0.2, f"{scene.seed}", weight="bold")
    families = ", ".join(scene.families) or "still"
    page.write(left + _SIX, upper + height + 0.2, families, color=GREY, ha="right", size=8)


def main(argv: Sequence[str] | None = None) -> int:
  """Simulates and draws; returns the exit status, 0 or 2."""
  parser = argparse.ArgumentParser(
    prog="python -m data_pipeline.synthetic.sheet", description="Draws a simulated scene and all that is known of it."
  )
  parser.add_argument("seed", type=int, help="of the scene")
  parser.add_argument("--backgrounds", default="", help="folder of photos for backgrounds; painted ones without")
  parser.add_argument("--sprites", default="", help="folder of cut-outs, PNG with transparency; none without")
  parser.add_argument("--output", type=Path, help="picture to write, .png; default: synthetic_SEED.png")
  parser.add_argument("--force", action="store_true", help="replace the output if it exists")
  options = parser.parse_args(argv)
  output = options.output or Path(f"synthetic_{options.seed}.png")
  try:
    if not 0 <= options.seed < 2**32:
      raise UserError(f"seed {options.seed}: choose one between 0 and {2**32 - 1}")
    if output.suffix.lower() != ".png":
      raise UserError(f"{output}: unknown picture format '{output.suffix}'; use .png")
    with complete_or_nothing(output, overwrite=options.force) as temporary:
      backgrounds, sprites = load_photos(options.backgrounds, options.sprites)
      seeds = range(options.seed, options.seed + 12)
      scenes = [sample_scene(seed, backgrounds=backgrounds, sprites=sprites) for seed in seeds]
      temporary.write_bytes(scenes_to_png(scenes))
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  print(f"Wrote {output}")
  return 0


if __name__ == "__main__":
  sys.exit(main())
