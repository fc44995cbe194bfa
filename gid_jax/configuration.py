"""The settings of models, training, weights and evaluations, as frozen dataclasses; `gid_jax.parsing` fills them.

A setting that is left out has its default, so that weights exported before it was invented still load.
`ml_collections.ConfigDict` stays what the command line edits.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from flax.core import FrozenDict

from gid_jax.errors import UserError
from gid_jax.parsing import Part

_NOTHING = FrozenDict()
STAGES = ("vae", "ldm", "ldm_coordinated", "renderer", "plate")


@dataclasses.dataclass(frozen=True)
class ModelSettings:
  """The motion model (section 4).

  Attributes:
    codec: how slices become latents; kinds of `gid_jax.models.codec`.
    encoder: how photos are seen; a kind of `gid_jax.models.encoders`, with fields `trunks`, `trunk_fields`, `channels`
      and `hidden`.
    denoiser: kinds of `gid_jax.models.denoiser`.
    image_size: (h, w) of the photos that it works at, pixels.
    motion_stride: photo pixels per pixel of the motion grid.
    num_bands: K.
    num_frames: frames of a period.
    fps: frames per second.
    volume: predict all bands as channels of one image (ablation "volume prediction").
  """

  codec: Part
  encoder: Part
  denoiser: Part
  image_size: tuple[int, int] = (160, 256)
  motion_stride: int = 2
  num_bands: int = 16
  num_frames: int = 150
  fps: float = 30.0
  volume: bool = False


@dataclasses.dataclass(frozen=True)
class RendererSettings:
  """The renderer (section 5).

  Attributes:
    renderer: fields of `gid_jax.models.renderer.RendererConfig`.
    image_size: (h, w) of the photos that it works at, pixels.
  """

  renderer: Mapping[str, Any]
  image_size: tuple[int, int] = (160, 256)


@dataclasses.dataclass(frozen=True)
class PlateSettings:
  """The network that invents what is behind moving things.

  Attributes:
    plate: fields of `gid_jax.models.plate.PlateConfig`.
    image_size: (h, w) of the photos that it is trained on, pixels.
  """

  plate: Mapping[str, Any]
  image_size: tuple[int, int] = (160, 256)


M = TypeVar("M", ModelSettings, RendererSettings, PlateSettings)


@dataclasses.dataclass(frozen=True)
class ScheduleSettings:
  """Arguments of `gid_jax.diffusion.schedule.make_schedule`."""

  num_steps: int = 1000
  beta_start: float = 0.0015
  beta_end: float = 0.0195
  prediction: str = "epsilon"
  reach: float = 0.0
  slope: float = 0.0


@dataclasses.dataclass(frozen=True)
class LoopSettings:
  """Sampling of loops: number of steps, weight u of the seam (eq. 5), and how often every step is repeated."""

  steps: int = 500
  weight: float = 200.0
  recurrences: int = 2


@dataclasses.dataclass(frozen=True)
class SamplingSettings:
  """How a motion model is sampled by default; it travels with the weights.

  Attributes:
    steps: number of steps.
    guidance: classifier-free weight w.
    spacing: of the time steps, see `gid_jax.diffusion.schedule.sampling_steps`.
    last: where sampling ends, likewise.
    eta: 0 for DDIM, 1 for ancestral sampling.
    order: of the solver, 1 or 2.
    loop: of loops.
    evenness: see `gid_jax.models.codec.even_gains`.
  """

  steps: int = 250
  guidance: float = 1.75
  spacing: str = "leading"
  last: float = 0.0
  eta: float = 0.0
  order: int = 1
  loop: LoopSettings = LoopSettings()
  evenness: float = 0.0


@dataclasses.dataclass(frozen=True)
class LiveSettings:
  """Scenes that are simulated while training: size, frames, rate, and folders of photos and cut-outs ("" for none)."""

  height: int = 160
  width: int = 256
  num_frames: int = 150
  fps: float = 30.0
  backgrounds: str = ""
  sprites: str = ""


@dataclasses.dataclass(frozen=True)
class DataSettings:
  """What a training reads and how.

  Attributes:
    directory: data folders with commas between; "" for none.
    num_bands: K.
    motion_stride: photo pixels per pixel of the motion grid.
    strength: whether examples come with the strength of their window; codecs of kind "photo" want it.
    sources: name -> share of the examples; none takes all windows alike. "live": scenes made on the way.
    live: of those scenes.
    augmentation: arguments of `gid_jax.data.augmentation.Augmentation`.
    bands_per_example: bands drawn of every window in stage "ldm".
    crop: (h, w) cut out of every window; None for whole windows.
    latent_draws: augmented draws of every window that are encoded beforehand; 0 encodes anew at every step.
    num_threads: that make examples.
    num_workers: processes beside the run's own, with so many threads each, that make them instead; 0 for none.
  """

  directory: str = ""
  num_bands: int = 16
  motion_stride: int = 2
  strength: bool = False
  sources: Mapping[str, float] = _NOTHING
  live: LiveSettings = LiveSettings()
  augmentation: Mapping[str, Any] = _NOTHING
  bands_per_example: int = 1
  crop: tuple[int, int] | None = None
  latent_draws: int = 0
  num_threads: int = 2
  num_workers: int = 0


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
  """AdamW: updates, rate with its warm-up, norm that gradients are clipped to, second moment's decay, weight decay."""

  num_steps: int = 1000
  learning_rate: float = 1e-4
  warmup_steps: int = 50
  clip_norm: float = 1.0
  adam_b2: float = 0.99
  weight_decay: float = 0.01


@dataclasses.dataclass(frozen=True)
class MeshSettings:
  """Devices along the two axes of the mesh; -1 takes the rest."""

  data: int = -1
  fsdp: int = 1


@dataclasses.dataclass(frozen=True)
class LossSettings:
  """The terms of a loss.

  Attributes:
    weights: name of the term -> weight; terms without a weight are only reported.
    gradient_scales: scales of gradient consistency.
    vgg: file of VGG16's convolution layers, for the perceptual distance; "" for none.
  """

  weights: Mapping[str, float] = _NOTHING
  gradient_scales: int = 3
  vgg: str = ""


@dataclasses.dataclass(frozen=True)
class TrainSettings:
  """A training run; see `configs/common.py` for what each setting does.

  Attributes:
    model: of the stage; schedule and sampling are None for all but the denoiser.
    init: name -> what parameters begin with, a work folder or a file; "" for nothing.
    condition_drop: share of the examples whose photo is hidden, for classifier-free guidance.
    freeze_bands: whether stage 2 trains the coordination alone.
  """

  stage: str
  model: ModelSettings | RendererSettings | PlateSettings
  data: DataSettings = DataSettings()
  optimizer: OptimizerSettings = OptimizerSettings()
  mesh: MeshSettings = MeshSettings()
  schedule: ScheduleSettings | None = None
  sampling: SamplingSettings | None = None
  loss: LossSettings = LossSettings()
  init: Mapping[str, str] = _NOTHING
  condition_drop: float = 0.1
  freeze_bands: bool = True
  size: str = ""
  seed: int = 0
  batch_size: int = 1
  accumulation_steps: int = 1
  ema_decay: float = 0.9999
  log_every: int = 20
  eval_every: int = 500
  num_eval_batches: int = 8
  eval_pictures: bool = True
  num_init_batches: int = 16
  save_every: int = 250
  keep_checkpoints: int = 3
  keep_best: int = 1
  tensorboard: bool = False
  profile_steps: int = 0

  def __post_init__(self):
    if self.stage not in STAGES:
      raise UserError(f"config.stage {self.stage!r} is unknown; use one of {', '.join(STAGES)}")


@dataclasses.dataclass(frozen=True)
class WeightsSettings:
  """What an exported weights file says of its parameters.

  Attributes:
    stage: that was trained last.
    model: as in training.
    schedule: of a motion model.
    sampling: of a motion model.
    trained_on: scenes that the parameters have seen, see `gid_jax.data.scenes`; None where that is not known.
    label: version of the weights, free text.
    training: other facts of the training, for people.
  """

  stage: str
  model: ModelSettings | RendererSettings | PlateSettings | None = None
  schedule: ScheduleSettings | None = None
  sampling: SamplingSettings | None = None
  trained_on: Mapping[str, Any] | None = None
  label: str = ""
  training: Mapping[str, Any] = _NOTHING


@dataclasses.dataclass(frozen=True)
class ClipSettings:
  """Clips to judge by: folder, tiers, scenes and exclude as "a,b,c", takes of each scene (0: all)."""

  folder: str = ""
  tiers: str = "A"
  scenes: str = ""
  exclude: str = ""
  takes: int = 0


@dataclasses.dataclass(frozen=True)
class SimulatedSettings:
  """Simulated scenes to judge by: how many, how many of them rendered, the first seed, folders of pictures."""

  number: int = 0
  rendered: int = 100
  first_seed: int = 1_000_000
  backgrounds: str = ""
  sprites: str = ""


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
  """An evaluation; see `configs/evaluation.py` for what each setting does."""

  weights: str = ""
  real: ClipSettings = ClipSettings()
  loops: ClipSettings = ClipSettings()
  simulated: SimulatedSettings = SimulatedSettings()
  flow: str = "default"
  num_samples: int = 4
  features: tuple[str, ...] = ()
  feature_weights: Mapping[str, str] = _NOTHING
  filmed: tuple[str, ...] = ()
  crop: tuple[int, int] = (128, 256)
  num_shown: int = 6
  cache: str = ""
  seed: int = 0


def expect_model(kind: type[M], settings: TrainSettings | WeightsSettings) -> M:
  """The settings of a model that must be of this kind.

  Raises:
    UserError: it is of another.
  """
  if not isinstance(settings.model, kind):
    needed = {
      ModelSettings: "a motion model, see configs/ldm.py",
      RendererSettings: "a renderer, see configs/renderer.py",
      PlateSettings: "a plate network, see configs/plate.py",
    }[kind]
    raise UserError(f"model of stage {settings.stage!r}: what is needed here are the settings of {needed}")
  return settings.model
