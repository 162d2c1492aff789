"""What programs call: `run`, `start`, `delete`, `shutdown`, `status`, and handles by name.

They talk to the controller, which they start if it is not there. They block, so they are for drivers and scripts; in a
coroutine use `asyncio.to_thread`.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from actorrt import ActorHandle, ObjectRef, exceptions, get, init, is_initialized, kill, remote

from .base import connection
from .base.encodable import is_encodable
from .base.news import PolicyKind
from .base.worker_modules import WORKER_MODULES
from .control.controller import Controller
from .control.deployments import MANY_CALLS
from .control.drain_watch import DrainWatch
from .control.statuses import ServeStatus
from .declaration.applications import as_graph
from .declaration.declaration import Application
from .declaration.graph import BoundDeployment, flatten
from .declaration.router_options import RequestRouterConfig, queue_config
from .declaration.shipping import pickle_code, pickle_value
from .declaration.spec import ApplicationSpec, DeploymentId, check_route_prefix, make_spec
from .exceptions import DeployFailedError, DeploymentUnavailableError, ServeError
from .http.http_options import HTTPOptions
from .http.tls import located
from .routing.handle import DeploymentHandle

if TYPE_CHECKING:
    from starlette.types import ASGIApp

T = TypeVar("T")

logger = logging.getLogger("actorrt.serve")

DEFAULT_APP = "default"
_ControllerActor = remote(Controller)
# Where this process has had Serve listen: should controller and proxy die together, it listens there again.
_listened: WeakKeyDictionary[connection.Connection, HTTPOptions] = WeakKeyDictionary()


def start(http_options: HTTPOptions | Mapping[str, Any] | None = None, *, proxy: bool = True) -> str:
    """Start Serve and its HTTP proxy, if they do not run; returns the URL that the proxy listens on, "" without one.

    OSError if the address cannot be listened on, ValueError or TypeError for wrong options, such as TLS files that are
    missing or do not fit together.
    """
    options = located(HTTPOptions.parse(http_options))
    if options.forwarded_allow_ips is None:
        options = replace(options, forwarded_allow_ips=os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1"))
    known = _controller()
    if not proxy:
        return ""
    if http_options is None:
        options = _listened.get(known, options)
    if options.ssl_certfile and (trouble := connection.ask(lambda it: it.check_tls.remote(options), _controller)):
        raise ValueError(trouble)
    answer: tuple[str, str] = connection.ask(
        lambda it: it.start_proxy.remote(options, http_options is None), _controller
    )
    url, trouble = answer
    if trouble:
        raise OSError(trouble)
    if http_options is not None:
        _listened[known] = replace(options, port=urlsplit(url).port or options.port)
    return url


def _controller() -> connection.Connection:
    if not is_initialized():
        init(preload_modules=WORKER_MODULES)
    if (found := connection.connected()) is not None:
        return found
    controller: ActorHandle[Any] = _ControllerActor.options(
        name=connection.CONTROLLER,
        namespace=connection.NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        isolated=True,
        max_restarts=-1,
        max_concurrency=MANY_CALLS,
    ).remote()
    return connection.set_controller(controller)


def run(
    target: Application[T] | ASGIApp,
    blocking: bool = False,
    name: str = DEFAULT_APP,
    route_prefix: str | None = "/",
    *,
    http_options: HTTPOptions | Mapping[str, Any] | None = None,
) -> DeploymentHandle[T]:
    """Deploy an application and return a handle of its ingress once it runs. What runs already is updated, rolling.

    `target` is a graph that `.bind()` gave, or an ASGI application, which is then one deployment (`from_asgi`).

    `route_prefix` None: it is reached by handles only. `blocking`: say where it is, do not return before Ctrl-C or
    SIGTERM, then shut Serve down, letting running requests end.
    Raises TypeError or ValueError if this is no graph or an option is wrong, OSError if the proxy cannot listen, and
    DeployFailedError if a deployment cannot be brought up; a version that served before goes on serving then.
    """
    spec = build(target, name, route_prefix)
    url = start(http_options, proxy=route_prefix is not None)
    if trouble := connection.ask(lambda it: it.deploy.remote(spec), _controller):
        raise ValueError(trouble)
    if trouble := connection.ask(lambda it: it.wait_until_up.remote(name)):
        raise DeployFailedError(name, trouble)
    handle: DeploymentHandle[T] = DeploymentHandle(DeploymentId(name, spec.ingress))
    if blocking:
        where = f" on {url}{route_prefix}" if url else ""
        _wait_for_interrupt(f"serving {name}{where}  (Ctrl-C drains and stops)")
        shutdown(say=_say)
    return handle


def build(target: Application[Any] | ASGIApp, name: str, route_prefix: str | None) -> ApplicationSpec:
    """The application as the controller wants it. TypeError and ValueError as for `run`; nothing is started."""
    if not isinstance(cast(object, name), str):
        raise TypeError(f"name must be a str, not {type(name).__name__}")
    if not name or any(mark in name for mark in "#/\n"):
        raise ValueError(f"name must not be empty or hold '#', '/' or a line break: {name!r}")
    if not is_encodable(name):
        raise ValueError(f"name must be a text that UTF-8 has, not {name!r}")
    prefix = check_route_prefix(route_prefix)
    flat = flatten(as_graph(target), lambda each: DeploymentHandle[Any](DeploymentId(name, each)))
    _check_readers(flat)
    specs = [
        make_spec(
            name,
            each.name,
            each.deployment.all_options,
            pickle_code(each.deployment.func_or_class, each.args, dict(each.kwargs), each.name),
            pickle_value(each.deployment.user_config, f"user_config of {each.name!r}"),
            _policy_kind(each.deployment.all_options.request_router, each.name),
        )
        for each in flat
    ]
    return ApplicationSpec(name, prefix, flat[-1].name, tuple(specs))


def _check_readers(flat: Sequence[BoundDeployment]) -> None:
    """ValueError where replicas would read prompts for two deployments, each of whose queues counts alone."""
    reads_for: dict[str, str] = {}
    for each in flat:
        queue = queue_config(each.deployment.all_options.request_router)
        if queue is None or queue.prefill is None:
            continue
        if (other := reads_for.setdefault(queue.prefill, each.name)) != each.name:
            raise ValueError(
                f"{queue.prefill!r} cannot read prompts for both {other!r} and {each.name!r}: bind a model once, or "
                "give each a name of its own, build_llm_deployment(config, name=...)"
            )


def _policy_kind(given: RequestRouterConfig, deployment: str) -> PolicyKind:
    cls = given.request_router_class
    if (config := queue_config(given)) is not None:
        return PolicyKind(cast(str, cls), pickle_value(config, f"request_router of {deployment!r}"))
    if isinstance(cls, str):
        return PolicyKind(cls)
    code = pickle_value((cls, dict(given.request_router_kwargs)), f"request_router of {deployment!r}")
    return PolicyKind(cls.__qualname__, code)


def _wait_for_interrupt(text: str) -> None:
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if in_main_thread else None
    try:
        _say(text)
        threading.Event().wait()
    except KeyboardInterrupt:
        return
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def delete(name: str) -> None:
    """Take an application down, letting running requests finish; returns when it is gone.

    If there is none of that name nothing happens, which is logged. ServeError if Serve does not run.
    """
    if not connection.ask(lambda it: it.delete.remote(name)):
        logger.info("there is no application %r that could be deleted", name)


def status() -> ServeStatus:
    """How applications, deployments and proxies are. Empty if Serve does not run."""
    if not is_initialized():
        return ServeStatus()
    try:
        connection.connect()
    except ServeError:
        return ServeStatus()
    return connection.ask(_status_of)


def _status_of(controller: ActorHandle[Any]) -> ObjectRef[ServeStatus]:
    return controller.status.remote()


def shutdown(*, say: Callable[[str], object] | None = None) -> None:
    """Drain and end the proxy, then all applications, then Serve. Nothing happens if it does not run.

    `say` is called about once a second, on a thread of its own, with a line on what is still waited for, and how long.
    """
    if not is_initialized():
        return
    try:
        found = connection.connect()
    except ServeError:
        return
    try:
        # Of this controller and no other: once it has ended nothing is left to be connected to.
        with DrainWatch(say, lambda: get(_status_of(found.controller))):
            connection.ask(lambda it: it.shutdown.remote())
    except exceptions.ActorrtError as error:
        raise ServeError(f"Serve did not shut down by itself: {error}") from error
    finally:
        connection.disconnect()
        kill(found.controller)


def get_app_handle(name: str = DEFAULT_APP) -> DeploymentHandle[Any]:
    """A handle of an application's ingress. DeploymentUnavailableError if there is no such application."""
    ingress = connection.ask(lambda it: it.ingress_of.remote(name))
    if not ingress:
        raise DeploymentUnavailableError(name, "there is no such application")
    return DeploymentHandle(DeploymentId(name, ingress))


def get_deployment_handle(deployment_name: str, app_name: str = DEFAULT_APP) -> DeploymentHandle[Any]:
    """A handle of one deployment. DeploymentUnavailableError if there is none of that name."""
    id = DeploymentId(app_name, deployment_name)
    if not connection.ask(lambda it: it.has_deployment.remote(app_name, deployment_name)):
        raise DeploymentUnavailableError(str(id), "there is no such deployment")
    return DeploymentHandle(id)
