"""Histories of one forwarded request: its client, its router, its replicas and the clock in any order, step by step."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any, Final, cast

import pytest

from actorrt import exceptions
from actorrt.serve.exceptions import ReplicaUnavailableError, RequestStoppedError
from actorrt.serve.proxy import forward
from actorrt.serve.proxy.answer import Answer
from actorrt.serve.proxy.forward import Forwarded
from actorrt.serve.proxy.http_request import HttpRequest
from actorrt.serve.routing.lending import Lending


class Ref:
    """The answer to a call; it comes when the history says so."""

    def __init__(self) -> None:
        self.result: Any = None
        self.callback: Callable[[Any], None] | None = None
        self.cancelled = False
        self.ended = False

    def add_done_callback(self, callback: Callable[[Any], None], here: bool) -> None:
        self.callback = callback

    def end(self, result: Any) -> None:
        assert not self.ended
        self.ended, self.result = True, result
        assert self.callback is not None
        self.callback(self)

    def exception(self) -> BaseException | None:
        return self.result if isinstance(self.result, BaseException) else None

    def peek(self) -> Any:
        return self.result


class Timer:
    def __init__(self, run: Callable[[], None]) -> None:
        self.run: Callable[[], None] | None = run

    def cancel(self) -> None:
        self.run = None


HISTORIES: Final = 2000
STEPS: Final = 14


class World:
    """One object is connection, router, replica, channel and loop."""

    line = b""

    def __init__(self, method: bytes, has_limit: bool) -> None:
        self.http = self.lender = self
        self.lending, self.framing, self.tag, self.id = Lending.TRIED, 0, None, "one"
        self.requests: dict[int, Any] = {}
        self.waits = False
        # Grants that are out, calls that run, the asked replicas' answers and the clock.
        self.granted = 0
        self.calls: list[Ref] = []
        self.asked: list[Ref] = []
        self.timers: list[Timer] = []
        self.has_borrower = True
        self.heard: list[bytes] = []
        self.ends = 0
        self.left = False
        me = cast("Any", self)
        self.request = HttpRequest(me)
        self.request.begins(method, b"/", b"", b"1.1", True, b"id")
        self.request.ended()
        self.forwarded = Forwarded(self.request, me, b"", b"", me, 5.0 if has_limit else None)
        self.forwarded.start()

    # The connection.

    def write(self, data: bytes) -> None:
        assert not self.ends
        assert not self.left
        # A page of ours is never behind a part of an answer.
        assert not self.heard or not data.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))
        self.heard.append(data)

    def pass_on(self, data: memoryview) -> bool:
        self.write(bytes(data))
        return True

    def lend(self) -> int:
        return 7

    def is_as_lent(self) -> bool:
        return "by the borrower" not in str(self.heard)

    def finished(self, request: HttpRequest, close: bool) -> None:
        self.ends += 1

    def abort(self) -> None:
        assert self.heard or self.has_borrower or self.request.status
        self.ends += 1

    # The router. One that refuses has the request wait again.

    def submit(self, request: Any) -> None:
        self.waits = True

    def withdraw(self, request: Any) -> bool:
        was, self.waits = self.waits, False
        return was

    def released(self, grant: Any) -> None:
        self.granted -= 1

    def refused(self, request: Any, target: Any, grant: Any, reason: int) -> None:
        self.granted -= grant is not None
        self.waits = True

    def failed(self, request: Any, target: Any, grant: Any, error: BaseException, repeatable: bool) -> Any:
        assert not self.heard
        self.granted -= grant is not None
        if repeatable:
            self.waits = True
            return None
        return ReplicaUnavailableError("app/d", "one", str(error))

    # The replica and its channel.

    def remote_piped(self, receiver: Any, *args: Any) -> Ref:
        self.calls.append(Ref())
        return self.calls[-1]

    @property
    def gone(self) -> Any:
        return SimpleNamespace(remote=self._ask)

    @property
    def code_ended(self) -> Any:
        return SimpleNamespace(remote=self._ask)

    def _ask(self, key: int) -> Ref:
        self.asked.append(Ref())
        return self.asked[-1]

    def borrower_has_gone(self) -> bool:
        return not self.has_borrower

    # The loop.

    def call_later(self, after_s: float, run: Callable[..., None], *args: Any) -> Timer:
        self.timers.append(Timer(lambda: run(*args)))
        return self.timers[-1]

    # What happens.

    @property
    def runs(self) -> Ref | None:
        return self.calls[-1] if self.calls and not self.calls[-1].ended else None

    def moves(self) -> Iterator[Callable[[], object]]:
        """All that can happen now."""
        yield self.client_goes
        yield self.borrower_goes
        yield partial(self.forwarded.stop, RequestStoppedError("app/d", "others go first"))
        if self.waits:
            yield self.is_placed
        if self.timers:
            yield self.time_passes
        if (on_slow := self.request.on_slow) is not None:
            yield on_slow
        for result in (True, False, exceptions.ActorrtError("it crashed")) if self.asked else ():
            yield partial(self.is_told, result)
        if (call := self.runs) is None:
            return
        for result in (b"HTTP/1.1 200 OK\r\n\r\n", (b"", True), (b"rest", False)):
            yield partial(call.end, result)
        yield partial(call.end, exceptions.ActorrtError("it crashed"))
        yield partial(call.end, exceptions.TaskCancelledError("http"))
        if self.request.answer is Answer.WAITED_FOR:
            yield partial(call.end, 1)  # the replica has no room
            yield partial(self.borrows, True)
            yield partial(self.borrows, False)
        if self.request.answer is not Answer.LENT:
            yield self.a_part_comes

    def is_told(self, result: Any) -> None:
        self.asked.pop(0).end(result)

    def client_goes(self) -> None:
        self.left = self.left or not self.ends
        self.request.gone()

    def borrower_goes(self) -> None:
        self.has_borrower = False

    def is_placed(self) -> None:
        self.waits = False
        self.granted += 1
        self.has_borrower = True
        self.forwarded.send(cast("Any", self), cast("Any", self))

    def time_passes(self) -> None:
        if (run := self.timers.pop(0).run) is not None:
            run()

    def borrows(self, writes: bool) -> None:
        if self.forwarded.lend(b"200") >= 0 and writes:
            self.write(b"by the borrower")

    def a_part_comes(self) -> None:
        pipe = SimpleNamespace(grant=Ref)
        self.forwarded.arrived(cast("Any", pipe), memoryview(b"HTTP/1.1 200 OK\r\n"), False)

    def check(self) -> None:
        over = bool(self.ends or self.left)
        assert self.ends <= 1
        assert (self.request.answer is Answer.OVER) == over
        # A place is given back once, at the latest with the end of the call that has it.
        assert 0 <= self.granted <= 1
        assert self.runs or not self.granted
        # Nobody is forgotten: it waits, runs or is over; and what nobody waits for is on its way to its end.
        assert over or self.waits or self.runs
        if over and self.runs:
            assert self.runs.cancelled or self.asked or any(timer.run for timer in self.timers)


def test_whatever_crosses_a_client_gets_one_answer_and_a_place_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def cancel(ref: Ref, *, recursive: bool = True) -> None:
        ref.cancelled = True

    monkeypatch.setattr(forward, "cancel", cancel)
    for seed in range(HISTORIES):
        dice = random.Random(seed)
        world = World(dice.choice((b"GET", b"POST")), dice.random() < 0.5)
        story: list[str] = []
        for _ in range(STEPS):
            moves = list(world.moves())
            # What ends it all at once is one move of many.
            move = dice.choice(moves[3:] if len(moves) > 3 and dice.random() < 0.8 else moves)
            story.append(str(move))
            try:
                move()
                world.check()
            except Exception as error:
                error.add_note(f"history {seed}: " + "\n".join(story))
                raise
