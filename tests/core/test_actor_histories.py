"""Histories of one actor: callers, its supervisor and its workers, with messages that cross, come late or are lost.

The decisions are those of the product: core/actor_calls.py, core/calls.py and core/lifecycle.py. What surrounds them,
shells, links and workers, is played here: a link keeps the order of what goes over it until it is cut, and each end
hears of that when it does.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final, Literal

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actorrt.core import actor_calls, calls, lifecycle
from actorrt.core.actor_calls import ActorCalls, Sorted, sort, traits_of
from actorrt.core.calls import CallLife
from actorrt.core.lifecycle import Lifecycle

from ..depth import DEPTH

WHICH: Final = st.integers(0, 7)
# So many calls may be under way to the actor.
WINDOW: Final = 3
Says = Literal["value", "raised", "stopped", "absent", "absent begun"]


class Call(CallLife):
    """A call, and what this test knows of it."""

    def __init__(self, number: int, attempts: int, waits: bool, raises: bool, at_least: int) -> None:
        super().__init__()
        self.attempts_left = self.allowed = attempts
        # It is to be repeated for any error.
        self.terms = raises
        self.number = number
        self.incarnation = -1
        self.waiting: object = "arguments" if waits else None
        # The first life of the actor that may run it: it was made when all those before had been killed.
        self.at_least = at_least
        self.counted = 0
        self.begun = 0
        self.ends: list[str] = []

    def __repr__(self) -> str:
        return f"call {self.number}"

    def end(self, how: str) -> None:
        self.ends.append(how)


@dataclass(eq=False)
class Instance:
    """One life of the actor in a worker."""

    incarnation: int
    queued: list[tuple[Link, Call]] = field(default_factory=list["tuple[Link, Call]"])
    running: list[tuple[Link, Call]] = field(default_factory=list["tuple[Link, Call]"])
    cancelled: set[Call] = field(default_factory=set[Call])


@dataclass(eq=False)
class Worker:
    number: int
    alive: bool = True
    actor: Instance | None = None


@dataclass(eq=False)
class Link:
    """From a caller to a worker. What is on its way when it is cut is lost."""

    caller: Caller
    worker: Worker
    closed: bool = False
    inflight: dict[int, Call] = field(default_factory=dict[int, Call])
    down: deque[tuple[str, Call | int]] = field(default_factory=deque["tuple[str, Call | int]"])
    up: deque[tuple[str, Call | int]] = field(default_factory=deque["tuple[str, Call | int]"])

    def end(self, *, heard: bool) -> None:
        """It has ended. What its worker had sent before still comes if it is `heard`."""
        self.closed = True
        self.down.clear()
        if not heard:
            self.up.clear()


@dataclass(eq=False)
class Caller:
    owns: bool
    client: ActorCalls[Call, Link]
    links: list[Link] = field(default_factory=list[Link])
    # An answer about the actor's place that has not come, or has not been acted on yet: the worker, and the life.
    answer: tuple[Worker | None, int] | None = None
    asked: int | None = None
    # Calls that fail once it is known what has become of the actor, each with the question that was asked for it.
    reports: list[tuple[int, list[Call]]] = field(default_factory=list["tuple[int, list[Call]]"])
    told_of_end: list[tuple[Link, bool]] = field(default_factory=list["tuple[Link, bool]"])
    # What it was told when it had the actor killed.
    told_of_kill: list[bool] = field(default_factory=list[bool])

    def link_to(self, worker: Worker) -> Link:
        for link in self.links:
            if link.worker is worker and not link.closed:
                return link
        self.links.append(Link(self, worker))
        return self.links[-1]


class Histories(RuleBasedStateMachine):
    """Two or three callers, of which the first owns the actor, and three workers."""

    @initialize(
        callers=st.integers(2, 3),
        ordered=st.booleans(),
        restarts=st.sampled_from([0, 1, 3, -1, -1]),
        found=st.booleans(),
    )
    def make(self, callers: int, ordered: bool, restarts: int, found: bool) -> None:
        traits = traits_of(ordered, WINDOW - actor_calls.WINDOW, 0, -1)
        self.ordered = ordered
        self.callers = [Caller(number == 0, ActorCalls("Actor", traits)) for number in range(callers)]
        self.owner = self.callers[0]
        self.owner.client.on(actor_calls.Event.OWNED)
        self.life = Lifecycle(restarts)
        self.place: Link | None = None
        self.workers = [Worker(number) for number in range(3)]
        self.calls: list[Call] = []
        # Kills that their callers wait for: until the worker has taken the message that ends the actor.
        self.killing: list[tuple[Caller, bool, Link | None, int]] = []
        self.killed_before = 0
        # What the owner hears of late: links that have ended.
        self.owner_hears: list[Link] = []
        if found:
            # All know where it is.
            self.place_it(0)
            self.take(0)
            self.hear(0)
            for which in range(callers):
                self.call(which, attempts=1, waits=False, raises=False, count=2)
                self.answer(which)
                self.hear_answer(which, cut=False)

    # ---- the supervisor, as the table says

    def apply(self, event: lifecycle.Event) -> None:
        link = self.place
        for action in self.life.on(event):
            match action:
                case lifecycle.Action.SEND_START:
                    assert link is not None
                    link.down.append(("start", self.life.incarnation))
                    self.moved()
                case lifecycle.Action.LEAVE_PLACE:
                    self.place = None
                    self.moved()
                case lifecycle.Action.STOP_WORKER:
                    if link is not None and not link.closed:
                        link.down.append(("stop", 0))
                case lifecycle.Action.BURY:
                    self.moved()
                case _:
                    pass

    def moved(self) -> None:
        client = self.owner.client
        if self.life.state is lifecycle.State.DEAD:
            client.on(actor_calls.Event.DIED)
        else:
            client.moved(self.place, self.life.incarnation)
        self.advance(self.owner)

    @precondition(lambda self: self.life.state is lifecycle.State.PLACING)
    @rule(which=WHICH)
    def place_it(self, which: int) -> None:
        self.place = self.owner.link_to(self.a_worker(which))
        self.apply(lifecycle.Event.PLACED)

    def a_worker(self, which: int) -> Worker:
        living = [worker for worker in self.workers if worker.alive]
        if not living:
            living = [Worker(len(self.workers))]
            self.workers += living
        return living[which % len(living)]

    @precondition(lambda self: self.life.state is not lifecycle.State.DEAD)
    @rule(which=WHICH, restart=st.booleans())
    def kill(self, which: int, restart: bool) -> None:
        """A caller has the actor killed."""
        link = self.place
        self.apply(lifecycle.Event.KILLED if restart else lifecycle.Event.ENDED)
        self.killing.append((self.callers[which % len(self.callers)], restart, link, self.life.incarnation))

    @precondition(lambda self: self.killing)
    @rule()
    def tell_of_kill(self) -> None:
        """The kill is over once the worker has taken what was sent behind it."""
        caller, restart, link, incarnation = self.killing[0]
        if link is None or link.closed or not any(what == "stop" for what, _ in link.down):
            self.killing.pop(0)
            self.killed_before = max(self.killed_before, incarnation)
            if not caller.owns:
                caller.client.on(actor_calls.Event.KILLED if restart else actor_calls.Event.DIED)
                self.advance(caller)

    @precondition(lambda self: self.owner_hears)
    @rule()
    def hear_of_loss(self) -> None:
        link = self.owner_hears.pop(0)
        if self.place is link and self.life.state is not lifecycle.State.PLACING:
            self.apply(lifecycle.Event.LOST)

    # ---- a caller, as the shell does it

    @rule(
        which=WHICH,
        attempts=st.sampled_from([0, 0, 1, 2, -1]),
        waits=st.booleans(),
        raises=st.booleans(),
        count=st.integers(1, 4),
    )
    def call(self, which: int, attempts: int, waits: bool, raises: bool, count: int) -> None:
        caller = self.callers[which % len(self.callers)]
        for number in range(count):
            call = Call(len(self.calls), attempts, waits and number == 0, raises, self.killed_before)
            self.calls.append(call)
            link = caller.client.admit(call)
            if link is not None:
                self.push(call, link)
            elif caller.client.enqueue(call):
                self.advance(caller)

    def push(self, call: Call, link: Link) -> None:
        assert not link.closed
        assert not call.wish, "what its caller knows to be cancelled is not sent"
        assert call.number not in link.inflight
        # Over this link this life was found, or one that was there before.
        client = link.caller.client
        assert client.link is link
        assert call.incarnation == client.incarnation
        if self.ordered:
            assert all(call.number < other.number for other in client.backlog or ())
        call.sent()
        link.inflight[call.number] = call
        link.down.append(("call", call))

    def advance(self, caller: Caller) -> None:
        client = caller.client
        match client.wanted():
            case actor_calls.Action.SEND:
                link = client.link
                assert link is not None
                while True:
                    while (call := client.next_to_send()) is not None:
                        self.push(call, link)
                    if client.next_to_resolve() is None:
                        break
            case actor_calls.Action.ASK:
                self.ask(caller)
            case actor_calls.Action.FAIL:
                for call in client.drain():
                    if call.on(calls.Event.GIVEN_UP) is calls.Action.FAIL:
                        call.end("dead")
            case _:
                pass

    @precondition(lambda self: any(caller.client.resolving for caller in self.callers))
    @rule(which=WHICH, fails=st.booleans())
    def resolve(self, which: int, fails: bool) -> None:
        """The arguments of a call come."""
        waiting = [(caller, call) for caller in self.callers for call in caller.client.resolving or ()]
        if waiting:
            caller, call = sorted(waiting, key=lambda one: one[1].number)[which % len(waiting)]
            if fails and call.on(calls.Event.GIVEN_UP) is calls.Action.FAIL:
                call.end("argument")
            call.waiting = None
            caller.client.resolved(call)
            self.advance(caller)

    @precondition(lambda self: any(not call.done for call in self.calls))
    @rule(which=WHICH, force=st.booleans())
    def cancel(self, which: int, force: bool) -> None:
        living = [call for call in self.calls if not call.done]
        call = living[which % len(living)]
        caller = next(caller for caller in self.callers if self.knows(caller, call))
        match caller.client.cancel(call, force):
            case calls.Action.END_CANCELLED:
                call.end("cancelled")
                self.advance(caller)
            case calls.Action.SEND_CANCEL:
                for link in caller.links:
                    if call.number in link.inflight and not link.closed:
                        link.down.append(("cancel", call))
            case _:
                raise AssertionError(call)

    def knows(self, caller: Caller, call: Call) -> bool:
        client = caller.client
        return (
            call in (client.backlog or ())
            or call in (client.resolving or ())
            or any(call.number in link.inflight for link in caller.links)
            or any(call in failed for _, failed in caller.reports)
        )

    def settle(self, caller: Caller, found: Sorted[Call], may_live: bool) -> None:
        for call in found.cancelled:
            call.end("cancelled")
        if found.failed:
            caller.reports.append((caller.client.last_seen(found.failed, may_live), found.failed))
        self.advance(caller)

    # ---- questions to the owner

    def ask(self, caller: Caller) -> None:
        assert not caller.owns, "the supervisor tells its own"
        assert caller.asked is None, "one question at a time"
        caller.asked = caller.client.incarnation

    def answer(self, which: int) -> None:
        """The owner answers a caller that asks where the actor is, if it can."""
        asking = [caller for caller in self.callers if caller.asked is not None and caller.answer is None]
        if not asking:
            return
        caller = asking[which % len(asking)]
        assert caller.asked is not None
        if self.life.state is lifecycle.State.DEAD:
            caller.answer = None, 0
        elif self.life.incarnation > caller.asked and self.life.state is lifecycle.State.ALIVE:
            assert self.place is not None
            caller.answer = self.place.worker, self.life.incarnation

    @precondition(lambda self: any(caller.answer for caller in self.callers))
    @rule(which=WHICH, cut=st.booleans())
    def hear_answer(self, which: int, cut: bool) -> None:
        """What the owner has said comes, maybe late; `cut`: the link to that place ends at once."""
        told = [caller for caller in self.callers if caller.answer is not None]
        if not told:
            return
        caller = told[which % len(told)]
        assert caller.answer is not None
        worker, incarnation = caller.answer
        caller.answer = caller.asked = None
        client = caller.client
        if client.state is not actor_calls.State.RESOLVING:
            # It was told meanwhile that the actor is dead.
            assert client.state is actor_calls.State.DEAD
        elif worker is None:
            client.on(actor_calls.Event.DIED)
        elif not worker.alive or cut:
            if client.unreachable(incarnation, may_live=worker.alive) is actor_calls.Action.ASK:
                self.ask(caller)
        else:
            client.found(caller.link_to(worker), incarnation)
        self.advance(caller)

    @precondition(lambda self: any(caller.reports for caller in self.callers))
    @rule(which=WHICH)
    def report(self, which: int) -> None:
        """It is known what has become of the actor that calls were sent to: they fail with that."""
        looking = [caller for caller in self.callers if caller.reports]
        if not looking:
            return
        caller = looking[which % len(looking)]
        dead = self.life.state is lifecycle.State.DEAD
        for seen, failed in list(caller.reports):
            if dead or self.life.incarnation > seen:
                caller.reports.remove((seen, failed))
                if dead:
                    caller.client.on(actor_calls.Event.DIED)
                found = sort(failed, calls.Event.LOST)
                assert not found.again
                for call in found.cancelled:
                    call.end("cancelled")
                for call in found.failed:
                    assert call.on(calls.Event.GIVEN_UP) is calls.Action.FAIL
                    call.end("lost")
                self.advance(caller)

    # ---- what goes over links

    @rule(moves=st.lists(st.tuples(st.integers(0, 5), WHICH), min_size=1, max_size=12))
    def go_on(self, moves: list[tuple[int, int]]) -> None:
        """What mostly happens: calls come to the worker, are begun and end, their caller hears of it, and learns where
        the actor is."""
        for move, which in moves:
            match move:
                case 4:
                    self.answer(which)
                case 5:
                    self.hear_answer(which, False)
                case _:
                    (self.take, self.begin, self.finish, self.hear)[move](which)

    def busy(self, which: int, *, up: bool) -> Link | None:
        links = [link for caller in self.callers for link in caller.links if (link.up if up else link.down)]
        return links[which % len(links)] if links else None

    def take(self, which: int) -> None:
        """A worker takes its next message."""
        link = self.busy(which, up=False)
        if link is None:
            return
        what, about = link.down.popleft()
        worker, actor = link.worker, link.worker.actor
        match what, about:
            case "start", int():
                worker.actor = Instance(about)
                link.up.append(("started", about))
            case "stop", _:
                self.stop(worker)
            case "call", Call() if actor is None:
                link.up.append(("absent", about))
            case "call", Call() if actor is not None:
                actor.queued.append((link, about))
            case _, Call() if actor is not None:
                if (link, about) in actor.queued:
                    actor.queued.remove((link, about))
                    link.up.append(("stopped", about))
                else:
                    actor.cancelled.add(about)
            case _:
                pass

    def stop(self, worker: Worker) -> None:
        if worker.actor is not None:
            for says, those in (("absent begun", worker.actor.running), ("absent", worker.actor.queued)):
                for link, call in those:
                    self.say(link, says, call)
            worker.actor = None

    @staticmethod
    def say(link: Link, says: str, call: Call) -> None:
        if not link.closed:
            link.up.append((says, call))

    def instances(self) -> list[Instance]:
        return [worker.actor for worker in self.workers if worker.alive and worker.actor is not None]

    def begin(self, which: int) -> None:
        """An actor begins a call; one that is ordered has one at a time."""
        ready = [actor for actor in self.instances() if actor.queued and not (self.ordered and actor.running)]
        if ready:
            actor = ready[which % len(ready)]
            link, call = actor.queued.pop(0)
            assert actor.incarnation >= call.at_least, "a call was made to an actor that had been killed before"
            assert actor.incarnation >= call.incarnation, "a life that had not begun"
            actor.running.append((link, call))
            call.begun += 1

    def finish(self, which: int) -> None:
        actors = [actor for actor in self.instances() if actor.running]
        if actors:
            actor = actors[which % len(actors)]
            link, call = actor.running.pop(0)
            says = "stopped" if call in actor.cancelled else "raised" if which % 3 == 0 else "value"
            self.say(link, says, call)

    def hear(self, which: int) -> None:
        """A caller takes the next message of a worker."""
        link = self.busy(which, up=True)
        if link is None:
            return
        says, about = link.up.popleft()
        if says == "left":
            self.apply(lifecycle.Event.LEFT)
            return
        if isinstance(about, int):
            if self.place is link and self.life.incarnation == about:
                self.apply(lifecycle.Event.STARTED)
            return
        call = link.inflight.pop(about.number)
        caller, client = link.caller, link.caller.client
        assert call is about
        if says.startswith("absent"):
            found, action = client.absent(link, call, begun=says == "absent begun")
            call.counted += call in found.again and says == "absent begun"
            alive = self.life.state is lifecycle.State.ALIVE and self.life.incarnation == call.incarnation
            if action is actor_calls.Action.REPORT_ABSENT and alive:
                self.apply(lifecycle.Event.LOST)
            self.settle(caller, found, may_live=False)
            return
        event = {"value": calls.Event.ANSWERED, "stopped": calls.Event.STOPPED}.get(says)
        action = call.raised(ValueError) if event is None else call.on(event)
        if action is calls.Action.AGAIN:
            call.counted += 1
            client.repeat(call)
            self.advance(caller)
            return
        assert action in (calls.Action.SETTLE, calls.Action.FAIL, calls.Action.END_CANCELLED)
        call.end(says)
        if client.answered(1):
            self.advance(caller)

    # ---- what goes wrong

    @precondition(lambda self: any(worker.alive for worker in self.workers))
    @rule(which=WHICH, its_own=st.booleans())
    def crash(self, which: int, its_own: bool) -> None:
        """A worker dies, the one of the actor or any. Each caller hears of it by its own link, when it does."""
        living = [worker for worker in self.workers if worker.alive]
        at = self.place.worker if its_own and self.place is not None else living[which % len(living)]
        if at.alive:
            worker = at
            worker.alive = False
            worker.actor = None
            # What a process has written comes though it dies.
            links = [link for caller in self.callers for link in caller.links if link.worker is worker]
            self.close(links, heard=True)

    def links_to_cut(self) -> list[Link]:
        return [link for caller in self.callers[1:] for link in caller.links if not link.closed]

    @precondition(lambda self: bool(self.links_to_cut()))
    @rule(which=WHICH)
    def cut(self, which: int) -> None:
        """The link of a caller breaks, while both ends live."""
        links = self.links_to_cut()
        self.close([links[which % len(links)]], heard=False)

    @precondition(lambda self: self.instances())
    @rule(which=WHICH)
    def leave(self, which: int) -> None:
        """The actor leaves by itself, and tells its owner."""
        workers = [worker for worker in self.workers if worker.alive and worker.actor is not None]
        worker = workers[which % len(workers)]
        self.stop(worker)
        link = next((link for link in self.owner.links if link.worker is worker and not link.closed), None)
        if link is not None:
            link.up.append(("left", 0))

    @staticmethod
    def close(links: list[Link], *, heard: bool) -> None:
        for link in links:
            if not link.closed:
                link.end(heard=heard)
                link.caller.told_of_end.append((link, link.worker.alive))

    @precondition(lambda self: any(caller.told_of_end for caller in self.callers))
    @rule(which=WHICH, late=st.booleans())
    def hear_of_end(self, which: int, late: bool) -> None:
        """A caller hears that a link has ended; `late`: it does not know yet that the process has."""
        telling = [(caller, one) for caller in self.callers for one in caller.told_of_end if not one[0].up]
        if not telling:
            return
        caller, one = telling[which % len(telling)]
        caller.told_of_end.remove(one)
        link, alive = one
        under_way, link.inflight = list(link.inflight.values()), {}
        starting = self.place is link and self.life.state is lifecycle.State.STARTING
        begun = not (caller.owns and starting)
        assert begun or not any(call.begun for call in under_way if call.incarnation == self.life.incarnation)
        may_live = (alive and link.worker.alive) or late
        found = caller.client.lost(link, under_way, begun=begun, may_live=may_live)
        for call in found.again:
            call.counted += begun
        self.settle(caller, found, may_live)
        if caller.owns:
            self.owner_hears.append(link)

    # ---- what is promised

    @invariant()
    def each_call_ends_once_and_is_in_one_place_until_then(self) -> None:
        places: Counter[Call] = Counter()
        for caller in self.callers:
            held = list(caller.client.backlog or ())
            held += [call for call in caller.client.resolving or () if call not in held]
            held += [call for link in caller.links for call in link.inflight.values()]
            held += [call for _, failed in caller.reports for call in failed]
            places.update(call for call in held if not call.done)
        for call in self.calls:
            assert len(call.ends) == call.done, (call, call.ends)
            assert places[call] == (not call.done), call

    @invariant()
    def what_is_under_way_is_counted(self) -> None:
        for caller in self.callers:
            assert caller.client.inflight == sum(len(link.inflight) for link in caller.links)
            assert caller.client.inflight >= 0

    @invariant()
    def each_retry_counts_once(self) -> None:
        for call in self.calls:
            assert call.attempts_left == (call.allowed if call.allowed < 0 else call.allowed - call.counted)
            assert call.allowed < 0 or call.begun <= 1 + call.counted

    @invariant()
    def calls_wait_in_their_order(self) -> None:
        for caller in self.callers if self.ordered else ():
            waiting = [call.number for call in caller.client.backlog or ()]
            assert waiting == sorted(waiting)

    @invariant()
    def who_waits_is_waited_for(self) -> None:
        """A caller whose calls wait has asked, will be told, or has calls under way that make room."""
        for caller in self.callers:
            client = caller.client
            if client.backlog is not None:
                resolves = any(call in client.backlog for call in client.resolving or ())
                closed = client.link is not None and client.link.closed
                assert (
                    caller.owns
                    or client.state is actor_calls.State.DEAD
                    or (caller.asked is not None or resolves or closed or client.inflight)
                ), client.state

    def teardown(self) -> None:
        """When nothing goes wrong any more, all calls end."""
        if not hasattr(self, "callers"):
            return
        for turn in range(400):
            if all(call.done for call in self.calls):
                break
            if self.life.state is lifecycle.State.PLACING:
                self.place_it(turn)
            while self.owner_hears:
                self.hear_of_loss()
            if self.killing:
                self.tell_of_kill()
            for which in range(len(self.callers)):
                self.answer(which)
                self.hear_answer(which, False)
                self.report(which)
            self.hear_of_end(0, False)
            self.resolve(0, False)
            for step in (self.take, self.begin, self.finish, self.hear):
                for which in range(1, 5):
                    step(which)
        assert all(call.done for call in self.calls), [call for call in self.calls if not call.done]
        self.each_call_ends_once_and_is_in_one_place_until_then()
        self.what_is_under_way_is_counted()
        self.each_retry_counts_once()
        for caller in self.callers:
            assert not caller.client.is_waiting


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=100 * DEPTH, stateful_step_count=40, deadline=None)
