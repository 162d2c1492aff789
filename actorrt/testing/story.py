"""What happened in a history, in order: who sent what to whom, which row of which table was taken, what was done to it.

What is noted while it runs costs little, and only a story that is told is put into words. Ids are told by the names of
their processes, and what is pickled by its size alone, so that two runs of one seed tell the same story.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

import msgspec

from actorrt.wire.messages import Answer, AnyMessage, Ask, decode_batch, encode_batch

# (when, who, whom, what): of messages the bytes, of all else a sentence.
Line = tuple[float, str, str, bytes | str]
# The last lines are what a failure is explained by.
TOLD: Final = 400


class Storyteller:
    """Notes what happens in one history."""

    def __init__(self) -> None:
        self.now = 0.0
        self.counts: Counter[str] = Counter()
        self._names: dict[bytes, str] = {}
        self._lines: list[Line] = []
        self._numbers = itertools.count(1)

    def next_number(self) -> int:
        return next(self._numbers)

    # ---- noting

    def name(self, process: bytes, name: str) -> None:
        self._names[process] = name

    def named(self, process: bytes) -> str:
        return self._names.get(process) or process.hex()

    def sent(self, sender: bytes, receiver: bytes, batch: list[AnyMessage]) -> None:
        self.counts["messages"] += len(batch)
        self._lines.append((self.now, self.named(sender), self.named(receiver), encode_batch(batch)))

    def row(self, who: str, what: str) -> None:
        """A row of a table was taken."""
        self._lines.append((self.now, who, "", what))

    def event(self, kind: str, who: str, what: str) -> None:
        """Something was done to the cluster; events are counted by kind."""
        self.counts[kind] += 1
        self._lines.append((self.now, who, "", what))

    def count(self, kind: str) -> None:
        self.counts[kind] += 1

    # ---- telling

    def tell(self, most: int = 0) -> str:
        """All of it, or the last `most` lines."""
        lines = self._lines[-most:] if most else self._lines
        left_out = len(self._lines) - len(lines)
        told = [f"... {left_out} lines before these"] if left_out else []
        for when, who, whom, what in lines:
            if isinstance(what, str):
                told.append(f"{when:11.6f}  {who}: {what}")
            else:
                told += [f"{when:11.6f}  {who} -> {whom}: {one}" for one in map(self._message, decode_batch(what))]
        return "\n".join(told)

    def _message(self, message: AnyMessage) -> str:
        if isinstance(message, Ask | Answer):
            return f"{type(message).__name__} {message.rid}: {self._struct(message.body)}"
        return self._struct(message)

    def _struct(self, message: msgspec.Struct) -> str:
        parts = [
            f"{field}={self._value(value)}"
            for field, value, default in _fields(message)
            if value != default and field not in _LEFT_OUT
        ]
        return f"{type(message).__name__}({', '.join(parts)})"

    def _value(self, value: Any) -> str:
        if isinstance(value, bytes):
            if value in self._names:
                return self._names[value]
            if len(value) == 16 and value[:8] in self._names:
                return f"{self._names[value[:8]]}/{int.from_bytes(value[8:], 'big')}"
            return f"<{len(value)} bytes>" if value else "none"
        if isinstance(value, msgspec.Struct):
            return self._struct(value)
        if isinstance(value, Sequence) and not isinstance(value, str):
            return f"[{', '.join(map(self._value, cast('Sequence[Any]', value)))}]"
        return repr(value)


# What a message is called by, and what says nothing to who reads.
_LEFT_OUT: Final = frozenset({"blob", "info", "sys_path", "argv", "env", "main_file", "cwd", "args", "pid", "function"})


def _fields(message: msgspec.Struct) -> Iterator[tuple[str, Any, Any]]:
    names, defaults = message.__struct_fields__, message.__struct_defaults__
    missing = len(names) - len(defaults)
    for index, name in enumerate(names):
        yield name, getattr(message, name), _NONE if index < missing else defaults[index - missing]


_NONE: Final = object()
