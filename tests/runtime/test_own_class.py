"""Actor classes and functions as people write them: names, attributes, decorators, constructors as in plain Python."""

import abc
import functools
import math
import operator
from collections.abc import Callable
from typing import Any, cast

import pytest

import actorrt
from actorrt import ActorHandle, get, remote

pytestmark = pytest.mark.usefixtures("node")


class Sized:
    def __init__(self) -> None:
        self.size = 7
        self.callable = len

    def size(self) -> int:  # type: ignore[no-redef]
        return cast(int, self.size)

    def callable(self) -> str:  # type: ignore[no-redef]
        return "the method"

    @staticmethod
    def static() -> str:
        return "static"

    @classmethod
    def of_class(cls) -> str:
        return cls.__name__


class AsyncSized(Sized):
    async def wait(self) -> None: ...


@pytest.mark.parametrize("cls", [Sized, AsyncSized])
def test_an_attribute_hides_no_method(cls: Any) -> None:
    actor: Any = remote(cls).remote()
    refs = [actor.size.remote(), actor.callable.remote(), actor.static.remote(), actor.of_class.remote()]
    assert get(refs) == [7, "the method", "static", cls.__name__]


class Base:
    def describe(self) -> str:
        return "base"


@remote
class Named(Base):
    LIMIT = 7
    made = 0

    def __init__(self) -> None:
        super(Named, self).__init__()  # type: ignore[misc]  # noqa: UP008
        Named.made += 1

    @staticmethod
    def more(x: int) -> int:
        return x + 1

    @classmethod
    def limit(cls) -> int:
        return cls.LIMIT

    def describe(self) -> str:
        return "named, " + super(Named, self).describe()  # type: ignore[misc]  # noqa: UP008

    def use(self) -> list[Any]:
        it = cast(Any, Named)
        made = type(self).made, it.made
        return [it.LIMIT, it.more(7), it.limit(), isinstance(self, it), issubclass(type(self), it), made]

    def unbound(self) -> str:
        return cast(Any, Named).describe(self)

    def another(self) -> str:
        other: Any = Named.remote()
        return get(other.describe.remote())


@remote
class Counting:
    count = 0

    async def up(self) -> tuple[int, int]:
        it = cast(Any, Counting)
        it.count += 1
        return it.count, self.count

    async def is_mine(self) -> bool:
        return isinstance(self, cast(Any, Counting))


def test_the_name_of_an_actor_class_stands_for_the_class_in_its_own_code() -> None:
    actor: Any = Named.remote()
    assert get(actor.use.remote()) == [7, 8, 7, True, True, (1, 1)]
    assert get([actor.describe.remote(), actor.unbound.remote(), actor.another.remote()]) == ["named, base"] * 3
    counting: Any = Counting.remote()
    assert get([counting.up.remote(), counting.up.remote()]) == [(1, 1), (2, 2)]
    assert get(counting.is_mine.remote()) is True


class Unit(abc.ABC):
    """An abstract base: `issubclass` of such a one takes classes only."""

    @abc.abstractmethod
    def add(self, n: int) -> int: ...


@remote
class Meters(Unit):
    def __init__(self, n: int = 0) -> None:
        self.n = n

    def add(self, n: int) -> int:
        it = cast(Any, Meters)
        return it(self.n + n).n

    def compare(self) -> list[bool]:
        it = cast(Any, Meters)
        match cast(object, self):
            case Meters():
                matched = True
            case _:
                matched = False
        return [type(self) is it, self.__class__ == it, issubclass(it, Unit), matched, it in type(self).__mro__]

    def derived(self) -> int:
        class Long(Meters):  # type: ignore[misc]
            pass

        return cast(Any, Long)(9).n

    def elsewhere(self) -> int:
        it = cast(Any, Meters)
        return get(it.options(num_cpus=0).remote(4).add.remote(1))


@remote
class Plain(Base):
    def unwrapped(self) -> bool:
        it = cast(Any, Plain)
        return it.__wrapped__ is type(self) and isinstance(it.__wrapped__(), it)


def test_the_name_of_an_actor_class_makes_compares_matches_and_derives_in_its_own_code() -> None:
    actor: Any = Meters.remote(3)
    assert get(actor.add.remote(4)) == 7
    assert get(actor.compare.remote()) == [True] * 5
    assert get([actor.derived.remote(), actor.elsewhere.remote()]) == [9, 5]
    plain: Any = Plain.remote()
    assert get(plain.unwrapped.remote()) is True


def test_an_actor_class_is_a_subclass_of_its_bases_and_has_its_qualified_name() -> None:
    it = cast(Any, Plain)
    assert issubclass(it, Base)
    assert not issubclass(it, Sized)
    assert it.__qualname__ == "Plain"


def test_constants_and_static_methods_of_an_actor_class_are_there_in_any_process() -> None:
    it = cast(Any, Named)
    assert (it.LIMIT, it.more(1), it.limit()) == (7, 2, 7)
    with pytest.raises(AttributeError, match=r"describe is a method of the actors of Named, not of the class"):
        it.describe  # noqa: B018
    with pytest.raises(AttributeError, match=r"has no attribute 'LIMITS'"):
        it.LIMITS  # noqa: B018


def test_a_local_actor_class_finds_itself_by_its_name() -> None:
    @remote
    class Local(Base):
        def describe(self) -> str:
            return "local, " + super(Local, self).describe()  # type: ignore[misc]  # noqa: UP008

        def another(self) -> str:
            other: Any = Local.remote()
            return get(other.describe.remote())

    actor: Any = Local.remote()
    assert get([actor.describe.remote(), actor.another.remote()]) == ["local, base"] * 2


def with_session(function: Callable[..., Any]) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, "session", **kwargs)

    return wrapper


@with_session
def query(text: str, session: str, *, limit: int = 1) -> tuple[str, str, int]:
    return text, session, limit


class Repository:
    @with_session
    def find(self, text: str, session: str) -> tuple[str, str]:
        return text, session


def test_a_decorator_may_change_the_parameters() -> None:
    assert get(remote(query).remote("q", limit=2)) == ("q", "session", 2)
    actor: Any = remote(Repository).remote()
    assert get(actor.find.remote("q")) == ("q", "session")


class Adder:
    def __init__(self, by: int) -> None:
        self.by = by

    def __call__(self, x: int) -> int:
        return x + self.by


class AsyncAdder(Adder):
    async def __call__(self, x: int) -> int:
        return x + self.by


class Adds:
    async def add(self, a: int, b: int) -> int:
        return a + b

    add_one = functools.partialmethod(add, 1)
    add_two = functools.partialmethod(add, b=2)

    @functools.singledispatchmethod
    def told(self, value: object) -> str:
        return "something"

    @told.register
    def _(self, value: int) -> str:
        return f"the number {value}"


def test_methods_that_functools_makes_are_methods() -> None:
    adds: Any = remote(Adds).remote()
    assert get([adds.add_one.remote(5), adds.add_two.remote(5)]) == [6, 7]
    assert get([adds.told.remote(3), adds.told.remote("x")]) == ["the number 3", "something"]
    with pytest.raises(TypeError, match="add_one"):
        adds.add_one.remote(5, 6)


def test_whatever_can_be_called_can_be_remote() -> None:
    callables: list[tuple[Any, tuple[Any, ...], Any]] = [
        (str.upper, ("a",), "A"),
        (dict.get, ({1: 2}, 1), 2),
        (", ".join, (["a", "b"],), "a, b"),
        (math.sqrt, (4,), 2.0),
        (operator.itemgetter(1), ([1, 2],), 2),
        (functools.partial(pow, 2), (3,), 8),
        (functools.partial(query, "q"), (), ("q", "session", 1)),
        (Adder(2), (3,), 5),
        (AsyncAdder(2), (3,), 5),
    ]
    for function, args, result in callables:
        assert get(remote(function).remote(*args)) == result


class Meta(type):
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__call__(*args, **kwargs)
        made.by_meta = True
        return made


class WithMeta(metaclass=Meta):
    by_meta = False

    def __init__(self, x: int) -> None:
        self.x = x

    def get(self) -> tuple[int, bool]:
        return self.x, self.by_meta


class WithNew:
    made_with: tuple[Any, ...]

    def __new__(cls, *args: Any, **kwargs: Any) -> "WithNew":
        self = super().__new__(cls)
        self.made_with = args
        return self

    def __init__(self, x: int, y: int = 0) -> None:
        self.x, self.y = x, y

    def get(self) -> tuple[Any, ...]:
        return self.made_with, self.x, self.y


class Table(dict[str, int]):
    def __init__(self, a: int) -> None:
        super().__init__(a=a)

    def total(self) -> int:
        return sum(self.values())


def test_metaclasses_own_new_and_children_of_dict_are_actor_classes() -> None:
    meta: Any = remote(WithMeta).remote(1)
    new: Any = remote(WithNew).remote(1, y=2)
    table: Any = remote(Table).remote(3)
    assert get([meta.get.remote(), new.get.remote(), table.total.remote(), table.get.remote("a")]) == [
        (1, True), ((1,), 1, 2), 3, 3,
    ]  # fmt: skip


def test_a_constructor_may_be_a_coroutine_and_calls_wait_for_it() -> None:
    @remote
    class Client:
        async def __init__(self, value: int) -> None:  # type: ignore[misc]
            if value < 0:
                raise ValueError("too small")
            self.value = await actorrt.put(value)

        def get(self) -> int:
            return self.value

    for options in ({}, {"isolated": True}):
        client: ActorHandle[Any] = Client.options(**options).remote(5)  # type: ignore[arg-type]
        assert get([client.get.remote() for _ in range(3)]) == [5] * 3
        failing: ActorHandle[Any] = Client.options(**options).remote(-1)  # type: ignore[arg-type]
        with pytest.raises(actorrt.exceptions.ActorDiedError, match="too small"):
            get(failing.get.remote())


def test_an_actor_whose_constructor_waits_can_be_killed() -> None:
    @remote
    class Waits:
        async def __init__(self) -> None:  # type: ignore[misc]
            await actorrt.get_actor("never-there").never.remote()

        async def get(self) -> int:
            return 1

    @remote
    class NeverThere:
        async def never(self) -> None:
            import asyncio

            await asyncio.Event().wait()

    blocker = NeverThere.options(name="never-there").remote()
    waits: ActorHandle[Any] = Waits.remote()
    ref = waits.get.remote()
    actorrt.kill(waits)
    with pytest.raises(actorrt.exceptions.ActorDiedError):
        get(ref)
    assert get(blocker.__ray_ready__.remote()) is True
