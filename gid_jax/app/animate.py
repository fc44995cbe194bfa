"""`gid animate`: a photo, a video, a .gid file or many of them.

Heavy modules are imported inside functions, when all that can be refused has been refused.
"""

import contextlib
import functools
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from gid_jax.app.batch import is_batch, split_batch
from gid_jax.app.console import (
  Terminated,
  describe,
  format_bytes,
  open_console,
  open_progress,
  print_devices,
  print_video,
  report_to,
)
from gid_jax.app.options import PAGE_SUFFIX, AnimateRequest, check_animate, is_bundle, list_edits
from gid_jax.devices import configure_jax
from gid_jax.errors import UserError


def animate(request: AnimateRequest) -> int:
  """Carries out `gid animate`.

  Args:
    request: the options.

  Returns:
    The exit status: 0, or 2 when some of several sources failed.

  Raises:
    UserError: an option out of range, an unreadable photo or video, or an unwritable output.
  """
  models = _Models(request.weights)
  if not is_batch(request):
    _animate_one(request, models)
    return 0
  animated: dict[Path, Path] = {}  # outputs and their sources
  failed = 0
  for one in split_batch(request):
    source, output = one.sources[0], one.output
    assert output is not None
    try:
      if output in animated:
        raise UserError(f"{output} is already that of {animated[output]}; rename one of them")
      if source.is_dir():
        raise UserError(f"{source} holds no photos; give files, or a folder of them")
      _animate_one(one, models)
      animated[output] = source
    except Exception as error:
      if os.environ.get("GID_TRACEBACK") and not isinstance(error, UserError):
        raise
      reason = describe(error)
      named = "" if str(source) in reason else f"{source}: "
      print(f"gid: error: {named}{reason}", file=sys.stderr)
      failed += 1
    except (KeyboardInterrupt, Terminated) as end:
      raise type(end)(f"{len(animated)} animated, {failed} failed") from None
  print(f"{len(animated)} animated, {failed} failed")
  return 2 if failed else 0


class _Models:
  """What animates, loaded when it is first needed and kept for the sources that follow."""

  def __init__(self, weights: Path | None):
    self._weights = weights

  @functools.cached_property
  def animator(self):
    from gid_jax.pipeline import Animator

    return Animator.from_pretrained(self._weights)

  @functools.cached_property
  def renderer(self):
    from gid_jax.pipeline import ImageRenderer

    return ImageRenderer.from_pretrained(self._weights)


def _animate_one(request: AnimateRequest, models: _Models) -> None:
  source, output = check_animate(request)
  from gid_jax.media.shots import is_video

  if is_bundle(source):
    _animate_bundle(request, source, output, models)
  elif is_video(source):
    if output.suffix.lower() == PAGE_SUFFIX:
      raise UserError(f"{output}: a page answers to touch with a photo, and {source} is a video; write .mp4 instead")
    for_photos = ("--steps", request.steps is not None), ("--loop", request.loop), ("--wind", request.wind != "breeze")
    for option, given in (*for_photos, *list_edits(request), ("--save", request.save is not None)):
      if given:
        raise UserError(f"{option} is for photos; the motion of the video {source} is measured, not sampled")
    _animate_video(request, source, output, models)
  else:
    _animate_photo(request, source, output, models)


def _animate_photo(request: AnimateRequest, photo: Path, output: Path, models: _Models) -> None:
  start = time.perf_counter()
  configure_jax()
  import jax

  from gid_jax.app.edits import read_edits
  from gid_jax.media import photos
  from gid_jax.motion.editing import check_bands

  console = open_console()
  image = photos.read_image(photo)
  edits = read_edits(request, image)
  print_devices(console)
  with console.status("Loading the model"):
    animator = models.animator
  if edits.bands is not None:
    check_bands(edits.bands, animator.num_bands)
  loaded = time.perf_counter()
  options: dict[str, Any] = {"steps": request.steps, "loop": request.loop}
  threading.Thread(
    target=_prepare, args=(animator, image.shape[:2], options | {"size": request.size, "frames": request.frames or 150})
  ).start()
  with open_progress(console) as progress:
    sampling = progress.add_task("Compiling", total=request.steps)
    spectrum = animator.predict_spectrum(
      jax.random.key(request.seed),
      image,
      **options,
      progress=lambda done, total: progress.update(sampling, completed=done, total=total, description="Sampling"),
    )
  console.print(f"Loaded in {loaded - start:.1f} s, sampled in {time.perf_counter() - loaded:.1f} s")
  period = animator.period if request.loop else None
  _write_moving_photo(request, animator, image, edits.apply(spectrum), photo, output, start, loop_period=period)
  if request.save is not None:
    from gid_jax.bundle import Bundle, save_bundle

    settings = {"steps": request.steps, "loop": request.loop}
    bundle = Bundle((image * 255 + 0.5).astype("uint8"), spectrum, request.seed, settings,
                    weights_label=animator.motion_settings.label)  # fmt: skip
    save_bundle(request.save, bundle, overwrite=request.force)
    console.print(f"Wrote {request.save}: {format_bytes(request.save.stat().st_size)}")


def _prepare(animator, size, options) -> None:
  with contextlib.suppress(Exception):  # what is wrong is said where it is run
    animator.prepare(*size, **options)


def _animate_bundle(request: AnimateRequest, source: Path, output: Path, models: _Models) -> None:
  start = time.perf_counter()
  from gid_jax.bundle import load_bundle

  bundle = load_bundle(source)
  configure_jax()
  from gid_jax.app.edits import read_edits

  image = bundle.photo.astype("float32") / 255
  spectrum = read_edits(request, image).apply(bundle.spectrum)
  print_devices(open_console())
  is_loop = bundle.settings.get("loop") is True and request.frames is None
  period = spectrum.num_frames / spectrum.fps if is_loop else None
  _write_moving_photo(request, models.renderer, image, spectrum, source, output, start, loop_period=period)


def _write_moving_photo(
  request: AnimateRequest, renderer, image, spectrum, source: Path, output: Path, start: float, *, loop_period
) -> None:
  """Renders a photo that moves along a sampled spectrum, one period of it if that is a loop's, or writes its page."""
  from gid_jax.media import encoding
  from gid_jax.motion.spectral import WINDS, magnify

  console, factor = open_console(), request.magnify * WINDS[request.wind]
  if output.suffix.lower() == PAGE_SUFFIX:
    from gid_jax.touch.export import export_html

    title = source.stem if request.sources else "A photo to touch"
    export_html(image, magnify(spectrum, factor), output, title=title, size=request.size, overwrite=request.force)
    console.print(f"Wrote {output}: {format_bytes(output.stat().st_size)}, in {time.perf_counter() - start:.1f} s")
    return
  # Slower motion is the same series at times that lie closer together.
  num_frames, fps = request.frames or max(2, round(150 / request.speed)), request.fps / request.speed
  if loop_period is not None:
    # The frames share the period evenly, so that the one after the last is the first, whatever the frame rate.
    num_frames = max(2, round(loop_period * fps))
    fps = num_frames / loop_period
  frames = renderer.render(image, spectrum, frames=num_frames, fps=fps, magnify=factor, size=request.size)
  with open_progress(console) as progress:
    rendered = progress.track(frames, total=num_frames, description="Rendering")
    video = encoding.write_video(output, rendered, fps=request.fps, overwrite=request.force)
  print_video(console, video, request.fps, start)


def _animate_video(request: AnimateRequest, source: Path, output: Path, models: _Models) -> None:
  start = time.perf_counter()
  configure_jax()
  import numpy as np

  from gid_jax.app.inspection import FilmComparison, fit_working_size, measure_spectrum
  from gid_jax.media import encoding, shots

  console = open_console()
  shot = shots.read_shot(source, size=fit_working_size)
  image = shots.read_first_frame(source).astype(np.float32) / 255
  print_devices(console)
  renderer = models.renderer
  num_frames = request.frames or max(2, round(len(shot.frames) * request.fps / shot.fps))
  comparison = FilmComparison(shot, fps=request.fps)
  with open_progress(console) as progress:
    spectrum = measure_spectrum(shot, progress=report_to(progress))
    # Anchoring would shift the whole film by half of what separates its last frame from its first.
    frames = renderer.render(
      image, spectrum, frames=num_frames, fps=request.fps, magnify=request.magnify, size=request.size,
      anchor_first_frame=False)
    rendered = comparison.watch(progress.track(frames, total=num_frames, description="Rendering"))
    video = encoding.write_video(output, rendered, fps=request.fps, overwrite=request.force)
  if request.magnify == 1 and comparison.num_frames:
    console.print(
      f"Against the film, over {comparison.num_frames} frames: {comparison.error:.2f} grey levels;"
      f" its first frame at rest: {comparison.still_error:.2f}")
  print_video(console, video, request.fps, start)
