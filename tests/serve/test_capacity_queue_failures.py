"""A request at which the queue itself fails is refused, and costs no other one anything."""

import logging
from typing import Any

import pytest

from actorrt.serve.capacity_queue.config import CapacityQueueConfig
from actorrt.serve.capacity_queue.hub import Hub
from actorrt.serve.capacity_queue.messages import Acquire, Offer, Refusal, Release, Snapshot, ToQueue, ToRouter

CONFIG = CapacityQueueConfig(credit_share=0.0)
BAD = 666


class Queue:
    def __init__(self, replicas: int = 1) -> None:
        self.now = 0.0
        self.hub = Hub(1, 0.0, lambda: 0.5, CONFIG)
        self.update(replicas)
        for name in ("one", "two"):
            self.hub.join(name, 0.0)
        self.hub.told()
        note: Any = self.hub.queue.prefixes.note

        def fails(line: object, chain: tuple[int, ...], tokens: int) -> None:
            if BAD in chain:
                raise ZeroDivisionError("of a bad one")
            note(line, chain, tokens)

        self.hub.queue.prefixes.note = fails  # type: ignore[method-assign]

    def update(self, replicas: int) -> None:
        ids = [f"r{number}" for number in range(replicas)]
        self.hub.update(CONFIG, 2, -1, ids, self.now)
        for id in ids:
            self.hub.replica_said(id, Snapshot(1, 0, Offer(1000, 2, 1e9), ()), self.now)

    def ask(self, router: str, *asked: tuple[int, int]) -> None:
        acquire = [Acquire(id, 1, 10, 10, "", "", "", "default", 0.0, None, (block,), False) for id, block in asked]
        self.hub.take(router, ToQueue(epoch=1, acquire=acquire), self.now)

    def told(self) -> dict[str, ToRouter]:
        return dict(self.hub.told())

    def check_idle(self) -> None:
        for number in list(self.hub.queue.ledger.leases):
            self.hub.take("one", ToQueue(epoch=1, release=[Release(number)]), self.now)
        assert (self.hub.queue.tenants.known, len(self.hub.queue.order)) == ({}, 0)
        assert [(line.used, line.running) for line in self.hub.queue.ledger.lines.values()] == [(0, 0)]
        assert not any(router.asked for router in self.hub._routers.values())


def failed(refusal: Refusal) -> bool:
    return refusal.status == 500 and "ZeroDivisionError: of a bad one" in refusal.reason


def test_of_a_message_the_one_that_fails_alone_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    queue = Queue()
    with caplog.at_level(logging.ERROR, "actorrt.serve"):
        queue.ask("one", (1, 1), (2, BAD), (3, 3))
    told = queue.told()["one"]
    assert [granted.id for granted in told.grants] == [1, 3]
    (refusal,) = told.refused
    assert refusal.id == 2
    assert failed(refusal)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)
    queue.check_idle()


def test_one_that_fails_as_its_turn_comes_ends_no_stream_but_its_own_waiting() -> None:
    queue = Queue()
    queue.ask("one", (1, 1), (2, 2))
    queue.ask("two", (1, BAD))
    queue.ask("one", (3, 3))
    (first, second) = [granted.number for granted in queue.told()["one"].grants]
    queue.hub.take("one", ToQueue(epoch=1, release=[Release(first), Release(second)]), 0.1)
    told = queue.told()
    assert [granted.id for granted in told["one"].grants] == [3]
    assert [(refusal.id, failed(refusal)) for refusal in told["two"].refused] == [(1, True)]
    queue.check_idle()


def test_one_that_fails_as_a_replica_comes_lets_the_others_have_their_places() -> None:
    queue = Queue(replicas=0)
    queue.ask("one", (1, 1), (2, BAD), (3, 3))
    assert not queue.told()
    queue.update(1)
    told = queue.told()["one"]
    assert [granted.id for granted in told.grants] == [1, 3]
    assert [(refusal.id, failed(refusal)) for refusal in told.refused] == [(2, True)]
    queue.check_idle()


def test_where_the_queue_fails_at_those_that_are_alike_it_keeps_no_place_of_theirs() -> None:
    queue = Queue()
    add: Any = queue.hub.queue.drain.add

    def fails(tokens: int, now: float) -> None:
        raise ZeroDivisionError("of a bad one")

    queue.hub.queue.drain.add = fails  # type: ignore[method-assign]
    queue.hub.take("one", ToQueue(epoch=1, plain=[(1, 0.0), (2, 0.0)]), queue.now)
    refused = queue.told()["one"].refused
    assert [(refusal.id, failed(refusal)) for refusal in refused] == [(1, True), (2, True)]
    queue.hub.queue.drain.add = add  # type: ignore[method-assign]
    assert queue.hub.queue.ledger.leases == {}
    queue.check_idle()


@pytest.mark.parametrize("what", ["release", "progress"])
def test_where_the_queue_fails_at_what_is_said_of_a_lease_the_rest_of_the_message_is_taken(
    what: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue()
    queue.ask("one", (1, 1), (2, 2), (3, 3))
    first, second = (granted.number for granted in queue.told()["one"].grants)

    def fails(*_: object) -> None:
        raise ZeroDivisionError("of a bad one")

    said = ToQueue(epoch=1, release=[Release(first, 5, is_whole=True)])
    if what == "release":
        monkeypatch.setattr(queue.hub.queue.lengths, "learn", fails)
        said.given_back = [second]
    else:
        # What it says of the other is lost, and that goes on.
        said = ToQueue(epoch=1, progress=[(first, 5)], given_back=[second])
        monkeypatch.setattr(queue.hub, "_progress", fails)
    queue.hub.take("one", said, 0.1)
    monkeypatch.undo()
    (record,) = caplog.records
    assert f"failed at what a router says of lease {first}" in record.getMessage()
    assert [granted.id for granted in queue.told()["one"].grants] == [3]
    assert (first in queue.hub.queue.ledger.leases, second in queue.hub.queue.ledger.leases) == (
        what == "progress",
        False,
    )
    queue.check_idle()
