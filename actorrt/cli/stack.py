"""`actorrt stack`: where each thread and coroutine of a session is, and what it waits for."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import click

import actorrt
from actorrt.cli.problems import CommandError
from actorrt.cli.sessions import ANSWER_S, joined, of_session

state = actorrt.util.state


@click.command(short_help="Show where each thread and coroutine is, and what it waits for.")
@click.argument("id", metavar="[ID]", required=False)
@click.option("--all", "everything", is_flag=True, help="Show the frames and threads of actorrt too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all frames, for programs.")
@of_session
def stack(id: str | None, everything: bool, as_json: bool, address: str) -> None:
    """Show where each thread and coroutine of a session's processes is, and what it waits for: a ref and the call that
    makes it, a lock, a sleep, work.

    ID is that of a process or its pid, or that of an actor or a call, whose process is shown; without it all are.
    Coroutines at the same lines are shown once, with their number.

    The stacks are taken by the runtime's thread, so that code that blocks a process is seen where it stands. A process
    that does not answer is named: it is stopped, or its code keeps the interpreter to itself; then its log says where
    (actorrt logs PID --err).
    """
    with joined(address):
        # Not this command, which is part of the session while it asks.
        found = [each for each in state.list_stacks(id, timeout=ANSWER_S) if each.pid != os.getpid()]
    if as_json:
        print(json.dumps([_as_dict(each) for each in found], indent=2))
    else:
        print("\n\n".join(_shown(each, everything) for each in found if everything or id or _says_something(each)))
    if id is not None and found and all(each.trouble for each in found):
        raise CommandError(f"the process does not answer: {found[0].trouble}")


def _as_dict(one: state.ProcessStacks) -> dict[str, Any]:
    parts = {
        kind: [{**each._asdict(), "frames": [frame._asdict() for frame in each.frames]} for each in stacks]
        for kind, stacks in (("threads", one.threads), ("coroutines", one.coroutines))
    }
    return {**one.asdict(), **parts}


def _says_something(one: state.ProcessStacks) -> bool:
    return bool(one.trouble or one.role in ("driver", "worker"))


def _shown(one: state.ProcessStacks, everything: bool) -> str:
    lines = [f"{one.role} {state.short_id(one.process_id)} (pid {one.pid}){f': {one.trouble}' if one.trouble else ''}"]
    for thread in one.threads:
        frames = _frames(thread.frames, everything)
        if everything or frames or thread.name.startswith("MainThread"):
            waits = f", waits for {thread.waits_for}" if thread.waits_for else ""
            lines += [f"  thread {thread.name}{waits}", *frames]
    for each in one.coroutines:
        waits = f", waits for {each.waits_for}" if each.waits_for else ""
        names = ", ".join(each.names) + (", ..." if each.number > len(each.names) else "")
        number = f"{each.number} coroutines: " if each.number > 1 else "coroutine "
        lines += [f"  {number}{names}{waits}", *_frames(each.frames, everything)]
    if one.left_out:
        lines.append(f"  and {one.left_out} coroutines more, at other lines")
    return "\n".join(lines)


def _frames(frames: Sequence[state.Frame], everything: bool) -> list[str]:
    """As tracebacks show them, without those that begin a program or thread, and those of actorrt, unless they are
    wanted."""
    kept = [each for each in frames if everything or not (each.ours or each.file.startswith("<frozen "))]
    if not everything and kept and kept[0].function == "Thread._bootstrap":
        kept = kept[3:]
    lines: list[str] = []
    for each in kept:
        lines.append(f'    File "{each.file}", line {each.line}, in {each.function}')
        if each.text:
            lines.append(f"      {each.text}")
    return lines
