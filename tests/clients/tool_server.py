"""A server with nothing but chat/completions whose model does one thing: it calls the first tool that it is given, with
the first value that each argument may have, and then says what the tool gave. For `ServerEngine`."""

import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def answer_to(asked: dict[str, Any]) -> dict[str, Any]:
    last = asked["messages"][-1]
    if last["role"] == "tool":
        return {"role": "assistant", "content": f"It says {last['content']}."}
    function = asked["tools"][0]["function"]
    properties = function["parameters"]["properties"]
    arguments = json.dumps({name: schema["enum"][0] for name, schema in properties.items()})
    called = {"id": "call_1", "type": "function", "function": {"name": function["name"], "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [called]}


async def events(head: dict[str, Any], message: dict[str, Any]) -> AsyncIterator[str]:
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None}]
    for number, call in enumerate(message.get("tool_calls", ())):
        arguments = call["function"]["arguments"]
        begun = {**call, "index": number, "function": {"name": call["function"]["name"], "arguments": ""}}
        deltas.append({"tool_calls": [begun]})
        parts = (arguments[:5], arguments[5:])
        deltas += [{"tool_calls": [{"index": number, "function": {"arguments": part}}]} for part in parts]
    deltas += [{"content": word + " "} for word in (message["content"] or "").split()]
    ended = "tool_calls" if "tool_calls" in message else "stop"
    for delta, reason in (*((delta, None) for delta in deltas), ({}, ended)):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        yield f"data: {json.dumps({**head, 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"
    yield f"data: {json.dumps({**head, 'object': 'chat.completion.chunk', 'choices': [], 'usage': USAGE})}\n\n"
    yield "data: [DONE]\n\n"


async def chat(request: Request) -> Response:
    asked = await request.json()
    if not asked.get("messages"):
        return JSONResponse({"error": {"message": "no messages", "type": "invalid_request_error"}}, status_code=400)
    head = {"id": "chatcmpl-1", "created": 1, "model": asked.get("model", "tools")}
    message = answer_to(asked)
    if asked.get("stream"):
        return StreamingResponse(events(head, message), media_type="text/event-stream")
    ended = "tool_calls" if "tool_calls" in message else "stop"
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": ended}
    return JSONResponse({**head, "object": "chat.completion", "choices": [choice], "usage": USAGE})


async def health(request: Request) -> Response:
    return Response()


if __name__ == "__main__":
    routes = [Route("/v1/chat/completions", chat, methods=["POST"]), Route("/health", health)]
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
