"""Notice that what was served is lost: with the controller and the proxy at once, as when their zygote was killed."""

from __future__ import annotations

import threading

import actorrt


class Loss:
    """It looks by a thread of its own: a controller that does not answer keeps nobody from stopping."""

    def __init__(self) -> None:
        self._seen = threading.Event()
        self._thread: threading.Thread | None = None

    def is_seen(self) -> bool:
        """From the loss on; then, once that was said, only after the next one."""
        if self._thread is not None and self._thread.is_alive():
            return False
        seen = self._seen.is_set()
        self._seen.clear()
        self._thread = threading.Thread(target=self._look, name="actorrt-loss", daemon=True)
        self._thread.start()
        return seen

    def _look(self) -> None:
        try:
            if actorrt.serve.status().lost:
                self._seen.set()
        except (actorrt.exceptions.ActorrtError, RuntimeError):  # it ends, or its controller does not answer yet
            pass
