"""`gid serve`: the page where one's own photo answers to touch."""

import dataclasses
import importlib.util
from pathlib import Path
from typing import Annotated

import tyro

from gid_jax.app.checks import DEMO_PHOTO, check_files
from gid_jax.app.console import Terminated
from gid_jax.app.outputs import is_bundle
from gid_jax.devices import configure_jax
from gid_jax.errors import UserError

_DEMO = DEMO_PHOTO.with_suffix(".gid")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeRequest:
  """Serve a page on this machine: drop a photo on it, wait a few seconds, and touch it.

  The page takes further photos, and gives each as .gid, .mp4 and .html. Ctrl-C ends it. Needs starlette and uvicorn:
  pip install '.[serve]'.

  Attributes:
    source: The photo, or the .gid file, that it opens on; without one, a demonstration.
    host: Address to listen at. Beyond this machine, such as 0.0.0.0, only who has the printed address is let in.
    port: Port to listen at; where it is taken, the next free one.
    name: Further host names by which browsers may reach the page, such as that of a reverse proxy before it.
    open: Open the page in the browser.
    weights: Folder of motion.safetensors, and renderer.safetensors for a trained renderer, from `gid export`.
      Default: the embedded weights.
  """

  source: Annotated[
    Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[PHOTO or x.gid]", help_behavior_hint="")
  ] = None
  host: str = "127.0.0.1"
  port: int = 8000
  name: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...", help_behavior_hint="")] = ()
  open: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
  weights: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")] = None


def serve(request: ServeRequest) -> None:
  """Carries out `gid serve`; returns only by an exception, of a signal or of what is wrong.

  Args:
    request: the options.

  Raises:
    UserError: an unreadable photo, an address or port that cannot be had, or starlette or uvicorn is missing.
  """
  if not 0 <= request.port <= 65535:
    raise UserError(f"--port is {request.port}; it must be between 0 and 65535")
  if any(importlib.util.find_spec(name) is None for name in ("starlette", "uvicorn")):
    raise UserError("gid serve needs starlette and uvicorn; install them with: pip install '.[serve]'")
  source = request.source or _DEMO
  check_files(source, None, give="a photo or a .gid file")
  configure_jax()
  from gid_jax.serve.decoder import read_photo
  from gid_jax.serve.generation import Generator
  from gid_jax.serve.server import serve as serve_page

  name = source.stem if request.source else "dandelion"
  if is_bundle(source):
    open_first = lambda desk: desk.open(source, name)
  else:
    photo = read_photo(source)
    open_first = lambda desk: desk.open_photo(photo, name)
  try:
    serve_page(
      Generator(request.weights), open_first, host=request.host, port=request.port, names=request.name,
      open_browser=request.open)  # fmt: skip
  except (KeyboardInterrupt, Terminated) as end:
    raise type(end)("the page is no longer served") from None
