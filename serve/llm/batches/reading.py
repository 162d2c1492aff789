"""Go through a file of requests, a part at a time, in threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from time import sleep
from typing import BinaryIO, Final

from .validation import Validator

# So much is read at once.
_LINES: Final = 256
_BYTES: Final = 256 * 1024
# Whoever reads long in a thread lets the loop have its turn as often.
_TURN_S: Final = 0.0005
_MARK: Final = b"\xef\xbb\xbf"


def validate(path: Path, validator: Validator, most: int) -> None:
    """Show it all lines, of those that are longer than `most` the beginning. It blocks. OSError."""
    with path.open("rb") as file:
        number, since = 0, 0
        while data := _line(file, number, most + 1):
            number += 1
            validator.feed(number, data)
            if validator.is_enough:
                return
            if (since := since + len(data)) > _BYTES:
                since = 0
                sleep(_TURN_S)


async def lines(path: Path, most: int) -> AsyncGenerator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers. OSError."""
    file = await asyncio.to_thread(path.open, "rb")
    try:
        number = 0
        while some := await asyncio.to_thread(_some, file, number, most):
            for data in some:
                number += 1
                if data.strip():
                    yield number, data
    finally:
        file.close()


def _some(file: BinaryIO, number: int, most: int) -> list[bytes]:
    some: list[bytes] = []
    size = 0
    while len(some) < _LINES and size < _BYTES and (data := _line(file, number, most + 1)):
        some.append(data)
        number += 1
        size += len(data)
    return some


def _line(file: BinaryIO, before: int, most: int) -> bytes:
    """The next line, b"" at the end. Of one that is longer than `most` only so much."""
    data = file.readline(most)
    if len(data) == most and not data.endswith(b"\n"):
        while (rest := file.readline(_BYTES)) and not rest.endswith(b"\n"):
            pass
    # What some editors put before a file in UTF-8.
    return data.removeprefix(_MARK) or b"\n" if not before and data else data
