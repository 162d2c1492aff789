"""Work on one batch, from wherever it was left: validate its file, have its requests answered, write its files."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from time import time
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from .calling import Handle, ask
from .database import StorageError, storage_error
from .outcome_files import OutcomeFiles
from .outputs import CANCELLED, EXPIRED, Answer, answered, tokens_of
from .places import Place, Places
from .reading import lines, validate
from .recorder import AGAIN_S, MOST_AGAIN_S, Recorder
from .retrying import wait_s
from .service import new_id
from .states import Event, Status
from .store import Done, LostError, Store
from .validation import Line, Mistake, Validator, errors_of, read_line

if TYPE_CHECKING:
    from ..config import BatchConfig
    from ..problems import Problem
    from .database import Database
    from .records import Batch

T = TypeVar("T")

logger = logging.getLogger("actorrt.serve.llm")

# What has come is written when its worker is to end, for so long.
_LAST_WRITE_S: Final = 5.0


class Work(NamedTuple):
    """What all runs of a replica of the front share."""

    owner: str
    config: BatchConfig
    database: Database
    handle: Handle
    known: Callable[[str | None], Problem | None]
    """What is wrong with the name of a model."""
    places: Callable[[str, str | None], Places]
    """Of a tenant at a model: as many as may run at once."""
    most_line: int
    """Bytes of a line."""
    running: Counter[str]
    """Requests that are in hand, by model."""
    ended: Callable[[bool], None]
    """Told of each request that has its answer, whether it was a good one."""


class Run:
    def __init__(self, work: Work, batch: Batch) -> None:
        self._work, self._batch = work, batch
        self._cancelled = asyncio.Event()

    @property
    def id(self) -> str:
        return self._batch.id

    def cancel(self) -> None:
        """Its tenant wants no more of it."""
        self._cancelled.set()

    async def work(self) -> None:
        """To its end. LostError if it is another's by now."""
        if self._batch.total is None and not await self._validate():
            return
        if self._batch.status is Status.IN_PROGRESS:
            await self._answer_all()
        await self._write_files()

    async def _validate(self) -> bool:
        work, batch = self._work, self._batch
        validator = Validator(batch.endpoint, work.known, work.config.max_requests, work.most_line)
        try:
            await asyncio.to_thread(validate, work.database.file(batch.input_file_id), validator, work.most_line)
            mistakes = validator.end()
        except FileNotFoundError:
            mistakes = [Mistake("file_not_found", "the input file is not on the server's disk any more")]
        except OSError as error:
            raise storage_error(error, batch.input_file_id) from None
        if mistakes:
            await self._try(lambda: work.database.do(Store.refused, work.owner, self.id, errors_of(mistakes), time()))
            return False
        self._batch = await self._try(
            lambda: work.database.do(Store.validated, work.owner, self.id, validator.total, validator.model, time())
        )
        return True

    async def _answer_all(self) -> None:
        work = self._work
        done = await self._try(lambda: work.database.do(Store.lines_done, self.id))
        recorder = Recorder(self._record)
        making = asyncio.create_task(self._make(done, recorder))
        cancelled = asyncio.create_task(self._cancelled.wait())
        left_s = max(0.0, self._batch.expires_at - time())
        event = Event.OVER
        try:
            await asyncio.wait({making, cancelled}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if making.done():
                making.result()
                event = Event.DONE
            elif self._cancelled.is_set():
                event = Event.CANCEL
        except BaseExceptionGroup as group:
            if group.subgroup(LostError) is not None:
                raise LostError from None
            raise
        finally:
            making.cancel()
            cancelled.cancel()
            await self._let_end(making, recorder)
        self._batch = await self._try(lambda: work.database.do(Store.happened, work.owner, self.id, event, time()))

    async def _let_end(self, making: asyncio.Task[None], recorder: Recorder) -> None:
        """The requests under way end, and what came of the others is written."""
        await asyncio.wait({making})
        try:
            async with asyncio.timeout(_LAST_WRITE_S):
                await recorder.flush()
        except TimeoutError:
            logger.warning("not all answers of batch %s could be written: they are asked for again", self.id)
        finally:
            recorder.close()

    async def _make(self, done: set[int], recorder: Recorder) -> None:
        """Have all requests answered that have no answer yet."""
        places = self._work.places(self._batch.tenant, self._batch.model)
        # Those that were refused have no place, and wait to be made again.
        in_hand = asyncio.Semaphore(places.number)
        path = self._work.database.file(self._batch.input_file_id)
        async with asyncio.TaskGroup() as group:
            async for number, data in lines(path, self._work.most_line):
                if number in done:
                    continue
                line = read_line(number, data)
                await in_hand.acquire()
                place = await places.take()
                one = group.create_task(self._make_one(line, place, recorder))
                # Also if it is cancelled before it has begun.
                one.add_done_callback(partial(_put_down, place, in_hand))

    async def _make_one(self, line: Line, place: Place, recorder: Recorder) -> None:
        answer = await self._answer(line, place)
        output = answered(new_id("batch_req_"), line.custom_id, answer)
        await recorder.record(Done(line.number, answer.is_good, output, tokens_of(answer.body)))
        self._work.ended(answer.is_good)

    async def _answer(self, line: Line, place: Place) -> Answer:
        tries = 0
        while True:
            with self._in_hand():
                reply = await ask(self._work.handle, self._batch.tenant, self._batch.endpoint, line.body)
            tries += 1
            pause_s = wait_s(reply.answer.status, reply.retry_after_s, tries, random.random())
            if pause_s is None:
                place.answered()
                return reply.answer
            place.refused(pause_s)
            await asyncio.sleep(pause_s)
            await place.take_again()

    @contextmanager
    def _in_hand(self) -> Generator[None]:
        running, model = self._work.running, self._batch.model or ""
        running[model] += 1
        try:
            yield
        finally:
            running[model] -= 1
            if not running[model]:
                del running[model]

    async def _record(self, done: Sequence[Done]) -> None:
        await self._work.database.do(Store.record, self._work.owner, self.id, done)

    async def _write_files(self) -> None:
        await self._try(self._try_to_write_files)

    async def _try_to_write_files(self) -> None:
        work = self._work
        batch = await work.database.do(Store.own, work.owner, self.id)
        why = CANCELLED if batch.status is Status.CANCELLING else EXPIRED
        files = OutcomeFiles(work.database, batch, work.most_line, why)
        try:
            outcome = await files.write()
            event = Event.WRITTEN if outcome.is_whole else Event.CUT_SHORT
            await work.database.do(Store.finish, work.owner, self.id, event, time(), outcome.output, outcome.errors)
        except StorageError:
            await files.undo()
            raise

    async def _try(self, step: Callable[[], Awaitable[T]]) -> T:
        """Again and again while the disk is full, or the database cannot be read."""
        pause_s = AGAIN_S
        while True:
            try:
                return await step()
            except StorageError as error:
                logger.error("batch %s waits for the disk: %s", self.id, error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, MOST_AGAIN_S)


def _put_down(place: Place, in_hand: asyncio.Semaphore, _: asyncio.Task[None]) -> None:
    place.give_back()
    in_hand.release()
