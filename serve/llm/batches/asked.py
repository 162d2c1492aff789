"""What a client asks for: a batch to be made, a part of a list, a file's form. Each mistake names its field. No I/O."""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from ..fields import FieldError, Node
from ..responses.listing import whole_number
from .records import BATCH

ENDPOINTS: Final = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
# OpenAI's bounds.
MOST_METADATA: Final = 16
LONGEST_KEY: Final = 64
LONGEST_VALUE: Final = 512
SHORTEST_LIFE_S: Final = 3600
LONGEST_LIFE_S: Final = 2_592_000
LONGEST_NAME: Final = 512
_WINDOW: Final = re.compile(r"([1-9][0-9]{0,6})([smhd])", re.ASCII)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class WantedBatch(NamedTuple):
    input_file_id: str
    endpoint: str
    completion_window: str
    window_s: int
    metadata: bytes
    # None: it does not say.
    output_lives_s: int | None


class WantedPage(NamedTuple):
    limit: int
    after: str | None
    newest_first: bool = True
    purpose: str | None = None


class WantedFile(NamedTuple):
    filename: str
    purpose: str
    # None: the form does not say.
    lives_s: int | None


def read_batch(fields: Mapping[str, Any]) -> WantedBatch:
    body = Node(fields)
    input_file_id = body.need("input_file_id").name()
    endpoint = body.need("endpoint").choice(*ENDPOINTS)
    window = body.need("completion_window")
    metadata = body.get("metadata")
    lives = body.get("output_expires_after")
    return WantedBatch(
        input_file_id,
        endpoint,
        window.text(),
        _seconds_of(window),
        b"null" if metadata is None else _metadata(metadata),
        None if lives is None else _life_of(lives),
    )


def read_page(query: Mapping[str, str], *, most: int, default: int) -> WantedPage:
    limit = whole_number(query, "limit", default, least=1, most=most)
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise FieldError(("order",), f"must be 'asc' or 'desc', not {order[:64]!r}")
    return WantedPage(limit, query.get("after"), order == "desc", query.get("purpose"))


def read_form(fields: Mapping[str, str], filename: str | None) -> WantedFile:
    """`fields`: what a form has besides the file; `filename`: None if it has no file."""
    if filename is None:
        raise FieldError(("file",), "the field is required: a part of the form with a filename")
    if (purpose := fields.get("purpose")) is None:
        raise FieldError(("purpose",), "the field is required")
    if purpose != BATCH:
        raise FieldError(("purpose",), f"must be '{BATCH}', the only one that is kept here, not {purpose[:64]!r}")
    seconds, anchor = fields.get("expires_after[seconds]"), fields.get("expires_after[anchor]")
    lives_s = None
    if seconds is not None or anchor is not None:
        if anchor != "created_at":
            raise FieldError(("expires_after", "anchor"), "must be 'created_at'")
        if seconds is None or not seconds.isascii() or not seconds.isdecimal() or len(seconds) > 9:
            raise FieldError(("expires_after", "seconds"), "must be an integer")
        lives_s = Node(int(seconds), ("expires_after", "seconds")).whole(SHORTEST_LIFE_S, LONGEST_LIFE_S)
    return WantedFile(filename[:LONGEST_NAME] or "upload.jsonl", purpose, lives_s)


def _seconds_of(window: Node) -> int:
    found = _WINDOW.fullmatch(window.text())
    if found is None:
        raise window.error("must be a time such as '24h': a whole number and s, m, h or d")
    seconds = int(found[1]) * _UNITS[found[2]]
    if seconds > LONGEST_LIFE_S:
        raise window.error("must be at most 30d")
    return seconds


def _life_of(node: Node) -> int:
    node.need("anchor").choice("created_at")
    return node.need("seconds").whole(SHORTEST_LIFE_S, LONGEST_LIFE_S)


def _metadata(node: Node) -> bytes:
    given = node.mapping()
    if len(given) > MOST_METADATA:
        raise node.error(f"must have at most {MOST_METADATA} pairs, not {len(given)}")
    for key in given:
        if len(key) > LONGEST_KEY:
            raise node.error(f"a key must have at most {LONGEST_KEY} characters, not {len(key)}")
        value = Node(given[key], (*node.path, key))
        if len(value.text()) > LONGEST_VALUE:
            raise value.error(f"must have at most {LONGEST_VALUE} characters")
    return msgspec.json.encode(given)
