"""Tell llama.cpp which tools a chat may call, which it reads from `tools` alone. No I/O.

Of a `tool_choice` it takes no more than whether one must be called: an object that names tools means "auto" to it. So a
request that names some is given to it with these tools only.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from ..resume.events import a_dict, a_list
from .interface import EngineCall
from .request_fields import Refused

_CHAT: Final = "/v1/chat/completions"
_MARK: Final = b'"tool_choice"'


class _Chosen(NamedTuple):
    names: frozenset[str]
    mode: str
    """Whether one of these must be called: "auto" or "required"."""


def with_chosen_tools(call: EngineCall) -> EngineCall:
    """The call as llama.cpp understands it. Refused if it chooses a tool that is not there."""
    if call.path != _CHAT or _MARK not in call.body:
        return call
    try:
        fields = msgspec.json.decode(call.body, type=dict[str, msgspec.Raw])
        choice: object = msgspec.json.decode(fields["tool_choice"])
        tools = msgspec.json.decode(fields.get("tools", msgspec.Raw(b"[]")), type=list[msgspec.Raw] | None)
    except (ValueError, KeyError, RecursionError):
        return call  # for llama.cpp to say what is wrong
    if (chosen := _read(a_dict(choice))) is None:
        return call
    named = {_name_of(a_dict(msgspec.json.decode(tool))): tool for tool in tools or ()}
    if absent := sorted(chosen.names - named.keys()):
        raise Refused(f"'tool_choice' names {absent[0]!r}, which is not in 'tools'", "tool_choice")
    kept = [tool for name, tool in named.items() if name in chosen.names]
    fields |= {
        "tools": msgspec.Raw(msgspec.json.encode(kept)),
        "tool_choice": msgspec.Raw(msgspec.json.encode(chosen.mode)),
    }
    return call._replace(body=msgspec.json.encode(fields))


def _read(choice: Mapping[str, Any]) -> _Chosen | None:
    match choice.get("type"):
        case "function":
            return _Chosen(frozenset({_name_of(choice)}), "required")
        case "allowed_tools":
            allowed = a_dict(choice.get("allowed_tools"))
            names = frozenset(_name_of(a_dict(each)) for each in a_list(allowed.get("tools")))
            return _Chosen(names, str(allowed.get("mode", "auto")))
        case _:
            return None


def _name_of(tool: Mapping[str, Any]) -> str:
    return str(a_dict(tool.get("function")).get("name"))
