"""`actorrt start` and `actorrt stop`: the nodes of a cluster that outlives the programs that use it."""

from __future__ import annotations

import json
from typing import Any

import click

import actorrt
from actorrt.cli.problems import WRONG_USE, CommandError


@click.command(short_help="Start a cluster, or a node that joins one; it goes on when the command ends.")
@click.option("--head", is_flag=True, help="Start a cluster: its head and the first node.")
@click.option("--address", help="Join this cluster: what `start --head` printed, or auto for the one on this machine.")
@click.option("--name", default="default", help="Name of the cluster that --head starts; a store is of one cluster.")
@click.option(
    "--store",
    metavar="STORE",
    help="Where the head keeps what survives it: a path or sqlite:///PATH, or redis://HOST:PORT/DB for a head that may "
    "be started again on another machine.  [default: ~/.local/state/actorrt/NAME.db]",
)
@click.option("--num-cpus", type=float, help="CPUs that the node offers.  [default: those of the machine]")
@click.option("--num-gpus", type=float, help="GPUs that the node offers.  [default: 0]")
@click.option("--resources", metavar="JSON", help='Other resources of the node, as {"licences": 2}.')
@click.option("--object-store-memory", type=int, help="Bytes of memory for objects.")
def start(
    head: bool,
    address: str | None,
    name: str,
    store: str | None,
    num_cpus: float | None,
    num_gpus: float | None,
    resources: str | None,
    object_store_memory: int | None,
) -> None:
    """Start a cluster that goes on when this command and the programs that use it have ended.

    \b
    On the first machine:  actorrt start --head
    On others:             actorrt start --address ADDRESS
    In a program:          actorrt.init("ADDRESS"), or ACTORRT_ADDRESS=ADDRESS in its environment
    In the end:            actorrt stop

    A head that ends is started again and has the names of actors, and whatever else it keeps, from its store. So has
    one that `actorrt start --head` starts later with the same --name and --store.
    """
    if head == (address is not None):
        raise CommandError("give --head to start a cluster, or --address to join one", WRONG_USE)
    if not head and store is not None:
        raise CommandError("--store is for the head, which keeps it: a node that joins has none", WRONG_USE)
    options: dict[str, Any] = {
        "num_cpus": num_cpus,
        "num_gpus": num_gpus,
        "object_store_memory": object_store_memory,
        "resources": _resources(resources),
    }
    given = {option: value for option, value in options.items() if value is not None}
    try:
        if address is None:
            joined = actorrt.start_head(name=name, store=store, **given)
        else:
            joined = actorrt.start_node(address, **given)
    except (TypeError, ValueError) as error:
        raise CommandError(str(error), WRONG_USE) from None
    except (OSError, RuntimeError) as error:
        raise CommandError(str(error)) from None
    if head:
        click.echo(f"cluster {name!r} runs at {joined}")
        click.echo(f"  another node joins it: actorrt start --address {joined}")
    else:
        click.echo(f"a node has joined, at {joined}")
    click.echo(f"  a program uses it:     actorrt.init({joined!r}), or ACTORRT_ADDRESS={joined}")
    click.echo("  it ends with:          actorrt stop")


@click.command(short_help="End the nodes that `actorrt start` has started on this machine.")
@click.option("--timeout", type=float, default=15.0, help="Seconds until what has not ended is killed.")
def stop(timeout: float) -> None:
    """End the nodes and heads that `actorrt start` has started on this machine, with all that runs on them.

    What a head keeps in its store stays, for the next `actorrt start --head`. Sessions that a program has begun for
    itself go on.
    """
    try:
        ended = actorrt.stop_nodes(timeout)
    except OSError as error:
        raise CommandError(str(error)) from None
    if not ended:
        raise CommandError("no node that `actorrt start` has started runs on this machine")
    click.echo(f"stopped {len(ended)} node{'s' if len(ended) > 1 else ''}")


def _resources(given: str | None) -> dict[str, float] | None:
    if given is None:
        return None
    try:
        found: Any = json.loads(given)
    except ValueError as error:
        raise CommandError(f"--resources {given}: this is no JSON: {error}", WRONG_USE) from None
    if not isinstance(found, dict):
        raise CommandError(f'--resources {given}: give an object of names and amounts, as {{"licences": 2}}', WRONG_USE)
    return found  # pyright: ignore[reportUnknownVariableType]  # its values are checked as options
