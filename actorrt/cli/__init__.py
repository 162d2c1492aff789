"""The `actorrt` command: what a person types in a shell. One file a group of commands.

Programs do not import this. It uses only actorrt's public names, and imports what a command needs when it runs.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import actorrt
from actorrt.cli.problems import CommandError
from actorrt.cli.serve import serve
from actorrt.cli.status import status


def _version(wanted: bool) -> None:
    if wanted:
        python = ".".join(map(str, sys.version_info[:3]))
        print(f"actorrt {actorrt.__version__} (Python {python})")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Tasks, actors and objects over many processes, and HTTP served from graphs of them."""


def main() -> None:
    """The console script."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=True)
    app.callback()(_root)
    app.command()(serve)
    app.command()(status)
    try:
        app(prog_name="actorrt")
    except CommandError as error:
        print(f"actorrt: {error}", file=sys.stderr)
        sys.exit(error.code)
