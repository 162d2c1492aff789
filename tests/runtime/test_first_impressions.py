"""What users read first: errors that name their own code and the remedy, tracebacks of their own lines, one warning."""

from __future__ import annotations

import asyncio
import functools
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import actorrt
from actorrt import exceptions
from actorrt.core.object_state import RAISED
from actorrt.runtime.owner.entries import Entry
from actorrt.runtime.owner.outcomes import _failure_bytes

LOCK = threading.Lock()


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    with actorrt.init(num_cpus=2) as context:
        yield context


@actorrt.remote
def echo(value: Any) -> Any:
    return value


def capturing(value: Any) -> Callable[[], Any]:
    def captures() -> Any:
        return value

    return captures


def with_default() -> Callable[..., Any]:
    def waits(lock: Any = LOCK) -> Any:
        return lock

    return waits


def class_with(member: Any) -> type:
    class Held:
        shared = member

        def method(self) -> None: ...

    return Held


def class_whose_method_captures(value: Any) -> type:
    class Uses:
        def method(self) -> Any:
            return value

    return Uses


class Holder:
    def __init__(self) -> None:
        self.inner = [threading.RLock()]


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize(
    ("code", "names"),
    [
        (capturing(threading.Lock()), ["function captures", "its captured variable 'value'", "_thread.lock"]),
        (capturing(Holder()), ["function captures", "its captured variable 'value'.inner[0]", "RLock"]),
        (capturing(capturing(LOCK)), ["its captured variable 'value', its captured variable 'value'"]),
        (capturing(functools.partial(echo, LOCK)), ["its captured variable 'value', its arguments"]),
        (with_default(), ["function waits", "its default of 'lock'"]),
        (class_with(LOCK), ["class Held", "its attribute 'shared'"]),
        (class_whose_method_captures(LOCK), ["class Uses", "its method method, its captured variable 'value'"]),
    ],
    ids=["lock", "member", "function", "partial", "default", "attribute", "method"],
)
def test_code_that_cannot_be_sent_is_named_with_what_it_holds(code: Any, names: list[str]) -> None:
    with pytest.raises(exceptions.NotSerializableError) as caught:
        actorrt.remote(code).remote()
    for name in names:
        assert name in str(caught.value)
    assert "make it inside of the code that uses it" in str(caught.value)


@pytest.mark.usefixtures("session")
def test_an_open_file_that_a_function_captures_is_named() -> None:
    with open(__file__, "rb") as file, pytest.raises(exceptions.NotSerializableError) as caught:
        actorrt.remote(capturing(file)).remote()
    assert "its captured variable 'value': cannot pickle '_io.BufferedReader'" in str(caught.value)


@pytest.mark.usefixtures("session")
def test_a_global_that_cannot_be_sent_is_named() -> None:
    space: dict[str, Any] = {"lock": threading.Lock(), "__name__": "__main__"}
    exec("def outer():\n    return [inner() for _ in range(2)]\ndef inner():\n    return lock", space)
    with pytest.raises(exceptions.NotSerializableError, match=r"outer .*its global 'inner', its global 'lock'"):
        actorrt.remote(space["outer"]).remote()
    with pytest.raises(exceptions.NotSerializableError, match=r"argument 1 of echo .*its global 'lock'"):
        echo.remote(space["inner"])


def failing() -> None:
    actorrt.get(5)  # type: ignore[call-overload]


def test_a_remote_traceback_has_lines_of_the_user_alone() -> None:
    try:
        try:
            failing()
        except TypeError as error:
            raise ExceptionGroup("several", [ValueError("one")]) from error
    except ExceptionGroup as error:
        entry = Entry(b"owner", 1)
        entry.settle(RAISED, _failure_bytes("f", None, error))
    told = "".join(traceback.format_exception_only(entry.error()))
    assert "in failing" in told
    assert "actorrt.get(5)" in told
    assert "runtime/api.py" not in told


def test_the_context_says_where_it_is(session: Any) -> None:
    assert repr(session).startswith("<actorrt session at /")
    assert session["namespace"] in repr(session)


def test_blocking_a_loop_is_warned_of_once_a_session() -> None:
    actorrt.shutdown()

    async def cells() -> None:
        for number in range(3):
            exec("\n" * number + "actorrt.get(echo.remote(1))", globals())

    for _ in range(2):
        with actorrt.init(num_cpus=1), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            asyncio.run(cells())
            assert [str(warning.message) for warning in caught] == [
                "get() blocks the event loop that it is called on; use `await ref`"
            ]


def test_a_handle_of_a_past_session_says_so_and_what_to_do() -> None:
    @actorrt.remote
    class Counter:
        async def count(self) -> int:
            return 1

    actorrt.shutdown()
    with actorrt.init(num_cpus=1):
        counter = Counter.remote()
        assert actorrt.get(counter.count.remote()) == 1
    with pytest.raises(RuntimeError, match="actorrt was shut down"):
        counter.count.remote()
    with actorrt.init(num_cpus=1):
        with pytest.raises(RuntimeError, match=r"Counter.count cannot be called: its handle is of a session .* anew"):
            counter.count.remote()
        with pytest.raises(exceptions.NotSerializableError, match="actorrt was shut down"):
            echo.remote(counter)
