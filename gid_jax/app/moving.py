"""One photo, video or .gid file becomes a video, pictures or a page. Heavy modules are imported inside functions."""

import contextlib
import threading
from pathlib import Path
from typing import Any, NamedTuple

from gid_jax import __version__
from gid_jax.app.checks import list_edits
from gid_jax.app.console import Log, open_progress, print_devices, print_video, report_to
from gid_jax.app.models import Models
from gid_jax.app.options import AnimateRequest, LoopRequest, MotionRequest
from gid_jax.app.outputs import PIPE, Target, is_bundle
from gid_jax.app.pipes import send
from gid_jax.devices import configure_jax
from gid_jax.errors import UserError

_SECONDS = 5.0  # of a video that is animated along its own motion


class Job(NamedTuple):
  """One input and what becomes of it.

  Attributes:
    request: the options.
    source: the file to read.
    name: what the source is called, where that matters.
    target: what was asked for.
    path: where it is written.
    models: what animates.
    log: what is said.
    following: the next file to animate, if it is known.
  """

  request: MotionRequest
  source: Path
  name: str
  target: Target
  path: Path
  models: Models
  log: Log
  following: Path | None = None

  @property
  def shown_path(self) -> Path:
    """Where the user finds what was written."""
    return PIPE if self.target.path == PIPE else self.path

  def deliver(self) -> None:
    """Sends what was written to standard output, if that is where it goes.

    Raises:
      OutputError, BrokenPipeError: see `gid_jax.app.pipes.send`.
    """
    if self.target.path == PIPE:
      send(self.path)


def carry_out(job: Job) -> None:
  """Animates one input.

  Raises:
    UserError: an unreadable input, an option that it does not go with, or an unwritable output.
  """
  configure_jax()  # before what imports JAX, for which it sets the environment
  from gid_jax.media.shots import is_video

  if is_bundle(job.source):
    _animate_bundle(job)
  elif is_video(job.source):
    _refuse_for_videos(job)
    _animate_video(job)
  else:
    _animate_photo(job)


def _refuse_for_videos(job: Job) -> None:
  request, source = job.request, job.source
  if isinstance(request, LoopRequest):
    raise UserError(f"{source}: a loop is sampled for a photo, and this is a video; use gid animate")
  if job.target.kind == "page":
    raise UserError(f"{job.path}: a page answers to touch with a photo, and {source} is a video; write .mp4 instead")
  for_photos = ("--steps", request.steps is not None), ("--wind", request.wind != "breeze")
  for option, given in (*for_photos, *list_edits(request), ("--save", request.save is not None)):
    if given:
      raise UserError(f"{option} is for photos; the motion of the video {source} is measured, not sampled")


def _animate_photo(job: Job) -> None:
  request, log = job.request, job.log
  import jax

  from gid_jax.app.edits import read_edits
  from gid_jax.app.remarks import find_shape_remarks
  from gid_jax.media import photos
  from gid_jax.motion.editing import check_bands

  is_guided = isinstance(request, LoopRequest) and not request.free
  with log.phase("load"):
    image = photos.read_image(job.source, warn=log.warn)
    for remark in find_shape_remarks(*image.shape[:2], size=request.size):
      log.warn(remark)
    edits = read_edits(request, image)
    print_devices(log.console)
    with log.console.status("Loading the model"):
      animator = job.models.animator
  if edits.bands is not None:
    check_bands(edits.bands, animator.num_bands)
  threading.Thread(target=_prepare, args=(job, animator, image.shape[:2], is_guided), daemon=True).start()
  with log.phase("sample"), open_progress(log.console) as progress:
    sampling = progress.add_task("Compiling", total=request.steps)
    spectrum = animator.predict_spectrum(
      jax.random.key(request.seed),
      image,
      steps=request.steps,
      loop=is_guided,
      progress=lambda done, total: progress.update(sampling, completed=done, total=total, description="Sampling"),
    )
    jax.block_until_ready(spectrum.coefficients)
  log.console.print(f"Loaded in {log.seconds['load']:.1f} s, sampled in {log.seconds['sample']:.1f} s")
  _write_moving_photo(job, animator, image, edits.apply(spectrum))
  if request.save is not None:
    from gid_jax.bundle import Bundle, save_bundle

    settings = {"steps": request.steps, "loop": is_guided}
    bundle = Bundle((image * 255 + 0.5).astype("uint8"), spectrum, request.seed, settings,
                    weights_label=animator.motion_settings.label)  # fmt: skip
    save_bundle(request.save, bundle, overwrite=request.force)
    log.wrote(request.save, request.save.stat().st_size)
  log.end(Path(job.name), output=str(job.shown_path), seed=request.seed)


def _prepare(job: Job, animator, size: tuple[int, int], is_guided: bool) -> None:
  """Compiles ahead what sampling and rendering will run, for this photo and the next."""
  from gid_jax.media import photos, shots

  with contextlib.suppress(Exception):  # what is wrong is said where it is run
    frames = 2 if job.target.kind == "page" else _plan_time(job.request, animator.period)[0]
    options = dict(frames=frames, size=job.request.size, steps=job.request.steps, loop=is_guided)
    animator.prepare(*size, **options)
    following = None
    if job.following is not None and not is_bundle(job.following) and not shots.is_video(job.following):
      following = photos.find_size(job.following)
    if following is not None:
      animator.prepare(*following, **options)


def _animate_bundle(job: Job) -> None:
  from gid_jax.bundle import load_bundle

  with job.log.phase("load"):
    bundle = load_bundle(job.source)
    from gid_jax.app.edits import read_edits

    image = bundle.photo.astype("float32") / 255
    spectrum = read_edits(job.request, image).apply(bundle.spectrum)
    print_devices(job.log.console)
    renderer = job.models.renderer
  _write_moving_photo(job, renderer, image, spectrum)
  job.log.end(Path(job.name), output=str(job.shown_path), seed=bundle.seed)


def _plan_time(request: MotionRequest, period: float) -> tuple[int, float]:
  """How many frames are shown, and at how many of them a second of the motion, which has a period in seconds."""
  # Slower motion is the same series at times that lie closer together.
  fps = request.fps / request.speed
  if isinstance(request, AnimateRequest) and request.frames is not None:
    return request.frames, fps
  if isinstance(request, AnimateRequest) and request.duration is not None:
    return max(2, round(request.duration * request.fps)), fps
  # The frames share the period evenly, so that the one after the last is the first, whatever the frame rate.
  num_frames = max(2, round(period * fps))
  return num_frames, num_frames / period


def _write_moving_photo(job: Job, renderer, image, spectrum) -> None:
  """Renders a photo that moves along a sampled spectrum, or writes its page, and the pictures beside it."""
  from gid_jax.app.remarks import find_remarks
  from gid_jax.motion.spectral import WINDS, magnify

  request, log = job.request, job.log
  factor = request.magnify * WINDS[request.wind]
  option = f"--magnify {request.magnify:g}" if request.magnify != 1 else f"--wind {request.wind}"
  option = option if factor != 1 else "this motion"
  for remark in find_remarks(
    spectrum, factor=factor, option=option, magnify=request.magnify, is_windy=request.wind == "windy"
  ):
    log.warn(remark)
  if job.target.kind == "page":
    from gid_jax.touch.export import export_html

    title = job.source.stem if request.sources and job.name != "-" else "A photo to touch"
    with log.phase("render"):
      export_html(
        image, magnify(spectrum, factor), job.path, title=title, size=request.size, overwrite=request.force)
    job.deliver()
    log.wrote(job.shown_path, job.path.stat().st_size)
    if request.motion is not None:
      _draw_motion(job, image, magnify(spectrum, factor), size=request.size)
    return
  num_frames, fps = _plan_time(request, spectrum.num_frames / spectrum.fps)
  frames = renderer.render(image, spectrum, frames=num_frames, fps=fps, magnify=factor, size=request.size)
  _write_frames(job, image, magnify(spectrum, factor), frames, num_frames)


def _write_frames(job: Job, image, spectrum, frames, num_frames: int) -> None:
  """Writes frames as they come, and the pictures that are asked for, of a spectrum as it is shown."""
  from gid_jax.app.pictures import Slice, put_beside, write_picture
  from gid_jax.media import encoding

  request, log = job.request, job.log
  report = request.report if isinstance(request, LoopRequest) else None
  row = Slice(spectrum) if request.xt is not None or report is not None else None
  if row is not None:
    frames = row.watch(frames)
  ends = _Ends()
  if request.side_by_side:
    frames = put_beside(image, ends.watch(frames))
  else:
    frames = ends.watch(frames)
  note = f"Generated video, not a recording: gid-jax {__version__}" if request.note else None
  with log.phase("render"), open_progress(log.console) as progress:
    rendered = progress.track(frames, total=num_frames, description="Rendering")
    if job.target.kind == "frames":
      video = encoding.write_pictures(job.path, rendered, comment=note, overwrite=request.force)
    else:
      video = encoding.write_video(
        job.path, rendered, fps=request.fps, codec=request.codec, comment=note, overwrite=request.force)
  job.deliver()
  print_video(log, video, job.shown_path, request.fps)
  if row is not None and request.xt is not None:
    log.wrote(request.xt, write_picture(request.xt, row.draw(), overwrite=request.force))
  if request.motion is not None:
    _draw_motion(job, image, spectrum, size=max(ends.first.shape[:2]))
  if isinstance(request, LoopRequest):
    from gid_jax.app.seam import measure_seam, seam_to_png
    from gid_jax.files import complete_or_nothing

    seam = measure_seam(spectrum, num_frames=num_frames, width=ends.first.shape[1])
    log.console.print(seam.describe())
    if report is not None and row is not None:
      import numpy as np

      page = seam_to_png(
        seam, Path(job.name).name, first=ends.first, last=ends.last, slice_xt=np.stack(row.rows), fps=request.fps)
      with complete_or_nothing(report, overwrite=request.force) as temporary:
        temporary.write_bytes(page)
      log.wrote(report, len(page))


class _Ends:
  """Remembers the first and the last frame that pass."""

  first: Any = None
  last: Any = None

  def watch(self, frames):
    for frame in frames:
      self.first, self.last = frame if self.first is None else self.first, frame
      yield frame


def _draw_motion(job: Job, image, spectrum, *, size: int) -> None:
  from gid_jax.app.pictures import draw_motion, write_picture

  assert job.request.motion is not None
  scale = min(1.0, size / max(image.shape[:2]))
  height, width = (max(2, round(side * scale)) for side in image.shape[:2])
  picture = draw_motion(image, spectrum, size=(height, width))
  job.log.wrote(job.request.motion, write_picture(job.request.motion, picture, overwrite=job.request.force))


def _animate_video(job: Job) -> None:
  import numpy as np

  from gid_jax.app.inspection import FilmComparison, fit_working_size, measure_spectrum
  from gid_jax.media import shots
  from gid_jax.motion.spectral import magnify

  request, log = job.request, job.log
  assert isinstance(request, AnimateRequest)
  with log.phase("load"):
    shot = shots.read_shot(job.source, size=fit_working_size, warn=log.warn)
    image = shots.read_frame(job.source, index=shot.index).astype(np.float32) / 255
    print_devices(log.console)
    renderer = job.models.renderer
  seconds = request.duration or min(_SECONDS, len(shot.frames) / shot.fps)
  num_frames = request.frames or max(2, round(seconds * request.fps))
  comparison = FilmComparison(shot, fps=request.fps)
  with log.phase("measure"), open_progress(log.console) as progress:
    spectrum = measure_spectrum(shot, progress=report_to(progress))
  # Anchoring would shift the whole film by half of what separates its last frame from its first.
  frames = renderer.render(
    image, spectrum, frames=num_frames, fps=request.fps, magnify=request.magnify, size=request.size,
    anchor_first_frame=False)
  shown = magnify(spectrum, request.magnify) if request.xt is not None or request.motion is not None else spectrum
  _write_frames(job, image, shown, comparison.watch(frames), num_frames)
  if request.magnify == 1 and comparison.num_frames:
    log.console.print(
      f"Against the film, over {comparison.num_frames} frames: {comparison.error:.2f} grey levels;"
      f" its first frame at rest: {comparison.still_error:.2f}")
  log.end(Path(job.name), output=str(job.shown_path), seed=None)
