# pyright: basic, reportMissingImports=false
"""The limit: one process of uvicorn with Starlette, uvloop and httptools, without access log and proxy headers."""

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from loadtests.servers.answers import BODIES, TAKEN, paced, turns


async def ok(request: Request) -> Response:
    return PlainTextResponse("ok")


async def stream(request: Request) -> Response:
    return StreamingResponse(turns(), media_type="text/plain")


async def paced_stream(request: Request) -> Response:
    return StreamingResponse(paced(), media_type="text/plain")


async def body(request: Request) -> Response:
    return Response(BODIES[request.scope["path"]])


async def taken(request: Request) -> Response:
    return Response(str(len(await request.body())))


ROUTES = [
    Route("/", ok),
    Route("/stream", stream),
    Route("/paced", paced_stream),
    *(Route(path, body) for path in BODIES),
    Route(TAKEN, taken, methods=["POST"]),
]

if __name__ == "__main__":
    uvicorn.run(
        Starlette(routes=ROUTES),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        proxy_headers=False,
        log_level="warning",
    )
