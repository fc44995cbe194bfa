"""What can be asked of the server: its page, photos in, how far they are, and what has come of them."""

import asyncio
import base64
import contextlib
import hashlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gid_jax.serve.desk import Desk
from gid_jax.serve.jobs import Busy, Job

MAX_UPLOAD = 40_000_000  # bytes
_MAX_UPLOAD_SECONDS = 120.0
_MAX_WATCHED = 12  # jobs of one page
_MAX_PAGES = 64  # that watch at once
_HEARTBEAT = 15.0  # seconds, after which a silent connection is tried
_FOLDER = Path(__file__).parent
_OWN_FILES = {
  "page.js": (_FOLDER, "text/javascript"),
  "page.css": (_FOLDER, "text/css"),
  "look.css": (_FOLDER.parent / "touch", "text/css"),
}
# What of a job can be fetched: file, type, and whether it is saved rather than shown.
_FILES = {
  "page": ("page.html", "text/html", False),
  "preview": ("preview.webp", "image/webp", False),
  "html": ("page.html", "text/html", True),
  "gid": ("photo.gid", "application/octet-stream", True),
  "mp4": ("photo.mp4", "video/mp4", True),
}


def make_app(desk: Desk, *, opening: Job | None = None, max_upload: int = MAX_UPLOAD) -> Starlette:
  """Makes the application, still unguarded (`gid_jax.serve.guard`); while it runs, the desk works.

  Args:
    desk: has the work done.
    opening: the job that a new page shows.
    max_upload: bytes that a photo may have.
  """
  visit = _Visit(desk, opening, max_upload)
  routes = [
    Route("/", visit.show),
    *(Route(f"/{name}", visit.show_own) for name in _OWN_FILES),
    Route("/events", visit.watch),
    Route("/jobs", visit.send, methods=["POST"]),
    Route("/jobs/{id}", visit.cancel, methods=["DELETE"]),
    Route("/jobs/{id}/again", visit.again, methods=["POST"]),
    Route("/jobs/{id}/video", visit.film, methods=["POST"]),
    Route("/jobs/{id}/{what}", visit.fetch),
  ]

  @contextlib.asynccontextmanager
  async def work(app) -> AsyncIterator[None]:
    working = asyncio.create_task(desk.run())
    yield
    working.cancel()
    await desk.close()

  app = Starlette(routes=routes, lifespan=work)
  app.router.redirect_slashes = False
  return app


def make_page_policy(page: str) -> str:
  """The Content-Security-Policy of an exported page: its own, with its script by its hash, to be framed by us only."""
  found = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
  own = found[1] if found else "default-src 'none'"
  scripts = re.findall(r"<script(?![^>]*application/json)[^>]*>(.*?)</script>", page, re.DOTALL)
  digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
  sources = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
  own = re.sub(r"script-src [^;]*", f"script-src {sources}", own)
  return f"{own}; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"


class _Visit:
  """The answers."""

  def __init__(self, desk: Desk, opening: Job | None, max_upload: int):
    self._desk, self._opening, self._max_upload = desk, opening, max_upload
    self._num_pages = 0

  async def show(self, request: Request) -> Response:
    page = (_FOLDER / "page.html").read_text(encoding="utf-8")
    opening = self._opening.id if self._opening else ""
    page = page.replace("{{opening}}", opening).replace("{{limit}}", str(self._max_upload))
    return Response(page, media_type="text/html")

  async def show_own(self, request: Request) -> Response:
    name = request.url.path[1:]
    folder, kind = _OWN_FILES[name]
    return Response((folder / name).read_text(encoding="utf-8"), media_type=kind)

  async def send(self, request: Request) -> Response:
    name = _clean(request.query_params.get("name", ""))
    declared = request.headers.get("content-length", "0")
    if declared.isascii() and declared.isdecimal() and int(declared[:12]) > self._max_upload:
      return self._too_large()
    try:
      job, path = self._desk.expect(name)
    except Busy:
      return _busy()
    is_complete = False
    try:
      async with asyncio.timeout(_MAX_UPLOAD_SECONDS):
        num_bytes = 0
        with path.open("wb") as file:
          async for chunk in request.stream():
            num_bytes += len(chunk)
            if num_bytes > self._max_upload:
              return self._too_large()
            file.write(chunk)
      if not num_bytes:
        return _refuse(400, "This file is empty.")
      is_complete = True
    except TimeoutError:
      return _refuse(408, "The photo took too long to arrive.")
    except ClientDisconnect:
      return _refuse(400, "The photo did not arrive.")
    finally:
      if not is_complete:
        self._desk.drop(job)
    self._desk.begin(job)
    return JSONResponse(self._desk.describe(job), status_code=201)

  async def again(self, request: Request) -> Response:
    job = self._find(request)
    if job is None or job.motion.phase != "ready":
      return _not_found()
    try:
      return JSONResponse(self._desk.describe(self._desk.again(job)), status_code=201)
    except Busy:
      return _busy()

  async def film(self, request: Request) -> Response:
    job = self._find(request)
    if job is None or job.motion.phase != "ready":
      return _not_found()
    try:
      self._desk.film(job)
    except Busy:
      return _busy()
    return JSONResponse(self._desk.describe(job), status_code=202)

  async def cancel(self, request: Request) -> Response:
    job = self._find(request)
    if job is None:
      return _not_found()
    self._desk.cancel(job, spares_opening=True)
    return Response(status_code=204)

  async def fetch(self, request: Request) -> Response:
    job, what = self._find(request), request.path_params["what"]
    if job is None or what not in _FILES:
      return _not_found()
    file, kind, is_saved = _FILES[what]
    try:
      content = (job.folder / file).read_bytes()
    except OSError:
      return _not_found()
    headers = {}
    if is_saved:
      headers["content-disposition"] = f"attachment; filename*=UTF-8''{quote(f'{job.name}.{what}')}"
    elif what == "page":
      headers["content-security-policy"] = make_page_policy(content.decode())
    return Response(content, media_type=kind, headers=headers)

  async def watch(self, request: Request) -> Response:
    ids = request.query_params.getlist("job")[:_MAX_WATCHED]
    if self._num_pages >= _MAX_PAGES:
      return _busy()
    return StreamingResponse(self._tell(ids), media_type="text/event-stream")

  async def _tell(self, ids: list[str]) -> AsyncIterator[str]:
    """Events of some jobs, each one when it has changed, until the page goes or the server ends."""
    desk, told = self._desk, {}
    jobs = [job for job in map(desk.find, ids) if job is not None]
    self._num_pages += 1
    try:
      with desk.listen(jobs):
        yield "retry: 1000\n\n"
        while not desk.is_closed:
          changed = desk.changed
          for job_id in ids:
            job = desk.find(job_id)
            state = {"id": job_id, "is_gone": True} if job is None else desk.describe(job)
            if told.get(job_id) != state:
              told[job_id] = state
              yield f"data: {json.dumps(state)}\n\n"
          try:
            async with asyncio.timeout(_HEARTBEAT):
              await changed.wait()
          except TimeoutError:
            yield ": still here\n\n"
    finally:
      self._num_pages -= 1

  def _find(self, request: Request) -> Job | None:
    return self._desk.find(request.path_params["id"])

  def _too_large(self) -> Response:
    return _refuse(413, f"This file is larger than {self._max_upload / 1e6:g} MB; save it smaller, as JPEG.")


def _clean(name: str) -> str:
  """What people called a photo, without what a file name should not have; only a label."""
  stem = re.sub(r"\.\w{1,5}$", "", name)
  with contextlib.suppress(UnicodeEncodeError):
    stem.encode()
    return " ".join(re.sub(r"[^\w\- ().,'+&]", " ", stem).split()).strip(". ")[:60] or "photo"
  return "photo"


def _refuse(status: int, reason: str) -> Response:
  return JSONResponse({"reason": reason}, status_code=status)


def _not_found() -> Response:
  return _refuse(404, "This is not kept here, or not any more.")


def _busy() -> Response:
  return _refuse(503, "Too many photos are waiting; try again in a minute.")
