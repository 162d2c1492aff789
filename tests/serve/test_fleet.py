"""Deployments from their first wish to their last replica: rows of their life, and a controller in a made-up world.

In the model calls on replicas are answered late, in any order, or not at all where their replica or their controller
has died; updates and deletions come at any moment.
"""

import itertools
from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from actorrt.serve.control.deployment import TABLE, UNWANTED, Deployment, Occasion, Standing, StandingError
from actorrt.serve.control.fleet import Begin, FindOut, Fleet, Perform
from actorrt.serve.control.replica_record import ADOPTED, ReplicaRecord, UserCode
from actorrt.serve.control.statuses import DeploymentStatus
from actorrt.serve.declaration.options import DeploymentOptions
from actorrt.serve.declaration.spec import DeploymentId, DeploymentSpec, make_spec
from actorrt.serve.replica.lifecycle import ROUTED, ReplicaAction, ReplicaEvent, ReplicaState


def spec_of(app: str, name: str, code: str = "v1", config: str = "c1", number: int = 1) -> DeploymentSpec:
    options = DeploymentOptions(name, num_replicas=number, max_constructor_retry_count=2)
    return make_spec(app, name, options, code.encode(), config.encode())


# Rows.


@pytest.mark.parametrize(("standing", "occasion"), list(itertools.product(Standing, Occasion)))
def test_every_pair_has_a_row_or_is_refused_by_name(standing: Standing, occasion: Occasion) -> None:
    deployment = Deployment(DeploymentId("a", "d"))
    ways = {
        Standing.NEW: [],
        Standing.WANTED: [Occasion.WANTED],
        Standing.RETIRING: [Occasion.WANTED, Occasion.DROPPED_SERVING],
        Standing.RETIRED: [Occasion.WANTED, Occasion.DROPPED_SERVING, Occasion.UPDATE_OVER],
        Standing.LEAVING: [Occasion.WANTED, Occasion.DELETED],
    }
    for each in ways[standing]:
        deployment._stand(each)
    assert deployment.standing is standing
    if occasion is Occasion.UPDATE_OVER and standing is not Standing.RETIRING:
        # It ends for those alone that it has dropped.
        with pytest.raises(StandingError, match=f"a#d that is {standing.value} cannot have UPDATE_OVER"):
            deployment._stand(occasion)
        return
    deployment._stand(occasion)
    assert deployment.standing is TABLE[standing, occasion]


def test_only_a_wish_leads_out_of_what_is_unwanted_and_only_retiring_hides_it() -> None:
    for (standing, occasion), after in TABLE.items():
        assert (after is Standing.WANTED) == (occasion is Occasion.WANTED)
        if standing in UNWANTED and occasion is not Occasion.WANTED:
            assert after in UNWANTED
        if after is Standing.RETIRED:
            assert standing in (Standing.RETIRING, Standing.RETIRED)


@pytest.mark.parametrize("said", ReplicaState)
def test_an_adopted_replica_serves_or_ends(said: ReplicaState) -> None:
    spec = spec_of("a", "d")
    replica, action = ReplicaRecord.adopted("d-1", spec, said, 5.0, "c")
    assert (replica.state, replica.code, action) == ADOPTED[said]
    done = {ReplicaAction.ROUTE: ReplicaState.RUNNING, ReplicaAction.DRAIN: ReplicaState.DRAINING}
    assert replica.state is done.get(action, ReplicaState.STOPPING)
    assert not replica.is_coming
    # One whose constructor had not ended has no code that could clean up.
    assert (replica.time_to_clean_up(5.0) is None) == (said in (ReplicaState.PLACING, ReplicaState.STARTING))


@pytest.mark.parametrize(("said", "proven"), [(ReplicaState.DRAINING, True), (ReplicaState.STOPPING, False)])
def test_what_another_controller_was_ending_proves_nothing_of_its_version(said: ReplicaState, proven: bool) -> None:
    spec = spec_of("a", "d")
    deployment = Deployment(spec.id)
    deployment.adopt(ReplicaRecord.adopted("d-1", spec, said, 5.0, "c")[0])
    deployment.want(spec)
    assert deployment.history.proven is proven


def test_a_replica_is_given_up_after_three_checks_in_a_row() -> None:
    replica = ReplicaRecord("d-1", spec_of("a", "d"), ReplicaState.RUNNING, 0.0, "c")
    said = [replica.checked(trouble) for trouble in ("no", "no", "", "no", "no", "no")]
    assert said == [""] * 5 + ["health check failed: no"]


def test_what_a_replica_lacks_is_asked_anew_where_others_gave_back() -> None:
    replica = ReplicaRecord("d-1", spec_of("a", "d"), ReplicaState.PLACING, 0.0, "c")
    replica.asked_why(1.0)
    replica.others_gave_back(2.0)
    assert not replica.explained(1.0, "needs 1 CPU", {"CPU": 1.0})
    assert replica.explained(2.0, "needs 1 CPU", {"CPU": 1.0})
    assert (replica.missing, replica.lacks) == ("needs 1 CPU", {"CPU": 1.0})


# The model.


@dataclass
class Process:
    """A replica's process, or what would be one, as the machine has it."""

    deployment: DeploymentId
    version: str
    has_place: bool = False
    state: ReplicaState = ReplicaState.PLACING


@dataclass
class Call:
    """One that the controller waits for: `what` of a replica; `spec`: of which configuration."""

    what: str
    replica: str
    deployment: Deployment
    spec: DeploymentSpec | None = None


@dataclass
class World:
    """A controller, the processes that it has started, and the calls between them."""

    dice: Random
    fleet: Fleet = field(default_factory=Fleet)
    now: float = 100.0
    cpus: int = 4
    processes: dict[str, Process] = field(default_factory=dict[str, Process])
    # Of all that ever were: how often each was begun and killed.
    begun: Counter[str] = field(default_factory=Counter[str])
    killed: Counter[str] = field(default_factory=Counter[str])
    calls: list[Call] = field(default_factory=list[Call])
    wanted: dict[str, dict[str, DeploymentSpec]] = field(default_factory=dict[str, dict[str, DeploymentSpec]])
    count: int = 0
    all_is_well: bool = False
    # Whether what is good may fail all the same.
    fails: bool = True
    # A replica that was started with a bad configuration counts against the one after it, too.
    badly_deployed: set[str] = field(default_factory=set[str])

    # What users do.

    def deploy(self) -> None:
        app = self.dice.choice("ab")
        specs = [
            spec_of(
                app,
                name,
                self.dice.choice(("v1", "v2", "bad")),
                self.dice.choice(("c1", "c2", "bad")),
                self.dice.randint(1, 3),
            )
            for name in ("x", "y", "z")
            if self.dice.random() < 0.6
        ]
        if specs:
            self.wanted[app] = {each.id.name: each for each in specs}
            if any(b"bad" in (each.code, each.config) for each in specs):
                self.badly_deployed.add(app)
            self.fleet.want(app, specs)

    def delete(self) -> None:
        app = self.dice.choice("ab")
        self.wanted.pop(app, None)
        self.fleet.want(app, ())

    # What the controller does.

    def new_id(self, deployment: DeploymentId) -> str:
        self.count += 1
        return f"{deployment.name}-{self.count}"

    def decide(self) -> bool:
        """Whether it is to decide again at once."""
        served = {
            each.id: sum(replica.is_routed for replica in each.replicas.values()) for each in self.fleet if each.retires
        }
        decided = self.fleet.decide(self.now, self.new_id)
        for effect in decided.effects:
            deployment = self.fleet.have(effect.deployment)
            match effect:
                case Begin(_, id):
                    self.begin(deployment, id)
                case Perform(_, id, action):
                    self.perform(deployment, id, action)
                case FindOut(_, id):
                    self.calls.append(Call("explain", id, deployment))
        for id in decided.gone:
            assert self.fleet.get(id) is None
        # What retires goes on serving for as long as it retires.
        for id, number in served.items():
            deployment = self.fleet.get(id)
            if deployment is not None and deployment.retires and number:
                assert any(each.is_routed for each in deployment.replicas.values())
        return decided.again

    def begin(self, deployment: Deployment, id: str) -> None:
        self.begun[id] += 1
        if self.may_fail() and self.dice.random() < 0.1:
            deployment.not_started(id, self.now, "no such resource")
            return
        self.processes[id] = Process(deployment.id, deployment.replicas[id].spec.version)
        self.calls += [Call("watch", id, deployment), Call("place", id, deployment)]

    def perform(self, deployment: Deployment, id: str, action: ReplicaAction) -> None:
        match action:
            case ReplicaAction.CONSTRUCT:
                self.calls.append(Call("construct", id, deployment))
            case ReplicaAction.RECONFIGURE:
                self.calls.append(Call("reconfigure", id, deployment, deployment.aim()))
            case ReplicaAction.DRAIN:
                self.calls.append(Call("drain", id, deployment))
            case ReplicaAction.KILL:
                self.killed[id] += 1
                self.calls.append(Call("stop", id, deployment))
            case _:
                pass

    def happens(self, call: Call, event: ReplicaEvent, reason: str = "") -> None:
        for action in call.deployment.happens(call.replica, event, self.now, reason):
            self.perform(call.deployment, call.replica, action)

    def may_fail(self) -> bool:
        return self.fails and not self.all_is_well

    # What comes of calls.

    def answer(self) -> bool:
        """One call is answered, any of them. False if none can be."""
        return any(map(self.try_to_answer, self.dice.sample(self.calls, len(self.calls))))

    def try_to_answer(self, call: Call) -> bool:
        process = self.processes.get(call.replica)
        good = not self.may_fail() or self.dice.random() < 0.8
        match call.what:
            case "watch" if process is None:
                self.calls.remove(call)
                self.happens(call, ReplicaEvent.DIED, "it was killed")
            case "place" if process is None or self.has_room():
                self.calls.remove(call)
                if process is None:
                    self.happens(call, ReplicaEvent.START_FAILED, "it died")
                else:
                    process.has_place = True
                    self.happens(call, ReplicaEvent.PLACED)
            case "construct":
                self.calls.remove(call)
                replica = call.deployment.replicas.get(call.replica)
                is_bad = replica is None or b"bad" in (replica.spec.code, replica.spec.config)
                trouble = "it raised" if process is None or is_bad or not good else ""
                event = ReplicaEvent.START_FAILED if replica is None else replica.constructed(trouble)
                if process is not None and not trouble:
                    process.state = ReplicaState.RUNNING
                self.happens(call, event, trouble)
            case "reconfigure":
                self.calls.remove(call)
                if call.spec is None:
                    self.happens(call, ReplicaEvent.UPDATED)
                    return True
                taken = process is not None and call.spec.config != b"bad" and good
                trouble = "" if taken else "it was refused"
                self.happens(call, call.deployment.answered(call.replica, call.spec, trouble), trouble)
            case "drain":
                self.calls.remove(call)
                self.happens(call, ReplicaEvent.DRAINED)
            case "stop":
                self.calls.remove(call)
                self.processes.pop(call.replica, None)
            case "explain":
                self.calls.remove(call)
                replica = call.deployment.replicas.get(call.replica)
                if replica is not None:
                    replica.explained(replica.explained_at, "needs 1 CPU", {} if self.has_room() else {"CPU": 1.0})
            case _:
                return False
        return True

    def has_room(self) -> bool:
        return self.all_is_well or sum(each.has_place for each in self.processes.values()) < self.cpus

    def die(self) -> None:
        if self.fails and self.processes:
            del self.processes[self.dice.choice(list(self.processes))]

    def fall_ill(self) -> None:
        serving = [(each, id) for each in self.fleet for id, replica in each.replicas.items() if replica.is_routed]
        if serving:
            deployment, id = self.dice.choice(serving)
            self.happens(Call("check", id, deployment), ReplicaEvent.UNHEALTHY, "health check failed")

    def next_controller(self) -> None:
        """The controller is restarted: what it waited for is lost, and what it has kept is taken up."""
        before, self.fleet, self.calls = self.fleet, Fleet(), []
        for app, specs in self.wanted.items():
            self.fleet.want(app, list(specs.values()))
        for each in before:
            if each.retires:
                assert each.spec is not None
                self.fleet.have(each.id).restore_retiring(each.spec)
        for each in before:
            if each.accepted is not None:
                self.fleet.have(each.id).restore_accepted(each.accepted)
        for each in before:
            self.fleet.have(each.id).restore(*each.progress())
        for each in before:
            for id, replica in each.replicas.items():
                if id in self.processes:
                    self.adopt(id, replica)

    def adopt(self, id: str, was: ReplicaRecord) -> None:
        deployment = self.fleet.have(was.spec.id)
        replica, _ = ReplicaRecord.adopted(id, was.spec, was.state, self.now, was.config_version)
        deployment.adopt(replica)
        self.calls.append(Call("watch", id, deployment))
        if replica.state is ReplicaState.DRAINING:
            self.calls.append(Call("drain", id, deployment))
        elif replica.state is ReplicaState.STOPPING:
            self.killed[id] = 1
            self.calls.append(Call("stop", id, deployment))

    # In the end.

    def settle(self) -> None:
        """From now on nothing fails but what must, and all calls are answered."""
        self.all_is_well = True
        for _ in range(200):
            self.mend()
            again = self.decide()
            self.now += 1.0
            answered = sum(self.try_to_answer(call) and call.what != "explain" for call in list(self.calls))
            if not answered and not again and all(map(self.is_settled, self.fleet)):
                return
        raise AssertionError(f"it never comes to rest: {[(str(each.id), each.status) for each in self.fleet]}")

    def mend(self) -> None:
        """A version that served once is started for ever, with a configuration too that none can be started with."""
        for each in list(self.fleet):
            if each.retires and each.spec is not None and each.spec.config == b"bad":
                self.wanted.pop(each.id.app, None)
                self.fleet.want(each.id.app, ())
        for app, specs in self.wanted.items():
            found = {name: self.fleet.have(spec.id) for name, spec in specs.items()}
            for name, spec in specs.items():
                if spec.config == b"bad" and found[name].history.failures >= 5:
                    specs[name] = replace(spec, config=b"c3", config_version="c3")
            if any(each.spec is not specs[name] for name, each in found.items()):
                self.fleet.want(app, list(specs.values()))

    def is_settled(self, deployment: Deployment) -> bool:
        return deployment.status.status in (DeploymentStatus.HEALTHY, DeploymentStatus.DEPLOY_FAILED)


class Controllers(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**32), fails=st.booleans())
    def begin(self, seed: int, fails: bool) -> None:
        self.world = World(Random(seed), fails=fails)

    @rule(seed=st.integers(0, 2**32), restarts=st.booleans())
    def go_on(self, seed: int, restarts: bool) -> None:
        """Some moves, so many that a number stands for all of them."""
        world, dice = self.world, Random(seed)
        world.dice = dice
        for _ in range(20):
            match dice.randrange(16):
                case 0:
                    world.deploy()
                case 1 if dice.random() < 0.3:
                    world.delete()
                case 2 if dice.random() < 0.5:
                    world.die()
                case 3 if dice.random() < 0.3:
                    world.fall_ill()
                case 4 | 5 | 6:
                    world.now += dice.choice((0.01, 0.3, 2.0))
                case 7 if restarts and dice.random() < 0.3:
                    world.next_controller()
                case _:
                    world.answer()
            world.decide()
            self.check()

    def check(self) -> None:
        world = self.world
        assert max(world.begun.values(), default=0) <= 1
        assert max(world.killed.values(), default=0) <= 1
        for deployment in world.fleet:
            assert (deployment.spec is None) == (deployment.standing in UNWANTED)
            assert not deployment.has_gone
            wanted = world.wanted.get(deployment.id.app, {}).get(deployment.id.name)
            assert (deployment.standing is Standing.WANTED) == (wanted is not None)
            for id, replica in deployment.replicas.items():
                assert id == replica.id
                assert replica.code is UserCode.SERVED or replica.state not in ROUTED

    @invariant()
    def nothing_is_lost(self) -> None:
        """A process of which nobody knows would stay for ever."""
        world = self.world if hasattr(self, "world") else World(Random(0))
        known = {id for deployment in world.fleet for id in deployment.replicas}
        assert set(world.processes) <= known

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        failed = set("ab") if world.fails else world.badly_deployed
        world.settle()
        for deployment in world.fleet:
            spec = deployment.spec
            assert spec is not None
            # An update that failed is never over.
            assert deployment.standing is Standing.WANTED or deployment.id.app in failed
            if deployment.standing is not Standing.WANTED:
                continue
            serving = [each for each in deployment.replicas.values() if each.state is ReplicaState.RUNNING]
            if deployment.status.status is DeploymentStatus.HEALTHY:
                assert {each.spec.version for each in serving} == {spec.version}
                assert {each.config_version for each in serving} == {spec.config_version}
                assert len(serving) == spec.options.num_replicas
            else:
                assert deployment.id.app in failed
                # What was taken before goes on, with its own number of replicas.
                if deployment.accepted is not None and deployment.aim() is deployment.accepted:
                    assert serving
        assert {each.id for each in world.fleet} >= {
            spec.id for specs in world.wanted.values() for spec in specs.values()
        }
        assert set(world.processes) == {id for each in world.fleet for id in each.replicas}


TestControllers = Controllers.TestCase
TestControllers.settings = settings(max_examples=120, stateful_step_count=12, deadline=None)
