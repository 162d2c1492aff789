"""Adapters that are loaded while their model serves, and what the replicas of a front know of each other."""

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from actorrt import serve
from actorrt.serve.declaration.declaration import Deployment
from actorrt.serve.declaration.options import DeploymentOptions
from actorrt.serve.llm import FrontConfig, LLMConfig, SimulatedEngine, adapters
from actorrt.serve.llm.catalogue import Catalogue, Claim, Served
from actorrt.serve.llm.front import Front
from actorrt.serve.llm.services import Services
from actorrt.serve.routing.broadcast import ask_all

from .conftest import HELLO, ScriptedApp, run_scripted
from .scripted import PATHS, Scripted

ANSWER = [["head", 200, "application/json"], ["say", "{}", 0]]
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
# So often, that each of two replicas is surely asked: which one is, is drawn by lot.
OFTEN = 20


class MortalFront(Front):
    async def pid(self) -> int:
        return os.getpid()


@pytest.fixture(scope="module")
def fronts(serve_url: str) -> Iterator[ScriptedApp]:
    """Two replicas of the front."""
    app = run_scripted(serve_url, "fronts", FrontConfig(num_replicas=2, live_adapters=True), kind=MortalFront)
    with app.client:
        yield app


def pids() -> dict[str, Any]:
    """The processes of the front's replicas that answer."""
    front = serve.get_deployment_handle("front", "fronts")
    answers = asyncio.run(ask_all(front, "pid", timeout_s=20))
    return {id: answer for id, answer in answers.items() if isinstance(answer, int)}


def statuses(app: ScriptedApp, model: str) -> set[int]:
    request = {"model": model, "messages": HELLO, "script": ANSWER}
    return {app.client.post("/v1/chat/completions", json=request).status_code for _ in range(OFTEN)}


def test_an_adapter_is_a_model_for_all_fronts_from_its_loading_to_its_unloading(fronts: ScriptedApp) -> None:
    assert statuses(fronts, "poet") == {404}
    loaded = fronts.client.post(LOAD, json={"lora_name": "poet", "lora_path": "/poet"})
    assert (loaded.status_code, loaded.text) == (200, "Success: LoRA adapter 'poet' added successfully.")
    assert statuses(fronts, "poet") == {200}
    _, body, _, headers = fronts.last_call()
    assert b'"model":"poet"' in body
    # What a replica of the model that has not loaded it needs for that.
    assert ("x-actorrt-adapter", "poet=/poet") in headers
    assert fronts.ask("adapters") == {"poet": "/poet"}
    assert fronts.client.get("/v1/models/poet").json()["parent"] == "scripted"
    again = fronts.client.post(LOAD, json={"lora_name": "poet", "lora_path": "/other"})
    assert (again.status_code, again.json()["error"]["param"]) == (400, "lora_name")
    assert fronts.client.post(UNLOAD, json={"lora_name": "poet"}).status_code == 200
    assert statuses(fronts, "poet") == {404}
    assert fronts.ask("adapters") == {}


def test_an_adapter_that_cannot_be_loaded_is_none(fronts: ScriptedApp) -> None:
    refused = fronts.client.post(LOAD, json={"lora_name": "lost", "lora_path": "missing"})
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, "there is no adapter file 'missing'")
    assert statuses(fronts, "lost") == {404}
    assert fronts.client.post(UNLOAD, json={"lora_name": "lost"}).status_code == 404


def test_what_is_loaded_beside_one_that_fails_stays(fronts: ScriptedApp) -> None:
    lost = {"lora_name": "lost", "lora_path": "missing after good"}
    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(fronts.client.post, LOAD, json=lost)
        fronts.until("lost is loaded")
        try:
            assert fronts.client.post(LOAD, json={"lora_name": "good", "lora_path": "/good"}).status_code == 200
        finally:
            fronts.tell("good")
        assert refused.result().status_code == 400
    assert statuses(fronts, "good") == {200}
    assert statuses(fronts, "lost") == {404}
    assert fronts.client.post(UNLOAD, json={"lora_name": "good"}).status_code == 200


def test_a_front_that_comes_later_knows_what_was_loaded_at_its_first_requests(fronts: ScriptedApp) -> None:
    assert fronts.client.post(LOAD, json={"lora_name": "early", "lora_path": "/early"}).status_code == 200
    killed, *_ = pids().values()
    os.kill(killed, signal.SIGKILL)
    while killed in (now := pids().values()) or len(now) < 2:
        pass
    request = {"model": "early", "messages": HELLO, "script": ANSWER}
    with ThreadPoolExecutor(OFTEN) as pool:
        asked = [pool.submit(fronts.client.post, "/v1/chat/completions", json=request) for _ in range(OFTEN)]
        assert {each.result().status_code for each in asked} == {200}
    assert fronts.client.post(UNLOAD, json={"lora_name": "early"}).status_code == 200


class Late(Scripted):
    """Its model is loaded when something comes through a named pipe."""

    async def __init__(self, pipe: str) -> None:  # pyright: ignore[reportGeneralTypeIssues]
        await asyncio.to_thread(Path(pipe).read_bytes)
        super().__init__(PATHS, True)


def test_an_adapter_waits_for_its_model_to_be_there(serve_url: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    model = LLMConfig(model_id="late", engine=SimulatedEngine())
    late = serve.deployment(name="late")(Late).bind(str(pipe))
    front = Deployment[Front](Front, DeploymentOptions(name="front", max_ongoing_requests=100))
    app = front.bind(FrontConfig(live_adapters=True), [(model, late)])
    with (
        ThreadPoolExecutor(2) as pool,
        httpx.Client(base_url=f"{serve_url}/late", timeout=20, trust_env=False) as client,
    ):
        deployed = pool.submit(serve.run, app, name="late", route_prefix="/late")
        while client.get("/v1/models").status_code != 200:
            pass
        loaded = pool.submit(client.post, LOAD, json={"lora_name": "poet", "lora_path": "/poet"})
        assert client.get("/v1/models/poet").status_code == 404
        pipe.write_bytes(b"x")
        deployed.result()
        assert loaded.result().status_code == 200
        assert client.get("/v1/models/poet").status_code == 200


def test_without_the_setting_nobody_loads_files_of_the_server(scripted_app: ScriptedApp) -> None:
    refused = scripted_app.client.post(LOAD, json={"lora_name": "x", "lora_path": "/x"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "not_allowed")


def test_each_scrape_shows_what_all_fronts_have_counted(fronts: ScriptedApp) -> None:
    def counted() -> dict[str, float]:
        text = fronts.client.get("/metrics").text
        return {
            sample.labels["front"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "gen_ai_server_request_duration_seconds_count" and not sample.labels["error_type"]
            if sample.labels["gen_ai_request_model"] == "scripted"
        }

    before = sum(counted().values())
    assert statuses(fronts, "scripted") == {200}
    after = counted()
    assert len(after) == 2
    assert sum(after.values()) == before + OFTEN
    assert counted() == after


def test_while_one_request_loads_an_adapter_no_other_does_whichever_front_it_comes_to(fronts: ScriptedApp) -> None:
    slow = {"lora_name": "same", "lora_path": "/slow after same"}
    with ThreadPoolExecutor(1) as pool:
        loaded = pool.submit(fronts.client.post, LOAD, json=slow)
        fronts.until("same is loaded")
        try:
            others = [fronts.client.post(LOAD, json={"lora_name": "same", "lora_path": "/b"}) for _ in range(OFTEN)]
        finally:
            fronts.tell("same")
        assert loaded.result().status_code == 200
    assert {each.status_code for each in others} == {400}
    assert {each.json()["error"]["message"] for each in others} == {"'same' is being loaded or unloaded already"}
    assert fronts.ask("adapters") == {"same": "/slow after same"}
    assert fronts.client.post(UNLOAD, json={"lora_name": "same"}).status_code == 200


def test_of_requests_that_load_one_adapter_at_once_one_does(fronts: ScriptedApp) -> None:
    with ThreadPoolExecutor(OFTEN) as pool:
        bodies = [{"lora_name": "raced", "lora_path": f"/{number}"} for number in range(OFTEN)]
        answers = list(pool.map(lambda body: fronts.client.post(LOAD, json=body), bodies))
    (won,) = (number for number, each in enumerate(answers) if each.status_code == 200)
    assert {each.status_code for each in answers} == {200, 400}
    assert fronts.ask("adapters") == {"raced": f"/{won}"}
    assert statuses(fronts, "raced") == {200}
    with ThreadPoolExecutor(OFTEN) as pool:
        gone = list(pool.map(lambda _: fronts.client.post(UNLOAD, json={"lora_name": "raced"}), range(OFTEN)))
    assert [each.status_code for each in gone].count(200) == 1
    assert fronts.ask("adapters") == {}


@pytest.mark.parametrize("name", ["a=b", "a/b", "a\\b", "..\\..", "a\nb", "a\0", "\x7f", "x" * 257, "\u2028"])
def test_a_name_that_could_be_taken_for_something_else_is_refused_with_the_rule(fronts: ScriptedApp, name: str) -> None:
    for path in (LOAD, UNLOAD):
        refused = fronts.client.post(path, json={"lora_name": name, "lora_path": "/x"})
        rule = "'lora_name' must be 1 to 256 characters, none of them '=', '/', '\\' or a control character"
        assert (refused.status_code, refused.json()["error"]["message"]) == (400, rule)
        assert refused.json()["error"]["param"] == "lora_name"


@pytest.mark.parametrize("path", ["/a\0", "/" + "x" * 4096])
def test_a_path_that_is_none_is_refused_with_the_rule(fronts: ScriptedApp, path: str) -> None:
    refused = fronts.client.post(LOAD, json={"lora_name": "x", "lora_path": path})
    rule = "'lora_path' must be 1 to 4096 characters, none of them a control character"
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, rule)


def test_names_in_any_language_and_with_equals_in_the_path_are_taken(fronts: ScriptedApp) -> None:
    body = {"lora_name": "Dichter für 日本 v1.2", "lora_path": "/a=b"}
    assert fronts.client.post(LOAD, json=body).status_code == 200
    assert statuses(fronts, body["lora_name"]) == {200}
    assert fronts.client.post(UNLOAD, json=body).status_code == 200


def known() -> Catalogue:
    handle: Any = SimpleNamespace(generate=SimpleNamespace(options=lambda **_: None))
    return Catalogue([Served(LLMConfig(model_id="m", engine=SimulatedEngine(), max_adapters=2), handle)], 0)


def test_what_a_front_had_claimed_that_has_died_is_anybodys() -> None:
    catalogue = known()
    one, two = Claim("one", 0), Claim("two", 0)
    assert catalogue.claim("m", "x", one, {"one", "two"}, loads=True) == ""
    assert "already" in catalogue.claim("m", "x", two, {"one", "two"}, loads=True)
    assert catalogue.claim("m", "x", two, {"two"}, loads=True) == ""
    catalogue.release("m", "x", one)  # which it does not hold any more
    assert "already" in catalogue.claim("m", "x", Claim("two", 1), {"two"}, loads=True)
    catalogue.release("m", "x", two)
    assert catalogue.claim("m", "x", Claim("two", 2), {"two"}, loads=True) == ""


def test_those_that_are_being_loaded_count_as_loaded() -> None:
    catalogue = known()
    alive = {"one"}
    catalogue.know_adapter("m", "there", "/there")
    assert catalogue.claim("m", "x", Claim("one", 0), alive, loads=True) == ""
    full = "2 adapters are loaded, as many as max_adapters allows"
    assert catalogue.claim("m", "y", Claim("one", 1), alive, loads=True) == full
    assert catalogue.claim("m", "there", Claim("one", 2), alive, loads=False) == ""
    catalogue.forget_adapter("m", "there")
    assert catalogue.claim("m", "y", Claim("one", 3), alive, loads=True) == full
    catalogue.release("m", "there", Claim("one", 2))
    assert catalogue.claim("m", "y", Claim("one", 4), alive, loads=True) == ""


class ToldFronts:
    """What the other fronts say, one time after the other."""

    def __init__(self, *said: Any) -> None:
        self.said = list(said)

    async def adapters(self) -> Any:
        said = self.said.pop(0)
        if isinstance(said, BaseException):
            raise said
        return said


@pytest.mark.parametrize("failure", [OSError("gone"), asyncio.CancelledError(), ({}, False)])
async def test_a_front_asks_again_until_all_others_have_said_what_is_loaded(
    failure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actorrt.serve.llm.services._LEARN_AGAIN_S", 0)
    catalogue = known()
    nothing: Any = None
    services = Services(FrontConfig(live_adapters=True), catalogue, nothing, nothing, nothing, nothing)
    fronts = ToldFronts(failure, ({"m": {"x": "/x"}}, True))
    monkeypatch.setattr(services, "fronts", lambda: fronts)
    if isinstance(failure, BaseException):
        with pytest.raises(type(failure)):
            await services.learn_adapters()
    else:
        await services.learn_adapters()
    assert catalogue.live == {"m": {}}
    while catalogue.live == {"m": {}}:
        await services.learn_adapters()
        await asyncio.sleep(0)
    assert catalogue.live == {"m": {"x": "/x"}}
    await services.learn_adapters()
    assert fronts.said == []


class Asked:
    """The other fronts, who answer what they are asked when it is said."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[asyncio.Future[Any]] = asyncio.Queue()

    async def adapters(self) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.asked.put_nowait(answer)
        return await answer


def asking(monkeypatch: pytest.MonkeyPatch) -> tuple[Services, Asked]:
    nothing: Any = None
    services, fronts = Services(FrontConfig(live_adapters=True), known(), nothing, nothing, nothing, nothing), Asked()
    monkeypatch.setattr(services, "fronts", lambda: fronts)
    return services, fronts


async def test_a_front_that_does_not_answer_holds_up_the_first_requests_and_no_later_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actorrt.serve.llm.services._LEARN_AGAIN_S", 0)
    services, fronts = asking(monkeypatch)
    first = [asyncio.ensure_future(services.learn_adapters()) for _ in range(3)]
    answer = await fronts.asked.get()
    # Who began to ask may leave: the others wait on, and nobody asks anew.
    first.pop(0).cancel()
    answer.set_result(({}, False))
    await asyncio.gather(*first)
    # The time-out is what makes this test fail; while it passes nothing waits.
    async with asyncio.timeout(20):
        await services.learn_adapters()
        again = await fronts.asked.get()
        await services.learn_adapters()
    assert fronts.asked.empty()
    again.set_result(({"m": {"x": "/x"}}, True))
    while services.catalogue.live == {"m": {}}:
        await services.learn_adapters()
        await asyncio.sleep(0)
    assert fronts.asked.empty()


async def test_fronts_that_do_not_answer_are_not_asked_by_every_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorrt.serve.llm.services._LEARN_AGAIN_S", 3600)
    services, fronts = asking(monkeypatch)
    request = asyncio.ensure_future(services.learn_adapters())
    (await fronts.asked.get()).set_result(({}, False))
    await request
    await services.learn_adapters()
    await asyncio.sleep(0)
    assert fronts.asked.empty()


async def test_what_is_unloaded_while_others_say_what_is_loaded_stays_unloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    services, fronts = asking(monkeypatch)
    catalogue = services.catalogue
    request = asyncio.ensure_future(services.learn_adapters())
    answer = await fronts.asked.get()
    catalogue.forget_adapter("m", "gone")
    catalogue.forget_adapter("m", "another")
    catalogue.know_adapter("m", "another", "/newer")
    answer.set_result(({"m": {"gone": "/gone", "another": "/older", "there": "/there"}}, True))
    await request
    assert catalogue.live == {"m": {"another": "/newer", "there": "/there"}}
    assert set(catalogue.names()) == {"m", "another", "there"}


class Alone:
    """A front that has no others, whose model does what it is asked once it may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        nothing: Any = None
        self.services = Services(FrontConfig(live_adapters=True), known(), nothing, nothing, nothing, nothing)
        self.begun, self.may_end, self.released = asyncio.Event(), asyncio.Event(), asyncio.Event()
        monkeypatch.setattr(self.services, "fronts", lambda: self)
        monkeypatch.setattr("actorrt.serve.llm.adapters.ask_all", self.ask_all)
        monkeypatch.setattr(self.services.catalogue.models["m"], "_facts", object())

    def new_claim(self) -> Claim:
        return Claim("me", 0)

    async def claim(self, *_: Any, **__: Any) -> str:
        return ""

    async def release(self, *_: Any) -> None:
        self.released.set()

    async def tell_adapter(self, *_: Any) -> None:
        await asyncio.sleep(0)

    tell_unloaded = tell_adapter

    async def ask_all(self, *_: Any, **__: Any) -> dict[str, Any]:
        self.begun.set()
        await self.may_end.wait()
        return {"replica": None}

    async def leave_during(self, handler: Any) -> None:
        """Have a request cancelled once the model has been asked, and the model go on."""

        async def body(_: int) -> bytes:
            return b'{"lora_name": "x", "lora_path": "/x"}'

        exchange: Any = SimpleNamespace(body=body)
        request = asyncio.ensure_future(handler(self.services, exchange, ""))
        await self.begun.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert not self.released.is_set()
        self.may_end.set()
        await self.released.wait()


async def test_an_adapter_whose_client_leaves_while_it_is_loaded_is_a_model_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    front = Alone(monkeypatch)
    await front.leave_during(adapters.load)
    assert front.services.catalogue.live == {"m": {"x": "/x"}}


async def test_an_adapter_whose_client_leaves_while_it_is_unloaded_is_nobodys_until_it_has_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    front = Alone(monkeypatch)
    front.services.catalogue.know_adapter("m", "x", "/x")
    await front.leave_during(adapters.unload)
    assert front.services.catalogue.live == {"m": {}}
