"""The processes of engines: they come up or say why not, are started again, and nothing of them is left."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from actorrt.serve.llm import LLMConfig, ServerEngine
from actorrt.serve.llm.engines.factory import make_engine
from actorrt.serve.llm.engines.interface import Delta, EngineCall, EngineError
from actorrt.serve.llm.engines.server import Server

PROGRAM = Path(__file__).parent / "programs" / "odd_engine.py"
CALL = EngineCall("/v1/completions", b"{}")


def odd(*ways: str, stall_timeout_s: float | None = None, **config: object) -> Server:
    command = [sys.executable, str(PROGRAM), "{port}", *ways]
    engine = ServerEngine.model_validate({"command": command, "context": 100, "stop_timeout_s": 0.2, **config})
    made = make_engine(LLMConfig(model_id="odd", engine=engine, stall_timeout_s=stall_timeout_s))
    assert isinstance(made, Server)
    return made


@asynccontextmanager
async def running(engine: Server) -> AsyncIterator[Server]:
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def text_of(engine: Server) -> str:
    return "".join([item.data.decode() async for item in engine.generate(CALL) if isinstance(item, Delta)])


def descendants_of(pid: int) -> set[int]:
    """It and what descends from it."""
    found = {pid}
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found |= descendants_of(int(child))
    return found


def lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


async def test_one_that_ends_as_it_starts_is_quoted() -> None:
    with pytest.raises(EngineError, match="ended as it started, exit code 3; its last words: the weights are cursed"):
        await odd("dies").start()


async def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(EngineError, match=r"/no/such/program cannot be run: .*No such file or directory"):
        await odd(command=["/no/such/program"]).start()


async def test_one_that_never_answers_is_given_up_and_quoted(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(
        EngineError, match=r"did not answer /health within 2.5 s \(start_timeout_s\); its last words: I"
    ):
        await odd("silent", start_timeout_s=2.5).start()
    assert "waiting for the engine of odd: 1 s, its last line: I think" in caplog.text


async def test_a_port_that_somebody_has_is_named_and_nothing_is_started() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(EngineError, match=f"port {port} is taken by another process"):
            await odd(port=port).start()


async def test_a_port_that_another_engine_is_about_to_listen_at_is_not_shared() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    first, second = odd(port=port), odd(port=port)
    outcomes = await asyncio.gather(first.start(), second.start(), return_exceptions=True)
    (error,) = (outcome for outcome in outcomes if isinstance(outcome, EngineError))
    assert str(error) == f"port {port} is another engine's on this machine; give this one its own"
    winner, other = (first, second) if outcomes[1] is error else (second, first)
    await winner.stop()
    async with running(other):
        assert await text_of(other)


async def test_one_that_prints_gigabytes_answers_and_its_log_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorrt.serve.llm.engines.engine_process.LOG_BYTES", 1 << 20)
    async with running(odd("floods")) as engine:
        log = engine.keeper.log
        older = log.with_name(log.name + ".1")
        while not older.exists():
            await text_of(engine)
        for _ in range(50):
            await text_of(engine)
            with contextlib.suppress(FileNotFoundError):  # it is just being put aside
                assert log.stat().st_size <= 1 << 20
            assert older.stat().st_size <= 1 << 20


async def test_one_that_ignores_sigterm_is_killed_after_its_time() -> None:
    async with running(odd("stubborn")) as engine:
        pid = engine.keeper.pid
    assert not lives(pid)


@pytest.mark.parametrize("stubborn", [True, False])
async def test_what_it_has_forked_ends_with_it(stubborn: bool) -> None:
    async with running(odd("forks", *["stubborn"] * stubborn)) as engine:
        family = await family_of(engine.keeper.pid)
    assert [pid for pid in family if lives(pid)] == []


async def family_of(pid: int) -> set[int]:
    """The engine, its child and grandchild."""
    while len(found := descendants_of(pid)) < 3:  # noqa: ASYNC110
        await asyncio.sleep(0)
    return found


async def pid_of(engine: Server) -> int:
    while not (pid := engine.keeper.pid):  # noqa: ASYNC110
        await asyncio.sleep(0)
    return pid


async def test_one_that_is_stopped_as_it_starts_leaves_nothing() -> None:
    engine = odd("silent", "forks", start_timeout_s=60)
    start = asyncio.create_task(engine.start())
    pid = await pid_of(engine)
    family = await family_of(pid)
    await engine.stop()
    with pytest.raises(EngineError, match="the engine of odd was stopped as it started"):
        await start
    assert [pid for pid in family if lives(pid)] == []


async def test_a_start_that_is_cancelled_leaves_nothing() -> None:
    engine = odd("silent", start_timeout_s=60)
    start = asyncio.create_task(engine.start())
    pid = await pid_of(engine)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not lives(pid)


async def test_a_request_that_its_death_breaks_off_hears_how_and_the_next_one_waits_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with running(odd("breaks", paths=["/v1/completions"])) as engine:
        answer = engine.generate(CALL)
        await anext(answer)
        assert await anext(answer) == Delta(b'data: {"text":"a"}\n\n', 1)
        with pytest.raises(EngineError, match=r"ended as it answered, killed by signal 9 \(SIGKILL\); .*out of luck"):
            await anext(answer)
        assert int(await text_of(engine)) == engine.keeper.pid
        await engine.check()
        assert (await engine.statistics())["restarts"] == 1


async def test_one_that_cannot_be_started_again_refuses_with_its_last_words() -> None:
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "engine.py"
        program.write_text(PROGRAM.read_text())
        engine = odd(command=[sys.executable, str(program), "{port}"])
        async with running(engine):
            program.unlink()
            os.kill(engine.keeper.pid, signal.SIGKILL)
            # Who comes now waits for the next one, and hears that there is none.
            while "ended as it answered" in (refusal := await refusal_of(engine)):
                pass
            assert re.search(r"ended as it started, exit code 2; its last words: .*engine\.py", refusal)


async def refusal_of(engine: Server) -> str:
    with pytest.raises(EngineError) as caught:
        await text_of(engine)
    return str(caught.value)


async def test_when_its_guardian_is_killed_it_ends_and_is_started_again() -> None:
    async with running(odd()) as engine:
        pid = engine.keeper.pid
        guardian = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(guardian, signal.SIGKILL)
        while (answered := await text_of_the_next(engine)) == pid:
            pass
        assert not lives(pid)
        assert answered == engine.keeper.pid


async def text_of_the_next(engine: Server) -> int:
    with contextlib.suppress(EngineError):
        return int(await text_of(engine))
    return int(await text_of(engine))


async def test_one_that_is_not_up_and_is_not_started_again_is_ill() -> None:
    engine = odd("dies")
    with pytest.raises(EngineError, match="the weights are cursed"):
        await engine.start()
    with pytest.raises(EngineError, match="the weights are cursed"):
        await engine.check()
    async with running(odd()) as engine:
        await engine.check()
    with pytest.raises(EngineError, match="is stopped"):
        await engine.check()
