"""What a deployment's record says is to be done, without replicas that are any."""

import time
from typing import Any

import pytest

from actorrt.serve.controller_state import ApplicationRecord, DeploymentRecord, ReplicaRecord, end_of_update
from actorrt.serve.lifecycle import ReplicaState as S
from actorrt.serve.options import DeploymentOptions
from actorrt.serve.spec import ApplicationSpec, DeploymentSpec, make_spec
from actorrt.serve.statuses import DeploymentStatus, DeploymentStatusOverview
from actorrt.serve.topics import Topic

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
