"""`actorrt logs`: what a process of a session has printed."""

from __future__ import annotations

import click

import actorrt
from actorrt.cli.sessions import joined, of_session

state = actorrt.util.state


@click.command(short_help="Print what a worker has printed, by its id or that of an actor or call in it.")
@click.argument("id", metavar="[ID]", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on with what it prints, until it has ended or by Ctrl-C.")
@click.option("--tail", default=-1, metavar="N", help="Begin with the last N lines; -1: with the first.")
@click.option("--err", is_flag=True, help="What it has printed to stderr, in place of stdout.")
@of_session
def logs(id: str | None, follow: bool, tail: int, err: bool, address: str) -> None:
    """Print what a process has printed.

    ID is that of a worker or its pid, also of one that has ended, or that of an actor or a call, whose worker is meant;
    `node` is what the node and the head have printed. Without ID the names of all logs are listed.

    An actor that shares its worker shares its log: its lines are among those of the others.
    """
    with joined(address):
        if id is None:
            for kind, names in sorted(state.list_logs().items()):
                print(f"{kind}:")
                for name in names:
                    print(f"  {name}")
            return
        for line in state.get_log(id=id, follow=follow, tail=tail, suffix="err" if err else "out"):
            print(line, flush=follow)
