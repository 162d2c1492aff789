"""`actorrt why REQUEST`: what a request waits for in a capacity queue, what is before it and when it will start."""

from __future__ import annotations

import click

import actorrt
from actorrt.cli.problems import CommandError


@click.command(short_help="Say what a request waits for in a capacity queue.")
@click.argument("request_id", metavar="REQUEST")
def why(request_id: str) -> None:
    """Say what a request waits for in a capacity queue, what is before it, and about when it will start.

    REQUEST is its id, the header x-request-id that its client has sent, or that its answer has.
    """
    said: list[str] = []
    for session in actorrt.sessions():
        try:
            actorrt.init(session.address, log_to_driver=False)
        except (ConnectionError, actorrt.exceptions.ActorrtError):
            continue
        try:
            said += actorrt.serve.why(request_id)
        except ValueError as error:
            raise CommandError(str(error)) from None
        except actorrt.exceptions.ActorrtError:
            continue  # it has ended meanwhile
        finally:
            actorrt.shutdown()
    if not said:
        raise CommandError(f"no capacity queue knows of a request {request_id}: it may have ended, or have no queue")
    for each in said:
        print(each)
