"""What is called once nobody holds a thing any more."""

from __future__ import annotations

from collections.abc import Callable

from . import current
from .current import Session


class Token:
    """Calls a function on the runtime loop once it is garbage itself. In a fork of its process it does nothing."""

    __slots__ = ("_release", "_session")

    def __init__(self, session: Session, release: Callable[[], None]) -> None:
        self._session = session
        self._release = release

    def __del__(self) -> None:
        if current.maybe_runtime() is self._session:
            self._session.thread.release(self._release)
