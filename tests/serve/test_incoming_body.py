"""How the body of a large request comes together in a replica, without a replica and without a pipe."""

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.serve.replica import incoming_body
from actorrt.serve.replica.incoming_body import WINDOW_BYTES, IncomingBody

SMALL = 1000


@pytest.fixture(autouse=True)
def _with_the_allocator_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave() -> None: ...

    monkeypatch.setattr("actorrt.serve.replica.incoming_body.keep_large_blocks", leave)


class Sender:
    """The other end: sends no more than it was asked for."""

    def __init__(self) -> None:
        self.granted = self.sent = 0
        self._receiver: Any = None

    def open(self, receiver: Any) -> Any:
        self._receiver = receiver
        return self

    def grant(self, count: int) -> None:
        self.granted += count

    def send(self, data: bytes, last: bool = False) -> None:
        self.sent += len(data)
        assert self.sent <= self.granted
        memory = bytearray(data)
        self._receiver.arrived(self, memoryview(memory), last)
        memory[:] = b"?" * len(memory)


def body(length: int | None) -> tuple[IncomingBody, Sender]:
    sender = Sender()
    return IncomingBody(length, sender.open), sender


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def read(incoming: IncomingBody) -> list[bytes]:
    parts: list[bytes] = []
    while (part := await incoming.next_part()) is not None:
        parts.append(part[0])
        if not part[1]:
            break
    return parts


async def test_nothing_is_asked_for_before_the_application_wants_it() -> None:
    incoming, sender = body(SMALL)
    await turns()
    assert sender.granted == 0
    reading = asyncio.ensure_future(incoming.next_part())
    await turns()
    assert sender.granted == SMALL
    reading.cancel()


async def test_a_body_that_is_wanted_only_after_its_end_asks_for_nothing_and_takes_nothing_of_the_budget() -> None:
    incoming, sender = body(SMALL)
    left = incoming_body._budget.left
    incoming.close()
    assert await incoming.next_part() is None
    assert (sender.granted, incoming_body._budget.left) == (0, left)


@given(cuts=st.lists(st.integers(0, SMALL), max_size=6), announced=st.booleans())
async def test_any_split_gives_the_same_body(cuts: list[int], announced: bool) -> None:
    data = bytes(range(250)) * 4
    incoming, sender = body(SMALL if announced else None)
    reading = asyncio.ensure_future(read(incoming))
    await turns()
    edges = [0, *sorted(cuts), SMALL]
    for start, end in itertools.pairwise(edges):
        sender.send(data[start:end], last=end == SMALL and not announced)
        await turns()
    assert b"".join(await reading) == data


async def test_a_body_whose_length_is_known_comes_in_one_piece_that_is_not_copied() -> None:
    incoming, sender = body(SMALL)
    reading = asyncio.ensure_future(incoming.next_part())
    await turns()
    for start in range(0, SMALL, 100):
        sender.send(b"%03d" % start + b"x" * 97)
        await turns()
    part = await reading
    assert part is not None
    assert len(part[0]) == SMALL
    assert not part[1]


async def test_who_waits_for_an_answer_before_he_sends_the_rest_is_not_waited_for() -> None:
    incoming, sender = body(SMALL)
    reading = asyncio.ensure_future(incoming.next_part())
    await turns()
    sender.send(b"first")
    assert await reading == (b"first", True)
    reading = asyncio.ensure_future(incoming.next_part())
    await turns()
    sender.send(b"x" * (SMALL - 5))
    assert await reading == (b"x" * (SMALL - 5), False)


async def test_what_is_beyond_the_budget_comes_in_parts_and_never_more_than_a_window_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    budget = incoming_body._budget
    monkeypatch.setattr(budget, "left", SMALL)
    length = 10 * WINDOW_BYTES
    incoming, sender = body(length)
    reading = asyncio.ensure_future(incoming.next_part())
    await turns()
    size = 0
    while size < length:
        assert sender.granted - size <= WINDOW_BYTES
        sender.send(bytes(min(100_000, sender.granted - sender.sent, length - sender.sent)))
        await turns()
        if reading.done():
            part = reading.result()
            assert part is not None
            size += len(part[0])
            reading = asyncio.ensure_future(incoming.next_part())
            await turns()
    assert await reading == (b"", False)
    assert budget.left == SMALL


@pytest.mark.parametrize("how", ["it is given", "nobody reads any more"])
async def test_the_budget_is_given_back(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = incoming_body._budget
    monkeypatch.setattr(budget, "left", SMALL)
    incoming, sender = body(SMALL)
    reading = asyncio.ensure_future(incoming.next_part())
    await turns()
    assert budget.left == 0
    if how == "it is given":
        sender.send(bytes(SMALL))
        await reading
    else:
        sender.send(b"x")
        incoming.close()
        assert await reading is None
        sender.send(b"late")
    incoming.close()
    assert budget.left == SMALL


async def test_bodies_are_gathered_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = incoming_body._budget
    monkeypatch.setattr(budget, "left", 2 * SMALL)
    bodies = [body(SMALL) for _ in range(4)]
    reading = [asyncio.ensure_future(incoming.next_part()) for incoming, _ in bodies]
    await turns()
    assert [sender.granted for _, sender in bodies] == [SMALL, SMALL, 0, 0]
    bodies[1][1].send(bytes(SMALL))
    await reading[1]
    assert [sender.granted for _, sender in bodies] == [SMALL, SMALL, SMALL, 0]
    # One that leaves, and one that takes its time, keep nobody waiting.
    bodies[2][0].close()
    assert await reading[2] is None
    assert bodies[3][1].granted == SMALL
    for _, sender in (bodies[0], bodies[3]):
        sender.send(bytes(SMALL))
    assert [await reading[0], await reading[3]] == [(bytes(SMALL), False)] * 2
    assert budget.left == 2 * SMALL


async def test_who_waits_too_long_for_its_turn_comes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = incoming_body._budget
    monkeypatch.setattr(budget, "left", 0)
    monkeypatch.setattr(incoming_body, "PATIENCE_S", 0.01)
    incoming, sender = body(SMALL)
    reading = asyncio.ensure_future(read(incoming))
    while not sender.granted:  # noqa: ASYNC110
        await asyncio.sleep(0)
    sender.send(bytes(SMALL // 2))
    await turns()
    sender.send(bytes(SMALL // 2))
    assert b"".join(await reading) == bytes(SMALL)
    assert budget.left == 0


async def test_a_slow_client_does_not_keep_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = incoming_body._budget
    monkeypatch.setattr(budget, "left", SMALL)
    monkeypatch.setattr(incoming_body, "HOLD_BACK_S", 0.01)
    slow, sender = body(SMALL)
    reading = asyncio.ensure_future(read(slow))
    while budget.left == SMALL or sender.granted == 0:  # noqa: ASYNC110
        await asyncio.sleep(0)
    while budget.left == 0:  # noqa: ASYNC110
        await asyncio.sleep(0)
    sender.send(bytes(SMALL))
    assert b"".join(await reading) == bytes(SMALL)
    assert budget.left == SMALL


async def test_several_may_wait_for_the_body_and_each_byte_goes_to_one_of_them() -> None:
    incoming, sender = body(None)
    readers = [asyncio.ensure_future(incoming.next_part()) for _ in range(2)]
    await turns()
    sender.send(b"a")
    await turns()
    sender.send(b"b", last=True)
    assert sorted([await reader or (b"", True) for reader in readers]) == [(b"a", True), (b"b", False)]
