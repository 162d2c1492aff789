"""What a controller has kept for its successor, and which of it has to be kept anew. Pure."""

from __future__ import annotations

from ..declaration.spec import ApplicationSpec, DeploymentId, DeploymentSpec
from .applications import Applications
from .fleet import Fleet

# The applications that are wanted, since when; the specs of all replicas, by their versions; those of deployments that
# retire; and those that were accepted. They hold code and may be large. Who keeps it need not load what it is of.
Code = tuple[
    tuple[tuple[ApplicationSpec, float], ...],
    dict[tuple[DeploymentId, str], DeploymentSpec],
    tuple[DeploymentSpec, ...],
    tuple[DeploymentSpec, ...],
]


def code_of(applications: Applications, fleet: Fleet) -> Code:
    specs = {(each.id, replica.spec.version): replica.spec for each in fleet for replica in each.replicas.values()}
    retiring = tuple(each.spec for each in fleet if each.retires and each.spec is not None)
    accepted = tuple(each.accepted for each in fleet if each.accepted is not None)
    return applications.wanted(), specs, retiring, accepted


class Saved:
    """What is kept at present, by the names of its parts."""

    def __init__(self) -> None:
        self._parts: dict[str, object] = {}

    def is_due(self, part: str, value: object) -> bool:
        """Whether it differs from what is kept. It is taken to be kept from now on."""
        if part in self._parts and self._parts[part] == value:
            return False
        self._parts[part] = value
        return True

    def due(self, **parts: object) -> list[tuple[str, object]]:
        """Those that are due, each with its name."""
        return [(part, value) for part, value in parts.items() if self.is_due(part, value)]

    def lost(self) -> None:
        """Another keeps it from now on, and has nothing yet."""
        self._parts.clear()
