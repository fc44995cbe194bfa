"""Settings as frozen dataclasses, parsed once at the door: from a config file, or from what a weights file carries.

A setting that is left out has its default, so that weights exported before it was invented still load. One that is not
known is refused by its name. `ml_collections.ConfigDict` stays what the command line edits.

What may be plugged in from outside (codec, denoiser, coordination, image encoder, flow) is named by its `kind`: a name
of ours, or "module:attribute" of anybody's.
"""

import dataclasses
import difflib
import importlib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from flax.core import FrozenDict

from gid_jax.errors import UserError
from gid_jax.files import first_line

T = TypeVar("T")
_NOTHING = FrozenDict()
STAGES = ("vae", "ldm", "ldm_coordinated", "renderer")


@dataclasses.dataclass(frozen=True)
class Part:
  """One replaceable part of a model.

  Attributes:
    kind: a name of ours, or "module:attribute".
    fields: arguments of what it names.
  """

  kind: str
  fields: Mapping[str, Any] = _NOTHING


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


M = TypeVar("M", ModelSettings, RendererSettings)


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
    model: of the stage; schedule and sampling are None for the renderer and the auto-encoder.
    init: name -> what parameters begin with, a work folder or a file; "" for nothing.
    condition_drop: share of the examples whose photo is hidden, for classifier-free guidance.
    freeze_bands: whether stage 2 trains the coordination alone.
  """

  stage: str
  model: ModelSettings | RendererSettings
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
  model: ModelSettings | RendererSettings | None = None
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
    needed = "a renderer, see configs/renderer.py" if kind is RendererSettings else "a motion model, see configs/ldm.py"
    raise UserError(f"model of stage {settings.stage!r}: what is needed here are the settings of {needed}")
  return settings.model


def parse(kind: type[T], values: Mapping[str, Any], *, where: str = "config") -> T:
  """Makes frozen settings of nested mappings.

  Args:
    kind: the dataclass.
    values: names and values, such as a ConfigDict or what JSON gives; lists become tuples.
    where: how messages call them.

  Raises:
    UserError: a name is unknown, a value is missing or of the wrong type.
  """
  if not _is_mapping(values):
    raise UserError(f"{where}={values!r}: give settings by their names")
  types_of = typing.get_type_hints(kind)
  fields = {field.name: field for field in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]
  unknown = [name for name in values if name not in fields]
  if unknown:
    raise UserError(f"{where}.{unknown[0]} is unknown here{suggest(unknown[0], fields)}")
  for name, field in fields.items():
    if name not in values and _is_needed(field):
      raise UserError(f"{where}.{name} is missing")
  return kind(**{name: _parse_value(types_of[name], values[name], f"{where}.{name}") for name in values})


def freeze(value: Any) -> Any:
  """A value that can be hashed: mappings frozen, lists as tuples."""
  if _is_mapping(value):
    return FrozenDict({name: freeze(value[name]) for name in value})
  return tuple(freeze(item) for item in value) if isinstance(value, list | tuple) else value


def to_plain(settings: Any) -> Any:
  """Settings as nested dictionaries, lists and scalars that JSON knows; `parse` turns them back."""
  if isinstance(settings, Part):
    return {"kind": settings.kind} | to_plain(settings.fields)
  if dataclasses.is_dataclass(settings):
    return {field.name: to_plain(getattr(settings, field.name)) for field in dataclasses.fields(settings)}
  if isinstance(settings, Mapping):
    return {name: to_plain(value) for name, value in settings.items()}
  return [to_plain(item) for item in settings] if isinstance(settings, list | tuple) else settings


def look_up(kind: str, known: Mapping[str, Any], *, what: str) -> Any:
  """What a `kind` names: one of ours, or "module:attribute" of anybody's.

  Args:
    kind: the name.
    known: ours.
    what: how the message calls it, such as "denoiser".

  Raises:
    UserError: nothing has this name, or its module cannot be imported.
  """
  module, _, attribute = kind.partition(":")
  if not (module and attribute):
    if kind not in known:
      raise UserError(f"unknown {what} {kind!r}; use one of {', '.join(known)}, or module:attribute of your own")
    return known[kind]
  try:
    return getattr(importlib.import_module(module), attribute)
  except Exception as error:  # whatever somebody's own module does
    reason = f"{type(error).__name__}: {first_line(error)}"
    raise UserError(f"{what} {kind!r} cannot be imported ({reason}); is its module on the Python path?") from error


def make_part(part: Part, known: Mapping[str, Any], *, what: str, **more: Any) -> Any:
  """Makes what a part names, of its fields and some more, which are not for settings.

  Raises:
    UserError: nothing has this name, it is no class of fields, it has no such field, or one is missing.
  """
  kind = look_up(part.kind, known, what=what)
  if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
    raise UserError(f"the {what} {part.kind!r} is not a Linen module")
  hidden = {"parent", "name", *more}
  fields = {field.name: field for field in dataclasses.fields(kind) if field.init and field.name not in hidden}
  for name in part.fields:
    if name not in fields:
      raise UserError(f"the {what} {part.kind!r} has no setting {name!r}{suggest(name, fields)}")
  for name, field in fields.items():
    if name not in part.fields and _is_needed(field):
      raise UserError(f"the {what} {part.kind!r} needs the setting {name!r}")
  return kind(**part.fields, **more)


def suggest(name: str, names: Iterable[str]) -> str:
  """What a message says after a name that is not known: the nearest one, or all."""
  known = list(names)
  nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
  return f"; did you mean {nearest[0]}?" if nearest else f"; known are {', '.join(known)}"


def _is_mapping(value: Any) -> bool:
  return isinstance(value, Mapping) or hasattr(value, "to_dict")


def _is_needed(field: dataclasses.Field) -> bool:
  return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _parse_value(kind: Any, value: Any, where: str) -> Any:
  origin, options = typing.get_origin(kind), typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    return None if value is None and type(None) in options else _parse_union(options, value, where)
  if kind is Part:
    if isinstance(value, Part):
      return value
    if not _is_mapping(value) or "kind" not in value:
      raise UserError(f"{where} has no `kind`; name one")
    return Part(str(value["kind"]), freeze({name: value[name] for name in value if name != "kind"}))
  if isinstance(kind, type) and dataclasses.is_dataclass(kind):
    return value if isinstance(value, kind) else parse(kind, value, where=where)
  if origin is Mapping:
    if not _is_mapping(value):
      raise UserError(f"{where}={value!r}: give values by their names")
    return freeze(value)
  if origin is tuple:
    return _parse_tuple(options, value, where)
  if kind is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
    raise UserError(f"{where}={value!r}: give {_KINDS[kind]}")
  return value


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _parse_union(options: tuple, value: Any, where: str) -> Any:
  """The first dataclass that has all of the names."""
  kinds = [option for option in options if option is not type(None)]
  if len(kinds) > 1 and not (_is_mapping(value) or isinstance(value, tuple(kinds))):
    raise UserError(f"{where}={value!r}: give settings by their names")
  for kind in kinds:
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
      if isinstance(value, kind):
        return value
      if len(kinds) > 1 and set(value) - {field.name for field in dataclasses.fields(kind)}:
        continue
    return _parse_value(kind, value, where)
  names = {field.name for kind in kinds for field in dataclasses.fields(kind)}
  unknown = sorted(set(value) - names)
  return _parse_value(kinds[0], value, where) if not unknown else _refuse(where, unknown[0], sorted(names))


def _refuse(where: str, name: str, names: list[str]) -> Any:
  raise UserError(f"{where}.{name} is unknown here{suggest(name, names)}")


def _parse_tuple(options: tuple, value: Any, where: str) -> tuple:
  if not isinstance(value, list | tuple):
    raise UserError(f"{where}={value!r}: give values in brackets")
  if options[-1] is not Ellipsis and len(value) != len(options):
    raise UserError(f"{where}={tuple(value)}: give {len(options)} values in brackets")
  kinds = [options[0]] * len(value) if options[-1] is Ellipsis else options
  return tuple(_parse_value(kind, item, where) for kind, item in zip(kinds, value, strict=True))
