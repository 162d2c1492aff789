"""`/v1/files`: what is brought comes back as it was, and what cannot be kept is refused in one sentence."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from actorrt import serve
from actorrt.serve.llm import ApiKey, FrontConfig

from .batch_app import CHAT, BatchClient, chat, run_simulated
from .conftest import run_scripted

MOST = 200_000
HI = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def url(serve_url: str, folder: Path) -> Iterator[str]:
    keys = [ApiKey.of(name, name) for name in ("ka", "kb", "small")]
    yield run_simulated(
        serve_url, "files", folder, {"keys": keys}, max_file_bytes=MOST, max_bytes=3 * MOST, max_files=30
    )
    serve.delete("files")


@pytest.fixture
def client(url: str) -> Iterator[BatchClient]:
    made = BatchClient(url, "ka")
    with made.http:
        yield made
        for each in made.http.get("/v1/files").json()["data"]:
            made.http.delete(f"/v1/files/{each['id']}")


def kept(folder: Path) -> set[str]:
    return {each.name for each in (folder / "files").iterdir()}


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    return response.json()["error"]


def test_a_file_comes_back_as_it_was_until_it_is_deleted(client: BatchClient, folder: Path) -> None:
    content = bytes(range(256)) * 700 + b"\r\n--not-a-boundary\r\n"
    made = client.upload(content)
    file = made.json()
    assert made.status_code == 200
    assert file["object"] == "file"
    assert file["id"].startswith("file-")
    assert (file["bytes"], file["filename"], file["purpose"]) == (len(content), "requests.jsonl", "batch")
    assert file["status"] == "processed"
    assert file["expires_at"] - file["created_at"] == 30 * 86400
    path = f"/v1/files/{file['id']}"
    assert client.http.get(path).json() == file
    got = client.http.get(f"{path}/content")
    assert got.content == content
    assert int(got.headers["content-length"]) == len(content)
    assert client.http.head(f"{path}/content").headers["content-length"] == str(len(content))
    assert client.http.delete(path).json() == {"id": file["id"], "object": "file", "deleted": True}
    for method, where in (("GET", path), ("GET", f"{path}/content"), ("DELETE", path)):
        assert error_of(client.http.request(method, where), 404)["code"] == "not_found"
    while file["id"] in kept(folder):
        pass  # its bytes go too


def test_a_life_can_be_given_within_bounds(client: BatchClient) -> None:
    life = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    file = client.upload("x", **life).json()
    assert file["expires_at"] - file["created_at"] == 3600
    for wrong, param in (
        ({"expires_after[seconds]": "3599"}, "expires_after.seconds"),
        ({"expires_after[seconds]": "2592001"}, "expires_after.seconds"),
        ({"expires_after[seconds]": "soon"}, "expires_after.seconds"),
        ({"expires_after[anchor]": "now"}, "expires_after.anchor"),
    ):
        assert error_of(client.upload("x", **{**life, **wrong}), 400)["param"] == param


def test_files_are_listed_in_either_order_by_pages_and_by_purpose(client: BatchClient) -> None:
    ids = [client.upload(f"{number}").json()["id"] for number in range(5)]

    def listed(**query: Any) -> list[str]:
        return [each["id"] for each in client.http.get("/v1/files", params=query).json()["data"]]

    assert listed() == ids[::-1]
    assert listed(order="asc") == ids
    assert listed(order="asc", limit=2, after=ids[1]) == ids[2:4]
    assert listed(limit=2, after=ids[2]) == [ids[1], ids[0]]
    assert listed(purpose="batch_output") == []
    assert client.http.get("/v1/files", params={"limit": 4}).json()["has_more"] is True
    assert client.http.get("/v1/files", params={"limit": 5}).json()["has_more"] is False
    for wrong, param in (({"order": "up"}, "order"), ({"limit": "0"}, "limit"), ({"limit": "10001"}, "limit")):
        assert error_of(client.http.get("/v1/files", params=wrong), 400)["param"] == param
    assert error_of(client.http.get("/v1/files", params={"after": "file-none"}), 404)["param"] == "after"


@pytest.mark.parametrize(
    ("form", "param", "words"),
    [
        ({"data": {"purpose": "batch"}, "files": {"other": ("a", "x")}}, "file", "one file, by the name of 'file'"),
        ({"data": {"purpose": "batch"}, "files": [("file", ("a", "x")), ("file", ("b", "y"))]}, "file", "one file"),
        ({"files": {"file": ("a", "x")}}, "purpose", "the field is required"),
        ({"data": {"purpose": "vision"}, "files": {"file": ("a", "x")}}, "purpose", "must be 'batch'"),
        ({"data": {"purpose": "batch"}, "files": {"file": ("a", "")}}, "file", "the file is empty"),
        ({"data": {"purpose": "b" * 5000}, "files": {"file": ("a", "x")}}, "purpose", "longer than 4096 bytes"),
        ({"json": {"purpose": "batch"}}, None, "must be a form"),
        (
            {"content": b"--b\r\n", "headers": {"content-type": "multipart/form-data; boundary=b"}},
            None,
            "last boundary",
        ),
        ({"content": b"xx", "headers": {"content-type": "multipart/form-data; boundary=b"}}, None, "cannot be read"),
        ({"content": b"", "headers": {"content-type": "multipart/form-data"}}, None, "with a boundary"),
    ],
)
def test_a_form_that_is_wrong_is_400_and_leaves_nothing(
    client: BatchClient, folder: Path, form: dict[str, Any], param: str | None, words: str
) -> None:
    error = error_of(client.http.post("/v1/files", **form), 400)
    assert words in error["message"]
    assert error["param"] == param
    assert client.http.get("/v1/files").json()["data"] == []
    assert client.upload("x").status_code == 200


def test_a_file_without_a_name_of_its_field_is_missing(client: BatchClient) -> None:
    refused = client.http.post("/v1/files", files={"purpose": (None, "batch"), "file": (None, "x")})
    assert error_of(refused, 400)["param"] == "file"


def test_what_is_too_large_is_413_whole_or_in_chunks(client: BatchClient, folder: Path) -> None:
    before = kept(folder)
    assert client.upload(b"x" * MOST).status_code == 200
    assert "larger than 200000 bytes" in error_of(client.upload(b"x" * (MOST + 1)), 413)["message"]
    # Without a length that says it before.
    boundary = "b"
    head = b'--b\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'
    chunks = [head, *[b"x" * 50_000] * 5]
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    assert error_of(client.http.post("/v1/files", content=iter(chunks), headers=headers), 413)["param"] == "file"
    assert client.upload(b"x" * MOST).status_code == 200
    assert error_of(client.upload(b"x" * (MOST + 1)), 413)["code"] == "request_too_large"
    client.upload(b"x" * (MOST - 5))
    full = error_of(client.upload(b"x" * 100), 413)
    assert full["code"] == "storage_limit_exceeded"
    assert len(kept(folder) - before) == 3


def test_a_tenant_may_have_so_many_files(url: str) -> None:
    with (client := BatchClient(url, "small")).http:
        for _ in range(30):
            assert client.upload("x").status_code == 200
        assert error_of(client.upload("x"), 429)["code"] == "too_many_files"


def test_a_client_that_leaves_in_the_midst_leaves_nothing(client: BatchClient, folder: Path) -> None:
    before = kept(folder)

    def content() -> Iterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\nxxx'
        while kept(folder) == before:
            yield b"x"
        raise ConnectionAbortedError

    headers = {"content-type": "multipart/form-data; boundary=b"}
    with pytest.raises(ConnectionAbortedError):
        client.http.post("/v1/files", content=content(), headers=headers)
    while kept(folder) != before:
        pass
    assert client.http.get("/v1/files").json()["data"] == []


def test_without_a_folder_there_are_neither_files_nor_batches(serve_url: str) -> None:
    app = run_scripted(serve_url, "none", FrontConfig())
    with app.client:
        for method, path in (("GET", "/v1/files"), ("POST", "/v1/batches"), ("GET", "/v1/files/a/content")):
            response = app.client.request(method, path)
            assert error_of(response, 501)["code"] == "not_configured"
            assert response.headers["x-should-retry"] == "false"
        assert app.client.put("/v1/files").status_code == 405
    serve.delete("none")


def test_a_folder_that_cannot_be_written_to_is_500_and_once_it_can_the_next_is_kept(
    serve_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("lost")
    with (client := BatchClient(run_simulated(serve_url, "lost", folder))).http:
        assert client.upload("x").status_code == 200
        (folder / "files").rename(folder / "aside")
        failed = client.upload(b"x" * 100)
        assert error_of(failed, 500)["code"] == "storage_failed"
        assert failed.headers["x-should-retry"] == "false"
        assert str(folder) not in failed.text
        assert client.http.post(CHAT, json=HI).status_code == 200
        (folder / "aside").rename(folder / "files")
        assert client.upload("x").status_code == 200
        assert len(client.http.get("/v1/files").json()["data"]) == 2
    serve.delete("lost")


def test_a_database_that_is_damaged_fails_files_alone_until_it_is_gone(
    serve_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    with (client := BatchClient(run_simulated(serve_url, "damaged", folder))).http:
        assert client.upload("x").status_code == 200
        for name in os.listdir(folder):
            if name.startswith("batches.sqlite"):
                with (folder / name).open("r+b") as file:
                    file.write(b"no database at all" * 300)
        failed = client.upload("x")
        assert error_of(failed, 500)["code"] == "storage_failed"
        assert "cannot be read or written" in failed.text
        assert error_of(client.http.get("/v1/batches"), 500)["type"] == "server_error"
        assert client.http.post(CHAT, json=HI).status_code == 200
        for name in os.listdir(folder):
            if name.startswith("batches.sqlite"):
                (folder / name).unlink()
        assert client.upload("x").status_code == 200
        assert client.ended(client.create([chat("a")])["id"])["status"] == "completed"
    serve.delete("damaged")


def test_a_database_of_a_later_release_is_left_alone(serve_url: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("later")
    database = sqlite3.connect(folder / "batches.sqlite")
    database.execute("PRAGMA user_version = 99")
    database.close()
    with (client := BatchClient(run_simulated(serve_url, "later", folder))).http:
        assert error_of(client.upload("x"), 500)["code"] == "storage_failed"
    serve.delete("later")
