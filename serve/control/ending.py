"""How Serve comes to its end: who is told to wait for the next one meanwhile, and what is left of the time. Pure.

    SERVING --ASKED--> ENDING --LEFT--> ENDED --SPARED--> SERVING

Who has shut Serve down ends the controller as soon as that is done. What began in between would outlive it: replicas
and a proxy of which nobody knows. So from the first question on nothing new is begun; who asks for it learns by the
controller's death that it has to ask the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from .statuses import Draining

# A controller that has shut down and is not ended within this time goes on: who was to end it has gone.
SPARED_S: Final = 5.0


class End(Enum):
    SERVING = "SERVING"
    ENDING = "ENDING"  # programs shut it down
    ENDED = "ENDED"  # that is done; the controller is about to be ended


class EndEvent(Enum):
    ASKED = "ASKED"  # a program shuts Serve down
    LEFT_BY_ONE = "LEFT_BY_ONE"  # one of several that do so has its answer, or has gone
    LEFT = "LEFT"  # the last of them
    SPARED = "SPARED"  # the time is over in which the controller would have been ended


_S, _E = End, EndEvent
TABLE: Final[Mapping[tuple[End, EndEvent], End]] = {
    (_S.SERVING, _E.ASKED): _S.ENDING,
    (_S.ENDING, _E.ASKED): _S.ENDING,
    (_S.ENDING, _E.LEFT_BY_ONE): _S.ENDING,
    (_S.ENDING, _E.LEFT): _S.ENDED,
    (_S.ENDED, _E.ASKED): _S.ENDING,
    (_S.ENDED, _E.SPARED): _S.SERVING,
}


class EndError(Exception):
    """An event that cannot happen in this state: an error of ours, never of a user."""

    def __init__(self, state: End, event: EndEvent) -> None:
        super().__init__(state, event)
        self.state, self.event = state, event

    def __str__(self) -> str:
        return f"a Serve that is {self.state.value} cannot have {self.event.value}"


class Ending:
    """`drained_by`: when, by the loop's clock, the proxy's requests or at last the replicas are cut off."""

    def __init__(self) -> None:
        self.state = End.SERVING
        self.drained_by: float | None = None
        self._asking = 0
        # How often programs have shut it down, however many did so at once.
        self._ends = 0

    @property
    def takes_more(self) -> bool:
        """Whether applications and a proxy may be started."""
        return self.state is End.SERVING

    def asked(self) -> None:
        """A program shuts Serve down."""
        self._happens(EndEvent.ASKED)
        self._asking += 1

    def left(self) -> int:
        """A program has been answered, or has gone. The number of this end, once it was the last that waits: `spared`
        is due for it in a while; else 0."""
        self._asking -= 1
        self._happens(EndEvent.LEFT_BY_ONE if self._asking else EndEvent.LEFT)
        if self._asking:
            return 0
        self._ends += 1
        return self._ends

    def spared(self, end: int) -> bool:
        """Nobody has ended the controller, though it was shut down. True if Serve goes on: since then nobody has asked
        for its end again."""
        if end != self._ends or self.state is not End.ENDED:
            return False
        self._happens(EndEvent.SPARED)
        self.drained_by = None
        return True

    def _happens(self, event: EndEvent) -> None:
        try:
            self.state = TABLE[self.state, event]
        except KeyError:
            raise EndError(self.state, event) from None

    def draining(self, now: float, requests: int | None, replicas: int, limit_s: float) -> Draining | None:
        """What is still waited for; None for `requests`: the proxy has gone.

        Once it has no requests and is still there, replicas have all their time, `limit_s`, before them.
        """
        if self.drained_by is None:
            return None
        return Draining(requests or 0, replicas, limit_s if requests == 0 else self.drained_by - now)
