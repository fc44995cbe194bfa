"""From frames to features: the references' grids, batches, windows, and what is said when weights are missing."""

import jax
import judges_reference as reference
import numpy as np
import pytest
import safetensors.numpy

from gid_jax.errors import UserError
from gid_jax.evaluation.networks import extractors
from gid_jax.models import vgg16

GRIDS = {
  "half_pixel": lambda i, old, new: max((i + 0.5) * old / new - 0.5, 0),
  "corners": lambda i, old, new: i * (old - 1) / (new - 1),
  "legacy": lambda i, old, new: i * old / new,
}


def loop_resize(image, height, width, grid):
  """image [h w c], one pixel at a time."""
  out = np.zeros((height, width, image.shape[2]))
  for row, column in np.ndindex(height, width):
    y, x = GRIDS[grid](row, image.shape[0], height), GRIDS[grid](column, image.shape[1], width)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, image.shape[0] - 1), min(x0 + 1, image.shape[1] - 1)
    upper = image[y0, x0] * (1 - x + x0) + image[y0, x1] * (x - x0)
    lower = image[y1, x0] * (1 - x + x0) + image[y1, x1] * (x - x0)
    out[row, column] = upper * (1 - y + y0) + lower * (y - y0)
  return out


def make_frames(seed, *shape):
  return np.random.default_rng(seed).integers(256, size=(*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("size", [(23, 31), (7, 6), (11, 13), (11, 40)])
def test_resizing_matches_loops(grid, size):
  frames = make_frames(0, 2, 11, 13).astype(np.float32)
  found = extractors.resize_bilinear(frames, *size, grid=grid)
  for image, expected in zip(found, frames, strict=True):
    np.testing.assert_allclose(image, loop_resize(expected, *size, grid), atol=1e-3)


@pytest.mark.parametrize("grid, corners", [("half_pixel", False), ("corners", True)])
def test_resizing_matches_pytorch(grid, corners):
  torch = pytest.importorskip("torch")
  frames = make_frames(1, 2, 128, 256).astype(np.float32)
  expected = torch.nn.functional.interpolate(
    torch.from_numpy(frames.transpose(0, 3, 1, 2)), size=(299, 299), mode="bilinear", align_corners=corners
  )
  found = extractors.resize_bilinear(frames, 299, 299, grid=grid)
  np.testing.assert_allclose(found, expected.numpy().transpose(0, 2, 3, 1), atol=1e-2)


@pytest.fixture
def save(tmp_path):
  """Writes the seeded weights of a network and returns the file."""

  def write(network):
    path = tmp_path / f"{network}.safetensors"
    safetensors.numpy.save_file(reference.make_tensors(network), path)
    return path

  return write


def test_frames_are_read_one_by_one(save):
  extractor = extractors.load_extractor("resnet34", weights=save("resnet"))
  frames = make_frames(2, 11, 40, 48)
  found = extractor.extract(frames)
  assert found.shape == (11, extractor.dimension) and extractor.num_frames == 1
  np.testing.assert_allclose(extractor.extract(frames[9:]), found[9:], atol=1e-4)
  with pytest.raises(UserError, match="at least 1 frames, not 0"):
    extractor.extract(frames[:0])


def test_embedded_features_know_flat_frames():
  extractor = extractors.load_extractor("efficientnet_lite0")
  frames = make_frames(3, 2, 64, 64)
  found = extractor.extract(np.stack([frames[0], frames[0], frames[1] // 64 + 100]))
  assert extractor.name == "EffLite0-Fréchet" and found.shape == (3, extractor.dimension)
  np.testing.assert_allclose(found[0], found[1], atol=1e-4)
  assert np.abs(found[2] - found[0]).max() > 0.1


def test_fid_reads_frames_as_its_reference(save):
  torch = pytest.importorskip("torch")
  frame = make_frames(4, 1, 60, 80)
  found = extractors.load_extractor("fid", weights=save("inception")).extract(frame)
  image = torch.from_numpy(np.moveaxis(frame, -1, 1).astype(np.float32) / 255)
  image = torch.nn.functional.interpolate(image, size=(299, 299), mode="bilinear", align_corners=False)
  tensors = {name: torch.from_numpy(array) for name, array in reference.make_tensors("inception").items()}
  expected = reference.run_inception(tensors, 2 * image - 1)
  np.testing.assert_allclose(found, expected, atol=reference.TOLERANCE * float(expected.max()))


def test_vgg16_features_are_averaged_over_space(tmp_path):
  rng, previous, arrays = np.random.default_rng(0), 3, {}
  for block, (size, channels) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), start=1):
    for conv in range(1, size + 1):
      kernel = rng.standard_normal((3, 3, previous, channels), np.float32) * (2 / (9 * previous)) ** 0.5
      arrays |= {f"block{block}_conv{conv}_kernel": kernel, f"block{block}_conv{conv}_bias": np.zeros(channels)}
      previous = channels
  np.savez(tmp_path / "vgg16.npz", **arrays)
  frames = make_frames(6, 3, 16, 32)
  found = extractors.load_extractor("vgg16", weights=tmp_path / "vgg16.npz").extract(frames)
  params = vgg16.vgg16_params(tmp_path / "vgg16.npz")
  maps = jax.jit(vgg16.vgg16_features)(params, frames.astype(np.float32) / 255)[-1]
  expected = np.mean(maps, axis=(1, 2))
  assert found.shape == (3, 512)
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.max())


@pytest.mark.parametrize(
  "kind, network, params, grid, size",
  [
    ("fvd", "I3D", "kinetics_params", "legacy", 224),
    ("dtfvd32", "I3D", "i3d_params", "corners", 224),
    ("fid", "FIDInception", "fid_inception_params", "half_pixel", 299),
  ],
)
def test_frames_are_resized_as_in_their_references(kind, network, params, grid, size, monkeypatch):
  class Network:
    def __init__(self, *_):
      pass

    def apply(self, variables, images):
      return images.reshape(len(images), -1)

  monkeypatch.setattr(extractors, network, Network)
  monkeypatch.setattr(extractors, params, lambda *_, **__: {})
  monkeypatch.setattr(extractors, "read_tensors", lambda path: {})
  extractor = extractors.load_extractor(kind, weights="file")
  frames = make_frames(7, extractor.num_frames, 18, 27)
  images = extractor.extract(frames).reshape(-1, size, size, 3)
  assert len(images) == len(frames)
  np.testing.assert_allclose(images[-1], loop_resize(frames[-1] / 127.5 - 1, size, size, grid), atol=1e-5)


def test_videos_are_read_in_windows(save, monkeypatch):
  # At a fraction of the references' size.
  resize = extractors.resize_bilinear
  monkeypatch.setattr(extractors, "resize_bilinear", lambda x, height, width, grid: resize(x, 33, 33, grid=grid))
  extractor = extractors.load_extractor("dtfvd", weights=save("i3d"))
  frames = make_frames(5, 40, 20, 30)
  found = extractor.extract(frames)
  assert found.shape == (2, 1024) and extractor.num_frames == 16
  np.testing.assert_allclose(extractor.extract(frames[16:35]), found[1:], atol=1e-4)
  assert np.abs(found[0] - found[1]).max() > 1e-3
  with pytest.raises(UserError, match="at least 16 frames, not 15"):
    extractor.extract(frames[:15])


@pytest.mark.parametrize("kind", ["fid", "dtfvd", "dtfvd32", "resnet34", "vgg16"])
def test_missing_weights_say_where_they_are(kind, tmp_path):
  with pytest.raises(UserError, match=f"{kind} needs a file of weights: ") as caught:
    extractors.load_extractor(kind)
  assert "\n" not in str(caught.value)
  with pytest.raises(UserError, match="absent"):
    extractors.load_extractor(kind, weights=tmp_path / "absent.safetensors")


def test_unknown_kinds_are_refused():
  with pytest.raises(UserError, match="choose one of fid, fvd"):
    extractors.load_extractor("vgg19")
