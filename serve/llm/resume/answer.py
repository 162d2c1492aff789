"""What the answers of all protocols have in common when they are put together from several runs.

A run is one request to one replica. The first run's events go to the client as they came and are kept as bytes; only
when a run breaks are they read. The events of a further run are changed, one by one, so that they follow.

A further run has one of three ways:

    CONTINUE  the request ends with what was generated so far, so the engine goes on from there
    REPLAY    the request is the first one again, for what cannot be continued (tool calls, several choices, a grammar
              over raw text): what was sent already is compared and left out
    COUNT     everything was sent but the usage: one token is asked for, to learn how long the prompt is
"""

import json
import zlib
from abc import ABC, abstractmethod
from enum import Enum, auto
from typing import Any, Final

from ..engines.interface import Delta, EngineCall
from .events import Event, a_dict, events

# What holds an answer to a form from its first token on, by the engine's own names for it.
_FORMS: Final = (
    "grammar", "json_schema", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
    "regex", "ebnf",
)  # fmt: skip
# So many pieces are packed at once.
_PACKED: Final = 256
_FAST: Final = 1
_FORMATS: Final = ("response_format", "text", "output_config")


class Way(Enum):
    FIRST = auto()
    CONTINUE = auto()
    REPLAY = auto()
    COUNT = auto()


class CannotGoOnError(Exception):
    """The rest of an answer cannot be had: another run says something else than the one that broke."""


class Sent:
    """A text of which a part was sent: what a replay says again is compared with it and left out."""

    __slots__ = ("_ahead", "text")

    def __init__(self) -> None:
        self.text = ""
        self._ahead = 0

    def replay(self) -> None:
        self._ahead = len(self.text)

    def add(self, piece: str) -> str:
        """The part of the piece that is new. Raises CannotGoOnError if what is not new is not the same."""
        if self._ahead:
            begin = len(self.text) - self._ahead
            again = piece[: self._ahead]
            if self.text[begin : begin + len(again)] != again:
                raise CannotGoOnError("the answer cannot go on: another replica answers the same request differently")
            self._ahead -= len(again)
            piece = piece[len(again) :]
        self.text += piece
        return piece


class Runs(ABC):
    """The answer to one request, whatever runs it takes. Raises CannotGoOnError where the rest cannot be had."""

    def __init__(self, call: EngineCall, *, continues: bool, continues_forms: bool = False) -> None:
        """`continues`: whether the engine goes on from what a request ends with; else all is replayed.

        `continues_forms`: whether it does so also within a form that `response_format` asks for.
        """
        self.call = call
        self._continues = continues
        self._continues_forms = continues_forms
        self.way = Way.FIRST
        self.done = False
        """Whether the client has all of it. Of the first run it is known once that `read_kept`."""
        self.before: int = 0
        """Tokens that were generated before this run."""
        self._tokens: int = 0
        self._kept: list[bytes] = []
        # Those before: events of one stream are so alike that little is left of them.
        self._packed: list[bytes] = []

    # ---- what each protocol says itself

    @abstractmethod
    def ends(self, each: Event) -> bool:
        """Whether nothing follows this event."""

    @abstractmethod
    def read(self, value: dict[str, Any]) -> None:
        """Take note of an event that the client was sent as it came."""

    @abstractmethod
    def follow(self, value: dict[str, Any]) -> bytes:
        """Change an event of a further run so that it follows what the client has, and take note of it."""

    @abstractmethod
    def generated(self) -> str:
        """The text that the client has been sent, for counting its tokens."""

    @abstractmethod
    def next_call(self) -> EngineCall | bytes:
        """Set the way of the next run, and give its request: or the last bytes, where nothing is left to ask."""

    # ---- what is the same for all

    def take(self, delta: Delta) -> bytes:
        """The events of a run as they go to the client; b"" where they say nothing new."""
        self._tokens += delta.tokens
        if self.way is Way.FIRST:
            self._kept.append(delta.data)
            if len(self._kept) >= _PACKED:
                self._packed.append(zlib.compress(b"".join(self._kept), _FAST))
                self._kept.clear()
            return delta.data
        taken: list[bytes] = []
        for each in events(delta.data):
            value = each.value()
            if self.ends(each):
                self.done = True
            taken.append(each.raw if value is None else self.follow(value))
        return b"".join(taken)

    def again(self, tokens: int | None = None) -> EngineCall | bytes:
        """The run has broken: the request for the rest, or the last bytes where nothing is left to ask.

        `tokens`: how many `generated()` is, where that was counted. An event may bring several, and each has at least
        one.
        """
        self.read_kept()
        events = self.before + self._tokens if self.way is Way.CONTINUE else max(self.before, self._tokens)
        self.before, self._tokens = max(events, tokens or 0), 0
        return self.next_call()

    def can_continue(self, body: dict[str, Any]) -> bool:
        """Whether the engine goes on from a begun answer to this request: not if its form would begin anew."""
        if not self._continues or any(body.get(name) for name in _FORMS):
            return False
        return self._continues_forms or not any(_has_form(body.get(name)) for name in _FORMATS)

    def anew(self) -> EngineCall:
        """Nothing was sent yet: the first run again."""
        self.way, self.before = Way.FIRST, 0
        return self.call

    def read_kept(self) -> None:
        for data in (*map(zlib.decompress, self._packed), *self._kept):
            for each in events(data):
                self.done = self.done or self.ends(each)
                value = each.value()
                if value is not None:
                    self.read(value)
        self._packed.clear()
        self._kept.clear()

    @property
    def held(self) -> int:
        """Bytes of events that are kept until they are read."""
        return sum(map(len, self._packed)) + sum(map(len, self._kept))


def _has_form(value: Any) -> bool:
    """Of `response_format`, or of `text` in Responses."""
    said = a_dict(value)
    return a_dict(said.get("format", said)).get("type", "text") != "text"


def body_of(call: EngineCall) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(call.body)
    return value


def with_body(call: EngineCall, body: dict[str, Any]) -> EngineCall:
    return call._replace(body=json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())


def less(body: dict[str, Any], names: tuple[str, ...], tokens: int) -> int | None:
    """Take the tokens that were generated off the limits of these names, of which an engine keeps to the first that is
    there: how much that leaves; None without any.
    """
    left: int | None = None
    for name in names:
        limit = body.get(name)
        if isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0:
            body[name] = max(0, limit - tokens)
            left = body[name] if left is None else left
    return left
