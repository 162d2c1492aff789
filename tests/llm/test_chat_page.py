"""The page to chat on, in a browser, as a person uses it."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from actorrt import serve
from actorrt.serve.declaration.declaration import Deployment
from actorrt.serve.declaration.options import DeploymentOptions
from actorrt.serve.llm import (
    ApiKey,
    FrontConfig,
    LLMConfig,
    SimulatedEngine,
    build_llm_deployment,
    build_openai_app,
)
from actorrt.serve.llm.engines.interface import EngineCall
from actorrt.serve.llm.front import Front

from .browser import CHROMIUM, Page, chromium
from .scripted import PATHS, Scripted, chunk

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed here (Debian: apt install chromium)")

EVENTS: Final = ["head", 200, "text/event-stream"]
DONE: Final = ["say", chunk(None, "stop") + "data: [DONE]\n\n", 0]
USAGE: Final = ["say", f"data: {json.dumps({'choices': [], 'usage': {'completion_tokens': 42}})}\n\n", 0]


class Told(Scripted):
    """Does what the last message says."""

    async def generate(self, call: EngineCall) -> AsyncGenerator[Any]:
        asked = json.loads(call.body)
        asked["script"] = json.loads(asked["messages"][-1]["content"])
        answer = super().generate(call._replace(body=json.dumps(asked).encode()))
        try:
            async for item in answer:
                yield item
        finally:
            await answer.aclose()


@pytest.fixture(scope="module")
def url(serve_url: str) -> str:
    told = serve.deployment(name="told", max_ongoing_requests=16)(Told).bind(PATHS)
    fast = LLMConfig(model_id="fast", engine=SimulatedEngine(speed=10, answer_tokens=100_000))
    models = [(LLMConfig(model_id="told", engine=SimulatedEngine()), told), (fast, build_llm_deployment(fast))]
    options = DeploymentOptions(name="front", max_ongoing_requests=100)
    for name, keys in (("open", []), ("closed", [ApiKey.of("sk-a", "a")])):
        app = Deployment[Front](Front, options).bind(FrontConfig(chat_page=True, keys=keys), models)
        serve.run(app, name=name, route_prefix=f"/{name}")
    return serve_url


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(Path(tmp_path_factory.mktemp("profile"))) as page:
        yield page


@pytest.fixture
def page(browser: Page, url: str) -> Iterator[Page]:
    browser.open(f"{url}/open/", 800, 600)
    browser.wait_for("document.querySelector('#model').length === 2")
    yield browser
    # Nothing was run that is not the page's, and none of that failed.
    assert browser.said == []


def ask(page: Page, *script: Any) -> None:
    page.type("#text", json.dumps(script))
    page.press_enter()


def text(selector: str) -> str:
    return f"[...document.querySelectorAll('{selector}')].at(-1).textContent"


ENDED: Final = "document.querySelector('#stop').hidden"
MODEL: Final = serve.get_deployment_handle


def test_an_answer_comes_a_piece_at_a_time_with_its_figures(page: Page) -> None:
    model = MODEL("told", "open")
    ask(page, EVENTS, ["say", chunk("one "), 1], ["wait", "two"], ["say", chunk("two"), 1], DONE, USAGE)
    page.wait_for(f"{text('.turn.assistant')} === 'one '")
    assert not page.value(ENDED)
    page.wait_for("document.querySelector('#load').textContent === '1 running · 0 waiting'")
    model.tell.remote("two").result()
    page.wait_for(ENDED)
    assert page.value(text(".turn.assistant")) == "one two"
    facts = page.value(text(".facts"))
    assert facts.startswith("first token after ")
    assert " ms · 42 tokens · " in facts
    assert facts.endswith(" tokens/s")

    # The next question is asked with what was said.
    ask(page, EVENTS, DONE)
    page.wait_for(f"document.querySelectorAll('.turn.user').length === 2 && {ENDED}")
    said = json.loads(model.calls.remote().result()[-1][1])["messages"]
    assert [message["role"] for message in said] == ["user", "assistant", "user"]
    assert said[1]["content"] == "one two"


def test_the_stop_button_ends_the_request_at_the_engine(page: Page) -> None:
    ask(page, EVENTS, ["say", chunk("begun"), 1], ["wait", "never"])
    page.wait_for(f"{text('.turn.assistant')} === 'begun'")
    model = MODEL("told", "open")
    assert model.statistics.remote().result()["running"] == 1
    page.click("#stop")
    page.wait_for("document.querySelector('#load').textContent === '0 running · 0 waiting'")
    # The engine hears of it a moment after the page does.
    while model.statistics.remote().result()["running"]:
        pass
    assert page.value(text(".facts")).endswith(" · stopped")


def test_what_goes_wrong_is_shown(page: Page) -> None:
    ask(page, ["raise"])
    page.wait_for("document.querySelectorAll('.turn.error').length === 1")
    ask(page, EVENTS, ["say", chunk("some"), 1], ["raise"])
    page.wait_for("document.querySelectorAll('.turn.error').length === 2")
    assert page.value(
        "[...document.querySelectorAll('.turn.error')].every(turn => turn.textContent.includes('failed'))"
    )
    page.value("document.querySelector('#temperature').value = -1; 0")
    ask(page, EVENTS, DONE)
    page.wait_for("document.querySelectorAll('.turn.error').length === 3")
    assert "'temperature' must be at least 0" in page.value(text(".turn.error"))


def test_a_model_writes_text_and_no_html(page: Page) -> None:
    attack = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    ask(page, EVENTS, ["say", chunk(attack), 1], DONE)
    page.wait_for(ENDED)
    assert page.value(text(".turn.assistant")) == attack
    assert page.value("document.querySelectorAll('main img, main script').length") == 0


def test_another_model_can_be_chosen_and_a_new_chat_begun(page: Page) -> None:
    ask(page, EVENTS, ["say", chunk("begun"), 1], ["wait", "never"])
    page.wait_for(f"{text('.turn.assistant')} === 'begun'")
    page.click("#clear")
    page.wait_for(ENDED)
    page.value("document.querySelector('#model').value = 'fast'; document.querySelector('#limit').value = 400; 0")
    page.type("#text", "hello")
    page.press_enter()
    page.wait_for(f"{text('.facts')}.includes(' · 400 tokens · ') && {ENDED}")
    assert page.value("document.querySelectorAll('.turn').length") == 2
    assert page.value(text(".facts")).endswith(" · cut at the limit")

    # A long answer is followed to its end, and nothing is wider than a narrow window.
    assert page.value("turns.scrollHeight > turns.clientHeight + 100")
    assert page.value("Math.abs(turns.scrollHeight - turns.scrollTop - turns.clientHeight) < 2")
    page.resize(320, 480)
    assert page.value("document.documentElement.scrollWidth <= 320 && turns.scrollWidth <= 320")
    page.wait_for("document.getElementById('send').getBoundingClientRect().bottom <= 480")


def test_a_key_is_asked_for_and_used(browser: Page, url: str) -> None:
    browser.open(f"{url}/closed/")
    browser.wait_for("document.querySelector('.hint').textContent.includes('API key')")
    browser.type("#key", "sk-a")
    browser.press_enter()
    browser.wait_for("document.querySelector('#model').length === 2")
    ask(browser, EVENTS, ["say", chunk("yes"), 1], DONE)
    browser.wait_for(f"{ENDED} && {text('.turn.assistant')} === 'yes'")
    assert browser.said == []


async def test_a_capacity_queue_is_shown_while_it_changes(browser: Page, url: str) -> None:
    engine = SimulatedEngine(kv_tokens=10_000, slots=1, context=10_000)
    model = LLMConfig(model_id="queued", engine=engine, deployment={"request_router": "capacity_queue"})
    keys = [ApiKey.of("sk-a", "<b>alice</b>"), ApiKey.of("sk-b", "bob")]
    front = FrontConfig(chat_page=True, keys=keys)
    await asyncio.to_thread(serve.run, build_openai_app(model, front), name="queued", route_prefix="/queued")
    chat = {
        "model": "queued",
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 5000,
        "ignore_eos": True,
    }

    def body(**more: Any) -> dict[str, Any]:
        return {"url": f"{url}/queued/v1/chat/completions", "json": {**chat, **more}}

    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
        client.headers["authorization"] = "Bearer sk-a"
        async with client.stream("POST", **body(stream=True)) as runs:
            assert runs.status_code == 200
            waits = [
                asyncio.ensure_future(client.post(**body(max_tokens=1, service_tier=tier), headers=headers))
                for tier, headers in (("flex", {}), ("flex", {}), ("auto", {"authorization": "Bearer sk-b"}))
            ]
            await asyncio.to_thread(browser.open, f"{url}/queued/", 800, 600)
            await asyncio.to_thread(browser.wait_for, "document.querySelector('.hint').textContent.includes('API key')")
            browser.type("#key", "sk-a")
            browser.press_enter()
            line = "document.querySelector('#queue-line').textContent"
            await asyncio.to_thread(browser.wait_for, f"{line}.startsWith('Queue: 3 waiting · ')")
            assert browser.value(f"/^Queue: 3 waiting · [\\d,]+ tokens reserved, [\\d,]+ used of 10,000$/.test({line})")
            browser.click("#queue summary")
            rows = "document.querySelector('#queue-rows').innerText"
            await asyncio.to_thread(browser.wait_for, f"{rows}.includes('2 waiting: 2 flex · ')")
            shown = browser.value(rows)
            assert "<b>alice</b>" in shown
            assert "bob" not in shown
            assert "and 1 other tenant" in shown
            assert "1 of 1 request" in shown
            # What has come of the answer is told from what is reserved for it.
            used = f"Number(/reserved, ([\\d,]+) used/.exec({rows})[1].replace(',', ''))"
            before = browser.value(used)
            await asyncio.to_thread(browser.wait_for, f"{used} > {before}")
            browser.resize(320, 480)
            assert browser.value("document.documentElement.scrollWidth <= 320 && queue.scrollWidth <= 320")
        assert [answer.status_code for answer in await asyncio.gather(*waits)] == [200] * 3
        await asyncio.to_thread(browser.wait_for, f"{line}.startsWith('Queue: 0 waiting · 0 tokens reserved, 0 used')")
    assert browser.said == []


def test_without_a_capacity_queue_nothing_of_one_is_shown(page: Page, url: str) -> None:
    page.wait_for("document.querySelector('#load').textContent === '0 running · 0 waiting'")
    assert page.value("document.querySelector('#queue').hidden")
    assert httpx.get(f"{url}/open/load", trust_env=False).json() == {"running": 0, "waiting": 0}


def test_the_page_is_found_without_the_slash_behind_its_prefix(browser: Page, url: str) -> None:
    browser.open(f"{url}/open", 800, 600)
    browser.wait_for("document.querySelector('#model').length === 2")
    assert browser.value("location.pathname") == "/open/"
