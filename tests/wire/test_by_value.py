"""What the pickler by value adds to cloudpickle, whichever version that is; and plain values beside it."""

from __future__ import annotations

import copyreg
import dataclasses
import pickle
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import fastapi
import pydantic
import pytest
import starlette.applications

from actorrt.wire import by_value, codec, named


def back(value: Any) -> Any:
    return codec.deserialize(codec.pack(codec.serialize(value)))


def test_code_keeps_its_file_also_where_cloudpickle_leaves_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    table: dict[type, Any] = by_value._CloudPickler._dispatch_table
    reduce = table[types.CodeType]

    def without_file(code: types.CodeType) -> tuple[Any, tuple[Any, ...]]:
        made, facts = reduce(code)
        return made, tuple("<dynamic-code>" if fact == code.co_filename else fact for fact in facts)

    monkeypatch.setitem(table, types.CodeType, without_file)
    made = pickle.loads(by_value.dumps(lambda: 1))
    assert made.__code__.co_filename == __file__
    assert made() == 1


def test_sentinels_of_modules_are_themselves_in_plain_values() -> None:
    assert back(dataclasses.MISSING) is dataclasses.MISSING
    assert back([{"a": dataclasses.KW_ONLY}])[0]["a"] is dataclasses.KW_ONLY


def test_sentinels_are_themselves_while_another_thread_looks_through_new_modules(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    home: Any = types.ModuleType("home_of_a_sentinel")
    home.sentinel = object()
    monkeypatch.setitem(sys.modules, home.__name__, home)
    assert back(home.sentinel) is home.sentinel
    arrived: list[Any] = []

    def look(frame: types.FrameType, event: str, _: Any) -> Any:
        if frame.f_code is not named._place_of_plain.__code__ or len(arrived) == 20:
            return None
        if event == "line" and "module_name" in frame.f_locals:
            other = threading.Thread(target=lambda: arrived.append(back(home.sentinel)))
            other.start()
            other.join()
        return look

    monkeypatch.setitem(sys.modules, "one_more", types.ModuleType("one_more"))
    before = sys.gettrace()
    sys.settrace(look)
    try:
        arrived.append(back(home.sentinel))
    finally:
        sys.settrace(before)
    assert len(arrived) > 10
    assert all(one is home.sentinel for one in arrived)


class Registered:
    def __init__(self, number: int) -> None:
        self.number = number


@pytest.fixture
def registered() -> Iterator[None]:
    yield
    copyreg.dispatch_table.pop(Registered, None)


@pytest.mark.usefixtures("registered")
def test_what_a_user_registers_with_copyreg_counts_also_after_the_first_object() -> None:
    assert back(Registered(1)).number == 1
    copyreg.pickle(Registered, lambda value: (Registered, (value.number + 1,)))  # type: ignore[arg-type]
    assert back(Registered(1)).number == 2


class Settings:
    """Has state, and lies in a module: an argument like any other, which its receiver may change."""

    def __init__(self) -> None:
        self.debug = False


SETTINGS = Settings()


def test_an_object_with_state_goes_by_value() -> None:
    made = back(SETTINGS)
    assert made is not SETTINGS
    assert made.debug is False


class Answers:
    """Asks itself for whatever it lacks, as starlette's State and many proxies do."""

    __slots__ = ("__dict__", "slot")

    def __init__(self, **known: Any) -> None:
        self.known = known
        self.slot = "slot"

    def __getattr__(self, name: str) -> Any:
        try:
            return self.known[name]
        except KeyError:
            raise AttributeError(name) from None


@dataclasses.dataclass(frozen=True)
class Guarded:
    value: list[int]
    lock: Any = dataclasses.field(default_factory=threading.Lock)
    again: Any = dataclasses.field(default_factory=threading.RLock)


@pytest.mark.parametrize("by_value", [False, True])
def test_an_object_that_answers_for_missing_attributes_arrives(by_value: bool) -> None:
    value = Answers(a=1, inner=Answers(b=2))
    made = codec.deserialize(codec.pack(codec.serialize((value, lambda: 1) if by_value else (value, 1))))[0]
    assert (made.a, made.inner.b, made.slot, made.known.keys()) == (1, 2, "slot", value.known.keys())
    with pytest.raises(AttributeError):
        _ = made.c


@pytest.mark.parametrize("by_value", [False, True])
def test_the_locks_that_a_dataclass_makes_are_made_anew(by_value: bool) -> None:
    value = Guarded([1])
    with value.lock:
        made = codec.deserialize(codec.pack(codec.serialize((value, lambda: 1) if by_value else (value, 1))))[0]
    assert made.value == [1]
    assert not made.lock.locked()
    with made.lock, made.again:
        pass


def test_applications_of_fastapi_and_starlette_are_values() -> None:
    app, router = fastapi.FastAPI(title="sent"), fastapi.APIRouter()

    @router.get("/")
    def show() -> int:
        return 1

    app.include_router(router, prefix="/inner")
    app.mount("/below", starlette.applications.Starlette())
    app.state.number = 3
    app.openapi()
    made = codec.deserialize(codec.pack(codec.serialize(app)))
    assert (type(made), made.title, made.state.number) == (fastapi.FastAPI, "sent", 3)
    assert list(made.openapi()["paths"]) == ["/inner/"]


class Copied:
    """May be large: a copy of it is made only for whoever wants one."""

    copies = 0

    def __init__(self) -> None:
        self.size = 1

    def __copy__(self) -> Copied:
        type(self).copies += 1
        return Copied()

    def __deepcopy__(self, memo: dict[int, Any]) -> Copied:
        return self.__copy__()


def test_no_copy_of_a_value_is_made_to_learn_that_it_is_no_sentinel() -> None:
    value = Copied()
    assert len(pickle.loads(by_value.dumps([value, value, lambda: value]))) == 3
    assert Copied.copies == 0


class Looks(type):
    """Counts how often somebody lists what its classes have."""

    looks = 0

    def __dir__(cls) -> list[str]:
        Looks.looks += 1
        return list(super().__dir__())


class LookedAt(metaclass=Looks):
    def __reduce__(self) -> tuple[Any, ...]:
        return LookedAt, ()


def test_classes_are_looked_at_once_and_not_for_each_of_their_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LookedAt, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "LookedAt", LookedAt, raising=False)
    codec.serialize([LookedAt() for _ in range(100)])
    assert Looks.looks <= 2


def test_a_model_whose_module_is_gone_and_whose_annotations_name_nothing_known_travels_as_it_is() -> None:
    class Part(pydantic.BaseModel):
        other: Other | None = None  # type: ignore[name-defined]  # noqa: F821

    Part.__module__ = "a_module_that_is_gone"
    assert back(Part).__name__ == "Part"
