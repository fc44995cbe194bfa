"""Resizing as a product with matrices, against JAX's own."""

import jax
import numpy as np
import pytest

from gid_jax.motion.resize import resize

pytestmark = pytest.mark.usefixtures("quick_compilation")

VALUES = np.random.default_rng(0).normal(size=(2, 3, 17, 12, 4)).astype(np.float32)


@pytest.mark.parametrize("method", ["linear", "cubic"])
@pytest.mark.parametrize("size", [(17, 12), (34, 5), (6, 31), (40, 30), (3, 2), (1, 1)])
def test_resizing_gives_what_jax_gives(size, method):
  expected = jax.image.resize(VALUES, (2, 3, *size, 4), method)
  np.testing.assert_allclose(resize(VALUES, *size, method=method), expected, atol=1e-5)
  np.testing.assert_allclose(resize(VALUES[0, 0], *size, method=method), expected[0, 0], atol=1e-5)


def test_the_smallest_grid_grows():
  grown = resize(np.ones((1, 1, 2), np.float32), 3, 4, method="cubic")
  np.testing.assert_allclose(grown, np.ones((3, 4, 2)), rtol=1e-6)
