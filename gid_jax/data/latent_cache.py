"""Latents of augmented training windows on disk: encoded once by the frozen auto-encoder, then only read.

A cache is the folder WORKDIR/latents. Draw d of window i is item i n + d of its source; the sources follow each other.
- `shard-00003-of-00010.npy`: some of the items, a structured array that memory-maps: `record`, the window's number;
  `image`, the augmented photo, uint8; `latents` of all K bands in float16, which errs by 0.0002 (rms) at unit scale.
- `building.json`: what the latents are made from. It is renamed to `manifest.json` when every shard is there: without a
  manifest nothing is read. A shard appears complete or not at all, so that an interrupted build goes on with the next.
"""

import functools
import hashlib
import itertools
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float16, UInt8
from rich.progress import track

from gid_jax import __version__
from gid_jax.configuration import DataSettings, ModelSettings, TrainSettings, expect_model
from gid_jax.data.augmentation import config_to_augmentation
from gid_jax.data.examples import Strengths, draw_window
from gid_jax.data.records import LIVE, Chain, list_datasets, open_chosen
from gid_jax.errors import UserError
from gid_jax.files import complete_or_nothing
from gid_jax.models.build import make_motion_model
from gid_jax.models.encoders import FROZEN_TRUNK
from gid_jax.parsing import to_plain
from gid_jax.types import Params

# Number, photo, raw slices and, where the model asks for it, strength of a window.
Drawn = tuple[int, np.ndarray, np.ndarray, np.float32 | None]
_MANIFEST, _BUILDING = "manifest.json", "building.json"
# Few enough to be open all at once, large enough to be written in one go.
_MAX_SHARDS, _MIN_SHARD_SIZE = 256, 16
_WINDOWS_A_DEVICE = 16  # encoded at once on an accelerator


class CachedWindow(NamedTuple):
  """One draw of a window.

  Attributes:
    number: of the window; see `records.Record`.
    image: [h w 3] uint8, augmented except for its colours.
    latents: [k h2 w2 z] float16, whitened, of all bands in order.
  """

  number: int
  image: UInt8[np.ndarray, "h w 3"]
  latents: Float16[np.ndarray, "k h2 w2 z"]


class LatentSource:
  """Random access to the cached draws of one source of windows."""

  def __init__(self, shards: Chain, *, start: int, stop: int):
    self._shards, self._start, self._stop = shards, start, stop

  def __len__(self) -> int:
    return self._stop - self._start

  def __getitem__(self, index: SupportsIndex) -> CachedWindow:
    item = self._shards[range(self._start, self._stop)[index]]
    return CachedWindow(int(item["record"]), np.array(item["image"]), np.array(item["latents"]))


def build_latent_cache(
  workdir: str | Path,
  config: TrainSettings,
  params: Params,
  *,
  process_index: int = 0,
  process_count: int = 1,
  synchronize: Callable[[str], Any] = multihost_utils.sync_global_devices,
) -> dict[str, LatentSource]:
  """Encodes the training windows, `config.data.latent_draws` times each, unless WORKDIR/latents has just these latents.

  Augmentation is that of the config, drawn anew for each draw of a window from `config.seed`; a cache that was made
  from another auto-encoder, other data or other settings is replaced, and one line tells of it.

  Args:
    workdir: the training run's folder; all processes must share it.
    config: the whole config of stage "ldm" or "ldm_coordinated".
    params: parameters, among them the auto-encoder's, the band scale, the whitening, and what tells the swing.
    process_index: this process encodes every `process_count`-th shard from this one on.
    process_count: of the run.
    synchronize: waits for all processes, at a point of this name.

  Returns:
    The cached draws by source.

  Raises:
    UserError: live scenes are asked for, the data does not fit, or there is not enough space on the disk.
  """
  directory, data = Path(workdir) / "latents", config.data
  sources = _open_sources(data)
  model = expect_model(ModelSettings, config)
  params = choose_encoder_params(model, params)
  fingerprint = _fingerprint(config, params, sources)
  counts = {name: data.latent_draws * len(source) for name, source in sources.items()}
  total = sum(counts.values())
  shard_size = max(_MIN_SHARD_SIZE, -(-total // _MAX_SHARDS))
  shards = [range(start, min(start + shard_size, total)) for start in range(0, total, shard_size)]
  paths = [directory / f"shard-{index:05d}-of-{len(shards):05d}.npy" for index in range(len(shards))]
  if process_index == 0:
    _prepare(directory, fingerprint, paths)
  synchronize("latents prepared")

  own = range(process_index, len(shards), process_count)
  missing = [(paths[index], shards[index]) for index in own if not paths[index].exists()]
  windows = Chain(list(sources.values()))
  ranges, strengths = config_to_augmentation(data.augmentation), Strengths(data.num_bands)

  def draw(item: int) -> Drawn:
    record, rng = windows[item // data.latent_draws], np.random.default_rng([config.seed, item])
    window, enlargement = draw_window(rng, record, np.arange(data.num_bands), config=data, ranges=ranges)
    strength = np.float32(strengths(record) * enlargement) if data.strength else None
    return record.number, window.image, window.spectrum, strength

  drawn = _prefetch(draw, itertools.chain.from_iterable(numbers for _, numbers in missing), data.num_threads)
  items = _encode_items(drawn, make_encoder(model, params))
  label = f"encoding {len(windows)} windows x {data.latent_draws}"
  left = sum(len(numbers) for _, numbers in missing)
  for path, numbers in track(missing, label, disable=process_index > 0 or not missing):
    _write_shard(path, itertools.islice(items, len(numbers)), len(numbers), left=left * process_count)
    left -= len(numbers)
  synchronize("latents encoded")
  if process_index == 0 and (directory / _BUILDING).exists():
    absent = [path for path in paths if not path.exists()]
    if absent:
      raise UserError(f"{absent[0]} is missing; give all processes the same --workdir on a disk that they share")
    os.replace(directory / _BUILDING, directory / _MANIFEST)
  synchronize("latents complete")

  chain = Chain([np.load(path, mmap_mode="r") for path in paths])
  ends = list(itertools.accumulate(counts.values()))
  return {name: LatentSource(chain, start=end - counts[name], stop=end) for name, end in zip(counts, ends, strict=True)}


def choose_encoder_params(settings: ModelSettings, params: Params) -> Params:
  """What of a motion model's parameters decides the latents, on the host: all but the denoiser and the trained layers.

  The frozen networks are among them where the codec reads their features.
  """
  model = make_motion_model(settings)
  chosen = {name: value for name, value in params.items() if name not in ("encoder", model.denoiser_name)}
  if model.make_codec().needs_photo:
    encoder = params["encoder"]
    chosen["encoder"] = {name: value for name, value in encoder.items() if name.startswith(FROZEN_TRUNK)}
  return jax.tree.map(_to_numpy, chosen)


def make_encoder(
  settings: ModelSettings, params: Params
) -> Callable[..., Float16[np.ndarray, "n k h2 w2 z"]]:
  """A function from (photos [n h w 3] uint8, raw slices of all bands [n k hm wm 4], strengths [n] or None) to latents.

  n is at most `count_together()`.
  """
  model = make_motion_model(settings)
  mesh = Mesh(np.array(jax.local_devices()), ("windows",))
  whole, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("windows"))
  params = jax.device_put(params, whole)

  @jax.jit
  def encode(params: Params, images: jax.Array, slices: jax.Array, strengths: jax.Array | None) -> jax.Array:
    apply = functools.partial(model.apply, {"params": params})
    height, width = (side // model.latent_factor for side in slices.shape[2:4])
    swing = apply(images.astype(jnp.float32) / 255, height=height, width=width, method="predict_swing")
    bands = jnp.broadcast_to(jnp.arange(slices.shape[1]), slices.shape[:2])
    latents: Any = apply(slices, bands, swing=swing, strength=strengths, method="slices_to_latents")
    return latents.astype(jnp.float16)

  def encode_group(images: np.ndarray, slices: np.ndarray, strengths: np.ndarray | None) -> np.ndarray:
    # Always as many: one program, whatever is left over at the end.
    num_missing = count_together() - len(slices)
    pad = lambda array: np.concatenate([array, np.repeat(array[-1:], num_missing, axis=0)])
    padded = jax.device_put((pad(images), pad(slices), None if strengths is None else pad(strengths)), split)
    return np.asarray(encode(params, *padded))[: len(slices)]

  return encode_group


def count_together() -> int:
  """How many windows this process encodes at once: one a CPU device, whose memory is small, and more on others."""
  devices = jax.local_devices()
  return len(devices) * (1 if devices[0].platform == "cpu" else _WINDOWS_A_DEVICE)


def _open_sources(data: DataSettings) -> dict[str, Chain]:
  if not data.directory or data.sources.get(LIVE, 0) > 0:
    raise UserError(
      f"config.data.latent_draws={data.latent_draws}, but live scenes never come again, so there is nothing to keep; "
      f"build some (python -m data_pipeline.builder --synthetic N) or give --config.data.latent_draws=0"
    )
  return open_chosen(data, split="train")


def _to_numpy(leaf: Any) -> np.ndarray:
  """The whole of an array that may be cut over the devices of several processes."""
  if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
  return np.asarray(leaf)


def _fingerprint(config: TrainSettings, params: Params, sources: Mapping[str, Chain]) -> dict[str, Any]:
  """Everything that decides the latents, as JSON values; the names stand in the line that tells why all is redone."""
  data = config.data
  settings = {name: value for name, value in to_plain(config.model).items() if name not in ("encoder", "denoiser")}
  weights = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
  for path, leaf in sorted(jax.tree_util.tree_leaves_with_path(params), key=lambda item: str(item[0])):
    weights.update(f"{path} {leaf.dtype} {leaf.shape}".encode() + leaf.tobytes())
  files = [
    (path.name, path.stat().st_size, path.stat().st_mtime_ns)
    for dataset in list_datasets(sources)
    for path in sorted(Path(dataset.folder).iterdir())
  ]
  fingerprint = {
    "release": __version__,
    "auto-encoder": weights.hexdigest(),
    "data": hashlib.sha256(json.dumps(files).encode()).hexdigest(),
    "sources": {name: len(source) for name, source in sources.items()},
    "augmentation": config_to_augmentation(data.augmentation)._replace(jitter=0.0)._asdict(),
    **{name: getattr(data, name) for name in ("num_bands", "motion_stride", "crop", "latent_draws")},
    "seed": config.seed,
  }
  return json.loads(json.dumps(fingerprint))


def _prepare(directory: Path, fingerprint: Mapping[str, Any], paths: Sequence[Path]) -> None:
  """Leaves only complete shards of these latents, and "building.json" unless all of them are there."""
  directory.mkdir(parents=True, exist_ok=True)
  for leftover in directory.glob(".gid-*"):
    leftover.unlink()
  found = [_read_json(directory / name) for name in (_MANIFEST, _BUILDING)]
  if fingerprint not in found:
    for before in filter(None, found):
      changed = [name for name in fingerprint if before.get(name) != fingerprint[name]]
      print(f"{directory}: made with another {', '.join(changed)}; encoding again", flush=True)
    for old in (*directory.glob("*.json"), *directory.glob("shard-*.npy")):
      old.unlink()
  for path in paths:
    if path.exists() and not _is_readable(path):
      path.unlink()
  if found[0] == fingerprint and all(path.exists() for path in paths):
    return
  with complete_or_nothing(directory / _BUILDING, overwrite=True) as temporary:
    temporary.write_text(json.dumps(fingerprint, indent=2) + "\n")
  (directory / _MANIFEST).unlink(missing_ok=True)


def _read_json(path: Path) -> dict[str, Any] | None:
  try:
    return json.loads(path.read_text())
  except (OSError, ValueError):
    return None


def _is_readable(path: Path) -> bool:
  try:
    return len(np.load(path, mmap_mode="r")) > 0
  except (OSError, ValueError, EOFError):  # a file cut short
    return False


def _prefetch(function: Callable[[int], Any], items: Iterable[int], num_threads: int) -> Iterator[Any]:
  """The function's results in order, a few made ahead by threads."""
  with ThreadPoolExecutor(max(num_threads, 1)) as pool:
    pending: deque = deque()
    for item in items:
      pending.append(pool.submit(function, item))
      if len(pending) > 2 * num_threads:
        yield pending.popleft().result()
    while pending:
      yield pending.popleft().result()


def _encode_items(
  drawn: Iterator[Drawn], encode: Callable[..., np.ndarray]
) -> Iterator[np.ndarray]:
  """Elements of a shard, [] each, of drawn windows."""
  dtype = np.dtype([])
  while group := list(itertools.islice(drawn, count_together())):
    numbers, images, spectra, strengths = zip(*group, strict=True)
    if {image.shape for image in images} != {dtype["image"].shape if dtype.names else images[0].shape}:
      raise UserError("the data holds windows of several sizes; cut them alike with config.data.crop")
    latents = encode(np.stack(images), np.stack(spectra), None if strengths[0] is None else np.stack(strengths))
    if not np.isfinite(latents).all():
      raise UserError(f"latents of windows {list(numbers)} are not finite; train the auto-encoder again")
    if not dtype.names:
      shapes = images[0].shape, latents.shape[1:]
      dtype = np.dtype([("record", np.int32), ("image", np.uint8, shapes[0]), ("latents", np.float16, shapes[1])])
    for item in zip(numbers, images, latents, strict=True):
      yield np.array(item, dtype)


def _write_shard(path: Path, items: Iterator[np.ndarray], length: int, *, left: int) -> None:
  """Writes a shard of `length` items, when the disk has space for this and what is left to write after it."""
  try:
    with complete_or_nothing(path, overwrite=True) as temporary, open(temporary, "wb") as file:
      for index, item in enumerate(_carry_failures(items)):
        if index == 0:
          needed, free = left * item.nbytes, shutil.disk_usage(path.parent).free
          if free < needed:
            raise UserError(f"{path}: latents need {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free")
          header = dict(descr=np.lib.format.dtype_to_descr(item.dtype), fortran_order=False, shape=(length,))
          np.lib.format.write_array_header_1_0(file, header)
        file.write(item.tobytes())
  except UserError as error:
    raise UserError(f"{error}; free some space or lower config.data.latent_draws") from error
  except _UnmadeError as error:
    raise error.reason from error.reason.__cause__


class _UnmadeError(Exception):
  """Why an item could not be made: not to be taken for a failure to write it."""

  def __init__(self, reason: Exception):
    super().__init__(str(reason))
    self.reason = reason


def _carry_failures(items: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
  try:
    yield from items
  except (UserError, OSError) as error:
    raise _UnmadeError(error) from error
