"""How user code is called in a replica, in this process."""

import asyncio
import functools
import pickle
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from actorrt import serve
from actorrt.serve.replica.user_code import UserCode


@asynccontextmanager
async def made(target: Any, *args: Any, threads: int = 1) -> AsyncGenerator[UserCode]:
    code = UserCode(threads)
    await code.construct(pickle.dumps((target, args, {})), lambda: None)
    try:
        async with asyncio.timeout(20):
            yield code
    finally:
        await code.close()


class Stops:
    def __call__(self) -> Any:
        return next(iter([]))

    def check_health(self) -> None:
        raise StopIteration

    def reconfigure(self, config: Any) -> None:
        raise StopIteration


async def test_plain_code_that_raises_stop_iteration_fails_and_does_not_hang() -> None:
    async with made(Stops) as code:
        for call in (code.call(code.method("__call__"), (), {}), code.check_health(), code.reconfigure(1)):
            with pytest.raises(RuntimeError, match="raised StopIteration"):
                await call


class Blocks:
    """Its requests run until they may end."""

    may_end = threading.Event()
    running = threading.Semaphore(0)

    def __init__(self) -> None:
        self.configs: list[Any] = []

    def __call__(self) -> None:
        self.running.release()
        assert self.may_end.wait(20)

    def check_health(self) -> None: ...

    def reconfigure(self, config: Any) -> None:
        self.configs.append(config)


async def until_running(count: int) -> None:
    for _ in range(count):
        assert await asyncio.to_thread(Blocks.running.acquire, timeout=20)


@pytest.fixture
def blocking() -> Iterator[None]:
    Blocks.may_end.clear()
    yield
    Blocks.may_end.set()


@pytest.mark.usefixtures("blocking")
async def test_health_is_checked_and_a_configuration_taken_while_every_thread_is_busy() -> None:
    async with made(Blocks) as code:
        request = asyncio.ensure_future(code.call(code.method("__call__"), (), {}))
        await until_running(1)
        await code.check_health()
        await code.reconfigure(1)
        assert code.instance.configs == [1]
        assert not request.done()
        Blocks.may_end.set()
        await request


async def test_reconfigure_is_not_called_without_a_configuration_before_there_was_one() -> None:
    async with made(Blocks) as code:
        for config in (None, None, 1, None, None, 2):
            await code.reconfigure(config)
        assert code.instance.configs == [1, None, 2]


class Settings(dict[str, int]):
    def __init__(self, **values: int) -> None:
        super().__init__(values)

    def read(self, name: str) -> int:
        return self[name]


class Counted:
    made = 0

    def __new__(cls, size: int) -> "Counted":
        instance = super().__new__(cls)
        cls.made += 1
        instance.doubled = 2 * size
        return instance

    doubled: int

    async def __init__(self, size: int) -> None:  # type: ignore[misc]
        await asyncio.sleep(0)
        self.size = size


class Meta(type):
    def __call__(cls, *args: Any) -> Any:
        instance = super().__call__(*args)
        instance.by_meta = True
        return instance


class OfMeta(metaclass=Meta):
    by_meta = False

    def __init__(self, size: int) -> None:
        self.size = size


class Stranger:
    def __new__(cls) -> Any:
        return Settings(a=1)


async def test_an_instance_is_made_as_in_plain_python() -> None:
    async with made(Settings) as code:
        assert await code.call(code.method("keys"), (), {}) == {}.keys()
    async with made(Counted, 3) as code:
        assert (code.instance.size, code.instance.doubled, Counted.made) == (3, 6, 1)
    async with made(OfMeta, 3) as code:
        assert (code.instance.size, code.instance.by_meta) == (3, True)
    async with made(Stranger) as code:
        assert await code.call(code.method("read"), ("a",), {}) == 1
    with pytest.raises(TypeError, match=r"should return None, not 'int'"):
        async with made(Wrong):
            pass


class Wrong:
    def __init__(self) -> None:
        return 3  # type: ignore[return-value]  # noqa: PLE0101


class Hides:
    def __init__(self) -> None:
        self.size = self.kind = self.whole = 7

    def size(self) -> int:  # type: ignore[no-redef]
        return vars(self)["size"] + 1

    @staticmethod
    def kind() -> str:  # type: ignore[no-redef]
        return "static"

    @classmethod
    def whole(cls) -> str:  # type: ignore[no-redef]
        return cls.__name__


async def test_an_attribute_of_the_instance_hides_no_method_of_its_class() -> None:
    async with made(Hides) as code:
        assert [await code.call(code.method(name), (), {}) for name in ("size", "kind", "whole")] == [
            8,
            "static",
            "Hides",
        ]


def with_request(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(self: Any, request: Any) -> Any:
        return function(self)

    return wrapper


def without_request(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(self: Any) -> Any:
        return function(self, "made up")

    return wrapper


def handing_on(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


class Decorated:
    @with_request
    def takes(self) -> None: ...

    @without_request
    def takes_none(self, request: Any) -> None: ...

    @handing_on
    def below_takes_none(self) -> None: ...

    @handing_on
    @with_request
    def below_takes(self) -> None: ...

    @without_request
    def __init__(self, given: str) -> None:
        self.given = given


async def test_a_decorator_by_wraps_decides_what_a_method_and_a_constructor_take() -> None:
    assert serve.deployment(Decorated).bind()
    with pytest.raises(TypeError, match="too many positional arguments"):
        serve.deployment(Decorated).bind("given")
    async with made(Decorated) as code:
        assert code.instance.given == "made up"
        takes = {name: code.method(name).takes_request for name in vars(Decorated) if "takes" in name}
    assert takes == {"takes": True, "takes_none": False, "below_takes_none": False, "below_takes": True}


class HalfMade:
    """What its constructor began is ended by its coroutine `__del__` though the constructor fails."""

    ended = 0

    async def __init__(self) -> None:  # pyright: ignore[reportGeneralTypeIssues]
        await asyncio.sleep(0)
        raise ValueError("no")

    async def __del__(self) -> None:
        await asyncio.sleep(0)
        HalfMade.ended += 1


async def test_an_async_del_is_awaited_though_the_constructor_failed() -> None:
    code = UserCode(1)
    with pytest.raises(ValueError, match="no"):
        await code.construct(pickle.dumps((HalfMade, (), {})), lambda: None)
    await code.close()
    assert HalfMade.ended == 1
