"""What an application may send on a websocket, in which order, and what its client is told where it fails to.

    CONNECTING -> OPEN -> CLOSED
        |                   ^
        +---> DENYING ------+

The rules are ASGI's, with its extension for a response in the place of a handshake. Nothing here waits.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from ..exceptions import ReplicaUnavailableError
from .retry import retry_headers
from .unavailable import NOT_AVAILABLE, RETRY_AFTER_S, answer_to

# Close codes of RFC 6455 and of its registry.
INTERNAL_ERROR: Final = 1011
SERVICE_RESTART: Final = 1012
TRY_AGAIN_LATER: Final = 1013

ACCEPT: Final = "websocket.accept"
SEND: Final = "websocket.send"
CLOSE: Final = "websocket.close"
DISCONNECT: Final = "websocket.disconnect"
DENY: Final = "websocket.http.response.start"
DENY_BODY: Final = "websocket.http.response.body"


class WebsocketState(Enum):
    CONNECTING = "CONNECTING"  # the client waits for its handshake
    OPEN = "OPEN"
    DENYING = "DENYING"  # a response is sent in the place of the handshake
    CLOSED = "CLOSED"  # by the application


S = WebsocketState
TABLE: Final[Mapping[tuple[WebsocketState, str], WebsocketState]] = {
    (S.CONNECTING, ACCEPT): S.OPEN,
    # Without a handshake: 403.
    (S.CONNECTING, CLOSE): S.CLOSED,
    (S.CONNECTING, DENY): S.DENYING,
    (S.OPEN, SEND): S.OPEN,
    (S.OPEN, CLOSE): S.CLOSED,
    (S.DENYING, DENY_BODY): S.DENYING,
}


def after(state: WebsocketState, message: Mapping[str, Any]) -> WebsocketState:
    """The state once the application has sent this. RuntimeError, as from uvicorn, if it may not."""
    kind = message["type"]
    found = TABLE.get((state, kind))
    if found is None:
        if state is S.CLOSED:
            raise RuntimeError(f"unexpected ASGI message {kind!r} after the websocket was closed")
        expected = " or ".join(repr(each) for known, each in TABLE if known is state)
        raise RuntimeError(f"expected ASGI message {expected}, but got {kind!r}")
    if kind == DENY_BODY and not message.get("more_body", False):
        return S.CLOSED
    return found


def denial(status: int, text: str, retry_after_s: float | None = None) -> list[dict[str, Any]]:
    """A response in the place of a handshake."""
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *retry_headers(retry_after_s)]
    return [
        {"type": DENY, "status": status, "headers": headers},
        {"type": DENY_BODY, "body": text.encode(), "more_body": False},
    ]


def failure(state: WebsocketState, error: BaseException | None) -> list[dict[str, Any]]:
    """What the client is told of an application that raised this, or that has returned without a handshake."""
    answer = answer_to(error)
    if state is S.CONNECTING:
        if answer is not None:
            return denial(*answer[:3])
        return denial(500, "Internal Server Error")
    if state is S.OPEN and error is not None:
        code = INTERNAL_ERROR if answer is None else TRY_AGAIN_LATER
        return [{"type": CLOSE, "code": code, "reason": ""}]
    if state is S.DENYING:
        return [{"type": DENY_BODY, "body": b"", "more_body": False}]
    return []


class Shown:
    """What a websocket's client has been shown by its replica, and whether it is still there."""

    def __init__(self) -> None:
        self.state = S.CONNECTING
        self._is_here = True

    def takes(self, kind: str) -> bool:
        """Whether the client is shown this event. The application is told that it has gone, and may end by itself."""
        self.state = TABLE.get((self.state, kind), self.state)
        return self._is_here

    def left(self) -> None:
        self._is_here = False

    def broken_off(self, error: Exception, deployment: str, replica: str) -> list[dict[str, Any]]:
        """What the client is told when its replica has ended by this error, whoever notices that it has gone."""
        lost = ReplicaUnavailableError(deployment, replica, str(error))
        return failure(self.state, lost if self.state is S.CONNECTING else error)


def going_away(state: WebsocketState) -> list[dict[str, Any]]:
    """What the client is told when its replica ends."""
    if state is S.CONNECTING:
        return denial(503, NOT_AVAILABLE, RETRY_AFTER_S)
    return [{"type": CLOSE, "code": SERVICE_RESTART, "reason": ""}] if state is S.OPEN else []
