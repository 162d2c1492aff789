"""Whom `/load` names of those who wait in a capacity queue."""

from __future__ import annotations

from collections.abc import Container

import pytest

from actorrt.serve.capacity_queue.statuses import LineStatus, QueueStatus, TenantStatus
from actorrt.serve.llm.queue_exposition import queue_families
from actorrt.serve.llm.queue_view import MOST_TENANTS, queue_views


@pytest.mark.parametrize(
    ("named", "shown"), [(None, ["b", "a", ""]), ({"a"}, ["a"]), ({"nobody"}, []), ({""}, []), ({"a", "b"}, ["b", "a"])]
)
def test_of_those_who_wait_only_such_are_named_as_may_be_seen(named: Container[str] | None, shown: list[str]) -> None:
    tenants = {name: TenantStatus(waiting, 10, 1.0) for name, waiting in (("a", 2), ("b", 3), ("", 1))}
    (view,) = queue_views([("model", QueueStatus("app", "model", tenants=tenants))], named)
    assert (view["waiting"], [each["tenant"] for each in view["tenants"]]) == (6, shown)
    assert view["more_tenants"] == 3 - len(shown)


def test_who_has_a_key_sees_its_tenant_however_many_wait_of_others() -> None:
    tenants = {str(number): TenantStatus(number, 1, 1.0) for number in range(1, MOST_TENANTS + 10)}
    (view,) = queue_views([("model", QueueStatus("app", "model", tenants=tenants))], {"1"})
    assert [each["tenant"] for each in view["tenants"]] == ["1"]
    assert view["more_tenants"] == MOST_TENANTS + 8


def test_of_each_line_it_is_said_whether_it_only_reads_prompts() -> None:
    lines = tuple(LineStatus(id, 0, 100, 0, 0, 0, 0, 4, True, role=role) for id, role in (("p", "prefill"), ("d", "")))
    queue = QueueStatus("app", "model", lines=lines)
    (view,) = queue_views([("model", queue)], None)
    assert [(each["replica"], each["role"]) for each in view["replicas"]] == [("p", "prefill"), ("d", "")]
    families = [each for each in queue_families([queue]) if each.name.startswith("actorrt_queue_line")]
    assert families
    for family in families:
        assert [each.labels["role"] for each in family.samples] == ["prefill", ""]
