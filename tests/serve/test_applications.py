"""Routes, conflicts and outcomes of applications; the proxy's life; and what is kept for a later controller."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.serve.base.news import NOTHING_YET
from actorrt.serve.control.applications import Applications, Up
from actorrt.serve.control.deployment import Deployment
from actorrt.serve.control.fleet import Fleet
from actorrt.serve.control.proxy_life import (
    PROXY_RESTARTS_S,
    TABLE,
    ProxyAction,
    ProxyEvent,
    ProxyLife,
    ProxyTransitionError,
    advance,
    restart_pause_s,
)
from actorrt.serve.control.saving import Saved, code_of
from actorrt.serve.control.statuses import DeploymentStatus, DeploymentStatusOverview, ProxyStatus
from actorrt.serve.declaration.options import DeploymentOptions
from actorrt.serve.declaration.spec import ApplicationSpec, DeploymentId, DeploymentSpec, make_spec
from actorrt.serve.http.http_options import HTTPOptions


def app(name: str, prefix: str | None = "/", *deployments: DeploymentSpec) -> ApplicationSpec:
    return ApplicationSpec(name, prefix, "front", deployments)


def deployment(app: str, status: DeploymentStatus, message: str = "") -> Deployment:
    found = Deployment(DeploymentId(app, "front"))
    found.want(make_spec(app, "front", DeploymentOptions("front"), b"code", b"config"))
    found.decided(DeploymentStatusOverview(status, message))
    return found


def nobody(_: str) -> list[Deployment]:
    return []


def test_a_prefix_belongs_to_one_application_until_that_is_deleted() -> None:
    apps = Applications()
    apps.want(app("a"), 1.0)
    assert apps.conflict(app("a")) == ""
    assert apps.conflict(app("b")) == "route_prefix '/' belongs to application 'a'"
    assert apps.conflict(app("b", "/b")) == apps.conflict(app("b", None)) == ""
    apps.delete("a")
    assert apps.conflict(app("b")) == ""


def test_an_application_that_two_delete_is_forgotten_by_the_one_that_stays_to_its_end() -> None:
    apps = Applications()
    apps.want(app("a"), 1.0)
    first = apps.delete("a")
    # This one is cancelled, or its program ends.
    apps.delete("a")
    assert first is not None
    assert apps.deleted(first)
    assert "a" not in apps


def test_only_the_application_that_was_deleted_is_forgotten_with_its_last_replica() -> None:
    apps = Applications()
    apps.want(app("a"), 1.0)
    record = apps.delete("a")
    assert record is not None
    # It was deployed again meanwhile.
    apps.want(app("a"), 2.0)
    assert not apps.deleted(record)
    assert (apps.names(), apps.ingress_of("a")) == (["a"], "front")
    record = apps.delete("a")
    assert record is not None
    assert apps.ingress_of("a") == ""
    assert apps.deleted(record)
    assert not apps.deleted(record)
    assert apps.delete("a") is None


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (DeploymentStatus.HEALTHY, Up("")),
        (DeploymentStatus.UPDATING, None),
        (DeploymentStatus.UNHEALTHY, None),
        (DeploymentStatus.DEPLOY_FAILED, Up("deployment 'front': it raised")),
    ],
)
def test_an_application_is_up_or_never_will_be_or_is_waited_for(status: DeploymentStatus, outcome: Up | None) -> None:
    apps = Applications()
    assert apps.outcome("a", []) == Up("it was deleted")
    apps.want(app("a"), 1.0)
    message = "it raised" if status is DeploymentStatus.DEPLOY_FAILED else ""
    assert apps.outcome("a", [deployment("a", status, message)]) == outcome
    apps.delete("a")
    assert apps.outcome("a", []) == Up("it was deleted")


def test_the_proxy_is_ready_from_the_first_application_on_that_was_up() -> None:
    apps = Applications()
    assert apps.routes(nobody) == ({}, NOTHING_YET)
    apps.want(app("handles", None), 1.0)
    assert apps.routes(nobody).awaited == NOTHING_YET
    apps.want(app("a"), 1.0)
    status = DeploymentStatus.UPDATING

    def deployments_of(name: str) -> list[Deployment]:
        return [deployment(name, status)]

    assert apps.routes(deployments_of) == ({"/": ("a", "front")}, "not up yet: application 'a'")
    status = DeploymentStatus.HEALTHY
    assert apps.routes(deployments_of).awaited == ""
    # Whatever comes after, under a later controller too.
    status = DeploymentStatus.UNHEALTHY
    assert apps.routes(deployments_of).awaited == ""
    later = Applications()
    later.restore(apps.wanted(), apps.has_served)
    assert later.routes(deployments_of) == ({"/": ("a", "front")}, "")


def test_what_is_being_deleted_is_not_kept() -> None:
    apps, fleet = Applications(), Fleet()
    spec = make_spec("a", "front", DeploymentOptions("front"), b"code", b"config")
    apps.want(app("a", "/", spec), 1.0)
    fleet.want("a", [spec])
    fleet.decide(0.0, lambda id: f"{id.name}-1")
    kept, specs, retiring, accepted = code_of(apps, fleet)
    assert kept == ((app("a", "/", spec), 1.0),)
    assert (specs, retiring, accepted) == ({(spec.id, spec.version): spec}, (), ())
    apps.delete("a")
    assert code_of(apps, fleet)[0] == ()


@given(values=st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2) | st.none())))
def test_what_a_successor_would_find_is_what_was_there_last(values: list[tuple[str, int | None]]) -> None:
    saved, kept, last = Saved(), dict[str, Any](), dict[str, Any]()
    for part, value in values:
        if value is None:
            saved.lost()
            kept.clear()
            last.clear()
            continue
        last[part] = value
        if saved.is_due(part, value):
            assert kept.get(part, "nothing") != value
            kept[part] = value
    assert kept == last


IMPOSSIBLE = {
    # There is none that could die, or that could have been drained.
    *((status, event) for status in (ProxyStatus.STARTING, ProxyStatus.UNHEALTHY)
      for event in (ProxyEvent.DIED, ProxyEvent.DRAINED)),
    # One at a time is started, where there is none.
    (ProxyStatus.HEALTHY, ProxyEvent.STARTED),
    (ProxyStatus.HEALTHY, ProxyEvent.DRAINED),
    (ProxyStatus.DRAINING, ProxyEvent.STARTED),
    (ProxyStatus.DRAINED, ProxyEvent.DIED),
    # Nothing is started again that never was.
    (ProxyStatus.STARTING, ProxyEvent.TRY),
    (ProxyStatus.STARTING, ProxyEvent.GIVE_UP),
}  # fmt: skip


@pytest.mark.parametrize(("status", "event"), list(itertools.product(ProxyStatus, ProxyEvent)))
def test_every_pair_of_the_proxys_life_has_a_row_or_is_refused_by_name(status: ProxyStatus, event: ProxyEvent) -> None:
    if (status, event) in IMPOSSIBLE:
        with pytest.raises(ProxyTransitionError, match=f"is {status.value} cannot have {event.value}"):
            advance(status, event)
        return
    after, actions = advance(status, event)
    assert (ProxyAction.WATCH in actions) == (after is ProxyStatus.HEALTHY and event is ProxyEvent.STARTED)
    assert (ProxyAction.RESTART in actions) == (after is ProxyStatus.UNHEALTHY and event is ProxyEvent.DIED)
    assert ProxyAction.START not in actions or after is ProxyStatus.UNHEALTHY
    if event is ProxyEvent.DRAIN:
        assert ProxyAction.STOP_LISTENING in actions
    # What there was does not stay where the next state knows of none.
    if status is ProxyStatus.DRAINING and after is not ProxyStatus.DRAINING:
        assert ProxyAction.KILL in actions


def test_where_serve_shuts_down_no_proxy_is_started_any_more() -> None:
    for (status, event), (after, actions) in TABLE.items():
        if event is ProxyEvent.DRAIN:
            assert after in (ProxyStatus.DRAINING, ProxyStatus.DRAINED)
        if status in (ProxyStatus.DRAINING, ProxyStatus.DRAINED):
            assert not {ProxyAction.RESTART, ProxyAction.START, ProxyAction.WATCH} & set(actions)
            assert event is ProxyEvent.SPARED or after in (ProxyStatus.DRAINING, ProxyStatus.DRAINED)


def test_who_wants_a_proxy_gets_the_one_that_listens_or_none_while_serve_ends() -> None:
    life, wanted = ProxyLife(), HTTPOptions(port=8001)
    assert life.answer(wanted, only_if_none=True) is None
    life.started(HTTPOptions(port=8000), "http://x:8000")
    assert life.answer(wanted, only_if_none=True) == ("http://x:8000", "")
    assert life.answer(HTTPOptions(port=8000), only_if_none=False) == ("http://x:8000", "")
    refused = life.answer(wanted, only_if_none=False)
    assert refused is not None
    assert "other HTTP options" in refused[1]
    life.happens(ProxyEvent.DRAIN)
    assert life.answer(wanted, only_if_none=True) == ("", "Serve is shut down")
    life.happens(ProxyEvent.DRAINED)
    assert life.answer(wanted, only_if_none=True) == ("", "Serve is shut down")
    life.happens(ProxyEvent.SPARED)
    assert life.answer(wanted, only_if_none=True) is None


@pytest.mark.parametrize("has_applications", [False, True])
def test_a_proxy_that_cannot_be_started_again_is_tried_by_its_pauses(has_applications: bool) -> None:
    life = ProxyLife()
    life.started(HTTPOptions(port=0), "http://x:8000")
    life.happens(ProxyEvent.DIED)
    for pause_s in PROXY_RESTARTS_S:
        assert (life.attempt(has_applications), life.pause_s) == ((ProxyAction.START,), pause_s)
    last = (ProxyAction.START,) if has_applications else (ProxyAction.STOP_LISTENING,)
    assert life.attempt(has_applications) == last
    assert life.options_again(has_socket=False) == HTTPOptions(port=8000)
    assert life.options_again(has_socket=True) == HTTPOptions(port=0)
    life.started(life.options, life.url)
    assert life.attempt(has_applications) == ()
    life.happens(ProxyEvent.DIED)
    assert (life.attempt(has_applications), life.pause_s) == ((ProxyAction.START,), PROXY_RESTARTS_S[0])


def test_a_proxy_is_tried_for_as_long_as_somebody_needs_it() -> None:
    assert [restart_pause_s(number, False) for number in range(9)] == [*PROXY_RESTARTS_S, None, None]
    assert [restart_pause_s(number, True) for number in range(9)] == [*PROXY_RESTARTS_S, 60.0, 60.0]
