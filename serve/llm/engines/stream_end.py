"""Whether an engine's answer came to its end, or the engine left in the midst of it. No I/O.

A connection that is closed looks alike in both cases wherever the body's length was not said before. Each API has an
event that comes last; of a chat, or a completion, whose engine leaves out `[DONE]` the reasons to finish are counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, Protocol

from ..resume.events import a_dict, a_list
from .interface import EngineCall, Head

# In a text the quotes would have backslashes, and a line would not begin.
_DONE: Final = re.compile(rb"(?:^|[\r\n])data: ?\[DONE\]")
_ERROR: Final = rb'"error"\s*:\s*+(?!null)|^event: ?error|"(?:type|object)"\s?:\s?"error"'
_CHOICES_LAST: Final = re.compile(_ERROR, re.MULTILINE)
_FINISHED: Final = re.compile(rb'"finish_reason"\s?:\s?"')
_LAST: Final[Mapping[str, re.Pattern[bytes]]] = {
    "/v1/messages": re.compile(rb'"type"\s?:\s?"message_stop"|' + _ERROR, re.MULTILINE),
    "/v1/responses": re.compile(rb'"type"\s?:\s?"response\.(?:completed|incomplete|failed)"|' + _ERROR, re.MULTILINE),
}
_BODILESS: Final = (204, 304)
_OF_CHOICES: Final = frozenset({"/v1/chat/completions", "/v1/completions"})


class StreamEnd(Protocol):
    def feed(self, events: bytes) -> None:
        """Whole events, as they come."""
        ...

    def is_there(self) -> bool:
        """Whether the last event of all has come."""
        ...


def end_of(call: EngineCall) -> StreamEnd:
    if call.path in _OF_CHOICES:
        return _EndOfChoices(call)
    if (last := _LAST.get(call.path)) is not None:
        return _LastEvent(last)
    return _AnyEnd()


class _AnyEnd:
    """Of a stream of which nothing is known."""

    def feed(self, events: bytes) -> None:
        pass

    def is_there(self) -> bool:
        return True


class _LastEvent:
    def __init__(self, last: re.Pattern[bytes]) -> None:
        self._last = last
        self._events = b""

    def feed(self, events: bytes) -> None:
        if b"data:" in events:
            self._events = events

    def is_there(self) -> bool:
        return self._last.search(self._events) is not None


class _EndOfChoices:
    def __init__(self, call: EngineCall) -> None:
        self._call = call
        self._events = b""
        self._finished = 0

    def feed(self, events: bytes) -> None:
        if b"data:" in events:
            self._events = events
            self._finished += len(_FINISHED.findall(events))

    def is_there(self) -> bool:
        last = self._events
        return bool(_DONE.search(last) or _CHOICES_LAST.search(last)) or self._finished >= self._wanted()

    def _wanted(self) -> int:
        try:
            return choices_of(a_dict(json.loads(self._call.body)))
        except (ValueError, RecursionError):
            return 1


def choices_of(body: Mapping[str, Any]) -> int:
    """How many answers a request asks for: each of its prompts may be a text, or a list of tokens."""
    prompts, n = a_list(body.get("prompt")), body.get("n")
    number = len(prompts) if prompts and not isinstance(prompts[0], int) else 1
    return number * (n if isinstance(n, int) and n > 1 else 1)


def is_cut(head: Head, body: bytes) -> bool:
    """Whether a body whose length was not said is only the beginning of one."""
    if head.status in _BODILESS or not any(
        name == "content-type" and value.startswith("application/json") for name, value in head.headers
    ):
        return False
    try:
        json.loads(body)
    except ValueError:
        return True
    except RecursionError:
        return False
    return False
