"""`gid animate` and `gid loop`: one input, many, or a folder that is watched; see `gid_jax.app.moving` for each.

Heavy modules are imported inside functions, when all that can be refused has been refused.
"""

import gc
import importlib.util
import os
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from gid_jax.app.batch import is_batch, make_folder, names_new_folder, split_batch
from gid_jax.app.checks import DEMO_PHOTO, check_motion, check_values
from gid_jax.app.console import Log, Terminated, describe, make_printable
from gid_jax.app.models import Models
from gid_jax.app.moving import Job, carry_out
from gid_jax.app.options import LoopRequest, MotionRequest
from gid_jax.app.outputs import PIPE
from gid_jax.app.pipes import open_source, open_target
from gid_jax.app.streams import OutputError
from gid_jax.app.watch import split_watched, wait_for_pictures
from gid_jax.errors import UserError


def animate(request: MotionRequest) -> int:
  """Carries out `gid animate` or `gid loop`.

  Args:
    request: the options.

  Returns:
    The exit status: 0, or 2 when some of several sources failed.

  Raises:
    UserError: an option out of range, an unreadable photo or video, or an unwritable output.
  """
  if isinstance(request, LoopRequest) and request.report is not None and not importlib.util.find_spec("matplotlib"):
    raise UserError("--report draws with matplotlib; install it with: pip install '.[plots]'")
  gc.disable()  # until all is imported: modules stay, and to look through them for cycles takes a fifth of a second
  try:
    return _animate(request, Models(request.weights))
  finally:
    gc.enable()


def _animate(request: MotionRequest, models: Models) -> int:
  if request.watch is not None:
    split_watched(request, [])  # refuses what it can before the first picture is there
    pictures = ((split_watched(request, [path])[0], None) for path in wait_for_pictures(request.watch))
    return _animate_many(pictures, models, is_json=request.json, is_endless=True)
  if is_batch(request):
    batch = split_batch(request)
    sources = [one.sources[0] for one in batch]
    pairs = zip(batch, [*sources[1:], None], strict=True)
    return _animate_many(pairs, models, is_json=request.json, inputs={os.path.realpath(source) for source in sources})
  try:
    if request.output is not None and names_new_folder(request):
      check_values(request)
      make_folder(request.output)
    _animate_one(request, models)
  except Exception as error:
    source = request.sources[0] if request.sources else DEMO_PHOTO
    Log(is_json=request.json).end(source, error=describe(error))
    raise
  return 0


def _animate_one(request: MotionRequest, models: Models, following: Path | None = None) -> Path:
  source, target = check_motion(request)
  if target.path == PIPE and request.json:
    raise UserError("--json and --output -: standard output is for one of them")
  log = Log(is_json=request.json, is_quiet=target.path == PIPE)
  with open_source(source) as file, open_target(target, overwrite=request.force) as path:
    try:
      carry_out(Job(request, file, str(source), target, path, models, log, following))
    except (KeyboardInterrupt, Terminated) as end:
      if log.written:
        raise type(end)(make_printable(f"written before: {', '.join(map(str, log.written))}")) from None
      raise
  return path


def _animate_many(
  requests: Iterable[tuple[MotionRequest, Path | None]],
  models: Models,
  *,
  is_json: bool,
  is_endless: bool = False,
  inputs: Collection[str] = (),
) -> int:
  done, failed = 0, []
  written: dict[Path, Path] = {}  # and their sources; of few bytes each
  try:
    for one, following in requests:
      source = one.sources[0]
      try:
        if os.path.isdir(source):
          if not os.access(source, os.R_OK | os.X_OK):
            raise UserError(f"cannot read {source}: permission denied")
          raise UserError(f"{source} holds no photos; give files, or a folder of them")
        if one.force:
          _, target = check_motion(one)
          if os.path.realpath(target.path) in inputs:
            raise UserError(f"{target.path} is an input itself; choose another --output")
          # Watched pictures may come again under their old name.
          if written.get(target.path, source) != source:
            raise UserError(f"{target.path} is already that of {written[target.path]}; rename one of them")
        written[_animate_one(one, models, following)] = source
        done += 1
      except (BrokenPipeError, OutputError):  # no other would be heard of either
        raise
      except Exception as error:
        if os.environ.get("GID_TRACEBACK") and not isinstance(error, UserError):
          raise
        reason = describe(error)
        name = make_printable(str(source))
        named = "" if name in reason else f"{name}: "
        print(f"gid: error: {named}{reason}", file=sys.stderr)
        Log(is_json=is_json).end(source, error=reason)
        failed.append(str(source))
  except (KeyboardInterrupt, Terminated) as end:
    if not is_endless:
      raise type(end)(_summarise(done, failed)) from None
  print(_summarise(done, failed), file=sys.stderr if is_json else sys.stdout)
  return 2 if failed else 0


def _summarise(done: int, failed: list[str]) -> str:
  named = ", ".join(failed[:5]) + (f" and {len(failed) - 5} more" if len(failed) > 5 else "")
  return make_printable(f"{done} animated, {len(failed)} failed" + (f": {named}" if failed else ""))
