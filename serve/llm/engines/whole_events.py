"""Cut what an engine streams into whole server-sent events, and count the tokens in them, without reading the JSON."""

import re
from collections.abc import Mapping
from typing import Final

# An event larger than this is no event.
MOST_BYTES: Final = 64 * 1024 * 1024


def _text_in(*fields: str) -> re.Pattern[bytes]:
    # A field whose text is not empty. Inside of a JSON string the quotes would have backslashes.
    return re.compile(rb'"(?:' + "|".join(fields).encode() + rb')":\s?"(?!")')


_CHAT: Final = _text_in("content", "reasoning_content", "reasoning", "arguments")
# By path: what in an event stands for a generated token.
_TOKENS: Final[Mapping[str, re.Pattern[bytes]]] = {
    "/v1/completions": _text_in("text"),
    "/v1/responses": _text_in("delta"),
    "/v1/messages": _text_in("text", "thinking", "partial_json"),
}
_USAGE: Final = re.compile(rb'"(?:completion_tokens|output_tokens)":\s?(\d+)')


def tokens_in(path: str, events: bytes) -> int:
    """Events that bring generated text: one token each, as engines send them when nobody holds tokens back."""
    return len(_TOKENS.get(path, _CHAT).findall(events))


def tokens_of_answer(body: bytes) -> int:
    """What the usage of an answer that is not streamed says."""
    found = _USAGE.search(body)
    return int(found[1]) if found else 0


class WholeEvents:
    """Bytes, cut anywhere, in; whole events, each with its empty line, out."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> bytes:
        """The events that are whole now, or nothing. ValueError if one has no end."""
        rest = self._rest
        if not rest:
            end = _end_of_events(data, 0)
            if end == len(data):
                return data
            rest += data[end:]
            return data[:end]
        searched = max(0, len(rest) - 3)
        rest += data
        end = _end_of_events(rest, searched)
        whole = bytes(rest[:end])
        del rest[:end]
        if len(rest) > MOST_BYTES:
            raise ValueError(f"an event of more than {MOST_BYTES} bytes")
        return whole

    def end(self) -> bytes:
        """The last event, if its empty line did not come."""
        rest = bytes(self._rest)
        self._rest.clear()
        return rest.rstrip(b"\r\n") + b"\n\n" if rest.strip() else b""


def _end_of_events(data: bytes | bytearray, start: int) -> int:
    """Where the last whole event in `data` ends."""
    newlines = data.rfind(b"\n\n", start) + 2
    returns = data.rfind(b"\r\n\r\n", start) + 4
    end = max(newlines if newlines > 1 else 0, returns if returns > 3 else 0)
    return end
