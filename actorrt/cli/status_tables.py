"""What `actorrt status` prints of a session, as tables for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import actorrt


def of_nodes(nodes: list[dict[str, Any]], total: dict[str, float], free: dict[str, float]) -> str:
    lines = [f"{'node':<18} {'state':<6} address"]
    lines += [
        f"{node['NodeID'][:16]:<18} {'alive' if node['Alive'] else 'dead':<6} {node['NodeManagerAddress']}"
        for node in nodes
    ]
    lines += ["", f"{'resource':<18} {'free':>12} of {'total':>12}"]
    lines += [
        f"{name:<18} {_amount(name, free.get(name, 0))} of {_amount(name, total[name])}" for name in sorted(total)
    ]
    return "\n".join(lines)


def of_statistics(known: Mapping[str, Any]) -> str:
    """The node's workers, leases and shared memory, and a line for each process."""
    return f"{_of_the_node(known['node'])}\n\n{_of_processes(known['processes'])}"


def _of_the_node(node: Mapping[str, Any]) -> str:
    workers, store, links = node["workers"], node["store"], node["peers"]
    states = ", ".join(f"{count} {state}" for state, count in sorted(workers["workers"].items()))
    used, limit = (f"{count / 2**20:.1f} MiB" for count in (store["memory"], node["store_limit"]))
    owned = node["owned_actors"]
    told = {
        "workers": states or "none",
        "leases": f"{workers['leases']} held, {workers['blocked']} of them blocked; {workers['waiting']} waiting",
        "shared memory": f"{used} of {limit} in {store['segments']} segments, {store['disk'] / 2**20:.1f} MiB on disk",
        "detached actors": _actors(owned),
        "links": _links(links),
    }
    return "\n".join(f"{name:<18} {said}" for name, said in told.items())


def _of_processes(processes: Sequence[Mapping[str, Any]]) -> str:
    row = "{:<7} {:<17} {:>8}  {:<13} {:<17} {:<11} {:<11} {:<9} {}"
    lines = [
        row.format("process", "", "pid", "calls", "actors", "tasks", "objects", "segments", "links"),
        row.format("", "", "", "out/in/wait", "here/owned/dead", "wait/run", "lent/taken", "own/seen", ""),
    ]
    for each in processes:
        name = (each["role"], each["process"], each["pid"])
        if each["trouble"]:
            lines.append(f"{each['role']:<7} {each['process']:<17} {each['pid']:>8}  {each['trouble']}")
        elif "directory" in each:
            names = f"{each['directory']['names']} names"
            lines.append(row.format(*name, names, "", "", "", "", _links(each["peers"])).rstrip())
        else:
            lines.append(row.format(*name, *_of_process(each)))
            lines += [f"        {line}" for line in _pools(each)]
    return "\n".join(lines)


def _of_process(each: Mapping[str, Any]) -> tuple[str, str, str, str, str, str]:
    runner, actors, owned = each["runner"] or {"waiting": 0, "actors": 0}, each["actors"], each["owned_actors"]
    objects, segments, shared = each["objects"], each["segments"], each["shared_tasks"]
    pools = [pool for _, pool in each["tasks"]["pools"]]
    waiting = each["tasks"]["submitted"] + shared["waiting"] + sum(pool["waiting"] for pool in pools)
    running = shared["under_way"] + sum(pool["under_way"] for pool in pools)
    called = (
        f"{each['calls_away']}/{each['calls_served']}/{runner['waiting'] + actors['waiting'] + actors['resolving']}"
    )
    alive = owned["placing"] + owned["starting"] + owned["alive"]
    return (
        called,
        f"{runner['actors']}/{alive}/{owned['dead']}",
        f"{waiting}/{running}",
        f"{objects['lent']}/{objects['borrowed']}",
        f"{segments['own']}/{segments['viewed']}",
        _links(each["peers"]),
    )


def _pools(each: Mapping[str, Any]) -> list[str]:
    """Tasks by pool, of those that have any: what they ask for, and how they stand."""
    lines: list[str] = []
    for (shape, mode, *_), pool in each["tasks"]["pools"]:
        leases = ", ".join(f"{count} {state.lower()}" for state, count in sorted(pool["leases"].items()))
        if leases or pool["waiting"] or pool["asked"]:
            asked = " and ".join(f"{amount / 10_000:g} {name}" for name, amount in shape) or "nothing"
            lines.append(
                f"tasks ({mode}) for {asked}: {pool['waiting']} waiting, {pool['under_way']} under way, "
                f"leases: {leases or 'none'}, {pool['asked']} asked for"
            )
    lines += [
        f"async tasks and coroutine actors: {pool['load']} on {sum(pool['workers'].values())} shared workers"
        for pool in each["shared_tasks"]["pools"]
        if pool["load"]
    ]
    return lines


def _actors(owned: Mapping[str, Any]) -> str:
    states = ("placing", "starting", "alive", "dead")
    return ", ".join(f"{owned[state]} {state}" for state in states if owned[state]) or "none"


def _links(peers: Mapping[str, Any]) -> str:
    up = peers["links"] - peers["down"]
    down = f", {peers['down']} down" if peers["down"] else ""
    return f"{up} up{down}, {peers['unacknowledged']} B unacknowledged"


def of_models(models: Sequence[actorrt.serve.llm.ModelStatus]) -> str:
    wide = max(len("model"), *(len(each.model) for each in models))
    numbers = "{:>8} {:>8} {:>8} {:>8} {:>8}"
    lines = [
        f"{'model':<{wide}} {'engine':<10} " + numbers.format("replicas", "slots", "context", "running", "waiting")
    ]
    for each in models:
        line = numbers.format(each.replicas, each.slots, each.context, each.running, each.waiting)
        adapters = f"  adapters: {', '.join(each.adapters)}" if each.adapters else ""
        asleep = f"  asleep: {each.asleep}" if each.asleep else ""
        lines.append(f"{each.model:<{wide}} {each.engine:<10} {line}{adapters}{asleep}")
    return "\n".join(lines)


def of_batches(batches: Sequence[actorrt.serve.llm.BatchStatus]) -> str:
    names = [each.model or "(not read yet)" for each in batches]
    wide = max(len("batches of"), *map(len, names))
    numbers = "{:<9} {:>9} {:>9} {:>9} {:>9}"
    lines = [f"{'batches of':<{wide}} " + numbers.format("", "queued", "running", "done", "failed")]
    for name, each in zip(names, batches, strict=True):
        for what, counts in (("batches", each.batches), ("requests", each.requests)):
            shown = numbers.format(what, counts.queued, counts.running, counts.done, counts.failed)
            lines.append(f"{name:<{wide}} {shown}")
    return "\n".join(lines)


def of_queues(queues: Sequence[actorrt.serve.QueueStatus]) -> str:
    return "\n\n".join(_of_queue(each) for each in queues)


def _of_queue(queue: actorrt.serve.QueueStatus) -> str:
    name = f"capacity queue of {queue.application}#{queue.deployment}"
    if queue.trouble:
        return f"{name}: {queue.trouble}"
    in_requests = queue.units == "requests"
    lines = [f"{name}, in {queue.units}: {queue.granted} admitted, {queue.refused} refused"]
    wide = max([len("replica"), *(len(each.replica) for each in queue.lines)])
    numbers = "{:>6} {:>9} {:>9} {:>9}" + ("" if in_requests else " {:>12} {:>12}")
    lines.append(f"{'replica':<{wide}} " + numbers.format("rank", "running", "slots", "backlog", "used", "of tokens"))
    for each in queue.lines:
        shown = numbers.format(each.rank, each.running, each.slots, each.backlog, each.used, each.kv_tokens)
        beside = f"  {each.others} requests, {each.others_tokens} tokens of others"
        role = f"  {each.role}" if each.role else ""
        notes = role + ("" if each.is_open else "  closed") + (beside if each.others or each.others_tokens else "")
        lines.append(f"{each.replica:<{wide}} {shown}{notes}")
    for tenant, each in sorted((queue.tenants or {}).items()):
        what = "1 request" if each.waiting == 1 else f"{each.waiting} requests"
        lines.append(
            f"{what} of {tenant or 'no tenant'} wait{'s' * (each.waiting == 1)}, {each.longest_s:.3g} s at most"
        )
    return "\n".join(lines)


def _amount(name: str, value: float) -> str:
    return f"{value / 2**30:>8.1f} GiB" if name.endswith("memory") else f"{value:>12g}"
