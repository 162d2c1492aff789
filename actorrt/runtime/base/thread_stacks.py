"""The stacks of the threads of this process."""

from __future__ import annotations

import linecache
import os
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

from actorrt.core.stacks import MOST_FRAMES, Frame, Thread

OURS: Final = os.path.dirname(os.path.dirname(os.path.dirname(__file__))) + os.sep

Stacks = dict[str, Any]
# What a stack waits for, by its frames, the innermost first.
Waits = Callable[[list[FrameType]], str]


def _unknown(_: list[FrameType]) -> str:
    return ""


def stacks_here() -> Stacks:
    """Of a process that runs no user's code: a node or the head."""
    return {"threads": list(threads()), "coroutines": [], "left_out": 0}


def threads(waits_for: Waits = _unknown, main_does: str = "", main_waits_for: str = "") -> Iterator[Thread]:
    """All threads but this one. `main_does`: what the main thread runs; `main_waits_for`: what it waits for else."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main, here = threading.main_thread().ident, threading.get_ident()
    for ident, frame in sys._current_frames().items():  # pyright: ignore[reportPrivateUsage]
        if ident == here:
            # It takes these stacks.
            continue
        name = names.get(ident, f"thread {ident}")
        frames = _outwards(frame)
        awaited = waits_for(frames)
        if ident == main:
            awaited = awaited or main_waits_for
            name = f"{name}, in {main_does}" if main_does else name
        yield Thread(name, [shown(each) for each in reversed(frames)], awaited)


def _outwards(frame: FrameType | None) -> list[FrameType]:
    """The innermost first."""
    found: list[FrameType] = []
    while frame is not None and len(found) < MOST_FRAMES:
        found.append(frame)
        frame = frame.f_back
    return found


def shown(frame: FrameType) -> Frame:
    """A frame as people see it."""
    code, line = frame.f_code, frame.f_lineno or 0
    text = linecache.getline(code.co_filename, line, frame.f_globals).strip()
    return Frame(code.co_filename, line, code.co_qualname, text, code.co_filename.startswith(OURS))
