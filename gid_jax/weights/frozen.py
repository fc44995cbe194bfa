"""Where the parameters of the frozen image networks come from, and how the package carries them."""

from pathlib import Path

from gid_jax.configuration import ModelSettings, WeightsSettings
from gid_jax.errors import UserError
from gid_jax.models.encoders import FROZEN_TRUNK, TRUNKS, name_trunk
from gid_jax.parsing import look_up
from gid_jax.types import Params
from gid_jax.weights.pretrained import (
  MOTION_WEIGHTS,
  TRUNK_WEIGHTS,
  export_weights,
  import_weights,
  load_pretrained,
)


def read_trunks(model: ModelSettings, paths: str) -> Params:
  """Parameters of every frozen network of a motion model's image encoder, under the names that the encoder gives them.

  Args:
    model: the motion model.
    paths: a file for each network with commas between, of the kind that the network reads; nothing between two commas,
      or nothing at all, takes a network out of the embedded weights.

  Raises:
    UserError: there are more or fewer files than networks, a file does not fit, or the embedded weights have no such
      network.
  """
  trunks = model.encoder.fields.get("trunks") or ()
  files = paths.split(",") if paths else [""] * len(trunks)
  if len(files) != len(trunks):
    raise UserError(
      f"config.init.encoder={paths!r}: give one file for each of {', '.join(trunks) or 'no networks'}, with commas "
      "between; nothing takes the embedded weights"
    )
  names = {kind: f"{FROZEN_TRUNK}_{name_trunk(kind)}" for kind in trunks}
  return {names[kind]: _read_trunk(kind, names[kind], path) for kind, path in zip(trunks, files, strict=True)}


def _read_trunk(kind: str, name: str, path: str) -> Params:
  if path:
    return look_up(kind, TRUNKS, what="image encoder").read(path)
  embedded = load_pretrained(MOTION_WEIGHTS)[0]["encoder"]
  if name not in embedded:
    raise UserError(f"the embedded weights hold no {kind}; name a file of it by --config.init.encoder=FILE")
  return embedded[name]


def embed(path: str | Path, folder: str | Path) -> None:
  """Splits exported motion weights into the two files that the package carries; those in `folder` are replaced.

  Args:
    path: from `gid export --motion`.
    folder: where to write `MOTION_WEIGHTS` and `TRUNK_WEIGHTS`.

  Raises:
    UserError: the weights hold no frozen image networks, which leaves the folder as it was, or see `import_weights`.
  """
  params, settings = import_weights(path)
  encoder = params.get("encoder", {})
  frozen = {name: part for name, part in encoder.items() if name.startswith(FROZEN_TRUNK)}
  if not frozen:
    raise UserError(f"{path} holds no frozen image networks; give what gid export --motion wrote")
  rest = {name: part for name, part in encoder.items() if name not in frozen}
  # First, so that motion weights without networks never lie beside none.
  described = WeightsSettings("encoder", label=settings.label)
  export_weights(Path(folder) / TRUNK_WEIGHTS, {"encoder": frozen}, settings=described)
  export_weights(Path(folder) / MOTION_WEIGHTS, params | {"encoder": rest}, settings=settings)
