"""Answers of /v1/messages put together from several runs. Source: Anthropic's API reference, streaming messages."""

from typing import Any, Final

from ..engines.interface import EngineCall
from .answer import Runs, Sent, Way, body_of, less, with_body
from .events import Event, a_dict, a_list, event

_PIECES: Final = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


class _Block:
    """A content block of which something was sent."""

    __slots__ = ("closed", "kind", "sent")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.closed: bool = False
        self.sent: Sent = Sent()


class MessagesAnswer(Runs):
    """An `Answer` of Anthropic's kind."""

    def __init__(self, call: EngineCall, *, continues: bool = True, continues_forms: bool = False) -> None:
        super().__init__(call, continues=continues, continues_forms=continues_forms)
        self._blocks: list[_Block] = []
        self._started = False
        self._reason: dict[str, Any] | None = None
        self._usage: dict[str, Any] = {}
        # The place of this run's first block among all.
        self._first = 0

    def generated(self) -> str:
        self.read_kept()
        return "".join(block.sent.text for block in self._blocks)

    def ends(self, each: Event) -> bool:
        return each.name in ("message_stop", "error") or b'"message_stop"' in each.data[:40]

    # ---- the next run

    def next_call(self) -> EngineCall | bytes:
        if not self._started:
            return self.anew()
        if self._reason is not None:
            self.done = True
            return event({"type": "message_stop"}, "message_stop")
        body = body_of(self.call)
        self._first = 0
        if not self.can_continue(body) or any(block.kind != "text" for block in self._blocks):
            self.way = Way.REPLAY
            for block in self._blocks:
                block.sent.replay()
            return self.call
        if less(body, ("max_tokens",), self.before) == 0:
            # The limit was reached just as the run broke.
            self.done = True
            return self._closing("max_tokens")
        text = self.generated()
        if text:
            self._first = len(self._blocks) - 1
            messages = list(a_list(body["messages"]))
            last = a_dict(messages[-1]) if messages else {}
            if last.get("role") == "assistant":
                # The client began the answer itself.
                content: object = last["content"]
                begun = [{"type": "text", "text": content}] if isinstance(content, str) else a_list(content)
                if begun and begun[-1].get("type") == "text":
                    begun = [*begun[:-1], {**begun[-1], "text": begun[-1]["text"] + text}]
                else:
                    begun = [*begun, {"type": "text", "text": text}]
                messages[-1] = {**last, "content": begun}
            else:
                messages.append({"role": "assistant", "content": text})
            body["messages"] = messages
        self.way = Way.CONTINUE
        return with_body(self.call, body)

    def _closing(self, reason: str) -> bytes:
        closed = b"".join(
            event({"type": "content_block_stop", "index": index}, "content_block_stop")
            for index, block in enumerate(self._blocks)
            if not block.closed
        )
        said = {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}}
        said = {**said, "usage": {"output_tokens": self.before}}
        return closed + event(said, "message_delta") + event({"type": "message_stop"}, "message_stop")

    # ---- its events

    def read(self, value: dict[str, Any]) -> None:
        match value.get("type"):
            case "message_start":
                self._started = True
            case "content_block_start":
                self._blocks.append(_Block(value["content_block"]["type"]))
            case "content_block_delta":
                piece = _PIECES.get(value["delta"]["type"])
                if piece:
                    self._block(value).sent.add(value["delta"][piece])
            case "content_block_stop":
                self._block(value).closed = True
            case "message_delta":
                self._reason = value["delta"]
            case _:
                pass

    def _block(self, value: dict[str, Any]) -> _Block:
        index: int = value["index"]
        return self._blocks[index]

    def _is_known(self, value: dict[str, Any]) -> bool:
        index: int = value["index"]
        return index < len(self._blocks)

    def follow(self, value: dict[str, Any]) -> bytes:
        kind = value.get("type", "")
        if "index" in value:
            value["index"] += self._first
        match kind:
            case "message_start":
                return b""
            case "content_block_start" if self._is_known(value):
                return b""
            case "content_block_delta":
                piece = _PIECES.get(value["delta"]["type"])
                block: _Block = self._block(value)
                if piece:
                    value["delta"][piece] = block.sent.add(value["delta"][piece])
                if block.closed or (piece and not value["delta"][piece]):
                    return b""
                return event(value, kind)
            case "content_block_stop" if self._block(value).closed:
                return b""
            case "message_delta":
                usage = value.get("usage")
                if usage and self.way is Way.CONTINUE:
                    usage["output_tokens"] = usage.get("output_tokens", 0) + self.before
            case _:
                pass
        self.read(value)
        return event(value, kind)
