"""Photo to spectral volume to frames: what the command line, the evaluation and the library all call.

Three grids meet here. The *working* grid is the size the networks were trained at, adapted to the photo's aspect; the
*motion* grid is the part of it that a spectral volume is stored on (half as wide and high by default); the *output*
grid is the video's. Displacements are rescaled, per axis, whenever they change grid.
"""

import functools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, UInt8

from gid_jax.configuration import ModelSettings, RendererSettings, WeightsSettings, expect_model
from gid_jax.devices import use_compilation_cache
from gid_jax.diffusion.prediction import Progress, predict_spectra
from gid_jax.models.build import make_motion_model, make_renderer
from gid_jax.models.renderer import Renderer, composite
from gid_jax.motion import spectral, warp
from gid_jax.types import PRNGKey, SpectralVolume
from gid_jax.weights.pretrained import MOTION_WEIGHTS, RENDERER_WEIGHTS, find_renderer, load_pretrained

# The devices of a CPU share one memory, and each holds the working arrays of a frame: all of them together may have
# so many pixels of the video, unless one frame alone has more.
_MAX_PIXELS_AT_ONCE = 2**22


def working_size(height: int, width: int, *, area: int, multiple: int) -> tuple[int, int]:
  """The working grid (h, w) of a photo: multiples of `multiple`, about `area` pixels, nearest to the photo's aspect.

  Very long photos are squeezed to an aspect of at most 4, since the networks have seen nothing of the kind.
  """
  aspect = min(max(width / height, 0.25), 4.0)
  ideal = math.sqrt(area / aspect)
  rows = range(multiple, int(2 * ideal) + 2 * multiple, multiple)
  columns = range(multiple, int(2 * ideal * aspect) + 2 * multiple, multiple)

  def misfit(size):
    h, w = size
    return abs(math.log(w / h / aspect)) + 0.5 * abs(math.log(h * w / area))

  return min(((h, w) for h in rows for w in columns), key=misfit)


def output_size(height: int, width: int, *, long_side: int | None) -> tuple[int, int]:
  """The video's (h, w): the photo's aspect, at most `long_side` pixels long, never enlarged, even sizes."""
  scale = 1.0 if long_side is None else min(1.0, long_side / max(height, width))
  even = lambda length: max(2, 2 * int(length * scale / 2 + 1e-6))  # the sum forgives rounding
  return even(height), even(width)


def resize_image(image: Float[np.ndarray, "h w 3"], height: int, width: int) -> Float[np.ndarray, "h2 w2 3"]:
  """Resizes an image [h w 3] in [0, 1] to [height width 3] by area (shrinking) or bicubic interpolation (growing)."""
  if image.shape[:2] == (height, width):
    return np.asarray(image, np.float32)
  shrinks = height * width < image.shape[0] * image.shape[1]
  method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
  return np.clip(cv2.resize(np.asarray(image, np.float32), (width, height), interpolation=method), 0, 1)


@functools.partial(jax.jit, static_argnames=("model",))
def _encode_appearance(model: Renderer, params, image):
  return model.apply({"params": params}, image[None], method="encode")


@functools.partial(jax.jit, static_argnames=("height", "width", "anchor"))
def _depth(spectrum: SpectralVolume, height, width, anchor):
  """W on the working grid, px of that grid (section 5)."""
  return spectral.motion_magnitude(spectral.resize_spectrum(spectrum, height, width), anchor_first_frame=anchor)


_make_spline = jax.jit(warp.make_spline)


@functools.partial(jax.jit, static_argnames=("model",))
def _render_flow(model: Renderer, params, image, flow, depth, noise):
  frame: Any = model.apply({"params": params}, image[None], flow[None], depth[None], noise[None])
  return composite(warp.make_spline(image), flow, jax.tree.map(lambda array: array[0], frame))


@functools.partial(jax.jit, static_argnames=("model", "anchor", "mesh"))
def _render_frames(
  model: Renderer, params, image, spline, pyramid, spectrum: SpectralVolume, depth, noise, times, *, anchor, mesh: Mesh
):
  """The frames [n h2 w2 3] at times [n], each device its share."""

  def render_frame(params, image, spline, pyramid, spectrum, depth, noise, time):
    motion = spectral.evaluate_motion(spectrum, time[None], anchor_first_frame=anchor)[0]
    flow = spectral.resize_motion(motion, *image.shape[:2])
    operands = image[None], pyramid, flow[None], depth[None], noise[None]
    frame: Any = model.apply({"params": params}, *operands, method="decode")
    rgb = composite(spline, flow, jax.tree.map(lambda array: array[0], frame))
    return (rgb * 255 + 0.5).astype(jnp.uint8)

  def render_share(*operands):
    *shared, times = operands
    return jax.lax.map(lambda time: render_frame(*shared, time=time), times)

  whole, split = PartitionSpec(), PartitionSpec("frames")
  operands = params, image, spline, pyramid, spectrum, depth, noise
  share = jax.shard_map(
    render_share, mesh=mesh, in_specs=(*(whole for _ in operands), split), out_specs=split, check_vma=False
  )
  return share(*operands, times)


def _fetch(number, frames):
  return iter(np.asarray(frames)[:number])


class ImageRenderer:
  """A trained renderer, ready to move a photo along any spectral volume.

  Attributes:
    renderer_settings: what the weights say of themselves.
    renderer_params: the parameters, nested dicts of arrays.
  """

  def __init__(self, renderer: tuple[Mapping, WeightsSettings]):
    """Takes (parameters, settings) of the renderer, as `weights.pretrained.import_weights` gives."""
    params, self.renderer_settings = renderer
    self.renderer_params = jax.device_put(dict(params))
    self._renderer = make_renderer(expect_model(RendererSettings, self.renderer_settings))

  @classmethod
  def from_pretrained(cls, directory: str | Path | None = None) -> "ImageRenderer":
    """Loads the embedded weights, or `renderer.safetensors` of another directory.

    A directory of motion weights alone gets the embedded renderer. Compiled programs are kept in the user's cache
    folder, unless JAX has been given another.

    Raises:
      UserError: the file is missing, damaged or of a newer version.
    """
    use_compilation_cache()
    return cls(load_pretrained(RENDERER_WEIGHTS, directory=find_renderer(directory)))

  def working_size(self, height: int, width: int) -> tuple[int, int]:
    """The working grid (h, w) for a photo of height x width pixels."""
    model = expect_model(RendererSettings, self.renderer_settings)
    multiple = 2 ** (len(self._renderer.config.channels) - 1)
    return working_size(height, width, area=math.prod(model.image_size), multiple=multiple)

  def render_flow(
    self,
    image: Float[np.ndarray, "h w 3"],
    flow: Float[np.ndarray, "h w 2"],
    depth: Float[np.ndarray, "h w"],
    *,
    seed: int = 0,
  ) -> Float[Array, "h w 3"]:
    """Renders one frame [h w 3] in [0, 1] of an image of the working size, moved by any given flow (section 5).

    Args:
      image: [h w 3] float32 RGB in [0, 1].
      flow: [h w 2] displacement of every pixel, pixels.
      depth: [h w] splatting weight W, mean motion magnitude, pixels.
      seed: of the renderer's style noise.
    """
    return _render_flow(self._renderer, self.renderer_params, image, flow, depth, self._style(seed))

  def _style(self, seed: int):
    return jax.random.normal(jax.random.key(seed), (self._renderer.config.style_dim,))

  def render(
    self,
    image: Float[np.ndarray, "h w 3"],
    spectrum: SpectralVolume,
    *,
    frames: int = 150,
    fps: float = 30.0,
    magnify: float = 1.0,
    size: int | None = None,
    seed: int = 0,
    anchor_first_frame: bool = True,
  ) -> Iterator[UInt8[np.ndarray, "h2 w2 3"]]:
    """Renders a photo moved by a spectral volume, frame by frame (section 5).

    Frame i shows the motion at i / fps seconds; after num_frames / spectrum.fps seconds it repeats exactly.

    Args:
      image: [h w 3] float32 RGB in [0, 1], any size.
      spectrum: of this photo, on any grid.
      frames: how many frames.
      fps: frames per second of the video.
      magnify: factor on the motion.
      size: long side of the video in pixels; the photo's own size when None or larger than it.
      seed: of the renderer's style noise, one for the whole video.
      anchor_first_frame: show the motion relative to frame 0, so that the video begins on the photo.

    Yields:
      [h2 w2 3] uint8 frames of even size and the photo's aspect.
    """
    height, width = self.working_size(*image.shape[:2])
    working = jnp.asarray(resize_image(image, height, width))
    shown = output_size(*image.shape[:2], long_side=size)
    spline = _make_spline(resize_image(image, *shown))
    spectrum = spectral.magnify(spectrum, magnify)
    pyramid = _encode_appearance(self._renderer, self.renderer_params, working)
    depth = _depth(spectrum, height, width, anchor_first_frame)
    noise = self._style(seed)
    # Splatting keeps one core busy, whatever their number: devices share the frames, not the pixels.
    devices = jax.local_devices()[: max(1, frames)]
    if devices[0].platform == "cpu":
      devices = devices[: max(1, _MAX_PIXELS_AT_ONCE // math.prod(shown))]
    mesh = Mesh(np.asarray(devices), ("frames",))
    times = (np.arange(frames) * (spectrum.fps / fps)).astype(np.float32)
    pending = []
    for start in range(0, frames, mesh.size):
      block = times[start : start + mesh.size]
      padded = np.pad(block, (0, mesh.size - len(block)), mode="edge")
      rendered = _render_frames(
        self._renderer, self.renderer_params, working, spline, pyramid, spectrum, depth, noise, padded,
        anchor=anchor_first_frame, mesh=mesh)
      pending.append((len(block), rendered))
      # One block ahead, so that devices render while their last frames are taken.
      if len(pending) == 2:
        yield from _fetch(*pending.pop(0))
    for number, rendered in pending:
      yield from _fetch(number, rendered)


class Animator(ImageRenderer):
  """A trained motion model and renderer, ready to animate photos.

  Attributes:
    motion_settings, renderer_settings: what the weights say of themselves.
    motion_params, renderer_params: their parameters, nested dicts of arrays.
  """

  def __init__(self, motion: tuple[Mapping, WeightsSettings], renderer: tuple[Mapping, WeightsSettings]):
    """Takes (parameters, settings) of both models, as `weights.pretrained.import_weights` gives."""
    super().__init__(renderer)
    params, self.motion_settings = motion
    self.motion_params = jax.device_put(dict(params))
    self.motion_model = make_motion_model(expect_model(ModelSettings, self.motion_settings))

  @classmethod
  def from_pretrained(cls, directory: str | Path | None = None) -> "Animator":
    """Loads the embedded weights, or `motion.safetensors` and `renderer.safetensors` of another directory.

    A directory without a renderer gets the embedded one. Compiled programs are kept in the user's cache folder, unless
    JAX has been given another.

    Raises:
      UserError: a file is missing, damaged or of a newer version.
    """
    use_compilation_cache()
    motion = load_pretrained(MOTION_WEIGHTS, directory=directory)
    return cls(motion, load_pretrained(RENDERER_WEIGHTS, directory=find_renderer(directory)))

  def working_size(self, height: int, width: int) -> tuple[int, int]:
    """The working grid (h, w) for a photo of height x width pixels, which both networks can take."""
    model = expect_model(ModelSettings, self.motion_settings)
    network = self.motion_model
    needed, favoured = (model.motion_stride * cell for cell in (network.cell, network.favoured_cell))
    # Sides that the denoiser likes best, as far as those that it was trained at are of this kind.
    multiple = math.lcm(needed, math.gcd(favoured, *model.image_size))
    return working_size(height, width, area=math.prod(model.image_size), multiple=multiple)

  @property
  def period(self) -> float:
    """Seconds after which the motion of every photo repeats."""
    model = expect_model(ModelSettings, self.motion_settings)
    return model.num_frames / model.fps

  def predict_spectrum(
    self,
    key: PRNGKey,
    image: Float[np.ndarray, "h w 3"],
    *,
    steps: int | None = None,
    guidance: float | None = None,
    loop: bool = False,
    progress: Progress | None = None,
  ) -> SpectralVolume:
    """Samples a photo's spectral volume (section 4).

    Args:
      key: of the noise; another key, another motion.
      image: [h w 3] float32 RGB in [0, 1], any size.
      steps: DDIM steps; the weights' own default when None.
      guidance: classifier-free weight w; the weights' own default when None.
      loop: guide the motion towards a calm seam between its last frame and its first (section 6, eq. 5).
      progress: called as (done, total) after every step.

    Returns:
      The volume [k h2 w2 4] on the motion grid, pixels of that grid.

    Raises:
      UserError: `steps` is outside 1 ... 1000.
    """
    volumes = self.predict_spectra(
      key[None], image, steps=steps, guidance=guidance, loop=loop, progress=progress
    )
    return volumes.replace(coefficients=volumes.coefficients[0])

  def predict_spectra(
    self,
    keys: Array,
    image: Float[np.ndarray, "h w 3"],
    *,
    steps: int | None = None,
    guidance: float | None = None,
    loop: bool = False,
    progress: Progress | None = None,
  ) -> SpectralVolume:
    """Like `predict_spectrum` for several keys [b] in one batch: volumes [b k h2 w2 4] of the photo [h w 3]."""
    return predict_spectra(
      keys,
      jnp.asarray(resize_image(image, *self.working_size(*image.shape[:2]))),
      model=self.motion_model,
      params=self.motion_params,
      settings=self.motion_settings,
      steps=steps,
      guidance=guidance,
      loop=loop,
      progress=progress,
    )
