"""A proxy behind a server that takes a part of the path, or does not; and paths with letters that are not ASCII."""

from typing import Any
from urllib.parse import quote

import fastapi
import httpx
import pytest
from websockets.sync.client import connect

from actorrt import serve
from actorrt.serve.declaration.spec import check_route_prefix
from actorrt.serve.http.http_options import HTTPOptions
from actorrt.serve.http.root_path import RootPath, decoded, encoded


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize(("root_path", "prefix"), [("/api", "/v1"), ("/r\u00e4ume/\u6a21", "/mod\u00e8le ")])
def test_websockets_and_requests_are_matched_in_one_way_below_a_root_path(root_path: str, prefix: str) -> None:
    api = fastapi.FastAPI()

    @serve.deployment
    @serve.ingress(api)
    class Says:
        @api.get("/path")
        async def http(self, request: fastapi.Request) -> Any:
            return [request.scope["root_path"], request.scope["path"], request.url.path]

        @api.websocket("/path")
        async def websocket(self, websocket: fastapi.WebSocket) -> None:
            await websocket.accept()
            await websocket.send_json([websocket.scope["root_path"], websocket.scope["path"], websocket.url.path])
            await websocket.close()

    # A server in front may take the root path off the paths of requests, or leave it there: both are one path here.
    url = serve.start({"port": 0, "root_path": root_path})
    serve.run(Says.bind(), route_prefix=prefix)
    for before in ("", quote(root_path)):
        path = f"{url}{before}{quote(prefix)}/path"
        said = httpx.get(path, timeout=20)
        wanted = root_path + prefix
        assert said.json() == [wanted, wanted + "/path", wanted + "/path"]
        with connect(path.replace("http:", "ws:")) as client:
            assert client.recv() == said.text
        assert httpx.get(f"{url}{before}/-/routes", timeout=20).json() == {prefix: "default"}
        assert httpx.get(f"{url}{before}/-/healthz", timeout=20).text == "success"
    serve.shutdown()


@pytest.mark.parametrize(
    ("root", "raw", "below"),
    [
        ("/serve", b"/serve/x", (b"/x", "/x")),
        ("/serve/", b"/serve/x/", (b"/x/", "/x/")),
        ("/serve", b"/serve", (b"/", "/")),
        ("/serve", b"/server/x", None),
        ("/serve", b"/x/serve", None),
        ("/serve", b"*", None),
        ("", b"/serve", None),
        ("/", b"/serve", None),
        ("/a/b", b"/a/b/c%2Fd/e", (b"/c%2Fd/e", "/c/d/e")),
        ("/a/b", b"/a%2Fb/c", None),
        ("/serve", b"/%73erve/x", (b"/x", "/x")),
        ("/m\u00e8", b"/m%C3%A8/x", (b"/x", "/x")),
        ("/m\u00e8", b"/m%c3%a8/x", (b"/x", "/x")),
    ],
)
def test_a_root_path_is_taken_off_whole_segments(root: str, raw: bytes, below: object) -> None:
    assert RootPath(root).taken_off(raw, decoded(raw)) == below


@pytest.mark.parametrize("path", ["/a", "/a b", "/mod\u00e8le/\u6a21", "/a+b;c=d@e:f!$&'()*,~-._", "/%"])
def test_a_path_has_one_encoded_form(path: str) -> None:
    assert decoded(encoded(path)) == path


@pytest.mark.parametrize(
    "path", ["/a?b", "/a#b", "/{a}", "//a", "/a//b", "/m%C3%A8", "/a%20b", "/a/../b", "/.", "/a\n", "/\ud800"]
)
def test_a_prefix_that_no_request_can_have_is_refused_where_it_is_written(path: str) -> None:
    with pytest.raises(ValueError, match="route_prefix"):
        check_route_prefix(path)
    with pytest.raises(ValueError, match="root_path"):
        HTTPOptions(root_path=path)


def test_a_root_path_is_empty_or_begins_with_a_slash() -> None:
    with pytest.raises(ValueError, match="root_path must be empty or start with '/', not 'serve'"):
        HTTPOptions(root_path="serve")
