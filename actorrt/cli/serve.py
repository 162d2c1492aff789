"""`actorrt serve MODULE:GRAPH`: bring a graph of deployments up on this machine and answer HTTP until Ctrl-C."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

import actorrt
from actorrt.cli import target as targets
from actorrt.cli.problems import WRONG_USE, CommandError
from actorrt.cli.progress import Progress

# What a shell reports for a program that Ctrl-C ended.
INTERRUPTED: Final = 128 + signal.SIGINT


def serve(
    target: Annotated[
        str, typer.Argument(metavar="MODULE:GRAPH", help="The module to import, and the name in it that .bind() gave.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every network of this machine.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    app_dir: Annotated[Path, typer.Option(help="Folder to import MODULE from.")] = Path(),
    name: Annotated[str, typer.Option(help="Name of the application.")] = "default",
    route_prefix: Annotated[str, typer.Option(help="Path below which it answers.")] = "/",
    access_log: Annotated[bool, typer.Option("--access-log", help="Log a line for each request.")] = False,
) -> None:
    """Serve a graph of deployments over HTTP.

    Given app.py with

        from actorrt import serve

        @serve.deployment
        class Hello:
            async def __call__(self, request):
                return "hello"

        app = Hello.bind()

    run `actorrt serve app:app`, and `curl http://127.0.0.1:8000/` once the URL is printed.

    Ctrl-C lets running requests end and stops; Ctrl-C twice stops at once. Nothing is left running either way.
    """
    module, _ = targets.split(target)
    targets.look_in(app_dir)
    if not route_prefix.startswith("/"):
        raise CommandError(f"--route-prefix {route_prefix}: it must start with a /", WRONG_USE)
    _check_port(host, port)
    stop = _StopSignals()
    try:
        with Progress() as progress:
            progress.step("starting the node")
            actorrt.init()
            options = actorrt.serve.HTTPOptions(host=host, port=port, access_log=access_log)
            actorrt.serve.start(http_options=options)
            progress.step(f"importing {module}")
            app = targets.load(target)
            progress.step(f"starting the deployments of {target}")
            url = _run(app, name, route_prefix)
            progress.line(f"serving {target} on {url}  (Ctrl-C drains and stops, twice stops at once)")
        stop.wait()
        print("stopping: running requests may end, new ones are refused", file=sys.stderr, flush=True)
        actorrt.serve.shutdown()
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    finally:
        actorrt.shutdown()


def _run(app: actorrt.serve.Application[Any], name: str, route_prefix: str) -> str:
    """Its URL, once the proxy answers for it."""
    try:
        actorrt.serve.run(app, name=name, route_prefix=route_prefix)
    except (TypeError, ValueError) as error:
        raise CommandError(str(error), WRONG_USE) from None
    except actorrt.exceptions.ActorrtError as error:
        raise CommandError(str(error)) from None
    (proxy,) = actorrt.serve.status().proxies
    return proxy + route_prefix


def _check_port(host: str, port: int) -> None:
    """Find out before anything is started. The proxy may still find the port taken a moment later."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise CommandError(f"--host {host}: {error.strerror}", WRONG_USE) from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen()
        except OSError as error:
            raise CommandError(_why_not(host, port, error)) from None


def _why_not(host: str, port: int, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} of {host} is in use by another program: stop that one, or choose another with --port"
        case errno.EACCES | errno.EPERM:
            return f"port {port} needs rights that this user does not have: choose one above 1023 with --port"
        case errno.EADDRNOTAVAIL:
            return f"{host} is not an address of this machine: choose one with --host"
        case _:
            return f"cannot listen on port {port} of {host}: {error.strerror}"


class _StopSignals:
    """What Ctrl-C and SIGTERM do: interrupt the start; once it serves, end the wait; the second time, end the process.

    The node watches this process and stops everything when it is gone, so ending it is all that "at once" takes.
    """

    def __init__(self) -> None:
        self._asked = False
        self._serving = False
        # A lock is no good in a signal handler: the code it interrupts may hold it.
        self._read, self._write = os.pipe()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _: object) -> None:
        if self._asked:
            os._exit(128 + number)
        self._asked = True
        if not self._serving:
            raise KeyboardInterrupt
        os.write(self._write, b"x")

    def wait(self) -> None:
        """Until someone asks to stop."""
        self._serving = True
        os.read(self._read, 1)
