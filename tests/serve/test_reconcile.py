"""The controller's decisions, performed by a small world in virtual time."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.serve.control.reconcile import (
    Decision,
    Drain,
    Explain,
    History,
    Kill,
    Observed,
    ReplicaView,
    Start,
    Target,
    Update,
    given_up,
    lacking_resources,
    missing_resources,
    reconcile,
    refuses,
)
from actorrt.serve.control.statuses import DeploymentStatus, DeploymentStatusOverview
from actorrt.serve.declaration.spec import DeploymentId
from actorrt.serve.replica.lifecycle import COMING, ROUTED, ReplicaEvent, ReplicaState, advance

D = DeploymentId("app", "d")


@dataclass
class World:
    """One deployment. What a step does is up to the test: `comes_up(version)` and `may_place()`."""

    target: Target | None = None
    now: float = 100.0
    replicas: dict[str, ReplicaView] = field(default_factory=dict[str, ReplicaView])
    history: History = field(default_factory=lambda: History(""))
    before: History = field(default_factory=lambda: History(""))
    comes_up: Callable[[str], bool] = lambda version: True
    accepts: Callable[[str], bool] = lambda config: True
    places: Callable[[], bool] = lambda: True
    # Each replica takes one of them.
    cpus: int = 1000
    started: list[float] = field(default_factory=list[float])
    routed: list[int] = field(default_factory=list[int])
    decision: Decision = field(default_factory=lambda: Decision((), {}, None))
    count: int = 0

    def deploy(self, target: Target | None) -> None:
        if target is not None and target.version != self.history.version:
            if target.before is not None and target.before.version == self.history.version:
                self.before = self.history
            self.history = History(target.version)
        self.history = replace(self.history, settled=False)
        self.target = target

    @property
    def status(self) -> DeploymentStatusOverview:
        return self.decision.statuses[D]

    def serving(self, version: str | None = None) -> int:
        return sum(r.state in ROUTED and version in (None, r.version) for r in self.replicas.values())

    def happens(self, id: str, event: ReplicaEvent) -> None:
        before = self.replicas[id]
        state, _ = advance(before.state, event)
        since = before.since if state is before.state else self.now
        self.replicas[id] = replace(before, state=state, since=since)
        current = before.version == self.history.version
        if event is ReplicaEvent.START_FAILED and before.state in COMING and current:
            self.history = self.history.after_start_failure(self.now, "it raised")
        elif event is ReplicaEvent.START_FAILED and before.state in COMING:
            self.before = self.before.after_start_failure(self.now, "it raised")
        if event is ReplicaEvent.DIED and before.state in ROUTED and current:
            self.history = self.history.after_death(self.now - before.since, self.now, "it died")
        if event is ReplicaEvent.READY and current:
            self.history = self.history.after_ready()
        if state is ReplicaState.STOPPED:
            del self.replicas[id]
            self.replicas = {id: replace(each, lacks={}, explained_at=self.now) for id, each in self.replicas.items()}
        self.routed.append(self.serving())

    def observed(self) -> Observed:
        return Observed(tuple(self.replicas.values()), self.history, self.before)

    def aim(self) -> Target:
        """As the record of a deployment has it."""
        assert self.target
        if self.target.before and (given_up(self.target, self.history) or refuses(self.target, self.history)):
            return self.target.before
        return self.target

    def decide(self) -> Decision:
        wanted = {D: self.target} if self.target else {}
        self.decision = reconcile(wanted, {D: self.observed()}, self.now)
        for action in self.decision.actions:
            match action:
                case Start():
                    aim = self.aim()
                    self.count += 1
                    self.started.append(self.now)
                    if aim.version == self.history.version:
                        self.history = self.history.after_start(self.now)
                    else:
                        self.before = self.before.after_start(self.now)
                    id = f"r{self.count}"
                    view = ReplicaView(id, aim.version, aim.config_version, ReplicaState.PLACING, self.now)
                    self.replicas[id] = replace(view, uses={"CPU": 1.0})
                case Update(_, id):
                    self.happens(id, ReplicaEvent.UPDATE)
                case Drain(_, id):
                    self.happens(id, ReplicaEvent.DRAIN)
                case Kill(_, id):
                    self.happens(id, ReplicaEvent.KILL)
                case Explain(_, id):
                    missing = "needs 4 GPU, but the cluster has 0"
                    lacks = {} if self.has_cpu() else {"CPU": 1.0}
                    self.replicas[id] = replace(self.replicas[id], missing=missing, lacks=lacks, explained_at=self.now)
        if self.target and self.status.status is DeploymentStatus.HEALTHY:
            self.history = replace(self.history, settled=True)
        return self.decision

    def has_cpu(self) -> bool:
        return sum(each.state is not ReplicaState.PLACING for each in self.replicas.values()) < self.cpus

    def advance_one(self, id: str) -> bool:
        """What would happen next to this replica, if anything."""
        replica = self.replicas[id]
        match replica.state:
            case ReplicaState.PLACING if self.places() and self.has_cpu():
                self.happens(id, ReplicaEvent.PLACED)
            case ReplicaState.STARTING:
                up = self.comes_up(replica.version)
                self.happens(id, ReplicaEvent.READY if up else ReplicaEvent.START_FAILED)
            case ReplicaState.UPDATING:
                sent = self.aim().config_version
                if self.accepts(sent):
                    self.replicas[id] = replace(replica, config_version=sent, refused="")
                    self.happens(id, ReplicaEvent.UPDATED)
                else:
                    assert self.target
                    self.replicas[id] = replace(replica, refused=sent)
                    if sent == self.target.config_version:
                        self.history = self.history.after_refused_config(sent, "it said no")
                    self.happens(id, ReplicaEvent.UPDATE_FAILED)
            case ReplicaState.DRAINING:
                self.happens(id, ReplicaEvent.DRAINED)
            case ReplicaState.STOPPING:
                self.happens(id, ReplicaEvent.DIED)
            case _:
                return False
        return True

    def settle(self) -> None:
        """Decide and let happen until nothing does, jumping in time where the decision says so."""
        for _ in range(1000):
            decision = self.decide()
            moved = [self.advance_one(id) for id in list(self.replicas)]
            if decision.actions or any(moved):
                continue
            if decision.wake_at is None:
                return
            self.now = max(self.now, decision.wake_at)
        raise AssertionError(f"it never settles: {self.replicas} {self.decision}")


def up(target: Target) -> World:
    world = World()
    world.deploy(target)
    world.settle()
    assert world.status.status is DeploymentStatus.HEALTHY
    world.routed.clear()
    return world


def test_as_many_replicas_as_wanted_are_started_at_once() -> None:
    world = World()
    world.deploy(Target(3, "v1", "c1"))
    assert [type(each) for each in world.decide().actions] == [Start] * 3
    assert world.status == DeploymentStatusOverview(DeploymentStatus.UPDATING, "0 of 3 replicas are ready", {})
    world.settle()
    assert world.status == DeploymentStatusOverview(DeploymentStatus.HEALTHY, "", {"RUNNING": 3})
    assert world.decide() == Decision((), {D: world.status}, None)


def test_a_dead_replica_is_replaced_at_once() -> None:
    world = up(Target(2, "v1", "c1"))
    world.now += 60
    world.happens("r1", ReplicaEvent.DIED)
    assert world.decide().actions == (Start(D),)
    assert world.status.status is DeploymentStatus.UNHEALTHY
    assert world.status.message == "1 of 2 replicas are ready"
    world.settle()
    assert world.status.status is DeploymentStatus.HEALTHY


def test_a_replica_that_falls_over_again_and_again_is_restarted_ever_more_slowly() -> None:
    world = up(Target(1, "v1", "c1"))
    world.started.clear()
    for _ in range(12):
        running = [each.id for each in world.replicas.values() if each.state is ReplicaState.RUNNING]
        world.happens(running[0], ReplicaEvent.DIED)
        world.settle()
    gaps = [after - before for before, after in zip(world.started, world.started[1:], strict=False)]
    assert gaps == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10, 10, 10])


def test_replicas_that_served_are_replaced_at_once_however_often_they_are_killed() -> None:
    world = up(Target(2, "v1", "c1"))
    for _ in range(20):
        world.now += 2
        for id in [each.id for each in world.replicas.values() if each.state is ReplicaState.RUNNING]:
            world.happens(id, ReplicaEvent.DIED)
        killed_at = world.now
        world.settle()
        assert (world.now, world.serving()) == (killed_at, 2)


def test_the_pause_of_a_replica_that_fails_as_it_starts_holds_no_other_back() -> None:
    world = up(Target(3, "v1", "c1"))
    world.now += 60
    world.happens("r1", ReplicaEvent.DIED)
    world.comes_up = lambda version: False
    while world.history.failures < 8:
        world.decide()
        for id in [each.id for each in world.replicas.values() if each.state not in ROUTED]:
            world.advance_one(id)
        world.now = world.decide().wake_at or world.now
    world.now -= 5  # its next start is due in 5 s
    world.comes_up = lambda version: True
    killed_at = world.now
    world.happens("r2", ReplicaEvent.DIED)
    assert world.decide().actions == (Start(D),)
    while world.serving() < 2:
        for id in list(world.replicas):
            world.advance_one(id)
    assert world.now == killed_at
    world.settle()
    assert (world.serving(), world.now) == (3, killed_at + 5)


def test_an_update_never_has_fewer_replicas_than_wanted_and_never_many_more() -> None:
    world = up(Target(5, "v1", "c1"))
    world.deploy(Target(5, "v2", "c1"))
    for _ in range(200):
        world.decide()
        assert sum(r.state in ROUTED | COMING for r in world.replicas.values()) <= 6
        for id in list(world.replicas):
            if world.advance_one(id):
                break
    assert min(world.routed) >= 5
    assert (world.serving("v1"), world.serving("v2")) == (0, 5)
    assert world.status.status is DeploymentStatus.HEALTHY


def test_a_single_replica_is_updated_with_its_successor_beside_it() -> None:
    world = up(Target(1, "v1", "c1"))
    world.deploy(Target(1, "v2", "c1"))
    world.settle()
    assert min(world.routed) == 1
    assert world.serving("v2") == 1


def test_an_update_that_never_comes_up_is_given_up_and_the_old_version_goes_on() -> None:
    world = up(Target(2, "v1", "c1"))
    world.comes_up = lambda version: version == "v1"
    world.deploy(Target(2, "v2", "c1"))
    world.settle()
    assert set(world.routed) == {2}
    assert world.serving("v1") == 2
    assert world.status.status is DeploymentStatus.DEPLOY_FAILED
    assert world.status.message == "it raised (tried 6 times; the version before it still serves)"
    world.comes_up = lambda version: True
    world.deploy(Target(2, "v3", "c1"))
    world.settle()
    assert (world.status.status, world.serving("v3")) == (DeploymentStatus.HEALTHY, 2)


@pytest.mark.parametrize(("count", "limit", "attempts"), [(1, 20, 3), (4, 20, 12), (10, 20, 20), (1, 2, 2)])
def test_a_constructor_that_raises_is_tried_a_few_times_and_then_reported(
    count: int, limit: int, attempts: int
) -> None:
    world = World(comes_up=lambda version: False)
    world.deploy(Target(count, "v1", "c1", limit))
    world.settle()
    assert world.history.failures >= attempts
    assert world.status.status is DeploymentStatus.DEPLOY_FAILED
    assert world.status.message.startswith("it raised (tried ")
    assert not world.replicas


def test_a_version_that_was_up_once_is_never_given_up() -> None:
    world = up(Target(1, "v1", "c1"))
    world.comes_up = lambda version: False
    world.now += 60
    world.happens("r1", ReplicaEvent.DIED)
    for _ in range(50):
        world.decide()
        for id in list(world.replicas):
            world.advance_one(id)
        world.now = world.decision.wake_at or world.now
    assert world.history.failures > 10
    assert not given_up(Target(1, "v1", "c1"), world.history)
    assert world.status.status is DeploymentStatus.UNHEALTHY
    world.comes_up = lambda version: True
    world.settle()
    assert world.status.status is DeploymentStatus.HEALTHY


def test_a_new_configuration_is_told_and_restarts_nothing() -> None:
    world = up(Target(2, "v1", "c1"))
    world.deploy(Target(2, "v1", "c2"))
    assert world.decide().actions == (Update(D, "r1"),)
    world.settle()
    assert sorted(world.replicas) == ["r1", "r2"]
    assert {each.config_version for each in world.replicas.values()} == {"c2"}
    assert set(world.routed) == {2}


@pytest.mark.parametrize(("count", "at_once"), [(2, 1), (5, 1), (19, 1), (20, 2), (50, 5)])
def test_a_new_configuration_is_taken_by_one_replica_after_the_other(count: int, at_once: int) -> None:
    world = up(Target(count, "v1", "c1"))
    world.deploy(Target(count, "v1", "c2"))
    most = 0
    while any(each.config_version == "c1" for each in world.replicas.values()):
        world.decide()
        updating = [each.id for each in world.replicas.values() if each.state is ReplicaState.UPDATING]
        most = max(most, len(updating))
        world.advance_one(updating[-1])
    assert most == at_once
    world.settle()
    assert {each.config_version for each in world.replicas.values()} == {"c2"}
    assert world.status.status is DeploymentStatus.HEALTHY


def test_a_configuration_that_the_first_replica_refuses_reaches_no_other() -> None:
    before = Target(3, "v1", "c1")
    world = up(before)
    world.accepts = lambda config: config != "c2"
    told: list[str] = []
    world.deploy(Target(3, "v1", "c2", before=before))
    for _ in range(5):
        told += [action.replica for action in world.decide().actions if isinstance(action, Update)]
        world.settle()
    assert told == ["r1"]
    assert world.status.status is DeploymentStatus.DEPLOY_FAILED


def test_a_configuration_that_is_refused_leaves_the_one_before_it() -> None:
    world = up(Target(2, "v1", "c1"))
    world.accepts = lambda config: config != "c2"
    world.deploy(Target(2, "v1", "c2"))
    world.settle()
    assert world.serving() == 2
    assert world.status.status is DeploymentStatus.DEPLOY_FAILED
    assert world.status.message.endswith("the one before it still serves: it said no")
    world.deploy(Target(2, "v1", "c3"))
    world.settle()
    assert world.status.status is DeploymentStatus.HEALTHY


@pytest.mark.parametrize("takes_back", [True, False])
def test_a_configuration_that_some_refuse_is_taken_back_from_the_others(takes_back: bool) -> None:
    before = Target(2, "v1", "c1")
    world = up(before)
    world.deploy(Target(2, "v1", "c2", before=before))
    world.decide()
    world.advance_one("r1")
    world.decide()
    world.accepts = lambda config: False
    world.advance_one("r2")
    world.accepts = lambda config: takes_back
    assert world.decide().actions == (Update(D, "r1"),)
    world.settle()
    assert {each.config_version for each in world.replicas.values()} == {"c1"}
    # One that does not take it back is replaced.
    assert sorted(world.replicas) == (["r1", "r2"] if takes_back else ["r2", "r3"])
    assert world.status.status is DeploymentStatus.DEPLOY_FAILED
    world.deploy(Target(2, "v1", "c3", before=before))
    world.accepts = lambda config: True
    world.settle()
    assert world.status.status is DeploymentStatus.HEALTHY


def test_what_is_given_up_leaves_the_version_before_it_with_its_number_and_its_backoff() -> None:
    before = Target(2, "v1", "c1")
    world = up(before)
    world.comes_up = lambda version: version == "v1"
    world.deploy(Target(1, "v2", "c1", before=before))
    world.settle()
    assert world.serving("v1") == 2
    world.happens(next(iter(world.replicas)), ReplicaEvent.DIED)
    world.comes_up = lambda version: False
    world.started.clear()
    for _ in range(20):
        world.decide()
        for id in list(world.replicas):
            world.advance_one(id)
        world.now = max(world.now, world.decision.wake_at or 0)
    gaps = [after - before for before, after in zip(world.started, world.started[1:], strict=False)]
    assert gaps[:5] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6])
    world.comes_up = lambda version: version == "v1"
    world.settle()
    assert (world.serving("v1"), len(world.replicas)) == (2, 2)
    assert world.status.status is DeploymentStatus.DEPLOY_FAILED


def test_of_too_many_replicas_those_go_first_that_do_not_serve_yet_and_then_the_youngest() -> None:
    world = up(Target(2, "v1", "c1"))
    world.now += 1
    world.deploy(Target(4, "v1", "c1"))
    world.places = lambda: False
    world.decide()
    world.deploy(Target(1, "v1", "c1"))
    assert world.decide().actions == (Kill(D, "r4"), Kill(D, "r3"), Drain(D, "r1"))


def test_what_is_no_longer_wanted_drains() -> None:
    world = up(Target(2, "v1", "c1"))
    world.deploy(None)
    assert world.decide().actions == (Drain(D, "r1"), Drain(D, "r2"))
    assert world.decision.statuses == {}
    world.settle()
    assert not world.replicas


def test_what_cannot_be_placed_is_named_after_a_second() -> None:
    world = World(places=lambda: False)
    world.deploy(Target(1, "v1", "c1"))
    world.decide()
    assert world.decide().wake_at == 101
    world.now = 101
    assert world.decide().actions == (Explain(D, "r1"),)
    world.decide()
    assert world.status.message == "0 of 1 replicas are ready: needs 4 GPU, but the cluster has 0"
    assert world.status.status is DeploymentStatus.UPDATING


@pytest.mark.parametrize(("number", "fewest"), [(1, 0), (2, 1), (5, 4)])
def test_where_the_machine_is_full_one_old_replica_after_the_other_makes_way(number: int, fewest: int) -> None:
    world = up(Target(number, "v1", "c1"))
    world.cpus = number
    world.deploy(Target(number, "v2", "c1"))
    world.settle()
    assert world.serving("v2") == number
    assert min(world.routed) == fewest


@pytest.mark.parametrize(("number", "uses"), [(2, {"CPU": 0.5}), (1, {"GPU": 1.0}), (1, {})])
def test_no_replica_makes_way_for_one_that_would_not_fit_all_the_same(number: int, uses: dict[str, float]) -> None:
    world = up(Target(number, "v1", "c1"))
    world.replicas = {id: replace(each, uses=uses) for id, each in world.replicas.items()}
    world.cpus = number
    world.deploy(Target(number, "v2", "c1"))
    for _ in range(10):
        assert all(isinstance(each, Start | Explain) for each in world.decide().actions)
        world.now += 1


@pytest.mark.parametrize(
    ("asked", "lacks"),
    [({"CPU": 1}, {}), ({"CPU": 3}, {"CPU": 2}), ({"CPU": 3, "GPU": 1}, {}), ({"CPU": 8}, {}), ({}, {})],
)
def test_what_is_lacking_is_what_others_have(asked: dict[str, float], lacks: dict[str, float]) -> None:
    assert lacking_resources(asked, {"CPU": 1}, {"CPU": 4}) == lacks


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"CPU": 1}, ""),
        ({"CPU": 3}, "needs 3 CPU, but only 1 of 4 are free"),
        ({"CPU": 8}, "needs 8 CPU, but the cluster has 4"),
        ({"CPU": 3, "GPU": 0.5}, "needs 0.5 GPU, but the cluster has 0"),
        ({}, ""),
    ],
)
def test_the_missing_resource_is_named(asked: dict[str, float], said: str) -> None:
    assert missing_resources(asked, {"CPU": 1}, {"CPU": 4}) == said


@given(data=st.data())
def test_whatever_happens_the_wanted_state_is_reached_in_the_end(data: st.DataObject) -> None:
    world = World()
    versions = st.builds(Target, st.integers(1, 6), st.sampled_from(["v1", "v2", "v3"]), st.sampled_from(["c1", "c2"]))
    for _ in range(data.draw(st.integers(1, 25))):
        what = data.draw(st.sampled_from(["deploy", "delete", "die", "step", "step", "fail", "heal", "wait"]))
        world.decide()
        match what:
            case "deploy":
                world.deploy(data.draw(versions))
            case "delete":
                world.deploy(None)
            case "die" if world.replicas:
                world.happens(data.draw(st.sampled_from(sorted(world.replicas))), ReplicaEvent.DIED)
            case "step" if world.replicas:
                world.advance_one(data.draw(st.sampled_from(sorted(world.replicas))))
            case "fail":
                world.comes_up = lambda version: version == "v1"
            case "heal":
                world.comes_up = lambda version: True
            case _:
                world.now += 0.5
    world.comes_up = lambda version: True
    world.settle()
    target = world.target
    if target is None:
        assert not world.replicas
    elif not given_up(target, world.history):
        assert world.serving(target.version) == world.serving() == len(world.replicas) == target.num_replicas
        assert world.status.status is DeploymentStatus.HEALTHY


def serving(config: str, refused: str = "", version: str = "v2") -> ReplicaView:
    return ReplicaView("r", version, config, ReplicaState.RUNNING, 0.0, refused=refused)


def test_a_refused_configuration_is_not_replaced_by_that_of_another_version() -> None:
    # None of this version ever took it: they keep what they were started with, and are not told again and again.
    target = Target(1, "v2", "bad", before=Target(1, "v1", "c1"))
    history = History("v2", proven=True).after_refused_config("bad", "no")
    decision = reconcile({D: target}, {D: Observed([serving("c2", "bad")], history)}, 0.0)
    assert decision.actions == ()


def test_one_that_does_not_take_what_others_of_its_version_have_is_replaced_after_a_failed_update() -> None:
    target = Target(1, "v3", "c3", max_constructor_retry_count=1, before=Target(1, "v2", "c1"))
    history = History("v3").after_start_failure(0.0, "no")
    seen = Observed([serving("c2", refused="c1")], history, History("v2", proven=True))
    assert reconcile({D: target}, {D: seen}, 0.0).actions == (Drain(D, "r"),)
    seen = Observed([serving("c2")], history, History("v2", proven=True))
    assert reconcile({D: target}, {D: seen}, 0.0).actions == (Update(D, "r"),)
