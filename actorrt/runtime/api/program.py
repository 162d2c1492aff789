"""The session of this program, as the public names use it: the functions of `current`, with the whole type of what they
give. How a session begins and ends is in driver.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from ..owner import current

if TYPE_CHECKING:
    from ..owner.runtime import Runtime

maybe_runtime: Final = cast("Callable[[], Runtime | None]", current.maybe_runtime)
runtime: Final = cast("Callable[[], Runtime]", current.runtime)
session: Final = cast("Callable[[], Runtime]", current.session)
