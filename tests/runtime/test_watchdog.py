"""Whose doing it is that a loop is blocked: which frames of a stack are the user's."""

from __future__ import annotations

import inspect
import sys
import threading
from types import FrameType

from actorrt.runtime.watchdog import Where


class Looked:
    """Says where a thread is that asks for its signature."""

    def __init__(self) -> None:
        self.frame: FrameType | None = None

    def __call__(self) -> None: ...

    @property
    def __signature__(self) -> inspect.Signature:
        self.frame = sys._getframe()
        return inspect.Signature()


def _users(frame: FrameType | None) -> list[str]:
    return [one.f_code.co_name for one in Where(frame).frames]


def test_pythons_own_code_is_the_users_only_where_a_user_calls_it() -> None:
    looked = Looked()
    # As where the runtime asks: nothing but Python's own code lies in between.
    thread = threading.Thread(target=inspect.signature, args=(looked,))
    thread.start()
    thread.join()
    assert looked.frame is not None
    assert _users(looked.frame) == ["__signature__"]
    assert _users(looked.frame.f_back) == []

    def asks() -> None:
        inspect.signature(looked)

    thread = threading.Thread(target=asks)
    thread.start()
    thread.join()
    assert _users(looked.frame)[0] == "__signature__"
    assert _users(looked.frame)[-1] == "asks"
    assert "signature" in _users(looked.frame.f_back)
