"""A request's head as one bytes object, so that it crosses to the replica as it came and is taken apart only there.

Lines, since neither a target nor a field can hold a line break: seven about the request, then names and values in turn.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

# What the bytes of a response depend on besides what the application says: flags in an int, since it is read often.
HEAD: Final = 1  # no body, whatever the length says
CLOSE: Final = 2  # the connection ends after it, so that it must say so
HTTP_1_0: Final = 4  # no chunks: the end of the connection ends the body

CONNECTION, ROOT_PATH, METHOD, VERSION, PATH, QUERY, REQUEST_ID, FIELDS = range(8)


def connection_line(scheme: str, client: tuple[str, int] | None, server: tuple[str, int | None] | None) -> bytes:
    """The part that all requests of a connection share."""
    client_host, client_port = client or ("", 0)
    server_host, server_port = server or ("", None)
    port = "" if server_port is None else str(server_port)
    return "\t".join((scheme, client_host, str(client_port), server_host, port)).encode("latin-1", "replace")


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
    if packed.count(b"\n") != FIELDS - 1 + len(fields):
        raise ValueError("a line break in the head of a request")
    return packed


def scope_of(lines: Sequence[bytes]) -> dict[str, Any]:
    """The ASGI scope of a request whose packed head was split into these lines; its type is "http"."""
    scheme, client, server = _connection(lines[CONNECTION])
    raw_path = lines[PATH]
    path = raw_path.decode("latin-1")
    if "%" in path:
        path = unquote(path)
    return {
        "type": "http",
        # 2.4: a response stream ends by an exception, so it needs no task group that listens for disconnects.
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": lines[VERSION].decode("latin-1"),
        "scheme": scheme,
        "client": client,
        "server": server,
        "root_path": lines[ROOT_PATH].decode("utf-8"),
        "method": lines[METHOD].decode("latin-1"),
        "path": path,
        "raw_path": raw_path,
        "query_string": lines[QUERY],
        "headers": list(zip(lines[FIELDS::2], lines[FIELDS + 1 :: 2], strict=True)),
        "state": {},
    }


@lru_cache(maxsize=1024)
def _connection(line: bytes) -> tuple[str, tuple[str, int] | None, tuple[str, int | None] | None]:
    scheme, client_host, client_port, server_host, server_port = line.decode("latin-1").split("\t")
    client = (client_host, int(client_port)) if client_host else None
    server = (server_host, int(server_port) if server_port else None) if server_host else None
    return scheme, client, server


def announced_length(lines: Sequence[bytes]) -> int | None:
    """How long the body is, as its client has said; None if it did not say."""
    names = lines[FIELDS::2]
    return int(lines[FIELDS + 1 + 2 * names.index(b"content-length")]) if b"content-length" in names else None


def method_and_path(lines: Sequence[bytes]) -> str:
    """For logs: `GET /path`."""
    return f"{lines[METHOD].decode('latin-1')} {lines[PATH].decode('latin-1')}"
