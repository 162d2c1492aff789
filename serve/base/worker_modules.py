"""The modules that Serve's processes load, for whoever preloads them."""

from typing import Final

_WHERE: Final = ("control.controller", "proxy.http_server", "replica.replica", "replica.reply")

WORKER_MODULES = tuple(f"actorrt.serve.{name}" for name in _WHERE)
"""What Serve's processes import. A program that has Serve start its session gives it nothing to do; one that starts the
session itself may pass this to `actorrt.init(preload_modules=...)`, so that Serve and its replicas start faster."""
