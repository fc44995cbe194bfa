"""The one error that is the user's to mend. This file imports nothing, so that the command line can start at once."""


class UserError(Exception):
  """Bad input or an impossible request: its one-line message says what, where and what to do."""
