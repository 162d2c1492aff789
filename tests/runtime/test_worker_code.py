"""The code that callers define in a worker: it is there as long as one of them has it, whenever it is loaded."""

from __future__ import annotations

import contextlib
import sys
import threading
from types import FrameType
from typing import Any

import cloudpickle
import pytest

from actorrt.runtime.worker.code import Code, CodeStatistics
from actorrt.types import FunctionKey
from actorrt.wire.messages import Define

KEY = FunctionKey(b"k" * 16)
BLOB = cloudpickle.dumps(abs)
# Any two links that are told apart.
FIRST: Any = object()
SECOND: Any = object()


def test_code_is_unpickled_on_first_use() -> None:
    code = Code()
    code.define(FIRST, Define(KEY, BLOB))
    assert code.statistics() == CodeStatistics(defined=1, loaded=0, packed=1)
    assert code.load(KEY) is abs
    assert code.is_loaded(KEY)
    assert code.statistics() == CodeStatistics(defined=1, loaded=1, packed=0)


def test_code_goes_with_the_last_of_those_who_have_defined_it() -> None:
    code = Code()
    code.define(FIRST, Define(KEY, BLOB))
    code.load(KEY)
    code.define(SECOND, Define(KEY, BLOB))
    code.forget(FIRST, KEY)
    assert code.load(KEY) is abs
    code.link_lost(SECOND)
    assert code.statistics() == CodeStatistics(0, 0, 0)
    with pytest.raises(KeyError):
        code.load(KEY)


def forgotten_and_defined_again_as_it_is_loaded(turn: int) -> tuple[bool, Any, CodeStatistics]:
    """In the given step of the load, and by another caller; whether there was one, what that gets, and what is left."""
    code = Code()
    lines = 0

    def change() -> None:
        code.forget(FIRST, KEY)
        code.define(SECOND, Define(KEY, BLOB))

    changes = threading.Thread(target=change)

    def look(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if frame.f_code is not Code.load.__code__:
            return None
        if event == "line":
            lines += 1
            if lines == turn:
                changes.start()
                if not code._changing.locked():
                    changes.join()
        return look

    code.define(FIRST, Define(KEY, BLOB))
    before = sys.gettrace()
    sys.settrace(look)
    try:
        with contextlib.suppress(KeyError):  # its caller has gone
            code.load(KEY)
    finally:
        sys.settrace(before)
    if not changes.ident:
        return False, abs, code.statistics()
    changes.join()
    found = code.load(KEY)
    code.forget(SECOND, KEY)
    return True, found, code.statistics()


def test_a_definition_that_is_forgotten_as_it_is_loaded_is_there_for_who_defines_it_again() -> None:
    turn = 1
    while (outcome := forgotten_and_defined_again_as_it_is_loaded(turn))[0]:
        assert outcome == (True, abs, CodeStatistics(0, 0, 0))
        turn += 1
    assert turn > 5
