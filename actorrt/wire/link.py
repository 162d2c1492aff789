"""One end of a link across all its connections: what is open, what is sent again, and who dials. Nothing here waits.

A link outlives its connections. Each end counts the bytes of frames that it has written since the link began, and keeps
those that the peer has not acknowledged. Where a connection breaks, the process that dialled it dials again; the hellos
say what has come, both ends go on from there, and no message is lost, doubled or out of order. Only what knows that the
peer has ended, or that it does not know the link any more, ends the link: a connection that breaks does not.

The shell opens connections, reads, writes and watches processes. It reports what happens as an `Event`, and does what
`End.apply` answers.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import structs

from .frames import GOODBYE, FrameParser, acknowledgement
from .messages import Hello
from .versions import why_not_protocol, why_not_python, why_not_version

Buffer = bytes | memoryview

# How many bytes come before the reader acknowledges them: a frame of 22 bytes for each so many.
ACKNOWLEDGE_BYTES: Final = 256 * 1024
# So many bytes may wait for it, and one frame more; then the writer waits.
WINDOW_BYTES: Final = 4 * 1024 * 1024
# In a hello: the link is a new one.
NEW: Final = -1
# What a refused hello says, beside sentences for people.
DUPLICATE: Final = "duplicate link"
UNKNOWN: Final = "unknown link"


class LinkStateError(Exception):
    """The peer speaks of bytes that never were, or what happens cannot happen in this state; the link cannot go on."""


class State(enum.Enum):
    OPENING = "opening"  # accepted; the dialler has not sent a frame yet, and may have given up
    OPEN = "open"
    DOWN = "down"  # without a connection; what is to be sent waits
    RESUMING = "resuming"  # on a new connection, whose dialler has not sent a frame yet
    CLOSED = "closed"


class Event(enum.Enum):
    HEARD = "heard"  # the peer reads from now on: the dialler's first frame came, or the answer to a dial
    BROKEN = "broken"  # the connection ended without a goodbye
    DIED = "died"  # the same, and as the kernel has it the peer's process ran no more: that was why
    REJOINED = "rejoined"  # another connection takes the place of the last
    ENDED = "ended"  # a goodbye, the end of the peer's process, nonsense, or nobody who knows this link


class Action(enum.Enum):
    TELL_OPEN = "tell open"
    WRITE = "write"
    RESTORE = "restore"  # dial again; who was dialled waits for it
    TELL_LOST = "tell lost"


TABLE: Final[Mapping[tuple[State, Event], tuple[State, tuple[Action, ...]]]] = {
    (State.OPENING, Event.HEARD): (State.OPEN, (Action.TELL_OPEN, Action.WRITE)),
    # For the dialler the link is open since it had the answer: it dials again.
    (State.OPENING, Event.BROKEN): (State.OPENING, (Action.RESTORE,)),
    (State.OPENING, Event.DIED): (State.OPENING, (Action.RESTORE,)),
    (State.OPENING, Event.REJOINED): (State.OPENING, ()),
    # The owner never heard of it.
    (State.OPENING, Event.ENDED): (State.CLOSED, ()),
    (State.OPEN, Event.BROKEN): (State.DOWN, (Action.RESTORE,)),
    # The kernel says in a moment that it has ended.
    (State.OPEN, Event.DIED): (State.DOWN, (Action.RESTORE,)),
    # The peer has noticed the break first.
    (State.OPEN, Event.REJOINED): (State.RESUMING, ()),
    (State.OPEN, Event.ENDED): (State.CLOSED, (Action.TELL_LOST,)),
    (State.DOWN, Event.REJOINED): (State.RESUMING, ()),
    (State.DOWN, Event.ENDED): (State.CLOSED, (Action.TELL_LOST,)),
    (State.RESUMING, Event.HEARD): (State.OPEN, (Action.WRITE,)),
    (State.RESUMING, Event.BROKEN): (State.DOWN, (Action.RESTORE,)),
    (State.RESUMING, Event.DIED): (State.DOWN, (Action.RESTORE,)),
    (State.RESUMING, Event.REJOINED): (State.RESUMING, ()),
    (State.RESUMING, Event.ENDED): (State.CLOSED, (Action.TELL_LOST,)),
    # Several of those who know say that it has ended; a connection that is closed breaks.
    (State.CLOSED, Event.BROKEN): (State.CLOSED, ()),
    (State.CLOSED, Event.DIED): (State.CLOSED, ()),
    (State.CLOSED, Event.ENDED): (State.CLOSED, ()),
}


class Ending(enum.Enum):
    """How a link has ended for this process."""

    GOODBYE = "goodbye"  # this process or its peer closed it on purpose
    DIED = "died"  # who knows says that the peer's process has ended
    LOST = "lost"  # it could not go on, whatever has become of the process

    @property
    def is_death(self) -> bool:
        """The peer's process will never be reached again."""
        return self is Ending.DIED

    @property
    def leaves_doubt(self) -> bool:
        """The peer's process may live, and hold what it has borrowed: who knows its end has to be asked."""
        return self is Ending.LOST


class Kept:
    """The bytes that were written and are not acknowledged: the very buffers, in order, and where each write ends.

    For one thread at a time. An interrupt between any two steps leaves it whole.
    """

    __slots__ = ("_start", "_writes")

    def __init__(self) -> None:
        self._writes: deque[tuple[int, Sequence[Buffer]]] = deque()
        # Where the first of them begins.
        self._start = 0

    def copy(self) -> Kept:
        """The same, whatever becomes of this one."""
        other = Kept()
        other._writes, other._start = self._writes.copy(), self._start
        return other

    @property
    def start(self) -> int:
        """Where the first of them begins: the peer is known to have come so far."""
        return self._start

    @property
    def written(self) -> int:
        """How many bytes were written in all."""
        return self._writes[-1][0] if self._writes else self._start

    @property
    def size(self) -> int:
        """How many bytes are kept: those that are not acknowledged, and the rest of the write that they are in."""
        return self.written - self._start

    def add(self, buffers: Sequence[Buffer], size: int) -> int:
        """`size` bytes were written, or are about to be; again for the last write: nothing. How many are kept now."""
        writes = self._writes
        start = end = self._start
        if writes:
            end, last = writes[-1]
            if last is buffers:
                return end - start
        end += size
        writes.append((end, buffers))
        return end - start

    def acknowledge(self, position: int) -> None:
        """Let go of the writes that end at `position` or before it. Raises LinkStateError if it was never reached."""
        if position > self.written:
            raise LinkStateError(f"{position} bytes are acknowledged, and {self.written} were written")
        writes = self._writes
        while writes and writes[0][0] <= position:
            self._start = writes[0][0]
            writes.popleft()

    def behind(self, position: int) -> list[Buffer]:
        """What comes from `position` on. Raises LinkStateError if that is not (any more) kept."""
        if not self._start <= position <= self.written:
            raise LinkStateError(
                f"the peer has {position} bytes; of the {self.written} that were written, those from {self._start} on "
                "are kept"
            )
        return behind([buffer for _, buffers in self._writes for buffer in buffers], position - self._start)


class Parting:
    """What an end that has left says over a connection of its own, since it could not say goodbye before."""

    def __init__(self, link: bytes, received: int, kept: Kept) -> None:
        self._link = link
        self._received = received
        self._kept = kept

    def hello(self, mine: Hello) -> Hello:
        """The hello of that connection."""
        return greeting(mine, self._link, self._received)

    def words(self, peer_received: int) -> list[Buffer]:
        """All that is written over it: what the peer misses, and goodbye. LinkStateError: it misses what is gone."""
        return [acknowledgement(self._received), *self._kept.behind(peer_received), GOODBYE]


class End:
    """What one end knows of a link: its state, what it has read, and what it has written."""

    def __init__(
        self,
        link: bytes,
        state: State,
        acknowledge_bytes: int = ACKNOWLEDGE_BYTES,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        """`link`: the id of the link. `state`: OPENING for who was dialled, OPEN for the dialler."""
        self.acknowledge_bytes = acknowledge_bytes
        self.window_bytes = window_bytes
        self.link = link
        self.state = state
        # This end has dialled it, and dials again.
        self.dialled = state is State.OPEN
        # The peer may have said what was lost with a connection, and has not said again.
        self.unheard = False
        self.parser = FrameParser()
        self.kept = Kept()
        # What the peer knows to have come here.
        self._acknowledged = 0

    def __repr__(self) -> str:
        return (
            f"<End of link {self.link.hex()}: {self.state.value}, {self.kept.written} bytes written and "
            f"{self.kept.size} kept, {self.received} received>"
        )

    def apply(self, event: Event) -> tuple[Action, ...]:
        """Go on to the next state; what the shell has to do. Raises LinkStateError where `event` cannot happen."""
        try:
            self.state, actions = TABLE[self.state, event]
        except KeyError:
            raise LinkStateError(f"{event.value} while {self.state.value}: {self!r}") from None
        if event is Event.BROKEN:
            # Of a process that has ended, all that it wrote has come.
            self.unheard = True
        if event is Event.BROKEN or event is Event.DIED or event is Event.REJOINED:
            self.parser.break_off()
        return actions

    def hears(self) -> tuple[Action, ...]:
        """The first frames of the peer over a connection have come, what it had to say again among them; maybe some
        later ones."""
        self.unheard = False
        return () if self.state is State.OPEN else self.apply(Event.HEARD)

    def end(self, ending: Ending) -> tuple[Action, ...]:
        """ENDED, for this reason."""
        if ending is not Ending.GOODBYE and self.state in (State.OPEN, State.RESUMING):
            # It was given up with a connection, and what was on its way there.
            self.unheard = True
        return self.apply(Event.ENDED)

    def parts(self) -> Parting | None:
        """What this end says over another connection if it leaves now and cannot say so; None: the peer finds out as it
        dials again."""
        return Parting(self.link, self.received, self.kept.copy()) if self.dialled else None

    # ---- writing

    @property
    def may_write(self) -> bool:
        return self.state is State.OPEN and self.kept.size < self.window_bytes

    # ---- reading

    @property
    def received(self) -> int:
        """How many bytes of the peer's frames have been given out here."""
        return self.parser.position

    @property
    def acknowledgement_is_due(self) -> bool:
        return self.parser.position - self._acknowledged >= self.acknowledge_bytes

    @property
    def acknowledgement_not_before(self) -> int:
        """Until the parser was fed so many bytes, no acknowledgement is due."""
        parser = self.parser
        aside = parser.fed - parser.buffered - parser.position
        return self._acknowledged + self.acknowledge_bytes + aside

    def acknowledge(self) -> bytes:
        """The frame that says what has come; empty where the peer knows it. It is not kept."""
        received = self.received
        if received == self._acknowledged or self.state is not State.OPEN:
            return b""
        self._acknowledged = received
        return acknowledgement(received)

    # ---- another connection

    def greet(self) -> bytes:
        """The first frame of the dialler of a new link: it has read the hello, so the peer may write."""
        return acknowledgement(0)

    def rejoin(self, peer_received: int) -> list[Buffer]:
        """Take another connection in place of the last; what is to be written to it first, an acknowledgement in front.

        The peer has been told `received` of this end. Raises LinkStateError where the peer misses what is not kept.
        """
        self.kept.acknowledge(peer_received)
        rest = self.kept.behind(peer_received)
        self.apply(Event.REJOINED)
        self._acknowledged = self.received
        return [acknowledgement(self._acknowledged), *rest]


def behind(buffers: Sequence[Buffer], count: int) -> list[Buffer]:
    """What of the buffers comes behind their first `count` bytes."""
    left: list[Buffer] = []
    for buffer in buffers:
        if count >= len(buffer):
            count -= len(buffer)
        elif count:
            left.append(memoryview(buffer)[count:])
            count = 0
        else:
            left.append(buffer)
    return left


# ---- hellos


def greeting(hello: Hello, link: bytes, received: int = NEW, refused: str = "") -> Hello:
    """The hello of this process for one connection: of a new link, or of one that goes on after `received` bytes."""
    return structs.replace(hello, refused=refused, link=link, received=received)


def why_refused(mine: Hello, theirs: Hello) -> str:
    """Empty if the two can talk, else a sentence that says what to do."""
    return (
        why_not_protocol(mine.protocol, mine.version, theirs.protocol, theirs.version)
        or why_not_version(mine.version, theirs.version)
        or why_not_python(mine.python, theirs.python)
    )


class Verdict(enum.Enum):
    """What becomes of a hello."""

    ACCEPT = "accept"
    # Over this connection a link goes on that is known here.
    RESUME = "resume"
    # The peer has ended the link that is down here and opens another one, or it has given this dial up long since and
    # has that link still: its first frame says which, and ends the link that is down.
    REPLACE = "replace"
    # This process dials at this moment, or dials again what the peer may not have heard of.
    REFUSE_DUPLICATE = "refuse: duplicate"
    REFUSE_UNKNOWN = "refuse: unknown"
    # Its dialler has given this connection up and had another one since: it says less than is known by now.
    REFUSE_LATE = "refuse: late"


def judge(hello: Hello, mine: bytes, known: End | None, dials: bool) -> Verdict:
    """What to do with the hello of a peer that dials.

    `known`: the link with this peer, or that of the hello's id. `dials`: this process, `mine`, dials the peer at this
    moment; of two that dial each other the lower id keeps its link.
    """
    alive = known is not None and known.state is not State.CLOSED
    if hello.received != NEW:
        if not known or not alive or known.link != hello.link:
            return Verdict.REFUSE_UNKNOWN
        return Verdict.RESUME if hello.received >= known.kept.start else Verdict.REFUSE_LATE
    if known and alive:
        # Of one that it has dialled the peer says by itself whether it goes on.
        return Verdict.REFUSE_DUPLICATE if known.state is State.OPEN or known.dialled else Verdict.REPLACE
    return Verdict.REFUSE_DUPLICATE if dials and mine < hello.process else Verdict.ACCEPT


def takes_dialled(mine: bytes, peer: bytes, arrived: bool, crossed: bool) -> bool:
    """Whether who dialled takes the link that the peer's answer opens.

    `arrived`: there is a link with the peer by now. `crossed`: the peer has dialled meanwhile and was accepted; of two
    that dial each other the lower id keeps its link.
    """
    return not arrived and not (crossed and peer < mine)
