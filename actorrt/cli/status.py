"""`actorrt status`: the sessions that run on this machine, what is free on their nodes, and the models they serve."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import click

import actorrt
from actorrt.cli.problems import CommandError
from actorrt.cli.sessions import ANSWER_S, chosen, not_long, running
from actorrt.cli.status_tables import of_batches, of_models, of_nodes, of_queues, of_statistics


@dataclass(frozen=True, slots=True)
class Found:
    """What one session has said, or in `trouble` why it has not."""

    session: actorrt.Session
    nodes: list[dict[str, Any]]
    total: dict[str, float]
    free: dict[str, float]
    models: Sequence[actorrt.serve.llm.ModelStatus]
    queues: Sequence[actorrt.serve.QueueStatus] = ()
    batches: Sequence[actorrt.serve.llm.BatchStatus] = ()
    trouble: str = ""
    # Why it is not known what is served.
    serve_trouble: str = ""
    statistics: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self.session), **self.facts(), "trouble": self.trouble}

    def facts(self) -> dict[str, Any]:
        models = [asdict(each) for each in self.models]
        queues = [asdict(each) for each in self.queues]
        return {
            "nodes": self.nodes, "total": self.total, "free": self.free, "models": models, "queues": queues,
            "batches": [asdict(each) for each in self.batches], "statistics": self.statistics,
            "serve_trouble": self.serve_trouble,
        }  # fmt: skip


@click.command(short_help="Show the nodes, what is free on them, what runs there, and the models they serve.")
@click.option(
    "--address",
    default="all",
    help="The session to ask, as this command names it, or the first letters of its name, or the pid of its program; "
    "auto is the newest one, all is each.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs; with --watch an object a line.")
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option(
    "--every", type=click.FloatRange(0.1), default=2.0, metavar="SECONDS", help="With --watch: pause between looks."
)
def status(address: str, as_json: bool, watch: bool, every: float) -> None:
    """Show what runs on this machine: each session, its nodes, how much of each resource is free, its workers, leases
    and shared memory, what each of its processes has under way, and the language models it serves, with their capacity
    queues and batches.

    A session is what a program has begun by starting a node: `actorrt serve`, or init(). A process that does not answer
    within a second is named.

    In JSON, "sessions" lists them, newest first; beside it stand the facts of the first.
    """
    not_long()
    if not watch:
        _look(address, as_json, indent=2)
        return
    while True:
        if not as_json:
            # Nothing where the output is no terminal: there the looks follow each other.
            click.clear()
            print(time.strftime("%Y-%m-%d %H:%M:%S"))
        _look(address, as_json, indent=None)
        time.sleep(every)


def _look(address: str, as_json: bool, indent: int | None) -> None:
    """Ask and print, once. Raises CommandError if no session is there or answers."""
    sessions = running()
    asked = chosen(sessions, address)
    found: list[Found] = []
    for session in asked:
        found.append(_ask(session))
        if not as_json:
            print(("\n" if len(found) > 1 else "") + _shown(found[-1]), flush=True)
    if as_json:
        shown = {**found[0].facts(), "sessions": [each.as_dict() for each in found]}
        print(json.dumps(shown, indent=indent, default=str), flush=True)
    elif len(sessions) > len(asked):
        rest = len(sessions) - len(asked)
        print(f"\n{rest} other session{'s run' if rest > 1 else ' runs'} here: `actorrt status` shows each")
    if all(each.trouble for each in found):
        raise CommandError("; ".join(each.trouble for each in found))


def _ask(session: actorrt.Session) -> Found:
    try:
        actorrt.init(session.address, log_to_driver=False)
    except (ConnectionError, actorrt.exceptions.ActorrtError) as error:
        return Found(session, [], {}, {}, [], trouble=str(error))
    try:
        # First, since the node may be stopped: this waits for it no longer than it says.
        statistics = actorrt.statistics(ANSWER_S)
        nodes, total, free = actorrt.nodes(), actorrt.cluster_resources(), actorrt.available_resources()
        served = _served(_head_trouble(statistics))
    except (TimeoutError, actorrt.exceptions.ActorrtError) as error:  # it is stopped, or has ended meanwhile
        return Found(session, [], {}, {}, [], trouble=str(error))
    finally:
        actorrt.shutdown()
    return Found(
        session, nodes, total, free, served.models, served.queues, served.batches, "", served.trouble, statistics
    )


class _Served(NamedTuple):
    models: Sequence[actorrt.serve.llm.ModelStatus] = ()
    queues: Sequence[actorrt.serve.QueueStatus] = ()
    batches: Sequence[actorrt.serve.llm.BatchStatus] = ()
    trouble: str = ""


def _head_trouble(statistics: Mapping[str, Any]) -> str:
    """Why the head does not answer; "" if it does."""
    return next((str(each["trouble"]) for each in statistics["processes"] if each["role"] == "head"), "")


def _served(head_trouble: str) -> _Served:
    """What Serve says. Who it is, only the head knows: one that does not answer is not waited for once more."""
    if head_trouble:
        return _Served(trouble=f"the head, which knows Serve's controller, does not answer: {head_trouble}")
    # What makes models is not loaded where nothing is served.
    if not actorrt.serve.status().applications:
        return _Served()
    return _Served(actorrt.serve.llm.status(), actorrt.serve.queues(), actorrt.serve.llm.batch_statuses())


def _shown(found: Found) -> str:
    session = found.session
    parts = [
        f"session {session.address}\nbegan {session.began}, pid {session.pid}: {session.program or 'it has ended'}"
    ]
    if found.trouble:
        parts.append(f"it does not answer: {found.trouble}")
    else:
        parts.append(of_nodes(found.nodes, found.total, found.free))
        parts.append(of_statistics(found.statistics))
    if found.serve_trouble:
        parts.append(f"what is served is not known: {found.serve_trouble}")
    if found.models:
        parts.append(of_models(found.models))
    if found.queues:
        parts.append(of_queues(found.queues))
    if found.batches:
        parts.append(of_batches(found.batches))
    return "\n\n".join(parts)
