"""`python -m gid_jax` is the same as `gid`."""

from gid_jax.app.cli import main

if __name__ == "__main__":
  raise SystemExit(main())
