"""One end of a link: every transition, what is kept, who wins, and two ends over connections that break anywhere."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actorrt.wire.frames import TO_CALLER, TRAILER, Acknowledged, RawPart, acknowledgement, encode_frame, raw_head
from actorrt.wire.link import (
    NEW,
    TABLE,
    Action,
    End,
    Ending,
    Event,
    Kept,
    LinkStateError,
    State,
    Verdict,
    behind,
    greeting,
    judge,
    takes_dialled,
    why_refused,
)
from actorrt.wire.messages import Hello

from ..depth import DEPTH

LINK: Final = b"the link"
ALICE: Final = b"alice..."
BOB: Final = b"bob....."


def hello_of(process: bytes, link: bytes = LINK, received: int = NEW) -> Hello:
    return Hello(process, "worker", 1, 2, "3.11.7", "1.0", link=link, received=received)


# -- the table


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_every_pair_is_in_the_table_or_an_error_that_names_both(state: State, event: Event) -> None:
    end = End(LINK, state)
    row = TABLE.get((state, event))
    if row is None:
        with pytest.raises(LinkStateError, match=f"{event.value} while {state.value}"):
            end.apply(event)
    else:
        assert end.apply(event) == row[1]
        assert end.state is row[0]


def test_an_end_that_is_closed_stays_closed() -> None:
    assert {after for (state, _), (after, _) in TABLE.items() if state is State.CLOSED} == {State.CLOSED}


# -- what is kept


def test_what_is_acknowledged_is_let_go_of_by_whole_writes() -> None:
    kept = Kept()
    kept.add([b"abc"], 3)
    kept.add([b"de", b"fg"], 4)
    kept.acknowledge(4)
    assert (kept.size, kept.written) == (4, 7)
    assert kept.behind(4) == [b"e", b"fg"]
    kept.acknowledge(7)
    assert (kept.size, kept.written) == (0, 7)
    assert kept.behind(7) == []


def test_the_very_buffers_are_kept() -> None:
    kept, data = Kept(), b"x" * 100
    kept.add([data], 100)
    assert kept.behind(0)[0] is data


def test_a_write_that_is_reported_twice_counts_once() -> None:
    kept, buffers = Kept(), [b"abc"]
    kept.add(buffers, 3)
    kept.add(buffers, 3)
    assert kept.written == 3


def test_bytes_that_never_were_or_are_not_kept_are_an_error() -> None:
    kept = Kept()
    kept.add([b"abc"], 3)
    with pytest.raises(LinkStateError, match="4 bytes are acknowledged, and 3 were written"):
        kept.acknowledge(4)
    kept.acknowledge(3)
    with pytest.raises(LinkStateError, match="the peer has 2 bytes"):
        kept.behind(2)


@given(buffers=st.lists(st.binary(max_size=5), max_size=6), at=st.integers(min_value=0, max_value=40))
def test_what_is_behind_is_the_rest_of_all(buffers: list[bytes], at: int) -> None:
    assert b"".join(behind(buffers, at)) == b"".join(buffers)[at:]


def test_a_frame_that_came_in_part_is_sent_again_from_its_beginning_and_a_raw_one_from_where_it_was_cut() -> None:
    end = End(LINK, State.OPEN)
    whole = encode_frame(b"whole")
    end.parser.feed(whole + encode_frame(b"part")[:-3])
    end.apply(Event.BROKEN)
    assert end.received == len(whole)
    end.rejoin(0)
    raw = raw_head(7, TO_CALLER, 4) + b"data" + TRAILER
    found = end.parser.feed(raw[:-4])
    assert [bytes(part.data) for part in found if isinstance(part, RawPart)] == [b"da"]
    end.apply(Event.BROKEN)
    assert end.received == len(whole) + len(raw) - 4


def test_a_raw_frame_goes_on_behind_the_acknowledgement_of_the_connection_that_holds() -> None:
    end = End(LINK, State.OPEN)
    raw = raw_head(7, TO_CALLER, 4) + b"data" + TRAILER
    end.parser.feed(raw[:-4])
    for lost in (b"", acknowledgement(0)[:5]):
        end.apply(Event.BROKEN)
        end.rejoin(0)
        assert end.parser.feed(lost) == []
    end.apply(Event.BROKEN)
    rest = end.rejoin(0)
    assert rest == [acknowledgement(len(raw) - 4)]
    found = end.parser.feed(acknowledgement(0) + raw[-4:])
    assert found[0] == Acknowledged(0)
    assert [bytes(part.data) for part in found if isinstance(part, RawPart)] == [b"ta"]
    assert end.received == len(raw)


def test_acknowledgements_are_not_counted() -> None:
    end, peer = End(LINK, State.OPEN, acknowledge_bytes=10), End(LINK, State.OPEN)
    frame = encode_frame(b"hello")
    peer.kept.add([frame], len(frame))
    end.parser.feed(frame)
    assert end.acknowledgement_is_due
    said = end.acknowledge()
    assert not end.acknowledgement_is_due
    assert end.acknowledge() == b""
    assert peer.parser.feed(said) == [Acknowledged(len(frame))]
    assert peer.received == 0
    peer.kept.acknowledge(len(frame))
    assert peer.kept.size == 0


@given(
    frames=st.lists(st.tuples(st.integers(min_value=1, max_value=60), st.booleans()), max_size=8),
    cuts=st.lists(st.integers(min_value=1, max_value=70), min_size=1, max_size=20),
)
def test_no_acknowledgement_is_due_before_the_bytes_that_are_given_for_it(
    frames: list[tuple[int, bool]], cuts: list[int]
) -> None:
    end = End(LINK, State.OPEN, acknowledge_bytes=40)
    data = b"".join(encode_frame(b"x" * size) + (acknowledgement(0) if aside else b"") for size, aside in frames)
    for cut in cuts * 20:
        piece, data = data[:cut], data[cut:]
        not_before = end.acknowledgement_not_before
        end.parser.feed(piece)
        assert not end.acknowledgement_is_due or end.parser.fed >= not_before
        if end.acknowledgement_is_due:
            end.acknowledge()


def test_a_writer_waits_while_a_window_is_not_acknowledged() -> None:
    end = End(LINK, State.OPEN, window_bytes=10)
    end.kept.add([b"123456789"], 9)
    assert end.may_write
    end.kept.add([b"0"], 1)
    assert not end.may_write
    end.kept.acknowledge(10)
    assert end.may_write


# -- what was not heard, and goodbye


@pytest.mark.parametrize("ending", Ending)
def test_all_was_heard_before_a_goodbye_and_before_the_end_of_a_process_that_broke_the_connection(
    ending: Ending,
) -> None:
    end = End(LINK, State.OPEN)
    end.end(ending)
    assert end.unheard is (ending is not Ending.GOODBYE)
    for event, unheard in ((Event.DIED, False), (Event.BROKEN, True)):
        end = End(LINK, State.OPEN)
        end.apply(event)
        end.end(ending)
        assert end.unheard is unheard


def test_what_was_lost_with_a_connection_is_heard_with_the_first_frames_of_the_next() -> None:
    end = End(LINK, State.OPEN)
    end.apply(Event.BROKEN)
    end.rejoin(0)
    end.apply(Event.HEARD)
    assert end.unheard
    end.apply(Event.DIED)
    assert end.unheard
    end.rejoin(0)
    assert end.hears() == (Action.WRITE,)
    assert not end.unheard
    assert end.hears() == ()


def test_the_last_words_are_what_the_peer_misses_and_goodbye() -> None:
    end, peer = End(LINK, State.OPEN), End(LINK, State.OPENING)
    frames = [encode_frame(b"first"), encode_frame(b"second")]
    for each in frames:
        end.kept.add([each], len(each))
    peer.parser.feed(frames[0] + frames[1][:5])
    for each in (peer, end):
        each.apply(Event.BROKEN)
    parting = end.parts()
    assert parting is not None
    end.kept.acknowledge(end.kept.written)
    hello = parting.hello(hello_of(ALICE))
    assert judge(hello, BOB, peer, dials=False) is Verdict.RESUME
    peer.rejoin(hello.received)
    assert peer.parser.feed(b"".join(parting.words(peer.received))) == [Acknowledged(0), b"second"]
    assert peer.parser.ended
    # Who was dialled cannot dial: the peer does, and hears that nobody knows the link.
    assert peer.parts() is None


# -- hellos


def test_of_two_that_dial_each_other_at_once_the_lower_id_keeps_its_link() -> None:
    assert judge(hello_of(BOB), ALICE, None, dials=True) is Verdict.REFUSE_DUPLICATE
    assert judge(hello_of(ALICE), BOB, None, dials=True) is Verdict.ACCEPT
    assert judge(hello_of(BOB), ALICE, None, dials=False) is Verdict.ACCEPT


@pytest.mark.parametrize("arrived", [False, True])
@pytest.mark.parametrize("crossed", [False, True])
def test_a_dial_that_is_answered_opens_a_link_unless_the_peer_s_own_is_on_its_way(arrived: bool, crossed: bool) -> None:
    assert takes_dialled(ALICE, BOB, arrived, crossed) is (not arrived)
    assert takes_dialled(BOB, ALICE, arrived, crossed) is (not arrived and not crossed)


def test_a_link_that_is_dialled_again_is_not_replaced_by_one_of_who_has_not_heard_of_it() -> None:
    known = End(LINK, State.OPEN)
    known.apply(Event.BROKEN)
    assert judge(hello_of(BOB, b"newer..."), ALICE, known, dials=False) is Verdict.REFUSE_DUPLICATE
    known.apply(Event.ENDED)
    assert judge(hello_of(BOB, b"newer..."), ALICE, known, dials=False) is Verdict.ACCEPT


@pytest.mark.parametrize(
    ("state", "new", "same", "other"),
    [
        (State.OPENING, Verdict.REPLACE, Verdict.RESUME, Verdict.REFUSE_UNKNOWN),
        (State.OPEN, Verdict.REFUSE_DUPLICATE, Verdict.RESUME, Verdict.REFUSE_UNKNOWN),
        (State.DOWN, Verdict.REPLACE, Verdict.RESUME, Verdict.REFUSE_UNKNOWN),
        (State.RESUMING, Verdict.REPLACE, Verdict.RESUME, Verdict.REFUSE_UNKNOWN),
        (State.CLOSED, Verdict.ACCEPT, Verdict.REFUSE_UNKNOWN, Verdict.REFUSE_UNKNOWN),
    ],
)
def test_a_hello_meets_the_link_that_is_there(state: State, new: Verdict, same: Verdict, other: Verdict) -> None:
    known = End(LINK, state)
    assert judge(hello_of(BOB, b"newer..."), ALICE, known, dials=False) is new
    assert judge(hello_of(BOB, LINK, 0), ALICE, known, dials=False) is same
    assert judge(hello_of(BOB, b"another.", 0), ALICE, known, dials=False) is other


def test_a_hello_that_says_less_than_is_known_by_now_is_late() -> None:
    known = End(LINK, State.OPEN)
    known.kept.add([b"x" * 18], 18)
    known.kept.acknowledge(18)
    assert judge(hello_of(BOB, LINK, 0), ALICE, known, dials=False) is Verdict.REFUSE_LATE
    assert judge(hello_of(BOB, LINK, 18), ALICE, known, dials=False) is Verdict.RESUME
    # It goes on over the connection that it has.
    assert known.state is State.OPEN


def test_who_has_been_restarted_knows_no_link() -> None:
    assert judge(hello_of(BOB, LINK, 0), ALICE, None, dials=False) is Verdict.REFUSE_UNKNOWN


def test_a_hello_is_refused_with_a_sentence_that_says_what_to_do() -> None:
    mine = hello_of(ALICE)
    assert why_refused(mine, hello_of(BOB)) == ""
    assert "install the same actorrt" in why_refused(mine, Hello(BOB, "worker", 1, 1, "3.11.7", "0.9"))
    assert "install Python 3.11" in why_refused(mine, Hello(BOB, "worker", 1, 2, "3.12.0", "1.0"))
    assert "do not mix" in why_refused(mine, Hello(BOB, "worker", 1, 2, "3.11.2", "1.2"))
    assert why_refused(mine, Hello(BOB, "worker", 1, 2, "3.11.2", "1.1.7")) == ""
    assert greeting(mine, b"id", 5).received == 5


# -- two ends, and connections between them that break anywhere

ACKNOWLEDGE: Final = 60
WINDOW: Final = 240
LARGEST: Final = 80
SIDES: Final = (0, 1)
PROCESSES: Final = (ALICE, BOB)


@dataclass(eq=False)
class Connection:
    """What one dial opened: bytes on their way to each side, and how far its hellos have come."""

    dialler: int
    link: bytes
    hello: Hello
    stage: str = "hello"  # then "answer", "open"
    answer: Hello | None = None
    # The link of the peer that its dialler had accepted before.
    beside: End | None = None
    ways: tuple[bytearray, bytearray] = field(default_factory=lambda: (bytearray(), bytearray()))
    cut: bool = False


@dataclass(eq=False)
class Host:
    """The least shell around an end: what runtime/links/link.py and peers.py do with sockets."""

    end: End | None = None
    connection: Connection | None = None
    # It dialled this link, so that it dials again.
    dialled: bool = False
    # A link that was accepted, and whose dialler has not sent a frame.
    opening: End | None = None
    on_opening: Connection | None = None
    dials: Connection | None = None
    # Frames that wait, and the parts of a message that have come.
    queue: list[bytes] = field(default_factory=list[bytes])


class TwoEnds(RuleBasedStateMachine):
    """Whatever breaks, each side gets the other's messages of a link once and in order, or the link is lost for it."""

    def __init__(self) -> None:
        super().__init__()
        self.hosts = (Host(), Host())
        self.numbers = count(1)
        self.ids = count(1)
        # By link and side: what was written, what was read.
        self.written: dict[tuple[bytes, int], bytearray] = defaultdict(bytearray)
        self.read: dict[tuple[bytes, int], bytearray] = defaultdict(bytearray)
        self.connections: list[Connection] = []
        # Links that a side has reported as lost, or forgotten by a restart.
        self.gone: set[tuple[bytes, int]] = set()

    # ---- the shell

    def pump(self, side: int) -> None:
        host = self.hosts[side]
        end, connection = host.end, host.connection
        if end is None or connection is None:
            return
        while host.queue and end.may_write:
            frame = host.queue.pop(0)
            end.kept.add([frame], len(frame))
            self.written[end.link, side] += _content(frame)
            self.put(connection, 1 - side, frame)
        if end.acknowledgement_is_due:
            self.put(connection, 1 - side, end.acknowledge())

    def put(self, connection: Connection, to: int, data: bytes) -> None:
        if not connection.cut:
            connection.ways[to].extend(data)

    def perform(self, side: int, end: End, actions: tuple[Action, ...]) -> None:
        host = self.hosts[side]
        for action in actions:
            match action:
                case Action.TELL_OPEN:
                    if host.end is not None and host.end is not end:
                        # The peer does not have it any more, else it would not have dialled.
                        other = self.hosts[1 - side].end
                        assert other is None or other.link != host.end.link, "both want the link that is ended"
                        self.end_link(side)
                    host.end, host.connection, host.dialled = end, host.on_opening, False
                    host.opening = host.on_opening = None
                case Action.TELL_LOST:
                    self.gone.add((end.link, side))
                    host.end = host.connection = None
                case Action.WRITE | Action.RESTORE:
                    pass
        self.pump(side)

    def end_link(self, side: int) -> None:
        host = self.hosts[side]
        if host.end is not None:
            if host.connection is not None:
                host.connection.cut = True
            self.perform(side, host.end, host.end.apply(Event.ENDED))

    def feed(self, side: int, connection: Connection, data: bytes) -> None:
        host = self.hosts[side]
        end = host.end if connection is host.connection else host.opening
        assert end is not None
        for found in end.parser.feed(data):
            if end.state in (State.OPENING, State.RESUMING):
                self.perform(side, end, end.apply(Event.HEARD))
            if isinstance(found, Acknowledged):
                end.kept.acknowledge(found.position)
            else:
                self.read[end.link, side] += found if isinstance(found, bytes) else found.data
        self.pump(side)

    # ---- what happens

    @initialize(sides=st.sampled_from([(0,), (1,), (0, 1), (1, 0)]))
    def begin(self, sides: tuple[int, ...]) -> None:
        self.dials(sides, 3)

    @rule(
        side=st.sampled_from(SIDES),
        messages=st.lists(
            st.tuples(st.integers(min_value=1, max_value=LARGEST), st.booleans()), min_size=1, max_size=6
        ),
    )
    def send(self, side: int, messages: list[tuple[int, bool]]) -> None:
        for size, raw in messages:
            content = (b"%d." % next(self.numbers) * LARGEST)[:size]
            self.hosts[side].queue.append(
                raw_head(1, TO_CALLER, size) + content + TRAILER if raw else encode_frame(content)
            )
        self.pump(side)

    @rule(sides=st.sampled_from([(0,), (1,), (0, 1), (1, 0)]), steps=st.integers(min_value=0, max_value=3))
    def dials(self, sides: tuple[int, ...], steps: int) -> None:
        for side in sides:
            self.dial(side)
        for _ in range(steps):
            for connection in [each for each in self.connections if each.stage != "open"]:
                self.step(connection)

    def dial(self, side: int) -> None:
        host = self.hosts[side]
        if host.dials is not None:
            return
        if host.end is None:
            connection = Connection(side, b"link %d" % next(self.ids), hello_of(PROCESSES[side]))
            connection.hello = hello_of(PROCESSES[side], connection.link)
        elif host.end.state is State.DOWN and host.dialled:
            connection = Connection(side, host.end.link, hello_of(PROCESSES[side], host.end.link, host.end.received))
        else:
            return
        host.dials, connection.beside = connection, host.opening
        self.connections.append(connection)

    @precondition(lambda self: any(each.stage != "open" for each in self.connections))
    @rule(data=st.data())
    def greet(self, data: st.DataObject) -> None:
        self.step(data.draw(st.sampled_from([each for each in self.connections if each.stage != "open"])))

    def step(self, connection: Connection) -> None:
        if connection.stage == "hello":
            self.hear_hello(connection)
        else:
            self.hear_answer(connection)

    def hear_hello(self, connection: Connection) -> None:
        side = 1 - connection.dialler
        host = self.hosts[side]
        if connection.cut:
            self.give_up_dial(connection)
            return
        hello = connection.hello
        opening = host.opening
        known = opening if opening is not None and opening.link == hello.link else host.end
        connection.stage = "answer"
        verdict = judge(hello, PROCESSES[side], known, host.dials is not None and host.end is None)
        match verdict:
            case Verdict.REFUSE_DUPLICATE | Verdict.REFUSE_UNKNOWN | Verdict.REFUSE_LATE:
                connection.answer = greeting(hello_of(PROCESSES[side]), hello.link, NEW, verdict.value)
                return
            case Verdict.RESUME:
                assert known is not None
                rest = known.rejoin(hello.received)
                self.replaced(side, known, connection)
                connection.answer = hello_of(PROCESSES[side], hello.link, known.received)
                # Written once the dialler has been heard; on its way from then on.
                connection.ways[connection.dialler].extend(b"".join(rest))
            case Verdict.REPLACE | Verdict.ACCEPT:
                host.opening = End(hello.link, State.OPENING, ACKNOWLEDGE, WINDOW)
                host.on_opening = connection
                connection.answer = hello_of(PROCESSES[side], hello.link, 0)

    def replaced(self, side: int, end: End, connection: Connection) -> None:
        host = self.hosts[side]
        if end is host.end:
            if host.connection is not None:
                host.connection.cut = True
            host.connection = connection
        else:
            host.on_opening = connection

    def give_up_dial(self, connection: Connection) -> None:
        host = self.hosts[connection.dialler]
        self.connections.remove(connection)
        connection.cut = True
        if host.dials is connection:
            host.dials = None

    def hear_answer(self, connection: Connection) -> None:
        side = connection.dialler
        host = self.hosts[side]
        if host.dials is not connection or connection.cut:
            self.give_up_dial(connection)
            return
        answer = connection.answer
        assert answer is not None
        if answer.refused:
            self.give_up_dial(connection)
            if host.end is not None and host.end.link == connection.link:
                self.end_link(side)
            return
        host.dials = None
        connection.stage = "open"
        if connection.hello.received == NEW:
            crossed = host.opening is not None and host.opening is not connection.beside
            if not takes_dialled(PROCESSES[side], PROCESSES[1 - side], host.end is not None, crossed):
                # The peer's link came first, whatever it knows of this one.
                self.give_up_dial(connection)
                return
            if host.opening is not None and host.opening is connection.beside:
                # The peer has ended it, else it had refused this one.
                host.opening.apply(Event.ENDED)
                if host.on_opening is not None:
                    host.on_opening.cut = True
                host.opening = host.on_opening = None
            host.end = End(connection.link, State.OPEN, ACKNOWLEDGE, WINDOW)
            host.dialled, host.connection = True, connection
            self.put(connection, 1 - side, host.end.greet())
        elif host.end is None or host.end.link != connection.link:
            # It was lost while it was dialled.
            self.give_up_dial(connection)
            return
        else:
            rest = host.end.rejoin(answer.received)
            host.connection = connection
            self.put(connection, 1 - side, b"".join(rest))
            self.perform(side, host.end, host.end.apply(Event.HEARD))
        self.pump(side)

    @rule(side=st.sampled_from(SIDES), size=st.integers(min_value=1, max_value=3 * LARGEST))
    def deliver(self, side: int, size: int) -> None:
        host = self.hosts[side]
        for connection in (host.connection, host.on_opening):
            if connection is not None and (piece := bytes(connection.ways[side][:size])):
                del connection.ways[side][:size]
                self.feed(side, connection, piece)

    @precondition(lambda self: any(not each.cut for each in self.connections))
    @rule(
        data=st.data(),
        noticed=st.sampled_from([(), (0,), (1,), (0, 1), (0, 1)]),
        steps=st.sampled_from([0, 1, 2, 3, 3, 3]),
    )
    def cut(self, data: st.DataObject, noticed: tuple[int, ...], steps: int) -> None:
        """The connection ends; of what is under way each side still gets some. Then the dialler may dial again."""
        connection = data.draw(st.sampled_from([each for each in self.connections if not each.cut]))
        connection.cut = True
        for way in connection.ways:
            del way[data.draw(st.integers(min_value=0, max_value=len(way))) :]
        for side in noticed:
            self.deliver(side, 10_000)
            self.notice(side)
        if steps:
            self.dials(noticed, steps)

    @rule(side=st.sampled_from(SIDES))
    def notice(self, side: int) -> None:
        host = self.hosts[side]
        for end, connection in ((host.end, host.connection), (host.opening, host.on_opening)):
            if end is not None and connection is not None and connection.cut and not connection.ways[side]:
                if end is host.end:
                    host.connection = None
                else:
                    host.on_opening = None
                self.perform(side, end, end.apply(Event.BROKEN))

    @rule(side=st.sampled_from(SIDES), happens=st.integers(min_value=0, max_value=5))
    def restart(self, side: int, happens: int) -> None:
        """Another process takes the place of this one: it knows no link."""
        if happens:
            return
        host = self.hosts[side]
        for connection in self.connections:
            if connection in (host.connection, host.on_opening, host.dials):
                connection.cut = True
        if host.end is not None:
            self.gone.add((host.end.link, side))
        hosts = list(self.hosts)
        hosts[side] = Host()
        self.hosts = (hosts[0], hosts[1])

    @rule(side=st.sampled_from(SIDES), happens=st.integers(min_value=0, max_value=5))
    def give_up(self, side: int, happens: int) -> None:
        """Whoever knows says that the peer has ended."""
        if not happens:
            self.end_link(side)

    # ---- what holds

    @invariant()
    def each_byte_comes_once_and_in_order(self) -> None:
        for (link, side), came in self.read.items():
            assert self.written[link, 1 - side].startswith(came)

    @invariant()
    def what_is_kept_is_bounded(self) -> None:
        for host in self.hosts:
            assert host.end is None or host.end.kept.size < WINDOW + LARGEST + 30

    def teardown(self) -> None:
        """Where nothing breaks any more, a link that neither side has lost brings all that was sent over it."""
        first, second = (host.end for host in self.hosts)
        for _ in range(10 * len(self.connections) + 20):
            for connection in list(self.connections):
                if connection.stage == "hello":
                    self.hear_hello(connection)
                elif connection.stage == "answer":
                    self.hear_answer(connection)
            for side in SIDES:
                self.notice(side)
                if (end := self.hosts[side].end) is not None and end.state is State.DOWN:
                    self.dial(side)
                for connection in self.connections:
                    way = connection.ways[side]
                    if way and connection in (self.hosts[side].connection, self.hosts[side].on_opening):
                        self.feed(side, connection, bytes(way))
                        del way[:]
        if first is None or second is None or first.link != second.link:
            return
        if (first.link, 0) not in self.gone and (first.link, 1) not in self.gone:
            assert first.state is second.state is State.OPEN
            for side in SIDES:
                assert not self.hosts[side].queue
                assert self.read[first.link, 1 - side] == self.written[first.link, side]


def _content(frame: bytes) -> bytes:
    return frame[20:-2] if frame[10] == 0xC1 else frame[10:-2]


TestTwoEnds = TwoEnds.TestCase
TestTwoEnds.settings = settings(max_examples=60 * DEPTH, stateful_step_count=50, deadline=None)
