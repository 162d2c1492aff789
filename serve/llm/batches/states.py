"""The life of a batch: in which state it is, and what leads to which other. No I/O, no clock."""

from collections.abc import Mapping
from enum import Enum, StrEnum
from typing import Final


class Status(StrEnum):
    """As clients see it."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


class Event(Enum):
    """What happens to it."""

    VALID = "its file can be run"
    INVALID = "its file cannot be run"
    DONE = "each of its requests has an answer"
    OVER = "its window is over"
    CANCEL = "its owner wants no more of it"
    WRITTEN = "its files are written, with an answer to each request"
    CUT_SHORT = "its files are written, and not all requests had an answer"


class WrongEventError(Exception):
    """This cannot happen to a batch in that state."""

    def __init__(self, status: Status, event: Event) -> None:
        super().__init__(status, event)
        self.status, self.event = status, event

    def __str__(self) -> str:
        return f"a batch that is {self.status} does not take {self.event.name}: {self.event.value}"


TABLE: Final[Mapping[tuple[Status, Event], Status]] = {
    (Status.VALIDATING, Event.VALID): Status.IN_PROGRESS,
    (Status.VALIDATING, Event.INVALID): Status.FAILED,
    (Status.VALIDATING, Event.CANCEL): Status.CANCELLING,
    (Status.IN_PROGRESS, Event.DONE): Status.FINALIZING,
    (Status.IN_PROGRESS, Event.OVER): Status.FINALIZING,
    (Status.IN_PROGRESS, Event.CANCEL): Status.CANCELLING,
    (Status.FINALIZING, Event.WRITTEN): Status.COMPLETED,
    # Only a window that is over leaves requests without an answer here.
    (Status.FINALIZING, Event.CUT_SHORT): Status.EXPIRED,
    (Status.CANCELLING, Event.CANCEL): Status.CANCELLING,
    # Whoever works on it may hear of the wish later than he comes to an end.
    (Status.CANCELLING, Event.VALID): Status.CANCELLING,
    (Status.CANCELLING, Event.INVALID): Status.FAILED,
    (Status.CANCELLING, Event.DONE): Status.CANCELLING,
    (Status.CANCELLING, Event.OVER): Status.CANCELLING,
    (Status.CANCELLING, Event.WRITTEN): Status.CANCELLED,
    (Status.CANCELLING, Event.CUT_SHORT): Status.CANCELLED,
}
OPEN: Final = (Status.VALIDATING, Status.IN_PROGRESS, Status.FINALIZING, Status.CANCELLING)
"""What somebody has to work on."""
ENDED: Final = tuple(status for status in Status if status not in OPEN)


def after(status: Status, event: Event) -> Status:
    """WrongEventError if that cannot be."""
    if (found := TABLE.get((status, event))) is None:
        raise WrongEventError(status, event)
    return found
