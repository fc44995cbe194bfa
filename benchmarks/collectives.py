"""The messages between devices in a compiled program."""

import math
import re
from typing import NamedTuple


class Collective(NamedTuple):
  """One message between the devices in a compiled program.

  Attributes:
    kind: "all-reduce", "all-gather", "reduce-scatter", "all-to-all" or "collective-permute".
    num_bytes: size of its result on one device.
    source: the operation that it was made for, such as "jit(train_step)/…/conv1/conv_general_dilated".
  """

  kind: str
  num_bytes: int
  source: str


_COLLECTIVE = re.compile(
  r"= (?P<shapes>\S.*?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
_SHAPE = re.compile(r"\b(?:pred|[a-z]+(?P<bits>\d+)\w*)\[(?P<sizes>[\d,]*)\]")


def list_collectives(program: str) -> list[Collective]:
  """The collectives in a compiled program's text, `jax.jit(f).lower(...).compile().as_text()`.

  One inside a loop is listed once, however often the loop runs. Sizes are right for programs of a CPU, where they are
  synchronous; on an accelerator the start of an asynchronous one names its operands too.
  """
  collectives = []
  for line in program.splitlines():
    match = _COLLECTIVE.search(line)
    if match:
      source = re.search(r'op_name="([^"]*)"', line)
      num_bytes = sum(
        max(int(shape["bits"] or 8), 8) // 8 * math.prod(int(size) for size in shape["sizes"].split(",") if size)
        for shape in _SHAPE.finditer(match["shapes"])
      )
      collectives.append(Collective(match["kind"], num_bytes, source[1] if source else ""))
  return collectives
