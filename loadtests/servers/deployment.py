# pyright: basic, reportMissingImports=false
"""The deployment that Ray Serve and actorrt serve run: the same class for both."""

from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse

from loadtests.servers.answers import paced, turns


class Answers:
    async def __call__(self, request: Request) -> Any:
        match request.scope["path"]:
            case "/stream":
                return StreamingResponse(turns(), media_type="text/plain")
            case "/paced":
                return StreamingResponse(paced(), media_type="text/plain")
            case _:
                return "ok"
