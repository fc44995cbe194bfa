"""The server: its line, its limits and what it refuses, with work that is done at once or when a test says so."""

import asyncio
import base64
import hashlib
import io
import random
import re
import socket
import struct
import subprocess
import sys
import zlib

import httpx
import numpy as np
import pytest
from PIL import Image
from serving import PAGE, FakeMaker, make_bundle, make_picture, run_server, send, until, wait_for, watch

from gid_jax.bundle import load_bundle
from gid_jax.errors import UserError
from gid_jax.serve import decoder, server
from gid_jax.serve.web import make_page_policy

LATE = 60  # seconds that nothing here should need


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
  """A server that does everything at once, for tests that do not mind each other."""
  photo = np.full((30, 40, 3), 9, np.uint8)
  first = lambda desk: desk.open(make_bundle(photo), "first")
  with run_server(FakeMaker(), tmp_path_factory.mktemp("shared"), first=first, num_kept=3) as client:
    yield client


def phases(states, part="motion"):
  """The phases of some states, repetitions left out."""
  found = [state[part]["phase"] for state in states]
  return [phase for i, phase in enumerate(found) if i == 0 or found[i - 1] != phase]


def test_a_photo_goes_through_its_phases_and_comes_out(tmp_path):
  maker = FakeMaker(is_patient=True)
  with run_server(maker, tmp_path, decode=decoder.decode) as client:
    job = send(client, make_picture(7, (4000, 30)), name="../Früh ling.jpeg")
    seen = []
    for state in watch(client, job):
      seen.append(state)
      if state["motion"]["phase"] == "sampling":
        maker.permit()
      if state["has_file"]:
        break
    order = ["queued", "seeing", "sampling", "ready"]
    assert [phase for phase in order if phase in phases(seen)] == phases(seen) and phases(seen)[-2:] == order[-2:]
    assert seen[-1]["name"] == "Früh ling" and seen[-1]["seed"] == 0 and maker.done == [(7, 0)]
    page = client.get(f"/jobs/{job}/page")
    assert page.text == PAGE and "content-disposition" not in page.headers
    html = client.get(f"/jobs/{job}/html")
    assert html.text == PAGE
    assert html.headers["content-disposition"] == "attachment; filename*=UTF-8''Fr%C3%BCh%20ling.html"
    (tmp_path / "got.gid").write_bytes(client.get(f"/jobs/{job}/gid").content)
    bundle = load_bundle(tmp_path / "got.gid")
    assert bundle.photo.shape == (14, decoder.MAX_SIDE, 3) and (bundle.photo == 7).all()
    preview = Image.open(io.BytesIO(client.get(f"/jobs/{job}/preview").content))
    assert preview.format == "WEBP" and preview.width <= 1080
    assert client.get(f"/jobs/{job}/mp4").status_code == 404
  assert list(tmp_path.glob("*/upload")) == []


def test_the_second_waits_for_the_first_and_knows_its_place(tmp_path):
  maker = FakeMaker(is_patient=True)
  with run_server(maker, tmp_path) as client:
    first = send(client, make_picture(1))
    wait_for(client, first, "sampling")
    second, third = send(client, make_picture(2)), send(client, make_picture(3))
    places = {}
    for state in watch(client, second, third):
      places[state["id"]] = state["motion"]["place"]
      if places == {second: 1, third: 2}:
        break
    maker.permit()
    assert wait_for(client, second, "sampling")[-1]["motion"]["done"] in (1, 2)
    for state in watch(client, third):
      if state["motion"]["place"] == 1:
        break
    maker.permit(), maker.permit()
    wait_for(client, third, "ready")
  assert maker.done == [(1, 0), (2, 0), (3, 0)]


def test_what_runs_and_what_waits_can_be_cancelled(tmp_path):
  maker = FakeMaker(is_patient=True)
  with run_server(maker, tmp_path) as client:
    first = send(client, make_picture(1))
    wait_for(client, first, "sampling")
    second, third = send(client, make_picture(2)), send(client, make_picture(3))
    for job in (second, first):
      assert client.delete(f"/jobs/{job}").status_code == 204
      assert wait_for(client, job, "cancelled")
    until(lambda: maker.given_up)
    maker.permit()
    wait_for(client, third, "ready")
    assert maker.done == [(3, 0)] and maker.given_up == [(1, 0)]
    assert client.delete(f"/jobs/{third}").status_code == 204  # nothing is left to cancel
    assert wait_for(client, third, "ready")
    assert client.get(f"/jobs/{first}/page").status_code == 404


def test_who_leaves_frees_the_work_unless_somebody_else_watches(tmp_path):
  maker = FakeMaker(is_patient=True)
  with run_server(maker, tmp_path) as client:
    left = send(client, make_picture(1))
    watching = watch(client, left)
    next(watching)
    other = watch(client, left)
    next(other)
    client.desk._grace = 0.05
    watching.close()
    until(lambda: client.desk.find(left).num_listeners == 1)
    assert wait_for(client, left, "sampling")[-1]["motion"]["phase"] == "sampling"
    other.close()
    until(lambda: client.desk.find(left).motion.phase == "cancelled")
    never = send(client, make_picture(2))  # nobody ever watched
    until(lambda: client.desk.find(never).motion.phase == "cancelled")
    until(lambda: client.desk._current is None)
    client.desk._grace = 30.0
    maker.permit()
    last = send(client, make_picture(3))
    wait_for(client, last, "ready")
  assert maker.done == [(3, 0)]


def test_another_motion_needs_no_other_upload(shared):
  first = send(shared, make_picture(5), name="b.png")
  wait_for(shared, first, "ready")
  seeds = []
  for job in (first, first):
    answer = shared.post(f"/jobs/{job}/again")
    assert answer.status_code == 201
    seeds.append(wait_for(shared, answer.json()["id"], "ready")[-1]["seed"])
    assert answer.json()["name"] == "b" and shared.get(f"/jobs/{answer.json()['id']}/preview").status_code == 200
  assert seeds == [1, 2]
  assert shared.post("/jobs/unknown/again").status_code == 404


def test_the_video_is_made_when_it_is_asked_for(tmp_path):
  maker = FakeMaker(is_patient=True)
  with run_server(maker, tmp_path) as client:
    job = send(client)
    assert client.post(f"/jobs/{job}/video").status_code == 404
    maker.permit()
    wait_for(client, job, "ready")
    assert client.post(f"/jobs/{job}/video").status_code == 202
    assert client.post(f"/jobs/{job}/video").status_code == 202  # the same one
    wait_for(client, job, "rendering", part="video")
    client.delete(f"/jobs/{job}")
    wait_for(client, job, "cancelled", part="video")
    until(lambda: maker.given_up)
    maker.is_patient = False
    client.post(f"/jobs/{job}/video")
    states = wait_for(client, job, "ready", part="video")
    assert states[-1]["motion"]["phase"] == "ready"
    film = client.get(f"/jobs/{job}/mp4")
    assert film.content == b"film" and film.headers["content-type"] == "video/mp4"
  assert maker.done == [(0, 0), "video"] and maker.given_up == ["video"]


@pytest.mark.parametrize("error, reason", [
  (UserError("no motion in it"), "no motion in it"),
  (ValueError("a\nb"), "ValueError: a; please report it"),
])  # fmt: skip
def test_what_fails_says_why_in_one_line_and_the_next_goes_on(tmp_path, error, reason):
  maker = FakeMaker(fail=error)
  with run_server(maker, tmp_path) as client:
    assert wait_for(client, send(client), "failed")[-1]["motion"]["reason"] == reason
    maker.fail = None
    assert wait_for(client, send(client), "ready")


def test_only_the_most_recent_are_kept_and_the_first_one(tmp_path):
  photo = np.zeros((30, 40, 3), np.uint8)
  with run_server(FakeMaker(), tmp_path, num_kept=2, first=lambda desk: desk.open(make_bundle(photo), "x")) as client:
    opening = re.search('data-opening="(.*?)"', client.get("/").text)[1]
    wait_for(client, opening, "ready")
    jobs = []
    for i in range(4):
      jobs.append(send(client, make_picture(i)))
      wait_for(client, jobs[-1], "ready")
      until(lambda: not client.desk.find(jobs[-1]).num_listeners)
    until(lambda: len(list(tmp_path.iterdir())) == 3)
    assert [client.get(f"/jobs/{job}/page").status_code for job in (opening, *jobs)] == [200, 404, 404, 200, 200]
    assert next(watch(client, jobs[0])) == {"id": jobs[0], "is_gone": True}


# ----------------------------------------------------------------------------------------------------------- limits


def png_of(width, height):
  """The head of a PNG that claims a size, and nothing behind it."""
  chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
  head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def careful(tmp_path_factory):
  """A server that decodes in a process of its own, as it does outside of tests."""
  with run_server(FakeMaker(), tmp_path_factory.mktemp("careful"), decode=decoder.decode) as client:
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
  return subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True)


def test_the_decoder_has_limited_memory_and_time(tmp_path, monkeypatch):
  noise = np.random.default_rng(0).integers(0, 255, (3000, 3000, 3), np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(noise).save(buffer, "PNG", compress_level=1)
  assert run_decoder(tmp_path, buffer.getvalue(), f"_MAX_MEMORY = {700 * 2**20}").returncode != 0
  assert run_decoder(tmp_path, buffer.getvalue(), "_MAX_CPU_SECONDS = 1").returncode in (0, -9, -24)
  assert not (tmp_path / "preview.webp").exists() or (tmp_path / "photo.npy").exists()
  monkeypatch.setattr(decoder, "_MAX_SECONDS", 0.01)
  with pytest.raises(UserError, match="takes too long to read"):
    asyncio.run(decoder.decode(tmp_path / "upload", tmp_path / "late.npy", tmp_path / "late.webp"))
  assert not (tmp_path / "late.npy").exists()


# ---------------------------------------------------------------------------------------------------- who may ask


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


def ask(client, method, path, headers=(), body=b""):
  """The status that raw bytes get, or None where the connection is closed without one."""
  address = client.base_url.host, client.base_url.port
  origin = f"http://{address[0]}:{address[1]}"
  lines = [f"{method} {path} HTTP/1.1", f"Host: {address[0]}:{address[1]}", f"Origin: {origin}", "Connection: close"]
  with socket.create_connection(address) as connection:
    connection.settimeout(LATE)
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", *headers, "", ""])
    connection.sendall(head.encode("latin-1", "replace") + body)
    answer = connection.recv(100)
  return int(answer.split()[1]) if answer else None


def invent(rng, jobs):
  """A request that makes little sense."""
  method = rng.choice(["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH", "get", "\x01"])
  parts = ["jobs", "events", "page", "again", "video", "gid", "..", "%2e%2e", "%ff", "%00", "\xff", "a" * 300, "?"]
  parts += jobs
  path = "/" + "/".join(rng.choice(parts) for _ in range(rng.randint(0, 5)))
  if rng.random() < 0.3:
    path += "?" + "&".join(f"{rng.choice(['job', 'name', 'token', '%'])}={rng.choice(parts)}" for _ in range(5))
  odd = ["Cookie: =;;=\x7f", "Content-Length: -1", "Transfer-Encoding: chunked", "Range: bytes=9-1", "Host: x"]
  headers = [rng.choice([*odd, "X: " + "y" * 9000])] if rng.random() < 0.3 else []
  body = b"zz\r\n" if headers == ["Transfer-Encoding: chunked"] else rng.randbytes(rng.choice([0, 0, 10, 3000]))
  return method, path, headers, body


def fuzz(client, number, *, seed=0):
  """Sends that many requests, some of them damaged photos; returns how often every status came."""
  rng, counts, good = random.Random(seed), {}, make_picture(kind="JPEG", size=(60, 50))
  jobs = [send(client, good)]
  wait_for(client, jobs[0], "ready", "failed", "gone")
  for index in range(number):
    if index % 20 == 0:  # a real photo with a few wrong bytes
      content = bytearray(good)
      for _ in range(rng.randint(1, 8)):
        content[rng.randrange(len(content))] = rng.randrange(256)
      name = "\u202e\x00../" + "n" * rng.randint(0, 200)
      answer = client.post("/jobs", content=bytes(content), params={"name": name})
      status = answer.status_code
      if status == 201:
        wait_for(client, answer.json()["id"], "ready", "failed", "gone")
    else:
      status = ask(client, *invent(rng, jobs))
    counts[status] = counts.get(status, 0) + 1
  return counts


def test_nonsense_is_refused_and_leaves_nothing_behind(shared, caplog):
  counts = fuzz(shared, 300)
  assert [record for record in caplog.records if record.name == "asyncio"] == []
  assert sum(counts.values()) == 300
  assert all(status is None or status < 500 or status == 503 for status in counts), counts
  assert wait_for(shared, send(shared), "ready")
  until(lambda: not (shared.desk._line or shared.desk._tasks or shared.desk._current))
  assert len(shared.desk._jobs) <= 1 + 3


def test_a_taken_port_takes_the_next_one():
  taken = server.listen("127.0.0.1", 0)
  port = taken.getsockname()[1]
  other = server.listen("127.0.0.1", port)
  assert port < other.getsockname()[1] < port + 20
  taken.close(), other.close()
  with pytest.raises(UserError, match=r"--host is nowhere\.invalid: there is no such address"):
    server.listen("nowhere.invalid", 0)
