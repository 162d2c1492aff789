"""`actorrt status`: the nodes that run on this machine and what is free on them."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

import actorrt
from actorrt.cli.problems import CommandError


def status(
    address: Annotated[str, typer.Option(help="The node to ask; auto is the newest one on this machine.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show the nodes of a running cluster, and how much of each resource is free."""
    try:
        actorrt.init(address, log_to_driver=False)
    except (ConnectionError, actorrt.exceptions.ActorrtError) as error:
        raise CommandError(str(error)) from None
    try:
        nodes, total, free = actorrt.nodes(), actorrt.cluster_resources(), actorrt.available_resources()
    finally:
        actorrt.shutdown()
    if as_json:
        print(json.dumps({"nodes": nodes, "total": total, "free": free}, indent=2, default=str))
    else:
        print(_table(nodes, total, free))


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


def _amount(name: str, value: float) -> str:
    return f"{value / 2**30:>8.1f} GiB" if name.endswith("memory") else f"{value:>12g}"
