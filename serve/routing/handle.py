"""Handles: how Python code calls a deployment, from anywhere in the cluster."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, TypeVar, overload

from ..base.request_context import current_request
from ..declaration.handle_options import HandleOptions, parse_handle_options
from ..declaration.spec import DeploymentId
from ..policies.policy import Cost
from .response import DeploymentResponse, DeploymentResponseGenerator
from .router import Router, router_of

P = ParamSpec("P")
R = TypeVar("R")
T_co = TypeVar("T_co", covariant=True)


class DeploymentHandle(Generic[T_co]):
    """Calls a deployment: `handle.remote(...)`, or `handle.method.remote(...)` for another method than `__call__`.

    It travels: into constructors by `.bind()`, and as an argument. Requests are spread over the replicas; see
    `DeploymentResponse` for what a call gives.
    """

    __slots__ = ("_deployment", "_options", "_router")

    def __init__(self, deployment: DeploymentId, options: HandleOptions | None = None) -> None:
        self._deployment = deployment
        self._options = options or HandleOptions()
        self._router: Router | None = None

    @property
    def deployment_name(self) -> str:
        return self._deployment.name

    @property
    def app_name(self) -> str:
        return self._deployment.app

    if TYPE_CHECKING:

        @overload
        def options(self, *, method_name: str = ..., stream: Literal[True], cost: Cost = ...) -> StreamHandle[T_co]: ...
        @overload
        def options(
            self, *, method_name: str = ..., stream: Literal[False] = ..., cost: Cost = ...
        ) -> DeploymentHandle[T_co]: ...
        def options(self, **options: Any) -> Any: ...

        # A plain function or an instance with __call__; the first overload that fits says what the call gives.
        @overload
        def remote(
            self: DeploymentHandle[Callable[P, Awaitable[R]]], *args: P.args, **kwargs: P.kwargs
        ) -> DeploymentResponse[R]: ...
        @overload
        def remote(
            self: DeploymentHandle[Callable[P, R]], *args: P.args, **kwargs: P.kwargs
        ) -> DeploymentResponse[R]: ...
        @overload
        def remote(self, *args: Any, **kwargs: Any) -> DeploymentResponse[Any]: ...
        def remote(self, *args: Any, **kwargs: Any) -> Any: ...

        def __getattr__(self, name: str) -> DeploymentHandle[Any]: ...

    else:

        def options(self, **options):
            """The handle with another method, with `stream=True`, for methods that are generators, or with the `cost`
            of its calls, for the deployment's request router.

            An unknown option is a ValueError that names the nearest known one, a wrong type a TypeError.
            """
            return DeploymentHandle(self._deployment, parse_handle_options(options, self._options))._sharing(self)

        def remote(self, *args, **kwargs):
            """Call it. RequestRefusedError if its router does not take it, BackPressureError where that is because too
            many requests wait, DeploymentUnavailableError if it is gone.
            """
            router = self._router
            if router is None:
                router = self._router = router_of(self._deployment)
            context = current_request.get()
            options = self._options
            kind = DeploymentResponseGenerator if options.stream else DeploymentResponse
            request_id = context.request_id if context is not None else uuid.uuid4().hex
            response = kind(router, options, request_id, context, args, kwargs)
            response.start()
            return response

        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(f"{self!r} has no attribute {name!r}", name=name, obj=self)
            options = replace(self._options, method_name=name)
            return DeploymentHandle(self._deployment, options)._sharing(self)

    def _sharing(self, other: DeploymentHandle[Any]) -> DeploymentHandle[T_co]:
        self._router = other._router
        return self

    def __call__(self, *args: object, **kwargs: object) -> Any:
        raise TypeError(f"{self!r} runs in other processes: write .remote(...), then await the response")

    def __repr__(self) -> str:
        options = self._options
        method = "" if options.method_name == "__call__" else f".{options.method_name}"
        return f"DeploymentHandle({self._deployment}{method}{', stream' if options.stream else ''})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DeploymentHandle):
            return NotImplemented
        return (self._deployment, self._options) == (other._deployment, other._options)

    def __hash__(self) -> int:
        return hash((self._deployment, self._options))

    def __reduce__(self) -> tuple[Any, ...]:
        return DeploymentHandle, (self._deployment, self._options)


if TYPE_CHECKING:

    class StreamHandle(Generic[T_co]):
        """A DeploymentHandle with `stream=True`, for type checkers."""

        @overload
        def remote(
            self: StreamHandle[Callable[P, AsyncIterator[R]]], *args: P.args, **kwargs: P.kwargs
        ) -> DeploymentResponseGenerator[R]: ...
        @overload
        def remote(
            self: StreamHandle[Callable[P, Iterator[R]]], *args: P.args, **kwargs: P.kwargs
        ) -> DeploymentResponseGenerator[R]: ...
        @overload
        def remote(self, *args: Any, **kwargs: Any) -> DeploymentResponseGenerator[Any]: ...
        def remote(self, *args: Any, **kwargs: Any) -> Any: ...
        def options(self, *, method_name: str = ..., stream: bool = ..., cost: Cost = ...) -> StreamHandle[T_co]: ...
        def __getattr__(self, name: str) -> StreamHandle[Any]: ...
