"""`actorrt status`: the nodes that run on this machine, what is free on them, and the language models they serve."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

import actorrt
from actorrt.cli.problems import CommandError


@click.command(short_help="Show the nodes, what is free on them, and the models they serve.")
@click.option("--address", default="auto", help="The node to ask; auto is the newest one on this machine.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def status(address: str, as_json: bool) -> None:
    """Show the nodes of a running cluster, how much of each resource is free, and the language models it serves."""
    try:
        actorrt.init(address, log_to_driver=False)
    except (ConnectionError, actorrt.exceptions.ActorrtError) as error:
        raise CommandError(str(error)) from None
    try:
        nodes, total, free = actorrt.nodes(), actorrt.cluster_resources(), actorrt.available_resources()
        # What makes models is not loaded where nothing is served.
        models = actorrt.serve.llm.status() if actorrt.serve.status().applications else []
    finally:
        actorrt.shutdown()
    if as_json:
        shown = [asdict(each) for each in models]
        print(json.dumps({"nodes": nodes, "total": total, "free": free, "models": shown}, indent=2, default=str))
    else:
        print(_table(nodes, total, free))
        if models:
            print("\n" + _table_of_models(models))


def _table(nodes: list[dict[str, Any]], total: dict[str, float], free: dict[str, float]) -> str:
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


def _table_of_models(models: Sequence[actorrt.serve.llm.ModelStatus]) -> str:
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


def _amount(name: str, value: float) -> str:
    return f"{value / 2**30:>8.1f} GiB" if name.endswith("memory") else f"{value:>12g}"
