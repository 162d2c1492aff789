"""A queue after another, as a router has them: the one that was left says nothing more, and is told nothing more."""

from typing import Any

import pytest

from actorrt.serve.capacity_queue import policy as policy_module
from actorrt.serve.capacity_queue import session as session_module
from actorrt.serve.capacity_queue.messages import Messages, ToQueue, ToRouter, encode, to_queue
from actorrt.serve.capacity_queue.policy import CapacityQueuePolicy
from actorrt.serve.policies.policy import PolicyContext


class Queue:
    """The handle of a queue, with the call that is a router's session."""

    def __init__(self) -> None:
        self.session = self
        self.heard: list[ToQueue] = []

    def remote_piped(self, receiver: Any, router: str) -> "Queue":
        self.receiver = receiver
        receiver.has_room(self)
        return self

    def add_done_callback(self, callback: Any, *, here: bool) -> None:
        self._ended = callback

    def exception(self) -> None:
        return None

    def grant(self, size: int) -> None: ...

    def write(self, data: bytes) -> None:
        self.heard += [to_queue.decode(message) for message in Messages().feed(data)]

    def says(self, message: ToRouter) -> None:
        self.receiver.arrived(self, memoryview(encode(message)), False)

    def end(self) -> None:
        self._ended(self)


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> CapacityQueuePolicy:
    monkeypatch.setattr(session_module, "cancel", lambda ref: None)
    return CapacityQueuePolicy(PolicyContext("app#it", lambda: 0.5, lambda: 100.0, lambda: None))


def test_a_queue_that_was_left_ends_late_and_the_next_one_is_asked_all_the_same(policy: CapacityQueuePolicy) -> None:
    first, second = Queue(), Queue()
    policy._connect(first)
    first.says(ToRouter(epoch=1))
    policy.next()
    policy._connect(second)
    assert (policy._alone.is_connected, policy._is_alone(100.0)) == (False, True)
    second.says(ToRouter(epoch=2))
    policy.next()
    # What the first one says still is nobody's, and so is its end.
    first.says(ToRouter(epoch=1))
    first.end()
    policy.next()
    assert (policy.epoch, policy._alone.is_connected) == (2, True)
    policy._say("withdraw", 7)
    assert second.heard[-1] == ToQueue(epoch=2, withdraw=[7])


def test_nothing_that_was_for_one_queue_is_said_to_the_next(
    policy: CapacityQueuePolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue()
    policy._connect(queue)
    queue.says(ToRouter(epoch=1))
    policy.next()
    policy._out.say("withdraw", 7)
    queue.heard.clear()
    begin = policy_module.ByCredit.begin

    def begins(self: Any, epoch: int) -> None:
        # The turn of another thread ends in the middle of it.
        policy._flush()
        begin(self, epoch)

    monkeypatch.setattr(policy_module.ByCredit, "begin", begins)
    policy._alone.lost()
    policy._take(ToRouter(epoch=2))
    assert queue.heard == [ToQueue(epoch=2, held=[])]
