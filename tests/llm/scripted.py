"""A model that does what a request's own field `script` says, step by step: how the front takes each turn of events.

With `scripts`, a list of them, each call for one user follows the next.

Steps: ["head", status, content type], ["say", text, tokens], ["wait", name] until somebody tells it, ["raise"] an
EngineError, ["crash"] that of an engine that died, ["die"] with the process, ["fail", path of a file, times, status,
text]: of all replicas, so many calls end with this answer; each call lengthens the file by a byte.
"""

import asyncio
import json
import os
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator
from typing import Any

from actorrt import serve
from actorrt.serve.llm.engines.interface import (
    Capacity,
    Delta,
    EngineCall,
    EngineDiedError,
    EngineError,
    EngineFacts,
    Head,
)

PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings"})


def chunk(text: str | None = None, finish: str | None = None, **more: Any) -> str:
    delta = {} if text is None else {"content": text}
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta, 'finish_reason': finish}], **more})}\n\n"


class Scripted:
    def __init__(self, paths: frozenset[str], takes_tools: bool = True) -> None:
        self._paths = paths
        self._takes_tools = takes_tools
        self._running = 0
        self._adapters: dict[str, str] = {}
        self._calls: list[Any] = []
        self._calls_of = Counter[str]()
        self._told: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def facts(self) -> EngineFacts:
        return EngineFacts("scripted", self._paths, Capacity(1000, 4, 1000), takes_tools=self._takes_tools)

    async def generate(self, call: EngineCall) -> AsyncGenerator[Any]:
        asked = json.loads(call.body)
        user = asked.get("user", "")
        self._running += 1
        self._calls.append((call.path, call.body, call.stream, call.headers))
        self._told[f"{user} began"].set()
        script = asked["scripts"][self._calls_of[user]] if "scripts" in asked else asked["script"]
        self._calls_of[user] += 1
        try:
            for step, *args in script:
                match step:
                    case "head":
                        yield Head(args[0], (("content-type", args[1]), ("x-engine", "scripted"), ("server", "it")))
                    case "say":
                        yield Delta(args[0].encode(), args[1])
                    case "wait":
                        await self._told[args[0]].wait()
                    case "raise":
                        raise EngineError("a secret reason")
                    case "fail":
                        path, times, status, text = args
                        if _lengthened(path) <= times:
                            yield Head(status, (("content-type", "application/json"), ("retry-after", "7")))
                            yield Delta(text.encode())
                            return
                    case "crash":
                        raise EngineDiedError("it ended as it answered")
                    case "die":
                        os._exit(3)
                    case _:
                        raise ValueError(step)
        finally:
            self._running -= 1
            self._told[f"{user} ended"].set()

    async def statistics(self) -> dict[str, float]:
        return {"running": self._running, "waiting": 0}

    async def load_adapter(self, name: str, path: str) -> None:
        """A path "missing" is not there; "PATH after NAME" is loaded, or found missing, once somebody tells NAME."""
        self._told[f"{name} is loaded"].set()
        if after := path.partition(" after ")[2]:
            await self._told[after].wait()
        if path.startswith("missing"):
            raise EngineError(f"there is no adapter file {path!r}")
        self._adapters[name] = path

    async def unload_adapter(self, name: str) -> None:
        if self._adapters.pop(name, None) is None:
            raise ValueError(f"there is no adapter {name!r}")

    # What tests call by a handle.

    async def adapters(self) -> dict[str, str]:
        return self._adapters

    async def calls(self) -> list[Any]:
        return self._calls

    async def tell(self, name: str) -> None:
        self._told[name].set()

    async def until(self, name: str) -> None:
        """Of a request's user: "NAME began" and "NAME ended"."""
        await self._told[name].wait()


def _lengthened(path: str) -> int:
    """Its size, one byte more than before."""
    with open(path, "ab") as file:
        file.write(b"x")
        return file.tell()


def scripted(*paths: str, takes_tools: bool = True, **options: Any) -> Any:
    """`options` of its deployment."""
    given = {"name": "scripted", "max_ongoing_requests": 16, **options}
    return serve.deployment(**given)(Scripted).bind(PATHS | {*paths}, takes_tools)
