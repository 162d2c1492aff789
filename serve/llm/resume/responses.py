"""Answers of /v1/responses put together from several runs. Source: OpenAI's API reference, streaming events."""

from typing import Any, Final

from ..engines.interface import EngineCall
from .answer import Runs, Sent, Way, body_of, less, with_body
from .events import Event, event

_LAST: Final = ("response.completed", "response.incomplete", "response.failed", "error")
# The event that ends a text, and where it says the whole of it.
_WHOLE: Final = {"response.output_text.done": "text", "response.function_call_arguments.done": "arguments"}
_PIECES: Final = ("response.output_text.delta", "response.function_call_arguments.delta", "response.refusal.delta")


class _Item:
    """An output item of which something was sent."""

    __slots__ = ("id", "kind", "said", "sent")

    def __init__(self, id: str, kind: str) -> None:
        self.id = id
        self.kind = kind
        self.sent = Sent()
        # The events without pieces that were sent of it, by type.
        self.said: set[str] = set()


class ResponsesAnswer(Runs):
    """An `Answer` of the Responses API, where the engine has it itself."""

    def __init__(self, call: EngineCall, *, continues: bool = True, continues_forms: bool = False) -> None:
        super().__init__(call, continues=continues, continues_forms=continues_forms)
        self._items: list[_Item] = []
        self._id = ""
        self._created: Any = None
        self._sequence = -1
        self._said: set[str] = set()
        # This run's items, by their ids there; its first one continues the last that there was.
        self._own: dict[str, _Item] = {}

    def generated(self) -> str:
        self.read_kept()
        return "".join(item.sent.text for item in self._items)

    def ends(self, each: Event) -> bool:
        return each.name in _LAST

    # ---- the next run

    def next_call(self) -> EngineCall | bytes:
        if not self._id:
            return self.anew()
        body = body_of(self.call)
        self._own = {}
        text = self.generated()
        alone = self.can_continue(body) and [item.kind for item in self._items] == ["message"]
        if (text and not alone) or (text and less(body, ("max_output_tokens",), self.before) == 0):
            self.way = Way.REPLAY
            for item in self._items:
                item.sent.replay()
            return self.call
        if text:
            given = body.get("input")
            items = [{"role": "user", "content": given}] if isinstance(given, str) else list(given or ())
            content: list[Any] = [{"type": "output_text", "text": text, "annotations": []}]
            body["input"] = [*items, {"type": "message", "role": "assistant", "content": content}]
        self.way = Way.CONTINUE
        return with_body(self.call, body)

    # ---- its events

    def read(self, value: dict[str, Any]) -> None:
        kind: str = value.get("type", "")
        self._sequence = max(self._sequence, value.get("sequence_number", -1))
        response: dict[str, Any] = value.get("response") or {}
        if response and not self._id:
            self._id, self._created = response.get("id", ""), response.get("created_at")
        item = self._item_of(value)
        if item is None:
            self._said.add(kind)
        elif kind in _PIECES:
            item.sent.add(value["delta"])
        else:
            item.said.add(kind)

    def _item_of(self, value: dict[str, Any]) -> _Item | None:
        """The item that an event speaks of; one that is new in this run follows on those that there are."""
        its: dict[str, Any] = value.get("item") or {}
        name = its.get("id") or value.get("item_id")
        if not name:
            return None
        if name not in self._own:
            place = len(self._own)
            if place == len(self._items):
                self._items.append(_Item(name, its.get("type", "message")))
            self._own[name] = self._items[place]
        return self._own[name]

    def follow(self, value: dict[str, Any]) -> bytes:
        kind: str = value.get("type", "")
        item = self._item_of(value)
        if item is not None:
            if kind in _PIECES:
                value["delta"] = item.sent.add(value["delta"])
                if not value["delta"]:
                    return b""
            elif kind in item.said:
                return b""
            else:
                item.said.add(kind)
            self._follow_item(value, item, kind)
        elif kind in self._said and kind not in _LAST:
            return b""
        else:
            self._said.add(kind)
            self._follow_response(value.get("response") or {})
        if "sequence_number" in value:
            self._sequence += 1
            value["sequence_number"] = self._sequence
        return event(value, kind)

    def _follow_item(self, value: dict[str, Any], item: _Item, kind: str) -> None:
        if "item_id" in value:
            value["item_id"] = item.id
        if kind in _WHOLE:
            value[_WHOLE[kind]] = item.sent.text
        if isinstance(value.get("part"), dict) and kind.endswith(".done"):
            _say(value["part"], item.sent.text)
        if isinstance(value.get("item"), dict):
            value["item"]["id"] = item.id
            if kind.endswith(".done"):
                self._whole(value["item"], item)

    @staticmethod
    def _whole(said: dict[str, Any], item: _Item) -> None:
        if item.kind == "function_call":
            said["arguments"] = item.sent.text
        for part in (said.get("content") or ())[:1]:
            _say(part, item.sent.text)

    def _follow_response(self, response: dict[str, Any]) -> None:
        if not response:
            return
        response["id"] = self._id
        if self._created is not None and "created_at" in response:
            response["created_at"] = self._created
        for said, item in zip(response.get("output") or (), self._items, strict=False):
            said["id"] = item.id
            self._whole(said, item)
        usage = response.get("usage")
        if usage and self.way is Way.CONTINUE:
            given, made = usage.get("input_tokens", 0), usage.get("output_tokens", 0)
            usage["total_tokens"] = given + made
            usage["output_tokens"] = self.before + made
            usage["input_tokens"] = max(0, given - self.before)
            details = usage.get("input_tokens_details")
            if details and "cached_tokens" in details:
                details["cached_tokens"] = min(details["cached_tokens"], usage["input_tokens"])


def _say(part: dict[str, Any], text: str) -> None:
    for key in ("text", "refusal"):
        if key in part:
            part[key] = text
