"""How a process is reached: by which way, how often it is dialled, and until when. Nothing here waits: a time is given.

A dial that fails says little about a process. One that listens lives, however long it says nothing; where nobody
listens it may be about to, or be gone. Only its node, the kernel and its own refusal are answers.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple

# The pause before it is dialled again, at first and at most.
PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0
# Who dials a link again gives it up where nobody has listened for so long.
NOBODY_LISTENS_S: Final = 1.0


class Way(enum.Enum):
    """How to get a link to a process."""

    AWAIT = "it has dialled, and says so in a moment"
    DIAL = "dial it"
    ASK = "have it dial: it does not listen, and the node finds it"
    NONE = "it cannot be reached"


def way_to(has_dialled: bool, waited: bool, listens: bool, node_helps: bool) -> Way:
    """`has_dialled`: a link of its dial was accepted, and nothing was heard over it; `waited`: for that, already. One
    that dials again what it has dialled refuses another link, so that a dial is no harm."""
    if has_dialled and not waited:
        return Way.AWAIT
    if listens:
        return Way.DIAL
    return Way.ASK if node_helps else Way.NONE


class Aim(enum.Enum):
    """What is dialled, and so, who says that it is in vain."""

    PEER = "a process; its node says when it has ended"
    NODE = "the node: it lives as long as it listens"
    AGAIN = "a link whose connection has broken; the kernel says when its process has ended"


class Attempt(enum.Enum):
    """How a dial has failed."""

    REFUSED = "refused"
    NOBODY = "nobody listens"
    SILENT = "no answer in time"
    BROKE = "the connection ended before the answer"
    FAILED = "anything else"


class Step(enum.Enum):
    AGAIN = "again after a pause"
    AT_ONCE = "again: it has taken long enough"
    FOR_A_WHILE = "again after a pause, unless it has been so for NOBODY_LISTENS_S"
    GIVE_UP = "give up"


TABLE: Final[Mapping[tuple[Aim, Attempt], Step]] = {
    **{(Aim.PEER, attempt): Step.AGAIN for attempt in Attempt},
    (Aim.PEER, Attempt.REFUSED): Step.GIVE_UP,
    **{(Aim.NODE, attempt): Step.GIVE_UP for attempt in Attempt},
    (Aim.NODE, Attempt.SILENT): Step.AT_ONCE,
    (Aim.NODE, Attempt.BROKE): Step.AGAIN,
    # It lives: it is stopped or busy, or the next connection has broken, too.
    **{(Aim.AGAIN, attempt): Step.AGAIN for attempt in Attempt},
    # Another process has its address, or it has given the link up.
    (Aim.AGAIN, Attempt.REFUSED): Step.GIVE_UP,
    (Aim.AGAIN, Attempt.NOBODY): Step.FOR_A_WHILE,
}


class Next(NamedTuple):
    gives_up: bool
    pause_s: float
    # Say that it has lasted so long; None: not now.
    lasts_s: float | None


class Dialling:
    """The dials of one process, one after the other."""

    def __init__(self, aim: Aim, now: float, say_s: float) -> None:
        """`say_s`: where it lasts so long, it is said, and again after as long."""
        self._aim = aim
        self._began = self._said = now
        self._say_s = say_s
        self._pause_s = PAUSE_S
        # Since when nobody has listened.
        self._nobody_since: float | None = None

    def failed(self, attempt: Attempt, now: float) -> Next:
        """A dial has failed; what to do now."""
        if attempt is not Attempt.NOBODY:
            self._nobody_since = None
        elif self._nobody_since is None:
            self._nobody_since = now
        step = TABLE[self._aim, attempt]
        gone = self._nobody_since is not None and now - self._nobody_since >= NOBODY_LISTENS_S
        if step is Step.GIVE_UP or (step is Step.FOR_A_WHILE and gone):
            return Next(True, 0.0, None)
        pause_s = 0.0
        if step is not Step.AT_ONCE:
            pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, LONGEST_PAUSE_S)
        lasts_s = None
        if now - self._said >= self._say_s:
            self._said, lasts_s = now, now - self._began
        return Next(False, pause_s, lasts_s)
