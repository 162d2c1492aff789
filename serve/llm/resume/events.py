"""Server-sent events as engines send them: taken apart and put together. Nothing here waits."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

DONE = b"data: [DONE]\n\n"


class Event(NamedTuple):
    raw: bytes
    """As it came, with its empty line."""
    name: str
    """What `event:` says, or ""."""
    data: bytes
    """What its `data:` lines say, together."""

    @property
    def is_done(self) -> bool:
        return self.data == b"[DONE]"

    def value(self) -> dict[str, Any] | None:
        """Its JSON object; None where it holds none."""
        if not self.data.startswith(b"{"):
            return None
        return a_dict(json.loads(self.data))


def events(data: bytes) -> Iterator[Event]:
    """The events in some whole ones. Comments are events without data."""
    for raw in data.replace(b"\r\n", b"\n").split(b"\n\n"):
        if not raw.strip(b"\n"):
            continue
        name, parts = "", list[bytes]()
        for line in raw.split(b"\n"):
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"event":
                name = value.decode()
            elif field == b"data":
                parts.append(value)
        yield Event(raw.lstrip(b"\n") + b"\n\n", name, b"\n".join(parts))


def event(value: Mapping[str, Any], name: str = "") -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def a_dict(value: object) -> dict[str, Any]:
    """A JSON object, or an empty one where there is something else."""
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def a_list(value: object) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list) else []
