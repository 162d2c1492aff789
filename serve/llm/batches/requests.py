"""`/v1/batches`: make a batch, look after it, cancel it. What it asks is answered elsewhere."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING, Final

import msgspec

from ..problems import Problem
from .asked import read_batch, read_page
from .file_records import TooManyError
from .records import BATCH, Batch, page
from .service import Batches, batches_of, new_id, not_here, query_of
from .states import Status, WrongEventError
from .store import Store

if TYPE_CHECKING:
    from ..exchange import Exchange
    from ..services import Services

# Of all tenants together; of older ones those that have ended are forgotten. Each is about a kilobyte.
MOST: Final = 1_000_000
_NO_RETRY: Final = ((b"x-should-retry", b"false"),)


async def batches(services: Services, exchange: Exchange, name: str) -> None:
    """GET and POST /v1/batches."""
    kept = batches_of(services)
    if exchange.method == "POST":
        batch = await _create(services, kept, exchange)
        await exchange.respond_json(msgspec.json.encode(batch.shown()))
        return
    wanted = read_page(query_of(exchange), most=100, default=20)
    found = await kept.database.do(Store.batches, exchange.tenant, limit=wanted.limit + 1, after=wanted.after)
    if found is None:
        raise not_here("batch", wanted.after or "", "after")
    shown = [each.shown() for each in found[: wanted.limit]]
    await exchange.respond_json(msgspec.json.encode(page(shown, more=len(found) > wanted.limit)))


async def batch(services: Services, exchange: Exchange, name: str) -> None:
    """GET /v1/batches/ID."""
    found = await batches_of(services).database.do(Store.batch, exchange.tenant, name)
    if found is None:
        raise not_here("batch", name)
    await exchange.respond_json(msgspec.json.encode(found.shown()))


async def cancel(services: Services, exchange: Exchange, name: str) -> None:
    """POST /v1/batches/ID/cancel."""
    kept = batches_of(services)
    try:
        found = await kept.database.do(Store.cancel, exchange.tenant, name, time())
    except WrongEventError as error:
        message = f"a batch that is {error.status} cannot be cancelled"
        raise Problem(409, message, code="invalid_batch_status", headers=_NO_RETRY) from None
    if found is None:
        raise not_here("batch", name)
    kept.wake()
    await exchange.respond_json(msgspec.json.encode(found.shown()))


async def _create(services: Services, kept: Batches, exchange: Exchange) -> Batch:
    wanted = read_batch((await services.read(exchange)).fields)
    config, now = kept.config, time()
    file = await kept.database.do(Store.file, exchange.tenant, wanted.input_file_id, now)
    if file is not None and file.purpose != BATCH:
        message = f"the file {file.id!r} is of the purpose {file.purpose!r}, and not of {BATCH!r}"
        raise Problem(400, message, param="input_file_id", code="invalid_file_purpose")
    batch = Batch(
        new_id("batch_"),
        exchange.tenant,
        Status.VALIDATING,
        wanted.endpoint,
        wanted.input_file_id,
        wanted.completion_window,
        int(now),
        int(now) + wanted.window_s,
        wanted.metadata,
        config.expires_after_s if wanted.output_lives_s is None else wanted.output_lives_s,
    )
    try:
        is_made = await kept.database.do(Store.add_batch, batch, now, most_open=config.max_open, most=MOST)
    except TooManyError:
        message = f"{config.max_open} batches have not ended yet, as many as may be"
        raise Problem(429, message, code="too_many_batches", retry_after_s=60) from None
    if not is_made:
        raise not_here("file", wanted.input_file_id, "input_file_id")
    kept.wake()
    return batch
