# pyright: basic, reportMissingImports=false
"""The deployment that Ray Serve and actorrt serve run: the same class for both."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from loadtests.servers.answers import BODIES, TAKEN, paced, turns


class Answers:
    async def __call__(self, request: Request) -> Any:
        match request.scope["path"]:
            case "/stream":
                return StreamingResponse(turns(), media_type="text/plain")
            case "/paced":
                return StreamingResponse(paced(), media_type="text/plain")
            case path if path in BODIES:
                return Response(BODIES[path])
            case path if path == TAKEN:
                return Response(str(len(await request.body())))
            case _:
                return "ok"
