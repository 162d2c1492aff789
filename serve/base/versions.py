"""A value that changes, who has acted on which version of it, and which values are kept. Pure.

Who asks with a version says that it has acted on that one. It counts as a listener until it goes, or is taken for gone.
"""

from __future__ import annotations

from typing import Any, Final

# The name of a value.
Name = tuple[str, ...]


class Versions:
    """One value."""

    __slots__ = ("_acted", "value", "version")

    def __init__(self, value: Any, first: int) -> None:
        """`first`: above all versions that any listener may have of it."""
        self.version = first
        self.value = value
        # Who listens, and the version that it has acted on.
        self._acted: dict[str, int] = {}

    def publish(self, value: Any) -> int:
        """The version of the new value."""
        self.version += 1
        self.value = value
        return self.version

    def is_news(self, value: Any) -> bool:
        return bool(value != self.value)

    def asks(self, listener: str, version: int) -> None:
        """It has acted on `version`, and wants another one."""
        self._acted[listener] = version

    def has_next(self, version: int) -> bool:
        """Whether there is another one. Not only a later one: it may have its version from elsewhere."""
        return self.version != version

    def stops_asking(self, listener: str, version: int) -> bool:
        """Its question was cancelled: it has gone, unless it has asked anew since. Whether that is so."""
        if self._acted.get(listener) != version:
            return False
        del self._acted[listener]
        return True

    def forget(self, listener: str) -> None:
        """It has gone, whatever it was told last."""
        self._acted.pop(listener, None)

    @property
    def has_listeners(self) -> bool:
        return bool(self._acted)

    def is_acted_on(self, version: int) -> bool:
        """By all who listen."""
        return all(acted >= version for acted in self._acted.values())

    def give_up(self, version: int) -> None:
        """Who has not acted on it by now is taken for gone."""
        self._acted = {listener: acted for listener, acted in self._acted.items() if acted >= version}


class Holds:
    """Which values are published, by their names. One that is not goes with its last listener."""

    def __init__(self, *names: Name) -> None:
        self._held: Final[set[Name]] = set(names)

    def hold(self, name: Name) -> None:
        self._held.add(name)

    def release(self, name: Name) -> None:
        self._held.discard(name)

    def may_drop(self, name: Name, versions: Versions) -> bool:
        return name not in self._held and not versions.has_listeners
