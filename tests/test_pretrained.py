"""The embedded weights: within their size, undamaged, and good for what the README shows first."""

from pathlib import Path
from unittest.mock import ANY

import jax
import numpy as np
import pytest

import gid_jax
from gid_jax.errors import UserError
from gid_jax.media import photos
from gid_jax.motion import spectral
from gid_jax.pipeline import Animator
from gid_jax.sizes import resize_image
from gid_jax.weights import frozen
from gid_jax.weights.pretrained import MOTION_WEIGHTS, TRUNK_WEIGHTS, export_weights, import_weights, load_pretrained

pytestmark = pytest.mark.usefixtures("quick_compilation")

FOLDER = Path(gid_jax.__file__).parent / "pretrained"


def test_weights_stay_under_75_megabytes():
  assert sum(path.stat().st_size for path in FOLDER.glob("*.safetensors")) < 75e6
  assert (FOLDER / "MODEL_CARD.md").exists() and (FOLDER / "NOTICE").exists()


def test_the_file_of_motion_weights_alone_is_the_whole_model():
  """Fine-tuning names this file; the frozen networks in the file beside it belong to it."""
  params, _ = import_weights(FOLDER / MOTION_WEIGHTS)
  networks = {name for name in params["encoder"] if name.startswith("frozen_trunk")}
  assert networks == {"frozen_trunk_efficientnet_lite0", "frozen_trunk_dinov2_vits14"}
  jax.tree.map(np.testing.assert_array_equal, params, load_pretrained(MOTION_WEIGHTS)[0])


def test_weights_are_split_for_the_package_and_joined_again(tmp_path):
  """As a maintainer embeds new ones."""
  network, rest = {"kernel": np.ones((2, 3), np.float32)}, {"kernel": np.full((3, 1), 2, np.float32)}
  params = {"unet": rest, "encoder": {"frozen_trunk_efficientnet_lite0": network, "out": rest}}
  settings = import_weights(FOLDER / MOTION_WEIGHTS)[1]
  export_weights(tmp_path / "exported.safetensors", params, settings=settings)
  frozen.embed(tmp_path / "exported.safetensors", tmp_path)
  found, described = import_weights(tmp_path / MOTION_WEIGHTS)
  jax.tree.map(np.testing.assert_array_equal, found, params)
  assert described == settings
  assert import_weights(tmp_path / TRUNK_WEIGHTS)[0] == {"encoder": {"frozen_trunk_efficientnet_lite0": ANY}}
  before = [(tmp_path / name).read_bytes() for name in (MOTION_WEIGHTS, TRUNK_WEIGHTS)]
  for name, without in ("a", {"unet": rest}), ("b", {"unet": rest, "encoder": {"out": rest}}):
    export_weights(tmp_path / name, without, settings=settings)
    with pytest.raises(UserError, match=f"{name} holds no frozen image networks"):
      frozen.embed(tmp_path / name, tmp_path)
  assert before == [(tmp_path / name).read_bytes() for name in (MOTION_WEIGHTS, TRUNK_WEIGHTS)]


def test_bundled_photo_moves_where_it_should():
  """The dandelion head sways four times as far as the sky behind it, which is the brightest of the upper fifth."""
  photo = photos.read_image(FOLDER / "photo.jpg")
  animator = Animator.from_pretrained()
  volume = animator.predict_spectrum(jax.random.key(0), photo)
  working = animator.working_size(*photo.shape[:2])
  motion = spectral.spectrum_to_motion(spectral.resize_spectrum(volume, *working), anchor_first_frame=True)
  length = np.linalg.norm(motion, axis=-1).mean(axis=0)
  height, width = length.shape
  flower = length[round(0.12 * height) : height // 2, round(0.14 * width) : round(0.44 * width)].mean()
  sky = resize_image(photo, height, width).mean(-1) > 0.85
  sky[height // 5 :] = False
  assert flower >= 1.2 and sky.mean() > 0.05
  assert length[sky].mean() <= flower / 4
  first, later = animator.render(photo, volume, frames=2, fps=2.0, size=256)
  reference = resize_image(photo, *first.shape[:2])
  assert -10 * np.log10(np.mean((first / 255.0 - reference) ** 2)) >= 32
  assert np.abs(later.astype(float) - first).mean() > 1  # half a second later something has moved
