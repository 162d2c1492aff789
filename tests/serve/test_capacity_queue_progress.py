"""What a router tells its queue while answers come: first tokens at once, all that follows together."""

import asyncio
import random

from hypothesis import given
from hypothesis import strategies as st

from actorrt.serve.base.news import DeploymentNews, ReplicaNews
from actorrt.serve.capacity_queue.config import CapacityQueueConfig
from actorrt.serve.capacity_queue.messages import Messages, QueueCost, Release, ToQueue, to_queue
from actorrt.serve.capacity_queue.session import Turns
from actorrt.serve.capacity_queue.untold import MOST_S, MOST_TOKENS, Untold
from actorrt.serve.policies.policy import NOTHING, Grant, PolicyContext

from .queue_in_memory import QueueInMemory

CONFIG = CapacityQueueConfig(units="tokens", kv_tokens=1_000_000, prefill_rate=1e6)
STREAMS = 64


class Asked:
    cost = QueueCost(tokens=10, max_tokens=20)


class World:
    def __init__(self) -> None:
        self.now = 100.0
        context = PolicyContext("app#it", random.Random(1).random, lambda: self.now, lambda: None)
        self.queue = QueueInMemory(context, CONFIG)
        self.queue.update(DeploymentNews("", 2 * STREAMS, -1, (ReplicaNews("a"),)))
        # What was told of progress, a list for each message that has any.
        self.told: list[list[tuple[int, int]]] = []
        write = self.queue.write

        def written(data: bytes) -> None:
            for message in Messages().feed(data):
                if said := to_queue.decode(message).progress:
                    self.told.append(said)
            write(data)

        self.queue.write = written  # type: ignore[method-assign]

    def granted(self) -> Grant:
        found = self.queue.submit(Asked())
        assert found is not None
        return found

    def generated(self, grant: Grant) -> int:
        return self.queue.hub.queue.ledger.leases[grant.tag.number].generated


def test_a_first_token_is_told_at_once_and_alone() -> None:
    world = World()
    grants = [world.granted() for _ in range(STREAMS)]
    for grant in grants:
        grant.progress(1)
        assert world.generated(grant) == 1
    assert [len(each) for each in world.told] == [1] * STREAMS


def test_what_follows_is_told_of_all_answers_in_one_message_for_so_much_time() -> None:
    world = World()
    grants = [world.granted() for _ in range(STREAMS)]
    for grant in grants:
        grant.progress(1)
    world.told.clear()
    seconds = 4
    for step in range(seconds * 40):
        world.now += 1 / 40
        for grant in grants:
            grant.progress(2 + step // 4)
    assert len(world.told) <= seconds / MOST_S + 1
    assert max(map(len, world.told)) == STREAMS
    assert all(world.generated(grant) >= seconds * 10 * (1 - MOST_S / seconds) - 1 for grant in grants)


def test_so_many_tokens_of_all_together_do_not_wait_for_the_time() -> None:
    world = World()
    grants = [world.granted() for _ in range(STREAMS)]
    for grant in grants:
        grant.progress(1)
    grants[0].progress(2)
    world.told.clear()
    each = MOST_TOKENS // STREAMS
    for grant in grants[1:]:
        grant.progress(1 + each)
    assert world.told == []
    grants[0].progress(2 + each)
    (told,) = world.told
    assert sorted(told) == [(grant.tag.number, 1 + each + (grant is grants[0])) for grant in grants]


def test_the_end_of_an_answer_says_all_of_it_and_its_progress_nothing_more() -> None:
    world = World()
    grants = [world.granted() for _ in range(2)]
    for grant in grants:
        grant.progress(1)
    grants[1].progress(2)
    for grant in grants:
        grant.progress(7)
    world.told.clear()
    before = world.queue.hub.queue.order.served(1, "")
    world.queue.release(grants[0], None)
    assert world.queue.hub.queue.order.served(1, "") - before == 2 * 6
    world.now += MOST_S
    grants[1].progress(8)
    assert world.told == [[(grants[1].tag.number, 8)]]
    # One that is heard of after it has come back is nobody's.
    grants[0].progress(9)
    world.queue.release(grants[1], NOTHING)
    assert world.queue._untold.take(world.now) == []


def test_the_first_token_and_the_end_of_an_answer_may_be_told_together() -> None:
    world = World()
    hub = world.queue.hub
    grant = world.granted()
    world.now += 1
    lease = hub.queue.ledger.leases[grant.tag.number]
    lease.unread, lease.granted_at = 300, world.now - 1
    number = grant.tag.number
    hub.take(world.queue.router, ToQueue(epoch=1, progress=[(number, 1)], release=[Release(number, 1)]), world.now)
    assert number not in hub.queue.ledger.leases
    assert [rate for _, rate in hub._rates.take_changed()] == [300.0]


async def test_what_may_wait_leaves_with_what_may_not_or_after_so_long() -> None:
    done: list[str] = []
    told = asyncio.Event()

    def tell() -> None:
        done.append("told")
        told.set()

    turns = Turns(tell)
    for _ in range(3):
        turns.within(0.0)
    assert done == []
    await told.wait()
    assert done == ["told"]
    turns.soon()
    turns.within(1000.0)
    await asyncio.sleep(0)
    assert done == ["told"] * 2


def test_where_no_loop_runs_nothing_waits() -> None:
    done: list[str] = []
    Turns(lambda: done.append("told")).within(1000.0)
    assert done == ["told"]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 900), st.floats(0, 0.1))))
def test_no_more_is_untold_than_so_many_tokens_or_what_came_in_so_much_time(
    steps: list[tuple[int, int, float]],
) -> None:
    untold, now = Untold(), 0.0
    came, told = dict.fromkeys(range(6), 0), dict.fromkeys(range(6), 0)
    told_at = 0.0
    for number, more, passed in steps:
        now += passed
        came[number] += more
        if untold.came(number, came[number], more, now):
            told.update(untold.take(now))
            told_at = now
            assert told == came
        assert sum(came.values()) - sum(told.values()) < MOST_TOKENS
        assert came == told or now - told_at < MOST_S
