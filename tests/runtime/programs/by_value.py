"""A main program whose classes, helpers and sentinels travel to a worker and back; prints what was found, as JSON."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import enum
import functools
import json
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, NewType, ParamSpec, Protocol, TypedDict, TypeVar, runtime_checkable

import pydantic
from marks import UNSET, Option, shouted, stateful_mark

import actorrt

# ruff: noqa: RUF012, PIE796, UP042, PT018 - as users write it.

T = TypeVar("T")
P = ParamSpec("P")
UserId = NewType("UserId", int)
PLAIN = object()


class Basket(pydantic.BaseModel):
    fruit: Fruit | None = None


class Fruit(pydantic.BaseModel):
    kind: str


class _Missing:
    def __reduce__(self) -> str:
        return "MISSING"


MISSING = _Missing()


@dataclass(slots=True)
class Slots:
    name: str
    score: float = 0.5


@dataclass(frozen=True, slots=True, order=True)
class Frozen:
    name: str
    tags: tuple[str, ...] = ()


class PrivateSlots:
    __slots__ = ("__secret", "__weakref__", "plain")

    def __init__(self) -> None:
        self.__secret, self.plain = 1, 2

    def both(self) -> tuple[int, int]:
        return self.__secret, self.plain


class Derived(PrivateSlots):
    __slots__ = ["more"]


class Item:
    made = 0
    registry: dict[str, Any] = {}

    def __init__(self, name: str) -> None:
        Item.made += 1
        Item.registry[name] = self


class Plugin:
    plugins: list[str] = []

    def __init_subclass__(cls, /, label: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.plugins.append(f"{label}: {cls.title}")  # type: ignore[attr-defined]


class First(Plugin, label="one"):
    title = "first"


class Counting(type):
    made: list[str] = []

    def __new__(mcs, name: str, bases: tuple[type, ...], space: dict[str, Any], *, tag: str) -> Any:
        mcs.made.append(name)
        return super().__new__(mcs, name, bases, {**space, "tag": tag})

    def __init__(cls, name: str, bases: tuple[type, ...], space: dict[str, Any], *, tag: str) -> None:
        super().__init__(name, bases, space)


class Counted(metaclass=Counting, tag="x"):
    pass


class Color(enum.Enum):
    RED = 1
    GREEN = 2
    CRIMSON = 1


class Planet(enum.Enum):
    EARTH = (5.9, 6.3)
    MARS = (0.6, 3.4)

    def __init__(self, mass: float, radius: float) -> None:
        self.mass = mass

    @property
    def heavy(self) -> bool:
        return self.mass > 1


class Unit(str, enum.Enum):
    METRE = ("m", "length")
    SECOND = ("s", "time")

    def __new__(cls, short: str, kind: str) -> Any:
        made = str.__new__(cls, short)
        made._value_ = short
        made.kind = kind  # type: ignore[attr-defined]
        return made


class Level(enum.IntFlag):
    READ = enum.auto()
    WRITE = enum.auto()
    BOTH = READ | WRITE


class Shape(abc.ABC):
    @abc.abstractmethod
    def area(self) -> float: ...


@Shape.register
class Square:
    def area(self) -> float:
        return 4.0


class Circle(Shape):
    def area(self) -> float:
        return 3.0


class Point(NamedTuple):
    x: int
    y: int = 2


class Box(Generic[T]):
    def __init__(self, inside: T) -> None:
        self.inside = inside


class IntBox(Box[int]):
    pass


@runtime_checkable
class Speaks(Protocol):
    def speak(self) -> str: ...


class Movie(TypedDict, total=False):
    title: str


class Model(pydantic.BaseModel):
    name: str
    colour: Color = Color.RED
    tags: list[str] = pydantic.Field(default_factory=list)

    @pydantic.field_validator("name")
    @classmethod
    def short(cls, name: str) -> str:
        assert len(name) < 9
        return name


class Page(pydantic.BaseModel, Generic[T]):
    items: list[T]


@dataclass
class Node:
    parent: Node | None = None
    children: list[Leaf] = field(default_factory=list)


@dataclass
class Leaf(Node):
    kind: Any = Node


class Singleton:
    only: Any = None

    def __new__(cls) -> Any:
        cls.only = cls.only or super().__new__(cls)
        return cls.only


@functools.cache
def fib(n: int) -> int:
    return n if n < 2 else fib(n - 1) + fib(n - 2)


@functools.lru_cache(maxsize=7, typed=True)
def bounded(n: int) -> int:
    return n


@functools.singledispatch
def show(value: object) -> str:
    return "object"


@show.register
def _(value: int) -> str:
    return "int"


@show.register
def _(value: Slots) -> str:
    return "Slots"


@contextlib.contextmanager
def opened(name: str) -> Iterator[str]:
    yield name.upper()


def twice(function: Callable[P, int]) -> Callable[P, int]:
    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> int:
        return 2 * function(*args, **kwargs)

    return wrapper


@twice
def plus(a: int, b: int = 1) -> int:
    return a + b


class Helper:
    @functools.lru_cache  # noqa: B019
    def method(self) -> int:
        return 5

    @functools.cached_property
    def once(self) -> int:
        return 6

    @functools.singledispatchmethod
    def kind(self, value: object) -> str:
        return "object"

    @kind.register
    def _(self, value: str) -> str:
        return "str"


half = functools.partial(plus, b=5)


@actorrt.remote
def call(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


@actorrt.remote
def echo(value: Any) -> Any:
    return value


CHECKS: list[Callable[[], bool]] = []


def check(function: Callable[[], bool]) -> Callable[[], bool]:
    CHECKS.append(function)
    return function


def there(function: Callable[..., Any], *args: Any) -> Any:
    return actorrt.get(call.remote(function, *args), timeout=60)


def back(value: Any) -> Any:
    return actorrt.get(echo.remote(value), timeout=60)


@check
def objects_with_slots_keep_them() -> bool:
    def misspell(value: Any) -> str:
        try:
            value.scroe = 1
        except (AttributeError, TypeError):  # a frozen one with slots: Python 3.11 raises what its `super()` does
            return "refused"
        return "taken"

    found = there(lambda: (Slots("a"), Frozen("b", ("t",)), PrivateSlots()))
    assert found[:2] == (Slots("a"), Frozen("b", ("t",))) and found[2].both() == (1, 2)
    assert type(back(Derived())) is Derived
    return all(there(misspell, value) == "refused" for value in (Slots("a"), Frozen("b"), PrivateSlots(), Derived()))


@check
def counters_of_the_driver_stay_as_they_are() -> bool:
    x = Item("x")
    ref = call.remote(Item, "remote")
    y = Item("y")
    found = actorrt.get(ref)
    return type(found) is Item and Item.made == 2 and Item.registry == {"x": x, "y": y}


@check
def what_a_worker_counts_stays_in_that_worker() -> bool:
    def count(_: Any) -> int:
        Item.made += 10
        return Item.made

    before = there(count, Item("z"))
    return there(count, Item("zz")) == before + 10


@check
def hooks_of_the_program_run_once() -> bool:
    assert there(lambda: (First().title, list(Plugin.plugins))) == ("first", ["one: first"])
    assert type(back(First())) is First
    assert there(lambda: (Counted.tag, list(Counting.made))) == ("x", ["Counted"])
    assert type(back(Counted())) is Counted
    return Plugin.plugins == ["one: first"] and Counting.made == ["Counted"]


@check
def a_class_that_a_worker_defines_runs_no_hook_here() -> bool:
    def define() -> Any:
        class Second(Plugin, label="two"):
            title = "second"

        return Second()

    found = there(define)
    return found.title == "second" and isinstance(found, Plugin) and Plugin.plugins == ["one: first"]


@check
def classes_from_a_worker_are_the_same_each_time() -> bool:
    def define() -> Any:
        class Inner:
            seen = 1

        return Inner()

    both = there(lambda: [define()] * 2)
    kind = there(lambda: type(define()))
    return (
        type(both[0]) is type(both[1])
        and kind is not type(both[0])
        and kind.__qualname__.endswith("define.<locals>.Inner")
    )


@check
def enums_are_what_they_were() -> bool:
    assert back(Color.RED) is Color.RED and back(Color) is Color
    assert there(lambda: (Color["CRIMSON"] is Color.RED, Color.CRIMSON is Color(1), len(Color))) == (True, True, 2)
    assert there(lambda: (Planet.EARTH.mass, Planet.MARS.heavy, Planet((0.6, 3.4)).name)) == (5.9, False, "MARS")
    assert there(lambda: (Unit.METRE.kind, Unit("s") is Unit.SECOND, Unit.METRE + "!")) == ("length", True, "m!")
    assert there(lambda: (int(Level.BOTH), Level.READ in Level.BOTH, Level(3) is Level.BOTH)) == (3, True, True)
    return back([Planet.EARTH, Unit.METRE, Level.READ | Level.WRITE]) == [Planet.EARTH, Unit.METRE, Level.BOTH]


@check
def abstract_classes_know_theirs() -> bool:
    def look(*shapes: Any) -> list[Any]:
        with contextlib.suppress(TypeError):
            Shape()  # type: ignore[abstract]
            return ["an abstract class was made"]
        return [isinstance(shape, Shape) for shape in shapes] + [sum(shape.area() for shape in shapes)]

    return there(look, Square(), Circle()) == [True, True, 7.0] and isinstance(back(Circle()), Shape)


@check
def typed_classes_work() -> bool:
    class Dog:
        def speak(self) -> str:
            return "woof"

    assert back(Point(1)) == Point(1, 2) and there(lambda p: p._replace(y=5).y, Point(1)) == 5
    assert there(lambda box: (box.inside, isinstance(box, Box), IntBox.__orig_bases__ == (Box[int],)), IntBox(1)) == (
        1,
        True,
        True,
    )  # type: ignore[attr-defined]
    assert there(lambda: (isinstance(Dog(), Speaks), isinstance(1, Speaks))) == (True, False)
    assert there(lambda: (Movie(title="a"), Movie.__total__, UserId(5))) == ({"title": "a"}, False, 5)
    assert there(lambda: (Box[str]("a").inside, UserId.__supertype__, P.__name__)) == ("a", int, "P")
    return type(back(Box("a"))) is Box


@check
def pydantic_models_work() -> bool:
    def make(**given: Any) -> Any:
        try:
            return Model(**given)
        except pydantic.ValidationError as error:
            return error.error_count()

    assert there(functools.partial(make, name="a", colour=2)) == Model(name="a", colour=Color.GREEN)
    assert there(functools.partial(make, name="a" * 20)) == 1
    assert there(lambda: Page[int](items=["1"]).items) == [1]
    return back(Page[Model](items=[Model(name="b")])) == Page[Model](items=[Model(name="b")])


@check
def a_pydantic_model_that_names_a_later_one_is_complete() -> bool:
    def use() -> Any:
        return Basket.model_validate({"fruit": {"kind": "fig"}})

    return there(use) == Basket(fruit=Fruit(kind="fig"))


@check
def classes_that_refer_to_each_other_work() -> bool:
    root = Node()
    root.children.append(Leaf(root))
    found = there(lambda node: node.children[0].kind is type(node) and node, root)
    return type(found) is Node and found.children[0].parent is found and type(found.children[0]) is Leaf


@check
def sentinels_of_modules_are_themselves() -> bool:
    fields = dataclasses.fields(Slots)
    assert there(lambda: dataclasses.fields(Slots)[0].default is dataclasses.MISSING)
    assert fields[0].default is dataclasses.MISSING
    assert back([dataclasses.MISSING, dataclasses.KW_ONLY, UNSET]) == [dataclasses.MISSING, dataclasses.KW_ONLY, UNSET]
    assert back(UNSET) is UNSET and back(Option()).value is UNSET
    return there(lambda a, b: (a is UNSET, b is Option().value, stateful_mark), UNSET, UNSET)[:2] == (True, True)


@check
def a_name_that_code_refers_to_is_that_of_the_module() -> bool:
    return bool(there(lambda: stateful_mark is __import__("marks").stateful_mark and shouted("a") == "A"))


@check
def sentinels_of_the_program_are_themselves() -> bool:
    def same(*values: Any) -> list[bool]:
        return [values[0] is PLAIN, values[1] is MISSING]

    assert there(same, PLAIN, MISSING) == [True, True]
    return back(PLAIN) is PLAIN and back([MISSING])[0] is MISSING


@check
def singletons_are_one_per_process() -> bool:
    mine = Singleton()
    assert there(lambda one, two: one is two, mine, mine)
    return Singleton.only is mine and Singleton() is mine


@check
def wrapped_helpers_are_found() -> bool:
    assert there(lambda: (fib(20), bounded(3), bounded.cache_parameters()["maxsize"])) == (6765, 3, 7)
    assert there(lambda: (show("a"), show(1), show(Slots("a")))) == ("object", "int", "Slots")
    assert there(lambda: (plus(1), half(1), plus.__wrapped__(1))) == (4, 12, 2)  # type: ignore[attr-defined]
    helper = there(lambda: (Helper().method(), Helper().once, Helper().kind("a"), Helper().kind(1)))
    assert helper == (5, 6, "str", "object")
    assert there(fib, 10) == 55 and back(fib)(10) == 55

    def use() -> str:
        with opened("a") as name:
            return name

    return there(use) == "A" and there(functools.partial(show, 1)) == "int"


class Renamed:
    __flags__ = 4

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def __name__(self) -> str:
        return f"{Renamed.__name__} {self.name}"

    @property
    def __class__(self) -> Any:
        return int


@check
def attributes_that_classes_have_themselves_are_those_of_the_object() -> bool:
    def use() -> list[Any]:
        one = Renamed("a")
        return [one.__name__, one.__flags__, one.__class__ is int, isinstance(one, int), type(one).__name__]

    return there(use) == use() == ["Renamed a", 4, True, True, "Renamed"]


@check
def a_remote_traceback_names_the_file_of_the_code_and_shows_its_line() -> bool:
    def divide(by: int) -> float:
        return 1 / by

    try:
        there(divide, 0)
    except ZeroDivisionError as error:
        notes = "\n".join(error.__notes__)
        return __file__ in notes and "return 1 / by" in notes
    return False


if __name__ == "__main__":
    found: dict[str, str] = {}
    with actorrt.init(num_cpus=1, log_to_driver=False):
        for one in CHECKS:
            try:
                found[one.__name__] = "right" if one() else "wrong"
            except BaseException:
                found[one.__name__] = traceback.format_exc()
    print(json.dumps(found))
