"""Libraries that only some installations have: `pip install '.[train]'` and the like."""

import sys


def missing_extra(error: ImportError, extra: str, *, module: str) -> ImportError | SystemExit:
  """What to raise where the libraries of an optional extra could not be imported: says what to install.

  Args:
    error: the import's.
    extra: a name of `project.optional-dependencies`.
    module: `__name__` of the module that needs them; as a program it prints one line and ends with status 2.
  """
  message = f"{error.name} is missing; install it with: pip install '.[{extra}]'"
  if module != "__main__":
    return ImportError(message, name=error.name)
  print(f"error: {message}", file=sys.stderr)
  return SystemExit(2)
