# pyright: basic, reportMissingImports=false
"""The limit for language models: simulated engines behind bare uvicorn, in one process. `PORT SETTINGS`.

The settings are JSON, those of each engine by its model's name. It is what an engine's own server would be, had it no
more to do than to hand out the engine's bytes.
"""

import json
import sys

import uvicorn

from actorrt.serve.llm import SimulatedEngine
from actorrt.serve.llm.engines.interface import EngineCall, Head
from actorrt.serve.llm.engines.simulated import Simulated

engines = {
    name: Simulated(SimulatedEngine.model_validate(settings)) for name, settings in json.loads(sys.argv[2]).items()
}


async def app(scope, receive, send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        for engine in engines.values():
            await engine.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for engine in engines.values():
            await engine.stop()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if scope["path"] == "/health":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        return
    engine = engines[json.loads(body)["model"]] if body else next(iter(engines.values()))
    async for item in engine.generate(EngineCall(scope["path"], body)):
        if type(item) is Head:
            headers = [(name.encode(), value.encode()) for name, value in item.headers]
            await send({"type": "http.response.start", "status": item.status, "headers": headers})
        else:
            await send({"type": "http.response.body", "body": item.data, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        proxy_headers=False,
        log_level="warning",
    )
