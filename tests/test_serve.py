"""The server: its line, and what comes out of it, with work that is done at once or when a test says so."""

import io
import re

import numpy as np
import pytest
from PIL import Image
from serving import PAGE, FakeMaker, make_picture, run_server, save_first, send, until, wait_for, watch

from gid_jax.bundle import load_bundle
from gid_jax.errors import UserError
from gid_jax.serve import decoder, server


def phases(states, part="motion"):
  """The phases of some states, repetitions left out."""
  found = [state[part]["phase"] for state in states]
  return [phase for i, phase in enumerate(found) if i == 0 or found[i - 1] != phase]


def test_a_photo_goes_through_its_phases_and_comes_out(tmp_path):
  maker = FakeMaker(is_patient=True)
  with run_server(maker, tmp_path, decoder=decoder.Decoder()) as client:
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
    until(lambda: client.desk._line.is_idle)
    client.desk._grace = 30.0
    maker.permit()
    last = send(client, make_picture(3))
    wait_for(client, last, "ready")
  assert maker.done == [(3, 0)]


def test_another_motion_needs_no_other_upload(tmp_path):
  with run_server(FakeMaker(), tmp_path) as client:
    first = send(client, make_picture(5), name="b.png")
    wait_for(client, first, "ready")
    seeds = []
    for job in (first, first):
      answer = client.post(f"/jobs/{job}/again")
      assert answer.status_code == 201
      seeds.append(wait_for(client, answer.json()["id"], "ready")[-1]["seed"])
      assert answer.json()["name"] == "b" and client.get(f"/jobs/{answer.json()['id']}/preview").status_code == 200
    assert seeds == [1, 2]
    assert client.post("/jobs/unknown/again").status_code == 404


def test_a_gid_file_is_opened_without_sampling(tmp_path):
  """Another process looks into it first; what it says of a damaged one is shown."""
  maker, folder = FakeMaker(), tmp_path / "jobs"
  folder.mkdir()
  source = save_first(tmp_path, np.full((30, 40, 3), 9, np.uint8), seed=4)
  with run_server(maker, folder, decoder=decoder.Decoder()) as client:
    job = send(client, source.read_bytes(), name="meadow.gid")
    state = wait_for(client, job, "ready")[-1]
    assert (state["name"], state["seed"], state["has_file"], maker.done) == ("meadow", 4, True, [])
    assert client.get(f"/jobs/{job}/page").text == PAGE
    assert client.get(f"/jobs/{job}/gid").content == source.read_bytes()
    assert client.get(f"/jobs/{job}/preview").status_code == 200
    other = client.post(f"/jobs/{job}/again").json()["id"]
    assert wait_for(client, other, "ready")[-1]["seed"] == 5 and maker.done == [(9, 5)]
    damaged = bytearray(source.read_bytes())
    damaged[-1] ^= 1
    state = wait_for(client, send(client, bytes(damaged), name="meadow.gid"), "failed")[-1]
    assert state["motion"]["reason"] == "This file: damaged, its checksum does not match; make it again"


def test_what_the_server_opens_on_is_ready_at_once(tmp_path):
  folder = tmp_path / "jobs"
  folder.mkdir()
  source = save_first(tmp_path, np.zeros((30, 40, 3), np.uint8), seed=2)
  maker = FakeMaker(fail=ValueError("nothing is to be sampled"))
  with run_server(maker, folder, first=lambda desk: desk.open(source, "x")) as client:
    opening = re.search('data-opening="(.*?)"', client.get("/").text)[1]
    assert client.get(f"/jobs/{opening}/page").text == PAGE
    state = next(watch(client, opening))
    assert (state["motion"]["phase"], state["seed"], state["has_file"]) == ("ready", 2, True)


def test_no_visitor_cancels_what_all_open_on(tmp_path):
  maker = FakeMaker(is_patient=True)
  first = lambda desk: desk.open_photo(np.zeros((30, 40, 3), np.uint8), "x")
  with run_server(maker, tmp_path, first=first) as client:
    opening = re.search('data-opening="(.*?)"', client.get("/").text)[1]
    assert client.delete(f"/jobs/{opening}").status_code == 204
    maker.permit()
    assert wait_for(client, opening, "ready")[-1]["motion"]["phase"] == "ready"


def test_a_photo_that_cannot_be_kept_is_told_and_can_be_touched(tmp_path, monkeypatch, capsys):
  def fail(path, bundle):
    raise UserError("no space left on device")

  monkeypatch.setattr("gid_jax.serve.desk.save_bundle", fail)
  with run_server(FakeMaker(), tmp_path) as client:
    job = send(client)
    assert wait_for(client, job, "ready")[-1]["motion"]["phase"] == "ready"
    until(lambda: "the .gid file of a photo could not be kept: no space left on device" in capsys.readouterr().err)
    assert client.get(f"/jobs/{job}/page").text == PAGE and client.get(f"/jobs/{job}/gid").status_code == 404


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
  folder = tmp_path / "jobs"
  folder.mkdir()
  source = save_first(tmp_path, np.zeros((30, 40, 3), np.uint8))
  with run_server(FakeMaker(), folder, num_kept=2, first=lambda desk: desk.open(source, "x")) as client:
    opening = re.search('data-opening="(.*?)"', client.get("/").text)[1]
    wait_for(client, opening, "ready")
    jobs = []
    for i in range(4):
      jobs.append(send(client, make_picture(i)))
      wait_for(client, jobs[-1], "ready")
      until(lambda: not client.desk.find(jobs[-1]).num_listeners)
    until(lambda: len(list(folder.iterdir())) == 3)
    assert [client.get(f"/jobs/{job}/page").status_code for job in (opening, *jobs)] == [200, 404, 404, 200, 200]
    assert next(watch(client, jobs[0])) == {"id": jobs[0], "is_gone": True}


def test_a_taken_port_takes_the_next_one():
  taken = server.listen("127.0.0.1", 0)
  port = taken.getsockname()[1]
  other = server.listen("127.0.0.1", port)
  assert port < other.getsockname()[1] < port + 20
  taken.close(), other.close()
  with pytest.raises(UserError, match=r"--host is nowhere\.invalid: there is no such address"):
    server.listen("nowhere.invalid", 0)
  for host in (".local", "a..b", 64 * "a"):
    with pytest.raises(UserError, match=f"--host is {host}: there is no such address"):
      server.listen(host, 0)
