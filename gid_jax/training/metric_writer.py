"""Training metrics as JSON lines and PNG files, with the method names of `clu.metric_writers`."""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np

from gid_jax.errors import UserError
from gid_jax.files import complete_or_nothing


class MetricWriter:
  """Appends scalars to `WORKDIR/metrics.jsonl` and writes images under `WORKDIR/images`.

  Only the first process of a run writes. Each line is `{"step": int, NAME: number, …}`.
  """

  def __init__(self, workdir: str | Path, *, tensorboard: bool = False):
    """Opens the writer.

    Args:
      workdir: the training run's folder; made when missing.
      tensorboard: also write TensorBoard event files into it, through clu.

    Raises:
      UserError: TensorBoard is asked for but not installed.
    """
    self._workdir = Path(workdir)
    self._path = self._workdir / "metrics.jsonl"
    self._active = jax.process_index() == 0
    self._file = None
    self._tensorboard: Any = None
    if not self._active:
      return
    self._workdir.mkdir(parents=True, exist_ok=True)
    if tensorboard:
      try:
        from clu import metric_writers
      except ImportError as error:
        raise UserError(
          f"tensorboard=True needs TensorFlow ({error}); pip install '.[tensorboard]'"
        ) from error
      # Left alone, TensorFlow takes the memory of the device that JAX trains on.
      importlib.import_module("tensorflow").config.set_visible_devices([], "GPU")
      self._tensorboard = metric_writers.SummaryWriter(str(self._workdir))

  def truncate_after(self, step: int) -> None:
    """Drops lines later than `step`, and broken ones, so that a resumed run writes none twice."""
    if not self._active or not self._path.exists():
      return
    self._close_file()
    kept = [line for line in self._path.read_text().splitlines() if _step_of(line) <= step]
    with complete_or_nothing(self._path, overwrite=True) as temporary:
      temporary.write_text("".join(line + "\n" for line in kept))

  def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Writes one line of numbers (Python, NumPy or JAX scalars); not-finite ones as NaN or Infinity."""
    if not self._active:
      return
    values = {name: float(value) for name, value in scalars.items()}
    if self._file is None:
      self._file = self._path.open("a", buffering=1)  # a line at a time, so that a run can be watched
    self._file.write(json.dumps({"step": int(step), **values}) + "\n")
    if self._tensorboard is not None:
      self._tensorboard.write_scalars(step, values)

  def write_images(self, step: int, images: Mapping[str, Any]) -> None:
    """Writes each batch of images side by side as `images/NAME-STEP.png`.

    Args:
      step: the step.
      images: name -> [b h w 3] or [b h w 1], float in [0, 1] (clipped) or uint8, RGB.

    Raises:
      UserError: a PNG file cannot be written.
    """
    if not self._active:
      return
    for name, batch in images.items():
      batch = np.asarray(batch)
      if batch.dtype != np.uint8:
        batch = (np.clip(np.nan_to_num(batch.astype(np.float32)), 0, 1) * 255 + 0.5).astype(np.uint8)
      row = np.concatenate(list(batch), axis=1)
      path = self._workdir / "images" / f"{name.replace('/', '-')}-{step:08d}.png"
      path.parent.mkdir(parents=True, exist_ok=True)
      _, encoded = cv2.imencode(".png", row[..., ::-1])
      with complete_or_nothing(path, overwrite=True) as temporary:
        temporary.write_bytes(encoded.tobytes())
    if self._tensorboard is not None:
      self._tensorboard.write_images(step, images)

  def flush(self) -> None:
    """Puts what was written on disk."""
    if self._file is not None:
      self._file.flush()
    if self._tensorboard is not None:
      self._tensorboard.flush()

  def close(self) -> None:
    """Flushes and closes the files; writing again opens them again."""
    self._close_file()
    if self._tensorboard is not None:
      self._tensorboard.close()

  def _close_file(self) -> None:
    if self._file is not None:
      self._file.close()
      self._file = None


def _step_of(line: str) -> float:
  try:
    return json.loads(line)["step"]
  except (ValueError, KeyError, TypeError):
    return float("inf")  # the half line of a killed run
