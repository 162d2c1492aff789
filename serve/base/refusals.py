"""Why a replica did not start a request. It is safe to send it to another one."""

from typing import Final

from ..exceptions import ServeError

FULL: Final = 1
DRAINING: Final = 2
OUTDATED: Final = 3
"""Its lease is of an earlier queue than the one that the replica knows."""

_WORDS: Final = {FULL: "the replica is full", DRAINING: "the replica is draining", OUTDATED: "a later queue is there"}


class ReplicaRefusedError(ServeError):
    """Between replicas and routers only: users never see it."""

    def __init__(self, reason: int) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return _WORDS[self.reason]
