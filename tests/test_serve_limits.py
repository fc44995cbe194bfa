"""What the server refuses: uploads beyond its limits, who may not ask, and nonsense."""

import asyncio
import base64
import hashlib
import io
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import zlib

import httpx
import numpy as np
import pytest
from PIL import Image
from serving import PAGE, FakeMaker, make_picture, run_server, save_first, send, until, wait_for

from benchmarks.serve_fuzz import LATE, ask, fuzz
from gid_jax.errors import UserError
from gid_jax.serve import decoder
from gid_jax.serve.web import make_page_policy


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
  """A server that does everything at once, for tests that do not mind each other."""
  source = save_first(tmp_path_factory.mktemp("first"), np.full((30, 40, 3), 9, np.uint8))
  first = lambda desk: desk.open(source, "first")
  with run_server(FakeMaker(), tmp_path_factory.mktemp("shared"), first=first, num_kept=3) as client:
    yield client


def png_of(width, height):
  """The head of a PNG that claims a size, and nothing behind it."""
  chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
  head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def careful(tmp_path_factory):
  """A server that decodes in a process of its own, as it does outside of tests."""
  with run_server(FakeMaker(), tmp_path_factory.mktemp("careful"), decoder=decoder.Decoder()) as client:
    yield client


@pytest.mark.parametrize("content, reason", [
  (b"hello" * 20, "This photo is not an image in a format that can be read here; use JPEG, PNG or WebP"),
  (b"\0\0\0\x18ftypheic" + bytes(50), "This photo is a damaged HEIC file"),
  (png_of(9000, 6000), "This photo is 9000 x 6000; photos of up to 50 megapixels are taken here"),
  (png_of(900, 600), "This photo is truncated or damaged"),
  (make_picture(size=(15, 99)), "This photo is 15 x 99 pixels; a photo needs at least 16 x 16"),
])  # fmt: skip
def test_what_is_no_photo_fails_with_the_reason(careful, content, reason):
  found = wait_for(careful, send(careful, content), "failed")[-1]["motion"]["reason"]
  assert found.startswith(reason) and "/" not in found and "\n" not in found


def test_uploads_are_limited_in_bytes_whether_they_say_so_or_not(tmp_path):
  with run_server(FakeMaker(), tmp_path, max_upload=5000) as client:
    for content in (bytes(5001), (bytes(1000) for _ in range(6))):
      answer = client.post("/jobs", content=content)
      assert answer.status_code == 413 and "larger than 0.005 MB" in answer.json()["reason"]
    assert client.post("/jobs", content=b"").status_code == 400
    assert list(tmp_path.iterdir()) == []


def test_an_upload_that_breaks_off_or_dawdles_leaves_nothing(tmp_path, monkeypatch):
  monkeypatch.setattr("gid_jax.serve.web._MAX_UPLOAD_SECONDS", 0.2)
  with run_server(FakeMaker(), tmp_path) as client:
    address = client.base_url.host, client.base_url.port
    host = f"{address[0]}:{address[1]}"
    head = f"POST /jobs HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nContent-Length: 100\r\n\r\nab"
    with socket.create_connection(address) as slow:
      slow.sendall(head.encode())
      slow.settimeout(LATE)
      assert slow.recv(100).startswith(b"HTTP/1.1 408")
    with socket.create_connection(address) as broken:
      broken.sendall(head.encode())
    until(lambda: not list(tmp_path.iterdir()))
    assert wait_for(client, send(client), "ready")


def test_the_line_has_an_end(tmp_path):
  maker = FakeMaker(is_patient=True)
  with run_server(maker, tmp_path, max_waiting=2) as client:
    first, _ = send(client), send(client)
    answer = client.post("/jobs", content=make_picture())
    assert answer.status_code == 503 and "try again" in answer.json()["reason"]
    client.delete(f"/jobs/{first}")
    send(client)


def run_decoder(tmp_path, content, change):
  (tmp_path / "upload").write_bytes(content)
  code = f"from gid_jax.serve import decoder; decoder.{change}; raise SystemExit(decoder.main())"
  files = [str(tmp_path / name) for name in ("upload", "photo.npy", "preview.webp")]
  return subprocess.run([sys.executable, "-c", code], input=json.dumps(files), capture_output=True, text=True)


def test_the_decoder_has_limited_memory_and_time(tmp_path):
  noise = np.random.default_rng(0).integers(0, 255, (3000, 3000, 3), np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(noise).save(buffer, "PNG", compress_level=1)
  assert run_decoder(tmp_path, buffer.getvalue(), f"_MAX_MEMORY = {700 * 2**20}").returncode != 0
  assert run_decoder(tmp_path, buffer.getvalue(), "_MAX_CPU_SECONDS = 1").returncode in (0, -9, -24)
  assert not (tmp_path / "preview.webp").exists() or (tmp_path / "photo.npy").exists()


def test_a_decoder_that_takes_too_long_is_killed(tmp_path, monkeypatch):
  os.mkfifo(tmp_path / "upload")  # whoever reads it waits for a writer
  monkeypatch.setattr(decoder, "_MAX_SECONDS", 0.1)
  with pytest.raises(UserError, match="takes too long to read"):
    asyncio.run(decoder.Decoder().decode(tmp_path / "upload", tmp_path / "photo.npy", tmp_path / "preview.webp"))
  with pytest.raises(OSError, match="No such device"):  # nobody reads it any more
    os.open(tmp_path / "upload", os.O_WRONLY | os.O_NONBLOCK)


def test_the_decoder_that_waits_is_used_replaced_when_it_was_ended_and_ends_with_the_server(tmp_path, monkeypatch):
  started = []
  start = decoder._start_process

  async def note():
    started.append(await start())
    return started[-1]

  async def use():
    reader = decoder.Decoder()
    for _ in range(2):
      reader.get_ready()
    await reader.decode(*files)
    assert len(started) == 1 and started[0].returncode == 0
    reader.get_ready()
    await reader._next
    started[1].kill()
    await started[1].wait()
    await reader.decode(*files)
    assert len(started) == 3 and started[2].returncode == 0
    reader.get_ready()
    await reader.close()
    await reader.close()
    assert len(started) == 4 and started[3].returncode == -signal.SIGKILL
    started[3:] = [await start()]
    started[3].stdin.close()
    assert await started[3].wait() == 0

  monkeypatch.setattr(decoder, "_start_process", note)
  files = [tmp_path / name for name in ("upload", "photo.npy", "preview.webp")]
  files[0].write_bytes(make_picture())
  asyncio.run(use())


def test_a_server_that_can_start_nothing_says_so(tmp_path, monkeypatch):
  monkeypatch.setattr(decoder.sys, "executable", str(tmp_path / "nothing"))
  with run_server(FakeMaker(), tmp_path, decoder=decoder.Decoder()) as client:
    reason = wait_for(client, send(client), "failed")[-1]["motion"]["reason"]
  assert reason.startswith("The server cannot read photos now (") and reason.endswith("; try again later")


@pytest.mark.parametrize("headers, status", [
  ({}, 200),
  ({"host": "localhost:8000"}, 403),  # of the origin 127.0.0.1, which is another one
  ({"host": "evil.example"}, 403),
  ({"host": "127.0.0.1.evil.example"}, 403),
  ({"host": "127.0.0.1@evil.example"}, 403),
  ({"host": ""}, 403),
  ({"host": "192.168.1.5"}, 403),
  ({"origin": "http://evil.example"}, 403),
  ({"origin": "null"}, 403),
  ({"origin": "http://[bad"}, 403),
  ({"host": "photos.example", "origin": "https://photos.example"}, 200),
  ({"host": "photos.example:8443", "origin": "https://photos.example:8443"}, 200),
  ({"host": "photos.example", "origin": "https://photos.example:8443"}, 403),
])  # fmt: skip
def test_host_and_origin_are_checked(named, headers, status):
  assert named.get("/", headers=headers).status_code == status
  assert named.post("/jobs/x/again", headers=headers).status_code == (404 if status == 200 else 403)


@pytest.fixture(scope="module")
def named(tmp_path_factory):
  with run_server(FakeMaker(), tmp_path_factory.mktemp("named"), guard={"names": ["Photos.Example"]}) as client:
    yield client


def test_what_changes_something_needs_an_origin(named):
  address = str(named.base_url)
  assert httpx.get(address, headers={"host": "localhost"}).status_code == 200
  assert httpx.post(f"{address}/jobs", content=make_picture()).status_code == 403
  assert httpx.delete(f"{address}/jobs/x").status_code == 403
  assert named.desk.find("x") is None and not named.desk._jobs


def test_beyond_loopback_the_token_is_needed_and_goes_into_a_cookie(tmp_path):
  with run_server(FakeMaker(), tmp_path, guard={"token": "sesame", "any_address": True}) as client:
    for path in ("/", "/page.js", "/events?job=x", "/?token=", "/?token=sesam", "/page.js?token=sesame"):
      assert client.get(path).status_code == 403, path
    assert client.post("/jobs", content=make_picture()).status_code == 403
    answer = client.get("/", params={"token": "sesame"})
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "sesame" in cookie
    assert client.get("/").status_code == 200  # the client keeps the cookie
    assert client.get("/", headers={"host": "192.168.1.5:80", "origin": "http://192.168.1.5:80"}).status_code == 200
    assert client.get("/", headers={"host": "evil.example", "origin": "http://evil.example"}).status_code == 403
    name = cookie.split("=")[0]
    for wrong in (f"{name}=x", "gid=sesame", f"{name}", f"{name}=sesam\u00e9".encode("latin-1").decode("latin-1")):
      fresh = {"cookie": wrong.encode("latin-1"), "host": "127.0.0.1"}
      assert httpx.get(str(client.base_url), headers=fresh).status_code == 403


def test_every_response_has_a_strict_policy(shared):
  job = send(shared)
  wait_for(shared, job, "ready")
  paths = ["/", "/page.js", "/page.css", "/nothing", "/jobs/x/page", f"/jobs/{job}/preview", f"/jobs/{job}/gid"]
  answers = [shared.get(path) for path in paths]
  answers += [shared.post("/"), shared.put("/jobs"), shared.get("/", headers={"host": "evil.example"})]
  answers += [shared.get(f"/jobs/{job}/page"), shared.post("/jobs", content=b"")]
  for answer in answers:
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "unsafe" not in policy["script-src"] and "*" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer" and "server" not in answer.headers


def test_the_policy_of_a_page_names_its_script_by_its_hash():
  script = PAGE.split('<script type="module">')[1].split("</script>")[0]
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  assert make_page_policy(PAGE) == (
    f"default-src 'none'; script-src 'sha256-{digest}'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'")


NASTY = [
  "/../../etc/passwd", "/..%2f..%2fetc%2fpasswd", "/page.js/../../jobs.py", "/jobs.py", "/page.html", "/serve/page.js",
  "/jobs/..%2f/page", "/jobs/../page", "/jobs/{job}/..%2fphoto.npy", "/jobs/{job}/photo.npy", "/jobs/{job}/upload",
  "/jobs/{job}/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "/jobs/{job}/page.html", "/jobs//page", "//etc/passwd", "/%00",
  "/jobs/{job}/page%00", "/jobs/%2e%2e/page", "/jobs/C:%5cwindows/page", "/jobs/{job}/page/", "/jobs/{job}\\..\\page",
]  # fmt: skip


@pytest.mark.parametrize("path", NASTY)
def test_no_path_reaches_the_files(shared, path):
  opening = re.search('data-opening="(.*?)"', shared.get("/").text)[1]
  assert ask(shared, "GET", path.replace("{job}", opening)) in (400, 404, 405)


def test_nonsense_is_refused_and_leaves_nothing_behind(shared, caplog):
  statuses = list(fuzz(shared, 100, samples=(make_picture(kind="JPEG", size=(60, 50)), make_picture(kind="PNG"))))
  assert [record for record in caplog.records if record.name == "asyncio"] == []
  assert len(statuses) == 100 and 201 in statuses
  assert all(status is None or status < 500 or status == 503 for status in statuses), statuses
  assert wait_for(shared, send(shared), "ready")
  until(lambda: shared.desk._line.is_idle and not shared.desk._tasks)
  assert len(shared.desk._jobs) <= 1 + 3
