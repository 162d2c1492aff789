"""The events of a streamed message, made from the chunks of a streamed chat. No I/O.

message_start, then blocks one after the other (content_block_start, deltas, content_block_stop), then message_delta
with the reason and the usage, then message_stop. A chat says its usage at its end, so that of message_start is 0 unless
the engine says earlier how long the prompt is.
"""

from collections.abc import Collection
from typing import Any, Final

import msgspec

from ..chat_answers import ChatError, Piece, ToolCall, Usage
from .answer import call_id, envelope, stop_of, usage_of


def event(fields: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (fields["type"].encode(), msgspec.json.encode(fields))


class MessageEvents:
    """Pieces in, the bytes of events out."""

    def __init__(self, *, id: str, model: str, stop_sequences: Collection[str] = ()) -> None:
        self._id, self._model, self._stop_sequences = id, model, stop_sequences
        self._block = ""  # the type of the open block
        self._index = -1  # its index, or that of the last one
        self._call = ToolCall(-1, "", "", "")  # the first piece of the last call
        self._calls = 0
        self._finish: str | None = None
        self._stop: str | None = None
        self._usage = Usage()

    def start(self, read: Usage | None = None) -> bytes:
        """`read`: what is known of the prompt by now."""
        return event({"type": "message_start", "message": envelope(self._id, self._model, read)})

    def feed(self, piece: Piece) -> bytes:
        """What a chunk says: often one event, none for a chunk that only names a role."""
        out = b""
        if piece.reasoning:
            out += self._say("thinking", {"type": "thinking_delta", "thinking": piece.reasoning})
        if text := piece.text or piece.refusal:
            out += self._say("text", {"type": "text_delta", "text": text})
        for call in piece.tool_calls:
            out += self._call_tool(call)
        if piece.finish is not None:
            self._finish, self._stop = piece.finish, piece.stop
        if piece.usage is not None:
            self._usage = piece.usage
        return out

    def end(self) -> bytes:
        """The last events. Raises ChatError if the chat broke off."""
        if self._finish is None:
            raise ChatError("the engine's answer ended before it was finished")
        reason, sequence = stop_of(self._finish, self._stop, self._stop_sequences, calls=self._calls > 0)
        delta = {"stop_reason": reason, "stop_sequence": sequence, "container": None, "stop_details": None}
        return (
            self._close()
            + event({"type": "message_delta", "delta": delta, "usage": usage_of(self._usage)})
            + event({"type": "message_stop"})
        )

    def _say(self, kind: str, delta: dict[str, Any]) -> bytes:
        opening = b"" if self._block == kind else self._open(kind, _EMPTY[kind])
        return opening + self._delta(delta)

    def _call_tool(self, call: ToolCall) -> bytes:
        out = b""
        if self._block != "tool_use" or not call.goes_on(self._call.number, self._call.id):
            if not call.name:
                raise ChatError("the engine went on with a tool call that it had ended")
            self._call = call
            id = call.id or call_id(self._id, self._calls)
            self._calls += 1
            out = self._open("tool_use", {"type": "tool_use", "id": id, "name": call.name, "input": {}})
        if call.arguments:
            out += self._delta({"type": "input_json_delta", "partial_json": call.arguments})
        return out

    def _open(self, kind: str, block: dict[str, Any]) -> bytes:
        out = self._close()
        self._block = kind
        self._index += 1
        return out + event({"type": "content_block_start", "index": self._index, "content_block": block})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return event({"type": "content_block_delta", "index": self._index, "delta": delta})

    def _close(self) -> bytes:
        if not self._block:
            return b""
        self._block = ""
        return event({"type": "content_block_stop", "index": self._index})


_EMPTY: Final[dict[str, dict[str, Any]]] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}
