"""The items of a Responses request: as they are kept and listed, and as the turns of chat/completions. No I/O.

An item that is kept is complete: it has an id, a type, a status, and its content as parts.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, cast

from ..fields import FieldError, Node

Item = dict[str, Any]
NewId = Callable[[str], str]
"""A new id with this prefix: "msg", "fc", "rs", "resp"."""

_SAID: Final = frozenset({"output_text", "input_text", "text"})


def read_items(given: Node, new_id: NewId) -> list[Item]:
    """The items of `input`, made complete. Those of type item_reference are left for who has what they name."""
    if given.is_text:
        return [_message("user", [{"type": "input_text", "text": given.value}], new_id("msg"))]
    return [_read(item, new_id) for item in given.items()]


def items_as_they_are(given: object, new_id: NewId) -> list[Item]:
    """Items for an engine that knows what they mean. What is no item is left out: the engine says so."""
    if isinstance(given, str):
        return read_items(Node(given), new_id)
    if not isinstance(given, list):
        return []
    dicts = [cast("Item", item) for item in cast("list[object]", given) if isinstance(item, dict)]
    return [_named(item, new_id) for item in dicts]


def _named(item: Item, new_id: NewId) -> Item:
    """The item with a type and an id that are strings: an engine refuses others, and says so."""
    kind, id = item.get("type"), item.get("id")
    if not isinstance(kind, str):
        kind = "message" if "role" in item else "item_reference"
    return {**item, "type": kind, "id": id if isinstance(id, str) else new_id("item")}


def _read(item: Node, new_id: NewId) -> Item:
    kind = item.get("type")
    match kind.text() if kind is not None else "message" if item.get("role") is not None else "item_reference":
        case "message":
            return _read_message(item, new_id)
        case "function_call":
            item.need("name").name()
            item.need("arguments").text()
            item.need("call_id").name()
            return _complete(item, new_id("fc"))
        case "function_call_output":
            item.need("call_id").name()
            output = item.need("output")
            if not output.is_text:
                for part in output.items():
                    _part(part)
            return _complete(item, new_id("fc"))
        case "reasoning":
            for name in ("summary", "content"):
                if (parts := item.get(name)) is not None:
                    for part in parts.items():
                        part.need("text").text()
            return {"summary": [], **_complete(item, new_id("rs"))}
        case "item_reference":
            return {"type": "item_reference", "id": item.need("id").name()}
        case other:
            raise item.error(f"an item of type {other!r} is not supported by this server")


def _complete(item: Node, id: str) -> Item:
    for name in ("id", "status"):
        if (own := item.get(name)) is not None:
            own.name()
    given = {name: value for name, value in item.mapping().items() if value is not None}
    return {"id": id, "status": "completed", **given}


def _read_message(item: Node, new_id: NewId) -> Item:
    role = item.need("role").choice("user", "assistant", "system", "developer")
    content = item.need("content")
    given = item.get("id")
    id = new_id("msg") if given is None else given.name()
    if role == "assistant":
        return _message(role, _said(content), id)
    if content.is_text:
        return _message(role, [{"type": "input_text", "text": content.value}], id)
    for part in content.items():
        _part(part)
    return _message(role, list(content.value), id)


def _said(content: Node) -> list[Item]:
    if content.is_text:
        return [{"type": "output_text", "text": content.value, "annotations": []}]
    parts: list[Item] = []
    for part in content.items():
        kind = part.need("type")
        if kind.text() in _SAID:
            parts.append({"annotations": [], **part.mapping(), "type": "output_text", "text": part.need("text").text()})
        elif kind.value == "refusal":
            parts.append({"type": "refusal", "refusal": part.need("refusal").text()})
        else:
            raise kind.error(f"a part of type {kind.value[:64]!r} cannot be in a message of the assistant")
    return parts


def _message(role: str, content: list[Item], id: str) -> Item:
    return {"type": "message", "id": id, "status": "completed", "role": role, "content": content}


def turns_of(items: Iterable[Item]) -> list[dict[str, Any]]:
    """Items, as `read_items` and an answer make them, as turns: what the assistant did in a row is one turn."""
    turns: list[dict[str, Any]] = []
    open_turn: dict[str, Any] | None = None  # the assistant's, as long as more may belong to it
    for at, item in enumerate(items):
        kind = item["type"]
        if kind == "function_call_output":
            turns.append({"role": "tool", "tool_call_id": item["call_id"], "content": _content(item["output"])})
            open_turn = None
            continue
        if kind == "message" and item["role"] != "assistant":
            turns.append({"role": item["role"], "content": _content(item["content"])})
            open_turn = None
            continue
        if kind not in ("message", "function_call", "reasoning"):
            raise FieldError(("input", at), f"an item of type {kind!r} is not supported by this server")
        if open_turn is None or (kind != "function_call" and ("tool_calls" in open_turn or open_turn["content"])):
            open_turn = {"role": "assistant", "content": None}
            turns.append(open_turn)
        if kind == "message":
            open_turn["content"] = "".join(part.get("text") or part.get("refusal", "") for part in item["content"])
        elif kind == "function_call":
            # Engines read them as JSON, and models leave them empty where there are none.
            function = {"name": item["name"], "arguments": item["arguments"] or "{}"}
            call = {"id": item["call_id"], "type": "function", "function": function}
            open_turn.setdefault("tool_calls", []).append(call)
        else:
            thoughts = "".join(part["text"] for part in item.get("content") or item["summary"])
            open_turn["reasoning_content"] = open_turn.get("reasoning_content", "") + thoughts
    for turn in turns:
        # A turn that was only thought, or said nothing.
        if turn["content"] is None and "tool_calls" not in turn:
            turn["content"] = ""
    return turns


def _content(content: Any) -> Any:
    if isinstance(content, str):
        return content
    parts = [_part(Node(part)) for part in cast("list[Any]", content)]
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _part(part: Node) -> dict[str, Any]:
    match part.need("type").text():
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": part.need("text").text()}
        case "input_image":
            if (url := part.get("image_url")) is None:
                raise part.error("needs an image_url: files are not kept by this server")
            image = {"url": url.text()}
            if (detail := part.get("detail")) is not None:
                image["detail"] = detail.text()
            return {"type": "image_url", "image_url": image}
        case "input_audio":
            audio = part.need("input_audio")
            return {
                "type": "input_audio",
                "input_audio": {"data": audio.need("data").text(), "format": audio.need("format").text()},
            }
        case other:
            raise part.error(f"a part of type {other!r} is not supported by this server")
