"""What runs in this worker, as the prefix of printed lines says it."""

from __future__ import annotations

import sys
from collections.abc import Callable

from actorrt.wire.messages import WorkerName

from ..links.link import Link
from ..machine.named_output import NamedOutput


class Title:
    """The name that was told last. From the user's thread."""

    def __init__(self, node: Callable[[], Link]) -> None:
        self._node = node
        self._name = ""

    def is_now(self, name: str) -> None:
        """Tell it to the node and to the output of this process, if it is another one than before."""
        if name != self._name:
            self._name = name
            for stream in (sys.__stdout__, sys.__stderr__):
                if isinstance(stream, NamedOutput):
                    stream.names(name)
            self._node().post(WorkerName(name))
