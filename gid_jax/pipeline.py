"""Photo to spectral volume to frames: what the command line, the evaluation and the library all call.

Three grids meet here. The *working* grid is the size the networks were trained at, adapted to the photo's aspect; the
*motion* grid is the part of it that a spectral volume is stored on (half as wide and high by default); the *output*
grid is the video's. Displacements are rescaled, per axis, whenever they change grid.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gid_jax.configuration import ModelSettings, WeightsSettings, expect_model
from gid_jax.devices import use_compilation_cache
from gid_jax.diffusion.prediction import Progress, predict_spectra, prepare_spectra
from gid_jax.models.build import make_motion_model
from gid_jax.rendering import ImageRenderer
from gid_jax.sizes import resize_image, working_size
from gid_jax.types import PRNGKey, SpectralVolume
from gid_jax.weights.pretrained import MOTION_WEIGHTS, load_pretrained, load_renderer


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

  def prepare(
    self,
    height: int,
    width: int,
    *,
    frames: int = 150,
    size: int | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    loop: bool = False,
  ) -> None:
    """Loads or compiles, in threads, what animating a photo of height x width takes; call it in a thread, too.

    The other arguments are those of `predict_spectrum` and of `render`. Without it, each function is compiled when the
    one before has run.

    Raises:
      UserError: see `predict_spectrum`.
    """
    image = jax.ShapeDtypeStruct((*self.working_size(height, width), 3), np.float32)
    volumes = prepare_spectra(
      jax.random.key(0)[None], image, model=self.motion_model, params=self.motion_params,
      settings=self.motion_settings, steps=steps, guidance=guidance, loop=loop)  # fmt: skip
    sampled: Any = volumes.coefficients
    spectrum = volumes.replace(coefficients=jax.ShapeDtypeStruct(sampled.shape[1:], sampled.dtype))
    self.prepare_rendering(spectrum, height, width, frames=frames, size=size)

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
