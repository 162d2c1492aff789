"""One request's way through the proxy, against a replica and a router that are made up."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from actorrt.serve.forward import Forwarded
from actorrt.serve.http_request import HttpRequest


class Wire:
    """A connection, a router with one slot, and the replica that has it."""

    line = b"line"

    def __init__(self, answer: Any, *batches: list[bytes]) -> None:
        self.free = 1
        self.written: list[bytes] = []
        self._answer = answer
        self._batches = list(batches)
        self._callback: Any = None
        self.http = self.stream = self
        self.lender = None
        self.may_lend = False
        self.dropped: list[int] = []

    # The connection.

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def finished(self, request: HttpRequest, close: bool) -> None:
        self.written.append(b"END")

    async def drain(self) -> None:
        await asyncio.sleep(0)

    # The router.

    def submit(self, request: Any) -> None:
        self.free -= 1
        request.send(self, self)

    def released(self, slots: Any) -> None:
        assert slots is self
        self.free += 1

    def withdraw(self, request: Any) -> bool:
        return False

    # The replica and its refs.

    def remote_piped(self, receiver: Any, *args: Any) -> Any:
        return self

    def remote(self, *args: Any) -> Any:
        return self

    @property
    def gone(self) -> Any:
        return SimpleNamespace(remote=lambda key: SimpleNamespace(add_done_callback=lambda callback, here: None))

    @property
    def drop_stream(self) -> Any:
        return SimpleNamespace(remote=self.dropped.append)

    def add_done_callback(self, callback: Any, here: bool) -> None:
        self._callback = callback

    def answer(self) -> None:
        self._callback(self)

    def exception(self) -> None:
        return None

    def peek(self) -> Any:
        return self._answer

    async def next_values(self) -> list[bytes]:
        await asyncio.sleep(0)
        return self._batches.pop(0)


def forward(wire: Wire) -> tuple[HttpRequest, set[asyncio.Task[None]]]:
    request = HttpRequest(wire)  # type: ignore[arg-type]
    tasks: set[asyncio.Task[None]] = set()
    Forwarded(request, wire, b"", b"", asyncio.get_running_loop(), tasks, None).start()  # type: ignore[arg-type]
    return request, tasks


async def test_a_stream_holds_its_slot_until_its_end() -> None:
    wire = Wire((b"head", 1, False), [b"a"], [b"b", b"c"], [])
    _, tasks = forward(wire)
    wire.answer()
    assert wire.free == 0
    await asyncio.gather(*tasks)
    assert wire.written == [b"head", b"a", b"bc", b"END"]
    assert wire.free == 1


@pytest.mark.parametrize("turns", range(4))
async def test_a_client_that_goes_in_any_turn_gives_the_slot_of_its_stream_back(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[Any] = []
    monkeypatch.setattr("actorrt.serve.forward.cancel", cancelled.append)
    wire = Wire((b"head", 1, False), [b"a"], [b"b"], [])
    request, tasks = forward(wire)
    wire.answer()
    for _ in range(turns):
        await asyncio.sleep(0)
    request.gone()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert wire.free == 1
    assert cancelled == [wire]


@pytest.mark.parametrize("late", [False, True])
async def test_a_stream_that_nobody_waits_for_any_more_is_not_begun(
    late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[Any] = []
    monkeypatch.setattr("actorrt.serve.forward.cancel", cancelled.append)
    wire = Wire((b"head", 7, False), [b"a"], [])
    request, tasks = forward(wire)
    if late:
        request.respond(b"HTTP/1.1 408")
    else:
        request.gone()
    before = list(wire.written)
    # The replica had answered already.
    wire.answer()
    assert (wire.free, wire.dropped, tasks, wire.written) == (1, [7], set(), before)
