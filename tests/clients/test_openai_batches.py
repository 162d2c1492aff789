"""OpenAI's own client brings files, has batches answered, and reads what came."""

import io
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import Batch
from openai.types.chat import ChatCompletion
from openai.types.create_embedding_response import CreateEmbeddingResponse
from openai.types.responses import Response

from .application import FAKE, KEY, WORDS

PAGE: Final = Path(__file__).resolve().parent.parent.parent / "docs" / "batch.md"
CHAT: Final = "/v1/chat/completions"
OPEN: Final = ("validating", "in_progress", "finalizing", "cancelling")


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
async def async_client(url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=60) as client:
        yield client


def requests(url: str, *bodies: dict[str, Any]) -> bytes:
    lines = [
        {"custom_id": f"r{number}", "method": "POST", "url": url, "body": body} for number, body in enumerate(bodies)
    ]
    return "\n".join(map(json.dumps, lines)).encode()


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": FAKE, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3, **fields}


def ended(client: OpenAI, id: str) -> Batch:
    while (batch := client.batches.retrieve(id)).status in OPEN:
        time.sleep(0.05)
    return batch


def run(client: OpenAI, url: Any, *bodies: dict[str, Any]) -> Batch:
    file = client.files.create(file=("in.jsonl", requests(url, *bodies)), purpose="batch")
    made = client.batches.create(input_file_id=file.id, endpoint=url, completion_window="24h", metadata={"a": "b"})
    assert (made.status, made.metadata, made.input_file_id) == ("validating", {"a": "b"}, file.id)
    return ended(client, made.id)


def test_a_file_of_chats_is_answered(client: OpenAI) -> None:
    batch = run(client, CHAT, *[chat() for _ in range(10)], chat(temperature="hot"))
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (11, 10, 1)
    assert batch.usage is not None
    assert batch.usage.output_tokens == 30
    assert batch.model == FAKE
    assert batch.output_file_id is not None
    assert batch.error_file_id is not None
    answers = [json.loads(each) for each in client.files.content(batch.output_file_id).text.splitlines()]
    for answer in answers:
        ChatCompletion.model_validate(answer["response"]["body"], strict=True)
    (error,) = [json.loads(each) for each in client.files.content(batch.error_file_id).iter_lines()]
    assert (error["custom_id"], error["response"]["status_code"]) == ("r10", 400)
    output = client.files.retrieve(batch.output_file_id)
    assert (output.purpose, output.status) == ("batch_output", "processed")


def test_files_of_embeddings_and_responses_are_answered(client: OpenAI) -> None:
    for url, body, kind in (
        ("/v1/embeddings", {"model": WORDS, "input": ["a", "b"]}, CreateEmbeddingResponse),
        ("/v1/responses", {"model": FAKE, "input": "hello", "max_output_tokens": 16}, Response),
    ):
        batch = run(client, url, body)
        assert batch.output_file_id is not None
        (answer,) = [json.loads(each) for each in client.files.content(batch.output_file_id).text.splitlines()]
        assert kind.model_validate(answer["response"]["body"]).object in ("list", "response")


def test_what_is_wrong_with_a_file_is_in_the_batch(client: OpenAI) -> None:
    batch = run(client, CHAT, chat(model="nobody"))
    assert batch.status == "failed"
    assert batch.errors is not None
    assert batch.errors.data is not None
    (error,) = batch.errors.data
    assert (error.code, error.line, error.param) == ("model_not_found", 1, "body.model")


async def test_asynchronously_with_pages_of_batches_and_files(async_client: AsyncOpenAI) -> None:
    file = await async_client.files.create(
        file=io.BytesIO(requests(CHAT, chat())),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 7200},
    )
    assert file.expires_at is not None
    assert file.expires_at - file.created_at == 7200
    made = [
        await async_client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        for _ in range(5)
    ]
    listed = [batch.id async for batch in async_client.batches.list(limit=2)]
    assert listed[:5] == [batch.id for batch in reversed(made)]
    files = [each.id async for each in async_client.files.list(limit=3, purpose="batch", order="desc")]
    assert files[0] == file.id
    assert (await async_client.files.wait_for_processing(file.id)).status == "processed"
    content = await async_client.files.content(file.id)
    assert content.content == requests(CHAT, chat())
    assert (await async_client.files.delete(file.id)).deleted is True
    with pytest.raises(openai.NotFoundError):
        await async_client.files.retrieve(file.id)


def test_a_batch_is_cancelled(client: OpenAI) -> None:
    file = client.files.create(file=requests(CHAT, *[chat(max_tokens=2000) for _ in range(2000)]), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    assert client.batches.cancel(batch.id).status == "cancelling"
    batch = ended(client, batch.id)
    assert batch.status == "cancelled"
    assert batch.cancelled_at is not None
    assert batch.request_counts is not None
    assert batch.request_counts.failed > 0
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(batch.id)


def test_mistakes_are_the_clients_own_errors(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.files.create(file=b"x", purpose="vision")
    with pytest.raises(openai.BadRequestError, match="the file is empty"):
        client.files.create(file=b"", purpose="batch")
    with pytest.raises(openai.NotFoundError, match="there is no file"):
        client.batches.create(input_file_id="file-none", endpoint=CHAT, completion_window="24h")
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_none")
    for read in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError):
            read("file-none")


def test_the_program_of_the_page_prints_its_answers(url: str) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (program,) = [block for block in blocks if "import OpenAI" in block]
    for said, meant in (("http://127.0.0.1:8000", url), ('api_key="any"', f'api_key="{KEY}"')):
        assert said in program
        program = program.replace(said, meant)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "completed BatchRequestCounts(completed=100, failed=0, total=100)" in done.stdout
    assert "question-99 " in done.stdout
