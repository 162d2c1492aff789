"""Write the files of a batch that has come to its end: its output, and its errors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from time import time
from typing import TYPE_CHECKING, Final, NamedTuple

from .database import storage_error
from .files import write_end
from .outputs import left_out
from .reading import lines
from .records import BATCH_OUTPUT, Batch, File
from .service import new_id
from .store import Store
from .validation import read_line

if TYPE_CHECKING:
    from .database import Database

logger = logging.getLogger("actorrt.serve.llm")

# So many answers are read from the store at once.
_ANSWERS: Final = 64
# Nobody's own files are counted with these.
_ANY: Final = 2**62


class Outcome(NamedTuple):
    output: File | None
    errors: File | None
    is_whole: bool
    """Whether each request has an answer."""


class OutcomeFiles:
    def __init__(self, database: Database, batch: Batch, most_line: int, why: tuple[str, str]) -> None:
        """`why`: what is said of requests that have no answer."""
        self._database, self._batch, self._most_line, self._why = database, batch, most_line, why
        self._begun: list[str] = []

    async def write(self) -> Outcome:
        """StorageError if that cannot be now."""
        batch = self._batch
        done = await self._database.do(Store.lines_done, batch.id)
        try:
            output = await self._file("output", lambda: self._answers(good=True)) if batch.completed else None
            is_whole = len(done) >= (batch.total or 0)
            errors = None
            if batch.failed or not is_whole:
                errors = await self._file("error", lambda: self._errors(done, is_whole=is_whole))
        except OSError as error:
            raise storage_error(error, str(self._database.folder)) from None
        return Outcome(output, errors, is_whole)

    async def undo(self) -> None:
        """They are not wanted."""
        for id in self._begun:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._database.file(id).unlink, missing_ok=True)
            await self._database.do(Store.give_up_file, id)

    async def _file(self, kind: str, content: Callable[[], AsyncGenerator[bytes]]) -> File:
        batch, now = self._batch, int(time())
        expires_at = None if batch.output_lives_s is None else now + batch.output_lives_s
        name = f"{batch.id}_{kind}.jsonl"
        file = File(new_id("file-"), batch.tenant, BATCH_OUTPUT, name, 0, now, expires_at)
        await self._database.do(Store.begin_file, file, _ANY)
        self._begun.append(file.id)
        opened = await asyncio.to_thread(open, self._database.file(file.id), "xb")
        size = 0
        try:
            async for piece in content():
                size += len(piece)
                await asyncio.to_thread(opened.write, piece)
            await asyncio.to_thread(write_end, opened, [])
        finally:
            with contextlib.suppress(OSError):
                opened.close()
        return File(file.id, file.tenant, file.purpose, file.filename, size, now, expires_at)

    async def _answers(self, *, good: bool) -> AsyncGenerator[bytes]:
        beyond = 0
        while found := await self._database.do(Store.answers, self._batch.id, beyond, _ANSWERS, good=good):
            beyond = found[-1][0]
            yield b"".join(output for _, output in found)

    async def _errors(self, done: set[int], *, is_whole: bool) -> AsyncGenerator[bytes]:
        """First those that failed, then those that have no answer."""
        async for piece in self._answers(good=False):
            yield piece
        if is_whole:
            return
        try:
            async for number, data in lines(self._database.file(self._batch.input_file_id), self._most_line):
                if number not in done:
                    yield left_out(new_id("batch_req_"), read_line(number, data).custom_id, self._why)
        except FileNotFoundError:
            # Somebody took it from the disk: who else was asked nobody can say, and the batch has to end.
            logger.warning("batch %s: the file of its requests has gone", self._batch.id)
