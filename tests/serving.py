"""What the tests of the server share: work that is done at once or when a test says so, and a server in a thread."""

import contextlib
import io
import signal
import threading
import time
from collections.abc import Iterator

import httpx
import jax.numpy as jnp
import numpy as np
from PIL import Image

from benchmarks.serve_fuzz import watch
from gid_jax.bundle import Bundle, save_bundle
from gid_jax.serve import decoder
from gid_jax.serve.desk import Desk
from gid_jax.serve.guard import Guard
from gid_jax.serve.server import listen, make_server
from gid_jax.serve.web import make_app
from gid_jax.types import SpectralVolume

PAGE = """<!doctype html><html><head>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; img-src data:">
</head><body><script type="module">
document.title = "moving";
</script></body></html>"""


def make_bundle(photo, seed=0):
  values = np.random.default_rng(seed).normal(size=(3, 6, 8, 4))
  return Bundle(photo, SpectralVolume(jnp.asarray(values, jnp.float32), 20, 10.0), seed, {"steps": None})


def save_first(folder, photo, seed=0):
  """A .gid file to open with."""
  path = folder / "first.gid"
  save_bundle(path, make_bundle(photo, seed))
  return path


class FakeMaker:
  """Does what is asked at once, or, when `is_patient`, only when it is permitted to; notes what it did."""

  def __init__(self, *, is_patient=False, fail=None):
    self.done, self.given_up = [], []
    self.is_patient, self.fail = is_patient, fail
    self.permits = threading.Semaphore(0)

  def permit(self):
    self.permits.release()

  def _wait(self, what, phase, report):
    if self.fail is not None:
      raise self.fail
    try:
      report(phase, 1, 3)
      while self.is_patient and not self.permits.acquire(timeout=0.02):
        report(phase, 2, 3)
    except Exception:
      self.given_up.append(what)
      raise
    self.done.append(what)

  def sample(self, photo, seed, report):
    self._wait((int(photo[0, 0, 0]), seed), "sampling", report)
    return make_bundle(photo, seed)

  def write_page(self, bundle, path, *, title):
    path.write_text(PAGE)

  def write_video(self, bundle, path, report):
    self._wait("video", "rendering", report)
    path.write_bytes(b"film")

  def warm_up(self) -> Iterator[None]:
    yield


class StuckMaker(FakeMaker):
  """Cannot be interrupted, like a program that is being compiled."""

  def sample(self, photo, seed, report):
    threading.Event().wait()


def make_picture(value=0, size=(40, 30), kind="PNG"):
  """A file of one grey."""
  buffer = io.BytesIO()
  Image.new("RGB", size, (value,) * 3).save(buffer, kind)
  return buffer.getvalue()


class HereDecoder(decoder.Decoder):
  """The decoder without a process of its own, which takes a third of a second to start."""

  def get_ready(self):
    pass

  async def decode(self, upload, photo, preview):
    decoder.convert(upload, photo, preview)


@contextlib.contextmanager
def run_server(maker, folder, *, max_upload=100_000, guard=None, first=None, **options):
  """A server of this process; yields a client of it, which has its desk as `desk`."""
  desk = Desk(maker, folder, **{"grace": 30.0, "decoder": HereDecoder()} | options)
  opening = None if first is None else first(desk)
  app = Guard(make_app(desk, opening=opening, max_upload=max_upload), **(guard or {}))
  listener, server = listen("127.0.0.1", 0), make_server(app, desk)
  address = f"http://127.0.0.1:{listener.getsockname()[1]}"
  thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
  thread.start()
  try:
    with httpx.Client(base_url=address, headers={"origin": address}, timeout=600) as client:
      client.desk = desk
      yield client
  finally:
    server.handle_exit(signal.SIGTERM, None)
    thread.join()


def send(client, content=None, name="a.png"):
  """Sends a picture, and returns the job's id."""
  answer = client.post("/jobs", params={"name": name}, content=make_picture() if content is None else content)
  assert answer.status_code == 201, answer.text
  return answer.json()["id"]


def until(condition):
  """Waits for something that nobody tells."""
  while not condition():
    time.sleep(0.01)


def wait_for(client, job_id, *phases, part="motion"):
  """Watches a job until it is in one of some phases; returns all the states on the way."""
  states = []
  for state in watch(client, job_id):
    states.append(state)
    phase = "gone" if state.get("is_gone") else state[part]["phase"]
    if phase in phases:
      return states
    assert phase not in ("gone", "failed", "cancelled"), state
  raise AssertionError("the server has ended")
