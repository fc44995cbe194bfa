"""Writes finished tasks as a TensorFlow Datasets folder, the same bytes whoever writes it."""

import contextlib
import io
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from tensorflow_datasets.core import registered
from tensorflow_datasets.core.writer import ExampleWriter
from tensorflow_datasets.proto import tf_example_pb2

from data_pipeline.splits import SPLITS
from data_pipeline.tasks import SOURCES, read_examples
from gid_jax.data.storage import DATASET_NAME, DATASET_VERSION, make_features


class OrderedWriter(ExampleWriter):
  """Writes each record with its features in order: by default every process serialises them in an order of its own."""

  def write(self, path: Any, examples: Any) -> Any:
    """Writes (key, record) pairs to one file of the data set."""
    message: Any = tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue] - made by protobuf at run time
    order = lambda record: message.FromString(record).SerializeToString(deterministic=True)
    return super().write(path, ((key, order(record)) for key, record in examples))


with registered.skip_registration():

  class GidWindows(tfds.core.GeneratorBasedBuilder):
    """TensorFlow Datasets builder of one source, from the files of its finished tasks.

    Attributes:
      files: split -> files that hold its windows.
      on_beam: whether Beam writes the records, or this process.
    """

    name = DATASET_NAME
    VERSION = tfds.core.Version(DATASET_VERSION)
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=source) for source in SOURCES]
    url_infos: ClassVar = {}  # Nothing is downloaded.

    def __init__(self, *, files: Mapping[str, Sequence[str]], on_beam: bool, **options: Any):
      self.files, self.on_beam = files, on_beam
      super().__init__(file_format="array_record", **options)

    def _info(self) -> tfds.core.DatasetInfo:
      return tfds.core.DatasetInfo(builder=self, features=make_features())

    def _example_writer(self) -> ExampleWriter:
      file_format = self.info.file_format
      assert file_format is not None
      return OrderedWriter(file_format)

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
      return {split: self._generate_examples(files) for split, files in self.files.items()}

    def _generate_examples(self, files: Sequence[str]) -> Any:
      if self.on_beam:
        import apache_beam as beam

        return beam.Create(files) | beam.Reshuffle() | beam.FlatMap(read_examples)
      # Beam's local runner would hold a whole split in memory; this way it is sorted on disk, to the same records.
      return (pair for file in files for pair in read_examples(file))


def write_source(
  output: str | Path, source: str, finished: Sequence[tuple[str, str]], *, beam_options: Sequence[str] = ()
) -> None:
  """Writes the data set of one source beside the old one, then puts it in its place.

  Args:
    output: folder of the data set.
    source: one of `SOURCES`.
    finished: (split, file of a finished task) pairs, only such with windows; with none, the source is taken away.
    beam_options: flags of the Beam runner that writes; without any, this process does.
  """
  output = Path(output)
  target, building = output / DATASET_NAME / source, output / "building"
  shutil.rmtree(building, ignore_errors=True)
  building.mkdir()
  if finished:
    files = {split: [file for its_split, file in finished if its_split == split] for split in SPLITS}
    download: dict[str, Any] = {"compute_stats": tfds.download.ComputeStatsMode.SKIP}
    if beam_options:
      from apache_beam.options.pipeline_options import PipelineOptions

      download["beam_options"] = PipelineOptions(list(beam_options))
    builder = GidWindows(
      files={split: names for split, names in files.items() if names},
      on_beam=bool(beam_options),
      config=source,
      data_dir=str(building),
    )
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
      builder.download_and_prepare(download_config=tfds.download.DownloadConfig(**download))
  # Moved before it is deleted: a data set is there whole or not at all.
  if target.exists():
    os.replace(target, building / "old")
  if finished:
    target.parent.mkdir(exist_ok=True)
    os.replace(building / DATASET_NAME / source, target)
  shutil.rmtree(building)
