"""The turns of a Messages request as those of chat/completions. No I/O."""

import json
from collections.abc import Iterator
from typing import Any

from ..fields import Node

Turn = dict[str, Any]


def system_turn(system: Node) -> Turn:
    """`system`: a text, or blocks of text."""
    return {"role": "system", "content": system.text() if system.is_text else "".join(map(_only_text, system.items()))}


def turns_of(message: Node) -> Iterator[Turn]:
    """One message as the turns that say the same: results of tools are turns of their own, before what else is said."""
    role = message.need("role").choice("user", "assistant", "system")
    content = message.need("content")
    if role == "system":
        yield system_turn(content)
    elif content.is_text:
        yield {"role": role, "content": content.value}
    elif role == "assistant":
        yield _assistant(content)
    else:
        yield from _user(content)


def _user(content: Node) -> Iterator[Turn]:
    parts: list[dict[str, Any]] = []
    for block in content.items():
        if _type_of(block) == "tool_result":
            yield _tool_result(block)
        else:
            parts.append(_part(block))
    if parts:
        yield {"role": "user", "content": _shortest(parts)}


def _assistant(content: Node) -> Turn:
    texts: list[str] = []
    calls: list[dict[str, Any]] = []
    thoughts: list[str] = []
    for block in content.items():
        match _type_of(block):
            case "text":
                texts.append(block.need("text").text())
            case "tool_use":
                calls.append(_tool_use(block))
            case "thinking":
                thoughts.append(block.need("thinking").text())
            case "redacted_thinking":
                # Encrypted, by a server that is not this one: nobody here can read it.
                pass
            case other:
                raise block.error(f"a block of type {other!r} cannot be in a message of the assistant here")
    # One text, since engines put white space between several, which the assistant has not said.
    turn: Turn = {"role": "assistant", "content": None if calls and not texts else "".join(texts)}
    if thoughts:
        turn["reasoning_content"] = "".join(thoughts)
    if calls:
        turn["tool_calls"] = calls
    return turn


def _tool_use(block: Node) -> dict[str, Any]:
    arguments = json.dumps(block.need("input").mapping(), ensure_ascii=False)
    function = {"name": block.need("name").name(), "arguments": arguments}
    return {"id": block.need("id").name(), "type": "function", "function": function}


def _tool_result(block: Node) -> Turn:
    told = block.get("content")
    content: Any = ""
    if told is not None:
        content = told.value if told.is_text else _shortest([_part(each) for each in told.items()])
    return {"role": "tool", "tool_call_id": block.need("tool_use_id").name(), "content": content}


def _part(block: Node) -> dict[str, Any]:
    match _type_of(block):
        case "text":
            return {"type": "text", "text": block.need("text").text()}
        case "image":
            return {"type": "image_url", "image_url": {"url": _image(block.need("source"))}}
        case "document":
            return {"type": "text", "text": _document(block.need("source"))}
        case other:
            raise block.error(f"a block of type {other!r} is not supported here; text, image and tool_result are")


def _image(source: Node) -> str:
    if source.need("type").choice("base64", "url") == "url":
        return source.need("url").text()
    return f"data:{source.need('media_type').name()};base64,{source.need('data').text()}"


def _document(source: Node) -> str:
    kind = source.need("type")
    if kind.value != "text":
        raise kind.error("must be 'text': documents of other kinds are not read here")
    return source.need("data").text()


def _only_text(block: Node) -> str:
    block.need("type").choice("text")
    return block.need("text").text()


def _type_of(block: Node) -> str:
    return block.need("type").text()


def _shortest(parts: list[dict[str, Any]]) -> Any:
    """One text is a string, which the templates of all models take."""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts
