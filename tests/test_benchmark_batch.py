"""The benchmark of many photos: what it makes, and that it tells a promise that is kept from one that is not."""

import sys

import numpy as np
import pytest
from PIL import Image

import benchmarks.batch as batch
from gid_jax.errors import UserError
from gid_jax.media import photos

COMMAND = """
import json, pathlib, sys
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
  print(json.dumps({"source": str(path), **({"error": "broken"} if path.stem in sys.argv[2:] else {"output": "x"})}))
sys.exit(2 if sys.argv[2:] else 0)
"""


@pytest.fixture
def made(tmp_path):
  (tmp_path / "given").mkdir()
  pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
  Image.fromarray(pixels).resize((400, 300)).save(tmp_path / "given" / "a.jpg")
  return tmp_path / "photos", batch.make_photos(tmp_path / "photos", tmp_path / "given", number=12, num_broken=5)


def test_photos_are_of_all_aspects_and_the_broken_ones_are(made):
  folder, broken = made
  assert len(broken) == len(set(broken)) == 5
  for path in sorted(folder.iterdir()):
    if path.stem in broken:
      with pytest.raises(UserError):
        photos.read_image(path)
    else:
      across, down = batch.ASPECTS[int(path.stem) % len(batch.ASPECTS)]
      height, width, _ = photos.read_image(path).shape
      assert abs(width * down - height * across) <= max(across, down)


@pytest.mark.parametrize("lost", [0, 1])
def test_counts_decide(made, lost, capsys):
  folder, broken = made
  result = batch.run([sys.executable, "-c", COMMAND, str(folder), *broken])
  assert len(result.lines) == 12 and result.status == 2 and set(result.memory) == {10} and result.peak > 1
  good = [path.stem for path in sorted(folder.iterdir()) if path.stem not in broken]
  assert batch.report(result, broken=broken, written=good[lost:], number=12) == lost
  said = capsys.readouterr().out
  assert f"{7 - lost} of 12 written, 5 named as broken: {', '.join(broken)}; exit status 2" in said
  assert "after 10: " in said
