"""Why a replica did not start a request. It is safe to send it to another one."""

from typing import Final

from .exceptions import ServeError

FULL: Final = 1
DRAINING: Final = 2


class ReplicaRefusedError(ServeError):
    """Between replicas and routers only: users never see it."""

    def __init__(self, reason: int) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return "the replica is full" if self.reason == FULL else "the replica is draining"
