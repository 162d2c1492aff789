"""The leases of tasks, with links that are played."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from actorrt.runtime.owner.tasks import Tasks
from actorrt.types import LeaseId, ProcessId

NODE, WORKER = ProcessId(b"node...."), ProcessId(b"worker..")


def test_a_lost_link_concerns_the_leases_that_it_led_to_and_none_of_another_link_to_the_same_worker() -> None:
    lost: list[int] = []
    tasks = Tasks(cast(Any, SimpleNamespace(thread=None)))
    pool = SimpleNamespace(lost=lambda held: lost.append(held.number))
    links = [cast(Any, SimpleNamespace(peer=WORKER)) for _ in range(2)]
    for number, link in enumerate(links):
        held = SimpleNamespace(id=LeaseId(NODE, number), number=number, link=link, pool=pool)
        tasks.hold(cast(Any, held))
    # What had begun there is being found out while the new link is lost too.
    for link in links:
        tasks.link_lost(link)
    assert lost == [0, 1]
