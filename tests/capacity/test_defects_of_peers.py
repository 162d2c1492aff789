"""Four ways in which queues of this kind were seen to go wrong, over thousands of random histories in virtual time.

A slot that is taken for free since its request is old; a place that is lost by a timeout; slots that leak when a
replica refuses what it was given; and a restart after which too much is given.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from actorrt.serve.capacity.ledger import Lease
from actorrt.serve.capacity.need import LineFacts, LineId
from actorrt.serve.capacity.output_lengths import OutputLengths
from actorrt.serve.capacity.queue import Ask, CapacityQueue, QueueLimits, Refusal
from actorrt.serve.capacity.tickets import First, Tickets

from ..depth import DEPTH

SEEDS = 200 * DEPTH
FACTS = LineFacts(kv_tokens=1000, slots=4, prefill_rate=10_000.0)
LINES = [LineId(name) for name in "ab"]


class AsAsked(OutputLengths):
    """Expects every answer to be as long as it may be."""

    def expect(self, model: str, tenant: str, prompt: int, max_tokens: int | None = None) -> int:
        return 0 if max_tokens is None else max_tokens


def queue_of(epoch: int = 1, is_open: bool = True) -> CapacityQueue:
    queue = CapacityQueue(epoch, 0.0, lengths=AsAsked(), most=QueueLimits(requests=6))
    for line in LINES:
        queue.set_line(line, FACTS, 1)
        queue.open_line(line, is_open)
    return queue


@dataclass
class Replicas:
    """What truly runs on each, by lease number."""

    running: dict[int, tuple[LineId, Ask]] = field(default_factory=dict[int, tuple[LineId, Ask]])

    def begin(self, lease: Lease, ask: Ask) -> None:
        assert lease.id.number not in self.running
        self.running[lease.id.number] = lease.line.id, ask
        for line in LINES:
            there = [each for at, each in self.running.values() if at == line]
            assert len(there) <= FACTS.slots
            assert len(there) == 1 or sum(each.tokens for each in there) <= 0.9 * FACTS.kv_tokens

    def check(self, queue: CapacityQueue) -> None:
        """The ledger is what runs: nothing is counted that does not, and nothing runs uncounted."""
        assert set(queue.ledger.leases) == set(self.running)
        for id, line in queue.ledger.lines.items():
            assert line.used == sum(ask.tokens for at, ask in self.running.values() if at == id)
            assert line.running == sum(at == id for at, _ in self.running.values())


def new_ask(dice: random.Random, now: float, patience: float = float("inf")) -> Ask:
    return Ask("m", dice.randint(1, 300), dice.randint(0, 300), arrived=now, deadline=now + patience)


def take(queue: CapacityQueue, replicas: Replicas, now: float, dice: random.Random) -> None:
    for ask, outcome in queue.next(now, dice.random):
        if isinstance(outcome, Lease):
            replicas.begin(outcome, ask)


def test_no_age_frees_the_slot_of_a_request_that_runs_and_no_end_frees_that_of_another() -> None:
    for seed in range(SEEDS):
        dice, queue, replicas, now = random.Random(seed), queue_of(), Replicas(), 0.0
        ended: list[int] = []
        for _ in range(30):
            now += dice.choice((0.01, 1.0, 36_000.0))
            ask = new_ask(dice, now)
            try:
                if (lease := queue.submit(ask, now, dice.random())) is not None:
                    replicas.begin(lease, ask)
            except Refusal:
                pass
            if replicas.running and dice.random() < 0.6:
                number = dice.choice(list(replicas.running))
                del replicas.running[number]
                assert queue.release(number, dice.randint(0, 10))
                ended.append(number)
            if ended:
                # Told twice, and late.
                assert not queue.release(dice.choice(ended))
            take(queue, replicas, now, dice)
            replicas.check(queue)


def test_a_timeout_loses_no_place_when_its_ticket_is_brought_back() -> None:
    for seed in range(SEEDS):
        dice, queue, replicas, now = random.Random(seed), queue_of(), Replicas(), 0.0
        tickets = Tickets(bytes(32))
        # Those that were refused, by their tickets, until they come again.
        away: list[tuple[float, str, Ask]] = []
        came = 0
        order: list[float] = []
        while came < 14 or away or queue.order:
            now += 1.0
            submitted: list[Ask] = []
            for due in [entry for entry in away if entry[0] <= now]:
                away.remove(due)
                first = tickets.first(due[1], "", now)
                assert first is not None
                submitted.append(
                    Ask("m", due[2].prompt, 0, arrived=first.arrived, place=first.place, deadline=now + 5.0)
                )
            if came < 14 and dice.random() < 0.7:
                came += 1
                submitted.append(Ask("m", 850, 0, arrived=now, deadline=now + 5.0))
            refused: list[Ask] = []
            for ask in submitted:
                try:
                    lease = queue.submit(ask, now, 0.0)
                except Refusal:
                    refused.append(ask)
                    continue
                if lease is not None:
                    replicas.begin(lease, ask)
            if replicas.running and dice.random() < 0.3:
                number = next(iter(replicas.running))
                del replicas.running[number]
                queue.release(number)
            for ask, outcome in queue.next(now, dice.random):
                if isinstance(outcome, Lease):
                    replicas.begin(outcome, ask)
                    order.append(ask.arrived)
                    # Of those that wait, nobody came before it.
                    assert all(ask.arrived <= other.arrived for other, _ in queue.order.turns()), seed
                else:
                    refused.append(ask)
            for ask in refused:
                ticket = tickets.issue("", First(ask.arrived, ask.place), now)
                away.append((now + dice.randint(1, 3), ticket, ask))
            replicas.check(queue)


def test_what_a_replica_refuses_leaks_nothing() -> None:
    for seed in range(SEEDS):
        dice, queue, replicas, now = random.Random(seed), queue_of(), Replicas(), 0.0
        again = [new_ask(dice, 0.0) for _ in range(20)]
        done = 0
        while done < 20:
            now += 0.1
            for _ in range(min(2, len(again))):
                ask = again.pop()
                try:
                    if (lease := queue.submit(ask, now, dice.random())) is not None:
                        replicas.begin(lease, ask)
                except Refusal:
                    again.append(ask)
            take(queue, replicas, now, dice)
            for number, (_, ask) in list(replicas.running.items()):
                chance = dice.random()
                if chance < 0.6:
                    del replicas.running[number]
                    assert queue.release(number, 0 if chance < 0.3 else ask.tokens - ask.prompt)
                    if chance < 0.3:
                        # The replica did not take it; its router gives the lease back, and asks for another.
                        again.append(Ask("m", ask.prompt, ask.max_tokens, arrived=ask.arrived))
                    else:
                        done += 1
            replicas.check(queue)
        assert not queue.ledger.leases
        assert all(line.used == line.backlog == line.running == 0 for line in queue.ledger.lines.values())


def test_a_restarted_queue_gives_nothing_that_is_taken_and_loses_nothing_once_all_have_answered() -> None:
    for seed in range(SEEDS):
        dice, queue, replicas, now = random.Random(seed), queue_of(), Replicas(), 0.0
        # Lines that have not answered the queue yet; answers are on their way for a while.
        silent: list[LineId] = []
        answers: list[tuple[LineId, list[tuple[int, Ask]]]] = []
        for _ in range(60):
            now += 0.1
            chance = dice.random()
            if chance < 0.06:
                queue = queue_of(queue.ledger.epoch + 1000, is_open=False)
                silent, answers = list(LINES), []
            elif chance < 0.35:
                ask = new_ask(dice, now)
                try:
                    if (lease := queue.submit(ask, now, dice.random())) is not None:
                        replicas.begin(lease, ask)
                except Refusal:
                    pass
            elif chance < 0.6 and replicas.running:
                number = dice.choice(list(replicas.running))
                del replicas.running[number]
                queue.release(number, 1)
            elif chance < 0.8 and silent:
                line = silent.pop(dice.randrange(len(silent)))
                answers.append((line, [(n, ask) for n, (at, ask) in replicas.running.items() if at == line]))
            elif answers:
                line, runs = answers.pop(0)
                for number, ask in runs:
                    queue.adopt(line, number, ask, 0, 0)
                queue.open_line(line, True)
            take(queue, replicas, now, dice)
            if not silent and not answers:
                replicas.check(queue)
