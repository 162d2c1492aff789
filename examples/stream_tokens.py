"""Tokens as server-sent events, each sent when it is made. A client that goes away stops the generator.

python examples/stream_tokens.py    or    actorrt serve stream_tokens:app --app-dir examples
curl -N 'http://127.0.0.1:8000/?prompt=tell+me+about+rivers'
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse

from actorrt import serve


@serve.deployment
class Model:
    """Stands for a language model: it says the prompt's words backwards, one every few milliseconds."""

    async def generate(self, prompt: str) -> AsyncIterator[str]:
        for word in reversed(prompt.split()):
            await asyncio.sleep(0.005)
            yield word


@serve.deployment
class Chat:
    def __init__(self, model: Any) -> None:
        self.model = model.options(stream=True)

    async def __call__(self, request: Request) -> StreamingResponse:
        prompt = request.query_params.get("prompt", "say something")
        return StreamingResponse(self.events(prompt), media_type="text/event-stream")

    async def events(self, prompt: str) -> AsyncIterator[str]:
        async for token in self.model.generate.remote(prompt):
            yield f"data: {json.dumps({'token': token})}\n\n"
        yield "data: [DONE]\n\n"


app = Chat.bind(Model.bind())

if __name__ == "__main__":
    serve.run(app, blocking=True)
