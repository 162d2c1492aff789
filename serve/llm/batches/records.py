"""Files and batches as they are kept, and as clients are shown them. No I/O, no clock.

The fields are the columns of their tables, in this order.
"""

from dataclasses import dataclass, fields
from typing import Any, Final

import msgspec

from .states import Status

BATCH: Final = "batch"
"""Purpose of a file that a batch is made from."""
BATCH_OUTPUT: Final = "batch_output"
"""Of one that a batch has made."""


@dataclass(frozen=True, slots=True)
class File:
    """Times are whole seconds since 1970, here and below."""

    id: str
    tenant: str
    purpose: str
    filename: str
    bytes: int
    created_at: int
    expires_at: int | None

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


@dataclass(frozen=True, slots=True)
class Batch:
    """`metadata` and `errors` are JSON; `total` is None until its file was found to be valid."""

    id: str
    tenant: str
    status: Status
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: int
    metadata: bytes = b"null"
    # Seconds that the files live which it makes; None: for ever.
    output_lives_s: int | None = None
    errors: bytes = b"null"
    model: str | None = None
    total: int | None = None
    completed: int = 0
    failed: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None

    def shown(self) -> dict[str, Any]:
        usage = {
            "input_tokens": self.input_tokens,
            "input_tokens_details": {"cached_tokens": self.cached_tokens},
            "output_tokens": self.output_tokens,
            "output_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
            "total_tokens": self.input_tokens + self.output_tokens,
        }
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.model,
            "errors": msgspec.Raw(self.errors),
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": str(self.status),
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": self.created_at,
            "in_progress_at": self.in_progress_at,
            "expires_at": self.expires_at,
            "finalizing_at": self.finalizing_at,
            "completed_at": self.completed_at,
            "failed_at": self.failed_at,
            "expired_at": self.expired_at,
            "cancelling_at": self.cancelling_at,
            "cancelled_at": self.cancelled_at,
            "request_counts": {"total": self.total or 0, "completed": self.completed, "failed": self.failed},
            "usage": usage,
            "metadata": msgspec.Raw(self.metadata),
        }


FILE_COLUMNS: Final = tuple(each.name for each in fields(File))
BATCH_COLUMNS: Final = tuple(each.name for each in fields(Batch))


def page(objects: list[dict[str, Any]], *, more: bool) -> dict[str, Any]:
    """A part of a list, as OpenAI's clients go through it."""
    first, last = (objects[0]["id"], objects[-1]["id"]) if objects else (None, None)
    return {"object": "list", "data": objects, "first_id": first, "last_id": last, "has_more": more}
