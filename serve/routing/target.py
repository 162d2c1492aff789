"""A replica with what is called on it, as the requests that a router sends there see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from actorrt import ActorHandle

from .lending import Lending, LendingEvent, after

if TYPE_CHECKING:
    from ..http.loan import Lender

# So many messages of a websocket, or values of a generator, may be under way: who is slow to take them holds no more.
ITEM_WINDOW: Final = 32
# Names that were asked for and that may not be methods at all.
MANY_NAMES: Final = 256


class Target:
    """A replica with what is called on it."""

    __slots__ = (
        "_calls",
        "_streams",
        "aside",
        "code_ended",
        "gone",
        "handle",
        "http",
        "http_leased",
        "id",
        "lender",
        "lending",
        "websocket",
        "websocket_message",
    )

    def __init__(self, id: str, handle: ActorHandle[Any]) -> None:
        self.id = id
        self.handle = handle
        self.http = handle.http
        self.http_leased = handle.http_leased
        self.gone = handle.http_gone
        self.code_ended = handle.http_code_ended
        self.websocket = handle.websocket.options(num_returns="streaming", generator_backpressure=ITEM_WINDOW)
        self.websocket_message = handle.websocket_message
        self.aside = handle.aside
        # By which its large responses get its clients' sockets, once one was opened.
        self.lender: Lender | None = None
        self.lending = Lending.CLOSED
        self._calls: dict[tuple[str, bool], Any] = {}
        self._streams: dict[tuple[str, bool], Any] = {}

    def lending_begins(self) -> None:
        """A channel is being opened; it is not tried again unless one was open and has ended."""
        self.lending = after(self.lending, LendingEvent.TRY)

    def lends_by(self, lender: Lender) -> None:
        self.lender, self.lending = lender, after(self.lending, LendingEvent.OPENED)

    def lending_ended(self) -> None:
        self.lending = after(self.lending, LendingEvent.ENDED)

    def call(self, method: str, is_leased: bool = False) -> Any:
        """What calls a method of the deployment; errors know it by its name there. `is_leased`: its first argument is
        the tag of a lease.
        """
        found = self._calls.get((method, is_leased))
        if found is None:
            if len(self._calls) >= MANY_NAMES:
                self._calls.clear()
            called = self.handle.call_leased if is_leased else self.handle.call
            found = self._calls[method, is_leased] = called.options(name=method)
        return found

    def call_stream(self, method: str, is_leased: bool = False) -> Any:
        found = self._streams.get((method, is_leased))
        if found is None:
            if len(self._streams) >= MANY_NAMES:
                self._streams.clear()
            called = self.handle.call_stream_leased if is_leased else self.handle.call_stream
            found = self._streams[method, is_leased] = called.options(
                name=method, num_returns="streaming", generator_backpressure=ITEM_WINDOW
            )
        return found
