"""A Messages request as a chat/completions request that asks for the same. No I/O."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ..chat_answers import GO_ON, prefill_of
from ..checks import MOST
from ..fields import FieldError, Node
from .content import system_turn, turns_of
from .tools import chat_tools

# What is read below, and hints that change nothing of an answer: the cache of the engine's own is used anyway.
_READ: Final = frozenset(
    {"model", "messages", "max_tokens", "system", "stop_sequences", "temperature", "top_p", "top_k", "metadata"}
    | {"stream", "tools", "tool_choice", "thinking", "output_config"}
)
_HINTS: Final = frozenset(
    {"cache_control", "service_tier", "inference_geo", "diagnostics", "speed", "user_profile_id", "workspace_id"}
    # What may be dropped of a long conversation: here nothing is.
    | {"context_management"}
)
_ELSEWHERE: Final = frozenset({"container", "mcp_servers"})


class ChatRequest(NamedTuple):
    """What goes to the engine, and what must be known to read its answer."""

    body: dict[str, Any]
    stop_sequences: tuple[str, ...]
    prefill: str
    """The text with which the client began the answer; "" if it did not."""


def check(body: Mapping[str, Any], *, counting: bool = False) -> None:
    """What must hold of any request, whoever answers it. Raises FieldError."""
    request = Node(body)
    if not counting:
        request.need("max_tokens").whole(1, MOST)
    messages = request.need("messages")
    if not list(messages.items()):
        raise messages.error("there must be at least one message")
    for message in messages.items():
        message.need("role").choice("user", "assistant", "system")
        content = message.need("content")
        if not content.is_text:
            blocks = list(content.items())
            if not blocks and message.value["role"] == "user":
                raise content.error("there must be at least one block")
            for block in blocks:
                block.need("type").text()
    if (stream := request.get("stream")) is not None:
        stream.flag()
    _sampling(request)


def chat_request(body: Mapping[str, Any], model: str, *, counting: bool = False, ignore: bool = False) -> ChatRequest:
    """The request for chat/completions. Raises FieldError, also for what nothing here could answer.

    `ignore`: a field that this server lacks is left out and not refused.
    A field that the Messages API does not have is the engine's own, and goes on as it is.
    """
    check(body, counting=counting)
    request = Node(body)
    chat = {name: value for name, value in body.items() if name not in _READ | _HINTS | _ELSEWHERE}
    for name in _ELSEWHERE & body.keys():
        if body[name] is not None and not ignore:
            raise FieldError((name,), "is not supported by this server")
    messages: list[dict[str, Any]] = []
    if (system := request.get("system")) is not None:
        messages.append(system_turn(system))
    for message in request.need("messages").items():
        messages.extend(turns_of(message))
    sampling = _sampling(request)
    chat |= {"model": model, "messages": messages, **sampling, **chat_tools(request, ignore=ignore)}
    chat |= _thinking(request)
    stop_sequences: tuple[str, ...] = tuple(sampling.get("stop", ()))
    prefill = ""
    if begun := prefill_of(messages):
        chat |= GO_ON
        prefill = begun
    if not counting:
        chat["max_tokens"] = body["max_tokens"]
        if body.get("stream"):
            chat |= {"stream": True, "stream_options": {"include_usage": True}}
    return ChatRequest(chat, stop_sequences, prefill)


def _sampling(request: Node) -> dict[str, Any]:
    chat: dict[str, Any] = {}
    if (temperature := request.get("temperature")) is not None:
        # Anthropic stops at 1; engines do not, and know why.
        chat["temperature"] = temperature.number(0, 2)
    if (top_p := request.get("top_p")) is not None:
        chat["top_p"] = top_p.number(0, 1)
    if (top_k := request.get("top_k")) is not None:
        chat["top_k"] = top_k.whole(0)
    if (stops := request.get("stop_sequences")) is not None and (given := [_stop(stop) for stop in stops.items()]):
        chat["stop"] = given
    if (metadata := request.get("metadata")) is not None and (user := metadata.get("user_id")) is not None:
        chat["user"] = user.text()
    return chat


def _stop(stop: Node) -> str:
    if not stop.text().strip():
        raise stop.error("must hold something else than white space")
    return stop.value


def _thinking(request: Node) -> dict[str, Any]:
    chat: dict[str, Any] = {}
    if (thinking := request.get("thinking")) is not None:
        kind = thinking.need("type").text()
        chat["chat_template_kwargs"] = {"enable_thinking": kind != "disabled"}
        if kind == "enabled":
            chat["thinking_budget_tokens"] = thinking.need("budget_tokens").whole(1)
    if (config := request.get("output_config")) is not None:
        if (effort := config.get("effort")) is not None:
            chat["reasoning_effort"] = effort.text()
        if (form := config.get("format")) is not None:
            form.need("type").choice("json_schema")
            schema = {"name": "answer", "schema": form.need("schema").mapping(), "strict": True}
            chat["response_format"] = {"type": "json_schema", "json_schema": schema}
    return chat
