"""The tools of a Messages request as those of chat/completions. No I/O."""

from typing import Any

from ..fields import Node


def chat_tools(request: Node, *, ignore: bool = False) -> dict[str, Any]:
    """`tools`, `tool_choice` and `parallel_tool_calls` of chat/completions, as far as the request has them.

    `ignore`: tools of Anthropic's own are left out and not refused.
    """
    chat: dict[str, Any] = {}
    names: set[str] = set()
    tools = request.get("tools")
    given = [] if tools is None else [tool for tool in tools.items() if not ignore or _is_clients(tool)]
    if converted := [_tool(tool, names) for tool in given]:
        chat["tools"] = converted
    choice = request.get("tool_choice")
    if choice is not None:
        match choice.need("type").choice("auto", "any", "tool", "none"):
            case "tool":
                name = choice.need("name")
                if name.text() not in names:
                    raise name.error(f"there is no tool {name.value[:64]!r} in tools")
                chat["tool_choice"] = {"type": "function", "function": {"name": name.value}}
            case "any":
                if not names:
                    raise choice.error("'any' needs at least one tool in tools")
                chat["tool_choice"] = "required"
            case other:
                chat["tool_choice"] = other
        if (alone := choice.get("disable_parallel_tool_use")) is not None:
            chat["parallel_tool_calls"] = not alone.flag()
    return chat


def _is_clients(tool: Node) -> bool:
    """Whether it has an input_schema, and is no tool that Anthropic's own models know."""
    kind = tool.get("type")
    return kind is None or kind.text() == "custom"


def _tool(tool: Node, names: set[str]) -> dict[str, Any]:
    if not _is_clients(tool):
        kind = tool.need("type")
        raise kind.error(f"the tool {kind.value[:64]!r} is Anthropic's own; here are tools that have an input_schema")
    name = tool.need("name")
    if name.name(128) in names:
        raise name.error(f"there are two tools {name.value!r}")
    names.add(name.value)
    function: dict[str, Any] = {"name": name.value, "parameters": tool.need("input_schema").mapping()}
    if (description := tool.get("description")) is not None:
        function["description"] = description.text()
    if (strict := tool.get("strict")) is not None:
        function["strict"] = strict.flag()
    return {"type": "function", "function": function}
