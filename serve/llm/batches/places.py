"""How many requests of batches run at once: each holds a place, and gives it back while it waits to be made again.

A refusal says that there are too many: from then on there are no more places than were still held. Once as many answers
have come as there were places, each further one brings back a place. Where none is held, nobody can tell that there is
room again: then no place is given before the pause of the refusal is over.
"""

import asyncio
from collections import deque


class Pace:
    """So many of `number` places as there is room for, by what came of requests. Pure."""

    def __init__(self, number: int) -> None:
        self.number = self.allowed = number
        # Of the last refusal: how many places it left, and how many answers have come since.
        self._left = self._answers = 0

    def refused(self, held: int) -> None:
        """One was, while others held so many places."""
        self.allowed = self._left = max(1, min(held, self.number))
        self._answers = 0

    def answered(self) -> None:
        """One was not refused."""
        self._answers += 1
        if self._answers > self._left:
            self.allowed = min(self.allowed + 1, self.number)


class Place:
    """One of them, held at first."""

    def __init__(self, places: "Places") -> None:
        self._places = places
        self._is_held = True

    async def take_again(self) -> None:
        await self._places.wait()
        self._is_held = True

    def give_back(self) -> None:
        if self._is_held:
            self._is_held = False
            self._places.given_back()

    def refused(self, pause_s: float) -> None:
        """Its request was, and is made again after this pause: it is given back."""
        self._is_held = False
        self._places.refused(pause_s)

    def answered(self) -> None:
        self._places.answered()


class Places:
    def __init__(self, number: int) -> None:
        self.number = number
        self._pace = Pace(number)
        self._held = 0
        # Who asks first gets one first.
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._paused: asyncio.TimerHandle | None = None

    async def take(self) -> Place:
        await self.wait()
        return Place(self)

    async def wait(self) -> None:
        """Until one is held for who asks."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._give()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove(turn)
            else:
                self.given_back()
            raise

    def given_back(self) -> None:
        self._held -= 1
        self._give()

    def answered(self) -> None:
        self._pace.answered()
        self._give()

    def refused(self, pause_s: float) -> None:
        self._held -= 1
        self._pace.refused(self._held)
        if not self._held and self._paused is None:
            self._paused = asyncio.get_running_loop().call_later(pause_s, self._go_on)

    def _go_on(self) -> None:
        self._paused = None
        self._give()

    def _give(self) -> None:
        if self._paused is not None:
            return
        while self._waiting and self._held < self._pace.allowed:
            turn = self._waiting.popleft()
            if not turn.cancelled():
                self._held += 1
                turn.set_result(None)
