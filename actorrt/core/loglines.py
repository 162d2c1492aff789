"""Lines of workers' output: cut from bytes, made printable, prefixed, and told once where many say the same.

Reads no pipe and prints nothing; the time is an argument.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

# Who wrote a line (what the worker ran, and its pid), whether to stderr, and the line without its end.
Line = tuple[str, int, bool, str]

MAX_LINE: Final = 16 * 1024
# Longer lines are hardly ever the same twice, and are not remembered.
MAX_REMEMBERED_LINE: Final = 1024
MAX_REMEMBERED: Final = 1000
COLOURS: Final = (36, 35, 33, 32, 34, 96, 95, 93)


class LineSplitter:
    """Bytes, cut anywhere, into lines without their newline. A line over the limit comes in pieces.

    A piece never ends inside a UTF-8 character. At most one line of `limit` bytes is held back.
    """

    def __init__(self, limit: int = MAX_LINE) -> None:
        if limit < 4:
            raise ValueError(f"a line must have room for a character of 4 bytes, not {limit}")
        self._limit = limit
        self._rest = b""

    @property
    def pending(self) -> bool:
        """Whether the last byte fed did not end a line."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[bytes]:
        lines: list[bytes] = []
        parts = data.split(b"\n")
        parts[0] = self._rest + parts[0]
        rest = parts.pop()
        for part in parts:
            lines.append(self._cut(part, lines) if len(part) > self._limit else part)
        self._rest = self._cut(rest, lines) if len(rest) > self._limit else rest
        return lines

    def flush(self) -> list[bytes]:
        """What is there of a line that may never end; what follows it will count as a line of its own."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []

    def _cut(self, line: bytes, lines: list[bytes]) -> bytes:
        """Add full pieces to `lines`, and return the last, which fits."""
        start = 0
        while len(line) - start > self._limit:
            end = start + self._limit
            for back in range(4):  # a character has up to three bytes after its first
                if line[end - back] & 0xC0 != 0x80:
                    end -= back
                    break
            lines.append(line[start:end])
            start = end
        return line[start:]


_MARK: Final = b"\0\x1eactorrt "
_MARK_END: Final = b"\0"
MAX_NAME: Final = 200


def mark(name: str) -> bytes:
    """Stands in a worker's output in front of what `name` has printed."""
    return _MARK + name.encode("utf-8", "replace").replace(b"\0", b"")[:MAX_NAME] + _MARK_END


class MarkFinder:
    """Takes marks out of bytes that are cut anywhere."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[str | None, bytes]]:
        """The parts of the output: whose each is, None where that is as before."""
        if b"\0" not in data and not self._rest:
            return [(None, data)]
        data = self._rest + data
        self._rest = b""
        parts: list[tuple[str | None, bytes]] = []
        name: str | None = None
        while (start := data.find(_MARK)) >= 0:
            end = data.find(_MARK_END, start + len(_MARK))
            if end < 0:
                if len(data) - start <= len(_MARK) + MAX_NAME:
                    break
                # No mark of ours: what looks like one is output.
                end = start + len(_MARK)
                parts.append((name, data[:end]))
                name, data = None, data[end:]
                continue
            if start:
                parts.append((name, data[:start]))
            name = data[start + len(_MARK) : end].decode("utf-8", "replace")
            data = data[end + len(_MARK_END) :]
        held = len(data) - start if start >= 0 else _begun(data)
        if held:
            data, self._rest = data[:-held], data[-held:]
        if data or name is not None:
            parts.append((name, data))
        return parts

    def flush(self) -> bytes:
        """What may have been the beginning of a mark."""
        rest, self._rest = self._rest, b""
        return rest


def _begun(data: bytes) -> int:
    """With how many bytes of a mark the data ends."""
    at = data.rfind(_MARK[:1], -len(_MARK) + 1) if data else -1
    return len(data) - at if at >= 0 and _MARK.startswith(data[at:]) else 0


def printable(line: bytes) -> str:
    """A line as a terminal would show it: what a carriage return has overwritten is gone, and no byte is lost."""
    if b"\r" in line:
        line = line.rstrip(b"\r").rpartition(b"\r")[2]
    return line.decode("utf-8", "backslashreplace")


_DROPPED: Final = re.compile(r"\[(\d+) lines dropped: they came faster than they could be shown\]")


def dropped(name: str, pid: int, count: int) -> Line:
    """Stands where lines are missing."""
    return name, pid, True, f"[{count} lines dropped: they came faster than they could be shown]"


def stands_for(line: Line) -> int:
    """How many lines are missing where this one is: those that `dropped` tells of, else itself."""
    told = _DROPPED.fullmatch(line[3]) if line[2] else None
    return 1 if told is None else int(told[1])


def prefixed(line: Line, colour: bool = False) -> str:
    name, pid, _, text = line
    prefix = f"({name} pid={pid})"
    if colour:
        prefix = f"\033[{COLOURS[pid % len(COLOURS)]}m{prefix}\033[0m"
    return f"{prefix} {text}"


@dataclass(slots=True)
class _Seen:
    pid: int
    until: float
    count: int
    last: Line

    def comes_again(self, line: Line) -> None:
        self.count += 1
        self.last = line


class Deduplicator:
    """Lets the first of several equal lines through at once, and counts those of other workers for `window` seconds.

    Then one of them comes out with "[repeated 7x]". A worker that says the same thing twice is not held back. What is
    remembered is bounded: past the bound the oldest is told early.
    """

    def __init__(self, window: float = 5.0) -> None:
        self._window = window
        self._seen: dict[tuple[bool, str], _Seen] = {}  # in the order of `until`, as the window is the same for all

    def feed(self, line: Line, now: float) -> list[Line]:
        """The lines to show now."""
        shown = self.expire(now)
        _, pid, is_error, text = line
        seen = self._seen.get((is_error, text))
        if seen is not None and seen.pid != pid:
            seen.comes_again(line)
            return shown
        shown.append(line)
        if seen is None and 0 < len(text) <= MAX_REMEMBERED_LINE:
            if len(self._seen) >= MAX_REMEMBERED:
                shown[-1:-1] = self._forget_oldest()
            self._seen[is_error, text] = _Seen(pid, now + self._window, 0, line)
        return shown

    def expire(self, now: float) -> list[Line]:
        """What there is to say about lines whose time is over."""
        shown: list[Line] = []
        while self._seen and next(iter(self._seen.values())).until <= now:
            shown += self._forget_oldest()
        return shown

    def flush(self) -> list[Line]:
        """The same about all lines, at the end."""
        shown: list[Line] = []
        while self._seen:
            shown += self._forget_oldest()
        return shown

    @property
    def due(self) -> float | None:
        """When `expire` will have something to say, at the latest; None while nothing was repeated."""
        return next((seen.until for seen in self._seen.values() if seen.count), None)

    def _forget_oldest(self) -> list[Line]:
        seen = self._seen.pop(next(iter(self._seen)))
        if not seen.count:
            return []
        name, pid, is_error, text = seen.last
        return [seen.last if seen.count == 1 else (name, pid, is_error, f"{text} [repeated {seen.count}x]")]
