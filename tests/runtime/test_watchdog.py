"""Whose doing it is that a loop is blocked: which frames of a stack are the user's, and what is for want of a CPU."""

from __future__ import annotations

import inspect
import os
import sys
import threading
from types import FrameType

import cloudpickle
import pytest

import actorrt
from actorrt.runtime.worker import watchdog
from actorrt.runtime.worker.watchdog import Where

# By value, so that workers need not import this module, and pytest with it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


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


@actorrt.remote
class Looks:
    @actorrt.method(thread=True)
    def waited_for_cpu(self) -> tuple[float, float, float]:
        """What is counted, between what both threads had waited before and after."""

        def both() -> float:
            return watchdog._waited("/proc/thread-self") + watchdog._waited(f"/proc/self/task/{os.getpid()}")

        return both(), watchdog._waited_for_cpu(), both()

    async def say(self) -> None: ...


@pytest.mark.usefixtures("node")
def test_that_the_loops_thread_waits_for_a_cpu_counts_in_a_worker() -> None:
    actor = Looks.remote()
    actorrt.get(actor.say.remote())
    before, counted, after = actorrt.get(actor.waited_for_cpu.remote())
    assert 0 < before <= counted <= after
