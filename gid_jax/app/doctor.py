"""`gid doctor`: what runs here, what does not, and the command that mends it."""

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from gid_jax import __version__
from gid_jax.app.console import format_bytes
from gid_jax.devices import configure_jax, count_cores, is_caching
from gid_jax.errors import UserError
from gid_jax.files import first_line

_LIBRARIES = ("jax", "jaxlib", "flax", "numpy", "av", "pillow", "opencv-python-headless", "safetensors")
_NEEDED_MEMORY = 1.5e9  # bytes, of a default animation at 1080 pixels
_NEEDED_DISK = 5e8
# Seconds of `gid animate` on two cores that multiply matrices at `_REFERENCE_SPEED`: starting, the rest, and compiling.
_STARTING, _WORKING, _COMPILING = 3.0, 10.0, 15.0
_REFERENCE_SPEED = 2.0e11  # floating-point operations a second
# Matrices say little of memory and of other programs, so that what is said is a range about what they say.
_LEAST, _MOST = 0.6, 1.7


class _Sheet:
  """Lines of findings, and the troubles among them."""

  def __init__(self):
    self.num_troubles = 0

  def say(self, name: str, text: str) -> None:
    print(f"{name:<10} {text}", flush=True)

  def trouble(self, name: str, text: str, *, mend: str) -> None:
    self.num_troubles += 1
    self.say(name, f"TROUBLE: {text}")
    self.say("", f"mend it with: {mend}")

  def advise(self, name: str, text: str, *, do: str) -> None:
    self.say(name, f"{text}; to change that: {do}")


def examine() -> int:
  """Carries out `gid doctor`: prints what it finds, and returns 0, or 2 where something is wrong."""
  sheet = _Sheet()
  sheet.say("gid-jax", f"{__version__}, Python {sys.version.split()[0]}, {sys.platform}")
  _look_at_libraries(sheet)
  is_running = _look_at_devices(sheet)
  is_warm = _look_at_cache(sheet) if is_running else False
  _look_at_codecs(sheet)
  _look_at_memory(sheet)
  _look_at_weights(sheet)
  if is_running:
    _guess_seconds(sheet, is_warm=is_warm)
  count = sheet.num_troubles
  print(f"{count} {'trouble' if count == 1 else 'troubles'} found" if count else "All is well.")
  return 2 if count else 0


def _look_at_libraries(sheet: _Sheet) -> None:
  found, missing = [], []
  for name in _LIBRARIES:
    try:
      found.append(f"{name} {importlib.metadata.version(name)}")
    except importlib.metadata.PackageNotFoundError:
      missing.append(name)
  sheet.say("libraries", ", ".join(found))
  # OpenCV has several packages, any of which will do.
  if "opencv-python-headless" in missing and importlib.util.find_spec("cv2") is not None:
    missing.remove("opencv-python-headless")
  if missing:
    sheet.trouble("libraries", f"missing: {', '.join(missing)}", mend=f"pip install {' '.join(missing)}")
  if importlib.util.find_spec("matplotlib") is None:
    sheet.advise("libraries", "no matplotlib, which gid inspect and gid loop --report draw with",
                 do="pip install matplotlib")  # fmt: skip


def _look_at_devices(sheet: _Sheet) -> bool:
  try:
    configure_jax()
    import jax

    devices = jax.devices()
  except (UserError, ImportError, RuntimeError) as error:
    chosen = os.environ.get("JAX_PLATFORMS")
    mend = "unset JAX_PLATFORMS" if chosen else "pip install --upgrade jax jaxlib"
    mend = "unset XLA_FLAGS" if str(error).startswith("XLA_FLAGS") else mend
    sheet.trouble("backend", first_line(error), mend=mend)
    return False
  backend, chosen = jax.default_backend(), jax.config.values["jax_platforms"]
  reason = f"JAX_PLATFORMS is {chosen}" if chosen else "JAX_PLATFORMS is not set: the best that JAX has here"
  kinds = ", ".join(sorted({device.device_kind for device in devices}))
  number = f"{len(devices)} {'device' if len(devices) == 1 else 'devices'}"
  sheet.say("backend", f"{backend}, {number} ({kinds}), because {reason}; {count_cores()} CPU cores")
  if backend == "cpu" and shutil.which("nvidia-smi"):
    do = "unset JAX_PLATFORMS" if chosen else "pip install --upgrade 'jax[cuda12]'"
    sheet.advise("backend", "there is an NVIDIA driver, and JAX does not use it", do=do)
  return True


def _look_at_cache(sheet: _Sheet) -> bool:
  import jax

  chosen = jax.config.values["jax_compilation_cache_dir"] or os.environ.get("JAX_COMPILATION_CACHE_DIR")
  if not chosen and not is_caching():
    sheet.advise("cache", "GID_CACHE is off, so every run compiles again", do="unset GID_CACHE")
    return False
  if not chosen:
    sheet.trouble("cache", "no folder for compiled programs can be written, so every run compiles again",
                  mend="export XDG_CACHE_HOME=/a/folder/of/yours")  # fmt: skip
    return False
  folder = Path(chosen)
  sizes = list(_walk(folder))
  sheet.say("cache", f"{folder}: {len(sizes)} compiled programs, {format_bytes(sum(sizes))}")
  if folder.exists() and not os.access(folder, os.W_OK):
    sheet.trouble("cache", f"{folder} cannot be written", mend=f"chmod u+w {folder}")
  return bool(sizes)


def _walk(folder: Path) -> Iterator[int]:
  for path in folder.rglob("*"):
    with contextlib.suppress(OSError):
      if path.is_file() and not path.name.endswith("-atime"):
        yield path.stat().st_size


def _look_at_codecs(sheet: _Sheet) -> None:
  from gid_jax.media.encoders import VIDEO_CODECS, find_encoder

  found, missing = [], []
  for suffix, codecs in VIDEO_CODECS.items():
    for codec in codecs or (None,):
      name = find_encoder(suffix, codec)
      label = f"{suffix}{f' ({codec})' if codec else ''}"
      (missing if name is None else found).append(label)
  sheet.say("formats", ", ".join(found))
  if missing:
    text = f"cannot write {', '.join(missing)}: this PyAV was built without"
    if ".mp4 (h264)" in missing:
      sheet.trouble("formats", text, mend="pip install --force-reinstall --only-binary av av")
    else:
      sheet.advise("formats", text, do="pip install --force-reinstall --only-binary av av")


def _look_at_memory(sheet: _Sheet) -> None:
  free, total = _find_memory()
  if free is None or total is None:
    sheet.say("memory", "unknown on this system")
  else:
    sheet.say("memory", f"{format_bytes(free)} free of {format_bytes(total)}; a default animation takes about 1 GB")
    if free < _NEEDED_MEMORY:
      sheet.trouble("memory", "a large photo may not fit; close other programs", mend="gid animate PHOTO --size 512")
  try:
    disk = shutil.disk_usage(os.curdir).free
  except OSError:
    sheet.trouble("disk", "the folder that you are in is gone", mend="cd")
    return
  sheet.say("disk", f"{format_bytes(disk)} free here")
  if disk < _NEEDED_DISK:
    sheet.trouble("disk", "a video may not fit", mend="gid animate PHOTO --output /another/disk/video.mp4")


def _find_memory() -> tuple[int | None, int | None]:
  """Bytes that are free, and all of them."""
  with contextlib.suppress(OSError, ValueError, KeyError):
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    free, total = (1024 * int(lines[name].split()[0]) for name in ("MemAvailable", "MemTotal"))
    return free, total
  return None, None


def _look_at_weights(sheet: _Sheet) -> None:
  from gid_jax.weights.pretrained import MOTION_WEIGHTS, load_pretrained

  try:
    params, settings = load_pretrained(MOTION_WEIGHTS)
  except (UserError, OSError) as error:
    sheet.trouble("weights", first_line(error), mend="pip install --force-reinstall gid-jax, from where it came from")
    return
  import jax

  number = sum(leaf.size for leaf in jax.tree.leaves(params))
  sheet.say("weights", f"embedded, version {settings.label or 'unknown'}, {number / 1e6:.1f} M parameters, intact")


def _guess_seconds(sheet: _Sheet, *, is_warm: bool) -> None:
  """Scales what was measured elsewhere by how fast this machine multiplies matrices now."""
  import jax
  import jax.numpy as jnp

  side = 1024
  multiply = jax.jit(lambda x: x @ x)
  matrix = multiply(jnp.ones((side, side), jnp.float32) / side).block_until_ready()
  start, count = time.perf_counter(), 0
  while time.perf_counter() - start < 0.3:
    matrix = multiply(matrix).block_until_ready()
    count += 1
  slower = _REFERENCE_SPEED / (2 * side**3 * count / (time.perf_counter() - start))
  # Starting and compiling keep one core busy, whatever the accelerator does.
  warm = _STARTING * min(max(slower, 0.3), 10) + _WORKING * slower
  cold = warm + _COMPILING * min(max(slower, 0.3), 10)
  say = lambda seconds: f"{_LEAST * seconds:.0f} to {_MOST * seconds:.0f} s"
  first = "" if is_warm else f", {say(cold)} the first time, compiling"
  sheet.say("speed", f"{say(warm)} for gid animate, by how fast matrices are multiplied now{first}; more for another "
                     "shape of photo, which is compiled")  # fmt: skip
