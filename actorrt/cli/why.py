"""`actorrt why ID`: what a call, an actor or a request waits for, what is before it, and when it will start."""

from __future__ import annotations

import click

import actorrt
from actorrt.cli.problems import CommandError
from actorrt.cli.sessions import ANSWER_S, chosen, not_long, running

state = actorrt.util.state


@click.command(short_help="Say what a call, an actor or a request waits for.")
@click.argument("id", metavar="ID")
@click.option("--address", default="all", help="The session to ask, as `actorrt status` names it; all is each.")
def why(id: str, address: str) -> None:
    """Say what a call, an actor, an object or a request of Serve waits for, and what is before it.

    Of a call or an actor: which resource it waits for, how much of that which node has, who has it, and who is ahead;
    or which of its arguments is not there. ID is what `actorrt list` shows, or its first digits.

    Of a request that waits in a capacity queue: about when it will start. ID is that of the request, the header
    x-request-id that its client has sent, or that its answer has.
    """
    not_long()
    sessions = running()
    said: list[str] = []
    for session in chosen(sessions, address) if sessions else []:
        try:
            actorrt.init(session.address, log_to_driver=False)
        except (ConnectionError, actorrt.exceptions.ActorrtError):
            continue
        try:
            said += _of_thing(id) or actorrt.serve.why(id)
        except (ValueError, TimeoutError) as error:
            raise CommandError(str(error)) from None
        except actorrt.exceptions.ActorrtError:
            continue  # it has ended meanwhile
        finally:
            actorrt.shutdown()
    if not said:
        raise CommandError(
            f"there is no call, actor or object {id}, and no capacity queue knows of a request {id}: it may have "
            "ended, or have no queue"
        )
    for each in said:
        print(each)


def _of_thing(id: str) -> list[str]:
    """Of a request there is nothing, and its id need not be one of ours."""
    if not state.is_id(id):
        return []
    return state.explain(id, timeout=ANSWER_S)
