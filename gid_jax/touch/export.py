"""One HTML file in which a photo answers to touch: photo, modes, what is behind, engine and page; needs no network.

`engine.js` and what it names is `gid_jax.motion.modal` again; the other scripts draw and listen; `page.html` holds all
of them and the data:

  modes   [k h w 4] int16, one scale a mode      depth   [h w] uint16, W as a part of its maximum
  photo   WebP, at most `size` pixels long       plate   WebP, what is seen where something has moved away
"""

import base64
import html
import io
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex, Float
from PIL import Image

from gid_jax.errors import UserError
from gid_jax.files import PathLike, complete_or_nothing
from gid_jax.motion import modal, spectral
from gid_jax.motion.plate import make_plate
from gid_jax.types import AnyArray, SpectralVolume

_MAX_BYTES = 6_000_000
# Numbers of all modes together: 2 bytes each, 2.7 as text. Of more, the grid is made coarser.
_MAX_NUMBERS = 1_000_000
_QUALITIES = (90, 84, 76, 66, 54, 40, 25)
_PLATE_SIDE = 768
_PLATE_QUALITY = 82
_FOLDER = Path(__file__).parent
_STYLES = ("look", "page")
# In the order in which they are put into the page, each after what it imports.
_SCRIPTS = (
  "modes", "grabs", "oscillators", "scene", "stage", "screen", "pointers", "keyboard", "controls", "mixer", "saving",
  "api", "page",
)  # fmt: skip

_motion_magnitude = jax.jit(spectral.motion_magnitude)


def export_html(
  image: Float[np.ndarray, "h w 3"],
  spectrum: SpectralVolume,
  path: PathLike,
  *,
  title: str = "A photo to touch",
  size: int = 1920,
  origins: Sequence[str] = (),
  overwrite: bool = False,
) -> None:
  """Writes one HTML file in which the photo can be grabbed, flicked, poked, pinned, blown at and played (section 6).

  The file is at most 6 MB, opens from a disk and asks for nothing from anywhere.

  Args:
    image: [h w 3] float32 RGB in [0, 1], any size.
    spectrum: of this photo, unbatched [k h w 4] on any grid.
    path: the file, .html.
    title: of the page.
    size: long side of the photo in the page, pixels; it is never enlarged.
    origins: of the sites, such as "https://example.org", whose pages may move the photo in a frame by messages; "*" is
      every site. A page of the same site always may.
    overwrite: replace an existing file.

  Raises:
    UserError: another suffix, a batch of volumes or one without motion, an existing file or an unwritable folder.
  """
  path = Path(path)
  if path.suffix.lower() != ".html":
    raise UserError(f"{path}: unknown page format '{path.suffix}'; use .html")
  with complete_or_nothing(path, overwrite=overwrite) as temporary:
    temporary.write_text(_make_page(image, spectrum, title, size, origins), encoding="utf-8")


def _make_page(
  image: np.ndarray, spectrum: SpectralVolume, title: str, size: int, origins: Sequence[str]
) -> str:
  basis = modal.spectrum_to_basis(spectrum)
  if len(basis.omega) * basis.modes[0].size * 2 > _MAX_NUMBERS:
    spectrum = spectral.resize_spectrum(spectrum, *_coarsen(*spectrum.coefficients.shape[:3]))
    basis = modal.spectrum_to_basis(spectrum)
  still = spectrum.replace(coefficients=jnp.asarray(spectrum.coefficients).at[0].set(0.0))
  depth = np.asarray(_motion_magnitude(still))
  photo = _shrink(image, size)
  values, scales = _quantize(basis.modes)
  with ThreadPoolExecutor(1) as pool:  # the plate takes as long, on a core and a half
    best = pool.submit(_encode, photo, _QUALITIES[0])
    plate = make_plate(_shrink(image, min(size, _PLATE_SIDE)), depth)
  data = {
    "width": basis.modes.shape[2],
    "height": basis.modes.shape[1],
    "omega": [float(value) for value in basis.omega],
    "scales": [float(value) for value in scales],
    "modes": _to_text(values.tobytes()),
    "depth": _to_text(np.round(depth / max(float(depth.max()), 1e-6) * 65535).astype("<u2").tobytes()),
    "plate": _to_text(_encode(plate, _PLATE_QUALITY)),
    "photo": "",
    "origins": list(origins),
  }
  room = _MAX_BYTES - len(_fill_page(title, data).encode())
  for quality in _QUALITIES:
    data["photo"] = _to_text(best.result() if quality == _QUALITIES[0] else _encode(photo, quality))
    if len(data["photo"]) <= room:
      break
  return _fill_page(title, data)


def _coarsen(num_bands: int, height: int, width: int) -> tuple[int, int]:
  scale = (_MAX_NUMBERS / (4 * (num_bands - 1) * height * width)) ** 0.5
  return max(2, int(height * scale)), max(2, int(width * scale))


def _quantize(modes: Complex[AnyArray, "k h w 2"]) -> tuple[np.ndarray, np.ndarray]:
  """Complex modes [k h w 2] as int16 [k h w 4] and what each mode's numbers are multiplied by [k]."""
  channels = np.concatenate([np.real(modes), np.imag(modes)], -1)
  scales = np.maximum(np.abs(channels).max((1, 2, 3)), 1e-12) / 32767
  return np.round(channels / scales[:, None, None, None]).astype("<i2"), scales


def _shrink(image: np.ndarray, size: int) -> np.ndarray:
  height, width = image.shape[:2]
  scale = size / max(height, width)
  if scale >= 1:
    return image
  shape = max(1, round(width * scale)), max(1, round(height * scale))
  return cv2.resize(np.asarray(image, np.float32), shape, interpolation=cv2.INTER_AREA)


def _encode(image: np.ndarray, quality: int) -> bytes:
  buffer = io.BytesIO()
  pixels = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
  Image.fromarray(pixels).save(buffer, "WEBP", quality=quality, method=5)
  return buffer.getvalue()


def _to_text(data: bytes) -> str:
  return base64.b64encode(data).decode("ascii")


def _read_style() -> str:
  return "".join((_FOLDER / f"{name}.css").read_text(encoding="utf-8") for name in _STYLES).rstrip()


def _read_script() -> str:
  """All modules as one: their imports of each other fall away."""
  scripts = ((_FOLDER / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS)
  return "\n".join(re.sub(r"^import [^;]*;\n", "", script, flags=re.MULTILINE) for script in scripts)


def _fill_page(title: str, data: dict) -> str:
  parts = {
    "title": html.escape(title.encode("utf-8", "replace").decode()),  # names of files may be of other bytes
    "style": _read_style(), "script": _read_script(),
    "data": json.dumps(data).replace("<", "\\u003c"),
  }  # fmt: skip
  template = (_FOLDER / "page.html").read_text(encoding="utf-8")
  # In one pass, so that a title cannot name another place.
  return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)
