"""The same bytes to the same application under bare uvicorn and under Serve. What differs does so on purpose.

Behind each case goes a last request, which is answered if the connection has stayed: so every read ends by itself.
"""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from actorrt import serve

from .asgi_servers import bare_uvicorn

# What no server has to say in the same way.
OWN_FIELDS = {"date", "server", "x-request-id"}
LAST = b"GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Says what it was told, in the way that the path asks for."""
    body, more = b"", True
    if not scope["path"].startswith("/unread"):
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
    status, pieces = 200, 1
    headers = [(b"content-type", b"application/json")]
    told = {
        name: value.decode("latin-1") if isinstance(value, bytes) else value
        for name, value in scope.items()
        if name in ("method", "path", "raw_path", "query_string", "http_version", "scheme", "root_path", "type")
    }
    told["headers"] = [[part.decode("latin-1") for part in header] for header in scope["headers"]]
    told["body"] = body.decode("latin-1")
    said = json.dumps(told).encode()
    match scope["path"].rpartition("/")[2]:
        case "status-204" | "status-304" as wanted:
            status, said = int(wanted[-3:]), b""
        case "status-418":
            status = 418
        case "status-299":
            status = 299
        case "length":
            headers.append((b"Content-Length", b"%d" % len(said)))
        case "closes":
            headers.append((b"Connection", b"close"))
        case "pieces":
            pieces = 3
        case "twice":
            headers += [(b"Set-Cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"X-Empty", b""), (b"x-odd", b"\xe9\t ")]
        case "raises":
            raise ValueError("told to")
        case _:
            pass
    await send({"type": "http.response.start", "status": status, "headers": headers})
    size = len(said) // pieces + 1
    for index in range(pieces):
        part = said[index * size : (index + 1) * size]
        await send({"type": "http.response.body", "body": part, "more_body": index < pieces - 1})


class Answer(NamedTuple):
    status: int
    fields: list[tuple[str, str]]
    body: bytes


def asked(url: str, data: bytes, head: bool) -> list[Answer]:
    """All that comes back, one answer after the other, until the server ends the connection."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout=20) as client:
        client.sendall(data + LAST)
        heard = b""
        try:
            while part := client.recv(65536):
                heard += part
        except ConnectionResetError:
            pass
    answers: list[Answer] = []
    while heard:
        top, _, heard = heard.partition(b"\r\n\r\n")
        line, *lines = top.decode("latin-1").split("\r\n")
        status = int(line.split(" ")[1])
        fields = sorted((name.lower(), value.strip()) for name, _, value in (each.partition(":") for each in lines))
        known = dict(fields)
        body = b""
        if status < 200 or status in (204, 304) or (head and not answers):
            pass
        elif known.get("transfer-encoding") == "chunked":
            while True:
                size, _, heard = heard.partition(b"\r\n")
                body += heard[: int(size, 16)]
                heard = heard[int(size, 16) + 2 :]
                if not int(size, 16):
                    break
        else:
            length = int(known.get("content-length", len(heard)))
            body, heard = heard[:length], heard[length:]
        answers.append(Answer(status, [each for each in fields if each[0] not in OWN_FIELDS], body))
    return answers


def request(
    target: str = "/", *fields: str, method: str = "GET", version: str = "1.1", body: bytes = b"", host: str = "host: x"
) -> bytes:
    lines = [f"{method} {target} HTTP/{version}", *([host] if host else []), *fields]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


CHUNKS = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
CHUNKED = "transfer-encoding: chunked"
SIZED = "content-length: 5"

CASES: dict[str, bytes] = {
    # Paths and targets.
    "plain": request(),
    "path": request("/a/b/c"),
    "trailing slash": request("/a/"),
    "double slashes": request("//a//b"),
    "dots": request("/a/../b/./c"),
    "encoded": request("/a%20b/%C3%A9"),
    "encoded slash": request("/a%2Fb"),
    "lower-case encoding": request("/%c3%a9"),
    "encoded percent": request("/100%25"),
    "bad encoding": request("/%zz/%"),
    "encoded zero": request("/a%00b"),
    "invalid utf-8": request("/%ff%fe"),
    "raw latin-1": request("/\xe9"),
    "plus": request("/a+b?c+d"),
    "query": request("/a?b=c&d=%20e"),
    "empty query": request("/a?"),
    "two question marks": request("/a?b?c"),
    "question mark first": request("/?b=/c"),
    "fragment": request("/a#b"),
    "fragment with a question mark": request("/a#b?c"),
    "fragment behind a query": request("/a?b#c"),
    "semicolon": request("/a;b=c"),
    "brackets": request("/a[b]{c}|d"),
    "quotes": request("/\"a\"'b'"),
    "backslash": request("/a\\b"),
    "tilde": request("/~a"),
    "colon": request("/a:b@c"),
    "long path": request("/" + "a" * 20_000),
    "long query": request("/a?" + "b" * 20_000),
    "absolute target": request("http://x/a?b"),
    "absolute target without a path": request("http://x"),
    "absolute target of another host": request("http://other/a"),
    "absolute target with a port": request("http://x:80/a"),
    "absolute target by https": request("https://x/a"),
    "asterisk": request("*", method="OPTIONS"),
    "asterisk for GET": request("*"),
    "no slash": request("a"),
    "connect": request("x:80", method="CONNECT"),
    "space in the target": request("/a b"),
    "empty target": request(""),
    # Methods.
    **{f"method {each}": request(method=each) for each in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE")},
    **{f"method {each}": request(method=each) for each in ("PROPFIND", "PURGE", "SEARCH", "QUERY", "LINK")},
    "unknown method": request(method="FOO"),
    "lower-case method": request(method="get"),
    "HEAD": request("/pieces", method="HEAD"),
    "HEAD with a length": request("/length", method="HEAD"),
    "HEAD of an error": request("/raises", method="HEAD"),
    # Versions and connections.
    "HTTP/1.0": request(version="1.0"),
    "HTTP/1.0 without a host": request(version="1.0", host=""),
    "HTTP/1.0 keep-alive": request("/length", "connection: keep-alive", version="1.0"),
    "HTTP/1.0 in pieces": request("/pieces", version="1.0"),
    "HTTP/1.0 with a body": request("/", SIZED, method="POST", version="1.0", body=b"hello"),
    "HTTP/1.0 expects": request("/", SIZED, "expect: 100-continue", method="POST", version="1.0", body=b"hello"),
    "HTTP/1.2": request(version="1.2"),
    "HTTP/2.0": request(version="2.0"),
    "HTTP/2's beginning": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "no version": b"GET / \r\nhost: x\r\n\r\n",
    "lower-case http": b"GET / http/1.1\r\nhost: x\r\n\r\n",
    "close": request("/", "connection: close"),
    "Close": request("/", "Connection: Close"),
    "close and others": request("/", "connection: te, close"),
    "keep-alive": request("/", "connection: keep-alive"),
    "keep-alive and close": request("/", "connection: keep-alive", "connection: close"),
    "the application closes": request("/closes"),
    "close behind which more comes": request("/", "connection: close") + request("/more"),
    "pipelined": request("/a") + request("/b?c") + request("/d"),
    "pipelined with bodies": request("/a", SIZED, method="POST", body=b"hello") * 3,
    "pipelined behind a stream": request("/pieces") + request("/length"),
    "pipelined behind an error": request("/raises") + request("/a"),
    "empty lines before": b"\r\n\r\n" + request("/a"),
    "empty lines between": request("/a") + b"\r\n" + request("/b"),
    "bare line feeds": b"GET /a HTTP/1.1\nhost: x\n\n",
    "upgrade to h2c": request("/a", "connection: Upgrade", "upgrade: h2c"),
    "upgrade without a connection": request("/a", "upgrade: websocket"),
    "upgrade to h2c with a body": request(
        "/", "connection: Upgrade", "upgrade: h2c", SIZED, method="POST", body=b"hello"
    ),
    "upgrade to h2c in chunks": request(
        "/", "connection: Upgrade", "upgrade: h2c", CHUNKED, method="POST", body=CHUNKS
    ),
    # Bodies.
    "a body": request("/", SIZED, method="POST", body=b"hello"),
    "a body of GET": request("/", SIZED, body=b"hello"),
    "an empty body": request("/", "content-length: 0", method="POST"),
    "no length": request("/", method="POST"),
    "a body of 100 KB": request("/length", "content-length: 100000", method="POST", body=b"x" * 100_000),
    "a body that is not read": request("/unread", SIZED, method="POST", body=b"hello"),
    "a large body that is not read": request("/unread", "content-length: 200000", method="POST", body=b"x" * 200_000),
    "chunks": request("/", CHUNKED, method="POST", body=CHUNKS),
    "Chunks": request("/", "Transfer-Encoding: Chunked", method="POST", body=CHUNKS),
    "chunk extensions": request("/", CHUNKED, method="POST", body=b"3;a=b\r\nabc\r\n0;c\r\n\r\n"),
    "quoted extension": request("/", CHUNKED, method="POST", body=b'3;a="b;c"\r\nabc\r\n0\r\n\r\n'),
    "trailers": request("/", CHUNKED, "trailer: t", method="POST", body=b"3\r\nabc\r\n0\r\nt: v\r\n\r\n"),
    "upper-case sizes": request("/", CHUNKED, method="POST", body=b"A\r\n0123456789\r\n0\r\n\r\n"),
    "sizes with zeros": request("/", CHUNKED, method="POST", body=b"0003\r\nabc\r\n000\r\n\r\n"),
    "no chunk": request("/", CHUNKED, method="POST", body=b"0\r\n\r\n"),
    "bad size": request("/", CHUNKED, method="POST", body=b"xyz\r\nabc\r\n0\r\n\r\n"),
    "negative size": request("/", CHUNKED, method="POST", body=b"-1\r\nabc\r\n0\r\n\r\n"),
    "hexadecimal size with a prefix": request("/", CHUNKED, method="POST", body=b"0x3\r\nabc\r\n0\r\n\r\n"),
    "huge size": request("/", CHUNKED, method="POST", body=b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
    "size with a space": request("/", CHUNKED, method="POST", body=b"3 \r\nabc\r\n0\r\n\r\n"),
    "chunk longer than its size": request("/", CHUNKED, method="POST", body=b"2\r\nabc\r\n0\r\n\r\n"),
    "chunks with line feeds alone": request("/", CHUNKED, method="POST", body=b"3\nabc\n0\n\n"),
    "trailer that is a framing field": request("/", CHUNKED, method="POST", body=b"0\r\ncontent-length: 5\r\n\r\n"),
    # Two ways to tell where a body ends: how requests are smuggled.
    "length and chunks": request("/", SIZED, CHUNKED, method="POST", body=CHUNKS),
    "chunks and length": request("/", CHUNKED, "content-length: 3", method="POST", body=CHUNKS),
    "two lengths": request("/", SIZED, "content-length: 6", method="POST", body=b"hello"),
    "the same length twice": request("/", SIZED, SIZED, method="POST", body=b"hello"),
    "a list of lengths": request("/", "content-length: 5, 5", method="POST", body=b"hello"),
    "length with a sign": request("/", "content-length: +5", method="POST", body=b"hello"),
    "negative length": request("/", "content-length: -5", method="POST", body=b"hello"),
    "hexadecimal length": request("/", "content-length: 0x5", method="POST", body=b"hello"),
    "length that is a word": request("/", "content-length: five", method="POST", body=b"hello"),
    "empty length": request("/", "content-length:", method="POST"),
    "length with spaces": request("/", "content-length:  5 ", method="POST", body=b"hello"),
    "length with a space inside": request("/", "content-length: 5 5", method="POST", body=b"hello"),
    "huge length": request("/", "content-length: 99999999999999999999", method="POST"),
    "chunks twice": request("/", CHUNKED, CHUNKED, method="POST", body=CHUNKS),
    "chunked, chunked": request("/", "transfer-encoding: chunked, chunked", method="POST", body=CHUNKS),
    "chunks that are not last": request("/", "transfer-encoding: chunked, identity", method="POST", body=CHUNKS),
    "identity": request("/", "transfer-encoding: identity", method="POST", body=b"hello"),
    "gzip": request("/", "transfer-encoding: gzip", method="POST", body=b"hello"),
    "gzip, chunked": request("/", "transfer-encoding: gzip, chunked", method="POST", body=CHUNKS),
    "xchunked": request("/", "transfer-encoding: xchunked", method="POST", body=CHUNKS),
    "chunked with a tab": request("/", "transfer-encoding:\tchunked", method="POST", body=CHUNKS),
    "chunked with a vertical tab": request("/", "transfer-encoding: \x0bchunked", method="POST", body=CHUNKS),
    "space before the colon": request("/", "transfer-encoding : chunked", method="POST", body=CHUNKS),
    "chunks of HTTP/1.0": request("/", CHUNKED, method="POST", version="1.0", body=CHUNKS),
    # Fields.
    "no host": request(host=""),
    "two hosts": request("/", "host: y"),
    "empty host": request(host="host:"),
    "a host that is none": request(host="host: a b"),
    "a host with a port": request(host="Host: example.com:8080"),
    "an IPv6 host": request(host="host: [::1]:80"),
    "upper-case names": request("/", "X-Upper: Value"),
    "a field twice": request("/", "x-a: 1", "X-A: 2", "x-a: 1"),
    "empty field": request("/", "x-a:"),
    "field of spaces": request("/", "x-a:    "),
    "spaces around": request("/", "x-a: \t b c \t "),
    "no space": request("/", "x-a:b"),
    "colons in a value": request("/", "x-a: b:c: d"),
    "latin-1 in a value": request("/", "x-a: \xe9\xff"),
    "latin-1 in a name": request("/", "x-\xe9: a"),
    "space in a name": request("/", "x a: b"),
    "odd letters in a name": request("/", "x!#$%&'*+-.^_`|~: b"),
    "brackets in a name": request("/", "x(a): b"),
    "underscore": request("/", "x_a: b"),
    "no colon": request("/", "x-a"),
    "no name": request("/", ": b"),
    "folded": request("/", "x-a: b\r\n c"),
    "folded by a tab": request("/", "x-a: b\r\n\tc"),
    "folded at first": b"GET / HTTP/1.1\r\n host: x\r\n\r\n",
    "zero in a value": request("/", "x-a: b\x00c"),
    "bell in a value": request("/", "x-a: b\x07c"),
    "tab in a value": request("/", "x-a: b\tc"),
    "return in a value": request("/", "x-a: b\rc"),
    "line feed in a value": request("/", "x-a: b\ny: c"),
    "many fields": request("/", *(f"x-{number}: v" for number in range(500))),
    "cookies": request("/", "cookie: a=b; c=d", "cookie: e=f"),
    "expects without a body": request("/", "expect: 100-continue"),
    "expects something else": request("/", "expect: 200-ok"),
    "its own request id": request("/", "x-request-id: mine"),
    "forwarded": request("/", "x-forwarded-proto: https", "x-forwarded-for: 10.0.0.1"),
    # Answers.
    "204": request("/status-204"),
    "304": request("/status-304"),
    "418": request("/status-418"),
    "a status without a name": request("/status-299"),
    "with a length": request("/length"),
    "in pieces": request("/pieces"),
    "the same field twice": request("/twice"),
    "an error": request("/raises"),
}


ON_PURPOSE: dict[str, tuple[str, list[int]]] = {
    "absolute target without a path": ("RFC 9112, 3.2.2: it is a target; its path is /", [200, 200]),
    "HEAD": ("RFC 9110, 9.3.2: the fields of a GET, with how it would be framed", [200, 200]),
    **dict.fromkeys(
        ("HEAD of an error", "an error"),
        ("an error is an answer as any other: what its client has sent behind it is answered, too", [500, 200]),
    ),
    "pipelined behind an error": ("as above", [500, 200, 200]),
    **dict.fromkeys(
        (
            "HTTP/1.0",
            "HTTP/1.0 without a host",
            "HTTP/1.0 in pieces",
            "HTTP/1.0 with a body",
            "HTTP/1.0 expects",
            "chunks of HTTP/1.0",
        ),
        ("RFC 9112, 6.1 and RFC 9110, 10.1.1: HTTP/1.0 knows no chunks and no 100", [200]),
    ),
    **dict.fromkeys(("HTTP/2.0", "HTTP/0.9"), ("neither is spoken here", [400])),
    "upgrade to h2c": (
        "RFC 9110, 7.8: an upgrade that is not taken is ignored, so that the connection goes on",
        [200, 200],
    ),
    "upgrade to h2c with a body": ("as above, and the body is read", [200, 200]),
    "upgrade to h2c in chunks": ("as above, and the body is read", [200, 200]),
    "trailers": ("RFC 9110, 6.5.1: trailers are not merged with the fields of the head", [200, 200]),
    **dict.fromkeys(
        ("no host", "two hosts", "a host that is none"), ("RFC 9112, 3.2: these must be answered 400", [400])
    ),
    "expects without a body": ("RFC 9110, 10.1.1: there is no body to ask for", [200, 200]),
}


@pytest.fixture(scope="module")
def answers(node: None) -> Iterator[dict[str, list[list[Answer]]]]:
    """What comes back from uvicorn and from Serve."""
    url = serve.start({"port": 0})

    @serve.deployment(max_ongoing_requests=100)
    @serve.ingress(app)
    class Runs: ...

    serve.run(Runs.bind())
    with bare_uvicorn(app) as bare, ThreadPoolExecutor(16) as threads:
        asking = {
            name: [threads.submit(asked, each, data, name.startswith("HEAD")) for each in (bare, url)]
            for name, data in CASES.items()
        }
        yield {name: [each.result() for each in both] for name, both in asking.items()}
    serve.shutdown()


@pytest.mark.parametrize("name", CASES)
def test_the_same_bytes_have_the_same_answers(answers: dict[str, list[list[Answer]]], name: str) -> None:
    bare, ours = answers[name]
    if name in ON_PURPOSE:
        reason, statuses = ON_PURPOSE[name]
        assert ours != bare, f"{name} differs no more, so that there is nothing to explain by {reason!r}"
        assert [each.status for each in ours] == statuses
        return
    assert [each.status for each in ours] == [each.status for each in bare]
    # How a malformed request is called is each server's own.
    assert [each for each in ours if each.status != 400] == [each for each in bare if each.status != 400]
    assert all(("connection", "close") in each.fields for each in ours if each.status == 400)


def test_a_body_that_was_offered_with_an_upgrade_arrives_and_trailers_do_not(
    answers: dict[str, list[list[Answer]]],
) -> None:
    told = {name: json.loads(answers[name][1][0].body) for name in ON_PURPOSE if answers[name][1][0].body[:1] == b"{"}
    assert told["upgrade to h2c with a body"]["body"] == "hello"
    assert told["upgrade to h2c in chunks"]["body"] == "abcde"
    assert ["t", "v"] not in told["trailers"]["headers"]
    assert told["absolute target without a path"]["path"] == "/"
    assert told["HTTP/1.0 expects"]["body"] == "hello"
