"""Copies of an object between nodes: each transition, who takes it from whom, and histories in which all goes wrong."""

from __future__ import annotations

import itertools
import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from actorrt.core.copies import MOST_AT_ONCE, OWNER_ENDED, AskOwner, Copies, Free, Name
from actorrt.core.copies import Action as HomeAction
from actorrt.core.transfers import (
    LONGEST_PAUSE_S,
    TABLE,
    Action,
    Event,
    Fetch,
    Fetches,
    Serving,
    State,
    Step,
    TransferError,
)
from actorrt.types import NO_PROCESS, ObjectKey, ProcessId

from ..depth import DEPTH

HOME: Final = ProcessId(b"home....")
OWNER: Final = ProcessId(b"owner...")
KEY: Final[ObjectKey] = (OWNER, 1)
SIZE: Final = 100


def node(number: int) -> ProcessId:
    return ProcessId(f"node{number:04}".encode())


A, B, C, D = map(node, range(4))


def steps(actions: tuple[Action, ...]) -> list[Step]:
    return [action.step for action in actions]


# -- the copy that a node fetches


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_every_pair_is_in_the_table_or_an_error_that_names_both(state: State, event: Event) -> None:
    copy = Fetch(KEY, HOME, SIZE)
    copy.state = state
    row = TABLE.get((state, event))
    if row is None:
        with pytest.raises(TransferError, match=rf"{event.name} cannot .*{state.name}"):
            copy.on(event)
    else:
        assert steps(copy.on(event)) == list(row[1])
        assert copy.state is row[0]


def test_no_copy_ends_with_memory_that_nobody_closes() -> None:
    for (state, event), (following, done) in TABLE.items():
        has_part = state in (State.ASKING, State.COPYING)
        keeps = following in (State.ASKING, State.COPYING) or Step.SEAL in done
        assert not has_part or keeps or Step.DISCARD in done, (state, event)
        assert state is not State.COPYING or following is state or Step.STOP_READING in done, (state, event)
        if event is not Event.ROOM_GIVEN and event is not Event.NO_ROOM and following is not State.ROOM:
            assert state is not State.ROOM or Step.CALL_OFF in done, (state, event)


def test_a_node_asks_once_however_many_wait() -> None:
    fetches = Fetches(A)
    copy, first = fetches.wanted(KEY, HOME, SIZE, "one")
    same, second = fetches.wanted(KEY, HOME, SIZE, "two")
    assert same is copy
    assert steps(first) == [Step.MAKE_ROOM]
    assert second == ()
    assert steps(fetches.room(copy)) == [Step.ASK]
    assert steps(fetches.source(KEY, 1, B)) == [Step.READ]
    assert fetches.came(copy, SIZE - 1) == ()
    assert steps(fetches.came(copy, 1)) == [Step.STOP_READING, Step.SEAL, Step.TELL_HAVE, Step.WAKE]
    assert list(copy.waiters) == ["one", "two"]


def fetching(at: int = 0) -> tuple[Fetches, Fetch]:
    """A copy that comes from B, of which `at` bytes are here."""
    fetches = Fetches(A)
    copy, _ = fetches.wanted(KEY, HOME, SIZE, "one")
    fetches.room(copy)
    fetches.source(KEY, 1, B)
    fetches.came(copy, at)
    return fetches, copy


def test_after_a_break_it_goes_on_at_the_byte_where_it_stopped_also_from_another_holder() -> None:
    fetches, copy = fetching(60)
    assert steps(fetches.broke(copy, missing=False)) == [Step.STOP_READING, Step.ASK]
    assert (copy.failed, copy.missing) == (B, False)
    assert steps(fetches.source(KEY, 1, C)) == [Step.READ]
    assert (copy.source, copy.got) == (C, 60)


def test_what_was_made_anew_begins_at_the_first_byte_in_other_memory() -> None:
    fetches, copy = fetching(60)
    assert steps(fetches.source(KEY, 2, C)) == [Step.STOP_READING, Step.DISCARD, Step.MAKE_ROOM]
    assert copy.got == 0
    assert steps(fetches.room(copy)) == [Step.ASK]
    assert steps(fetches.source(KEY, 2, C)) == [Step.READ]


def test_what_was_made_again_at_the_source_is_not_put_behind_what_came_before() -> None:
    fetches, copy = fetching()
    assert fetches.begins(copy, b"first", SIZE) == ()
    fetches.came(copy, 60)
    fetches.broke(copy, missing=False)
    fetches.source(KEY, 1, C)
    assert fetches.begins(copy, b"first", SIZE) == ()
    assert steps(fetches.begins(copy, b"second", SIZE)) == [Step.STOP_READING, Step.DISCARD, Step.MAKE_ROOM]
    assert copy.got == 0


def test_room_is_made_anew_for_what_has_another_size_than_was_said() -> None:
    fetches, copy = fetching()
    assert steps(fetches.begins(copy, b"first", SIZE + 1)) == [Step.STOP_READING, Step.DISCARD, Step.MAKE_ROOM]
    fetches.room(copy)
    fetches.source(KEY, 1, B)
    assert fetches.begins(copy, b"first", SIZE + 1) == ()


def test_a_source_that_is_named_twice_is_read_once() -> None:
    fetches, copy = fetching(10)
    assert fetches.source(KEY, 1, B) == ()
    assert steps(fetches.source(KEY, 1, C)) == [Step.STOP_READING, Step.READ]
    assert copy.got == 10


def test_it_ends_once_nobody_waits_here_and_nobody_takes_it_from_here() -> None:
    fetches, copy = fetching(10)
    assert fetches.asked_for(KEY, 1, is_here=False) is Serving.PART
    assert fetches.taken(KEY, "C") is copy
    assert fetches.left(copy, "one") == ()
    assert steps(fetches.not_taken(copy, "C")) == [Step.STOP_READING, Step.DISCARD, Step.TELL_DROP]
    assert len(fetches) == 0
    again, begin = fetches.wanted(KEY, HOME, SIZE, "one")
    assert again is not copy
    assert steps(begin) == [Step.MAKE_ROOM]


def test_a_part_of_another_version_is_served_to_nobody() -> None:
    fetches, _ = fetching(10)
    assert fetches.asked_for(KEY, 2, is_here=False) is Serving.NOT_NOW


def test_it_is_named_before_it_knows_its_version() -> None:
    fetches = Fetches(A)
    fetches.wanted(KEY, HOME, SIZE, "one")
    assert fetches.asked_for(KEY, 7, is_here=False) is Serving.PART


def test_what_a_node_has_not_is_missing() -> None:
    fetches, copy = fetching(10)
    assert fetches.asked_for((OWNER, 2), 1, is_here=False) is Serving.MISSING
    assert fetches.asked_for((OWNER, 2), 1, is_here=True) is Serving.WHOLE
    fetches.came(copy, SIZE - 10)
    assert fetches.asked_for(KEY, 1, is_here=True) is Serving.WHOLE
    assert fetches.asked_for(KEY, 2, is_here=True) is Serving.NOT_NOW
    assert fetches.asked_for(KEY, 1, is_here=False) is Serving.MISSING


def test_a_home_that_ends_frees_all_that_is_its_own() -> None:
    fetches, copy = fetching(10)
    other, _ = fetches.wanted((OWNER, 2), D, SIZE, "two")
    assert steps(fetches.home_died(HOME, OWNER_ENDED)) == [Step.STOP_READING, Step.DISCARD, Step.FAIL]
    assert copy.cause == OWNER_ENDED
    assert list(fetches) == [other]


def test_a_memory_that_is_full_is_told_to_all_who_wait() -> None:
    fetches = Fetches(A)
    copy, _ = fetches.wanted(KEY, HOME, SIZE, "one")
    assert steps(fetches.no_room(copy, "full")) == [Step.TELL_DROP, Step.FAIL]
    assert (copy.cause, len(fetches)) == ("full", 0)
    assert fetches.room(copy) == ()


def test_what_a_process_makes_here_is_fetched_no_more() -> None:
    fetches, _ = fetching(10)
    assert steps(fetches.sealed_here(KEY)) == [Step.STOP_READING, Step.DISCARD, Step.TELL_HAVE, Step.WAKE]
    assert fetches.asked_for(KEY, 2, is_here=True) is Serving.WHOLE
    assert fetches.source(KEY, 2, A) == ()


def test_the_pauses_grow_and_end_with_the_next_byte() -> None:
    fetches, copy = fetching()
    pauses: list[float] = []
    for _ in range(20):
        fetches.broke(copy, missing=False)
        pauses.append(copy.pause_s)
        fetches.source(KEY, 1, B)
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.0, LONGEST_PAUSE_S)
    fetches.came(copy, 1)
    fetches.broke(copy, missing=False)
    assert copy.pause_s == 0.0


def test_a_new_link_repeats_what_the_last_may_have_lost() -> None:
    fetches, copy = fetching()
    assert fetches.linked_again(HOME) == ()
    fetches.broke(copy, missing=False)
    assert steps(fetches.linked_again(HOME)) == [Step.ASK]
    fetches.source(KEY, 1, B)
    fetches.came(copy, SIZE)
    assert steps(fetches.linked_again(HOME)) == [Step.TELL_HAVE]


# -- who takes it from whom


def spread(copies: Copies, at: ProcessId, key: ObjectKey = KEY) -> int:
    """The first ask, answered by the owner; the number of the version."""
    (ask,) = copies.asked(key, A, NO_PROCESS, missing=False)
    assert isinstance(ask, AskOwner)
    (name,) = copies.found(key, ask.number, at)
    assert isinstance(name, Name)
    assert (name.node, name.source) == (A, at)
    return name.version


def named(actions: tuple[HomeAction, ...]) -> dict[ProcessId, ProcessId]:
    return {action.node: action.source for action in actions if isinstance(action, Name)}


def test_who_has_a_part_of_it_serves_it_before_a_link_is_shared() -> None:
    copies = Copies()
    spread(copies, HOME)
    assert named(copies.asked(KEY, B, NO_PROCESS, missing=False)) == {B: A}
    assert named(copies.asked(KEY, C, NO_PROCESS, missing=False)) == {C: B}


def test_an_owner_is_asked_once() -> None:
    copies = Copies()
    assert len(copies.asked(KEY, A, NO_PROCESS, missing=False)) == 1
    assert copies.asked(KEY, B, NO_PROCESS, missing=False) == ()


def test_a_source_that_was_lost_is_named_again_only_if_there_is_no_other() -> None:
    copies = Copies()
    version = spread(copies, HOME)
    assert named(copies.asked(KEY, A, HOME, missing=False)) == {A: HOME}
    copies.has(KEY, B, version)
    assert named(copies.asked(KEY, A, HOME, missing=False)) == {A: B}


def test_nobody_takes_it_from_one_who_takes_it_from_him() -> None:
    copies = Copies()
    spread(copies, HOME)
    copies.asked(KEY, B, NO_PROCESS, missing=False)
    assert named(copies.asked(KEY, A, HOME, missing=False)) == {A: HOME}


def test_what_is_freed_is_freed_by_all_who_have_it_or_say_so_later() -> None:
    copies = Copies()
    version = spread(copies, HOME)
    copies.asked(KEY, B, NO_PROCESS, missing=False)
    copies.has(KEY, A, version)
    assert {free.node for free in copies.freed(KEY) if isinstance(free, Free)} == {HOME, A, B}
    assert copies.has(KEY, B, version) == (Free(B, KEY, "its last ref is gone"),)


def test_what_was_freed_while_its_owner_was_asked_is_not_found_by_the_late_answer() -> None:
    copies = Copies()
    (ask,) = copies.asked(KEY, A, NO_PROCESS, missing=False)
    assert isinstance(ask, AskOwner)
    copies.freed(KEY)
    assert copies.found(KEY, ask.number, HOME) == ()
    assert copies.statistics().objects == 0


def test_the_last_holder_that_dies_has_the_owner_asked_and_the_next_is_another_version() -> None:
    copies = Copies()
    version = spread(copies, D)
    (ask,) = copies.node_died(D)
    assert isinstance(ask, AskOwner)
    assert ask.lost == (D,)
    (name,) = copies.found(KEY, ask.number, B)
    assert isinstance(name, Name)
    assert (name.node, name.source) == (A, B)
    assert name.version > version


def test_one_whose_word_comes_late_saves_what_others_have_of_it() -> None:
    copies = Copies()
    version = spread(copies, D)
    assert named(copies.asked(KEY, B, NO_PROCESS, missing=False)) == {B: A}
    (ask,) = copies.node_died(D)
    assert isinstance(ask, AskOwner)
    copies.has(KEY, A, version)
    assert copies.found(KEY, ask.number, C) == ()
    assert copies.holders(KEY) == (A,)


def test_an_owner_that_names_a_dead_node_is_told_so_once() -> None:
    copies = Copies()
    (first,) = copies.asked(KEY, A, NO_PROCESS, missing=False)
    assert isinstance(first, AskOwner)
    copies.node_died(D)
    (second,) = copies.found(KEY, first.number, D)
    assert isinstance(second, AskOwner)
    assert second.lost == (D,)
    (free,) = copies.found(KEY, second.number, D)
    assert isinstance(free, Free)
    assert "has ended" in free.cause


def test_what_an_owner_has_had_is_freed_with_it() -> None:
    copies = Copies()
    spread(copies, HOME)
    assert {free.node for free in copies.owner_died(OWNER) if isinstance(free, Free)} == {HOME, A}
    assert copies.statistics().objects == 0


ASKS: Final = st.lists(st.tuples(st.integers(0, 11), st.sampled_from(["ask", "break", "has", "drop", "die"])))


@settings(max_examples=200 * DEPTH)
@given(events=ASKS)
def test_the_sources_form_a_tree_and_each_serves_two_at_most(events: list[tuple[int, str]]) -> None:
    copies = Copies()
    version = spread(copies, HOME)
    source: dict[ProcessId, ProcessId] = {A: HOME}
    dead: set[ProcessId] = set()
    for number, what in events:
        who = node(number)
        if who in dead:
            continue
        match what:
            case "ask":
                actions = copies.asked(KEY, who, NO_PROCESS, missing=False)
                source.pop(who, None)
            case "break":
                actions = copies.asked(KEY, who, source.pop(who, NO_PROCESS), missing=False)
            case "has":
                actions = copies.has(KEY, who, version)
                source.pop(who, None)
            case "drop":
                actions = copies.dropped(KEY, who)
                source.pop(who, None)
            case _:
                dead.add(who)
                source.pop(who, None)
                for taker in [taker for taker, its in source.items() if its == who]:
                    del source[taker]
                actions = copies.node_died(who)
        source |= named(actions)
        assert all(list(source.values()).count(one) <= MOST_AT_ONCE for one in source.values())
        for start in source:
            seen = {start}
            above = source[start]
            while above in source:
                assert above not in seen
                seen.add(above)
                above = source[above]


# -- how long it takes


def seconds(takers: int, *, size: int = 1024, rate: float = 125.0, at_once: bool = True) -> float:
    """How long 1 GiB takes to so many nodes whose links carry 1 Gbit/s each way, shared by what goes over them.

    `size` and `rate` are in MiB; what a node has it passes on. One step is the hundredth of a second.
    """
    step = 0.01
    copies = Copies()
    nodes = [node(number) for number in range(takers)]
    got = dict.fromkeys(nodes, 0.0)
    source: dict[ProcessId, ProcessId] = {}
    version = 1
    for one in nodes if at_once else nodes[:1]:
        for action in copies.asked(KEY, one, NO_PROCESS, missing=False):
            if isinstance(action, AskOwner):
                version = action.number + 1
                source |= named(copies.found(KEY, action.number, HOME))
            else:
                source |= named((action,))
    passed = 0.0
    while min(got.values()) < size:
        passed += step
        sends = {one: list(source.values()).count(one) for one in source.values()}
        before = {**got, HOME: float(size)}
        for taker, its in list(source.items()):
            got[taker] = min(size, before[its], got[taker] + rate * step / sends[its])
            if got[taker] >= size:
                del source[taker]
                source |= named(copies.has(KEY, taker, version))
    return passed


@pytest.mark.parametrize("takers", [2, 4, 8, 32])
def test_an_object_comes_to_many_nodes_in_little_more_than_the_time_to_one(takers: int) -> None:
    assert seconds(takers) <= (2.5 if takers <= 8 else 3.5) * seconds(1)


def test_four_nodes_have_it_in_less_than_half_again_the_time_of_one() -> None:
    assert seconds(4) <= 1.5 * seconds(1)


# -- histories


@dataclass
class Part:
    """What a node has in memory of a copy that is not whole."""

    contents: set[int] = field(default_factory=set[int])
    # Where it reads: the connection is open as long as both ends say so.
    reads: ProcessId = NO_PROCESS
    registered: Fetch | None = None
    closed: bool = False


@dataclass
class Known:
    """An object as its owner knows it."""

    size: int
    place: ProcessId
    content: int
    wanted: bool = True
    # How often it can be made again.
    retries: int = 0


class Host:
    """One node: its copies, its ledger, and the memory of what is not whole."""

    def __init__(self, world: World, name: ProcessId) -> None:
        self.world = world
        self.name = name
        self.fetches = Fetches(name)
        self.ledger: dict[ObjectKey, int] = {}
        self.parts: dict[Fetch, Part] = {}
        self.rooms: dict[Fetch, None] = {}
        self.to_home: deque[tuple[Any, ...]] = deque()
        self.from_home: deque[Name | Free] = deque()
        self.alive = True

    def perform(self, actions: tuple[Action, ...]) -> None:
        for action in actions:
            copy = action.copy
            part = self.parts.setdefault(copy, Part())
            match action.step:
                case Step.MAKE_ROOM:
                    self.rooms[copy] = None
                case Step.CALL_OFF:
                    del self.rooms[copy]
                case Step.ASK:
                    self.to_home.append(("ask", copy.key, copy.failed, copy.missing))
                case Step.TELL_HAVE:
                    self.to_home.append(("has", copy.key, copy.version))
                case Step.TELL_DROP:
                    self.to_home.append(("drop", copy.key))
                case Step.READ:
                    assert not part.reads
                    part.reads, part.closed = copy.source, False
                case Step.STOP_READING:
                    assert part.reads
                    self.world.hang_up(self, copy, part)
                case Step.SEAL:
                    assert len(part.contents) == 1, "parts of two versions were put together"
                    self.ledger[copy.key] = next(iter(part.contents))
                    self.world.close_takers(self, copy)
                case Step.FREE:
                    self.ledger.pop(copy.key, None)
                case Step.DISCARD:
                    part.contents.clear()
                    self.world.close_takers(self, copy)
                case Step.WAKE | Step.FAIL:
                    # What was freed a moment ago may be said to be here: who opens it finds out.
                    woken = action.step is Step.WAKE and copy.key in self.ledger
                    for waiter in tuple(copy.waiters):
                        self.world.ended(waiter, "" if woken else copy.cause or "it is not here", copy.key)
                        self.perform(self.fetches.left(copy, waiter))

    def home_says(self, message: Name | Free) -> None:
        if isinstance(message, Name):
            self.perform(self.fetches.source(message.key, message.version, message.source))
        else:
            if self.fetches.get(message.key) is None:
                self.ledger.pop(message.key, None)
            self.perform(self.fetches.freed(message.key, message.cause))

    def serves(self, key: ObjectKey, version: int, taker: object) -> tuple[Serving, int, int, Fetch | None]:
        """Which content, and how many bytes of it there are."""
        serving = self.fetches.asked_for(key, version, is_here=key in self.ledger)
        if serving is Serving.WHOLE:
            return serving, self.ledger[key], SIZE, None
        if serving is not Serving.PART:
            return serving, 0, 0, None
        copy = self.fetches.taken(key, taker)
        there = copy.got if copy.version == version else 0
        return serving, int(copy.mark or b"0") if there else 0, there, copy


class World:
    """Nodes, one of them the home of an owner that goes on at another pace, and the messages between them."""

    def __init__(self, count: int) -> None:
        self.hosts = {name: Host(self, name) for name in (HOME, *(node(number) for number in range(count)))}
        self.copies = Copies()
        self.numbers = itertools.count(1)
        self.objects: dict[ObjectKey, Known] = {}
        self.questions: deque[AskOwner] = deque()
        self.waiting: dict[object, ObjectKey] = {}
        self.owner_ended = False

    # -- what the shells do

    def live(self) -> list[Host]:
        return [host for host in self.hosts.values() if host.alive]

    def home_acts(self, actions: tuple[HomeAction, ...]) -> None:
        for action in actions:
            if isinstance(action, AskOwner):
                self.questions.append(action)
            elif self.hosts[action.node].alive:
                self.hosts[action.node].from_home.append(action)

    def ended(self, waiter: object, cause: str, key: ObjectKey) -> None:
        del self.waiting[waiter]
        if cause and cause != "no room":
            known = self.objects[key]
            lost = not self.hosts[known.place].alive and not known.retries
            assert self.owner_ended or not known.wanted or lost, f"{key} is there, and not to be had: {cause}"

    def hang_up(self, host: Host, copy: Fetch, part: Part) -> None:
        if part.registered is not None:
            server = self.hosts[part.reads]
            if server.alive:
                server.perform(server.fetches.not_taken(part.registered, host.name))
        part.reads, part.registered = NO_PROCESS, None

    def close_takers(self, host: Host, copy: Fetch) -> None:
        for other in self.live():
            for part in other.parts.values():
                if part.registered is copy:
                    part.closed = True

    # -- what happens

    def want(self, name: ProcessId, key: ObjectKey) -> None:
        host = self.hosts[name]
        if key not in host.ledger:
            waiter = next(self.numbers)
            self.waiting[waiter] = key
            host.perform(host.fetches.wanted(key, HOME, self.objects[key].size, waiter)[1])

    def deliver_to_home(self, host: Host) -> None:
        match host.to_home.popleft():
            case ("ask", key, failed, missing):
                self.home_acts(self.copies.asked(key, host.name, failed, missing=missing))
            case ("has", key, version):
                self.home_acts(self.copies.has(key, host.name, version))
            case (_, key):
                self.home_acts(self.copies.dropped(key, host.name))
            case other:
                raise AssertionError(other)

    def answer(self, again_at: ProcessId) -> None:
        ask = self.questions.popleft()
        known = self.objects[ask.key]
        if self.owner_ended or not known.wanted:
            self.home_acts(self.copies.not_found(ask.key, ask.number, "freed"))
            return
        gone = known.place in ask.lost or not self.hosts[known.place].alive
        if gone and known.retries:
            known.retries -= 1
            known.place, known.content = again_at, next(self.numbers)
            self.hosts[again_at].ledger[ask.key] = known.content
            self.hosts[again_at].perform(self.hosts[again_at].fetches.sealed_here(ask.key))
        elif gone:
            self.home_acts(self.copies.not_found(ask.key, ask.number, "lost"))
            return
        self.home_acts(self.copies.found(ask.key, ask.number, known.place))

    def read(self, host: Host, copy: Fetch, nbytes: int) -> bool:
        """Go on with a copy; False if nothing can come now."""
        part = host.parts[copy]
        server = self.hosts[part.reads]
        if part.closed or not server.alive:
            host.perform(host.fetches.broke(copy, missing=False))
            return True
        serving, content, there, part.registered = server.serves(copy.key, copy.version, host.name)
        if serving in (Serving.MISSING, Serving.NOT_NOW):
            host.perform(host.fetches.broke(copy, missing=serving is Serving.MISSING))
            return True
        if not content:
            return False
        if began := host.fetches.begins(copy, str(content).encode(), SIZE):
            host.perform(began)
            return True
        more = min(nbytes, there - copy.got)
        if more > 0:
            part.contents.add(content)
            host.perform(host.fetches.came(copy, more))
        return more > 0

    def cut(self, host: Host) -> None:
        host.to_home.clear()
        host.from_home.clear()
        self.copies.link_lost(host.name)
        host.perform(host.fetches.linked_again(HOME))

    def kill(self, host: Host) -> None:
        host.alive = False
        for copy in host.fetches:
            for waiter in copy.waiters:
                self.waiting.pop(waiter, None)
            part = host.parts[copy]
            if part.registered is not None and self.hosts[part.reads].alive:
                self.hang_up(host, copy, part)
        self.home_acts(self.copies.node_died(host.name))

    def free(self, key: ObjectKey) -> None:
        known = self.objects[key]
        known.wanted = False
        # The owner's word goes to its home, and on to where the object lies.
        self.hosts[known.place].ledger.pop(key, None)
        self.home_acts(self.copies.freed(key))

    def end_owner(self) -> None:
        self.owner_ended = True
        for key, known in self.objects.items():
            self.hosts[known.place].ledger.pop(key, None)
        self.home_acts(self.copies.owner_died(OWNER))

    def step(self, dice: random.Random) -> None:
        """One of the things that are under way goes on."""
        host = dice.choice(self.live())
        copies = [copy for copy in host.fetches if copy.state is State.COPYING]
        match dice.randrange(5):
            case 0 if host.to_home:
                self.deliver_to_home(host)
            case 1 if host.from_home:
                host.home_says(host.from_home.popleft())
            case 2 if host.rooms:
                copy = dice.choice(list(host.rooms))
                del host.rooms[copy]
                host.perform(host.fetches.room(copy))
            case 3 if self.questions:
                self.answer(dice.choice(self.live()).name)
            case _ if copies:
                self.read(host, dice.choice(copies), dice.randint(1, 60))
            case _:
                pass

    def go_wrong(self, dice: random.Random, mortal: bool) -> None:
        """A fault, or something that somebody does."""
        host = dice.choice(self.live())
        wanted = [] if self.owner_ended else [key for key, known in self.objects.items() if known.wanted]
        copies = list(host.fetches)
        match dice.randrange(12):
            case 0 | 1 | 2 if wanted:
                self.want(host.name, dice.choice(wanted))
            case 3 | 4:
                self.cut(host)
            case 5 if host.name != HOME and len(self.live()) > 2:
                self.kill(host)
            case 6 if wanted:
                self.free(dice.choice(wanted))
            case 7 if copies and copies[0].state is State.COPYING:
                host.perform(host.fetches.broke(copies[0], missing=False))
            case 8 if copies and copies[0].waiters:
                waiter = next(iter(copies[0].waiters))
                del self.waiting[waiter]
                host.perform(host.fetches.left(copies[0], waiter))
            case 9 if host.rooms:
                copy = dice.choice(list(host.rooms))
                del host.rooms[copy]
                host.perform(host.fetches.no_room(copy, "no room"))
            case 10 if mortal and dice.random() < 0.2:
                self.end_owner()
            case _ if len(self.objects) < 3 and not self.owner_ended:
                self.put(host, dice.randrange(3))
            case _:
                pass

    def put(self, host: Host, retries: int) -> ObjectKey:
        key = (OWNER, len(self.objects) + 1)
        known = self.objects[key] = Known(SIZE, host.name, next(self.numbers), retries=retries)
        host.ledger[key] = known.content
        return key

    # -- to the end

    def end(self) -> None:
        """All that was under way comes to an end; once all is freed, nothing is left anywhere."""
        self.settle()
        assert not self.waiting
        for key, known in self.objects.items():
            if known.wanted and not self.owner_ended:
                self.free(key)
        self.settle()
        for host in self.live():
            assert not host.ledger
            assert not list(host.fetches)
        assert self.copies.statistics().objects == 0

    def settle(self) -> None:
        """Let everything happen that is under way, and nothing go wrong any more."""
        for _ in range(2000):
            moved = False
            for host in self.live():
                while host.to_home:
                    self.deliver_to_home(host)
                    moved = True
                while host.from_home:
                    host.home_says(host.from_home.popleft())
                    moved = True
                for copy in tuple(host.rooms):
                    del host.rooms[copy]
                    host.perform(host.fetches.room(copy))
                    moved = True
                for copy in host.fetches:
                    if copy.state is State.COPYING:
                        moved = self.read(host, copy, SIZE) or moved
            while self.questions:
                self.answer(HOME)
                moved = True
            if not moved:
                return
        raise AssertionError("it never comes to an end")


class Histories(RuleBasedStateMachine):
    """Nodes that fetch what others have, while links are cut, nodes die, and owners free and make anew."""

    @initialize(count=st.integers(2, 5), mortal=st.booleans())
    def begin(self, count: int, mortal: bool) -> None:
        self.world = World(count)
        self.mortal = mortal

    def pick(self, data: st.DataObject, among: list[Any]) -> Any:
        return data.draw(st.sampled_from(among)) if among else None

    @rule(data=st.data(), retries=st.integers(0, 2))
    def put(self, data: st.DataObject, retries: int) -> None:
        world = self.world
        if world.owner_ended or len(world.objects) >= 3:
            return
        world.put(self.pick(data, world.live()), retries)

    @precondition(lambda self: self.world.objects)
    @rule(data=st.data())
    def want(self, data: st.DataObject) -> None:
        keys = [key for key, known in self.world.objects.items() if known.wanted and not self.world.owner_ended]
        key = self.pick(data, keys)
        if key is not None:
            self.world.want(self.pick(data, self.world.live()).name, key)

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        waits = [(host, copy, waiter) for host in self.world.live() for copy in host.fetches for waiter in copy.waiters]
        chosen = self.pick(data, waits)
        if chosen is not None:
            host, copy, waiter = chosen
            del self.world.waiting[waiter]
            host.perform(host.fetches.left(copy, waiter))

    @rule(data=st.data())
    def deliver_to_home(self, data: st.DataObject) -> None:
        host = self.pick(data, [host for host in self.world.live() if host.to_home])
        if host is not None:
            self.world.deliver_to_home(host)

    @rule(data=st.data())
    def deliver_from_home(self, data: st.DataObject) -> None:
        host = self.pick(data, [host for host in self.world.live() if host.from_home])
        if host is not None:
            host.home_says(host.from_home.popleft())

    @precondition(lambda self: self.world.questions)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        self.world.answer(self.pick(data, self.world.live()).name)

    @rule(data=st.data(), full=st.booleans())
    def room(self, data: st.DataObject, full: bool) -> None:
        waits = [(host, copy) for host in self.world.live() for copy in host.rooms]
        chosen = self.pick(data, waits)
        if chosen is not None:
            host, copy = chosen
            del host.rooms[copy]
            host.perform(host.fetches.no_room(copy, "no room") if full else host.fetches.room(copy))

    def reading(self) -> list[Any]:
        return [(host, copy) for host in self.world.live() for copy in host.fetches if copy.state is State.COPYING]

    @rule(data=st.data(), nbytes=st.integers(1, SIZE))
    def read(self, data: st.DataObject, nbytes: int) -> None:
        chosen = self.pick(data, self.reading())
        if chosen is not None:
            host, copy = chosen
            self.world.read(host, copy, nbytes)

    @rule(seed=st.integers(0, 1 << 30), steps=st.integers(1, 30))
    def go_on(self, seed: int, steps: int) -> None:
        dice = random.Random(seed)
        for _ in range(steps):
            self.world.step(dice)

    @rule(data=st.data())
    def break_off(self, data: st.DataObject) -> None:
        chosen = self.pick(data, self.reading())
        if chosen is not None:
            host, copy = chosen
            host.perform(host.fetches.broke(copy, missing=False))

    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        self.world.cut(self.pick(data, self.world.live()))

    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        host = self.pick(data, [host for host in self.world.live() if host.name != HOME])
        if host is not None:
            self.world.kill(host)

    @rule(data=st.data())
    def free(self, data: st.DataObject) -> None:
        key = self.pick(data, [key for key, known in self.world.objects.items() if known.wanted])
        if key is not None and not self.world.owner_ended:
            self.world.free(key)

    @precondition(lambda self: self.mortal)
    @rule()
    def owner_ends(self) -> None:
        self.world.end_owner()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.world.end()


TestHistories: Final = Histories.TestCase
TestHistories.settings = settings(max_examples=60 * DEPTH, stateful_step_count=60, deadline=None)


@pytest.mark.parametrize("seed", range(20))
def test_an_object_that_many_nodes_fetch_while_links_are_cut_comes_to_all_of_them(seed: int) -> None:
    dice = random.Random(seed)
    world = World(6)
    key = world.put(world.hosts[HOME], 0)
    for number in range(6):
        world.want(node(number), key)
    for _ in range(300):
        world.step(dice)
        if dice.random() < 0.05:
            world.cut(dice.choice(world.live()))
    world.settle()
    assert not world.waiting
    assert all(host.ledger == {key: world.objects[key].content} for host in world.live())


def test_no_history_leaves_anybody_waiting_or_anything_behind() -> None:
    for seed in range(1000 * DEPTH):
        dice = random.Random(seed)
        world = World(dice.randint(2, 6))
        rate = dice.choice([0.02, 0.1, 0.3])
        for _ in range(dice.randint(20, 200)):
            if dice.random() < rate or not world.objects:
                world.go_wrong(dice, mortal=seed % 3 == 0)
            world.step(dice)
        try:
            world.end()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
