"""One request's way through the proxy, against a replica and a router that are made up."""

import asyncio
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from actorrt import exceptions
from actorrt.serve.proxy.forward import Forwarded
from actorrt.serve.proxy.http_request import HttpRequest
from actorrt.serve.routing.lending import Lending


class Wire:
    """A connection, a router with one slot, the replica that has it, the ref of its call and the pipe beside that."""

    line = b"line"

    def __init__(self, answer: Any) -> None:
        self.free = 1
        self.written: list[bytes] = []
        self._answer = answer
        self._callback: Any = None
        self.http = self
        self.lender = None
        self.lending = Lending.TRIED
        self.receiver: Any = None
        self.tag = None

    # The connection.

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def pass_on(self, data: memoryview) -> bool:
        self.written.append(bytes(data))
        return True

    def finished(self, request: HttpRequest, close: bool) -> None:
        self.written.append(b"END")

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
        self.receiver = receiver
        return self

    @property
    def gone(self) -> Any:
        return SimpleNamespace(remote=lambda _: Mock())  # pyright: ignore[reportUnknownLambdaType]

    def add_done_callback(self, callback: Any, here: bool) -> None:
        self._callback = callback

    def part(self, data: bytes) -> None:
        self.receiver.arrived(self, memoryview(data), False)

    def answer(self) -> None:
        self._callback(self)

    def exception(self) -> Exception | None:
        return self._answer if isinstance(self._answer, Exception) else None

    def peek(self) -> Any:
        return self._answer


def forward(wire: Wire) -> HttpRequest:
    request = HttpRequest(wire)  # type: ignore[arg-type]
    Forwarded(request, wire, b"", b"", asyncio.get_running_loop(), None).start()  # type: ignore[arg-type]
    return request


@pytest.mark.parametrize("end", [b"", (b"", True)])
async def test_a_stream_holds_its_slot_until_its_end(end: Any) -> None:
    wire = Wire(end)
    forward(wire)
    for part in (b"HTTP/1.1 200", b"a", b"bc"):
        wire.part(part)
    assert wire.free == 0
    wire.answer()
    assert wire.written == [b"HTTP/1.1 200", b"a", b"bc", b"END"]
    assert wire.free == 1


@pytest.mark.parametrize("parts", range(3))
async def test_a_client_that_goes_at_any_time_gives_the_slot_of_its_stream_back(
    parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[Any] = []

    def cancel(ref: Any, *, recursive: bool = True) -> None:
        cancelled.append(ref)

    monkeypatch.setattr("actorrt.serve.proxy.forward.cancel", cancel)
    wire = Wire(exceptions.TaskCancelledError("http"))
    request = forward(wire)
    for part in (b"HTTP/1.1 200", b"a")[:parts]:
        wire.part(part)
    request.gone()
    # What is on its way still is nobody's.
    wire.part(b"late")
    assert wire.free == 0
    wire.answer()
    assert wire.free == 1
    assert cancelled == ([wire] if parts else [])
    assert b"late" not in wire.written


@pytest.mark.parametrize("late", [False, True])
async def test_a_stream_that_nobody_waits_for_any_more_is_not_written(late: bool) -> None:
    wire = Wire(b"")
    request = forward(wire)
    if late:
        request.respond(b"HTTP/1.1 408")
    else:
        request.gone()
    before = list(wire.written)
    # The replica has answered already.
    wire.part(b"HTTP/1.1 200")
    wire.answer()
    assert (wire.free, wire.written) == (1, before)
