"""What engines are asked so that one reads a prompt and the other answers it."""

import asyncio
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from actorrt.serve.llm import LlamaCppEngine, LLMConfig, LoraAdapter, PrefillConfig
from actorrt.serve.llm.engines import handover
from actorrt.serve.llm.engines.handover import KvTransfer, SlotFiles, is_handed_over, with_cached
from actorrt.serve.llm.engines.interface import Delta, EngineCall, EngineError, Head
from actorrt.serve.llm.prefill import revision_of

ASKED = {
    "messages": [{"role": "user", "content": "hi"}], "stream": True, "stream_options": {"include_usage": True},
    "max_completion_tokens": 9, "min_tokens": 5, "n": 1, "seed": 2**40,
    "kv_transfer_params": "a client's", "id_slot": 7,
}  # fmt: skip


class Engine:
    """It notes what it is asked, answers with `fields`, and keeps slots as empty files."""

    saves: int | EngineError = 1000  # bytes

    def __init__(self, folder: Path | None = None, status: int = 200, **fields: Any) -> None:
        self.folder, self.status, self.fields = folder, status, fields
        self.asked: list[tuple[dict[str, Any], bool]] = []
        self.slots: list[tuple[str, int]] = []
        self.go = asyncio.Event()
        self.go.set()

    async def generate(self, call: EngineCall) -> AsyncGenerator[Head | Delta, None]:
        self.asked.append((json.loads(call.body), call.stream))
        await self.go.wait()
        yield Head(self.status, ())
        yield Delta(json.dumps(self.fields).encode())

    async def save_slot(self, slot: int, file: str) -> int:
        assert self.folder is not None
        (self.folder / file).touch()
        self.slots.append(("save", slot))
        if isinstance(self.saves, EngineError):
            raise self.saves
        return self.saves

    async def restore_slot(self, slot: int, file: str) -> None:
        assert self.folder is not None
        if not (self.folder / file).exists():
            raise EngineError("llama.cpp has no such file")
        self.slots.append(("restore", slot))


def call(**fields: Any) -> EngineCall:
    return EngineCall("/v1/chat/completions", json.dumps({**ASKED, **fields}).encode(), stream=True)


async def answered(connector: Any, asked: EngineCall, data: bytes | None) -> list[Head | Delta]:
    return [item async for item in connector.answer(asked, data)]


async def test_a_server_is_asked_for_one_token_and_the_other_told_where_it_lies() -> None:
    lies = {"do_remote_prefill": True, "remote_block_ids": [1, 2], "remote_engine_id": "e", "remote_port": 5600}
    reads, answers = Engine(kv_transfer_params=lies), Engine()
    found = await KvTransfer(reads).read(call())  # type: ignore[arg-type]
    ((body, stream),) = reads.asked
    assert (stream, body["stream"], body["max_tokens"], body["seed"]) == (False, False, 1, 2**40)
    assert not {"stream_options", "max_completion_tokens", "min_tokens"} & set(body)
    assert (body["kv_transfer_params"]["do_remote_decode"], body["messages"]) == (True, ASKED["messages"])
    await answered(KvTransfer(answers), call(), found.data)  # type: ignore[arg-type]
    ((body, stream),) = answers.asked
    assert (body, stream) == ({**ASKED, "kv_transfer_params": lies}, True)


async def test_no_client_says_what_was_handed_over() -> None:
    engine = Engine()
    await answered(KvTransfer(engine), call(), None)  # type: ignore[arg-type]
    assert "kv_transfer_params" in ASKED
    assert engine.asked == [({name: value for name, value in ASKED.items() if name != "kv_transfer_params"}, True)]


@pytest.mark.parametrize(
    ("path", "fields", "is_one"),
    [
        ("/v1/chat/completions", {}, True),
        ("/v1/completions", {"prompt": [1, 2, 3]}, True),
        ("/v1/completions", {"prompt": ["one", "two"]}, False),
        ("/v1/chat/completions", {"n": 2}, False),
        ("/v1/chat/completions", {"prompt_logprobs": 0}, False),
        ("/v1/completions", {"prompt": "one", "echo": True}, False),
        ("/v1/completions", {"prompt": "one", "echo": False}, True),
        ("/tokenize", {}, False),
    ],
)
def test_one_prompt_is_handed_over_for_one_answer(path: str, fields: dict[str, Any], is_one: bool) -> None:
    assert is_handed_over(call(**fields)._replace(path=path)) is is_one


async def test_several_answers_have_the_slots_that_llamacpp_gives_them(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    await answered(SlotFiles(engine, 1, tmp_path), call(n=2), None)  # type: ignore[arg-type]
    assert engine.asked == [({**ASKED, "n": 2}, True)]


async def test_what_a_server_refuses_to_read_is_handed_on_and_one_without_a_connector_is_named() -> None:
    found = await KvTransfer(Engine(status=400, error="too long")).read(call())  # type: ignore[arg-type]
    assert (found.status, found.data) == (400, b'{"error": "too long"}')
    with pytest.raises(EngineError, match="says no kv_transfer_params"):
        await KvTransfer(Engine()).read(call())  # type: ignore[arg-type]


async def test_slots_are_saved_where_a_prompt_began_alike_and_files_go_as_they_are_fetched(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    reads, answers = SlotFiles(engine, 3, tmp_path), SlotFiles(engine, 1, tmp_path)  # type: ignore[arg-type]
    # Two at once have a slot each.
    engine.go.clear()
    one, other = (asyncio.ensure_future(reads.read(call(system="x" * 500 + name))) for name in "ab")
    while len(engine.asked) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    engine.go.set()
    (first, second), slots = await asyncio.gather(one, other), [body["id_slot"] for body, _ in engine.asked]
    assert len(set(slots)) == 2
    await reads.read(call(system="x" * 500 + "b"))
    assert engine.asked[-1][0]["id_slot"] == slots[1]
    assert len(list(tmp_path.iterdir())) == 3
    await answered(answers, call(), first.data)
    assert (engine.slots[-1], engine.asked[-1][0]["id_slot"]) == (("restore", 0), 0)
    assert len(list(tmp_path.iterdir())) == 2
    await answered(answers, call(), None)
    assert engine.asked[-1][0] == {**ASKED, "id_slot": 0, "cache_prompt": True}
    # What nobody has fetched goes with who wrote it.
    assert second.data.decode() in {file.name for file in tmp_path.iterdir()}
    reads.close()
    assert list(tmp_path.iterdir()) == []


def test_what_was_read_with_other_adapters_is_no_use() -> None:
    def revision(*adapters: LoraAdapter) -> str:
        deployment = {"request_router": "capacity_queue"}
        engine = LlamaCppEngine(model="/m.gguf")
        return revision_of(
            LLMConfig(
                model_id="m", engine=engine, deployment=deployment, adapters=list(adapters), prefill=PrefillConfig()
            )
        )

    one, other = (LoraAdapter(name="a", path=path) for path in ("/1", "/2"))
    assert len({revision(), revision(one), revision(other), revision(one)}) == 3


@pytest.mark.parametrize("saves", [0, EngineError("it answers 500 to save")])
async def test_a_slot_that_was_not_written_is_no_error_leaves_no_part_of_a_file_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, saves: int | EngineError
) -> None:
    engine = Engine(tmp_path)
    # As llama.cpp says of a full disk: in one version, and in another.
    engine.saves = saves
    reads = SlotFiles(engine, 1, tmp_path)  # type: ignore[arg-type]
    for _ in range(3):
        found = await reads.read(call())
        assert (found.status, found.data) == (200, b"")
        assert list(tmp_path.iterdir()) == []
    (said,) = caplog.messages
    assert f"could not be saved in {tmp_path}" in said


async def test_a_slot_that_cannot_be_restored_is_read_where_it_is_answered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    usage = {"prompt_tokens_details": {"cached_tokens": 3}}
    engine = Engine(tmp_path, usage=usage)
    answers = SlotFiles(engine, 1, tmp_path)  # type: ignore[arg-type]
    for _ in range(3):
        _, said = [item async for item in answers.answer(call(), b"gone.slot", 7)]
        # What was cached where it was read is no word on what is here.
        assert isinstance(said, Delta)
        assert json.loads(said.data) == {"usage": usage}
        assert engine.asked.pop()[0] == {**ASKED, "id_slot": 0, "cache_prompt": True}
    (warning,) = caplog.messages
    assert f"could not be restored from {tmp_path}" in warning


async def test_a_folder_that_is_not_there_is_named_as_the_replica_starts(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="is no folder that this process may write in"):
        SlotFiles(Engine(), 1, tmp_path / "none")  # type: ignore[arg-type]


async def test_files_of_processes_that_have_died_go_as_they_are_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "_KEPT_S", 0.0)
    (tmp_path / "actorrt-of-one-that-died.slot").touch()
    (tmp_path / "of-somebody-else.slot").touch()
    connector = SlotFiles(Engine(), 1, tmp_path)  # type: ignore[arg-type]
    while len(list(tmp_path.iterdir())) == 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    connector.close()
    assert [file.name for file in tmp_path.iterdir()] == ["of-somebody-else.slot"]


async def test_usage_says_what_was_cached_where_the_prompt_was_read() -> None:
    usage = {"prompt_tokens": 50, "prompt_tokens_details": {"cached_tokens": 30}}
    found = await KvTransfer(Engine(kv_transfer_params={"a": 1}, usage=usage)).read(call())  # type: ignore[arg-type]
    said = rb'data: {"text": "\"cached_tokens\": 49", "prompt_tokens_details": {"cached_tokens": 49}}'
    corrected = Delta(said.replace(b'": 49}', b'": 30}'))
    assert (found.cached, with_cached(Delta(said), found.cached), with_cached(Delta(said), None)) == (
        30, corrected, Delta(said),
    )  # fmt: skip
