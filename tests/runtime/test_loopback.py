"""What a process sends to itself: in order, in the thread that takes it, and on the runtime loop else."""

from __future__ import annotations

import asyncio
import importlib
import random
import threading
from collections import deque
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any, Final

import pytest

import actorrt
from actorrt.exceptions import LinkError
from actorrt.runtime.links.link import Link
from actorrt.runtime.links.loopback import Loopback
from actorrt.runtime.links.peers import Peers
from actorrt.runtime.links.pipes import Pipe
from actorrt.runtime.owner.dispatch import Dispatch
from actorrt.types import ActorKey, FunctionKey, ProcessId
from actorrt.wire.frames import TO_CALLER
from actorrt.wire.link import Ending
from actorrt.wire.messages import ActorCall, AnyMessage, Borrow, Cancel, Done, Ping, Reply, TaskCall, Unreadable

ME: Final = ProcessId(b"process1")


class Receiver:
    """Remembers what comes on the runtime loop and, while `takes` is true, what is taken in the flushing thread."""

    def __init__(self) -> None:
        self.came: list[Any] = []
        self.here: list[Any] = []
        self.takes = False
        self.lost: list[Link] = []

    def take_here(self, link: Link, messages: deque[AnyMessage]) -> None:
        while self.takes and messages and isinstance(messages[0], ActorCall):
            self.here.append(messages.popleft())

    def receive(self, link: Link, messages: list[AnyMessage]) -> None:
        self.came += messages

    async def answer(self, link: Link, question: Any) -> Done:
        return Done()

    def unwanted(self, link: Link, body: Any) -> None: ...
    def unsendable(self, link: Link, message: AnyMessage, why: str) -> None: ...
    def unreadable(self, link: Link, message: Unreadable) -> None: ...

    def link_lost(self, link: Link) -> None:
        self.lost.append(link)


async def opened() -> tuple[Loopback, Receiver, Peers]:
    receiver = Receiver()
    peers = Peers(receiver, ME, "worker", "session", "0", take_here=receiver.take_here)
    link = await peers.link_to(ME)
    assert isinstance(link, Loopback)
    return link, receiver, peers


def call(seq: int) -> ActorCall:
    return ActorCall(seq, ActorKey(b"actor"), "method", b"")


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_process_has_one_link_to_itself_and_needs_no_socket_for_it() -> None:
    link, _, peers = await opened()
    assert await peers.link_to(ME) is link
    assert peers.statistics().links == 1
    assert link.statistics().connections == 0
    await peers.close()


async def test_what_is_sent_comes_in_order_on_the_runtime_loop() -> None:
    link, receiver, _ = await opened()
    messages: list[AnyMessage] = [call(1), Borrow(2), Cancel(1), call(3), Reply(1, b"data")]
    for message in messages:
        link.push(message)
    link.flush()
    assert receiver.came == []
    await turns()
    assert receiver.came == messages


async def test_what_the_flushing_thread_takes_comes_at_once() -> None:
    link, receiver, _ = await opened()
    receiver.takes = True
    link.push(call(1))
    link.flush()
    assert receiver.here == [call(1)]
    await turns()
    assert receiver.came == []


async def test_nothing_overtakes_what_is_under_way_to_the_runtime_loop() -> None:
    link, receiver, _ = await opened()
    receiver.takes = True
    for message in (call(1), Borrow(2), call(3)):
        link.push(message)
    link.flush()
    link.push(call(4))
    link.flush()
    assert receiver.here == [call(1)]
    await turns()
    assert receiver.came == [Borrow(2), call(3), call(4)]
    link.push(call(5))
    link.flush()
    assert receiver.here == [call(1), call(5)]


async def test_calls_of_one_thread_keep_their_order_while_others_flush() -> None:
    link, receiver, _ = await opened()
    receiver.takes = True
    count, dice = 300, random.Random(7)
    ready = threading.Barrier(4)

    def send(number: int, pauses: random.Random) -> None:
        ready.wait()
        for seq in range(count):
            link.push(call(number * count + seq) if pauses.random() < 0.7 else Borrow(number * count + seq))
            if pauses.random() < 0.5:
                link.flush()
        link.flush()

    threads = [threading.Thread(target=send, args=(n, random.Random(dice.random()))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    await turns()
    came = [message.seq for message in receiver.came + receiver.here]
    assert sorted(came) == list(range(4 * count))
    for kind in (receiver.came, receiver.here):
        for n in range(4):
            mine = [message.seq for message in kind if message.seq // count == n]
            assert mine == sorted(mine)


async def test_a_process_answers_its_own_questions() -> None:
    link, _, peers = await opened()
    assert await link.ask(Ping()) == Done()
    assert await peers.ask(ME, Ping()) == Done()


async def test_the_credits_of_a_message_are_its_callees() -> None:
    link, receiver, _ = await opened()
    message = TaskCall(1, FunctionKey(b"function"), b"", None, 1, 5)
    link.push(message)
    link.flush()
    await turns()
    receiver.came[0].credits += 3
    assert message.credits == 5


class PipeEnd:
    """Remembers what has come."""

    def __init__(self) -> None:
        self.data = b""
        self.ended = asyncio.Event()

    def arrived(self, pipe: Pipe, data: memoryview, last: bool) -> None:
        self.data += data
        if last:
            self.ended.set()

    def has_room(self, pipe: Pipe) -> None: ...


async def test_bytes_beside_a_call_come_too() -> None:
    link, _, _ = await opened()
    end = PipeEnd()
    caller = Pipe(link, 1, end, 0, 0)
    awaited: Any = type("Awaited", (), {"pipe": caller, "done": False})()
    link.inflight[1] = awaited
    callee = Pipe(link, 1, None, TO_CALLER, 1 << 20)
    link.pipes[1] = callee
    callee.write(b"x" * 600_000)
    callee.write(b"y", last=True)
    link.flush()
    async with asyncio.timeout(20):
        await end.ended.wait()
    assert end.data == b"x" * 600_000 + b"y"


async def test_it_ends_once_and_says_so() -> None:
    link, receiver, peers = await opened()
    link.push(Borrow(1))
    await peers.close()
    await turns()
    assert link.closed is Ending.GOODBYE
    assert receiver.lost == [link]
    assert receiver.came == []
    with pytest.raises(LinkError):
        await link.ask(Ping())


async def test_a_thread_that_flushes_while_it_ends_is_not_in_its_way() -> None:
    link, receiver, _ = await opened()
    receiver.takes = True

    def ends(one: Link, messages: deque[AnyMessage]) -> None:
        link.finish(Ending.LOST)
        messages.popleft()

    link._take_here = ends
    link.push(call(1))
    link.flush()
    link.push(call(2))
    link.flush()
    await turns()
    assert (receiver.came, receiver.here) == ([], [])


async def test_what_is_taken_runs_in_no_context_of_who_flushes() -> None:
    link, _, _ = await opened()
    seen: list[str] = []

    def looks(one: Link, messages: deque[AnyMessage]) -> None:
        messages.popleft()
        seen.append(whose.get())

    whose.set("the caller")
    link._take_here = looks
    link.push(call(1))
    link.flush()
    assert seen == ["nobody"]


class Exits:
    """The calls of a process, one of which has a callback by which its actor leaves."""

    def replied_here(self, link: Link, seq: int, data: bytes) -> bool:
        raise SystemExit


class HandedOver:
    def __init__(self) -> None:
        self.work: list[ActorCall] = []

    def is_here(self) -> bool:
        return True

    def enqueue_here(self, link: Link, work: list[ActorCall]) -> None:
        self.work += work


def test_a_callback_that_leaves_its_actor_takes_no_call_along() -> None:
    runtime: Any = SimpleNamespace(program=SimpleNamespace(runner=None), actors=Exits())
    dispatch = Dispatch(runtime)
    loop = HandedOver()
    dispatch._loop_of_calls = loop
    link: Any = None
    with pytest.raises(SystemExit):
        dispatch.take_here(link, deque([call(1), call(2), Reply(3, b"")]))
    assert [one.seq for one in loop.work] == [1, 2]


whose: ContextVar[str] = ContextVar("whose", default="nobody")


def variable() -> ContextVar[str]:
    """That of this module where it is imported, and not of the copy that a class travels with."""
    return importlib.import_module("tests.runtime.test_loopback").whose


@actorrt.remote
class Callee:
    def __init__(self) -> None:
        self.seen: list[int] = []
        self.begun = asyncio.Event()

    async def number(self, value: int) -> int:
        self.seen.append(value)
        return value

    async def for_whom(self) -> str:
        return variable().get()

    async def calls_many(self, itself: Any) -> None:
        """So many that they leave at once, in the context of this call."""
        refs = [itself.number.remote(value) for value in range(200)]
        await asyncio.Event().wait()
        del refs

    async def later_by(self, delay_s: float) -> int:
        await asyncio.sleep(delay_s)
        return 7

    async def later(self, value: int) -> int:
        await asyncio.sleep(0)
        return value

    async def fails(self) -> None:
        raise KeyError("no such thing")

    async def counts(self, most: int) -> Any:
        for value in range(most):
            yield value

    async def waits(self) -> None:
        self.begun.set()
        await asyncio.Event().wait()

    async def until_begun(self) -> None:
        await self.begun.wait()

    async def seen_by_now(self) -> list[int]:
        return self.seen


@actorrt.remote
class Caller:
    def __init__(self, callee: Any) -> None:
        self.callee = callee

    async def in_order(self, count: int) -> list[int]:
        refs = [self.callee.number.remote(value) for value in range(count)]
        assert [await ref for ref in refs] == list(range(count))
        return await self.callee.seen_by_now.remote()

    async def in_order_whoever_sends(self, count: int) -> list[int]:
        """From a thread and from the loop by turns: each waits for what it has called."""
        loop = asyncio.get_running_loop()
        for value in range(count):
            if value % 3:
                await self.callee.number.remote(value)
            else:
                ref = await loop.run_in_executor(None, self.callee.number.remote, value)
                await ref
        return await self.callee.seen_by_now.remote()

    async def mixed(self) -> tuple[list[int], list[int], str]:
        later = [self.callee.later.remote(value) for value in range(50)]
        items = [await ref async for ref in self.callee.counts.options(num_returns="streaming").remote(20)]
        try:
            await self.callee.fails.remote()
        except KeyError as error:
            return [await ref for ref in later], items, str(error)
        raise AssertionError("it did not fail")

    async def cancels(self) -> str:
        ref = self.callee.waits.remote()
        await self.callee.until_begun.remote()
        actorrt.cancel(ref)
        try:
            await ref
        except actorrt.exceptions.TaskCancelledError:
            return "cancelled"
        return "went on"

    async def for_whom(self) -> list[str]:
        variable().set("the caller")
        # The first one waits until its actor is found.
        first = await self.callee.for_whom.remote()
        return [first, await self.callee.for_whom.remote()]

    async def cancels_another(self, callee: Any) -> int:
        """What the callback of one call makes is no part of the call whose code flushed when it was called."""
        made: list[Any] = []
        await callee.number.remote(0)
        # Since it is under way, the next two leave with one turn.
        busy = callee.later_by.remote(0.1)
        ref = callee.number.remote(1)
        ref.add_done_callback(lambda _: made.append(callee.later_by.remote(0.2)), here=True)
        many = callee.calls_many.remote(callee)
        await ref
        await busy
        actorrt.cancel(many)
        return await made[0]

    async def large(self) -> int:
        data = bytes(3_000_000)
        refs = [self.callee.number.remote(actorrt.put(data)) for _ in range(3)]
        return sum([len(await ref) for ref in refs])

    async def links_to_itself(self) -> list[int]:
        from actorrt.runtime.owner import current

        runtime: Any = current.session()
        return [link.statistics().connections for link in runtime.peers.all_links() if link.is_loopback]


@pytest.fixture
def caller(node: object) -> Any:
    return Caller.remote(Callee.remote())


def test_calls_between_actors_of_one_worker_keep_their_order_and_use_no_connection(caller: Any) -> None:
    assert actorrt.get(caller.in_order.remote(3000)) == list(range(3000))
    assert actorrt.get(caller.links_to_itself.remote()) == [0]


def test_calls_that_threads_and_the_loop_make_by_turns_keep_their_order(caller: Any) -> None:
    assert actorrt.get(caller.in_order_whoever_sends.remote(60)) == list(range(60))


def test_streams_errors_and_calls_that_suspend_come_the_same_way(caller: Any) -> None:
    later, items, error = actorrt.get(caller.mixed.remote())
    assert (later, items) == (list(range(50)), list(range(20)))
    assert "no such thing" in error


def test_a_call_of_the_same_worker_can_be_cancelled(caller: Any) -> None:
    assert actorrt.get(caller.cancels.remote()) == "cancelled"


def test_large_values_pass_between_actors_of_one_worker(caller: Any) -> None:
    assert actorrt.get(caller.large.remote()) == 9_000_000


def test_a_call_of_the_same_worker_sees_no_variables_of_its_caller(caller: Any) -> None:
    assert actorrt.get(caller.for_whom.remote()) == ["nobody", "nobody"]


def test_what_a_callback_calls_is_not_cancelled_with_another_call(caller: Any) -> None:
    assert actorrt.get(caller.cancels_another.remote(Callee.remote()), timeout=20) == 7
