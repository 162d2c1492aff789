import asyncio
import copy
import inspect
import json
import pickle
import traceback
from dataclasses import dataclass

import pytest
from pydantic import BaseModel, ValidationError

from actorrt import exceptions
from actorrt.exceptions import ActorDiedError, ActorrtError, TaskCancelledError, TaskError

FIELDS: dict[str, object] = {
    "actor": "Counter(01ab)", "cause": "signal 9", "class_name": "Odd", "function": "Counter.incr", "group": "ab",
    "limit": 10,
    "may_have_run": False, "member": "x.lock", "missing": "1 of 2 CPU", "name": "n", "namespace": "s", "node": "01",
    "object": "ff", "phase": "starting", "pid": 7, "question": "who is n", "seconds": 2.5,
    "shape": {"CPU": 2.0}, "size": 10**6, "state": "it ended", "task": "f", "text": "odd",
    "timeout": 1.5, "traceback_text": "Traceback (most recent call last):\n  line\nOdd: odd", "waited_s": 60.0,
    "what": "f",
}  # fmt: skip

PUBLIC = [
    kind
    for name, kind in vars(exceptions).items()
    if inspect.isclass(kind) and issubclass(kind, ActorrtError) and not name.startswith("_")
]


def example(kind: type[ActorrtError]) -> ActorrtError:
    if kind in (ActorrtError, exceptions.ActorError):
        return kind("text")
    return kind(*(FIELDS[name] for name in inspect.signature(kind).parameters))


@pytest.mark.parametrize("kind", PUBLIC)
def test_every_public_error_survives_pickle_with_its_fields_and_text(kind: type[ActorrtError]) -> None:
    error = example(kind)
    error.add_note("seen by the caller")
    for made in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(made) is kind
        assert str(made) == str(error)
        assert made.args == error.args
        assert vars(made) == vars(error)


@pytest.mark.parametrize("kind", [kind for kind in PUBLIC if kind not in (ActorrtError, exceptions.ActorError)])
def test_every_text_is_one_lower_case_sentence_without_a_period(kind: type[ActorrtError]) -> None:
    text = str(example(kind))
    assert not text.endswith(".")
    assert "\n" not in text
    assert "<" not in text


def test_the_tree_in_the_docstring_names_every_class() -> None:
    assert exceptions.__doc__ is not None
    for kind in PUBLIC:
        assert kind.__name__ in exceptions.__doc__


class Plain(Exception):
    pass


class NoRoom(MemoryError):
    """As NumPy's: the error of an array that is too large."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape)
        self.shape = shape


class WantsTwo(Exception):
    """The classic that does not unpickle: its args are not what its constructor takes."""

    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")
        self.first, self.second = first, second


class Slotted(Exception):
    __slots__ = ("code",)
    code: int


@dataclass(frozen=True)
class Frozen(Exception):
    code: int


class OwnFields(Exception):
    @property
    def cause(self) -> str:
        return "the user's"


class RefusesSubclasses(Exception):
    def __init_subclass__(cls) -> None:
        raise RuntimeError("final")


class RefusesToBeMade(Exception):
    def __new__(cls, *args: object) -> "RefusesToBeMade":
        if cls is not RefusesToBeMade:
            raise RuntimeError("not like this")
        return super().__new__(cls, *args)


def failed(cause: BaseException) -> TaskError:
    try:
        raise cause
    except BaseException as error:
        return TaskError("f", 7, None, "".join(traceback.format_exception(error)), cause)


def slotted() -> Slotted:
    made = Slotted("s")
    made.code = 4
    return made


@pytest.mark.parametrize(
    "cause",
    [
        ValueError("bad"),
        KeyError("missing"),
        FileNotFoundError(2, "no such file", "x.txt"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"),
        json.JSONDecodeError("odd", "{", 1),
        ExceptionGroup("several", [ValueError("one")]),
        MemoryError("no room"),
        NoRoom((3, 4)),
        Plain(),
        WantsTwo(1, 2),
        slotted(),
        Frozen(3),
        OwnFields("own"),
        ActorDiedError("a", "running", "signal 9"),
        TaskCancelledError("g"),
        asyncio.InvalidStateError("state"),
    ],
    ids=lambda cause: type(cause).__name__,
)
def test_a_task_error_is_also_what_the_task_raised(cause: Exception) -> None:
    dual = failed(cause).as_instanceof_cause()
    for error in (dual, copy.copy(dual), pickle.loads(pickle.dumps(dual))):
        assert isinstance(error, TaskError)
        assert isinstance(error, type(cause))
        assert error is error.as_instanceof_cause()
        assert str(error) == str(cause)
        assert [str(arg) for arg in error.args] == [str(arg) for arg in cause.args]
        assert error.function == "f"
        for name in ("errno", "strerror", "filename", "object", "start", "pos", "first", "second", "code", "phase"):
            assert getattr(error, name, None) == getattr(cause, name, None)


def test_a_cause_that_pickle_could_not_make_again_arrives_as_itself() -> None:
    made = pickle.loads(pickle.dumps(failed(WantsTwo(1, 2))))
    assert type(made) is TaskError
    assert type(made.cause) is WantsTwo
    assert (made.cause.first, str(made.cause)) == (1, "1 and 2")
    assert made.__notes__ == failed(WantsTwo(1, 2)).__notes__


def test_the_remote_traceback_is_shown_with_the_error() -> None:
    text = "".join(traceback.format_exception(failed(ValueError("bad")).as_instanceof_cause()))
    assert text.count("remote traceback, f, process 7:") == 1
    assert "in failed" in text
    assert "raise cause" in text


def test_notes_of_the_user_stay() -> None:
    cause = ValueError("bad")
    cause.add_note("mine")
    dual = failed(cause).as_instanceof_cause()
    assert dual.__notes__[0] == "mine"
    assert cause.__notes__ == ["mine"]


def test_an_error_of_a_nested_task_is_what_the_innermost_one_raised() -> None:
    inner = failed(ValueError("bad")).as_instanceof_cause()
    outer = failed(inner).as_instanceof_cause()
    assert isinstance(outer, ValueError)
    assert str(outer) == "bad"
    assert outer.cause is inner
    assert type(outer) is type(inner)
    assert type(outer.root_cause) is ValueError


def validation_error() -> ValidationError:
    class Model(BaseModel):
        x: int

    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"x": "odd"})
    return caught.value


@pytest.mark.parametrize(
    "cause",
    [
        KeyboardInterrupt(),
        SystemExit(3),
        asyncio.CancelledError(),
        StopIteration(1),
        StopAsyncIteration(),
        RefusesSubclasses(),
        RefusesToBeMade(),
        validation_error(),
    ],
    ids=lambda cause: type(cause).__name__,
)
def test_a_cause_that_cannot_be_raised_here_stays_inside_its_task_error(cause: BaseException) -> None:
    error = failed(cause)
    assert error.as_instanceof_cause() is error
    assert error.cause is cause
    assert f"f raised in process 7: {type(cause).__name__}" in str(error)


def test_the_members_of_a_group_can_be_caught_apart() -> None:
    caught: list[BaseException] = []
    try:
        raise failed(ExceptionGroup("several", [ValueError("one"), KeyError("two")])).as_instanceof_cause()
    except* ValueError as group:
        caught.extend(group.exceptions)
    except* KeyError as group:
        caught.extend(group.exceptions)
    assert [type(error) for error in caught] == [ValueError, KeyError]


# ---- errors as users and libraries write them


class Upstream(OSError):
    pass


class Keyworded(Exception):
    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


class ReadOnlyArgs(Exception):
    def __init__(self, text: str) -> None:
        self.text = text

    @property
    def args(self) -> tuple[str]:  # type: ignore[override]
        return (self.text,)


class OfTwoFamilies(KeyError, AttributeError):
    pass


class OwnGroup(ExceptionGroup[Exception]):
    def __new__(cls, message: str, members: list[Exception], *, code: int) -> "OwnGroup":
        made = super().__new__(cls, message, members)
        made.code = code
        return made

    def __init__(self, message: str, members: list[Exception], *, code: int) -> None:
        super().__init__(message, members)

    code: int


def chained() -> Exception:
    try:
        try:
            raise Keyworded("inner", code=1)
        except Keyworded as error:
            raise ValueError("outer") from error
    except ValueError as error:
        return error


def circular() -> Exception:
    first, second = ValueError("first"), KeyError("second")
    first.__context__, second.__context__ = second, first
    return first


@pytest.mark.parametrize(
    "cause",
    [
        Upstream("the store refused"),
        Upstream(111, "refused"),
        Upstream(2, "no such file", "x.txt"),
        ConnectionResetError(104, "reset"),
        Keyworded("many", code=429),
        ReadOnlyArgs("boom"),
        OfTwoFamilies("k"),
        ExceptionGroup("several", [Keyworded("many", code=429), ExceptionGroup("inner", [Upstream("no")])]),
        OwnGroup("own", [Keyworded("many", code=429)], code=5),
        ImportError("no module", name="m", path="p"),
        SyntaxError("bad", ("f.py", 1, 2, "x =", 1, 3)),
        chained(),
        circular(),
        RuntimeError("holds one", Keyworded("inside", code=1)),
    ],
    ids=lambda cause: type(cause).__name__,
)
def test_an_error_keeps_its_class_text_and_facts_on_its_way(cause: Exception) -> None:
    dual = pickle.loads(pickle.dumps(failed(cause))).as_instanceof_cause()
    assert isinstance(dual, type(cause))
    assert str(dual) == str(cause)
    for name in ("errno", "strerror", "filename", "code", "text", "name", "lineno", "offset"):
        assert getattr(dual, name, None) == getattr(cause, name, None)


def test_members_of_a_group_and_causes_arrive_as_themselves() -> None:
    group = ExceptionGroup("several", [Keyworded("many", code=429), ExceptionGroup("inner", [Upstream("no")])])
    made = pickle.loads(pickle.dumps(failed(group))).as_instanceof_cause()
    assert [type(member) for member in made.exceptions] == [Keyworded, ExceptionGroup]
    assert made.exceptions[0].code == 429
    assert str(made.exceptions[1].exceptions[0]) == "no"
    made = pickle.loads(pickle.dumps(failed(chained()))).as_instanceof_cause()
    assert type(made.__cause__) is Keyworded
    assert made.__cause__.code == 1


class AnotherTryError(Exception):
    def __init__(self, text: str, before: Exception | None) -> None:
        super().__init__(text)
        self.before = before


def test_an_error_that_many_others_refer_to_is_sent_once() -> None:
    last: AnotherTryError | None = None
    for number in range(30):
        try:
            raise AnotherTryError(str(number), last) from last
        except AnotherTryError as error:
            last = error
    assert last is not None
    data = pickle.dumps(exceptions.pack(last))
    assert len(data) < 30_000
    back = pickle.loads(data)
    assert back.before is back.__cause__
    assert back.before.before is back.before.__cause__
    assert back.before.before.args == ("27",)


def test_what_an_attribute_error_is_about_is_not_sent() -> None:
    class Huge:
        def __reduce__(self) -> str:
            raise AssertionError("it was pickled")

    with pytest.raises(AttributeError) as caught:
        Huge().odd  # type: ignore[attr-defined]  # noqa: B018
    made = pickle.loads(pickle.dumps(failed(caught.value)))
    assert (type(made.cause), made.cause.name) == (AttributeError, "odd")
