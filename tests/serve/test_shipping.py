"""What of a deployment travels to its replica, and what is said of what cannot."""

import contextlib
import functools
import sqlite3
import threading
from typing import Any

import pytest
from starlette.applications import Starlette

from actorrt import serve
from actorrt.exceptions import NotSerializableError

from .conftest import Serving


def holding(value: Any) -> serve.Application[Any]:
    @serve.deployment
    class Holds:
        def __call__(self) -> Any:
            return value

    return Holds.bind()


def taking(value: Any) -> serve.Application[Any]:
    @serve.deployment
    class Takes:
        def __init__(self, first: Any, *, second: Any = None) -> None: ...

    return Takes.bind(1, second=value)


def ingress_of(connection: Any) -> serve.Application[Any]:
    app = Starlette()
    app.state.connection = connection

    @serve.deployment
    @serve.ingress(app)
    class Front: ...

    return Front.bind()


def bare(connection: Any) -> Any:
    app = Starlette()
    app.state.connection = connection
    return app


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (holding, ["deployment 'Holds'", "its method __call__, its captured variable 'value'", "constructor"]),
        (lambda it: holding([it]), ["its captured variable 'value'[0]", "constructor"]),
        (lambda it: taking([1, {"key": it}]), ["argument 'second' of deployment 'Takes'", "[1]['key']", "constructor"]),
        (
            ingress_of,
            ["deployment 'Front'", "its application.state._state['connection']", "give a function that makes"],
        ),
        (bare, ["argument 1 of deployment 'Starlette'", ".state._state['connection']", "serve.from_asgi"]),
    ],
)
def test_what_cannot_be_sent_is_named_inside_its_deployment_with_a_remedy(target: Any, said: list[str]) -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection, pytest.raises(NotSerializableError) as refused:
        serve.build(target(connection), "unsendable", "/")
    assert [each for each in said if each not in str(refused.value)] == []
    assert "cannot pickle 'sqlite3.Connection' object" in str(refused.value)


@serve.deployment
class Named:
    LIMIT = 3

    def __init__(self) -> None:
        super(Named, self).__init__()  # type: ignore[arg-type]  # noqa: UP008
        self.lock = threading.RLock()

    @staticmethod
    def double(number: int) -> int:
        return 2 * number

    @functools.cached_property
    def whole(self) -> int:
        return Named.double(Named.LIMIT)  # type: ignore[attr-defined]

    def __call__(self) -> list[Any]:
        with self.lock:
            return [self.whole, isinstance(self, Named), Named.__name__]  # type: ignore[arg-type, attr-defined]


def test_a_class_uses_its_own_decorated_name_as_in_plain_python(serving: Serving) -> None:
    named: Any = Named
    assert (named.LIMIT, named.double(2)) == (3, 4)
    assert isinstance(object.__new__(Named.func_or_class), named)  # type: ignore[type-var]
    assert not isinstance(3, named)
    assert issubclass(type("Below", (Named.func_or_class,), {}), named)  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        _ = named.missing
    assert serving.client.get(serving.run(Named.bind(), "own-name")).json() == [6, True, "Named"]


LOCK = threading.RLock()


class Caches:
    @functools.cached_property
    def value(self) -> int:
        return 7


def test_locks_and_cached_properties_are_made_anew_in_the_replica(serving: Serving) -> None:
    held = threading.Lock()

    @serve.deployment
    class Uses:
        lock = threading.RLock()

        def __init__(self, caches: Caches, given: Any) -> None:
            self.caches, self.given = caches, given

        def __call__(self) -> int:
            with self.lock, self.given, held, LOCK:
                return self.caches.value

    caches = Caches()
    assert caches.value == 7
    assert serving.client.get(serving.run(Uses.bind(caches, threading.RLock()), "locks")).json() == 7
