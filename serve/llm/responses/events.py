"""The events of a streamed response, made from the chunks of a streamed chat. No I/O.

response.created and response.in_progress; then item after item: output_item.added, what belongs to its kind, and
output_item.done; then response.completed, response.incomplete or response.failed. Each has the next sequence_number.
"""

from typing import Any

import msgspec

from ..chat_answers import ChatError, Piece, ToolCall, Usage
from .answer import (
    call_item,
    ended,
    failed,
    logprobs_of,
    message_item,
    reasoning_item,
    status_of,
    text_part,
)
from .items import Item, NewId


class ResponseEvents:
    """Pieces in, events out, each with its bytes. `response`: the object as it is by now."""

    def __init__(self, response: dict[str, Any], new_id: NewId) -> None:
        self.response = response
        self._new_id = new_id
        self._sequence = 0
        self._output: list[Item] = []
        self._open: _Text | _Call | None = None
        self._finish: str | None = None
        self._usage: Usage | None = None

    @property
    def begun(self) -> bool:
        return self._sequence > 0

    def start(self, *, queued: bool = False) -> list[bytes]:
        out = [self._event("response.created", response=self.response)]
        if queued:
            out.append(self._event("response.queued", response={**self.response, "status": "queued"}))
        return [*out, self._event("response.in_progress", response=self.response)]

    def feed(self, piece: Piece) -> list[bytes]:
        """What a chunk says: often one event, none for a chunk that only names a role."""
        out: list[bytes] = []
        if piece.reasoning:
            out += self._say("reasoning", piece.reasoning, [])
        if piece.text or piece.logprobs:
            out += self._say("text", piece.text, logprobs_of(piece.logprobs))
        if piece.refusal:
            out += self._say("refusal", piece.refusal, [])
        for call in piece.tool_calls:
            out += self._call_tool(call)
        if piece.finish is not None:
            self._finish = piece.finish
        if piece.usage is not None:
            self._usage = piece.usage
        return out

    def end(self, at: int) -> list[bytes]:
        """What ends the last item; then comes `last`. Raises ChatError if the chat broke off."""
        if self._finish is None:
            raise ChatError("the engine's answer ended before it was finished")
        status = status_of(self._finish)
        out = self._close(status)
        if not self._output:
            # An answer of no tokens is a message all the same.
            out += self._say("text", "", [])
            out += self._close(status)
        self.response = ended(self.response, self._output, self._finish, self._usage, at)
        return out

    def fail(self, message: str) -> None:
        """The response broke off; then comes `last`."""
        output = self._output if self._open is None else [*self._output, self._open.item("incomplete")]
        self.response = failed(self.response, output, message)

    def last(self) -> bytes:
        return self._event(f"response.{self.response['status']}", response=self.response)

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = msgspec.json.encode({"type": kind, "sequence_number": self._sequence, **fields})
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    def _say(self, kind: str, text: str, logprobs: list[Item]) -> list[bytes]:
        out: list[bytes] = []
        said = self._open
        if not isinstance(said, _Text) or said.kind != kind:
            said = _Text(kind, self._new_id("rs" if kind == "reasoning" else "msg"))
            out = self._begin(said)
            out.append(self._event("response.content_part.added", **self._place(), part=said.part()))
        said.texts.append(text)
        said.logprobs += logprobs
        if text:
            extra: dict[str, Any] = {"logprobs": logprobs} if kind == "text" else {}
            out.append(self._event(f"response.{_NAMES[kind]}.delta", **self._place(), delta=text, **extra))
        return out

    def _call_tool(self, call: ToolCall) -> list[bytes]:
        out: list[bytes] = []
        calling = self._open
        if not isinstance(calling, _Call) or not call.goes_on(calling.first.number, calling.first.id):
            if not call.name:
                raise ChatError("the engine went on with a tool call that it had ended")
            calling = _Call(call, self._new_id("fc"), call.id or self._new_id("call"))
            out = self._begin(calling)
        if call.arguments:
            calling.arguments.append(call.arguments)
            place = {"item_id": calling.id, "output_index": len(self._output)}
            out.append(self._event("response.function_call_arguments.delta", **place, delta=call.arguments))
        return out

    def _begin(self, opened: "_Text | _Call") -> list[bytes]:
        out = self._close("completed")
        self._open = opened
        item = opened.begun()
        return [*out, self._event("response.output_item.added", output_index=len(self._output), item=item)]

    def _place(self) -> dict[str, Any]:
        assert self._open is not None
        return {"item_id": self._open.id, "output_index": len(self._output), "content_index": 0}

    def _close(self, status: str) -> list[bytes]:
        out: list[bytes] = []
        match self._open:
            case None:
                return out
            case _Text() as said:
                place = self._place()
                part = said.part()
                text = {"refusal" if said.kind == "refusal" else "text": said.text}
                extra: dict[str, Any] = {"logprobs": said.logprobs} if said.kind == "text" else {}
                out.append(self._event(f"response.{_NAMES[said.kind]}.done", **place, **text, **extra))
                out.append(self._event("response.content_part.done", **place, part=part))
            case _Call() as calling:
                place = {"item_id": calling.id, "output_index": len(self._output), "name": calling.name}
                arguments = "".join(calling.arguments)
                out.append(self._event("response.function_call_arguments.done", **place, arguments=arguments))
        item = self._open.item(status)
        out.append(self._event("response.output_item.done", output_index=len(self._output), item=item))
        self._output.append(item)
        self._open = None
        return out


_NAMES = {"text": "output_text", "reasoning": "reasoning_text", "refusal": "refusal"}


class _Text:
    """An item that is being said: a message, or thoughts."""

    def __init__(self, kind: str, id: str) -> None:
        self.kind, self.id = kind, id
        self.texts: list[str] = []
        self.logprobs: list[Item] = []

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def part(self) -> Item:
        match self.kind:
            case "text":
                return text_part(self.text, self.logprobs)
            case "refusal":
                return {"type": "refusal", "refusal": self.text}
            case _:
                return {"type": "reasoning_text", "text": self.text}

    def item(self, status: str) -> Item:
        made = reasoning_item(self.id, self.text) if self.kind == "reasoning" else message_item(self.id, self.part())
        return {**made, "status": status}

    def begun(self) -> Item:
        return {**self.item("in_progress"), "content": []}


class _Call:
    """A call of a tool that is being made."""

    def __init__(self, first: ToolCall, id: str, call_id: str) -> None:
        """`first`: its first piece."""
        self.first, self.id, self.call_id, self.name = first, id, call_id, first.name
        self.arguments: list[str] = []

    def item(self, status: str) -> Item:
        made = call_item(self.id, self.call_id, self.name, "".join(self.arguments))
        return {**made, "status": status}

    def begun(self) -> Item:
        return {**self.item("in_progress"), "arguments": ""}
