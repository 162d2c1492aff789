"""What a server in front of this one says of scheme and client, and of whom that is believed."""

import asyncio
import socket
from typing import Any

import fastapi
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from websockets.sync.client import connect

from actorrt import serve
from actorrt.serve.http.forwarded_headers import TrustedServers, forwarded
from actorrt.serve.http.http_options import HTTPOptions
from actorrt.serve.http.request_head import connection_line

TRUSTED = ["127.0.0.1", "10.0.0.0/8", "*", "", "::1, 192.168.0.7", "fd00::/8,127.0.0.1"]
HOSTS = st.sampled_from(
    ["127.0.0.1", "10.1.2.3", "203.0.113.9", "192.168.0.7", "::1", "fd00::7", "2001:db8::1", "unknown", ""]
)
FORMS = st.builds(
    lambda host, form: form.format(host),
    HOSTS,
    st.sampled_from(["{}", " {} ", "[{}]", "{}:81", "[{}]:81", "[{}", "[{}]x", "{}:x"]),
)
FIELDS = st.lists(
    st.one_of(
        st.tuples(
            st.just(b"x-forwarded-proto"),
            st.sampled_from([b"https", b"http", b" https ", b"wss", b"ftp", b"", b"https, http", b"HTTPS"]),
        ),
        st.tuples(st.just(b"x-forwarded-for"), st.lists(FORMS, max_size=4).map(lambda each: ",".join(each).encode())),
        st.tuples(st.just(b"x-forwarded-host"), st.just(b"other")),
    ),
    max_size=4,
)


@given(trusted=st.sampled_from(TRUSTED), peer=HOSTS, scheme=st.sampled_from(["http", "https", "ws"]), fields=FIELDS)
def test_scheme_and_client_are_those_of_uvicorn(trusted: str, peer: str, scheme: str, fields: Any) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["scheme"], scope["client"]))

    scope: Any = {"type": "websocket" if scheme == "ws" else "http", "client": (peer, 1), "scheme": scheme}
    asyncio.run(ProxyHeadersMiddleware(app, trusted)({**scope, "headers": fields}, None, None))  # type: ignore[arg-type]
    servers = TrustedServers(trusted)
    found = forwarded(servers, scheme, (peer, 1), fields) if servers.trusts(peer) else (scheme, (peer, 1))
    assert [found] == seen


def test_what_separates_in_a_packed_head_is_not_passed_on() -> None:
    scheme, client = forwarded(TrustedServers("*"), "http", ("1.2.3.4", 1), [(b"x-forwarded-for", b"a\tb\xff")])
    assert connection_line(scheme, client, None) == b"http\ta b\xff\t0\t\t"


@pytest.mark.parametrize("names", ["nginx", "10.0.0.1/8", "127.0.0.1 ::1", "*, 10.0.0.1", "300.1.1.1"])
def test_what_is_no_address_is_refused_where_it_is_written(names: str) -> None:
    with pytest.raises(ValueError, match="forwarded_allow_ips must be addresses and networks"):
        HTTPOptions(forwarded_allow_ips=names)


TLS_SERVER = {"host": "app.example", "x-forwarded-proto": "https", "x-forwarded-for": "198.51.100.1, 203.0.113.9:81"}


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(
    ("option", "variable", "believed"),
    [(None, None, True), (None, "10.0.0.1", False), ("127.0.0.0/8", "10.0.0.1", True), ("", None, False)],
)
def test_a_server_in_front_is_believed_if_it_is_trusted(
    option: str | None, variable: str | None, believed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = fastapi.FastAPI()

    @api.get("/items/")
    async def items(request: fastapi.Request) -> Any:
        return request.scope["client"]

    @api.websocket("/socket")
    async def socket_(websocket: fastapi.WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json([str(websocket.url), websocket.scope["client"]])
        await websocket.close()

    @serve.deployment
    @serve.ingress(api)
    class App: ...

    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    if variable is not None:
        monkeypatch.setenv("FORWARDED_ALLOW_IPS", variable)
    url = serve.start({"port": 0, "forwarded_allow_ips": option})
    serve.run(App.bind())
    with httpx.Client(base_url=url, headers=TLS_SERVER, timeout=20) as client:
        scheme = "https" if believed else "http"
        assert client.get("/items").headers["location"] == f"{scheme}://app.example/items/"
        seen = client.get("/items/").json()
        assert (seen == ["203.0.113.9", 81]) == believed
        # Who asks on the same connection is told by each request.
        assert client.get("/items/", headers={"x-forwarded-for": "192.0.2.1"}).json()[0] == (
            "192.0.2.1" if believed else "127.0.0.1"
        )
    port = int(url.rpartition(":")[2])
    headers = {name: value for name, value in TLS_SERVER.items() if name != "host"}
    with (
        socket.create_connection(("127.0.0.1", port)) as raw,
        connect("ws://app.example/socket", sock=raw, additional_headers=headers, proxy=None) as websocket,
    ):
        heard = str(websocket.recv())
    assert ("wss://app.example/socket" in heard and "203.0.113.9" in heard) == believed
    serve.shutdown()
