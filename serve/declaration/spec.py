"""What the controller is told to run: a deployment of an application, with its code as opaque bytes.

Nothing here unpickles user code; only replicas do.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

from ..base.news import DEFAULT_POLICY, PolicyKind
from ..http.root_path import check_path
from .options import DeploymentOptions
from .router_options import DEFAULT_ROUTER


class DeploymentId(NamedTuple):
    """Names a deployment in the cluster: `app#name` where people read it."""

    app: str
    name: str

    def __str__(self) -> str:
        return f"{self.app}#{self.name}"


@dataclass(frozen=True, slots=True)
class DeploymentSpec:
    """`code` is the pickled (callable, args, kwargs), `config` the pickled user_config, which `options` lacks, as they
    lack the request router.

    `version` changes if replicas have to be replaced for an update, `config_version` if it is enough to tell those that
    run.
    """

    id: DeploymentId
    options: DeploymentOptions
    code: bytes
    config: bytes
    version: str
    config_version: str
    request_router: PolicyKind = DEFAULT_POLICY


@dataclass(frozen=True, slots=True)
class ApplicationSpec:
    """The deployments of one application; HTTP requests under `route_prefix` go to `ingress`. None: no HTTP."""

    name: str
    route_prefix: str | None
    ingress: str
    deployments: tuple[DeploymentSpec, ...]


def make_spec(
    app: str,
    name: str,
    options: DeploymentOptions,
    code: bytes,
    config: bytes,
    request_router: PolicyKind = DEFAULT_POLICY,
) -> DeploymentSpec:
    """The spec with its versions; they follow from the contents alone. Replicas know nothing of the request router."""
    restart = hashlib.blake2b(code, digest_size=8)
    restart.update(repr(_sorted(options.actor_options)).encode())
    light = hashlib.blake2b(config, digest_size=8)
    light.update(repr(options.max_ongoing_requests).encode())
    options = replace(options, user_config=None, request_router=DEFAULT_ROUTER)
    versions = restart.hexdigest(), light.hexdigest()
    return DeploymentSpec(DeploymentId(app, name), options, code, config, *versions, request_router)


def resources_of(spec: DeploymentSpec) -> dict[str, float]:
    """What each of its replicas takes."""
    options: Mapping[str, Any] = spec.options.actor_options
    taken: dict[str, float] = dict(options.get("resources") or {})
    for name, plain in (("num_cpus", "CPU"), ("num_gpus", "GPU"), ("memory", "memory")):
        if options.get(name):
            taken[plain] = options[name]
    return taken


def _sorted(value: object) -> object:
    if isinstance(value, Mapping):
        items = cast(Mapping[Any, Any], value)
        return sorted((str(key), _sorted(each)) for key, each in items.items())
    return value


def check_route_prefix(prefix: object) -> str | None:
    """The prefix without a slash at its end. TypeError or ValueError says what is wrong with it."""
    if prefix is None:
        return None
    if not isinstance(prefix, str):
        raise TypeError(f"route_prefix must be a str or None, not {type(prefix).__name__}")
    if not prefix.startswith("/"):
        raise ValueError(f"route_prefix must start with '/', not {prefix!r}")
    check_path("route_prefix", prefix)
    if prefix == "/-" or prefix.startswith("/-/"):
        raise ValueError("route_prefix must not lie under '/-': that is for health checks and the like")
    return prefix.rstrip("/") or "/"
