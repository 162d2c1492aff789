"""Why a call or an actor has not begun, in sentences."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actorrt.core.state_records import ActorState, ObjectState, TaskState
from actorrt.core.why import (
    Amounts,
    Backlog,
    Held,
    NodeQueue,
    Request,
    amounts,
    of_actor,
    of_call,
    of_object,
    of_placing,
    queues_in,
)

NODE, OWNER, WORKER, OTHER = (f"{number}{'0' * 15}" for number in (1, 2, 3, 4))
BLOCKED = ", which waits in get, so that they are free meanwhile"
ONE: Amounts = {"CPU": 1.0}
TASK = TaskState(
    task_id=f"{OWNER}{7:016x}",
    state="PENDING_NODE_ASSIGNMENT",
    name="slow",
    owner_id=OWNER,
    required_resources={"CPU": 1.0},
)


def node(*requests: Request, free: float = 0.0, holdings: tuple[Held, ...] = ()) -> NodeQueue:
    return NodeQueue(NODE, {"CPU": 2.0}, {"CPU": free}, requests, holdings)


def call(found: TaskState, backlog: Backlog = Backlog(), *nodes: NodeQueue) -> list[str]:  # noqa: B008  # it is frozen
    return of_call(found, backlog, nodes, {}, [], [])


def test_a_task_that_waits_for_a_worker_is_told_who_has_what_it_wants_and_who_is_ahead() -> None:
    queue = node(
        Request(OTHER, {"CPU": 2.0}, "Big", False),
        Request(OTHER, {"GPU": 1.0}, "", False),
        Request(OWNER, ONE, "", False),
        holdings=(Held(WORKER, 12, OTHER, {"CPU": 2.0}, "Large", True), Held(OTHER, 13, OTHER, {}, "Free", False)),
    )
    assert call(TASK, Backlog(ahead=1, away=2), queue) == [
        "task slow (20000000-7) waits for a worker with 1 CPU",
        "before it 1 task of the same kind waits in its caller",
        "workers have 2 tasks of this kind, and what ends makes room for the next",
        "node 10000000 has 2 CPU, of which 0 are free, and 1 are asked for",
        f"  2 CPU: worker 30000000 (pid 12), for the actor Large of process 40000000{BLOCKED}",
        "before it 1 request waits: 2 CPU for the actor Big of process 40000000",
    ]


def test_what_can_never_fit_and_what_is_about_to_start_is_said() -> None:
    assert of_placing(OWNER, {"GPU": 1.0}, "", [node()]) == [
        "node 10000000 can never run it: it has 0 GPU, and 1 are asked for"
    ]
    assert of_placing(OWNER, ONE, "", [node(Request(OWNER, ONE, "", True))]) == [
        "node 10000000 has given it what it asks for, and its worker is being started"
    ]
    assert of_placing(OWNER, ONE, "", [node(Request(OWNER, ONE, "", False), free=1.0)]) == [
        "node 10000000 has 1 CPU free, and is about to give it a worker"
    ]
    assert of_placing(OWNER, ONE, "", [node(free=1.0)]) == ["node 10000000 has 1 CPU free, and was not asked for it"]


def test_an_actor_says_how_it_stands() -> None:
    def actor(state: str, **known: object) -> ActorState:
        return ActorState(actor_id=f"{OWNER}{1:016x}", state=state, owner_id=OWNER, **known)  # pyright: ignore[reportArgumentType]

    assert of_actor(actor("ALIVE", worker_id=WORKER, pid=5), "A", []) == [
        "actor A (20000000-1) is alive, in worker 30000000 (pid 5)"
    ]
    assert of_actor(actor("DEAD", death_cause="it was killed"), "A", []) == [
        "actor A (20000000-1) is dead: it was killed"
    ]
    starting = "actor A (20000000-1) is starting in worker 30000000 (pid 5), after 2 restarts"
    again = actor("RESTARTING", worker_id=WORKER, pid=5, num_restarts=2)
    assert of_actor(again, "A", []) == [f"{starting}: its constructor has not returned"]
    assert of_actor(actor("PENDING_CREATION"), "A", []) == [
        "actor A (20000000-1) waits for a worker that coroutines share"
    ]
    waits = of_actor(
        actor("PENDING_CREATION", required_resources=dict(ONE)), "A", [node(Request(OWNER, ONE, "A", False))]
    )
    assert waits == [
        "actor A (20000000-1) waits for a worker with 1 CPU",
        "node 10000000 has 2 CPU, of which 0 are free, and 1 are asked for",
        "nobody who waits for that is before it",
    ]


def test_a_call_says_where_it_is_or_what_it_waits_for() -> None:
    def one(state: str, **known: object) -> TaskState:
        made = {"task_id": f"{OWNER}{2:016x}", "name": "A.f", "actor_id": "a", "worker_id": WORKER, "worker_pid": 5}
        return TaskState(state=state, **{**made, **known})  # pyright: ignore[reportArgumentType]

    name = "call A.f (20000000-2)"
    assert call(one("RUNNING")) == [
        f"{name} runs in worker 30000000 (pid 5): `actorrt stack 30000000` shows where it is"
    ]
    running = [one("RUNNING", name=f"A.{letter}") for letter in "ghijk"]
    assert of_call(one("SUBMITTED_TO_WORKER"), Backlog(), [], {}, running, ["its actor"])[-3:] == [
        "  A.i (20000000-2) runs there",
        "  and 2 other calls",
        "its actor",
    ]
    assert of_call(one("PENDING_ACTOR"), Backlog(3, 9), [], {}, [], ["its actor"]) == [
        f"{name} waits for its actor",
        "its actor",
        "the actor has 9 calls of its caller",
        "before it 3 calls wait in its caller",
    ]
    made, put = f"{OWNER}{1:016x}", f"{OTHER}{2:016x}"
    objects = {
        made: ObjectState(object_id=made, state="PENDING", name="slow"),
        put: ObjectState(object_id=put, state="PENDING", owner_id=OTHER),
    }
    waits = one("PENDING_ARGS_AVAIL", waits_for=[made, put, f"{OTHER}{3:016x}", f"{OTHER}{4:016x}"])
    assert of_call(waits, Backlog(), [], objects, [], []) == [
        f"{name} waits for 4 arguments",
        "  object 20000000-1, which slow makes: `actorrt why 20000000-1`",
        "  object 40000000-2 of process 40000000, PENDING",
        "  object 40000000-3, of which no process that answers knows",
        "  and 1 other",
    ]


def test_an_object_says_where_it_lies() -> None:
    lies = ObjectState(
        object_id=f"{OWNER}{1:016x}",
        state="SHARED",
        object_size=5,
        where="disk",
        node_id=NODE,
        owner_id=OWNER,
        owner_pid=3,
    )
    assert of_object(lies) == [
        "object 20000000-1 of process 20000000 (pid 3), 5 bytes: it is there: it lies in the disk of node 10000000"
    ]


def test_queues_are_read_as_nodes_send_them() -> None:
    part = {
        "capacity": {"CPU": 2.0},
        "free": {"CPU": 0.0},
        "requests": [[OWNER, {"CPU": 1.0}, "", False]],
        "holdings": [[WORKER, 5, OTHER, {"CPU": 2.0}, "A", False]],
    }
    assert queues_in([{"node": NODE, "parts": [{"process": WORKER}, part]}]) == [
        NodeQueue(
            NODE,
            {"CPU": 2.0},
            {"CPU": 0.0},
            [Request(OWNER, ONE, "", False)],
            [Held(WORKER, 5, OTHER, {"CPU": 2.0}, "A", False)],
        )
    ]


SHAPES = st.dictionaries(st.sampled_from(["CPU", "GPU", "disk"]), st.sampled_from([0.5, 1.0, 4.0]), max_size=3)
REQUESTS = st.builds(Request, st.sampled_from([OWNER, OTHER]), SHAPES, st.sampled_from(["", "A"]), st.booleans())
HELD = st.builds(Held, st.just(WORKER), st.just(5), st.just(OTHER), SHAPES, st.just(""), st.booleans())


@given(
    shape=SHAPES.filter(bool),
    total=SHAPES,
    free=SHAPES,
    requests=st.lists(REQUESTS, max_size=6),
    holdings=st.lists(HELD, max_size=6),
)
def test_there_is_an_answer_for_whatever_a_node_has(
    shape: Amounts, total: Amounts, free: Amounts, requests: list[Request], holdings: list[Held]
) -> None:
    said = of_placing(OWNER, shape, "", [NodeQueue(NODE, total, free, requests, holdings)])
    assert said
    assert said[0].startswith("node 10000000 ")
    short = {name for name, amount in shape.items() if free.get(name, 0) < amount}
    started = any(one.has_resources for one in requests if one[:3] == (OWNER, shape, ""))
    assert started or all(any(name in line for line in said) for name in short)
    assert amounts({}) == "no resources"
