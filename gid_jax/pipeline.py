"""Photo to spectral volume to frames: what the command line, the evaluation and the library all call.

Three grids meet here. The *working* grid is the size the networks were trained at, adapted to the photo's aspect; the
*motion* grid is the part of it that a spectral volume is stored on (half as wide and high by default); the *output*
grid is the video's. Displacements are rescaled, per axis, whenever they change grid.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, UInt8

from gid_jax.configuration import ModelSettings, RendererSettings, WeightsSettings, expect_model
from gid_jax.devices import use_compilation_cache
from gid_jax.diffusion.prediction import Progress, predict_spectra
from gid_jax.models.build import make_motion_model, make_renderer
from gid_jax.models.renderer import Renderer
from gid_jax.motion import moving_photo, spectral
from gid_jax.motion.moving_photo import MovingPhoto
from gid_jax.programs import keep
from gid_jax.types import PRNGKey, SpectralVolume
from gid_jax.weights.pretrained import MOTION_WEIGHTS, load_pretrained, load_renderer

# The devices of a CPU share one memory, and each holds the working arrays of a frame: all of them together may have
# so many pixels of the video, unless one frame alone has more.
_MAX_PIXELS_AT_ONCE = 2**22
_MAX_BLOCK = 8  # frames of one device in one call
# Long side of the grid that motion is splatted on; of a larger video, the photo alone has more to show.
_MOTION_SIDE = 512


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


class _Network(NamedTuple):
  """A trained renderer at work on one photo, all of it at the working size.

  Attributes:
    params: of the renderer.
    image: [h w 3] the photo.
    pyramid: what the renderer sees in it.
    depth: [h w] W, px of the working grid.
    noise: of its style.
  """

  params: Any
  image: Array
  pyramid: Any
  depth: Array
  noise: Array


_prepare = keep()(moving_photo.prepare)
_make_series = keep()(moving_photo.make_series)
_resize_spectrum = keep(others=("height", "width"))(spectral.resize_spectrum)
_mean_magnitude = keep(others=("height", "width", "num_frames", "anchor_first_frame"))(moving_photo.mean_magnitude)


@keep(others=("model",))
def _look(model: Renderer, params, image, depth, noise) -> _Network:
  return _Network(params, image, model.apply({"params": params}, image[None], method="encode"), depth, noise)


def _decode(model: Renderer, network: _Network, flow):
  """The network's frame for a flow [h w 2] of any size, brought to that size: [h w 3]."""
  height, width = flow.shape[:2]
  flow = spectral.resize_motion(flow, *network.image.shape[:2])
  operands = network.image[None], network.pyramid, flow[None], network.depth[None], network.noise[None]
  frame: Any = model.apply({"params": network.params}, *operands, method="decode")
  return jax.image.resize(frame.rgb[0], (height, width, 3), "linear")


@keep(others=("model",))
def _render_flow(model: Renderer | None, network: _Network | None, photo: MovingPhoto, flow):
  rest = None if model is None or network is None else _decode(model, network, flow)
  return moving_photo.show(photo, moving_photo.extend(flow), rest=rest)


@keep(others=("model", "mesh"))
def _render_frames(model: Renderer | None, network: _Network | None, photo: MovingPhoto, series, table, *, mesh: Mesh):
  """The frames [n h2 w2 3] of the times of a table [n k 2], each device its share."""
  size = moving_photo.crop(photo.image).shape[:2]

  def render_share(network, photo, series, table):
    def render_frame(flow):
      rest = None
      if model is not None:
        rest = _decode(model, network, moving_photo.crop(flow))
      return moving_photo.show(photo, flow, rest=rest, dtype=jnp.uint8)

    return jax.lax.map(render_frame, moving_photo.evaluate_series(series, table, *size))

  whole, split = PartitionSpec(), PartitionSpec("frames")
  share = jax.shard_map(
    render_share, mesh=mesh, in_specs=(whole, whole, whole, split), out_specs=split, check_vma=False
  )
  return share(network, photo, series, table)


def _fetch(number, frames):
  return iter(np.asarray(frames)[:number])


class ImageRenderer:
  """Moves a photo along any spectral volume.

  What is shown is the photo itself, gathered along the inverted motion (`gid_jax.motion.moving_photo`). What the motion
  uncovers is filled from behind it, or, like where surfaces meet, comes from a trained renderer (section 5).

  Attributes:
    renderer_settings: what the weights of the renderer say of themselves; None without one.
    renderer_params: its parameters, nested dicts of arrays; None without one.
  """

  def __init__(self, renderer: tuple[Mapping, WeightsSettings] | None = None):
    """Takes (parameters, settings) of a trained renderer, as `weights.pretrained.import_weights` gives, or nothing."""
    self.renderer_params = self.renderer_settings = self._renderer = None
    if renderer is not None:
      params, self.renderer_settings = renderer
      self.renderer_params = jax.device_put(dict(params))
      self._renderer = make_renderer(expect_model(RendererSettings, self.renderer_settings))

  @classmethod
  def from_pretrained(cls, directory: str | Path | None = None) -> "ImageRenderer":
    """Takes the trained renderer of `renderer.safetensors` in a directory, where there is one.

    Compiled programs are kept in the user's cache folder, unless JAX has been given another.

    Raises:
      UserError: the directory does not exist, or its file is damaged or of a newer version.
    """
    use_compilation_cache()
    return cls(load_renderer(directory))

  def _look(self, image, depth, seed: int) -> _Network | None:
    """The trained renderer, if any, at its working size of a photo [h w 3], with W [hm wm] of any grid."""
    if self._renderer is None or self.renderer_settings is None:
      return None
    area = math.prod(expect_model(RendererSettings, self.renderer_settings).image_size)
    multiple = 2 ** (len(self._renderer.config.channels) - 1)
    height, width = working_size(*image.shape[:2], area=area, multiple=multiple)
    # W in pixels of the working grid; only its order counts, so one ratio does for both axes.
    depth = jax.image.resize(depth, (height, width), "linear") * (width / depth.shape[1])
    noise = jax.random.normal(jax.random.key(seed), (self._renderer.config.style_dim,))
    return _look(self._renderer, self.renderer_params, resize_image(image, height, width), depth, noise)

  def render_flow(
    self,
    image: Float[np.ndarray, "h w 3"],
    flow: Float[np.ndarray, "h w 2"],
    depth: Float[np.ndarray, "h w"],
    *,
    seed: int = 0,
  ) -> Float[Array, "h w 3"]:
    """Renders one frame [h w 3] in [0, 1] of an image, moved by any given flow (section 5).

    Args:
      image: [h w 3] float32 RGB in [0, 1].
      flow: [h w 2] displacement of every pixel, pixels.
      depth: [h w] splatting weight W, mean motion magnitude, pixels.
      seed: of a trained renderer's style noise.
    """
    network = self._look(image, jnp.asarray(depth), seed)
    return _render_flow(self._renderer, network, _prepare(image, image, depth), jnp.asarray(flow))

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
      seed: of a trained renderer's style noise, one for the whole video.
      anchor_first_frame: show the motion relative to frame 0, so that the video begins on the photo.

    Yields:
      [h2 w2 3] uint8 frames of even size and the photo's aspect.
    """
    shown = output_size(*image.shape[:2], long_side=size)
    grid = output_size(*shown, long_side=_MOTION_SIDE)
    photo = resize_image(image, *shown)
    spectrum = _resize_spectrum(spectral.magnify(spectrum, magnify), *grid)
    series = _make_series(spectrum)
    anchored = dict(anchor_first_frame=anchor_first_frame)
    depth = _mean_magnitude(series, *grid, num_frames=spectrum.num_frames, **anchored)
    network = self._look(image, depth, seed)
    moving = _prepare(photo, resize_image(photo, *grid), depth)
    # Splatting keeps one core busy, whatever their number: devices share the frames, not the pixels.
    devices = jax.local_devices()[: max(1, frames)]
    if devices[0].platform == "cpu":
      devices = devices[: max(1, _MAX_PIXELS_AT_ONCE // math.prod(shown))]
    mesh = Mesh(np.asarray(devices), ("frames",))
    # So many that one product finds the motion of all, so few that they are a small part of the memory.
    block = mesh.size * max(1, min(_MAX_BLOCK, _MAX_PIXELS_AT_ONCE // math.prod(shown)))
    times = (np.arange(frames) * (spectrum.fps / fps)).astype(np.float32)
    num_bands = len(spectrum.coefficients)
    moving, series, network = jax.device_put((moving, series, network), NamedSharding(mesh, PartitionSpec()))
    pending = []
    for start in range(0, frames, block):
      part = times[start : start + block]
      padded = np.pad(part, (0, min(block, -(-frames // mesh.size) * mesh.size) - len(part)), mode="edge")
      table = spectral.series_table(padded, num_bands, spectrum.num_frames, **anchored)
      table = jax.device_put(table, NamedSharding(mesh, PartitionSpec("frames")))
      pending.append((len(part), _render_frames(self._renderer, network, moving, series, table, mesh=mesh)))
      # One block ahead, so that devices render while their last frames are taken.
      if len(pending) == 2:
        yield from _fetch(*pending.pop(0))
    for number, rendered in pending:
      yield from _fetch(number, rendered)


class Animator(ImageRenderer):
  """A trained motion model, ready to animate photos, with or without a trained renderer.

  Attributes:
    motion_settings, renderer_settings: what the weights say of themselves.
    motion_params, renderer_params: their parameters, nested dicts of arrays.
  """

  def __init__(self, motion: tuple[Mapping, WeightsSettings], renderer: tuple[Mapping, WeightsSettings] | None = None):
    """Takes (parameters, settings) of the models, as `weights.pretrained.import_weights` gives."""
    super().__init__(renderer)
    params, self.motion_settings = motion
    self.motion_params = jax.device_put(dict(params))
    self.motion_model = make_motion_model(expect_model(ModelSettings, self.motion_settings))

  @classmethod
  def from_pretrained(cls, directory: str | Path | None = None) -> "Animator":
    """Loads the embedded weights, or `motion.safetensors` and, where there is one, the renderer of a directory.

    Compiled programs are kept in the user's cache folder, unless JAX has been given another.

    Raises:
      UserError: a file is missing, damaged or of a newer version.
    """
    use_compilation_cache()
    return cls(load_pretrained(MOTION_WEIGHTS, directory=directory), load_renderer(directory))

  def working_size(self, height: int, width: int) -> tuple[int, int]:
    """The working grid (h, w) for a photo of height x width pixels."""
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

  @property
  def num_bands(self) -> int:
    """How many frequency bands every sampled volume has."""
    return expect_model(ModelSettings, self.motion_settings).num_bands

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
