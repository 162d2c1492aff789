"""Batches by HTTP, of a simulated engine: from the file to its answers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actorrt import serve
from actorrt.serve.llm import ApiKey

from .batch_app import BatchClient, chat, line, run_simulated

KEYS = {"ka": "tenant-a", "kb": "tenant-b"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("batches") / "below" / "it"


@pytest.fixture(scope="module")
def url(serve_url: str, folder: Path) -> Iterator[str]:
    keys = [ApiKey.of(key, tenant) for key, tenant in KEYS.items()]
    yield run_simulated(serve_url, "batches", folder, {"keys": keys}, max_requests=50, max_file_bytes=100_000)
    serve.delete("batches")


@pytest.fixture
def client(url: str) -> Iterator[BatchClient]:
    made = BatchClient(url, "ka")
    with made.http:
        yield made


def test_a_batch_is_answered_in_the_order_of_its_requests(client: BatchClient) -> None:
    metadata = {"for": "test"}
    made = client.create([chat(str(number)) for number in range(20)], metadata=metadata)
    assert made["object"] == "batch"
    assert (made["status"], made["metadata"], made["errors"]) == ("validating", metadata, None)
    assert made["expires_at"] - made["created_at"] == 24 * 3600
    batch = client.ended(made["id"])
    assert (batch["status"], batch["model"]) == ("completed", "fake")
    assert batch["request_counts"] == {"total": 20, "completed": 20, "failed": 0}
    assert batch["error_file_id"] is None
    assert batch["created_at"] <= batch["in_progress_at"] <= batch["finalizing_at"] <= batch["completed_at"]
    output, _ = client.answers(batch)
    assert [each["custom_id"] for each in output] == [str(number) for number in range(20)]
    assert len({each["id"] for each in output}) == 20
    for each in output:
        assert set(each) == {"id", "custom_id", "response", "error"}
        assert each["error"] is None
        assert each["response"]["status_code"] == 200
        assert each["response"]["request_id"]
        assert each["response"]["body"]["object"] == "chat.completion"
    usages = [each["response"]["body"]["usage"] for each in output]
    assert batch["usage"]["input_tokens"] == sum(each["prompt_tokens"] for each in usages)
    assert batch["usage"]["output_tokens"] == sum(each["completion_tokens"] for each in usages) == 60
    assert batch["usage"]["total_tokens"] == batch["usage"]["input_tokens"] + 60
    file = client.http.get(f"/v1/files/{batch['output_file_id']}").json()
    assert (file["purpose"], file["filename"]) == ("batch_output", f"{batch['id']}_output.jsonl")


@pytest.mark.parametrize(
    ("endpoint", "body", "kind"),
    [
        ("/v1/completions", {"prompt": "hello", "max_tokens": 3}, "text_completion"),
        ("/v1/responses", {"input": "hello", "max_output_tokens": 16}, "response"),
        ("/v1/embeddings", {"input": "hello"}, "list"),
    ],
)
def test_each_endpoint_is_answered_as_by_itself(client: BatchClient, endpoint: str, body: Any, kind: str) -> None:
    batch = client.ended(client.create([line("a", endpoint, model="fake", **body)], endpoint)["id"])
    output, errors = client.answers(batch)
    (answer,) = output or errors
    alone = client.http.post(endpoint, json={"model": "fake", **body})
    assert answer["response"]["status_code"] == alone.status_code
    if alone.status_code == 200:
        assert answer["response"]["body"]["object"] == kind == alone.json()["object"]
        assert batch["usage"]["output_tokens"] > 0
    else:
        assert answer["response"]["body"] == alone.json()


def test_what_is_wrong_with_a_request_is_its_answer_among_the_errors(client: BatchClient) -> None:
    bad = line("bad", model="fake", messages="none")
    batch = client.ended(client.create([chat("a"), bad, chat("b", max_tokens=-1), chat("c")])["id"])
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 4, "completed": 2, "failed": 2}
    output, errors = client.answers(batch)
    assert [each["custom_id"] for each in output] == ["a", "c"]
    assert [each["custom_id"] for each in errors] == ["bad", "b"]
    for each in errors:
        assert each["error"] is None
        assert each["response"]["status_code"] == 400
        assert each["response"]["body"]["error"]["type"] == "invalid_request_error"
    only = client.ended(client.create([bad])["id"])
    assert (only["status"], only["output_file_id"]) == ("completed", None)


@pytest.mark.parametrize(
    ("content", "code", "line_number"),
    [
        ("not json\n", "invalid_json_line", 1),
        (b'\xff\xfe{"a": 1}\n', "invalid_json_line", 1),
        ("\n \n", "empty_file", None),
        ([chat(str(number)) for number in range(51)], "too_many_tasks", 51),
        ([chat("a"), chat("a")], "duplicate_custom_id", 2),
        ([chat("a"), line("b", "/v1/completions", model="fake")], "url_mismatch", 2),
        ([chat("a", model="nobody")], "model_not_found", 1),
    ],
)
def test_a_file_that_cannot_be_run_fails_its_batch_and_the_next_is_run(
    client: BatchClient, content: Any, code: str, line_number: int | None
) -> None:
    batch = client.ended(client.create(content)["id"])
    assert (batch["status"], batch["request_counts"]["total"]) == ("failed", 0)
    assert batch["failed_at"] >= batch["created_at"]
    assert batch["errors"]["object"] == "list"
    error = batch["errors"]["data"][0]
    assert (error["code"], error["line"]) == (code, line_number)
    assert batch["output_file_id"] is batch["error_file_id"] is None
    assert client.ended(client.create([chat("next")])["id"])["status"] == "completed"


@pytest.mark.parametrize(
    ("changes", "param", "words"),
    [
        ({"input_file_id": None}, "input_file_id", "the field is required"),
        ({"input_file_id": "file-none"}, "input_file_id", "there is no file 'file-none'"),
        ({"endpoint": "/v1/models"}, "endpoint", "must be '/v1/chat/completions'"),
        ({"endpoint": None}, "endpoint", "the field is required"),
        ({"completion_window": "soon"}, "completion_window", "must be a time such as '24h'"),
        ({"completion_window": "31d"}, "completion_window", "at most 30d"),
        ({"completion_window": 24}, "completion_window", "must be a string, not an integer"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "at most 16 pairs, not 17"),
        ({"metadata": {"a": 1}}, "metadata.a", "must be a string"),
        ({"metadata": {"a" * 65: ""}}, "metadata", "at most 64 characters"),
        ({"metadata": {"a": "b" * 513}}, "metadata.a", "at most 512 characters"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after.seconds", "3600"),
    ],
)
def test_what_is_wrong_with_the_order_names_its_field(
    client: BatchClient, changes: dict[str, Any], param: str, words: str
) -> None:
    file = client.upload([chat("a")]).json()["id"]
    asked = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h", **changes}
    refused = client.http.post("/v1/batches", json=asked)
    error = refused.json()["error"]
    assert refused.status_code == (404 if changes == {"input_file_id": "file-none"} else 400)
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert words in error["message"]


def test_a_file_of_answers_is_no_input(client: BatchClient) -> None:
    batch = client.ended(client.create([chat("a")])["id"])
    asked = {"input_file_id": batch["output_file_id"], "endpoint": "/v1/chat/completions", "completion_window": "1h"}
    refused = client.http.post("/v1/batches", json=asked)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_file_purpose")


def test_batches_are_listed_page_by_page_the_newest_first(client: BatchClient) -> None:
    made = [client.create([chat("a")])["id"] for _ in range(5)]
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while len(seen) < 5:
        page = client.http.get("/v1/batches", params=query).json()
        assert page["object"] == "list"
        assert [page["first_id"], page["last_id"]] == [page["data"][0]["id"], page["data"][-1]["id"]]
        seen += [each["id"] for each in page["data"]]
        assert page["has_more"] or len(seen) >= 5
        query["after"] = page["last_id"]
    assert seen[:5] == made[::-1]
    for wrong, param in (({"limit": 0}, "limit"), ({"limit": 101}, "limit"), ({"after": "batch_none"}, "after")):
        refused = client.http.get("/v1/batches", params=wrong)
        assert refused.status_code in (400, 404)
        assert refused.json()["error"]["param"] == param


def test_a_tenant_sees_its_own_only(client: BatchClient, url: str) -> None:
    batch = client.ended(client.create([chat("a")])["id"])
    with (other := BatchClient(url, "kb")).http:
        assert other.http.get(f"/v1/batches/{batch['id']}").status_code == 404
        assert other.http.post(f"/v1/batches/{batch['id']}/cancel").status_code == 404
        assert other.http.get("/v1/batches").json()["data"] == []
        assert other.http.get("/v1/batches", params={"after": batch["id"]}).status_code == 404
        for file in (batch["input_file_id"], batch["output_file_id"]):
            assert other.http.get(f"/v1/files/{file}").status_code == 404
            assert other.http.get(f"/v1/files/{file}/content").status_code == 404
            assert other.http.delete(f"/v1/files/{file}").status_code == 404
            asked = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
            assert other.http.post("/v1/batches", json=asked).status_code == 404
    with (nobody := BatchClient(url)).http:
        assert nobody.http.get("/v1/batches").status_code == 401
        assert nobody.upload([chat("a")]).status_code == 401


def test_metrics_have_the_batches_by_status_and_their_requests(client: BatchClient) -> None:
    client.ended(client.create([chat("a"), chat("b", max_tokens=-1)])["id"])
    text = client.http.get("/metrics").text
    batches = [each for each in text.splitlines() if each.startswith('actorrt_llm_batches{status="completed"}')]
    assert float(batches[0].split()[-1]) >= 1
    for outcome in ("completed", "failed"):
        mark = f'outcome="{outcome}"'
        assert [each for each in text.splitlines() if "actorrt_llm_batch_requests_total{" in each and mark in each]


def test_cancelling_what_has_ended_is_409(client: BatchClient) -> None:
    batch = client.ended(client.create([chat("a")])["id"])
    refused = client.http.post(f"/v1/batches/{batch['id']}/cancel")
    assert refused.status_code == 409
    assert refused.headers["x-should-retry"] == "false"
    assert refused.json()["error"]["message"] == "a batch that is completed cannot be cancelled"
    assert client.http.post("/v1/batches/batch_none/cancel").status_code == 404


def test_the_folder_is_made_and_read_by_its_owner_alone(client: BatchClient, folder: Path) -> None:
    client.upload([chat("a")])
    assert (folder / "batches.sqlite").is_file()
    assert (folder / "files").stat().st_mode & 0o777 == 0o700


def test_the_lines_are_json_whatever_the_engine_answers(client: BatchClient) -> None:
    batch = client.ended(client.create([chat("é\u2028\n")])["id"])
    (output,), _ = client.answers(batch)
    assert output["custom_id"] == "é\u2028\n"
    assert json.loads(json.dumps(output)) == output
