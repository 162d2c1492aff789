"""Which session a command is about, and being part of it while the command asks."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Generator
from typing import Any, Final, TypeVar

import click

import actorrt
from actorrt.cli.problems import WRONG_USE, CommandError

F = TypeVar("F", bound=Callable[..., Any])

# A node asks its processes for a second.
ANSWER_S: Final = 5.0
_NONE: Final = "no cluster runs on this machine; init() without an address starts one"


def not_long() -> None:
    """A node that is stopped is waited for no longer than for one of its answers, unless the user says so."""
    os.environ["ACTORRT_START_TIMEOUT_S"] = os.environ.get("ACTORRT_START_TIMEOUT_S") or f"{ANSWER_S:g}"


def running() -> list[actorrt.Session]:
    """The newest first. Raises CommandError if their folder cannot be used."""
    try:
        return actorrt.sessions()
    except OSError as error:
        raise CommandError(str(error)) from None


def chosen(sessions: list[actorrt.Session], address: str) -> list[actorrt.Session]:
    """Those that the user means. Raises CommandError if there are none."""
    if not sessions:
        raise CommandError(_NONE)
    if address == "all":
        return sessions
    if address == "auto":
        return sessions[:1]
    folder = os.path.realpath(address)
    exact = [each for each in sessions if each.address == folder or str(each.pid) == address]
    near = exact or [each for each in sessions if os.path.basename(each.address).startswith(address)]
    if len(near) == 1:
        return near
    what = f"begins with {address!r}" if near else f"is {address!r}"
    listed = "; ".join(f"{os.path.basename(each.address)} (pid {each.pid})" for each in sessions)
    raise CommandError(f"{'more than one session' if near else 'no session'} {what}; there are {listed}", WRONG_USE)


def of_session(command: F) -> F:
    """The option by which a command asks one session."""
    return click.option(
        "--address",
        default="auto",
        help="The session to ask, as `actorrt status` names it, or the first letters of its name, or the pid of its "
        "program; auto is the newest one.",
    )(command)


@contextlib.contextmanager
def joined(address: str) -> Generator[actorrt.Session]:
    """Be part of a session. What goes wrong with it, or with what was typed, ends the command with a sentence."""
    not_long()
    sessions = running()
    (session,) = chosen(sessions, address)[:1]
    if address == "auto" and len(sessions) > 1:
        others = len(sessions) - 1
        print(
            f"of session {os.path.basename(session.address)} (pid {session.pid}), the newest of {others + 1} that run "
            "here: --address chooses",
            file=sys.stderr,
        )
    try:
        actorrt.init(session.address, log_to_driver=False)
        try:
            yield session
        finally:
            actorrt.shutdown()
    except TimeoutError as error:
        raise CommandError(str(error)) from None
    except (ConnectionError, actorrt.exceptions.ActorrtError) as error:
        raise CommandError(f"session {os.path.basename(session.address)} does not answer: {error}") from None
    except (ValueError, TypeError) as error:
        raise CommandError(str(error), WRONG_USE) from None
