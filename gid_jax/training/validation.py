"""Pictures of how far a training is: a few validation examples, the truth above or beside what the model makes of it.

- Stage "vae", `slices`: a column for each of some examples, from the lowest band to the highest; above the amplitude of
  the true slice, below that of the reconstructed one.
- Stages "ldm" and "ldm_coordinated", `volumes`: two rows for each example, the true volume above the sampled one; in
  columns the photo, the amplitude of some bands from the lowest to the highest, and the mean length of the motion.
- Stage "renderer", `frames`: a row for each example: photo, true frame, rendered frame, and their difference.
- Stage "plate", `plates`: likewise the photo with its holes black, the photo, the filled photo, and their difference.

Amplitudes run from black over violet to yellow, from 0 to the largest of the truth; differences from 0 to 0.25.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from gid_jax.configuration import ModelSettings, PlateSettings, RendererSettings, TrainSettings, expect_model
from gid_jax.diffusion.sampler import begin, draw_noise, sample
from gid_jax.diffusion.schedule import make_schedule, sampling_steps
from gid_jax.models.build import make_motion_model, make_plate_network, make_renderer
from gid_jax.models.motion_model import MotionModel
from gid_jax.models.plate import Plate
from gid_jax.models.renderer import Renderer
from gid_jax.motion.spectral import motion_magnitude
from gid_jax.motion.visualize import spectrum_to_heatmaps
from gid_jax.training import sharding
from gid_jax.types import Batch, Params, PRNGKey, SpectralVolume

Pictures = dict[str, np.ndarray]

_NUM_EXAMPLES = {"vae": 6, "ldm": 2, "ldm_coordinated": 2, "renderer": 3, "plate": 3}
_NUM_COLUMNS = 4  # bands shown of a volume
_NUM_STEPS = 10  # of the sampler: enough to see what is learnt
_MIN_HEIGHT = 96  # of a panel; smaller ones are enlarged by a whole number
_GAP = 4
_LARGEST_DIFFERENCE = 0.25


def make_validation_drawing(config: TrainSettings, mesh: Mesh) -> Callable[[PRNGKey, Params, Batch], Pictures]:
  """The function that draws the pictures of `config.stage`, compiled at its first call.

  Every process of a run must call it, with the same key, and every one gets the pictures.

  Args:
    config: of the training.
    mesh: on which parameters and batches lie.

  Returns:
    (key, complete parameters, validation batch of [b ...] arrays) -> name -> [1 h w 3] RGB in [0, 1]; see above.
  """
  size = _NUM_EXAMPLES[config.stage]
  numbers: dict[str, int] = {}
  if config.stage == "renderer":
    predict = functools.partial(_render, make_renderer(expect_model(RendererSettings, config)))
  elif config.stage == "plate":
    predict = functools.partial(_fill, make_plate_network(expect_model(PlateSettings, config)))
  else:
    sizes = expect_model(ModelSettings, config)
    numbers = dict(num_bands=sizes.num_bands, num_frames=sizes.num_frames)
    draw_prediction = _reconstruct if config.stage == "vae" else functools.partial(_sample, config)
    predict = functools.partial(draw_prediction, make_motion_model(sizes))
  whole = sharding.replicated(mesh)

  # The few examples go to every device and are worked on by all alike: the arrays are whole in every process.
  @functools.partial(jax.jit, out_shardings=whole)
  def run(key, params, batch):
    examples = jax.tree.map(lambda array: array[:size], batch)
    params, examples = jax.lax.with_sharding_constraint((params, examples), whole)
    return examples, predict(key, params, examples)

  def draw(key, params, batch):
    truth, prediction = jax.tree.map(np.asarray, run(key, params, batch))
    if config.stage == "plate":
      return {"plates": draw_frames(truth["image"] * (1 - truth["hole"]), truth["image"], prediction)}
    if config.stage == "renderer":
      return {"frames": draw_frames(truth["image"], truth["target"], prediction)}
    if config.stage == "vae":
      return {"slices": draw_slices(truth["slice"], prediction, truth["band"], **numbers)}
    return {"volumes": draw_volumes(truth["image"], truth["slice"], prediction, truth["band"], **numbers)}

  return draw


def _render(model: Renderer, key, params, batch):
  noise = jax.random.normal(key, (batch["image"].shape[0], model.config.style_dim))
  rendering: Any = model.apply({"params": params}, batch["image"], batch["flow"], batch["depth"], noise)
  return rendering.rgb


def _fill(model: Plate, key, params, batch):
  del key
  return model.apply({"params": params}, batch["image"], batch["hole"])


def _reconstruct(model: MotionModel, key, params, batch):
  slices, bands = batch["slice"][:, None], batch["band"][:, None]
  latents = model.apply({"params": params}, slices, bands, method="slices_to_latents")
  reconstructed: Any = model.apply({"params": params}, latents, bands, method="latents_to_slices")
  return reconstructed[:, 0]


def _sample(config: TrainSettings, model: MotionModel, key, params, batch):
  """Slices [b k h w 4] of the batch's bands and photos, without classifier-free guidance."""
  apply: Any = functools.partial(model.apply, {"params": params})
  bands, factor = batch["band"], model.latent_factor
  height, width = (side // factor for side in batch["slice"].shape[2:4])
  assert config.schedule is not None
  schedule = make_schedule(**dataclasses.asdict(config.schedule))
  view = apply(batch["image"], height=height, width=width, method="encode_image")
  denoise = lambda latents, timestep: apply(
    latents, jnp.broadcast_to(timestep, bands.shape), bands, view.condition, method="denoise"
  )
  noise_keys, keys = jax.random.split(key, (2, len(bands)))
  noise = draw_noise(noise_keys, (bands.shape[1], height, width, model.latent_channels))
  steps = sampling_steps(schedule, _NUM_STEPS, spacing="trailing")
  latents = sample(keys, begin(noise), steps, denoise=denoise, schedule=schedule).latents
  return apply(latents, bands, swing=view.swing, method="latents_to_slices")


def draw_slices(
  true: Float[np.ndarray, "b h w 4"],
  reconstructed: Float[np.ndarray, "b h w 4"],
  bands: Int[np.ndarray, "b"],
  *,
  num_bands: int,
  num_frames: int,
) -> Float[np.ndarray, "1 h2 w2 3"]:
  """Amplitudes of slices [b h w 4] in pixels, each of one of `bands` [b]: truth above reconstruction."""
  order = np.argsort(bands, kind="stable")
  above, below = (
    [_amplitudes(slices[i][None], bands[i][None], num_bands, num_frames)[0] for i in order]
    for slices in (true, reconstructed)
  )
  return _join_rows(_heat_rows(above, below))


def draw_volumes(
  images: Float[np.ndarray, "b h w 3"],
  true: Float[np.ndarray, "b k h2 w2 4"],
  sampled: Float[np.ndarray, "b k h2 w2 4"],
  bands: Int[np.ndarray, "b k"],
  *,
  num_bands: int,
  num_frames: int,
) -> Float[np.ndarray, "1 h3 w3 3"]:
  """Photos [b h w 3] in [0, 1] and slices [b k h2 w2 4], pixels, of `bands` [b k]: two rows an example; see above.

  The motion's mean length is that of the given bands, taken at some times of the period.
  """
  rows = []
  for image, band, *volumes in zip(images, bands, true, sampled, strict=True):
    shown = np.argsort(band)
    if len(shown) > _NUM_COLUMNS:
      # Evenly spread on a logarithmic scale, as the motion is strongest in the lowest bands after the mean position.
      shown = shown[np.unique(np.geomspace(1, len(shown) - 1, _NUM_COLUMNS).round().astype(int))]
    above, below = (
      [*_amplitudes(volume[shown], band[shown], num_bands, num_frames),
       np.asarray(_mean_length(_complete(volume, band, num_bands, num_frames)))]
      for volume in volumes
    )  # fmt: skip
    above, below = _heat_rows(above, below)
    rows += [[image, *above], [np.ones_like(image), *below]]
  return _join_rows(rows)


def draw_frames(
  images: Float[np.ndarray, "b h w 3"], targets: Float[np.ndarray, "b h w 3"], outputs: Float[np.ndarray, "b h w 3"]
) -> Float[np.ndarray, "1 h2 w2 3"]:
  """Photo, true frame, rendered frame (each [b h w 3] in [0, 1]) and their mean absolute difference; an example a row.

  Rendered values outside [0, 1] are cut off.
  """
  rows = []
  for image, target, output in zip(images, targets, outputs, strict=True):
    output = np.clip(output, 0, 1)
    difference = np.abs(output - target).mean(-1)
    rows.append([image, target, output, _heat_to_colors(difference, _LARGEST_DIFFERENCE)])
  return _join_rows(rows)


@jax.jit
def _mean_length(spectrum: SpectralVolume):
  return motion_magnitude(spectrum, num_samples=32)


def _complete(slices, bands, num_bands: int, num_frames: int) -> SpectralVolume:
  """Slices [n h w 4] of `bands` [n] at their places in a volume of nothing else."""
  coefficients = np.zeros((num_bands, *slices.shape[1:]), np.float32)
  coefficients[bands] = slices
  return SpectralVolume(coefficients, num_frames=num_frames)


def _amplitudes(slices, bands, num_bands: int, num_frames: int) -> np.ndarray:
  return spectrum_to_heatmaps(_complete(slices, bands, num_bands, num_frames))[bands]


def _heat_rows(true: Sequence[np.ndarray], predicted: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
  """Both rows as colours; the truth sets each column's scale, so that what is too strong looks so."""
  largest = [max(float(np.quantile(values, 0.995)), 1e-6) for values in true]
  return [[_heat_to_colors(*pair) for pair in zip(row, largest, strict=True)] for row in (true, predicted)]


def _heat_to_colors(values: np.ndarray, largest: float) -> np.ndarray:
  """[h w] from 0 to `largest` as [h w 3] colours; what is not finite is drawn as the largest."""
  levels = np.nan_to_num(values / largest, nan=1.0, posinf=1.0)
  colors = cv2.applyColorMap((255 * np.clip(levels, 0, 1) + 0.5).astype(np.uint8), cv2.COLORMAP_INFERNO)
  return colors[..., ::-1].astype(np.float32) / 255


def _join_rows(rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
  """One picture [1 h w 3] of rows of panels [h w 3], all brought to the first one's size, with white between them."""
  height, width = rows[0][0].shape[:2]
  scale = -(-_MIN_HEIGHT // height)
  size = (width * scale, height * scale)
  border = lambda panel: np.pad(panel, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=1.0)
  enlarge = lambda panel: cv2.resize(panel.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
  picture = np.concatenate([np.concatenate([border(enlarge(panel)) for panel in row], 1) for row in rows], 0)
  return picture[None, :-_GAP, :-_GAP]
