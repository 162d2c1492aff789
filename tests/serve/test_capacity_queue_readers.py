"""Replicas that read prompts for others, as the queue of these knows them."""

from typing import Any

import pytest

from actorrt.serve.capacity_queue.config import CapacityQueueConfig
from actorrt.serve.capacity_queue.hub import Hub
from actorrt.serve.capacity_queue.messages import Acquire, Offer, Report, Snapshot, ToQueue, ToRouter

CONFIG = CapacityQueueConfig(prefill="readers", credit_share=0.0)


class Queue:
    """Of replicas that answer, p0 among those that read, and one router."""

    def __init__(self, *, most: int = -1) -> None:
        self.now, self.most = 0.0, most
        self.hub = Hub(1, 0.0, lambda: 0.5, CONFIG)
        self.answer("d0")
        self.said("d0")
        self.hub.join("one", 0.0)
        self.hub.told()

    def answer(self, *replicas: str) -> None:
        self.hub.update(CONFIG, 4, self.most, replicas, self.now)

    def read(self, *replicas: str) -> None:
        self.hub.update_readers(4, replicas, self.now)
        for id in replicas:
            self.said(id)

    def said(self, id: str, revision: str = "v1", context: int = 0) -> None:
        offer = Offer(100_000, 4, revision=revision, context=context)
        self.hub.replica_said(id, Snapshot(1, 0, offer, ()), self.now)

    def ask(self, *ids: int, prompt: int = 8000) -> None:
        acquire = [Acquire(id, 1, prompt, 10, "", "", "", "default", 0.0, None, (), False) for id in ids]
        self.hub.take("one", ToQueue(epoch=1, acquire=acquire), self.now)

    def told(self) -> ToRouter:
        return dict(self.hub.told())["one"]

    def rates(self) -> list[float]:
        self.hub.tick(self.now)
        prefill = self.hub.queue.prefill
        assert prefill is not None
        return [line.prefill_rate for line in prefill.lines()]


def test_while_nobody_reads_no_more_wait_than_may() -> None:
    queue = Queue(most=2)
    queue.ask(1, 2, 3)
    (refusal,) = queue.told().refused
    assert (refusal.id, refusal.status, refusal.queued, refusal.limit) == (3, 429, 2, 2)
    assert "no replica reads prompts yet" in queue.hub._why(queue.hub._routers["one"], 1, 0, queue.now)
    queue.read("p0")
    assert [granted.id for granted in queue.told().grants] == [1, 2]


def test_one_that_answers_gets_nothing_before_its_revision_is_known() -> None:
    queue = Queue()
    queue.read("p0")
    queue.ask(1, prompt=10)
    queue.answer("d0", "d1")
    queue.ask(2, prompt=10)
    # It has had its time to say what it runs.
    queue.now = CONFIG.grace_s
    queue.hub.take("one", ToQueue(epoch=1), queue.now)
    queue.hub.tick(queue.now)
    queue.ask(3, prompt=10)
    assert [granted.replica for granted in queue.told().grants] == ["d0", "d0", "d0"]
    queue.said("d1")
    queue.ask(4, prompt=10)
    assert [granted.replica for granted in queue.told().grants] == ["d1"]


@pytest.mark.parametrize(
    ("answers", "reads", "more"),
    [
        (25_000, 0, ", 25000 of one prompt and its answer"),
        (25_000, 20_000, ", 20000 of one prompt and its answer"),
        (100_000, 100_000, ""),
        (0, 0, ""),
    ],
)
def test_who_sends_too_much_is_told_how_long_one_prompt_may_be(answers: int, reads: int, more: str) -> None:
    queue = Queue()
    queue.read("p0")
    queue.said("d0", context=answers)
    queue.said("p0", context=reads)
    queue.ask(1, prompt=200_000)
    (refusal,) = queue.told().refused
    assert refusal.status == 413
    assert refusal.reason == f"the prompt has 200000 tokens, and a replica holds 100000 at most{more}"


def test_a_prompt_that_was_refused_was_not_read_and_is_no_measure() -> None:
    queue = Queue()
    queue.read("p0")
    usual = queue.rates()
    for id in (1, 2):
        queue.ask(id)
        (granted,) = queue.told().grants
        queue.now += 1e-6 if id == 1 else 4.0
        queue.hub.replica_reports("p0", Report((), (granted.number,)), queue.now)
        queue.now += 1.0
        if id == 2:
            queue.hub.take("one", ToQueue(epoch=1, progress=[(granted.number, 1)]), queue.now)
        queue.hub.take("one", ToQueue(epoch=1, given_back=[granted.number]), queue.now)
        # Until it was read, and not until its first token came.
        assert queue.rates() == (usual if id == 1 else [pytest.approx(2000.0)])


@pytest.mark.parametrize("what", ["its replica dies", "it is cancelled"])
@pytest.mark.parametrize("has_begun", [True, False])
def test_a_prompt_that_is_read_for_nobody_counts_until_its_reader_has_done_with_it(
    what: str, *, has_begun: bool
) -> None:
    queue = Queue()
    queue.read("p0")
    queue.ask(1)
    (granted,) = queue.told().grants
    if has_begun:
        queue.hub.replica_reports("p0", Report((granted.number,), ()), queue.now)
    if what == "its replica dies":
        queue.hub.drop_replica("d0", queue.now)
    queue.hub.take("one", ToQueue(epoch=1, given_back=[granted.number]), queue.now)
    prefill = queue.hub.queue.prefill
    assert prefill is not None
    (line,) = prefill.lines()
    assert (line.running, line.used) == ((1, 8000) if has_begun else (0, 0))
    queue.hub.replica_reports("p0", Report((), (granted.number,)), queue.now)
    assert (line.running, line.used) == (0, 0)


def test_where_reading_fails_in_the_queue_neither_replica_has_less() -> None:
    queue = Queue()
    queue.read("p0")
    prefill: Any = queue.hub.queue.prefill
    admit = prefill.admit

    def fails(*_: object) -> None:
        raise ZeroDivisionError("of a bad one")

    prefill.admit = fails
    queue.ask(1)
    (refusal,) = queue.told().refused
    assert refusal.status == 500
    prefill.admit = admit
    lines = [*queue.hub.queue.ledger.lines.values(), *prefill.lines()]
    assert [(line.used, line.running) for line in lines] == [(0, 0)] * 2
    assert queue.hub.queue.tenants.known == {}
