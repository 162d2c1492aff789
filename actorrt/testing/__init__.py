"""A cluster in virtual time, in one thread: seeded histories of programs, with crashes and cut links.

docs/testing.md says how. The names here are public; `make simulate` runs histories of its own (histories.py).
"""

from .faults import Faults
from .simulation import Simulation, simulate, story_of

__all__ = ["Faults", "Simulation", "simulate", "story_of"]
