"""A Responses request: what is asked of a model, and what is asked of this server. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..checks import MOST
from ..fields import FieldError, Node
from .items import Item, NewId, read_items, turns_of
from .tools import chat_tools

# What is read below, and what changes nothing of an answer.
_READ: Final = frozenset(
    {"model", "input", "instructions", "max_output_tokens", "temperature", "top_p", "top_logprobs", "include", "text"}
    | {"tools", "tool_choice", "parallel_tool_calls", "reasoning", "metadata", "store", "stream", "background", "user"}
    | {"previous_response_id", "truncation"}
)
_HINTS: Final = frozenset(
    {"stream_options", "max_tool_calls", "service_tier", "safety_identifier", "background_options"}
    | {"prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"}
)
# Known to OpenAI, and to nothing here.
_ELSEWHERE: Final = frozenset(
    {"conversation", "prompt", "context_management", "moderation", "image", "access_programs"}
)
_LOGPROBS: Final = "message.output_text.logprobs"


@dataclass(frozen=True, slots=True)
class ResponsesRequest:
    """What a client asks for, checked."""

    fields: Mapping[str, Any]
    items: Sequence[Item]
    """Of `input`, complete, but for references."""
    chat: Mapping[str, Any]
    """What goes to chat/completions, but for the messages and the model."""
    instructions: str | None
    stream: bool
    background: bool
    store: bool
    previous: str | None

    def chat_body(self, context: Sequence[Item], model: str) -> dict[str, Any]:
        """The request for chat/completions about these items. Raises FieldError for one that cannot be said there."""
        try:
            turns = turns_of(context)
        except (KeyError, AttributeError, TypeError):
            # Those of `input` were read; one of an engine of its own may have any shape.
            raise FieldError(("previous_response_id",), "names a response that this model cannot go on with") from None
        if self.instructions is not None:
            turns.insert(0, {"role": "system", "content": self.instructions})
        if not turns:
            raise FieldError(("input",), "there must be at least one item")
        body: dict[str, Any] = {**self.chat, "model": model, "messages": turns}
        if self.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body


def read_request(fields: Mapping[str, Any], new_id: NewId, *, ignore: bool = False) -> ResponsesRequest:
    """Raises FieldError. `ignore`: what this server lacks is left out and not refused."""
    request = Node(fields)
    for name in sorted(_ELSEWHERE & fields.keys()):
        if fields[name] is not None and not ignore:
            raise FieldError((name,), "is not supported by this server")
    truncation = request.get("truncation")
    if truncation is not None and truncation.choice("auto", "disabled") == "auto" and not ignore:
        raise truncation.error("'auto' is not supported by this server: leave out what does not fit")
    items = read_items(request.need("input"), new_id)
    instructions = request.get("instructions")
    previous = request.get("previous_response_id")
    background, store = _flag(request, "background", False), _flag(request, "store", True)
    if background and not store:
        raise FieldError(("background",), "needs store to be true: the answer is fetched later")
    _check_metadata(request)
    own = {name: value for name, value in fields.items() if name not in _READ | _HINTS | _ELSEWHERE}
    return ResponsesRequest(
        fields=fields,
        items=items,
        chat={**own, **_sampling(request), **chat_tools(request, ignore=ignore), **_form(request)},
        instructions=None if instructions is None else instructions.text(),
        stream=_flag(request, "stream", False),
        background=background,
        store=store,
        previous=None if previous is None else previous.name(),
    )


def _flag(request: Node, name: str, default: bool) -> bool:
    node = request.get(name)
    return default if node is None else node.flag()


def _sampling(request: Node) -> dict[str, Any]:
    chat: dict[str, Any] = {}
    if (most := request.get("max_output_tokens")) is not None:
        chat["max_tokens"] = most.whole(1, MOST)
    if (temperature := request.get("temperature")) is not None:
        chat["temperature"] = temperature.number(0, 2)
    if (top_p := request.get("top_p")) is not None:
        chat["top_p"] = top_p.number(0, 1)
    if (user := request.get("user")) is not None:
        chat["user"] = user.text()
    top = request.get("top_logprobs")
    include = request.get("include")
    wanted = [] if include is None else [each.text() for each in include.items()]
    if _LOGPROBS in wanted or (top is not None and top.whole(0, 20) > 0):
        chat["logprobs"] = True
        if top is not None:
            chat["top_logprobs"] = top.whole(0, 20)
    return chat


def _form(request: Node) -> dict[str, Any]:
    chat: dict[str, Any] = {}
    if (reasoning := request.get("reasoning")) is not None and (effort := reasoning.get("effort")) is not None:
        chat["reasoning_effort"] = effort.text()
    if (text := request.get("text")) is None:
        return chat
    if (verbosity := text.get("verbosity")) is not None:
        chat["verbosity"] = verbosity.choice("low", "medium", "high")
    if (form := text.get("format")) is not None:
        match form.need("type").choice("text", "json_object", "json_schema"):
            case "json_object":
                chat["response_format"] = {"type": "json_object"}
            case "json_schema":
                schema: dict[str, Any] = {"name": form.need("name").name(64), "schema": form.need("schema").mapping()}
                if (description := form.get("description")) is not None:
                    schema["description"] = description.text()
                if (strict := form.get("strict")) is not None:
                    schema["strict"] = strict.flag()
                chat["response_format"] = {"type": "json_schema", "json_schema": schema}
            case _:
                pass
    return chat


def _check_metadata(request: Node) -> None:
    if (metadata := request.get("metadata")) is None:
        return
    pairs = metadata.mapping()
    if len(pairs) > 16:
        raise metadata.error(f"must have at most 16 keys, not {len(pairs)}")
    for name, value in pairs.items():
        if len(name) > 64:
            raise metadata.error(f"has a key of {len(name)} characters: 64 are the most")
        if len(Node(value, (*metadata.path, name)).text()) > 512:
            raise FieldError((*metadata.path, name), "must have at most 512 characters")
