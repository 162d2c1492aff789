"""What a deployment's record says is to be done, without replicas that are any."""

from typing import Any

import pytest

from actorrt.serve.base.topics import Topics
from actorrt.serve.control.applications import ApplicationRecord
from actorrt.serve.control.deployment import Deployment
from actorrt.serve.control.deployments import Deployments
from actorrt.serve.control.fleet import crowd_out, end_of_update
from actorrt.serve.control.kept import KeptRecord
from actorrt.serve.control.replica_record import ReplicaRecord, UserCode
from actorrt.serve.control.statuses import DeploymentStatus, DeploymentStatusOverview
from actorrt.serve.declaration.options import DeploymentOptions
from actorrt.serve.declaration.spec import ApplicationSpec, DeploymentSpec, make_spec
from actorrt.serve.replica.lifecycle import ReplicaEvent as E
from actorrt.serve.replica.lifecycle import ReplicaState as S

HEALTHY = DeploymentStatusOverview(DeploymentStatus.HEALTHY)


def spec_of(name: str, code: str = "v1", config: str = "c1", **options: Any) -> DeploymentSpec:
    return make_spec("app", name, DeploymentOptions(name, **options), code.encode(), config.encode())


def record_of(spec: DeploymentSpec, *states: S) -> Deployment:
    record = Deployment(spec.id)
    record.want(spec)
    for state in states:
        have(record, spec, state)
    return record


def have(record: Deployment, spec: DeploymentSpec, state: S) -> ReplicaRecord:
    id = f"{spec.id.name}-{len(record.replicas)}"
    replica = ReplicaRecord(id, spec, state, 1.0, spec.config_version, UserCode.SERVED)
    record.adopt(replica)
    return replica


def routing(record: Deployment) -> str:
    """Why its requests are refused, or ""."""
    return record.news(lambda _: None, None).reason


def fail_start(record: Deployment, spec: DeploymentSpec, reason: str) -> None:
    replica = ReplicaRecord("late", spec, S.STARTING, 0.0, spec.config_version)
    record.adopt(replica)
    record.happens("late", E.START_FAILED, 0.0, reason)
    record.happens("late", E.DIED, 0.0)


@pytest.mark.parametrize(
    ("states", "with_application", "retires"),
    [((S.RUNNING,), False, True), ((S.RUNNING,), True, False), ((S.STARTING,), False, False), ((), False, False)],
)
def test_what_an_update_drops_retires_if_it_serves(
    states: tuple[S, ...], with_application: bool, retires: bool
) -> None:
    record = record_of(spec_of("d"), *states)
    record.drop(with_application=with_application)
    assert (record.retires, record.spec is not None) == (retires, retires)
    app = ApplicationRecord(ApplicationSpec("app", None, "d", ()), 0.0)
    assert ("d" in app.overview([record]).deployments) is not retires
    # It goes with its application, and is nothing special if it is wanted again.
    record.drop(with_application=True)
    assert record.spec is None
    record.want(spec_of("d"))
    assert (record.retires, record.spec) == (False, spec_of("d"))


def test_requests_are_refused_where_no_replica_serves_and_one_after_the_other_fails_as_it_starts() -> None:
    spec = spec_of("d")
    record = record_of(spec, S.RUNNING)
    record.note_accepted()
    record.replicas.clear()
    for number in range(5):
        assert routing(record) == ("" if number < 3 else "it raised")
        fail_start(record, spec, "it raised")
    # One that dies young is no start that failed.
    for _ in range(5):
        young = have(record, spec, S.RUNNING)
        record.happens(young.id, E.DIED, young.since + 0.1, "it was killed")
    assert routing(record) == ""
    have(record, spec, S.RUNNING)
    assert routing(record) == ""


def test_an_update_has_ended_when_all_are_healthy_and_nothing_drains() -> None:
    front, behind = record_of(spec_of("front"), S.RUNNING, S.DRAINING), record_of(spec_of("behind"), S.RUNNING)
    behind.drop(with_application=False)
    assert not end_of_update([front, behind])
    front.decided(HEALTHY)
    assert not end_of_update([front, behind])
    front.happens("front-0", E.KILL, 0.0)
    assert not end_of_update([front, behind])
    front.happens("front-1", E.DRAINED, 0.0)
    assert end_of_update([front, behind])


@pytest.mark.parametrize(("lacks", "crowds"), [({"CPU": 1.0}, True), ({"CPU": 3.0}, False), ({}, False)])
def test_what_retires_makes_way_for_a_deployment_that_has_nothing_to_run_on(
    lacks: dict[str, float], crowds: bool
) -> None:
    old, new = spec_of("old", actor_options={"num_cpus": 1}), spec_of("new", actor_options={"num_cpus": 1})
    front, dropped, added = record_of(spec_of("front"), S.RUNNING), record_of(old, S.RUNNING, S.RUNNING), record_of(new)
    dropped.drop(with_application=False)
    assert not crowd_out([front, dropped, added])
    waiting = have(added, new, S.PLACING)
    waiting.asked_why(2.0)
    assert waiting.explained(2.0, "no CPU", lacks)
    assert crowd_out([front, dropped, added]) is crowds
    # What is free in a moment may be enough.
    have(front, spec_of("front"), S.DRAINING)
    assert not crowd_out([front, dropped, added])


def refuse(record: Deployment, id: str) -> None:
    assert record.spec is not None
    record.happens(id, E.UPDATE, 0.0)
    record.happens(id, record.answered(id, record.spec, "no"), 0.0, "no")


def test_a_configuration_is_accepted_when_all_that_serve_have_it() -> None:
    first, second = spec_of("d"), spec_of("d", config="c2")
    record = record_of(first, S.STARTING)
    record.note_accepted()
    assert record.accepted is None
    record.happens("d-0", E.READY, 0.0)
    other = have(record, first, S.RUNNING)
    record.want(second)
    assert (record.accepted, record.aim()) == (first, second)
    record.answered(other.id, second, "")
    record.note_accepted()
    assert record.accepted == first
    refuse(record, "d-0")
    # Not even when the last one that refused it has gone.
    del record.replicas["d-0"]
    record.note_accepted()
    assert record.accepted == record.aim() == first
    assert routing(record) == ""
    record.want(second)
    assert record.aim() == second
    record.note_accepted()
    assert record.accepted == second
    # Another number is no other configuration.
    more = spec_of("d", config="c2", num_replicas=3)
    record.want(more)
    record.note_accepted()
    assert record.accepted == more


def fail(record: Deployment, spec: DeploymentSpec) -> None:
    for _ in range(20):
        fail_start(record, spec, "no")


def test_a_version_that_serves_is_proven_for_whoever_goes_back_to_it() -> None:
    good, bad = spec_of("d"), spec_of("d", code="v2")
    record = record_of(good, S.RUNNING)
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
    later.restore((gone,), (good,), (KeptRecord(record.id, *record.progress()),))
    found = later.fleet.get(bad.id)
    assert found is not None
    assert found.aim() == good
    retiring = later.fleet.get(gone.id)
    assert retiring is not None
    assert (retiring.retires, retiring.aim()) == (True, gone)
