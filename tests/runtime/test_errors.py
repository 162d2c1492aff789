"""What a caller gets of an error that cannot travel as it is, and of a value that cannot be made again."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from actorrt import exceptions
from actorrt.core.object_state import PRESENT, RAISED
from actorrt.runtime.owner.calls import error_bytes
from actorrt.runtime.owner.entries import Entry
from actorrt.wire import codec


class Holds(Exception):
    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        vars(self).update(facts)


class Told(Exception):
    """Its text is made of what cannot be sent."""

    def __init__(self, lock: Any) -> None:
        super().__init__("told")
        self.lock = lock

    def __str__(self) -> str:
        return f"locked: {self.lock.locked()}"


class Cannot:
    """Pickles, and cannot be made again."""

    def __init__(self, one: int, two: int) -> None: ...

    def __reduce__(self) -> tuple[Any, ...]:
        return Cannot, (1,)


class Refuses:
    """Pickles, and raises an error as its state is set."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __setstate__(self, state: dict[str, Exception]) -> None:
        raise state["error"]


class OwnWay(Exception):
    def __reduce__(self) -> Any:
        return OwnWay, (1, 2, 3)

    def __init__(self, text: str) -> None:
        super().__init__(text)


class NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class OddNotes(Exception):
    __notes__ = 5


class NoNotes(Exception):
    @property
    def __notes__(self) -> Any:
        raise RuntimeError("no notes")


class NoArgs(Exception):
    @property
    def args(self) -> Any:
        raise RuntimeError("no args")


class NoState(Exception):
    @property
    def __dict__(self) -> Any:
        raise RuntimeError("no state")


class NoAttributes(Exception):
    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__notes__", "__cause__", "__context__", "__dict__"):
            return super().__getattribute__(name)
        raise RuntimeError("no attributes")


def arrived(cause: BaseException) -> Any:
    sent = exceptions.TaskError("f", 7, None, f"Traceback\n{type(cause).__name__}: as it was", cause)
    entry = Entry(b"owner", 1)
    entry.settle(RAISED, error_bytes(sent))
    return entry.error()


def test_only_what_cannot_be_sent_of_an_error_stays_behind() -> None:
    error = arrived(Holds("busy", lock=threading.Lock(), code=5, worse=Cannot(1, 2)))
    assert isinstance(error, Holds)
    assert str(error) == "busy"
    assert cast(Any, error).code == 5
    assert not hasattr(error, "lock")
    assert not hasattr(error, "worse")


def test_an_argument_that_cannot_be_sent_is_its_text() -> None:
    error = arrived(ValueError("busy", threading.Lock(), [1, Cannot(1, 2)]))
    assert isinstance(error, ValueError)
    assert error.args[0] == "busy"
    assert "lock" in error.args[1]
    assert "Cannot" in error.args[2][1]


def test_one_awkward_member_of_a_group_does_not_take_the_others_along() -> None:
    class Local(Exception):
        lock = threading.Lock()

    error = arrived(ExceptionGroup("several", [ValueError("one"), Local("two"), Holds("three", lock=threading.Lock())]))
    assert isinstance(error, ExceptionGroup)
    one, two, three = error.exceptions
    assert (type(one), type(three), str(three)) == (ValueError, Holds, "three")
    assert isinstance(two, exceptions.UnserializableException)
    assert "Local: two" in str(two)


def test_an_awkward_cause_leaves_the_error_itself_alone() -> None:
    outer = ValueError("outer")
    outer.__cause__ = Holds("inner", lock=threading.Lock())
    error = arrived(outer)
    assert isinstance(error, ValueError)
    assert str(error.__cause__) == "inner"


def test_the_text_of_an_error_that_cannot_say_it_here_is_that_of_its_traceback() -> None:
    error = arrived(Told(threading.Lock()))
    assert isinstance(error, Told)
    assert str(error) == "as it was"
    error = arrived(NoText())
    assert isinstance(error, NoText)
    assert str(error) == "as it was"


def test_a_class_whose_own_way_of_pickling_fails_is_taken_apart() -> None:
    error = arrived(OwnWay("odd"))
    assert isinstance(error, OwnWay)
    assert str(error) == "odd"


@pytest.mark.parametrize(
    "cause", [KeyboardInterrupt(), SystemExit(3), BaseExceptionGroup("g", [SystemExit(threading.Lock())])]
)
def test_errors_that_end_programs_arrive_inside_of_a_task_error(cause: BaseException) -> None:
    error = arrived(cause)
    assert type(error) is exceptions.TaskError
    assert isinstance(error.cause, type(cause))


def test_an_error_that_never_ends_arrives_all_the_same() -> None:
    inner: Exception = ValueError("the first")
    for number in range(2_000):
        inner, inner.__context__ = ValueError(number), inner  # type: ignore[misc]
        outer = ValueError(number)
        outer.__context__ = inner
        inner = outer
    assert isinstance(arrived(inner), ValueError)
    held = Holds("itself")
    held.args = (held,)
    assert isinstance(arrived(held), Holds)


def test_a_value_that_cannot_be_made_again_says_so() -> None:
    entry = Entry(b"owner", 1)
    entry.settle(PRESENT, codec.pack(codec.serialize(Cannot(1, 2))))
    with pytest.raises(exceptions.NotSerializableError, match="cannot be unpickled here: TypeError") as caught:
        entry.load()
    assert isinstance(caught.value.__cause__, TypeError)


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), AssertionError("version"), FileNotFoundError(2, "gone"), NameError()]
)
def test_whatever_a_value_raises_as_it_is_made_again_is_named(error: Exception) -> None:
    entry = Entry(b"owner", 1)
    entry.settle(PRESENT, codec.pack(codec.serialize(Refuses(error))))
    with pytest.raises(exceptions.NotSerializableError, match=f"cannot be unpickled here: {type(error).__name__}"):
        entry.load()


@pytest.mark.parametrize("kind", [OddNotes, NoNotes, NoArgs, NoState, NoAttributes])
def test_an_error_of_whose_facts_one_cannot_be_read_arrives_with_its_traceback(kind: type[Exception]) -> None:
    error = arrived(kind("odd"))
    assert isinstance(error, exceptions.TaskError)
    assert kind.__name__ in f"{type(error).__name__} {error}"
    if kind is not NoNotes:
        assert any("as it was" in str(note) for note in error.__notes__)
