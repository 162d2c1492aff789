"""Say about once a second what a shutdown still waits for, while another thread waits for its end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Self

from actorrt import exceptions

from .statuses import ServeStatus

EVERY_S: Final = 1.0


class DrainWatch:
    """A context manager. It never holds the shutdown up; without `say` it does nothing."""

    def __init__(self, say: Callable[[str], object] | None, status: Callable[[], ServeStatus]) -> None:
        self._say, self._status = say, status
        self._over = threading.Event()

    def __enter__(self) -> Self:
        if self._say is not None:
            # A daemon: a controller that does not answer must not keep the program from ending.
            threading.Thread(target=self._look, args=(self._say,), name="actorrt-drain", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _look(self, say: Callable[[str], object]) -> None:
        while not self._over.wait(EVERY_S):
            try:
                draining = self._status().draining
            except exceptions.ActorUnavailableError:  # it is restarted
                continue
            except (exceptions.ActorrtError, RuntimeError):  # it has ended meanwhile
                return
            if draining is not None and not self._over.is_set():
                say(f"stopping: {draining}")
