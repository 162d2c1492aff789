"""The router from a replica that answers to those that read: it has no choice, and waits for news of a new one."""

from typing import Any, cast

import pytest

from actorrt.serve.base.news import DeploymentNews, ReplicaNews
from actorrt.serve.capacity_queue import by_lease
from actorrt.serve.capacity_queue.by_lease import NEWS_S, ByLease, ReadBy
from actorrt.serve.capacity_queue.messages import Tag, incarnation_of
from actorrt.serve.policies.policy import ONE_REQUEST, PolicyContext, Refused


class Read:
    def __init__(self, replica: str) -> None:
        tag = Tag(1, incarnation_of(replica), 5, 0, 0, "router", 100, 0, "", "", "", "default")
        self.cost = ReadBy(replica=replica, tag=tag)


class Timer:
    """It notes what it is to do, which a test does when it likes."""

    made: list["Timer"]

    def __init__(self, seconds: float, work: Any) -> None:
        self.seconds, self.work, self.is_cancelled = seconds, work, False
        Timer.made.append(self)

    def start(self) -> None: ...

    def cancel(self) -> None:
        self.is_cancelled = True


class Clock:
    now = 100.0
    ready = 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    Timer.made = []
    monkeypatch.setattr(by_lease.threading, "Timer", Timer)
    return Clock()


@pytest.fixture
def router(clock: Clock) -> ByLease:
    def ready() -> None:
        clock.ready += 1

    return ByLease(PolicyContext("app#prefill", lambda: 0.5, lambda: clock.now, ready))


def news(*ids: str) -> DeploymentNews:
    return DeploymentNews(replicas=tuple(ReplicaNews(id, cast(Any, None)) for id in ids))


def test_the_replica_of_the_lease_gets_it_and_no_other(router: ByLease) -> None:
    router.update(news("old", "other"))
    read = Read("old")
    grant = router.submit(read)
    assert grant is not None
    assert (grant.replica, grant.tag) == ("old", read.cost.tag)


def test_of_a_replica_that_is_not_known_yet_the_news_are_waited_for(router: ByLease) -> None:
    router.update(news("old"))
    one, other = Read("new"), Read("new")
    assert (router.submit(one), router.submit(other), router.next()) == (None, None, None)
    router.update(news("old", "new"))
    found = [router.next(), router.next()]
    assert [(request, cast(Any, grant).replica) for request, grant in filter(None, found)] == [
        (one, "new"), (other, "new"),
    ]  # fmt: skip
    assert router.next() is None


def test_whom_no_news_ever_names_is_waited_for_no_longer_than_the_bound(router: ByLease, clock: Clock) -> None:
    first, second = Read("never"), Read("never")
    assert router.submit(first) is None
    clock.now += NEWS_S / 2
    assert router.submit(second) is None
    (timer,) = Timer.made
    clock.now += NEWS_S / 2
    timer.work()
    assert clock.ready == 1
    request, refused = router.next() or (None, None)
    assert (request, type(refused)) == (first, Refused)
    assert router.next() is None
    # The other one is looked at in its turn.
    _, timer = Timer.made
    assert timer.seconds == NEWS_S / 2
    clock.now += timer.seconds
    timer.work()
    assert cast(Any, router.next())[0] is second
    assert (router.next(), len(Timer.made)) == (None, 2)


def test_one_that_has_gone_is_not_waited_for(router: ByLease) -> None:
    router.update(news("left", "died"))
    router.update(news("died"))
    router.died("died")
    for id in ("left", "died"):
        with pytest.raises(Refused, match="has gone"):
            router.submit(Read(id))


def test_one_that_goes_while_it_is_waited_for_is_refused(router: ByLease) -> None:
    read, left = Read("new"), Read("new")
    for each in (read, left):
        router.submit(each)
    router.withdraw(left)
    router.died("new")
    request, refused = router.next() or (None, None)
    assert (request, type(refused), router.next()) == (read, Refused, None)


def test_who_waits_is_forgotten_as_another_policy_takes_its_place(router: ByLease) -> None:
    router.submit(Read("new"))
    router.close()
    router.update(news("new"))
    assert (router.next(), Timer.made[0].is_cancelled) == (None, True)


def test_what_names_no_replica_is_refused(router: ByLease) -> None:
    read = Read("any")
    read.cost = cast(Any, ONE_REQUEST)
    with pytest.raises(Refused):
        router.submit(read)


def test_one_that_the_news_leave_out_once_is_there_again_with_the_next(router: ByLease) -> None:
    router.update(news("one"))
    router.update(news())
    router.update(news("one"))
    grant = router.submit(Read("one"))
    assert grant is not None
    assert grant.replica == "one"
