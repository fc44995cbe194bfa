"""Tables of the report from made-up results: what goes into which cell, against figures computed by hand."""

import numpy as np
import pytest

from gid_jax.evaluation import frechet, tables
from gid_jax.evaluation.judging import SceneResult

NUM_FRAMES, DIMENSION = 150, 3


def make_result(name, scene, *, seed, networks=("FID", "DTFVD"), predictors=("model", "still")):
  rng = np.random.default_rng(seed)
  counts = {"FID": NUM_FRAMES // 10, "EffLite0-Fréchet": NUM_FRAMES // 10, "FVD": 9, "DTFVD": 9, "FVD32": 4}
  features = {
    f"{network}/{predictor}": rng.normal(size=(counts[network], DIMENSION)) + (predictor == "model")
    for network in networks
    for predictor in ("real", *predictors)
  }
  return SceneResult(name, scene, "real", {}, {}, features)


@pytest.fixture(scope="module")
def results():
  scenes = ("oak", "oak", "reed", "moss", "fern", "ivy")
  return [make_result(f"{scene}_{seed}", scene, seed=seed) for seed, scene in enumerate(scenes)]


def cells(table):
  return {row.name: dict(zip([column.name for column in table.columns], row.cells, strict=True)) for row in table.rows}


def stack(results, name, part=slice(None)):
  return np.concatenate([result.features[name][part] for result in results])


def test_fid_and_kid_are_of_all_frames(results):
  found = cells(tables.make_video_table(results, "real"))
  assert [*found["model"]] == ["FID", "KID", "DTFVD"]
  for name in ("model", "still"):
    ours, real = stack(results, f"FID/{name}"), stack(results, "FID/real")
    assert found[name]["FID"].value == pytest.approx(frechet.frechet_distance(ours, real))
    assert found[name]["KID"].value == pytest.approx(100 * frechet.kernel_distance(ours, real))
    assert found[name]["KID"].low < found[name]["KID"].value < found[name]["KID"].high
  assert found["model"]["FID"].num_samples == 5


def test_other_takes_are_the_ceiling_where_there_are_some(results):
  found = cells(tables.make_video_table(results, "real"))["another take of the scene"]
  one, other = (stack(results[i : i + 1], "DTFVD/real") for i in range(2))
  expected = frechet.frechet_distance(other, one)
  assert expected > 0.1 and found["DTFVD"].value == pytest.approx(expected) and found["DTFVD"].num_samples == 1


def test_windows_slide_over_frames_and_videos(results):
  frames, videos = tables.make_time_tables(results, "real")
  assert (frames.name, videos.name) == ("FID over time, real", "DTFVD over time, real")
  assert [column.name for column in frames.columns] == [f"frames {start}–{start + 20}" for start in range(0, 121, 20)]
  assert [column.name for column in videos.columns] == [f"frames {start}–{start + 15}" for start in range(0, 144, 16)]
  # Frames 20 to 49 are those of features 2 to 4.
  ours, real = (stack(results, f"FID/{name}", slice(2, 5)) for name in ("model", "real"))
  found = cells(frames)["model"]["frames 20–40"]
  assert found.value == pytest.approx(frechet.frechet_distance(ours, real))
  ours, real = (stack(results, f"DTFVD/{name}", slice(8, 9)) for name in ("still", "real"))
  found = cells(videos)["still"]["frames 128–143"]
  assert found.value == pytest.approx(frechet.frechet_distance(ours, real))


def test_networks_at_hand_stand_in_under_their_own_names():
  results = [make_result(s, s, seed=i, networks=("FVD", "FVD32", "EffLite0-Fréchet")) for i, s in enumerate("abc")]
  names = [table.name for table in tables.make_time_tables(results, "real")]
  assert names == ["EffLite0-Fréchet over time, real", "FVD over time, real"]
  assert [c.name for c in tables.make_video_table(results, "real").columns] == [
    "FVD", "FVD32", "EffLite0-Fréchet", "EffLite0-kernel"]


def test_rendering_counts_a_scene_once_and_leaves_out_what_was_not_measured():
  figures = [("a_0", "a", 20.0, np.nan), ("a_1", "a", 30.0, np.nan), ("b", "b", 35.0, 0.5)]
  results = [
    SceneResult(name, scene, "loop", {}, {"renderer": {"psnr, whole": ratio, "ssim, disoccluded": ssim}}, {})
    for name, scene, ratio, ssim in figures
  ]
  table = tables.make_rendering_table([*results, SceneResult("c", "c", "loop", {}, {}, {})], "loop")
  assert [column.name for column in table.columns] == ["PSNR, whole", "SSIM, disoccluded"]
  ratio, ssim = table.rows[0].cells
  assert (ratio.value, ratio.num_samples) == (30.0, 2) and (ssim.value, ssim.num_samples) == (0.5, 1)
  assert tables.make_rendering_table(results, "real") is None


def test_no_table_without_results():
  assert tables.make_motion_table([], "real") is None and tables.make_video_table([], "real") is None
  assert tables.make_rendering_table([], "real") is None and tables.make_time_tables([], "real") == []
