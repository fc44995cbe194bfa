"""Where the process of `gid` begins and ends: quietly, whatever it is at.

A program that is being compiled cannot be stopped, and Python ends badly around it. So the process ends by itself, when
everything that is to be kept is written.
"""

import contextlib
import os
import signal
import sys
from typing import NoReturn

from gid_jax.app.streams import prepare_streams


def run() -> NoReturn:
  """Runs the command line of the process and ends it with the exit status of `gid_jax.app.cli.main`."""
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until `main` listens there is nothing to tidy up, nor to say
  prepare_streams()
  from gid_jax.app.cli import main

  try:
    status = main()
  except SystemExit as end:  # of help, and of options that are wrong
    status = end.code if isinstance(end.code, int) else 0
  if "gid_jax.programs" in sys.modules:
    from gid_jax.programs import finish

    finish(compiling=status == 0)
  with contextlib.suppress(Exception):
    sys.stdout.flush()
  os._exit(status)
