"""What makes an application of models, before anything runs; and one that runs with simulated engines."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cloudpickle
import httpx
import pytest

from actorrt import serve
from actorrt.serve.llm import (
    ApiKey,
    EngineCall,
    FrontConfig,
    LlamaCppEngine,
    LLMConfig,
    LoraAdapter,
    SimulatedEngine,
    WordLlamaEngine,
    build_llm_deployment,
    build_openai_app,
)

from .conftest import HELLO

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def simulated(model_id: str, **more: Any) -> LLMConfig:
    return LLMConfig(model_id=model_id, engine=SimulatedEngine(speed=100), **more)


def deployments(app: Any) -> dict[str, Any]:
    return {each.deployment.name: each.deployment for _, each in app.args[1]}


def test_each_model_is_a_deployment_with_room_for_twice_its_slots() -> None:
    app = build_openai_app([simulated("a/b"), simulated("a-b", deployment={"num_replicas": 2})])
    made = deployments(app)
    assert set(made) == {"model:a-b", "model:a-b-2"}
    assert made["model:a-b"].max_ongoing_requests == 2 * SimulatedEngine().slots
    assert made["model:a-b-2"].num_replicas == 2
    assert build_llm_deployment(simulated("a#b")).deployment.name == "model:a-b"


def test_front_and_models_have_no_loop_beside_the_links_whatever_else_is_asked_for() -> None:
    app: Any = build_openai_app([simulated("a", deployment={"actor_options": {"num_cpus": 1}})])
    assert app.deployment.actor_options == {"on_runtime_loop": True}
    assert deployments(app)["model:a"].actor_options == {"num_cpus": 1, "on_runtime_loop": True}


def test_configurations_may_be_written_as_in_ray_and_as_plain_data() -> None:
    plain = {"model_id": "a", "engine": {"kind": "simulated"}}
    for given in (plain, [plain], {"llm_configs": [plain]}, SimpleNamespace(llm_configs=[plain]), simulated("a")):
        assert set(deployments(build_openai_app(given, {"chat_page": True}))) == {"model:a"}


def test_what_is_wrong_is_said_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="no model"):
        build_openai_app([])
    with pytest.raises(ValueError, match="'b' stands for model 'a' and for 'b'"):
        build_openai_app([simulated("a", adapters=[LoraAdapter(name="b", path="x")]), simulated("b")])
    with pytest.raises(TypeError, match="an LLMConfig or a mapping of its fields, not of type int"):
        build_openai_app([5])  # pyright: ignore[reportArgumentType]


MISTAKES: list[tuple[type[Any], dict[str, Any], str]] = [
    (LlamaCppEngine, {"model": "x", "slot": 4}, "unknown LlamaCppEngine field 'slot'; did you mean 'slots'?"),
    (LlamaCppEngine, {}, "LlamaCppEngine needs the field 'model'"),
    (LoraAdapter, {}, "LoraAdapter needs the field 'name'; LoraAdapter needs the field 'path'"),
    (FrontConfig, {"ping_s": 0}, "FrontConfig.ping_s: input should be greater than 0, not 0"),
    (
        LLMConfig,
        {"model_id": "a", "engine": {"kind": "simulated", "slos": 1}},
        "LLMConfig.engine: unknown SimulatedEngine field 'slos'; did you mean 'slots'?",
    ),
    (
        LLMConfig,
        {"model_id": "a", "engine": {"kind": "simulated"}, "deployment": {"num_replica": 1}},
        "LLMConfig.deployment: unknown deployment option 'num_replica'; did you mean 'num_replicas'?",
    ),
    (
        LLMConfig,
        {"model_id": "a", "engine": {"kind": "simulated"}, "aliases": ["b", ""]},
        "LLMConfig.aliases[1]: string should have at least 1 character, not ''",
    ),
    # What is no hash may be the key.
    (ApiKey, {"sha256": "sk-1", "tenant": "a"}, "ApiKey.sha256: string should match pattern '^[0-9a-f]{64}$'"),
]


@pytest.mark.parametrize(("config", "given", "sentence"), MISTAKES)
def test_a_mistake_in_a_configuration_is_a_sentence_that_names_the_field(
    config: type[Any], given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError) as caught:
        config(**given)
    assert str(caught.value) == sentence


@pytest.fixture(scope="module")
def client(serve_url: str) -> Iterator[httpx.Client]:
    words = LLMConfig(model_id="words", engine=WordLlamaEngine())
    serve.run(build_openai_app([simulated("fast"), words], FrontConfig(chat_page=True)), name="models")
    with httpx.Client(base_url=serve_url, timeout=30, trust_env=False) as client:
        yield client


def test_each_model_answers_what_its_engine_can(client: httpx.Client) -> None:
    chat = {"model": "fast", "messages": HELLO, "max_tokens": 3}
    assert client.post("/v1/chat/completions", json=chat).json()["usage"]["completion_tokens"] == 3
    events = client.post("/v1/chat/completions", json={**chat, "stream": True}).text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    embedded = client.post("/v1/embeddings", json={"model": "words", "input": "x"}).json()
    assert len(embedded["data"][0]["embedding"]) == WordLlamaEngine().dimensions
    refused = client.post("/v1/chat/completions", json={**chat, "model": "words"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (501, "not_supported_by_engine")


@serve.deployment
class Asking:
    """A node of somebody's own graph before a model."""

    def __init__(self, model: Any) -> None:
        self._generate = model.generate.options(stream=True)

    async def __call__(self, body: bytes, stream: bool) -> tuple[int, bytes, int]:
        answer = self._generate.remote(EngineCall("/v1/chat/completions", body, stream))
        status, _ = await anext(answer)
        parts = [part async for part in answer]
        return status, b"".join(data for data, _ in parts), sum(tokens for _, tokens in parts)


def test_a_model_without_a_front_is_called_by_its_handle(serve_url: str) -> None:
    app: Any = cast("Any", Asking).bind(build_llm_deployment(simulated("alone")))
    handle: Any = serve.run(app, name="alone", route_prefix=None)
    chat = {"messages": HELLO, "max_tokens": 4, "ignore_eos": True}
    status, body, tokens = handle.remote(json.dumps(chat).encode(), False).result()
    assert (status, json.loads(body)["usage"]["completion_tokens"], tokens) == (200, 4, 4)
    status, events, tokens = handle.remote(json.dumps({**chat, "stream": True}).encode(), True).result()
    assert (status, events.endswith(b"data: [DONE]\n\n"), tokens) == (200, True, 4)
    status, refused, _ = handle.remote(b"{}", False).result()
    assert (status, json.loads(refused)["error"]["param"]) == (400, "messages")
    serve.delete("alone")


def test_text_becomes_tokens_and_text_again(client: httpx.Client) -> None:
    said = client.post("/v1/tokenize", json={"model": "fast", "prompt": "some words of text"}).json()
    assert (said["count"], said["max_model_len"]) == (len(said["tokens"]), SimulatedEngine().context)
    again = client.post("/v1/detokenize", json={"model": "fast", "tokens": said["tokens"]}).json()
    assert again == {"prompt": "some words of text"}
    wrong = client.post("/v1/detokenize", json={"model": "fast", "tokens": [1]})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "tokens")


def test_nulls_beside_what_is_to_become_tokens_are_as_if_they_were_not_there(client: httpx.Client) -> None:
    def tokens(**fields: Any) -> httpx.Response:
        return client.post("/v1/tokenize", json={"model": "fast", **fields})

    of_text, of_a_chat = tokens(prompt="some words").json(), tokens(messages=HELLO).json()
    assert tokens(prompt="some words", messages=None, content=None, add_special_tokens=None).json() == of_text
    assert tokens(prompt=None, content="some words").json() == of_text
    assert tokens(prompt=None, messages=HELLO).json() == of_a_chat
    wrong = tokens(prompt="some words", add_special_tokens="no")
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "add_special_tokens")
    completion = {"model": "fast", "prompt": "a", "messages": None, "max_tokens": 1}
    assert client.post("/v1/completions", json=completion).status_code == 200


def test_there_is_a_page_to_chat_on_where_it_was_asked_for(client: httpx.Client) -> None:
    page = client.get("/")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<html" in page.text


def test_the_command_line_shows_models_engines_and_slots(client: httpx.Client) -> None:
    command = [str(Path(sys.executable).with_name("actorrt")), "status"]
    shown = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=50, check=True)
    models = {each["model"]: each for each in json.loads(shown.stdout)["models"]}
    assert set(models) == {"fast", "words"}
    fast = models["fast"]
    expected = ("models", "simulated", 1, SimulatedEngine().slots, SimulatedEngine().context, 0, 0)
    assert tuple(fast.values())[:8] == (expected[0], "fast", *expected[1:])
    text = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True).stdout
    (line,) = [each.split() for each in text.splitlines() if each.startswith("fast")]
    assert line == ["fast", "simulated", "1", str(fast["slots"]), str(fast["context"]), "0", "0"]
