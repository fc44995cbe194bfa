"""Who estimates flow: a seam. Anything that keeps to `FlowEstimator` can measure a data set or a clip to judge by.

  # my_flow.py, in the current folder or on PYTHONPATH
  class MyFlow:
    name, version = "mine", "1"

    def __call__(self, reference, targets, *, progress=None):
      ...
      return flow, confidence

  estimator = MyFlow()

is used by `python -m data_pipeline.builder --flow my_flow:estimator` and by `--config.flow=my_flow:estimator` of the
evaluation. Name and version stand for it wherever measured motion is kept: raise the version when the results change.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

from jaxtyping import Float

from gid_jax.errors import UserError
from gid_jax.flow.estimate import DEFAULT, REFERENCE, FlowSettings, estimate_flow
from gid_jax.parsing import look_up
from gid_jax.types import AnyArray

# To be raised when `estimate_flow` gives other results with the same settings.
FLOW_VERSION = 1


@runtime_checkable
class FlowEstimator(Protocol):
  """Estimates the flow from one frame to many."""

  @property
  def name(self) -> str:
    """Short name."""
    ...

  @property
  def version(self) -> str:
    """Changes whenever the results do."""
    ...

  def __call__(
    self,
    reference: Float[AnyArray, "h w 3"],
    targets: Float[AnyArray, "n h w 3"],
    *,
    progress: Callable[[int, int], None] | None = None,
  ) -> tuple[Float[AnyArray, "n h w 2"], Float[AnyArray, "n h w"]]:
    """Estimates the flow from a reference frame to each target.

    Args:
      reference: [h w 3] float32 RGB in [0, 1].
      targets: [n h w 3] float32 RGB in [0, 1].
      progress: to be called as (done, total) targets from time to time.

    Returns:
      The displacement [n h w 2] (dx, dy) of each of the reference's pixels, pixels, and a confidence [n h w] in [0, 1].
    """
    ...


@dataclasses.dataclass(frozen=True)
class VariationalFlow:
  """`estimate_flow` under certain settings, as a `FlowEstimator`."""

  name: str
  settings: FlowSettings

  @property
  def version(self) -> str:
    """Digest of the settings and of `FLOW_VERSION`."""
    return digest([FLOW_VERSION, dataclasses.asdict(self.settings)])

  def __call__(self, reference, targets, *, progress=None):
    """See `FlowEstimator`: [h w 3] and [n h w 3] to [n h w 2] and [n h w]."""
    return estimate_flow(reference, targets, settings=self.settings, progress=progress)


DEFAULT_FLOW = VariationalFlow("default", DEFAULT)
_BUILT_IN: dict[str, Any] = {"default": DEFAULT_FLOW, "reference": VariationalFlow("reference", REFERENCE)}


def find_estimator(name: str) -> FlowEstimator:
  """Looks up an estimator of flow.

  Args:
    name: "default", "reference" (the published settings), or "module:attribute" for any other.

  Raises:
    UserError: there is no such estimator, its module cannot be imported, or it is no `FlowEstimator`.
  """
  found = look_up(name, _BUILT_IN, what="flow")
  texts = isinstance(getattr(found, "name", None), str) and isinstance(getattr(found, "version", None), str)
  if isinstance(found, type) or not (callable(found) and texts):
    raise UserError(f"flow {name}: no FlowEstimator; give an object with name, version and a call, not a class")
  return cast(FlowEstimator, found)


def digest(value: object) -> str:
  """Short digest of anything that JSON can write."""
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
