"""What a router has to say to the queue: gathered by any thread, sent as one message at the end of a turn.

What is said of most requests, that one is wanted and that it has ended, is appended without a lock, which would cost
more than all else here. A message is made and written under one, and takes those last: a request that was wanted before
another word on it goes with that word or before it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from .messages import CreditsHeld, ToQueue, encode

T = TypeVar("T")


class Outbox:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.message = ToQueue()
        # Leases that have ended, of which no more is to be said; and requests of which nothing is known but that each
        # is one: id, and seconds since it came.
        self.given_back: deque[int] = deque()
        self.plain: deque[tuple[int, float]] = deque()

    def say(self, what: str, value: Any) -> None:
        """One more in the list of this name."""
        with self.lock:
            getattr(self.message, what).append(value)

    def say_progress(self, progress: Iterable[tuple[int, int]]) -> None:
        """So much has come of answers. Called with the lock."""
        self.message.progress.extend(progress)

    def say_alive(self) -> None:
        with self.lock:
            self.message.answer()

    def say_credits(self, held: CreditsHeld) -> None:
        with self.lock:
            self.message.hold(held)

    def begin(self, held: list[int], full: list[str]) -> None:
        """A queue is there that knows nothing: what was to be said to another one is not said."""
        with self.lock:
            self.message = ToQueue(held=held, full=[(each, True) for each in full])
            self.given_back.clear()
            self.plain.clear()

    def send(self, epoch: int, write: Callable[[bytes], None]) -> None:
        """Write what there is, if there is any."""
        with self.lock:
            out, self.message = self.message, ToQueue()
            out.finish(epoch, _taken(self.given_back), _taken(self.plain))
            if out:
                write(encode(out))


def _taken(queue: deque[T]) -> list[T]:
    """What is in it, while others may append."""
    return [queue.popleft() for _ in range(len(queue))]
