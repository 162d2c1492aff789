"""All commands, and how an error of one ends it."""

from __future__ import annotations

import sys

import click

import actorrt
from actorrt.cli.lists import lists
from actorrt.cli.logs import logs
from actorrt.cli.memory import memory
from actorrt.cli.problems import CommandError
from actorrt.cli.serve import serve
from actorrt.cli.stack import stack
from actorrt.cli.start import start, stop
from actorrt.cli.status import status
from actorrt.cli.why import why


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100})
@click.version_option(
    actorrt.__version__,
    message=f"actorrt %(version)s (Python {'.'.join(map(str, sys.version_info[:3]))})",
    help="Show the version and exit.",
)
def commands() -> None:
    """Tasks, actors and objects over many processes, and HTTP served from graphs of them."""


commands.add_command(lists)
commands.add_command(logs)
commands.add_command(memory)
commands.add_command(serve)
commands.add_command(stack)
commands.add_command(start)
commands.add_command(status)
commands.add_command(stop)
commands.add_command(why)


def run() -> None:
    """What was typed. It ends the process where that fails."""
    try:
        commands(prog_name="actorrt")
    except CommandError as error:
        print(f"actorrt: {error}", file=sys.stderr)
        sys.exit(error.code)
