"""Clients of a chat application whose requests are noted one by one: when each was asked, began and ended.

Requests are streamed, over 127.0.0.1 alone. A load is a set of users who ask again as soon as they have their answer,
or requests at given times.
"""

import asyncio
import json
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

import httpx

from loadtests import processes
from loadtests.http_side import Server, free_port, wait_for_200
from loadtests.llm.stream import Seen
from loadtests.venvs import ROOT

_START_LIMIT_S: Final = 90.0
_LIMIT_S: Final = 120.0


class AnswerError(Exception):
    """An answer was refused or was not whole."""


@dataclass(frozen=True, slots=True)
class Question:
    prompt: str
    max_tokens: int
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class Noted:
    """One request. Seconds, `asked_at` since the load began."""

    tenant: str
    asked_at: float
    prompt_tokens: int
    cached_tokens: int
    tokens: int
    ttft: float | None
    """None: it was left before there was any text."""
    tpot: float | None
    lasted: float
    is_whole: bool
    came_at: tuple[float, ...]
    """When each part of the text came, since the load began."""

    def as_json(self) -> dict[str, Any]:
        told = {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self).items()}
        return {**told, "came_at": [round(each, 3) for each in self.came_at]}


class Clients:
    """`model` at this port; the load begins now."""

    def __init__(self, port: int, model: str) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        self._http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=_LIMIT_S, limits=limits)
        self._model = model
        self._began = time.monotonic()
        self.noted: list[Noted] = []

    async def __aenter__(self) -> "Clients":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(self, question: Question) -> None:
        """AnswerError if there is no whole answer."""
        body = {
            "model": self._model, "messages": [{"role": "user", "content": question.prompt}], "stream": True,
            "max_tokens": question.max_tokens, "ignore_eos": True, "stream_options": {"include_usage": True},
        }  # fmt: skip
        headers = {"authorization": f"Bearer sk-{question.tenant}"} if question.tenant else {}
        seen = Seen(time.monotonic())
        came_at: list[float] = []
        try:
            async with self._http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
                if answer.status_code != 200:
                    raise AnswerError(f"{answer.status_code}: {(await answer.aread())[:200]!r}")
                async for data in answer.aiter_raw():
                    before = seen.last_at
                    seen.feed(data, time.monotonic())
                    if seen.last_at is not None and seen.last_at != before:
                        came_at.append(seen.last_at - self._began)
        except asyncio.CancelledError:
            self._note(question, seen, came_at, is_whole=False)
            raise
        if seen.truncated or seen.ttft is None:
            raise AnswerError(seen.error or "an answer was cut short")
        self._note(question, seen, came_at, is_whole=True)

    def _note(self, question: Question, seen: Seen, came_at: list[float], *, is_whole: bool) -> None:
        self.noted.append(
            Noted(
                question.tenant, seen.asked_at - self._began, seen.prompt_tokens or 0, seen.cached_tokens,
                seen.completion_tokens or 0, seen.ttft, seen.tpot, time.monotonic() - seen.asked_at, is_whole,
                tuple(came_at),
            )
        )  # fmt: skip

    async def users(self, count: int, seconds: float, draw: Callable[[Random], Question], seed: int) -> None:
        """So many who ask again and again, until those seconds are over. Their last answers are not waited for."""

        async def user(number: int) -> None:
            dice = Random(1000 * seed + number)
            while True:
                await self.ask(draw(dice))

        tasks = [asyncio.ensure_future(user(number)) for number in range(count)]
        done, pending = await asyncio.wait(tasks, timeout=seconds)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            await task

    async def at(self, questions: Iterable[tuple[float, Question]]) -> None:
        """Each at its time, in seconds since the load began; returns when all are answered."""
        async with asyncio.TaskGroup() as group:
            for at, question in questions:
                await asyncio.sleep(max(0.0, at - (time.monotonic() - self._began)))
                group.create_task(self.ask(question))


@contextmanager
def chat_app(settings: Mapping[str, Any], actorrt: Path, log: Path) -> Generator[int]:
    """The port of the chat application with these settings (loadtests/servers/chat_app.py). Raises RunError."""
    port = free_port()
    command = [str(actorrt), "serve", "loadtests.servers.chat_app:graph", "--port", str(port), "--app-dir", str(ROOT)]
    variables = {"CHAT_APP": json.dumps(settings)}
    with processes.started(command, variables=variables, log=log, folder=ROOT, talks=False) as process:
        ready = Server(lambda run, port: [], path="/health")
        wait_for_200(process, port, ready, time.perf_counter() + _START_LIMIT_S)
        yield port
