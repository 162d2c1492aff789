"""How a replica speaks to its engine's HTTP server: raw sockets stand here for servers with their habits."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from actorrt.serve.llm.engines.interface import Delta, EngineCall, EngineError, Head
from actorrt.serve.llm.engines.openai_http import NotListeningError, OpenAIHttp

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
CALL = EngineCall("/v1/completions", b'{"prompt": "a", "unknown": 1}', headers=(("x-request-id", "7"), ("host", "no")))
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nserver: s\r\nx-own: 1\r\n\r\n{}"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
    )
    return head + await reader.readexactly(length)


def closing(serve: Serve) -> Serve:
    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    return run


@asynccontextmanager
async def engine(serve: Serve) -> AsyncIterator[OpenAIHttp]:
    server = await asyncio.start_server(closing(serve), "127.0.0.1", 0)
    http = OpenAIHttp(port=server.sockets[0].getsockname()[1])
    try:
        yield http
    finally:
        await http.close()
        server.close()


async def items_of(http: OpenAIHttp, call: EngineCall = CALL) -> list[Head | Delta]:
    return [item async for item in http.generate(call)]


async def test_bytes_go_and_come_as_they_are() -> None:
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await read_request(reader))
        writer.write(ANSWER)
        await reader.read()

    async with engine(serve) as http:
        head, delta = await items_of(http)
    assert head == Head(200, (("content-type", "application/json"), ("x-own", "1")))
    assert delta == Delta(b"{}", 0)
    assert requests[0].startswith(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:")
    assert requests[0].endswith(b'\r\n\r\n{"prompt": "a", "unknown": 1}')
    assert b"x-request-id: 7\r\n" in requests[0]


async def test_connections_that_the_engine_closes_fail_no_request() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Three requests, the last of which it takes and does not answer, as one that closes at that moment.
        nonlocal connections
        connections += 1
        for _ in range(2):
            await read_request(reader)
            writer.write(ANSWER)
        await read_request(reader)

    async with engine(serve) as http:
        for _ in range(10):
            assert (await items_of(http))[1] == Delta(b"{}", 0)
    assert connections == 5


async def test_a_fresh_connection_that_is_closed_is_an_error_and_not_tried_for_ever() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)

    async with engine(serve) as http:
        with pytest.raises(EngineError, match="closed the connection before it answered"):
            await items_of(http)
    assert connections == 1


async def test_each_event_is_given_as_it_comes_and_closing_ends_the_connection() -> None:
    proceed, gone = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        # Two chunks make an event and a half.
        writer.write(STREAM + b'13\r\ndata: {"text": "a"}\r\n')
        await proceed.wait()
        writer.write(b"8\r\n\n\ndata: \r\n")
        await reader.read()
        gone.set()

    async with engine(serve) as http:
        answer = http.generate(CALL)
        assert isinstance(await anext(answer), Head)
        proceed.set()
        assert await anext(answer) == Delta(b'data: {"text": "a"}\n\n', 1)
        await answer.aclose()
        await gone.wait()


async def test_who_is_cancelled_as_it_waits_for_an_answer_ends_the_connection() -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        asked.set()
        await reader.read()
        gone.set()

    async with engine(serve) as http:
        task = asyncio.create_task(items_of(http))
        await asked.wait()
        task.cancel()
        await gone.wait()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (STREAM + b"8\r\ndata: 1\n\r\n", "broke off in the midst of its answer"),
        (ANSWER[:-1], "broke off in the midst of its answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "what is no HTTP"),
    ],
)
async def test_what_is_no_whole_answer_is_an_error(answer: bytes, reason: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)

    async with engine(serve) as http:
        with pytest.raises(EngineError, match=reason):
            await items_of(http)


@pytest.mark.parametrize("begun", [b"", ANSWER[:-1], STREAM])
async def test_whoever_waits_for_an_answer_when_all_is_closed_hears_of_it(begun: bytes) -> None:
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(begun)
        asked.set()
        await reader.read()

    async with engine(serve) as http:
        answer = http.generate(CALL)
        if begun:
            await anext(answer)
        waiting = asyncio.ensure_future(anext(answer))
        await asked.wait()
        await http.close()
        with pytest.raises(EngineError):
            await waiting


async def test_an_engine_that_does_not_listen_is_named() -> None:
    http = OpenAIHttp(unix_socket="/nowhere/engine.sock")
    with pytest.raises(EngineError, match="does not listen"):
        await items_of(http)
    await http.close()


async def test_one_that_ends_with_a_request_on_a_connection_of_before_may_have_begun_it() -> None:
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await read_request(reader)
        writer.write(ANSWER)
        await read_request(reader)
        asked += 1
        server.close()

    server = await asyncio.start_server(closing(serve), "127.0.0.1", 0)
    http = OpenAIHttp(port=server.sockets[0].getsockname()[1])
    await items_of(http)
    with pytest.raises(EngineError, match="may have begun the request") as caught:
        await items_of(http)
    assert not isinstance(caught.value, NotListeningError)
    assert asked == 1
    await http.close()


async def test_headers_in_any_letters_come_as_they_are() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(ANSWER.replace(b"x-own: 1", b"X-Own: \xe6\x97\xa5 \xff"))
        await reader.read()

    async with engine(serve) as http:
        head, _ = await items_of(http)
    assert isinstance(head, Head)
    assert [(name, value.encode("latin-1")) for name, value in head.headers][1] == ("x-own", b"\xe6\x97\xa5 \xff")


OURS = (
    "connection", "content-length", "date", "host", "keep-alive", "server", "te", "trailer", "transfer-encoding",
    "accept-encoding", "content-type", "expect", "proxy-authenticate", "proxy-authorization", "upgrade",
    "x-actorrt-adapter",
)  # fmt: skip


async def test_no_header_of_a_connection_goes_on_or_comes_back() -> None:
    requests: list[bytes] = []
    back = b"".join(b"%b: odd\r\n" % name.encode() for name in OURS if name not in FRAMING)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await read_request(reader))
        writer.write(ANSWER.replace(b"server: s\r\n", back + b"access-control-allow-origin: *\r\nX-Own-2: 2\r\n"))
        await reader.read()

    given = (*((name, "odd") for name in OURS), ("traceparent", "1"))
    async with engine(serve) as http:
        head, _ = await items_of(http, CALL._replace(headers=given))
    assert b"odd" not in requests[0]
    lines = [line.partition(b":")[0].lower() for line in requests[0].split(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
    assert sorted(lines) == [b"content-length", b"content-type", b"host", b"traceparent"]
    assert head == Head(200, (("content-type", "application/json"), ("x-own-2", "2"), ("x-own", "1")))


# What these say in an answer decides how it is read.
FRAMING = ("connection", "content-length", "content-type", "transfer-encoding", "upgrade")


async def test_what_is_compressed_moved_or_a_cookie_is_handed_on_and_not_acted_on() -> None:
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            requests.append(await read_request(reader))
            extra = b"content-encoding: gzip\r\nlocation: /elsewhere\r\nset-cookie: a=b\r\nx-own: 1"
            writer.write(ANSWER.replace(b"200 OK", b"307 Moved").replace(b"x-own: 1", extra))

    async with engine(serve) as http:
        for _ in range(2):
            head, delta = await items_of(http)
            assert isinstance(head, Head)
            assert head.status == 307
            assert {"content-encoding", "location", "set-cookie"} <= {name for name, _ in head.headers}
            assert delta == Delta(b"{}")
    assert len(requests) == 2
    assert all(b"cookie" not in each.lower() and b" /v1/completions " in each for each in requests)


async def test_headers_of_many_thousand_letters_are_read() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(ANSWER.replace(b"x-own: 1", b"x-own: " + b"1" * 60_000))
        await reader.read()

    async with engine(serve) as http:
        head, _ = await items_of(http)
    assert isinstance(head, Head)
    assert dict(head.headers)["x-own"] == "1" * 60_000


async def test_requests_are_at_the_engine_at_once_and_those_that_wait_are_known() -> None:
    together = asyncio.Barrier(3)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await together.wait()
        writer.write(ANSWER)
        await reader.read()

    async with engine(serve) as http:
        asked = [asyncio.ensure_future(items_of(http)) for _ in range(2)]
        await together.wait()
        assert http.waiting == 2
        for each in asked:
            await each
        assert http.waiting == 0
        assert http.heard >= 4


async def test_who_reads_slowly_does_not_wait_for_the_engine() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(STREAM + b"9\r\ndata: 1\n\n\r\n")
        await reader.read()

    async with engine(serve) as http:
        answer = http.generate(CALL)
        await anext(answer)
        await anext(answer)
        assert http.waiting == 0
        more = asyncio.ensure_future(anext(answer))
        await asyncio.sleep(0)
        assert http.waiting == 1
        more.cancel()
        with pytest.raises(asyncio.CancelledError):
            await more
        assert http.waiting == 0


async def test_tokens_are_counted_in_a_stream_its_rest_and_a_whole_answer() -> None:
    answers = [
        STREAM + b'14\r\ndata: {"text":"a"}\n\n\r\n' + b'21\r\ndata: {"text":"b"}\n\ndata: [DONE]\n\r\n0\r\n\r\n',
        ANSWER.replace(b"length: 2", b"length: 33")[:-2] + b'{"usage":{"completion_tokens":7}}',
    ]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await read_request(reader)
            writer.write(answer)
        await reader.read()

    async with engine(serve) as http:
        _, *stream = await items_of(http)
        assert sum(item.tokens for item in stream if isinstance(item, Delta)) == 2
        _, whole = await items_of(http)
        assert isinstance(whole, Delta)
        assert whole.tokens == 7


async def test_a_question_without_an_answer_is_an_error_in_time() -> None:
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER[:-1])
        await reader.read()
        gone.set()

    async with engine(serve) as http:
        with pytest.raises(EngineError, match=r"the engine did not answer GET /health within 0\.05 s"):
            await http.ask("GET", "/health", timeout_s=0.05)
        await gone.wait()


async def test_a_question_is_answered_or_its_answer_was_broken_off() -> None:
    heads: list[bytes] = []
    answers = [ANSWER, ANSWER, ANSWER[:-1]]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            if b"POST" in heads[-1]:
                await reader.readexactly(2)
            writer.write(answer)

    async with engine(serve) as http:
        assert await http.ask("GET", "/health") == (200, b"{}")
        assert await http.ask("POST", "/tokenize", b"{}") == (200, b"{}")
        with pytest.raises(EngineError, match="the engine broke off its answer to GET /health"):
            await http.ask("GET", "/health")
        assert http.heard == http.waiting == 0
    assert b"content-type" not in heads[0].lower()
    assert b"content-type: application/json" in heads[1].lower()


async def test_without_keep_alive_each_request_has_a_connection_of_its_own() -> None:
    ended = asyncio.Barrier(4)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(ANSWER)
        assert not await reader.read()
        await ended.wait()

    server = await asyncio.start_server(closing(serve), "127.0.0.1", 0)
    http = OpenAIHttp(port=server.sockets[0].getsockname()[1], keep_alive=False)
    for _ in range(3):
        await items_of(http)
    await ended.wait()
    await http.close()
    server.close()
