"""An engine that hangs with requests in it is told from one that is busy, killed, and started again."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from actorrt.serve.llm.engines.interface import Delta, EngineCall, EngineDiedError
from actorrt.serve.llm.engines.silence import Look, Silence

from .test_engine_process import lives, odd, running, text_of

CALL = EngineCall("/v1/completions", b"{}", stream=True)
# As often as it is looked at within its limit, and again, and some more.
LOOKS = 20


def looks(silence: Silence, *each: Look) -> list[bool]:
    """After each, a second later than the one before, whether the engine hangs."""
    return [silence.is_hung(look, 1) for look in each]


def test_what_answers_nothing_hangs_after_its_time() -> None:
    assert looks(Silence(6), *[Look(waits=True)] * 8) == [False] * 6 + [True] * 2


@pytest.mark.parametrize(
    "sign",
    [
        Look(waits=True, heard=True),
        Look(waits=True, answers=True),
        Look(waits=True, answers=False, progress="moved"),
    ],
)
def test_each_sign_of_life_begins_its_time_anew(sign: Look) -> None:
    still = sign._replace(heard=False, answers=False, progress=sign.progress and "")
    known = sign._replace(progress=sign.progress and "before")
    assert looks(Silence(3), known, *[still] * 2, sign, *[still] * 3) == [False] * 6 + [True]


def test_one_whose_numbers_stand_still_hangs_although_its_endpoint_answers() -> None:
    assert looks(Silence(3), *[Look(waits=True, answers=True, progress="same")] * 4) == [False] * 3 + [True]


def test_one_that_does_not_tell_its_numbers_any_more_hangs_although_its_endpoint_answers() -> None:
    told = Look(waits=True, answers=True, progress="1")
    assert looks(Silence(3), told, *[told._replace(progress="")] * 3) == [False] * 3 + [True]


def test_one_in_which_nobody_waits_does_not_hang() -> None:
    assert looks(Silence(2), *[Look(waits=False)] * 9) == [False] * 9


def test_the_time_of_those_who_left_counts_for_those_who_come_unless_there_was_a_sign() -> None:
    silence = Silence(3)
    waits, idle = Look(waits=True), Look(waits=False)
    assert looks(silence, *[waits] * 3, *[idle] * 9, *[waits] * 2) == [False] * 13 + [True]
    assert silence.must_ask(waits=False, heard=False)
    assert looks(silence, Look(waits=False, answers=True), *[waits] * 3) == [False] * 4
    assert not Silence(3).must_ask(waits=False, heard=False)


def test_time_in_which_this_process_stood_still_itself_is_not_taken_for_its_engines() -> None:
    silence = Silence(60)
    silence.is_hung(Look(waits=True), 10)
    assert not silence.is_hung(Look(waits=True), 3600)


@pytest.mark.parametrize("ways", [["hangs"], ["stuck", "counts"]])
async def test_one_that_hangs_is_killed_and_its_request_hears_why_and_the_next_is_answered(
    ways: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = ["/v1/completions", "/metrics"]
    async with running(odd(*ways, stall_timeout_s=0.6, paths=paths)) as engine:
        hung = engine.keeper.pid
        with pytest.raises(EngineDiedError, match=r"killed as it hung: nothing was heard of it for .* \(stall_timeout"):
            async for _ in engine.generate(CALL):
                pass
        assert not lives(hung)
        assert int(await text_of(engine)) == engine.keeper.pid != hung
        assert "the engine of odd has ended, killed as it hung" in caplog.text


@pytest.mark.parametrize(("ways", "note"), [(["thinks", "counts"], "asked"), (["thinks"], "looks")])
async def test_one_that_is_busy_for_longer_is_let_be(
    ways: list[str], note: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = ["/v1/completions", *["/metrics"] * ("counts" in ways)]
    async with running(odd(*ways, stall_timeout_s=2, paths=paths)) as engine:
        answer = engine.generate(CALL)
        await anext(answer)
        looked = size_of(tmp_path / note)
        begun = looked()
        waiting = asyncio.ensure_future(anext(answer))
        while looked() < begun + LOOKS:  # noqa: ASYNC110
            await asyncio.sleep(0)
        (tmp_path / "thought").touch()
        assert isinstance(await waiting, Delta)
        await answer.aclose()
        assert (await engine.statistics())["restarts"] == 0


def size_of(file: Path) -> Callable[[], int]:
    return lambda: file.stat().st_size if file.exists() else 0
