"""Generative Image Dynamics in JAX: one still photo in, natural oscillating motion out.

    import gid_jax as gid

    photo, animator = gid.read_image("photo.jpg"), gid.Animator.from_pretrained()
    volume = animator.predict_spectrum(jax.random.key(0), photo)
    gid.write_video("photo.mp4", animator.render(photo, volume), fps=30)

What stands here is imported when it is first asked for (PEP 562), so `import gid_jax` needs neither JAX nor NumPy.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from gid_jax import app as app
  from gid_jax import bundle as bundle
  from gid_jax import configuration as configuration
  from gid_jax import data as data
  from gid_jax import devices as devices
  from gid_jax import diffusion as diffusion
  from gid_jax import errors as errors
  from gid_jax import evaluation as evaluation
  from gid_jax import extras as extras
  from gid_jax import files as files
  from gid_jax import flow as flow
  from gid_jax import media as media
  from gid_jax import models as models
  from gid_jax import motion as motion
  from gid_jax import parsing as parsing
  from gid_jax import pipeline as pipeline
  from gid_jax import programs as programs
  from gid_jax import rendering as rendering
  from gid_jax import serve as serve
  from gid_jax import sizes as sizes
  from gid_jax import touch as touch
  from gid_jax import training as training
  from gid_jax import types as types
  from gid_jax import weights as weights
  from gid_jax.bundle import Bundle as Bundle
  from gid_jax.bundle import load_bundle as load_bundle
  from gid_jax.bundle import save_bundle as save_bundle
  from gid_jax.flow.estimate import estimate_flow as estimate_flow
  from gid_jax.flow.tracking import measure_motion as measure_motion
  from gid_jax.media.clips import read_clip as read_clip
  from gid_jax.media.encoding import write_video as write_video
  from gid_jax.media.photos import read_image as read_image
  from gid_jax.motion.spectral import motion_to_spectrum as motion_to_spectrum
  from gid_jax.motion.spectral import spectrum_to_motion as spectrum_to_motion
  from gid_jax.motion.splat import softmax_splat as softmax_splat
  from gid_jax.pipeline import Animator as Animator
  from gid_jax.rendering import ImageRenderer as ImageRenderer
  from gid_jax.touch.export import export_html as export_html
  from gid_jax.touch.packed import export_packed as export_packed
  from gid_jax.types import SpectralVolume as SpectralVolume
  from gid_jax.weights.pretrained import load_pretrained as load_pretrained

  __version__: str

__all__ = [
  "Animator",
  "Bundle",
  "ImageRenderer",
  "SpectralVolume",
  "__version__",
  "estimate_flow",
  "export_html",
  "export_packed",
  "load_bundle",
  "load_pretrained",
  "measure_motion",
  "motion_to_spectrum",
  "read_clip",
  "read_image",
  "save_bundle",
  "softmax_splat",
  "spectrum_to_motion",
  "write_video",
]

# The file of each public name.
_HOMES = {
  "Animator": "gid_jax.pipeline",
  "Bundle": "gid_jax.bundle",
  "ImageRenderer": "gid_jax.rendering",
  "SpectralVolume": "gid_jax.types",
  "estimate_flow": "gid_jax.flow.estimate",
  "export_html": "gid_jax.touch.export",
  "export_packed": "gid_jax.touch.packed",
  "load_bundle": "gid_jax.bundle",
  "load_pretrained": "gid_jax.weights.pretrained",
  "measure_motion": "gid_jax.flow.tracking",
  "motion_to_spectrum": "gid_jax.motion.spectral",
  "read_clip": "gid_jax.media.clips",
  "read_image": "gid_jax.media.photos",
  "save_bundle": "gid_jax.bundle",
  "softmax_splat": "gid_jax.motion.splat",
  "spectrum_to_motion": "gid_jax.motion.spectral",
  "write_video": "gid_jax.media.encoding",
}
# `train` and `evaluate` are programs, for `python -m`, and need extras.
_MODULES = (
  "app", "bundle", "configuration", "data", "devices", "diffusion", "errors", "evaluation", "extras", "files", "flow",
  "media", "models", "motion", "parsing", "pipeline", "programs", "rendering", "serve", "sizes", "touch", "training",
  "types", "weights",
)  # fmt: skip


def __getattr__(name: str):
  if name in _HOMES:
    value = getattr(importlib.import_module(_HOMES[name]), name)
  elif name in _MODULES:
    value = importlib.import_module(f"{__name__}.{name}")
  elif name == "__version__":
    value = _read_version()
  else:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__, *_MODULES})


def _read_version() -> str:
  """The version of the installed package; "0+unknown" of a checkout that is on the path and not installed."""
  from importlib import metadata

  try:
    return metadata.version("gid-jax")
  except metadata.PackageNotFoundError:
    return "0+unknown"
