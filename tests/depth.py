"""How many of the examples and histories that a test makes up are tried.

A run tries enough of them to find what often breaks; `ACTORRT_TEST_DEPTH=5` tries five times as many, for who changes
what they are about.
"""

import os
from typing import Final

DEPTH: Final = int(os.environ.get("ACTORRT_TEST_DEPTH", "1"))
