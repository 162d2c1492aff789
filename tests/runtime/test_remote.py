import pickle
from collections.abc import AsyncIterator, Iterator
from types import new_class
from typing import Any, cast

import pytest

from actorrt.core.actor_calls import Traits
from actorrt.core.options import ActorOptions, MethodOptions
from actorrt.runtime.api.methods import method
from actorrt.runtime.api.remote import ActorClass, RemoteFunction, remote
from actorrt.runtime.owner import current
from actorrt.runtime.owner.handles import ActorHandle, client_of


class FakeClient:
    """Stands for what the runtime knows of an actor."""

    def __init__(self, runtime: "FakeRuntime | None", actor: bytes, title: str) -> None:
        self.runtime, self.actor, self.title = runtime, actor, title
        self.traits = Traits(True, 1, 0, -1)

    def __reduce__(self) -> tuple[Any, ...]:
        return FakeClient, (None, self.actor, self.title)


class FakeRuntime:
    """Writes down what it is asked for."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def submit_task(self, function: Any, args: Any, kwargs: Any, options: Any) -> str:
        self.seen.append((function.name, args, kwargs, options))
        return "ref"

    def submit_method(self, actor: Any, name: str, args: Any, kwargs: Any, options: Any) -> str:
        self.seen.append((actor.title, name, args, kwargs, options))
        return "ref"

    def create_actor(self, cls: Any, args: Any, kwargs: Any, options: Any) -> FakeClient:
        self.seen.append((cls.name, args, kwargs, options))
        return FakeClient(self, len(self.seen).to_bytes(16, "big"), f"{cls.name}({len(self.seen)})")


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    fake = FakeRuntime()
    monkeypatch.setattr(current, "_runtime", fake)
    return fake


@remote
async def double(x: int, *, times: int = 2) -> int:
    """Many times."""
    return x * times


@remote(num_cpus=2, name="slow")
def work() -> None: ...


@remote
def stream() -> Iterator[int]:
    yield 1


@remote
class Counter:
    """Counts."""

    def __init__(self, start: int = 0) -> None: ...
    def incr(self, by: int = 1) -> int:
        return by

    async def follow(self) -> AsyncIterator[int]:
        yield 1

    @method(num_returns=2, concurrency_group=None)
    def split(self) -> tuple[int, int]:
        return 1, 2

    def __call__(self, request: str) -> str:
        return request


@remote(concurrency_groups={"io": 2}, max_restarts=1)
class Grouped:
    @method(concurrency_group="io")
    async def read(self) -> None: ...


untyped: Any = double
Untyped: Any = Counter


def test_a_task_is_submitted_with_its_arguments_and_options(runtime: FakeRuntime) -> None:
    assert double.remote(1, times=3) == "ref"
    work.options(num_cpus=0.5).remote()
    stream.remote()
    assert [seen[:3] for seen in runtime.seen] == [("double", (1,), {"times": 3}), ("work", (), {}), ("stream", (), {})]
    coroutine, other, generator = (seen[3] for seen in runtime.seen)
    assert coroutine.shape == {}
    assert (other.shape, other.name) == ({"CPU": 5000}, "slow")
    assert (generator.shape, generator.num_returns) == ({"CPU": 10000}, "streaming")
    assert work.task_options.shape == {"CPU": 20000}


def test_no_name_of_an_argument_is_taken(runtime: FakeRuntime) -> None:
    @remote
    def function(self: int, args: int, kwargs: int, options: int) -> None: ...

    @remote
    class Holder:
        @staticmethod
        def method(self: int, name: int) -> None: ...  # noqa: PLW0211

    cast(Any, function).remote(self=1, args=2, kwargs=3, options=4)
    cast(Any, Holder).remote().method.remote(self=1, name=2)
    assert [seen[-2] for seen in runtime.seen] == [
        {"self": 1, "args": 2, "kwargs": 3, "options": 4},
        {},
        {"self": 1, "name": 2},
    ]


def test_actors_and_their_methods(runtime: FakeRuntime) -> None:
    counter = Counter.options(name="c").remote(5)
    counter.incr.remote()
    counter.incr.options(num_returns=3).remote(by=2)
    counter.follow.remote()
    counter.split.remote()
    counter.__call__.remote("r")
    created, *calls = runtime.seen
    assert created == ("Counter", (5,), {}, ActorOptions(name="c"))
    assert [seen[1:4] for seen in calls] == [
        ("incr", (), {}),
        ("incr", (), {"by": 2}),
        ("follow", (), {}),
        ("split", (), {}),
        ("__call__", ("r",), {}),
    ]
    assert [seen[4].num_returns for seen in calls] == [1, 3, "streaming", 2, 1]


def test_what_every_actor_has_is_called_by_either_name(runtime: FakeRuntime) -> None:
    counter = Counter.remote()
    counter.__ray_ready__.remote()
    counter.__actorrt_ready__.remote()
    counter.__ray_call__.remote(len, 1)
    counter.__ray_terminate__.remote()
    assert [seen[1] for seen in runtime.seen[1:]] == [
        "__actorrt_ready__",
        "__actorrt_ready__",
        "__actorrt_call__",
        "__actorrt_terminate__",
    ]


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: untyped(1), "double is a remote function: call double.remote(...), then await or get the ref"),
        (lambda: Untyped(1), "Counter is an actor class: create an actor with Counter.remote(...)"),
        (lambda: Untyped.remote().incr(1), "incr runs in the actor's process: call .incr.remote(...), then await or"),
        (lambda: Untyped.remote()("r"), "__call__ runs in the actor's process: call .__call__.remote(...)"),
        (untyped.remote, "double.remote(): missing a required argument: 'x'; it takes (x, *, times=...)"),
        (lambda: untyped.remote(1, tmies=2), "double.remote(): got an unexpected keyword argument 'tmies', did you"),
        (lambda: Untyped.remote(1, 2), "Counter.remote(): too many positional arguments; it takes (start=...)"),
        (lambda: Untyped.remote().incr.remote(1, 2), "incr.remote(): too many positional arguments"),
        (lambda: Untyped.remote().__ray_ready__.remote(1), "__actorrt_ready__.remote(): too many positional"),
        (lambda: new_class("Child", (Untyped,)), "Counter is an actor class and cannot be a base"),
        (ActorHandle, "handles come from Class.remote(...) or get_actor(name)"),
        (lambda: client_of(5), "expected the handle of an actor, not 5 of type int"),
        (lambda: cast(Any, remote)(5), "remote takes a function or a class, not 5 of type int"),
        (lambda: cast(Any, remote)(untyped), "remote takes a function or a class, not RemoteFunction(double)"),
        (lambda: cast(Any, method)(5), "method takes a function in the body of a class, not 5 of type int"),
        (lambda: untyped.options(num_cpus="1"), "num_cpus must be a number from 0 to 1e+14, not '1' of type str"),
    ],
)
def test_a_wrong_use_is_a_type_error_that_says_how(call: Any, text: str) -> None:
    with pytest.raises(TypeError) as caught:
        call()
    assert str(caught.value).startswith(text)


class Plain:
    @method(retry_exceptions=True)
    def again(self) -> None: ...


class InThreads:
    @method(thread=True)
    def slow(self) -> None: ...


class NotAsync:
    async def slow(self) -> None: ...


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: cast(Any, remote)(num_cpu=1)(len), "'num_cpu' is not an option of tasks, did you mean 'num_cpus'?"),
        (lambda: untyped.options(max_calls=1), "max_calls is set where the task is defined"),
        (lambda: Untyped.options(max_retries=1), "'max_retries' is not an option of actors but of tasks"),
        (lambda: Untyped.remote().incr.options(concurrency_group="io"), "the actor has no concurrency group 'io'"),
        (
            lambda: Grouped.remote().read.options(concurrency_group="ioo"),
            "the actor has no concurrency group 'ioo', did",
        ),
        (lambda: method(thread=True)(NotAsync.slow), "thread=True is for def methods that block, NotAsync.slow is"),
        # What would change nothing.
        (lambda: untyped.options(generator_backpressure=2), "generator_backpressure is for what streams: give num_"),
        (lambda: method(generator_backpressure=2)(Plain.again), "generator_backpressure is for what streams: give"),
        (lambda: remote(InThreads), "InThreads.slow is marked thread=True, which is for actors that have async def"),
        (lambda: cast(Any, remote)(max_calls=1)(NotAsync.slow), "max_calls ends a worker after so many runs of"),
        (lambda: cast(Any, remote)(on_runtime_loop=True)(Plain), "on_runtime_loop is for coroutines, and Plain has"),
        (lambda: remote(Plain).remote(), "Plain.again has retry_exceptions, and max_task_retries is 0"),
        (
            lambda: Untyped.remote().incr.options(retry_exceptions=True),
            "retry_exceptions of incr: max_task_retries is 0",
        ),
    ],
)
def test_a_wrong_value_is_a_value_error_that_names_it(call: Any, text: str) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: Untyped.remote().incremet, "actor Counter has no method 'incremet', did you mean 'incr'?"),
        (lambda: Untyped.remote().start, "actor Counter has no method 'start'"),
        (lambda: Untyped.remote().__array__, "actor Counter has no method '__array__'"),
        (
            lambda: Untyped.incr,
            "incr is a method of the actors of Counter, not of the class: Counter.remote(...).incr.",
        ),
        (lambda: Untyped.romete, "actor class Counter has no attribute 'romete', did you mean 'remote'?"),
    ],
)
@pytest.mark.usefixtures("runtime")
def test_an_unknown_name_is_an_attribute_error_with_the_nearest(call: Any, text: str) -> None:
    with pytest.raises(AttributeError) as caught:
        call()
    assert str(caught.value).startswith(text)


@pytest.mark.usefixtures("runtime")
def test_handles_travel_and_are_equal_if_their_actor_is() -> None:
    one, two = Counter.remote(), Counter.remote()
    copy: Any = pickle.loads(pickle.dumps(one))
    assert copy == one
    assert hash(copy) == hash(one)
    assert one != two
    assert one != 5
    assert {one, two, copy} == {one, two}
    assert copy._actor_id == one._actor_id == copy._ray_actor_id
    assert isinstance(copy, ActorHandle)
    assert repr(copy) == repr(one) == "ActorHandle(Counter(1))"
    assert copy.split._access.options == MethodOptions(num_returns=2)


def test_what_was_decorated_can_still_be_had() -> None:
    assert isinstance(double, RemoteFunction)
    assert isinstance(Counter, ActorClass)
    assert double.__doc__ == "Many times."
    assert Counter.__doc__ == "Counts."
    assert (double.__name__, Counter.__name__) == ("double", "Counter")
    assert Counter.__wrapped__(1).incr(2) == 2
    assert work.__wrapped__() is None
    assert (repr(double), repr(Counter)) == ("RemoteFunction(double)", "ActorClass(Counter)")
