"""What a policy is told, and what it may do: `fleet.send` and `fleet.refuse`, then or later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..requests import Request

if TYPE_CHECKING:
    from ..fleet import Fleet


class Policy:
    tick_s: float | None = None
    """Seconds from one `tick` to the next; None: there are none."""
    over_admitted = 0
    """Grants beyond what the policy itself holds to be there."""

    def __init__(self, name: str, fleet: Fleet) -> None:
        self.name, self.fleet = name, fleet

    def arrive(self, request: Request, now: float) -> None:
        """It is new, or its replica has died (then `attempts` is above zero)."""
        raise NotImplementedError

    def first(self, request: Request, now: float) -> None:
        """Its first token has come: its prompt was read."""

    def further(self, request: Request, generated: int, now: float) -> None:
        """So much of its answer has come."""

    def ended(self, request: Request, now: float) -> None:
        """Its answer is whole."""

    def tick(self, now: float) -> None:
        """Time has passed."""

    def down(self, replica: int, now: float) -> None:
        """It has died; afterwards what it had arrives again."""

    def up(self, replica: int, now: float) -> None:
        """It is there again, with nothing in its cache."""

    def measures(self) -> dict[str, float]:
        """What only this policy has, at the end of a run."""
        return {}
