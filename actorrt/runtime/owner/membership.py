"""What a process knows of its session once its node has taken it in."""

from __future__ import annotations

import msgspec

from actorrt.types import Employer, ProcessId

from ..links.link import Link


class Membership(msgspec.Struct, frozen=True):
    """A process's place in its session. Nothing changes it."""

    node: Link
    node_id: ProcessId
    # How many tasks of one CPU the node can run at once.
    node_cpus: int
    # Bytes of shared memory that the node may use.
    store_limit: int
    # Whose work this process does.
    employer: Employer
    # Where names are looked for that come without one.
    namespace: str
