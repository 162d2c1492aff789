"""`actorrt serve MODULE:GRAPH`: bring a graph of deployments up on this machine and answer HTTP until Ctrl-C."""

from __future__ import annotations

import errno
import http.client
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click

import actorrt
from actorrt.cli import target as targets
from actorrt.cli.interrupts import BY_SIGNAL, INTERRUPTED
from actorrt.cli.loss import Loss
from actorrt.cli.problems import WRONG_USE, CommandError
from actorrt.cli.progress import Progress
from actorrt.cli.stop_signals import StopSignals
from actorrt.cli.watch import Watch

HEALTHY_WITHIN_S: Final = 10.0
# How often it looks whether its node is still there.
LOOK_S: Final = 2.0


@click.command()
@click.argument("target", metavar="MODULE:GRAPH")
@click.option("--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 is every network of this machine.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="Port to listen on; 0 takes a free one.")
@click.option("--app-dir", type=click.Path(path_type=Path), default=".", help="Folder to import MODULE from.")
@click.option("--name", default="default", help="Name of the application.")
@click.option("--route-prefix", default="/", help="Path below which it answers.")
@click.option("--access-log", is_flag=True, help="Log a line for each request.")
def serve(target: str, host: str, port: int, app_dir: Path, name: str, route_prefix: str, access_log: bool) -> None:
    """Serve a graph of deployments over HTTP.

    MODULE is the module to import, GRAPH the name in it that .bind() gave, or that of an ASGI application.

    \b
    Given app.py with

        from actorrt import serve

    \b
        @serve.deployment
        class Hello:
            async def __call__(self, request):
                return "hello"

    \b
        app = Hello.bind()

    run `actorrt serve app:app`, and `curl http://127.0.0.1:8000/` once the URL is printed.

    An ASGI application of FastAPI, Starlette, Django, Quart and others is served as it is, as one deployment.

    Ctrl-C lets running requests end and stops, and says meanwhile how many are left; Ctrl-C twice stops at once.
    Nothing is left running either way.
    """
    targets.look_in(app_dir)
    module = targets.find(target)
    if not route_prefix.startswith("/"):
        raise CommandError(f"--route-prefix {route_prefix}: it must start with a /", WRONG_USE)
    _check_port(host, port)
    options = actorrt.serve.HTTPOptions(host=host, port=port, access_log=access_log)
    stop = StopSignals()
    try:
        try:
            with Progress() as progress:
                url, deploy = _bring_up(progress, target, module, options, name, route_prefix)
                stop.now_serving()
        except BaseException:
            _take_down(name)
            raise
        if not isinstance(found := targets.named(target), actorrt.serve.Application):
            _say(f"{target} is {targets.kind_of(found)}: it is one deployment")
        _say(f"serving {target} on {url}{route_prefix}  (Ctrl-C drains and stops, twice stops at once)")
        while not _asked_to_stop(stop):
            _say("what was served is lost with the processes that kept it: it is deployed again")
            deploy()
            _say(f"serving {target} again")
        _say("stopping: running requests may end, new ones are refused  (Ctrl-C cuts them off)")
        with Progress() as progress:
            actorrt.serve.shutdown(say=progress.step if progress.watched else _say)
    except KeyboardInterrupt:
        raise CommandError(INTERRUPTED, BY_SIGNAL + stop.number) from None
    except actorrt.exceptions.ActorrtError as error:
        raise CommandError(str(error)) from None
    finally:
        actorrt.shutdown()


def _bring_up(
    progress: Progress, target: str, module: str, options: actorrt.serve.HTTPOptions, name: str, route_prefix: str
) -> tuple[str, Callable[[], object]]:
    """The URL of the proxy, once it answers for the application, and what deploys this again."""
    progress.step("starting the node and the proxy")
    # Other processes load and fork, while this one imports the user's module.
    with ThreadPoolExecutor(1) as beside:
        pointless = threading.Event()
        started = beside.submit(_start, options, pointless)
        try:
            progress.step(f"importing {module}")
            app = targets.load(target)
            # This loads what deploys it, while the node starts.
            deploy = partial(actorrt.serve.run, app, name=name, route_prefix=route_prefix)
        except BaseException:
            pointless.set()
            raise
        url = started.result()
    progress.step(f"starting the deployments of {target}")
    with Watch(progress, name):
        try:
            deploy()
        except (TypeError, ValueError) as error:
            raise CommandError(str(error), WRONG_USE) from None
    _wait_until_healthy(url)
    return url, deploy


def _take_down(name: str) -> None:
    """End what did not come up; the application before the proxy, so that those who wait for it are answered."""
    if not actorrt.is_initialized():
        return
    try:
        actorrt.serve.delete(name)
        actorrt.serve.shutdown()
    except actorrt.exceptions.ActorrtError:
        return  # there is no proxy yet, or nothing is left that could answer


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _asked_to_stop(stop: StopSignals) -> bool:
    """Wait for it, or for the loss of what is served: False. Raises CommandError if the node ends meanwhile."""
    loss = Loss()
    while not stop.wait(LOOK_S):
        try:
            actorrt.nodes()
        except actorrt.exceptions.ActorrtError as error:
            raise CommandError(f"the node has ended, and all that it served: {error}") from None
        if loss.is_seen():
            return False
    return True


def _start(options: actorrt.serve.HTTPOptions, pointless: threading.Event) -> str:
    """Start a node, and a proxy on it unless there is nothing to serve. The URL that the proxy listens on."""
    try:
        actorrt.init(preload_modules=actorrt.serve.WORKER_MODULES)
        if pointless.is_set():
            return ""
        return actorrt.serve.start(options)
    except (OSError, RuntimeError) as error:
        raise CommandError(str(error)) from None


def _wait_until_healthy(url: str) -> None:
    deadline = time.monotonic() + HEALTHY_WITHIN_S
    address = urlsplit(url)
    while True:
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=HEALTHY_WITHIN_S)
        try:
            connection.request("GET", "/-/healthz")
            if connection.getresponse().status == HTTPStatus.OK:
                return
        except OSError as error:
            raise CommandError(f"the proxy does not answer on {url}: {error}") from None
        finally:
            connection.close()
        if time.monotonic() > deadline:
            raise CommandError(f"the proxy on {url} was not ready within {HEALTHY_WITHIN_S:g} s")
        time.sleep(0.01)


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
