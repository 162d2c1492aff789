"""What a controller that was restarted believes of what runs, by what it hears. Pure.

It must not take silence for an end: who believes that nothing runs ends all replicas.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import chain, repeat
from typing import Final, Protocol, TypeVar

from actorrt.exceptions import ActorDiedError

from ..declaration.spec import DeploymentId, DeploymentSpec

# It asks again after so many seconds, the last for ever.
RECOVERY_RETRIES_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Belief(Enum):
    UNKNOWN = "UNKNOWN"  # it is asked again
    LOST = "LOST"  # it is certain that there is no proxy that keeps anything
    ABORTED = "ABORTED"  # a proxy was being started, and that ended with the controller which had asked for it
    KNOWN = "KNOWN"


class Recovery:
    """`why`: why it is not known yet what runs."""

    def __init__(self, waits_s: Sequence[float] = RECOVERY_RETRIES_S) -> None:
        self.why = ""
        self._waits_s: Iterator[float] = chain(waits_s, repeat(waits_s[-1]))

    def failed(self, error: Exception) -> Belief:
        """The proxy was not found, or did not say what it keeps."""
        # By its name, and the head knows that there is none; or by the proxy's own end.
        if isinstance(error, ValueError | ActorDiedError):
            return Belief.LOST
        self.why = str(error) or "the proxy does not answer"
        return Belief.UNKNOWN

    def answered(self, url: str) -> Belief:
        """The proxy says what it keeps, and where it listens."""
        return Belief.KNOWN if url else Belief.ABORTED

    def wait_s(self) -> float:
        """How long to wait before the next question."""
        return next(self._waits_s)


class Kept(Protocol):
    @property
    def deployment(self) -> DeploymentId: ...
    @property
    def version(self) -> str: ...


K = TypeVar("K", bound=Kept)


def adoptable(
    replicas: Iterable[K], specs: Mapping[tuple[DeploymentId, str], DeploymentSpec]
) -> list[tuple[DeploymentSpec, K]]:
    """Replicas whose code is known. Both were kept one after the other, perhaps by a controller that died in between:
    the others are ended with what is unknown.
    """
    return [(spec, each) for each in replicas if (spec := specs.get((each.deployment, each.version))) is not None]


def unknown_actors(listed: Iterable[Mapping[str, str]], namespace: str, known: set[str]) -> set[str]:
    """The names of actors that an earlier controller had started and could not tell of any more."""
    return {each["name"] for each in listed if each["namespace"] == namespace} - known
