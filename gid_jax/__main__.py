"""`python -m gid_jax` is the same as `gid`."""

from gid_jax.app.start import run

if __name__ == "__main__":
  run()
