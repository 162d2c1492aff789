"""Whatever comes to a port from who has no token: nothing of it is read as more than a line, and the process goes on.

`ACTORRT_HOSTILE_INPUTS=100000` has so many sent in place of the few of a usual run.
"""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import random
import resource
from collections.abc import Iterator
from typing import Any, Final

import pytest

from actorrt.runtime.links import transport
from actorrt.types import ProcessId
from actorrt.wire import messages
from actorrt.wire.greeting import request_with
from actorrt.wire.messages import Ping
from actorrt.wire.proof import NONCE_BYTES

from .machines import KINDS, OTHER, Machines, endpoint_of

COUNT: Final = int(os.environ.get("ACTORRT_HOSTILE_INPUTS", "2000"))
AT_ONCE: Final = 50
# What the process may have grown by, buffers of the kernel and the pools of the allocator among it.
MOST_GROWTH_BYTES: Final = 64 * 2**20
FIRST: Final = b"actorrt/0003 " + b"ab" * NONCE_BYTES + b"\n"


class Bomb:
    """Its pickle says so when it is loaded."""

    def __reduce__(self) -> Any:
        return os.write, (2, b"unpickled\n")


def inputs(dice: random.Random) -> Iterator[list[bytes]]:
    """What is written, one piece after the other."""
    hello = request_with(messages.encode_hello(transport.make_hello(OTHER, "worker", "0")))
    seeds = [
        FIRST,
        FIRST + b"proof " + b"0" * 64 + b"\n",
        FIRST + b"proof " + b"0" * 64 + b"\n" + hello,
        hello,
        FIRST + hello,
        b"refused because\n",
        b"GET /objects/1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /link HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600),
        pickle.dumps(Bomb()),
        b"%08x\r\n" % 100 + pickle.dumps(Bomb()),
        b"\n" * 300,
        b"",
        b"x" * 100_000,
        b"actorrt/" + b"9" * 300,
    ]
    while True:
        data = bytearray(dice.choice(seeds))
        for _ in range(dice.choice([0, 0, 1, 3, 10])):
            where = dice.randrange(len(data) + 1)
            match dice.randrange(4):
                case 0 if where < len(data):
                    data[where] = dice.randrange(256)
                case 1:
                    data[where:where] = dice.randbytes(dice.randrange(40))
                case 2:
                    del data[where : where + dice.randrange(20)]
                case _:
                    data[where:where] = dice.choice(seeds)[:200]
        cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.choice([0, 0, 1, 4])))
        yield [bytes(data[a:b]) for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


async def send(host: str, port: int, pieces: list[bytes], dice: random.Random) -> None:
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if dice.random() < 0.3:
            writer.write_eof()
        if dice.random() < 0.5:
            async with asyncio.timeout(0.05):
                await reader.read(1000)
    except (OSError, TimeoutError):
        pass
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("kind", ["plain", "encrypted"])
async def test_hostile_bytes_reach_nothing_and_leave_nothing(
    machines: Machines, kind: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    mine, theirs = await machines.pair(kind)
    link = await mine.link_to(OTHER, theirs.address)
    await link.ask(Ping())
    decoded: list[bytes] = []
    monkeypatch.setattr(transport, "decode_hello", decoded.append)
    monkeypatch.setattr(pickle, "loads", decoded.append)
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    host, port = endpoint_of(theirs)
    dice = random.Random(int(os.environ.get("SEED", "1")))
    hostile = inputs(dice)
    before = 0
    for turn in range(COUNT // AT_ONCE):
        await asyncio.gather(*[send(host, port, next(hostile), dice) for _ in range(AT_ONCE)])
        if turn == 4:
            gc.collect()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    # Who has the token goes on, and so does everybody new.
    await link.ask(Ping())
    assert decoded == errors == []
    assert list(theirs.links) == [mine.process]
    assert theirs._opening == {}
    assert "unpickled" not in capfd.readouterr().err
    gc.collect()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < MOST_GROWTH_BYTES
    monkeypatch.undo()
    late = machines.process(KINDS[kind][0], ProcessId(b"process9"))
    await (await late.link_to(OTHER, theirs.address)).ask(Ping())
