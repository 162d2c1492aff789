"""What a type checker must know of Serve: handles know what a call gives. Nothing here runs, as in public_types.py."""

from collections.abc import AsyncIterator
from typing import Any, assert_type

from actorrt import serve


class Code:
    def __init__(self, size: int) -> None: ...
    async def __call__(self, number: int) -> str:
        return str(number)

    async def other(self, text: str) -> bytes:
        return text.encode()


Model = serve.deployment(Code)


@serve.deployment(num_replicas=2)
class Plain:
    def __call__(self, number: int) -> float:
        return float(number)


@serve.deployment
def function(number: int) -> str:
    return str(number)


@serve.deployment
class Stream:
    async def __call__(self, end: int) -> AsyncIterator[int]:
        yield end


async def results() -> None:
    assert_type(Model, serve.Deployment[Code])
    assert_type(Model.bind(1), serve.Application[Code])
    handle = serve.run(Model.bind(1))
    assert_type(handle, serve.DeploymentHandle[Code])
    assert_type(handle.remote(1), serve.DeploymentResponse[str])
    assert_type(await handle.remote(1), str)
    assert_type(handle.remote(1).result(timeout_s=1), str)
    # A response stands for its value among the arguments, which the signature does not say.
    assert_type(handle.remote(serve.run(Plain.bind()).remote(1)), serve.DeploymentResponse[Any])
    assert_type(await handle.other.remote("a"), Any)
    assert_type(await serve.run(Plain.options(num_replicas=3).bind()).remote(1), float)
    assert_type(await serve.run(Plain.bind()).options(cost=serve.Cost(tokens=3)).remote(1), float)
    assert_type(await serve.run(function.bind()).remote(1), str)
    async for item in serve.run(Stream.bind()).options(stream=True).remote(3):
        assert_type(item, int)


def wrong() -> None:
    Model(1)
    serve.run(Model)  # pyright: ignore[reportArgumentType]
    serve.DeploymentResponse.result(1)  # pyright: ignore[reportArgumentType]
