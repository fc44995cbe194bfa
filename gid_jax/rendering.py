"""Spectral volume to frames: a photo moved along it, at the size of the video.

`gid_jax.pipeline` has the whole way, and the three grids that meet on it.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, UInt8

from gid_jax.configuration import RendererSettings, WeightsSettings, expect_model
from gid_jax.devices import make_aligned, release_memory, use_compilation_cache
from gid_jax.models.build import make_renderer
from gid_jax.models.renderer import Renderer
from gid_jax.motion import moving_photo, spectral, warp
from gid_jax.motion.moving_photo import MovingPhoto
from gid_jax.programs import keep
from gid_jax.sizes import count_room, motion_size, output_size, resize_image, working_size
from gid_jax.types import SpectralVolume
from gid_jax.weights.pretrained import load_renderer

# The devices of a CPU share one memory, and each holds the working arrays of a frame: all of them together may have so
# many pixels of the video, two of 4K, unless one frame alone has more.
_MAX_PIXELS_TOGETHER = 2**24
# Frames of one device in one call, and their pixels.
_MAX_BLOCK, _MAX_PIXELS_OF_BLOCK = 8, 2**22
_ACCELERATION = 8  # times as many of both on a device with a memory of its own
_TILE = 256  # pixels a side of the part of a photo that is made ready at once


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


_make_lattice_tile = keep()(warp.make_lattice_tile)


@keep(others=("height", "width", "anchor_first_frame"))
def _lay_out(spectrum: SpectralVolume, factor, *, height, width, anchor_first_frame):
  """The series of a volume on a grid, magnified, and W there."""
  spectrum = spectral.resize_spectrum(spectral.magnify(spectrum, factor), height, width)
  series = moving_photo.make_series(spectrum)
  depth = moving_photo.mean_magnitude(
    series, height, width, num_frames=spectrum.num_frames, anchor_first_frame=anchor_first_frame)
  return series, depth


@keep()
def _extend(image, depth):
  return moving_photo.extend(image), moving_photo.extend(depth)


def _make_lattice(photo: np.ndarray) -> np.ndarray:
  """The lattice [n] of `warp.make_lattice` for a photo [h w 3] row after row, and room for those of larger ones."""
  height, width = photo.shape[:2]
  lattice = make_aligned(warp.DENSITY**2 * count_room(height, width))
  whole = lattice[: warp.DENSITY**2 * height * width].reshape(warp.DENSITY * height, warp.DENSITY * width)
  before, behind = warp.LATTICE_HALO
  around = np.arange(-before, _TILE + behind)
  for top in range(0, height, _TILE):
    band = photo.take(top + around, 0, mode="clip")
    for left in range(0, width, _TILE):
      tile = np.asarray(_make_lattice_tile(band.take(left + around, 1, mode="clip")))
      place = whole[warp.DENSITY * top :, warp.DENSITY * left :][: len(tile), : len(tile)]
      place[:] = tile[: place.shape[0], : place.shape[1]]
  return lattice


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


@keep(others=("model", "mesh", "num_frames", "anchor_first_frame"))
def _render_frames(
  model: Renderer | None, network: _Network | None, photo: MovingPhoto, series, times, *, mesh: Mesh, num_frames,
  anchor_first_frame,
):  # fmt: skip
  """The frames [n m 3] of `moving_photo.show` at n times, each device its share."""
  size = moving_photo.crop(photo.image).shape[:2]

  def render_share(network, photo, series, times):
    def render_frame(flow):
      rest = None
      if model is not None:
        rest = _decode(model, network, moving_photo.crop(flow))
      return moving_photo.show(photo, flow, rest=rest, dtype=jnp.uint8)

    table = spectral.series_table(times, len(series) // 2, num_frames, anchor_first_frame=anchor_first_frame)
    flows = moving_photo.evaluate_series(series, table, *size)
    return jax.lax.map(render_frame, flows, batch_size=_count_together(mesh.devices.flat[0].platform, len(flows)))

  whole, split = PartitionSpec(), PartitionSpec("frames")
  share = jax.shard_map(
    render_share, mesh=mesh, in_specs=(whole, whole, whole, split), out_specs=split, check_vma=False
  )
  return share(network, photo, series, times)


def _count_together(platform: str, number: int) -> int | None:
  """How many of its frames a device works on at once: on a CPU one, whose arrays stay in the cache, else all."""
  return None if platform == "cpu" else number


def _fetch(number, frames, height, width):
  # Copies, or each frame would keep all that were rendered with it.
  for frame in np.asarray(frames)[:number]:
    yield frame[: height * width].reshape(height, width, 3).copy()


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
    height, width = image.shape[:2]
    photo = MovingPhoto(_make_lattice(image), np.array([height, width], np.int32), *_extend(image, depth))
    return _render_flow(self._renderer, network, photo, jnp.asarray(flow))[: height * width].reshape(height, width, 3)

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
    grid = motion_size(*shown)
    photo = resize_image(image, *shown)
    anchored = dict(anchor_first_frame=anchor_first_frame)
    series, depth = _lay_out(spectrum, np.float32(magnify), height=grid[0], width=grid[1], **anchored)
    network = self._look(image, depth, seed)
    moving = MovingPhoto(_make_lattice(photo), np.array(shown, np.int32), *_extend(resize_image(photo, *grid), depth))
    mesh, block = self._share(shown, frames)
    moving, series, network = jax.device_put((moving, series, network), NamedSharding(mesh, PartitionSpec()))
    times = (np.arange(frames) * (spectrum.fps / fps)).astype(np.float32)
    pending = []
    for start in range(0, frames, block):
      part = times[start : start + block]
      padded = np.pad(part, (0, block - len(part)), mode="edge")
      padded = jax.device_put(padded, NamedSharding(mesh, PartitionSpec("frames")))
      rendered = _render_frames(
        self._renderer, network, moving, series, padded, mesh=mesh, num_frames=spectrum.num_frames, **anchored)
      if start == 0:
        release_memory()  # what sampling and compiling took and do not need any more
      pending.append((len(part), rendered))
      # One block ahead, so that devices render while their last frames are taken.
      if len(pending) == 2:
        number, rendered = pending.pop(0)
        yield from _fetch(number, rendered, *shown)
    for number, rendered in pending:
      yield from _fetch(number, rendered, *shown)

  def prepare_rendering(
    self, spectrum: SpectralVolume, height: int, width: int, *, frames: int = 150, size: int | None = None
  ) -> None:
    """Loads or compiles, in threads, what `render` runs for photos of height x width: its other arguments are the same.

    What a trained renderer adds is left to `render`.

    Args:
      spectrum: a volume of the shapes [k h w 4] to come; its coefficients may be a struct.
    """
    shown = output_size(height, width, long_side=size)
    grid = motion_size(*shown)
    anchored = dict(anchor_first_frame=True)
    series, depth = _lay_out.prepare(spectrum, np.float32(1), height=grid[0], width=grid[1], **anchored)
    side = _TILE + sum(warp.LATTICE_HALO)
    _make_lattice_tile.prepare(jax.ShapeDtypeStruct((side, side, 3), np.float32))
    lattice: Any = jax.ShapeDtypeStruct((warp.DENSITY**2 * count_room(*shown),), np.uint32)
    place: Any = jax.ShapeDtypeStruct((2,), np.int32)
    image, depth = _extend.prepare(jax.ShapeDtypeStruct((*grid, 3), np.float32), depth)
    moving: Any = MovingPhoto(lattice, place, image, depth)
    if self._renderer is not None:
      return
    mesh, block = self._share(shown, frames)
    spread = lambda struct, spec: jax.ShapeDtypeStruct(struct.shape, struct.dtype, sharding=NamedSharding(mesh, spec))
    moving, series = jax.tree.map(lambda struct: spread(struct, PartitionSpec()), (moving, series))
    times = spread(jax.ShapeDtypeStruct((block,), np.float32), PartitionSpec("frames"))
    _render_frames.prepare(None, None, moving, series, times, mesh=mesh, num_frames=spectrum.num_frames, **anchored)

  def _share(self, shown: tuple[int, int], frames: int) -> tuple[Mesh, int]:
    """The devices that share the frames, and how many frames of a video of size `shown` they render at once."""
    # Splatting keeps one core busy, whatever their number: devices share the frames, not the pixels.
    devices, scale = jax.local_devices()[: max(1, frames)], _ACCELERATION
    if devices[0].platform == "cpu":
      devices, scale = devices[: max(1, _MAX_PIXELS_TOGETHER // math.prod(shown))], 1
    # So many that one product finds the motion of all, so few that they are a small part of the memory.
    most = max(1, min(scale * _MAX_BLOCK, scale * _MAX_PIXELS_OF_BLOCK // count_room(*shown)))
    return Mesh(np.asarray(devices), ("frames",)), len(devices) * min(most, -(-frames // len(devices)))
