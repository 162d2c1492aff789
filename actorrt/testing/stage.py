"""What all simulated processes of a history share."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from actorrt.config import Settings

from .deliveries import Deliveries
from .network import Network
from .story import Storyteller


@dataclass(frozen=True, slots=True)
class Stage:
    """One history's network, its settings, and who takes notes of it."""

    network: Network
    story: Storyteller
    deliveries: Deliveries
    settings: Settings
    # For ids alone: what is drawn here decides nothing.
    ids: Random
