"""What a deployment's record says is to be done, without replicas that are any."""

import time
from typing import Any

import pytest

from actorrt.serve.base.topics import Topic, Topics
from actorrt.serve.control.controller_state import (
    ApplicationRecord,
    DeploymentRecord,
    ReplicaRecord,
    crowd_out,
    end_of_update,
)
from actorrt.serve.control.deployments import Deployments
from actorrt.serve.control.history import History
from actorrt.serve.control.statuses import DeploymentStatus, DeploymentStatusOverview
from actorrt.serve.declaration.options import DeploymentOptions
from actorrt.serve.declaration.spec import ApplicationSpec, DeploymentSpec, make_spec
from actorrt.serve.replica.lifecycle import ReplicaState as S

HEALTHY = DeploymentStatusOverview(DeploymentStatus.HEALTHY)


def spec_of(name: str, code: str = "v1", config: str = "c1", **options: Any) -> DeploymentSpec:
    return make_spec("app", name, DeploymentOptions(name, **options), code.encode(), config.encode())


def record_of(spec: DeploymentSpec, *states: S) -> DeploymentRecord:
    record = DeploymentRecord(spec.id, None, Topic(None))
    record.want(spec)
    for state in states:
        have(record, spec, state)
    return record


def have(record: DeploymentRecord, spec: DeploymentSpec, state: S) -> ReplicaRecord:
    handle: Any = None
    id = f"{spec.id.name}-{len(record.replicas)}"
    replica = ReplicaRecord(id, spec, handle, state, time.monotonic(), spec.config_version, constructed=True)
    record.replicas[id] = replica
    return replica


@pytest.mark.parametrize(
    ("states", "with_application", "retires"),
    [((S.RUNNING,), False, True), ((S.RUNNING,), True, False), ((S.STARTING,), False, False), ((), False, False)],
)
def test_what_an_update_drops_retires_if_it_serves(
    states: tuple[S, ...], with_application: bool, retires: bool
) -> None:
    record = record_of(spec_of("d"), *states)
    record.drop(with_application=with_application)
    assert (record.retiring, record.spec is not None) == (retires, retires)
    app = ApplicationRecord(ApplicationSpec("app", None, "d", ()), 0.0)
    assert ("d" in app.overview([record]).deployments) is not retires
    # It goes with its application, and is nothing special if it is wanted again.
    record.drop(with_application=True)
    assert record.spec is None
    record.want(spec_of("d"))
    assert (record.retiring, record.spec) == (False, spec_of("d"))


def test_requests_are_refused_where_no_replica_serves_and_one_after_the_other_fails_as_it_starts() -> None:
    spec = spec_of("d")
    record = record_of(spec, S.RUNNING)
    record.note(spec.version, History.after_ready)
    record.accepted = spec
    record.replicas.clear()
    for number in range(5):
        assert record.routing()[0] == ("" if number < 3 else "it raised")
        record.note(spec.version, lambda history: history.after_start_failure(0.0, "it raised"))
    record.note(spec.version, History.after_ready)
    # One that dies young is no start that failed.
    for _ in range(5):
        record.note(spec.version, lambda history: history.after_death(0.1, 0.0, "it was killed"))
    assert record.routing()[0] == ""
    have(record, spec, S.RUNNING)
    assert record.routing()[0] == ""


def test_an_update_has_ended_when_all_are_healthy_and_nothing_drains() -> None:
    front, behind = record_of(spec_of("front"), S.RUNNING, S.DRAINING), record_of(spec_of("behind"), S.RUNNING)
    behind.drop(with_application=False)
    assert not end_of_update([front, behind])
    front.status = HEALTHY
    assert not end_of_update([front, behind])
    next(iter(front.replicas.values())).state = S.STOPPING
    assert not end_of_update([front, behind])
    front.replicas["front-1"].state = S.STOPPING
    assert end_of_update([front, behind])


@pytest.mark.parametrize(("lacks", "crowds"), [({"CPU": 1.0}, True), ({"CPU": 3.0}, False), ({}, False)])
def test_what_retires_makes_way_for_a_deployment_that_has_nothing_to_run_on(
    lacks: dict[str, float], crowds: bool
) -> None:
    old, new = spec_of("old", actor_options={"num_cpus": 1}), spec_of("new", actor_options={"num_cpus": 1})
    front, dropped, added = record_of(spec_of("front"), S.RUNNING), record_of(old, S.RUNNING, S.RUNNING), record_of(new)
    dropped.drop(with_application=False)
    assert not crowd_out([front, dropped, added])
    have(added, new, S.PLACING).lacks = lacks
    assert crowd_out([front, dropped, added]) is crowds
    # What is free in a moment may be enough.
    have(front, spec_of("front"), S.DRAINING)
    assert not crowd_out([front, dropped, added])


def refuse(record: DeploymentRecord) -> None:
    assert record.spec is not None
    refused = record.spec.config_version
    record.note(record.spec.version, lambda history: history.after_refused_config(refused, "no"))


def test_a_configuration_is_accepted_when_all_that_serve_have_it() -> None:
    first, second = spec_of("d"), spec_of("d", config="c2")
    record = record_of(first, S.STARTING)
    record.note_accepted()
    assert record.accepted is None
    record.replicas["d-0"].state = S.RUNNING
    other = have(record, first, S.RUNNING)
    record.want(second)
    assert (record.accepted, record.aim()) == (first, second)
    other.config_version = second.config_version
    record.note_accepted()
    assert record.accepted == first
    refuse(record)
    # Not even when the last one that refused it has gone.
    del record.replicas["d-0"]
    record.note_accepted()
    assert record.accepted == record.aim() == first
    assert record.routing()[0] == ""
    record.want(second)
    assert record.aim() == second
    record.note_accepted()
    assert record.accepted == second
    # Another number is no other configuration.
    more = spec_of("d", config="c2", num_replicas=3)
    record.want(more)
    record.note_accepted()
    assert record.accepted == more


def fail(record: DeploymentRecord, spec: DeploymentSpec) -> None:
    for _ in range(20):
        record.note(spec.version, lambda history: history.after_start_failure(0.0, "no"))


def test_a_version_that_serves_is_proven_for_whoever_goes_back_to_it() -> None:
    good, bad = spec_of("d"), spec_of("d", code="v2")
    record = record_of(good, S.RUNNING)
    record.note(good.version, lambda history: history.after_ready())
    record.want(bad)
    fail(record, bad)
    assert record.aim() == good
    target = record.target()
    assert target is not None
    assert target.before is not None
    assert (target.version, target.before.version) == (bad.version, good.version)
    # Even if none of its replicas is left.
    record.replicas.clear()
    record.want(bad)
    fail(record, bad)
    record.want(good)
    fail(record, good)
    assert record.aim() == good
    assert record.history.proven
    # A replica of it that runs is a proof too.
    record = record_of(bad)
    have(record, good, S.RUNNING)
    record.want(good)
    assert record.history.proven


def test_what_was_accepted_and_given_up_is_known_to_the_next_controller() -> None:
    good, bad, gone = spec_of("d"), spec_of("d", code="v2"), spec_of("gone")
    record = record_of(good, S.RUNNING)
    record.want(bad)
    fail(record, bad)
    nothing: Any = None
    later = Deployments(nothing, Topics(), lambda: None)
    later.want("app", (bad,))
    later.restore((gone,), (good,), (record.kept(),))
    found = later.get(bad.id)
    assert found is not None
    assert found.aim() == good
    retiring = later.get(gone.id)
    assert retiring is not None
    assert (retiring.retiring, retiring.aim()) == (True, gone)
