"""What routers know of the replicas: their own requests at once, those of other routers only as of some time ago."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorrt.serve.capacity.output_lengths import OutputLengths

from ..requests import Request
from .policy import Policy

if TYPE_CHECKING:
    from ..fleet import Fleet


class View:
    """Of each replica: requests that run or wait there, their tokens as expected, and prompts that are not read."""

    def __init__(self, replicas: int) -> None:
        self.requests = [0] * replicas
        self.tokens = [0] * replicas
        self.unread = [0] * replicas

    def copy(self, other: View) -> None:
        self.requests[:], self.tokens[:], self.unread[:] = other.requests, other.tokens, other.unread


class Sent:
    """What a request counts for where it was sent."""

    __slots__ = ("is_there", "tokens", "unread")

    def __init__(self, tokens: int, unread: int) -> None:
        self.tokens, self.unread = tokens, unread
        self.is_there = True


class Viewing(Policy):
    """Keeps a view for each router; a policy above it only chooses."""

    def __init__(self, name: str, fleet: Fleet, stale_s: float = 0.0) -> None:
        """Of others each router knows what was so at most `stale_s` ago; with one router all is its own."""
        super().__init__(name, fleet)
        replicas = len(fleet.engines)
        self.lengths = OutputLengths(0.7)
        self._true = View(replicas)
        is_shared = fleet.routers == 1 or not stale_s
        self.views = [self._true if is_shared else View(replicas) for _ in range(fleet.routers)]
        self._is_shared = is_shared
        if not is_shared:
            self.tick_s = stale_s

    def tick(self, now: float) -> None:
        for view in self.views:
            if not self._is_shared:
                view.copy(self._true)

    def up_replicas(self) -> list[int]:
        return [replica for replica, is_up in enumerate(self.fleet.is_up) if is_up]

    def view_of(self, request: Request) -> View:
        return self.views[request.router]

    def expected(self, request: Request) -> int:
        """Its prompt, and as long an answer as most earlier ones of such were."""
        return request.prompt + self.lengths.expect("", request.tenant, request.prompt, request.max_tokens)

    def dispatch(self, request: Request, replica: int, unread: int) -> None:
        sent = request.memo = Sent(self.expected(request), unread)
        self._count(request, replica, 1, sent.tokens, unread)
        self.fleet.send(request, replica)

    def _count(self, request: Request, replica: int, requests: int, tokens: int, unread: int) -> None:
        view = self.views[request.router]
        for each in (self._true,) if view is self._true else (self._true, view):
            each.requests[replica] += requests
            each.tokens[replica] += tokens
            each.unread[replica] += unread

    def first(self, request: Request, now: float) -> None:
        sent = request.memo
        self._count(request, request.replica, 0, 0, -sent.unread)
        sent.unread = 0

    def further(self, request: Request, generated: int, now: float) -> None:
        if request.memo.unread:
            self.first(request, now)

    def ended(self, request: Request, now: float) -> None:
        sent = request.memo
        self._count(request, request.replica, -1, -sent.tokens, -sent.unread)
        self.lengths.learn("", request.tenant, request.prompt, request.output)

    def down(self, replica: int, now: float) -> None:
        for view in {self._true, *self.views}:
            view.requests[replica] = view.tokens[replica] = view.unread[replica] = 0
