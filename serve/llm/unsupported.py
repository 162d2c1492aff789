"""Parameters that an engine lacks and takes in silence: refused or ignored, by one rule for all of them.

Only what an engine of a kind is known to leave unread stands here, and what it says of itself (`EngineFacts`). Else a
`server` engine checks what it is sent, and the simulated engine generates nothing that a parameter could change.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from .engines.interface import EngineFacts
from .problems import Problem
from .routes import Kind

Asks = Callable[[Any], bool]
Rule = Literal["refuse", "ignore"]


def _anything(value: Any) -> bool:
    return value not in (None, False, [], {}, "")


def _names_function(value: Any) -> bool:
    # Without functions the others say nothing; with them these are refused.
    return value not in (None, "none", "auto")


def _more_than_one(value: Any) -> bool:
    return isinstance(value, int) and value > 1


def _more_than_text(value: Any) -> bool:
    return value not in (None, [], ["text"])


_LLAMACPP: Final[Mapping[str, Asks]] = {
    "audio": _anything,
    "best_of": _more_than_one,
    "echo": _anything,
    "function_call": _names_function,
    "functions": _anything,
    "modalities": _more_than_text,
    "prediction": _anything,
    "prompt_logprobs": _anything,
    "suffix": _anything,
    "use_beam_search": _anything,
    "web_search_options": _anything,
}
_LACKED: Final[Mapping[tuple[str, Kind], Mapping[str, Asks]]] = {
    ("llamacpp", Kind.CHAT): _LLAMACPP,
    ("llamacpp", Kind.COMPLETION): _LLAMACPP,
    # Vectors of another length would be taken for those that were asked for.
    ("llamacpp", Kind.EMBEDDINGS): {"dimensions": _anything},
}
_GENERATES: Final = frozenset({Kind.CHAT, Kind.COMPLETION})


def check_supported(kind: Kind, fields: Mapping[str, Any], facts: EngineFacts, rule: Rule) -> None:
    """Problem 400 that names a parameter that the engine would leave unread."""
    if rule == "ignore":
        return
    if kind in _GENERATES:
        check_tools(fields, facts, rule)
    lacked = _LACKED.get((facts.kind, kind))
    if not lacked:
        return
    for name, value in fields.items():
        if (asks := lacked.get(name)) is not None and asks(value):
            raise unsupported(name, facts.kind)


def check_tools(fields: Mapping[str, Any], facts: EngineFacts, rule: Rule) -> None:
    """The same for tools alone, which chat and Messages name alike. They may stand there for none to be called."""
    if facts.takes_tools or rule == "ignore" or not fields.get("tools"):
        return
    if fields.get("tool_choice") not in ("none", {"type": "none"}):
        message = "the chat template of this model has no tools: it would not be told of them"
        raise Problem(400, message, param="tools", code="unsupported_parameter")


def unsupported(name: str, engine: str) -> Problem:
    message = f"the engine of this model ({engine}) has no {name!r}"
    return Problem(400, message, param=name, code="unsupported_parameter")
