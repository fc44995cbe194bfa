"""Feeds changed files to one reader for as long as you like: `test_reader_fuzz.py` does it for seconds.

  PYTHONPATH=. python tests/fuzz.py --reader clips --minutes 10
  PYTHONPATH=. python tests/fuzz.py --reader all --minutes 60

Whatever the bytes, a reader gives something sound or refuses in one line. Anything else ends the run, with the smallest
example that Hypothesis finds. Printed at the end: how often something was read, and how often refused.
"""

import argparse
import collections
import copy
import shutil
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import test_checkpoint
import test_reader_fuzz
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from test_bundle import make_bundle
from test_weight_files import SETTINGS, make_params

from configs import evaluation, ldm, ldm_coordinated, renderer, vae
from gid_jax.bundle import load_bundle, save_bundle
from gid_jax.configuration import EvaluationSettings, TrainSettings
from gid_jax.errors import UserError
from gid_jax.media import clips, photos, shots
from gid_jax.parsing import parse
from gid_jax.training.settings import check_settings
from gid_jax.weights.checkpoint import CheckpointStore, restore_params
from gid_jax.weights.convert import read_tensors
from gid_jax.weights.pretrained import export_weights, import_weights

ROUND = 50  # examples between two looks at the clock


class Refusals:
  """Counts files and what was said about them."""

  def __init__(self):
    self.counts = collections.Counter()

  def read(self, read, *arguments):
    """Reads one file; its result, or None where it was refused."""
    self.counts["read"] += 1
    try:
      with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read(*arguments)
    except UserError as error:
      self.counts["refused"] += 1
      assert str(error) and "\n" not in str(error), str(error)
      return None


def fuzz_images(folder, refusals, draw):
  kind = draw(st.sampled_from(list(test_reader_fuzz.STILLS)))
  path = folder / "photo"
  path.write_bytes(draw(test_reader_fuzz.changes())(test_reader_fuzz.make_still(kind)))
  image = refusals.read(lambda: photos.read_image(path, warn=lambda line: None))
  assert image is None or (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1)


def fuzz_clips(folder, refusals, draw):
  name = draw(st.sampled_from(test_reader_fuzz.CLIPS))
  path = folder / name
  path.write_bytes(draw(test_reader_fuzz.changes())(test_reader_fuzz.make_clip(folder, name)))
  refusals.read(clips.read_clip, path)
  refusals.read(lambda: shots.read_shot(path, size=lambda height, width: (24, 32), warn=lambda line: None))


def fuzz_bundles(folder, refusals, draw):
  good, path = folder / "good.gid", folder / "changed.gid"
  if not good.exists():
    save_bundle(good, make_bundle())
  path.write_bytes(draw(test_reader_fuzz.changes())(good.read_bytes()))
  bundle = refusals.read(load_bundle, path)
  assert bundle is None or np.isfinite(bundle.spectrum.coefficients).all()


def fuzz_weights(folder, refusals, draw):
  good, path = folder / "good.safetensors", folder / "changed.safetensors"
  if not good.exists():
    export_weights(good, make_params(), settings=SETTINGS)
  path.write_bytes(draw(test_reader_fuzz.changes())(good.read_bytes()))
  refusals.read(import_weights, path)
  refusals.read(read_tensors, path)  # the same bytes as PyTorch's: no checksum stands before these


def fuzz_checkpoints(folder, refusals, draw):
  good, changed = folder / "good", folder / "changed"
  if not good.exists():
    test_checkpoint.save_steps(good / "checkpoints", [1])
  files = test_checkpoint.list_files(good)
  shutil.rmtree(changed, ignore_errors=True)
  shutil.copytree(good, changed)
  path = changed / draw(st.sampled_from(files))
  path.write_bytes(draw(test_reader_fuzz.changes())(path.read_bytes()))
  refusals.read(restore_params, changed)
  store = CheckpointStore(changed / "checkpoints")
  found = refusals.read(store.restore_latest, test_checkpoint.make_state(0.0), test_checkpoint.Counter())
  store.close()
  assert found is None or found[0] == 1


CONFIGS = [(TrainSettings, module) for module in (vae, ldm, ldm_coordinated, renderer)]
CONFIGS += [(EvaluationSettings, evaluation)]
VALUES = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
  lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
  max_leaves=4,
)


def fuzz_configs(folder, refusals, draw):
  kind, module = draw(st.sampled_from(CONFIGS))
  values = copy.deepcopy(module.get_config().to_dict())
  place = values
  while True:
    name = draw(st.sampled_from(sorted(place)))
    if not (isinstance(place[name], dict) and place[name] and draw(st.booleans())):
      break
    place = place[name]
  change = draw(st.sampled_from(["value", "removed", "added"]))
  if change == "removed":
    del place[name]
  else:
    place[name if change == "value" else draw(st.text(max_size=8))] = draw(VALUES)
  found = refusals.read(parse, kind, values)
  if isinstance(found, TrainSettings):
    refusals.read(check_settings, found)


READERS = {
  "images": fuzz_images,
  "clips": fuzz_clips,
  "bundles": fuzz_bundles,
  "weights": fuzz_weights,
  "checkpoints": fuzz_checkpoints,
  "configs": fuzz_configs,
}


def fuzz(reader, seconds, *, first_seed=0):
  """Feeds a reader for so many seconds of processor time; the counts, and the seed of the next round."""
  refusals, end, number = Refusals(), time.process_time() + seconds, first_seed
  with tempfile.TemporaryDirectory() as name:
    while time.process_time() < end:
      @seed(number)
      @settings(
        max_examples=ROUND, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink))  # fmt: skip
      @given(st.data())
      def run(data):
        READERS[reader](Path(name), refusals, data.draw)

      run()
      number += 1
  return refusals.counts, number


def main():
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument("--reader", choices=[*READERS, "all"], default="all", help="what to feed; all: one after another")
  parser.add_argument("--minutes", type=float, default=10, help="of processor time, for all readers together")
  parser.add_argument("--seed", type=int, default=0, help="of the first round; another one, other files")
  arguments = parser.parse_args()
  readers = list(READERS) if arguments.reader == "all" else [arguments.reader]
  for reader in readers:
    counts, next_seed = fuzz(reader, 60 * arguments.minutes / len(readers), first_seed=arguments.seed)
    print(f"{reader}: {counts['read']} read, {counts['refused']} of them refused; next --seed {next_seed}", flush=True)


if __name__ == "__main__":
  main()
