"""A worker of Apache Beam that ends when the build that started it ends, whatever ended that.

By itself it would first finish its clip, minutes later, for nobody.
"""

import os
import runpy
import threading
import time


def end_with_parent() -> None:
  """Has this process end, within a second, when the one that started it has ended."""
  parent = os.getppid()

  def watch() -> None:
    while os.getppid() == parent:
      time.sleep(1)
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
  end_with_parent()
  runpy.run_module("apache_beam.runners.worker.sdk_worker_main", run_name="__main__", alter_sys=True)
