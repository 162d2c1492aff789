"""What `actorrt status` prints of a session, as tables for a person."""

from __future__ import annotations

from collections.abc import Sequence
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
