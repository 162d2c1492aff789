"""Say in sentences why a call or an actor has not begun: what it waits for, who has that, and what is ahead. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from .state_records import ActorState, ObjectState, PlacementGroupState, TaskState
from .state_scan import short_id

# So many of those ahead, and of those who have what is short, are named.
NAMED: Final = 3

Amounts = Mapping[str, float]


class Request(NamedTuple):
    """Somebody who waits for a worker of a node. `actor`: the title of the one that it is for, or "".
    `has_resources`: only the process is awaited."""

    owner: str
    shape: Amounts
    actor: str
    has_resources: bool


class Held(NamedTuple):
    """A worker that is given to `owner`. `is_blocked`: it waits in `get`, and its CPUs are free meanwhile."""

    worker: str
    pid: int
    owner: str
    shape: Amounts
    actor: str
    is_blocked: bool


class NodeQueue(NamedTuple):
    """What a node has, and who waits for it, in order."""

    node_id: str
    total: Amounts
    free: Amounts
    requests: Sequence[Request]
    holdings: Sequence[Held]


class Backlog(NamedTuple):
    """What the caller of a call says. `ahead`: calls of the same kind before it there; `away`: those that workers, or
    the actor, have; `asked`: workers that were asked for."""

    ahead: int = 0
    away: int = 0
    asked: int = 0


def queues_in(answers: Sequence[Mapping[str, Any]]) -> list[NodeQueue]:
    """As nodes have sent them."""
    return [
        NodeQueue(
            node["node"],
            part["capacity"],
            part["free"],
            [Request(*each) for each in part["requests"]],
            [Held(*each) for each in part["holdings"]],
        )
        for node in answers
        for part in node["parts"]
        if "requests" in part
    ]


def amounts(shape: Amounts) -> str:
    return " and ".join(f"{amount:g} {name}" for name, amount in sorted(shape.items())) or "no resources"


def _count(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"


def _wait(number: int) -> str:
    return "waits" if number == 1 else "wait"


def of_placing(owner: str, shape: Amounts, actor: str, nodes: Sequence[NodeQueue]) -> list[str]:
    """Why `owner` has no worker yet for what takes `shape`."""
    said: list[str] = []
    for node in nodes:
        mine = [each for each in node.requests if each.owner == owner and each.actor == actor and each.shape == shape]
        short = {name: amount for name, amount in shape.items() if node.free.get(name, 0) < amount}
        name = f"node {short_id(node.node_id)}"
        if any(each.has_resources for each in mine):
            said.append(f"{name} has given it what it asks for, and its worker is being started")
            continue
        for resource, amount in sorted(short.items()):
            has, free = node.total.get(resource, 0), max(0.0, node.free.get(resource, 0))
            if has < amount:
                said.append(f"{name} can never run it: it has {has:g} {resource}, and {amount:g} are asked for")
            else:
                said.append(f"{name} has {has:g} {resource}, of which {free:g} are free, and {amount:g} are asked for")
                said += _holders(resource, node.holdings)
        said += _ahead(mine, short, node.requests)
        if mine and not short:
            said.append(f"{name} has {amounts(shape)} free, and is about to give it a worker")
        if shape and not short and not mine:
            said.append(f"{name} has {amounts(shape)} free, and was not asked for it")
    return said


def _holders(resource: str, holdings: Sequence[Held]) -> list[str]:
    holders = [each for each in holdings if each.shape.get(resource)]
    said: list[str] = []
    for each in holders[:NAMED]:
        what = f"the actor {each.actor}" if each.actor else "tasks"
        lent = ", which waits in get, so that they are free meanwhile" if each.is_blocked else ""
        said.append(
            f"  {each.shape[resource]:g} {resource}: worker {short_id(each.worker)} (pid {each.pid}), for {what} of "
            f"process {short_id(each.owner)}{lent}"
        )
    if len(holders) > NAMED:
        said.append(f"  and {_count(len(holders) - NAMED, 'other worker')}")
    return said


def _ahead(mine: Sequence[Request], short: Amounts, requests: Sequence[Request]) -> list[str]:
    """Those who came before and wait for the same."""
    if not mine:
        return []
    before = requests[: requests.index(mine[0])]
    ahead = [each for each in before if not each.has_resources and set(each.shape) & set(short)]
    if not ahead:
        return ["nobody who waits for that is before it"] if short else []
    named = [
        f"{amounts(each.shape)} for {f'the actor {each.actor}' if each.actor else 'a task'} of process "
        f"{short_id(each.owner)}"
        for each in ahead[:NAMED]
    ]
    more = f", and {len(ahead) - NAMED} others" if len(ahead) > NAMED else ""
    return [f"before it {_count(len(ahead), 'request')} {_wait(len(ahead))}: {'; '.join(named)}{more}"]


def of_actor(actor: ActorState, title: str, nodes: Sequence[NodeQueue]) -> list[str]:
    """How an actor stands, and why it does not run."""
    name = f"actor {title} ({short_id(actor.actor_id)})"
    match actor.state:
        case "ALIVE":
            return [f"{name} is alive, in worker {short_id(actor.worker_id)} (pid {actor.pid})"]
        case "DEAD":
            return [f"{name} is dead: {actor.death_cause or 'nobody knows why'}"]
        case _:
            pass
    lost = f", after {_count(actor.num_restarts, 'restart')}" if actor.num_restarts else ""
    if actor.worker_id:
        worker = f"worker {short_id(actor.worker_id)} (pid {actor.pid})"
        return [f"{name} is starting in {worker}{lost}: its constructor has not returned"]
    if not actor.required_resources:
        return [f"{name} waits for a worker that coroutines share{lost}"]
    said = [f"{name} waits for a worker with {amounts(actor.required_resources)}{lost}"]
    return said + of_placing(actor.owner_id, actor.required_resources, title, nodes)


def of_call(
    call: TaskState,
    backlog: Backlog,
    nodes: Sequence[NodeQueue],
    objects: Mapping[str, ObjectState],
    running: Sequence[TaskState],
    actor: Sequence[str],
) -> list[str]:
    """Why a call has not begun. `objects`: those that it waits for; `running`: what runs at its worker; `actor`: what
    `of_actor` says of its actor."""
    name = f"{'call' if call.actor_id else 'task'} {call.name} ({short_id(call.task_id)})"
    worker = f"worker {short_id(call.worker_id)} (pid {call.worker_pid})"
    match call.state:
        case "RUNNING":
            return [f"{name} runs in {worker}: `actorrt stack {short_id(call.worker_id)}` shows where it is"]
        case "SUBMITTED_TO_WORKER":
            ahead = [f"  {each.name} ({short_id(each.task_id)}) runs there" for each in running[:NAMED]]
            more = [f"  and {_count(len(running) - NAMED, 'other call')}"] if len(running) > NAMED else []
            return [f"{name} is in {worker}, which has not begun it", *ahead, *more, *actor]
        case "PENDING_ARGS_AVAIL":
            return [f"{name} waits for {_count(len(call.waits_for), 'argument')}", *_awaited(call, objects)]
        case "PENDING_ACTOR":
            said = [f"{name} waits for its actor", *actor]
            if backlog.away:
                said.append(f"the actor has {_count(backlog.away, 'call')} of its caller")
            if backlog.ahead:
                said.append(f"before it {_count(backlog.ahead, 'call')} {_wait(backlog.ahead)} in its caller")
            return said
        case _:
            pass
    if not call.required_resources:
        return [f"{name} waits for a worker that coroutines share"]
    said = [f"{name} waits for a worker with {amounts(call.required_resources)}"]
    if backlog.ahead:
        said.append(f"before it {_count(backlog.ahead, 'task')} of the same kind {_wait(backlog.ahead)} in its caller")
    if backlog.away:
        said.append(f"workers have {_count(backlog.away, 'task')} of this kind, and what ends makes room for the next")
    return said + of_placing(call.owner_id, call.required_resources, "", nodes)


def _awaited(call: TaskState, objects: Mapping[str, ObjectState]) -> list[str]:
    said: list[str] = []
    for each in call.waits_for[:NAMED]:
        known = objects.get(each)
        if known is None:
            said.append(f"  object {short_id(each)}, of which no process that answers knows")
        elif known.name:
            said.append(f"  object {short_id(each)}, which {known.name} makes: `actorrt why {short_id(each)}`")
        else:
            said.append(f"  object {short_id(each)} of process {short_id(known.owner_id)}, {known.state}")
    if len(call.waits_for) > NAMED:
        said.append(f"  and {_count(len(call.waits_for) - NAMED, 'other')}")
    return said


def of_object(found: ObjectState) -> list[str]:
    """How an object stands that no call is making."""
    size = "" if found.object_size < 0 else f", {found.object_size} bytes"
    where = f" of node {short_id(found.node_id)}" if found.where else ""
    lies = {
        "INLINE": "it is there: it lies in its owner",
        "SHARED": f"it is there: it lies in the {found.where or 'shared memory'}{where}",
        "ERROR": "the call that made it failed",
    }
    owner = f"process {short_id(found.owner_id)} (pid {found.owner_pid})"
    return [f"object {short_id(found.object_id)} of {owner}{size}: {lies.get(found.state, 'it is awaited')}"]


def of_group(group: PlacementGroupState) -> list[str]:
    """How a placement group stands."""
    name = f"placement group {group.name or short_id(group.placement_group_id)}"
    at = ", ".join(dict.fromkeys(short_id(each) for each in group.nodes))
    return [f"{name} is {group.state}{f': {group.why}' if group.why else f' at {at}' if at else ''}"]
