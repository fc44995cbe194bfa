"""Building a data set: split by scene, resumption, rejections, counts and statistics."""

import json

import cv2
import numpy as np
import pytest

from data_pipeline import builder, statistics
from gid_jax.errors import UserError
from gid_jax.input_pipeline import read_scale, read_window
from gid_jax.media import write_video
from gid_jax.types import Window

NUM_FRAMES, NUM_BANDS = 16, 4
SMALL = [
  *("--num_frames", str(NUM_FRAMES), "--num_bands", str(NUM_BANDS), "--num_pairs", "3"),
  *("--height", "32", "--width", "48", "--stride", "10", "--loop_stride", "8", "--num_workers", "1"),
]


def write_swing(path, seed, *, amplitude=1.5, num_frames=26, num_resting=32):
  """Writes a clip in which the lower part of a texture swings and its upper `num_resting` rows rest."""
  rng = np.random.default_rng(seed)
  image = cv2.GaussianBlur(rng.standard_normal((64, 96, 3)).astype(np.float32), (0, 0), 2)
  image = np.clip(image / image.std() * 40 + 128, 0, 255).astype(np.uint8)
  frames = []
  for t in range(num_frames):
    matrix = np.array([[1, 0, amplitude * np.sin(2 * np.pi * t / 8)], [0, 1, 0]], np.float32)
    moved = cv2.warpAffine(image, matrix, (96, 64), borderMode=cv2.BORDER_REFLECT)
    frames.append(np.concatenate([image[:num_resting], moved[num_resting:]]))
  write_video(path, frames, fps=30, quality=95)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
  folder = tmp_path_factory.mktemp("videos")
  (folder / "clips").mkdir()
  (folder / "loops").mkdir()
  for seed, name in enumerate(["fern_0", "fern_1", "sim_fern_view2_0", "oak_0", "named"]):
    write_swing(folder / "clips" / f"{name}.mp4", seed)
  write_swing(folder / "clips" / "storm_0.mp4", 7, amplitude=8, num_resting=0)
  (folder / "clips" / "broken.mp4").write_bytes(b"not a video")
  write_swing(folder / "clips" / "pond_0.mp4", 8, num_frames=5)
  (folder / "clips.csv").write_text("file,scene\nnamed.mp4,oak\n")
  write_swing(folder / "loops" / "rose.mp4", 9, num_frames=16)
  return folder


def options(videos, output, *more):
  sources = ["--clips", str(videos / "clips"), "--loops", str(videos / "loops"), "--held_out_scenes", "oak"]
  return builder.parse_options(["--output", str(output), *sources, *SMALL, *more])


@pytest.fixture(scope="module")
def built(videos, tmp_path_factory):
  output = tmp_path_factory.mktemp("built")
  return output, builder.build(options(videos, output))


def contents(output):
  # Window by window, not byte by byte: safetensors writes its metadata in no fixed order.
  files = [p for p in output.rglob("*") if p.is_file() and p.parent.name != "records"]
  windows = {p: read_window(p) for p in files if p.parent.name in builder.SPLITS}
  comparable = {
    p: [v if isinstance(v, str) else (v.dtype, v.shape, v.tobytes()) for v in window] for p, window in windows.items()
  }
  return {str(p.relative_to(output)): comparable.get(p) or p.read_bytes() for p in files}


def test_no_scene_is_in_both_splits(built):
  output, counts = built
  scenes = {split: {read_window(p).scene for p in (output / split).glob("*.safetensors")} for split in builder.SPLITS}
  assert scenes == {"train": {"fern", "rose"}, "validation": {"oak"}}
  names = sorted(p.name for p in (output / "validation").glob("*.safetensors"))
  # Two starts, each in full view and closer up.
  assert names == [f"real-{stem}-{i:02d}.safetensors" for stem in ("named", "oak_0") for i in range(4)]
  files = {split: len(list((output / split).glob("*.safetensors"))) for split in builder.SPLITS}
  assert sum(counts["windows"].values()) == sum(files.values())
  assert counts["windows"]["loop/train"] == 4


@pytest.mark.parametrize(
  ("file", "scene"),
  [
    ("sim_orange_rose_view4_0.mp4", "orange_rose"),
    ("orange_rose_2.mp4", "orange_rose"),
    ("sim_hat_1.mp4", "hat"),
    ("oak.mp4", "oak"),
  ],
)
def test_scene_of_a_file_name(file, scene):
  assert builder.file_to_scene(file) == scene


def test_scenes_without_a_list_are_split_by_their_name_alone():
  splits = [builder.scene_to_split(f"scene{i}", held_out=None) for i in range(2000)]
  assert splits == [builder.scene_to_split(f"scene{i}", held_out=None) for i in range(2000)]
  assert 140 < splits.count("validation") < 260


def test_window_survives_the_round_trip(tmp_path):
  rng = np.random.default_rng(0)
  window = Window(
    image=rng.integers(0, 255, (4, 6, 3), dtype=np.uint8),
    spectrum=rng.standard_normal((2, 2, 3, 4)).astype(np.float16),
    frames=rng.integers(0, 255, (3, 4, 6, 3), dtype=np.uint8),
    flows=rng.standard_normal((3, 4, 6, 2)).astype(np.float16),
    depth=rng.random((4, 6)).astype(np.float16),
    scene="été",
    source="loop",
  )
  builder.save_window(tmp_path / "w.safetensors", window)
  again = read_window(tmp_path / "w.safetensors")
  for name, value in window._asdict().items():
    np.testing.assert_array_equal(getattr(again, name), value)
    assert isinstance(value, str) or getattr(again, name).dtype == value.dtype
  assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_rejections_are_listed_with_their_reasons(built):
  output, counts = built
  lines = [json.loads(line) for line in (output / "rejected.jsonl").read_text().splitlines()]
  reasons = {line["name"]: line["reason"] for line in lines}
  assert len(lines) == counts["rejected"]
  assert "broken.mp4" in reasons["real-broken"]
  assert "No shot" in reasons["real-pond_0"]
  assert reasons["real-storm_0-00"] == "camera"


def test_filter_counts_match_the_verdicts(built):
  output, counts = built
  verdicts = [v for p in (output / "records").glob("*.json") for v in json.loads(p.read_text())["verdicts"]]
  for rule, removed in counts["removed"].items():
    assert sum(removed.values()) == sum(1 for v in verdicts if v[rule])
  assert counts["removed"]["main"] == {"camera": 4}
  lost = sum(counts["removed"]["main"].values())
  assert sum(counts["windows"].values()) == len(verdicts) - lost
  # Small swings in half of the picture: under 1 px on average over all of it.
  assert counts["removed"]["supplement"]["still"] > 0


def test_killed_build_goes_on_to_the_same_data_set(built, videos, tmp_path):
  complete, _ = built
  output = tmp_path / "again"
  builder.build(options(videos, output))
  # As a kill leaves it: a clip without record, one of its windows missing, half a window, no statistics.
  (output / "records" / "real-fern_1.json").unlink()
  (output / "train" / "real-fern_1-01.safetensors").unlink()
  (output / "train" / "real-fern_1-00.safetensors").write_bytes(b"old")
  (output / "train" / "real-fern_0-00.safetensors.123.tmp").write_bytes(b"half")
  (output / "statistics.json").unlink()
  untouched = (output / "train" / "real-fern_0-00.safetensors").stat().st_mtime_ns
  builder.build(options(videos, output))
  assert contents(output) == contents(complete)
  assert (output / "train" / "real-fern_0-00.safetensors").stat().st_mtime_ns == untouched


def test_new_split_moves_the_windows(videos, tmp_path):
  builder.build(options(videos, tmp_path, "--exclude", "fern,storm,broken,pond"))
  assert (tmp_path / "validation" / "real-oak_0-00.safetensors").exists()
  builder.build(options(videos, tmp_path, "--exclude", "fern,storm,broken,pond", "--held_out_scenes", "rose"))
  assert {p.name.split("-")[1] for p in (tmp_path / "train").glob("*.safetensors")} == {"oak_0", "named"}
  assert {p.name.split("-")[1] for p in (tmp_path / "validation").glob("*.safetensors")} == {"rose"}


def test_exclude_and_minor_limit_the_windows(videos, tmp_path):
  tasks = builder.plan_tasks(options(videos, tmp_path, "--exclude", "oak,fern_1", "--minor", "rose"))
  by_name = {task.name: task for task in tasks}
  assert "real-named" not in by_name and "real-oak_0" not in by_name and "real-fern_1" not in by_name
  assert by_name["loop-rose"].settings["max_windows"] == 2
  assert by_name["real-fern_0"].settings["max_windows"] == 8


def test_synthetic_windows_hold_out_every_tenth_seed(tmp_path):
  arguments = ["--output", str(tmp_path), "--synthetic", "10", *SMALL]
  counts = builder.build(builder.parse_options(arguments))
  assert counts["windows"] == {"synthetic/train": 9, "synthetic/validation": 1}
  (path,) = (tmp_path / "validation").iterdir()
  assert path.name == "synthetic-000009-00.safetensors"
  assert read_window(path).source == "synthetic"


def test_nothing_to_build_says_so(tmp_path):
  with pytest.raises(SystemExit, match="Nothing to build"):
    builder.main(["--output", str(tmp_path)])
  with pytest.raises(UserError, match="No videos"):
    builder.plan_tasks(builder.parse_options(["--output", str(tmp_path), "--clips", str(tmp_path / "none")]))


def test_scale_is_the_percentile_of_all_training_magnitudes(built):
  output, _ = built
  files = sorted((output / "train").glob("*.safetensors"))
  spectra = np.stack([read_window(p).spectrum for p in files]).astype(np.float64)
  magnitudes = np.hypot(spectra[:, :, ::2, ::2, :2], spectra[:, :, ::2, ::2, 2:])
  written = json.loads((output / "statistics.json").read_text())
  for percentile in (95, 97):
    expected = np.percentile(np.moveaxis(magnitudes, 1, 0).reshape(NUM_BANDS, -1), percentile, axis=1)
    np.testing.assert_allclose(written[f"scale_{percentile}"], expected, rtol=0.01)
  np.testing.assert_allclose(read_scale(output, num_bands=NUM_BANDS), written["scale_95"], rtol=1e-6)
  assert written["num_windows"] == len(spectra)
  assert written["motion"] == {"height": 16, "width": 24}


def test_two_groups_weigh_the_same():
  rng = np.random.default_rng(0)
  many, few = statistics.BandHistogram(1), statistics.BandHistogram(1)
  large, small = rng.exponential(5, (1, 40, 50, 4)), rng.exponential(0.2, (1, 10, 10, 4))
  many.add(large)
  few.add(small)
  values = [np.hypot(s[..., :2], s[..., 2:]).ravel() for s in (large, small)]
  (found,) = statistics.histograms_to_percentile([many, few], 90)
  share = np.mean([(v < found).mean() for v in values])
  assert abs(share - 0.9) < 0.005
  with pytest.raises(UserError, match="No training windows"):
    statistics.histograms_to_percentile([statistics.BandHistogram(2)], 95)


def test_figure_is_drawn(built, tmp_path, capsys):
  output, _ = built
  statistics.main([str(output), "--figure", str(tmp_path / "figure.png")])
  figure = cv2.imread(str(tmp_path / "figure.png"))
  assert figure is not None and figure.std() > 10
  assert json.loads(capsys.readouterr().out)["num_frames"] == NUM_FRAMES
