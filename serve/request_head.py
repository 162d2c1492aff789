"""A request's head as one bytes object, so that it crosses to the replica as it came and is taken apart only there.

Lines, since neither a target nor a field can hold a line break: eleven about the request, then names and values in
turn.
"""

from collections.abc import Sequence
from enum import IntFlag
from typing import Any
from urllib.parse import unquote


class Framing(IntFlag):
    """What the bytes of a response depend on besides what the application says."""

    HEAD = 1  # no body, whatever the length says
    CLOSE = 2  # the connection ends after it, so that it must say so
    HTTP_1_0 = 4  # no chunks: the end of the connection ends the body


def connection_lines(scheme: str, client: tuple[str, int] | None, server: tuple[str, int | None] | None) -> bytes:
    """The part that all requests of a connection share."""
    client_host, client_port = client or ("", 0)
    server_host, server_port = server or ("", None)
    port = "" if server_port is None else str(server_port)
    return "\n".join((scheme, client_host, str(client_port), server_host, port)).encode("latin-1", "replace")


def pack_head(
    connection: bytes,
    root_path: bytes,
    method: bytes,
    version: bytes,
    path: bytes,
    query: bytes,
    request_id: bytes,
    fields: Sequence[bytes],
) -> bytes:
    """ValueError if a part holds a line break, which no strict parser lets through."""
    packed = b"\n".join((connection, root_path, method, version, path, query, request_id, *fields))
    if packed.count(b"\n") != 10 + len(fields):
        raise ValueError("a line break in the head of a request")
    return packed


def unpack_head(packed: bytes) -> dict[str, Any]:
    """The ASGI scope of the request, type "http"."""
    lines = packed.split(b"\n")
    scheme, client_host, client_port, server_host, server_port = (each.decode("latin-1") for each in lines[:5])
    raw_path = lines[8]
    path = raw_path.decode("latin-1")
    if "%" in path:
        path = unquote(path)
    return {
        "type": "http",
        # 2.4: a response stream ends by an exception, so it needs no task group that listens for disconnects.
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": lines[7].decode("latin-1"),
        "scheme": scheme,
        "client": (client_host, int(client_port)) if client_host else None,
        "server": (server_host, int(server_port) if server_port else None) if server_host else None,
        "root_path": lines[5].decode("latin-1"),
        "method": lines[6].decode("latin-1"),
        "path": path,
        "raw_path": raw_path,
        "query_string": lines[9],
        "headers": list(zip(lines[11::2], lines[12::2], strict=True)),
        "state": {},
    }


def request_id_of(packed: bytes) -> str:
    return packed.split(b"\n", 11)[10].decode("latin-1")


def method_and_path(packed: bytes) -> str:
    """For logs: `GET /path`."""
    lines = packed.split(b"\n", 9)
    return f"{lines[6].decode('latin-1')} {lines[8].decode('latin-1')}"
