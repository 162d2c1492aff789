"""The session of this program, as the public names use it. How it begins and ends is in driver.py."""

from __future__ import annotations

from typing import cast

from ..owner import current
from ..owner.runtime import Runtime


def maybe_runtime() -> Runtime | None:
    return cast("Runtime | None", current.maybe_runtime())


def runtime() -> Runtime:
    """The runtime of this process; a driver that has none starts one (auto-init)."""
    return cast(Runtime, current.runtime())


def session() -> Runtime:
    """The runtime that the refs and handles of this process belong to. RuntimeError if that ended: none is begun."""
    return cast(Runtime, current.session())
