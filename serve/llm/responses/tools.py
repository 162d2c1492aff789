"""The tools of a Responses request as those of chat/completions. No I/O."""

from typing import Any

from ..fields import Node


def chat_tools(request: Node, *, ignore: bool = False) -> dict[str, Any]:
    """`tools`, `tool_choice` and `parallel_tool_calls` of chat/completions, as far as the request has them.

    `ignore`: tools that are no functions are left out and not refused.
    """
    chat: dict[str, Any] = {}
    tools: dict[str, dict[str, Any]] = {}
    if (given := request.get("tools")) is not None:
        for tool in given.items():
            if ignore and not is_function(tool.need("type").text()):
                continue
            name, converted = _tool(tool)
            if name in tools:
                raise tool.error(f"there are two tools {name!r}")
            tools[name] = converted
    allowed = list(tools)
    if (choice := request.get("tool_choice")) is not None:
        chosen, allowed = _choice(choice, allowed)
        chat["tool_choice"] = chosen
    if allowed:
        chat["tools"] = [tools[name] for name in allowed]
    if (parallel := request.get("parallel_tool_calls")) is not None and parallel.flag() is False:
        chat["parallel_tool_calls"] = False
    return chat


def is_function(kind: str) -> bool:
    """Whether a tool of this type is called by its client, and so may be offered to any model."""
    return kind == "function"


def _tool(tool: Node) -> tuple[str, dict[str, Any]]:
    kind = tool.need("type")
    if not is_function(kind.text()):
        raise kind.error(f"the tool {kind.value[:64]!r} is not there on this server; tools of type 'function' are")
    name = tool.need("name").name(128)
    function: dict[str, Any] = {"name": name}
    if (parameters := tool.get("parameters")) is not None:
        function["parameters"] = parameters.mapping()
    if (description := tool.get("description")) is not None:
        function["description"] = description.text()
    if (strict := tool.get("strict")) is not None:
        function["strict"] = strict.flag()
    return name, {"type": "function", "function": function}


def _choice(choice: Node, names: list[str]) -> tuple[Any, list[str]]:
    """The choice for chat/completions and the tools that are left to choose from."""
    if choice.is_text:
        chosen = choice.choice("auto", "none", "required")
        if chosen == "required" and not names:
            raise choice.error("'required' needs at least one tool in tools")
        return chosen, names
    match choice.need("type").choice("function", "allowed_tools"):
        case "function":
            name = _known(choice.need("name"), names)
            return {"type": "function", "function": {"name": name}}, names
        case _:
            allowed = [_known(tool.need("name"), names) for tool in choice.need("tools").items()]
            return choice.need("mode").choice("auto", "required"), [name for name in names if name in allowed]


def _known(name: Node, names: list[str]) -> str:
    if name.text() not in names:
        raise name.error(f"there is no tool {name.value[:64]!r} in tools")
    return name.value
