"""Runs the page on an address of this machine until it is told to end."""

import asyncio
import contextlib
import errno
import ipaddress
import os
import secrets
import shutil
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Collection
from pathlib import Path

import uvicorn

from gid_jax.errors import UserError
from gid_jax.files import describe_failure
from gid_jax.serve.desk import Desk
from gid_jax.serve.generation import Maker
from gid_jax.serve.guard import Guard
from gid_jax.serve.jobs import Job
from gid_jax.serve.web import make_app

_PORTS = 20  # tried, from the one asked for
_MAX_CONNECTIONS = 256


def serve(
  maker: Maker,
  open_first: Callable[[Desk], Job],
  *,
  host: str = "127.0.0.1",
  port: int = 8000,
  names: Collection[str] = (),
  open_browser: bool = False,
) -> None:
  """Serves until a signal ends it; the first line that it prints says the address.

  Args:
    maker: does the work.
    open_first: makes or orders the job that a new page shows.
    host: address or name to listen at; beyond loopback, everyone needs the token that the address ends in.
    port: the first port to try; 0 takes any.
    names: names by which browsers reach it, beside those of loopback: of this machine, or of a reverse proxy.
    open_browser: opens the page in the user's browser.

  Raises:
    UserError: there is no such address, no free port, or what is to be opened first cannot be read.
  """
  listener = listen(host, port)
  address, port_found = listener.getsockname()[:2]
  is_local = ipaddress.ip_address(address).is_loopback
  token = None if is_local else secrets.token_urlsafe(16)
  url = f"http://{_name_address(address)}:{port_found}/" + ("" if token is None else f"?token={token}")
  taken = "" if port in (0, port_found) else f" (port {port} is taken)"
  own_name = socket.gethostname()
  allowed = names if is_local else (*names, own_name, f"{own_name}.local")
  with tempfile.TemporaryDirectory(prefix="gid-serve-", ignore_cleanup_errors=True) as folder:
    desk = Desk(maker, Path(folder))
    app = Guard(make_app(desk, opening=open_first(desk)), token=token, names=allowed, any_address=not is_local)
    print(f"Serving on {url}{taken}", flush=True)
    print("Press Ctrl-C to end it.", flush=True)
    if open_browser:
      # Some browsers return only when they are closed.
      threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
    try:
      make_server(app, desk).run(sockets=[listener])
    finally:
      if not desk.join(0.5):
        _end_at_once(Path(folder))


def _end_at_once(folder: Path) -> None:
  # A program that is being compiled cannot be stopped, and ends badly when Python goes away around it.
  word, status = ("interrupted", 130) if isinstance(sys.exception(), KeyboardInterrupt) else ("terminated", 143)
  shutil.rmtree(folder, ignore_errors=True)
  with contextlib.suppress(OSError, ValueError):
    print(f"gid: {word}; the page is no longer served", file=sys.stderr, flush=True)
    sys.stdout.flush()
  os._exit(status)


def make_server(app, desk: Desk) -> uvicorn.Server:
  """A server of a guarded application, to be run with a socket that listens; a signal ends it within two seconds."""
  # uvloop would fork to start a decoder, which JAX's threads do not go well with.
  config = uvicorn.Config(
    app, loop="asyncio", http="h11", ws="none", lifespan="on", log_config=None, log_level="critical", access_log=False,
    server_header=False, timeout_graceful_shutdown=1, limit_concurrency=_MAX_CONNECTIONS)  # fmt: skip
  return _Server(config, desk)


class _Server(uvicorn.Server):
  """Ends the streams of events first when it is told to end: open connections would keep it waiting."""

  def __init__(self, config: uvicorn.Config, desk: Desk):
    super().__init__(config)
    self._desk = desk
    self._loop: asyncio.AbstractEventLoop | None = None

  async def serve(self, sockets=None) -> None:
    self._loop = asyncio.get_running_loop()
    self._loop.set_exception_handler(_report_unless_nonsense)
    await super().serve(sockets)

  def handle_exit(self, sig, frame) -> None:
    if self._loop is not None:
      self._loop.call_soon_threadsafe(self._desk.stop)
    super().handle_exit(sig, frame)


def _report_unless_nonsense(loop: asyncio.AbstractEventLoop, context) -> None:
  """Says what went wrong, unless it is a connection that spoke no HTTP, which is closed and nobody's concern."""
  if "protocol" not in context:
    loop.default_exception_handler(context)


def listen(host: str, port: int) -> socket.socket:
  """Listens at an address, at the first free port from one on, or at any for 0.

  Raises:
    UserError: there is no such address, or no free port.
  """
  try:
    family, _, _, _, found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
  except (OSError, UnicodeError) as error:
    reason = describe_failure(error) if isinstance(error, OSError) else "not a name of a host"
    raise UserError(f"--host is {host}: there is no such address ({reason})") from error
  ports = range(port, min(port + _PORTS, 65536)) if port else (0,)
  for number in ports:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
      if os.name == "posix":  # elsewhere this would take a port from a program that uses it
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      listener.bind((found[0], number))
      listener.listen(128)
      return listener
    except OSError as error:
      listener.close()
      if error.errno != errno.EADDRINUSE:
        raise UserError(f"cannot listen at {host}, port {number}: {describe_failure(error)}") from error
  raise UserError(f"ports {ports[0]} to {ports[-1]} are taken; choose another --port")


def _name_address(address: str) -> str:
  """How a browser writes an address; of all addresses, the one by which the network knows this machine."""
  parsed = ipaddress.ip_address(address)
  if parsed.is_unspecified:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
      way.connect(("192.0.2.1", 9))  # of the documentation's range; nothing is sent
      return way.getsockname()[0]
    return "127.0.0.1"
  return f"[{address}]" if parsed.version == 6 else address
