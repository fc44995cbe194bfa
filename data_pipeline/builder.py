"""Builds a training data set from clips, seamless loops and simulated scenes, on Apache Beam.

  python -m data_pipeline.builder --output windows --clips clips --loops loops --synthetic 700 --num_workers 8

writes `gid_windows/SOURCE/1.0.0/` for each source given (`real`, `loop`, `synthetic`): a TensorFlow Datasets folder of
array_record files, read without TensorFlow, split by scene so that no scene is in both `train` and `validation`.
Beside it lie `statistics.json` with the scale of every band, `rejected.jsonl` with every clip and window that was left
out and why, `records.jsonl` with what became of every clip, and `cache/` with the windows of every finished clip.

A worker uses one core, so give as many as there are. A build that was killed goes on after the last finished clip and
ends with the same data set; so does one with another number of workers. Clips made with other options or changed since
are made again, and sources not named keep what they have. `cache/` may be deleted to halve the space: the data set
stays, and a later build with other clips or options begins from nothing. Errors end with status 2.

Any Beam runner makes the windows when its flags follow `--`. The folders must be at the same path on all its machines,
for example on a network file system, and this checkout must be on their PYTHONPATH. On a Flink cluster:

  python -m data_pipeline.builder --output /shared/windows --clips /shared/clips -- \
    --runner=FlinkRunner --flink_master=flink:8081 --parallelism=64 \
    --environment_type=DOCKER --environment_config=registry/gid-jax-worker
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from data_pipeline.trajectories import FILTER_RULES
from gid_jax.errors import UserError
from gid_jax.extras import missing_extra
from gid_jax.files import blame_machine


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
  """Parses the command line of the builder."""

  def names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]

  parser = argparse.ArgumentParser(prog="python -m data_pipeline.builder", description="Build a training data set.")
  parser.add_argument("--output", required=True, help="folder of the data set")
  parser.add_argument("--clips", default="", help="folder of filmed clips, with an optional table <folder>.csv")
  parser.add_argument("--loops", default="", help="folder of seamless loops, likewise")
  parser.add_argument("--synthetic", type=int, default=0, help="number of simulated scenes")
  parser.add_argument("--backgrounds", default="", help="folder of photos behind simulated scenes")
  parser.add_argument("--sprites", default="", help="folder of cut-outs with alpha for simulated scenes")
  parser.add_argument("--held_out_scenes", type=names, help="validation scenes a,b,c; a tenth by default, empty: none")
  parser.add_argument("--exclude", type=names, default=[], help="scenes or file stems to leave out")
  parser.add_argument("--minor", type=names, default=[], help="scenes of which to keep at most 2 windows a clip")
  parser.add_argument("--rule", choices=list(FILTER_RULES), default="main", help="filter rule that decides")
  parser.add_argument("--flow", default="default", help="default, reference, or module:attribute for another")
  parser.add_argument("--stride", type=int, default=10, help="frames between the starts of a clip's windows")
  parser.add_argument("--max_windows", type=int, default=8, help="windows a clip")
  parser.add_argument("--num_frames", type=int, default=150)
  parser.add_argument("--fps", type=float, default=30.0)
  parser.add_argument("--height", type=int, default=160)
  parser.add_argument("--width", type=int, default=256)
  parser.add_argument("--num_bands", type=int, default=16)
  parser.add_argument("--num_pairs", type=int, default=6)
  parser.add_argument("--motion_stride", type=int, choices=(1, 2), default=2, help="pixels from one motion to the next")
  parser.add_argument("--percentile", type=float, default=95.0, help="of the normalisation scale")
  parser.add_argument("--num_workers", type=int, default=2, help="processes, one core each; 0: in this one")
  parser.add_argument("beam_options", nargs="*", help="after --: flags of Apache Beam, for any other runner")
  options = parser.parse_args(arguments)
  if options.beam_options and not options.beam_options[0].startswith("--"):
    parser.error(f"unrecognised argument {options.beam_options[0]!r}; flags for Apache Beam go after --")
  return options


def main(arguments: Sequence[str] | None = None) -> None:
  """Entry point of `python -m data_pipeline.builder`; a `UserError` or a missing library: one line and status 2."""
  options = parse_options(arguments)
  try:
    import apache_beam  # noqa: F401 (or an hour may pass until it is missed)

    from data_pipeline.building import build
  except ModuleNotFoundError as error:
    raise missing_extra(error, "data", module="__main__") from error
  try:
    build(options)
  except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2) from None
  except Exception as error:
    line = blame_machine(error)
    if line is None:
      raise
    print(f"error: {line}; the same command goes on where it was", file=sys.stderr)
    raise SystemExit(2) from None


if __name__ == "__main__":
  # One core a worker, so that workers do not fight and give the same numbers however many there are.
  os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
  for noisy in ("apache_beam", "absl", "root"):
    logging.getLogger(noisy).setLevel(logging.ERROR)
  main()
