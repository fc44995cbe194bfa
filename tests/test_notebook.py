"""The notebook, run from its first cell to its last, its forms filled with small numbers.

Fine-tuning compiles a training step for minutes; GID_NOTEBOOK_TRAIN=1 runs it too.
"""

import os
import re
import sys
import sysconfig
from pathlib import Path

import helpers
import nbclient
import nbformat
import pytest

from gid_jax.devices import count_cores

CHECKOUT = Path(__file__).parents[1]
NOTEBOOK = CHECKOUT / "colab" / "gid_demo.ipynb"
FORMS = dict(
  photo_file='"gid_jax/pretrained/photo.jpg"',
  size="96",
  frames="6",
  clip_frames="12",
  short_side="64",
  fine_tune=str("GID_NOTEBOOK_TRAIN" in os.environ),
  steps="2",
  batch_size="1",
  builder_options='"--height 64 --width 96 --num_frames 32 --num_pairs 1 --max_windows 1"',
  training_options='"\'--config.model.image_size=(64,96)\' --config.model.num_frames=32"',
)


def read():
  return nbformat.read(NOTEBOOK, as_version=4)


def fill_forms(notebook, values):
  """Puts values where a line says `name = ... #@param`; all must be there."""
  left = dict(values)
  for cell in notebook.cells:
    for name in values:
      cell.source, number = re.subn(rf"^{name} = .*?(?=#@param)", f"{name} = {values[name]} ", cell.source, flags=re.M)
      if number:
        left.pop(name, None)
  assert not left, f"no form for {sorted(left)}"


def test_no_output_is_kept():
  for cell in read().cells:
    assert not cell.get("outputs") and cell.get("execution_count") is None


def test_every_code_cell_is_a_form():
  assert all("#@title" in cell.source for cell in read().cells if cell.cell_type == "code")


def test_only_public_names_are_imported():
  text = "\n".join(cell.source for cell in read().cells if cell.cell_type == "code")
  assert not re.search(r"(from|import) gid_jax\.", text)
  import gid_jax

  used = set(re.findall(r"\bgid\.(\w+)", text)) - {"__file__"}
  assert used <= set(gid_jax.__all__), used - set(gid_jax.__all__)


def test_runs_from_clean(tmp_path, monkeypatch):
  monkeypatch.setenv("PATH", f"{sysconfig.get_path('scripts')}{os.pathsep}{Path(sys.executable).parent}", prepend=":")
  monkeypatch.setenv("PYTHONPATH", str(CHECKOUT))
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
  monkeypatch.setenv("XLA_FLAGS", helpers.QUICK_XLA)
  # As many devices as the command makes: what the kernel compiled is kept for it.
  monkeypatch.setenv("JAX_NUM_CPU_DEVICES", str(count_cores()))
  monkeypatch.delenv("GID_CACHE")
  notebook = read()
  fill_forms(notebook, FORMS)
  client = nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}})
  try:
    client.execute()
  finally:
    said = "\n".join(str(output.get("text", "")) for cell in notebook.cells for output in cell.get("outputs", []))
    print(said)  # shown when a cell fails
  archive = re.search(r"^\S+gid_results\.zip$", said, re.M)
  assert archive and Path(archive.group(0)).stat().st_size > 1e5, said[-3000:]
  assert list(tmp_path.iterdir()) == []  # nothing is left where the user is


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path_factory, monkeypatch):
  """What the notebook makes goes when the test does."""
  monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("results")))
