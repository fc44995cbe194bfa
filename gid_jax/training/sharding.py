"""Where arrays live: the device mesh, the sharding of batches and parameters, and many-process start-up.

The mesh has two axes. A batch is split over both; parameters are whole on every device along "data" and, when
"fsdp" is wider than 1, cut along it while they rest. Everything else follows from `jax.jit` and these shardings.
"""

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gid_jax.errors import UserError

_AXES = ("data", "fsdp")

# Arrays below this many elements stay whole: cutting a bias costs more in messages than it saves in memory.
_MIN_SHARDED_SIZE = 2**16

# Launchers' own words for the number of processes, one variable each.
_PROCESS_COUNT_VARIABLES = ("JAX_NUM_PROCESSES", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")


def make_mesh(*, data: int = -1, fsdp: int = 1) -> Mesh:
  """Makes the device mesh with axes ("data", "fsdp").

  Args:
    data: devices along "data"; -1 takes all that `fsdp` leaves.
    fsdp: devices over which large parameters are cut.

  Raises:
    UserError: the sizes do not fit the devices, or leave some out that another process of the run owns.
  """
  num_devices = jax.device_count()
  if fsdp < 1 or (data < 1 and data != -1):
    raise UserError(f"mesh data={data}, fsdp={fsdp}: sizes must be positive, or data=-1 for all devices left")
  if data == -1:
    if num_devices % fsdp:
      raise UserError(f"mesh fsdp={fsdp} does not divide the {num_devices} devices; choose a divisor")
    data = num_devices // fsdp
  if data * fsdp > num_devices:
    raise UserError(f"mesh {data} x {fsdp} needs {data * fsdp} devices, there are {num_devices}; lower it")
  if data * fsdp < num_devices and jax.process_count() > 1:
    raise UserError(
      f"mesh {data} x {fsdp} leaves out some of the {num_devices} devices of {jax.process_count()} processes; "
      "use all of them, such as data=-1"
    )
  # Auto axes: with Explicit ones, the default of jax.make_mesh, scatters under vmap raise sharding errors.
  axis_types = (AxisType.Auto,) * len(_AXES)
  return jax.make_mesh((data, fsdp), _AXES, axis_types=axis_types, devices=jax.devices()[: data * fsdp])


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The sharding of a batch: its first axis over all devices."""
  return NamedSharding(mesh, PartitionSpec(_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
  """The sharding of an array that is whole on every device."""
  return NamedSharding(mesh, PartitionSpec())


def param_sharding(params: Any, mesh: Mesh) -> Any:
  """The shardings of a tree of parameters, gradients or optimizer moments.

  Args:
    params: pytree of arrays or `jax.ShapeDtypeStruct`.
    mesh: from `make_mesh`.

  Returns:
    The same tree of `NamedSharding`: with "fsdp" wider than 1, a large array is cut along the longest axis that
    divides evenly (the last of equals); every other array is whole everywhere.
  """
  width = mesh.shape["fsdp"]

  def shard(array):
    divisible = [axis for axis, size in enumerate(array.shape) if size % width == 0]
    if width == 1 or math.prod(array.shape) < _MIN_SHARDED_SIZE or not divisible:
      return replicated(mesh)
    longest = max(divisible, key=lambda axis: (array.shape[axis], axis))
    return NamedSharding(mesh, PartitionSpec(*[None] * longest, "fsdp"))

  return jax.tree.map(shard, params)


def init_params(init: Callable, *inputs: Any, batch: Mapping[str, Any]) -> Any:
  """The parameters of Flax's `init(*inputs)`, cut as they are made, as `param_sharding` says, where `batch` lies.

  No device ever holds all of them. The numbers are those of a single device: random bits do not depend on how they are
  cut. With a batch that is on no mesh, such as one of the host, the parameters are whole.
  """
  places = [getattr(array, "sharding", None) for array in batch.values()]
  meshes = [place.mesh for place in places if isinstance(place, NamedSharding) and isinstance(place.mesh, Mesh)]
  shardings = param_sharding(jax.eval_shape(init, *inputs), meshes[0]) if meshes else None
  return jax.jit(init, out_shardings=shardings)(*inputs)["params"]


def fetch(tree: Any) -> Any:
  """A tree of arrays as every process can read it alone; what is cut over several, all of them fetch together."""
  if jax.process_count() == 1:
    return tree

  def fetch_leaf(leaf):
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
      leaf = multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)

  return jax.tree.map(fetch_leaf, tree)


def with_whole_params(function: Callable, mesh: Mesh) -> Callable:
  """Makes a function (key, params, batch) gather cut parameters before it starts, for a mesh of `make_mesh`.

  Left to itself the partitioner lets a kernel cut along its channels cut the activations too, and then moves those,
  which are larger than any kernel. The gradients come back cut like the parameters, by the jitted step's out_shardings.
  """
  whole = replicated(mesh)

  def call(key, params, batch):
    return function(key, jax.lax.with_sharding_constraint(params, whole), batch)

  return call


def check_batch_size(batch_size: int, mesh: Mesh, *, accumulation_steps: int = 1) -> None:
  """Makes sure that every device gets an equal part of every microbatch.

  Raises:
    UserError: `accumulation_steps` is below 1, or the global batch does not divide by microbatches times devices.
  """
  if accumulation_steps < 1:
    raise UserError(f"config.accumulation_steps={accumulation_steps}; choose 1 or more")
  parts = accumulation_steps * mesh.size
  if batch_size % parts:
    raise UserError(
      f"config.batch_size={batch_size} does not divide over {mesh.size} devices x accumulation_steps="
      f"{accumulation_steps}; choose a multiple of {parts}"
    )


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """Puts this process's share of a batch on its devices as part of the global batch.

  Args:
    batch: arrays whose first axis is the batch; the global batch is all processes' shares in order.
    mesh: from `make_mesh`.

  Raises:
    UserError: the global batch does not divide over the devices.
  """
  sharding = batch_sharding(mesh)
  for name, array in batch.items():
    size = len(array) * jax.process_count()
    if size % mesh.size:
      raise UserError(f"batch {name!r} of {size} does not divide over {mesh.size} devices; choose a multiple")
  return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def maybe_initialize_distributed() -> bool:
  """Joins the other processes of a run when the environment names more than one; call before any other JAX.

  Slurm, Open MPI and Cloud TPU pods are recognised; without them set JAX_COORDINATOR_ADDRESS (host:port),
  JAX_NUM_PROCESSES and JAX_PROCESS_ID for every process.

  Returns:
    Whether `jax.distributed` was initialised.

  Raises:
    UserError: the variables are not numbers or incomplete.
  """
  counts = {name: os.environ[name] for name in _PROCESS_COUNT_VARIABLES if os.environ.get(name)}
  for name, value in counts.items():
    if not value.isdecimal():
      raise UserError(f"environment variable {name}={value!r} is not a number; correct or unset it")
  hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
  if len(hosts) <= 1 and not any(int(value) > 1 for value in counts.values()):
    return False
  if "JAX_NUM_PROCESSES" not in counts:
    jax.distributed.initialize()
    return True
  index = os.environ.get("JAX_PROCESS_ID", "")
  if not index.isdecimal() or not os.environ.get("JAX_COORDINATOR_ADDRESS"):
    raise UserError(
      "JAX_NUM_PROCESSES is set but JAX_PROCESS_ID or JAX_COORDINATOR_ADDRESS is not; set all three"
    )
  jax.distributed.initialize(num_processes=int(counts["JAX_NUM_PROCESSES"]), process_id=int(index))
  return True
