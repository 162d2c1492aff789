"""`/v1/files`: files that clients bring, and those that batches make, each its tenant's own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec

from ...base.background import to_its_end
from ..problems import Problem
from .asked import WantedFile, read_form, read_page
from .database import StorageError, storage_error
from .file_records import TooManyError
from .form import AROUND, Form
from .records import File, page
from .service import Batches, batches_of, new_id, not_here, query_of
from .store import Store

if TYPE_CHECKING:
    from ..exchange import Exchange
    from ..services import Services

logger = logging.getLogger("actorrt.serve.llm")

# Bytes that are written, or read, at once.
_PIECE: Final = 256 * 1024
_MOST_ON_PAGE: Final = 10_000


async def files(services: Services, exchange: Exchange, name: str) -> None:
    """GET and POST /v1/files."""
    batches = batches_of(services)
    if exchange.method == "POST":
        file = await _receive(batches, exchange)
        await exchange.respond_json(msgspec.json.encode(file.shown()))
        return
    wanted = read_page(query_of(exchange), most=_MOST_ON_PAGE, default=_MOST_ON_PAGE)
    found = await batches.database.do(
        Store.files,
        exchange.tenant,
        time(),
        limit=wanted.limit + 1,
        after=wanted.after,
        newest_first=wanted.newest_first,
        purpose=wanted.purpose,
    )
    if found is None:
        raise not_here("file", wanted.after or "", "after")
    shown = [each.shown() for each in found[: wanted.limit]]
    await exchange.respond_json(msgspec.json.encode(page(shown, more=len(found) > wanted.limit)))


async def file(services: Services, exchange: Exchange, name: str) -> None:
    """GET and DELETE /v1/files/ID."""
    batches = batches_of(services)
    if exchange.method == "DELETE":
        if not await batches.database.do(Store.delete_file, exchange.tenant, name, time()):
            raise not_here("file", name)
        batches.wake()
        await exchange.respond_json(msgspec.json.encode({"id": name, "object": "file", "deleted": True}))
        return
    found = await _find(batches, exchange, name)
    await exchange.respond_json(msgspec.json.encode(found.shown()))


async def content(services: Services, exchange: Exchange, name: str) -> None:
    """GET /v1/files/ID/content: the bytes as they were."""
    batches = batches_of(services)
    found = await _find(batches, exchange, name)
    path = batches.database.file(found.id)
    try:
        opened = await asyncio.to_thread(open, path, "rb")
    except OSError as error:
        raise storage_error(error, str(path)) from None
    try:
        headers = [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % found.bytes)]
        await exchange.begin(200, headers)
        left = found.bytes
        while left and exchange.method != "HEAD":
            piece = await asyncio.to_thread(opened.read, min(_PIECE, left))
            if not piece:
                raise StorageError(Problem(500, "the file is shorter than it was"), f"{path} is cut off")
            left -= len(piece)
            await exchange.write(piece)
        await exchange.end()
    finally:
        opened.close()


async def _find(batches: Batches, exchange: Exchange, id: str) -> File:
    if (found := await batches.database.do(Store.file, exchange.tenant, id, time())) is None:
        raise not_here("file", id)
    return found


async def _receive(batches: Batches, exchange: Exchange) -> File:
    config, database = batches.config, batches.database
    form = Form(exchange.headers.get(b"content-type", b""))
    used = await database.do(Store.used_bytes, exchange.tenant)
    now = int(time())
    file = File(new_id("file-"), exchange.tenant, "", "", 0, now, None)
    try:
        await database.do(Store.begin_file, file, config.max_files)
    except TooManyError:
        message = f"there are {config.max_files} files already, as many as may be: delete some"
        raise Problem(429, message, code="too_many_files", headers=((b"x-should-retry", b"false"),)) from None
    path = database.file(file.id)
    try:
        wanted = await _write(form, exchange, path, config.max_file_bytes, config.max_bytes - used)
        lives_s = config.expires_after_s if wanted.lives_s is None else wanted.lives_s
        expires_at = None if lives_s is None else now + lives_s
        file = replace(file, purpose=wanted.purpose, filename=wanted.filename, bytes=form.size, expires_at=expires_at)
        await database.do(Store.keep_file, file, config.max_bytes)
    except BaseException as error:
        await to_its_end(_give_up(batches, file.id, path))
        if isinstance(error, TooManyError):
            raise _no_bytes_left() from None
        raise
    return file


def _no_bytes_left() -> Problem:
    message = "the file is larger than what is left of the bytes that may be kept: delete other files"
    return Problem(413, message, param="file", code="storage_limit_exceeded")


async def _write(form: Form, exchange: Exchange, path: Path, most: int, left: int) -> WantedFile:
    """The file of a form that comes, onto the disk. Problem 400 or 413."""
    opened: BinaryIO | None = None
    try:
        opened = await asyncio.to_thread(open, path, "xb")
        came: list[bytes] = []
        waiting = 0
        async for part in exchange.parts(most + AROUND):
            form.feed(part)
            if form.size > most:
                raise Problem(413, f"the file is larger than {most} bytes", param="file", code="request_too_large")
            if form.size > left:
                raise _no_bytes_left()
            came += form.take()
            waiting += len(part)
            if waiting >= _PIECE:
                await asyncio.to_thread(opened.writelines, came)
                came, waiting = [], 0
        form.end()
        wanted = read_form(form.fields, form.filename)
        if not form.size:
            raise Problem(400, "the file is empty", param="file", code="empty_file")
        await asyncio.to_thread(write_end, opened, came)
    except OSError as error:
        raise storage_error(error, str(path)) from None
    finally:
        if opened is not None:
            # What of it may still be written is not wanted, or is on the disk.
            with contextlib.suppress(OSError):
                opened.close()
    return wanted


def write_end(opened: BinaryIO, pieces: Sequence[bytes]) -> None:
    """The last of a file: after this it is on the disk."""
    opened.writelines(pieces)
    opened.flush()
    os.fsync(opened.fileno())


async def _give_up(batches: Batches, id: str, path: Path) -> None:
    with contextlib.suppress(OSError):
        await asyncio.to_thread(path.unlink, missing_ok=True)
    try:
        await batches.database.do(Store.give_up_file, id)
    except StorageError as error:
        logger.warning("the record of an upload that did not come is left until it is a day old: %s", error)
