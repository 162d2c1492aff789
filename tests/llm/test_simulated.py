"""The simulated engine speaks as an engine does: shapes, order, counts, refusals, and the same words again."""

import asyncio
import json
import time
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from actorrt.serve.llm import SimulatedEngine
from actorrt.serve.llm.engines.interface import Delta, EngineCall, EngineError, Head
from actorrt.serve.llm.engines.simulated import Simulated
from actorrt.serve.llm.engines.simulation import Simulation
from actorrt.serve.llm.engines.word_pieces import Author, number, piece, pieces, text_of

CHAT = "/v1/chat/completions"
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]


async def started(**settings: Any) -> Simulated:
    engine = Simulated(SimulatedEngine.model_validate({"speed": 1000.0, "context": 1024} | settings))
    await engine.start()
    return engine


async def ask(engine: Simulated, path: str, body: object) -> tuple[Head, bytes, int]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head, parts, tokens = None, list[bytes](), 0
    async for item in engine.generate(EngineCall(path, data)):
        if isinstance(item, Head):
            assert head is None
            assert not parts
            head = item
        else:
            parts.append(item.data)
            tokens += item.tokens
    assert head is not None
    return head, b"".join(parts), tokens


async def whole(engine: Simulated, path: str = CHAT, **body: Any) -> Any:
    head, data, _ = await ask(engine, path, body)
    assert head.status == 200, data
    return json.loads(data)


async def events(engine: Simulated, path: str = CHAT, **body: Any) -> list[Any]:
    head, data, _ = await ask(engine, path, body | {"stream": True})
    assert head.status == 200, data
    assert head.streams
    *events, last = data.removesuffix(b"\n\n").split(b"\n\n")
    assert last == b"data: [DONE]"
    return [json.loads(event.removeprefix(b"data: ")) for event in events]


async def refused(engine: Simulated, path: str = CHAT, **body: Any) -> Any:
    head, data, tokens = await ask(engine, path, body)
    assert (head.status, tokens) == (400, 0)
    return json.loads(data)["error"]


async def test_a_stream_is_the_role_a_token_an_event_and_the_end() -> None:
    engine = await started()
    role, *tokens, end = await events(engine, messages=HELLO, max_tokens=5, ignore_eos=True, model="m")
    assert role["choices"] == [{"finish_reason": None, "index": 0, "delta": {"role": "assistant", "content": None}}]
    assert len(tokens) == 5
    for event in tokens:
        assert event.keys() == role.keys()
        assert event["choices"][0]["finish_reason"] is None
        assert len(pieces(event["choices"][0]["delta"]["content"])) == 1
    assert end["choices"] == [{"finish_reason": "length", "index": 0, "delta": {}}]
    assert {(event["id"], event["object"], event["model"]) for event in (role, *tokens, end)} == {
        (role["id"], "chat.completion.chunk", "m")
    }


async def test_usage_is_an_event_of_its_own_if_asked_for() -> None:
    engine = await started()
    asked: dict[str, Any] = {"messages": HELLO, "max_tokens": 5, "ignore_eos": True}
    *_, end, usage = await events(engine, **asked, stream_options={"include_usage": True})
    assert end["choices"][0]["finish_reason"] == "length"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 5
    assert usage["usage"] == (await whole(engine, **asked))["usage"] | {
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert not [event for event in await events(engine, **asked) if event.get("usage")]


async def test_the_tokens_of_a_prompt_that_was_read_before_are_told_as_cached() -> None:
    engine = await started()
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": "word " * 100}], "max_tokens": 1}
    assert (await whole(engine, **asked))["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    assert (await whole(engine, **asked))["usage"]["prompt_tokens_details"]["cached_tokens"] >= 96


async def test_streamed_or_not_the_words_are_the_same_and_another_prompt_has_others() -> None:
    engine = await started()
    asked: dict[str, Any] = {"max_tokens": 30, "ignore_eos": True}
    body = await whole(engine, messages=HELLO, **asked)
    streamed = await events(engine, messages=HELLO, **asked)
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in streamed)
    assert body["choices"][0]["message"] == {"role": "assistant", "content": text, "refusal": None}
    assert body["usage"]["completion_tokens"] == 30 == len(pieces(text))
    other = await whole(engine, messages=[{"role": "user", "content": "hello!"}], **asked)
    assert other["choices"][0]["message"]["content"] != text


async def test_choices_differ_and_each_says_its_index() -> None:
    engine = await started()
    body = await whole(engine, messages=HELLO, n=3, max_tokens=6, ignore_eos=True)
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in body["choices"]}) == 3
    assert body["usage"]["completion_tokens"] == 18
    streamed = await events(engine, messages=HELLO, n=3, max_tokens=6, ignore_eos=True)
    for index, choice in enumerate(body["choices"]):
        mine = [e["choices"][0] for e in streamed if e["choices"][0]["index"] == index]
        assert mine[0]["delta"] == {"role": "assistant", "content": None}
        assert "".join(e["delta"].get("content") or "" for e in mine) == choice["message"]["content"]
        assert [e["finish_reason"] for e in mine] == [*[None] * 7, "length"]


@pytest.mark.parametrize("cut", [1, 2, 7, 29])
async def test_an_answer_that_was_broken_off_goes_on_with_the_same_words(cut: int) -> None:
    engine = await started()
    asked: dict[str, Any] = {"ignore_eos": True}
    streamed = await events(engine, messages=HELLO, max_tokens=30, **asked)
    words = [event["choices"][0]["delta"]["content"] for event in streamed[1:-1]]
    begun = "".join(words[:cut])
    messages = [*HELLO, {"role": "assistant", "content": begun}]
    rest = await whole(engine, messages=messages, max_tokens=30 - cut, **asked)
    # As llama.cpp's server does it: the body has all of the text, the usage what is new.
    assert rest["choices"][0]["message"]["content"] == "".join(words)
    assert rest["usage"]["completion_tokens"] == 30 - cut
    _, *more, _ = await events(engine, messages=messages, max_tokens=30 - cut, **asked)
    assert [event["choices"][0]["delta"]["content"] for event in more] == words[cut:]


async def test_a_completion_goes_on_with_the_same_words_and_ends_where_it_would_have() -> None:
    engine = await started(answer_tokens=20)
    for number_ in range(20):
        prompt = f"story {number_}:"
        body = await whole(engine, "/v1/completions", prompt=prompt)
        text, reason = body["choices"][0]["text"], body["choices"][0]["finish_reason"]
        assert reason == "stop"
        words = pieces(text)
        assert len(words) == body["usage"]["completion_tokens"]
        for cut in {1, len(words) // 2 or 1, len(words)}:
            rest = await whole(engine, "/v1/completions", prompt=prompt + "".join(words[:cut]))
            assert rest["choices"][0]["text"] == "".join(words[cut:])
            assert rest["choices"][0]["finish_reason"] == "stop"
            assert rest["usage"]["completion_tokens"] == len(words) - cut


async def test_prompts_in_lists_and_in_tokens_and_echoed() -> None:
    engine = await started()
    one = await whole(engine, "/v1/completions", prompt="good morning", max_tokens=4, ignore_eos=True)
    tokens = await engine.tokenize("good morning")
    both = await whole(
        engine, "/v1/completions", prompt=[tokens, await engine.tokenize("x")], max_tokens=4, ignore_eos=True, echo=True
    )
    assert [choice["index"] for choice in both["choices"]] == [0, 1]
    assert both["choices"][0]["text"] == "good morning" + one["choices"][0]["text"]
    assert both["usage"]["prompt_tokens"] == len(tokens) + 1
    streamed = await events(engine, "/v1/completions", prompt="x", max_tokens=4, ignore_eos=True, echo=True)
    assert "".join(event["choices"][0]["text"] for event in streamed) == both["choices"][1]["text"]


async def test_a_stop_string_ends_the_answer_and_no_part_of_it_shows() -> None:
    engine = await started()
    body = await whole(engine, messages=HELLO, max_tokens=30, ignore_eos=True)
    text = body["choices"][0]["message"]["content"]
    words = pieces(text)
    # From the midst of one token into the next one.
    stop = words[10][-2:] + words[11][:2]
    expected = text[: text.index(stop)]
    stopped = await whole(engine, messages=HELLO, max_tokens=30, ignore_eos=True, stop=["nowhere", stop])
    message = {"role": "assistant", "content": expected, "refusal": None}
    assert stopped["choices"][0] == {"finish_reason": "stop", "index": 0, "message": message, "logprobs": None}
    streamed = await events(engine, messages=HELLO, max_tokens=30, ignore_eos=True, stop=stop)
    assert "".join(event["choices"][0]["delta"].get("content") or "" for event in streamed) == expected
    assert all(event["choices"][0]["delta"].get("content") != "" for event in streamed)
    assert streamed[-1]["choices"][0]["finish_reason"] == "stop"


async def test_a_prompt_over_the_context_is_refused_with_its_numbers_streamed_or_not() -> None:
    engine = await started()
    for stream in (False, True):
        error = await refused(engine, messages=[{"role": "user", "content": "a " * 3000}], stream=stream)
        assert error["type"] == "exceed_context_size_error"
        assert error["n_ctx"] == 1024
        assert error["n_prompt_tokens"] > 3000
    full = await whole(engine, "/v1/completions", prompt="a" + " a" * 1019, ignore_eos=True)
    assert full["usage"] == {
        "completion_tokens": 4, "prompt_tokens": 1020, "total_tokens": 1024,
        "prompt_tokens_details": {"cached_tokens": 0},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "x"}, "messages"),
        ({"messages": ["x"]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"messages": HELLO, "max_tokens": -5}, "max_tokens"),
        ({"messages": HELLO, "max_completion_tokens": -1}, "max_completion_tokens"),
        ({"messages": HELLO, "max_tokens": "x"}, "max_tokens"),
        ({"messages": HELLO, "max_completion_tokens": True}, "max_completion_tokens"),
        ({"messages": HELLO, "n": 0}, "n"),
        ({"messages": HELLO, "n": 129}, "n"),
        ({"messages": HELLO, "stop": 5}, "stop"),
        ({"messages": HELLO, "stop": {}}, "stop"),
        ({"messages": HELLO, "stop": ["a", 5]}, "stop[1]"),
        ({"messages": HELLO, "stop": ["a", ""]}, "stop[1]"),
        ({"messages": HELLO, "stop": ""}, "stop"),
        ({"messages": HELLO, "stop": ["a"] * 33}, "stop"),
        ({"messages": HELLO, "stop": ["a", "b" * 1001]}, "stop[1]"),
        ({"messages": HELLO, "stream": "yes"}, "stream"),
        ({"messages": HELLO, "temperature": "a"}, "temperature"),
        ({"messages": HELLO, "tools": [{}]}, "tools"),
        ({"messages": HELLO, "response_format": {"type": "json_object"}}, "response_format"),
    ],
)
async def test_a_mistake_is_refused_by_the_name_of_its_field_and_the_next_request_is_served(
    body: dict[str, Any], param: str
) -> None:
    engine = await started()
    error = await refused(engine, **body)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert param.partition(".")[0] in error["message"]
    assert (await whole(engine, messages=HELLO, max_tokens=1))["usage"]["completion_tokens"] == 1


@pytest.mark.parametrize("limit", [{"max_tokens": 0}, {"max_completion_tokens": 0, "max_tokens": 9}])
async def test_of_an_answer_of_no_tokens_the_prompt_is_read(limit: dict[str, Any]) -> None:
    body = await whole(await started(), messages=HELLO, stop=["a"], **limit)
    (choice,) = body["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")
    assert (body["usage"]["completion_tokens"], body["usage"]["prompt_tokens"] > 0) == (0, True)
    seen = await events(await started(), messages=HELLO, **limit)
    assert [each["choices"][0]["finish_reason"] for each in seen] == [None, "length"]


async def test_the_first_token_of_an_answer_that_is_not_streamed_is_told_before_the_rest_is_there() -> None:
    engine = await started(slots=1)
    answer = engine.generate(
        EngineCall(CHAT, json.dumps({"messages": HELLO, "max_tokens": 200, "ignore_eos": True}).encode())
    )
    head, *deltas = [item async for item in answer]
    assert isinstance(head, Head)
    assert head.status == 200
    assert [bool(data) for data, _ in deltas] == [False] * 4 + [True]
    assert [tokens for _, tokens in deltas] == [1, 64, 64, 64, 7]


async def test_as_many_choices_and_stop_strings_as_may_be_are_taken() -> None:
    engine = await started(kv_tokens=100_000, slots=128)
    stop = [*["#" * 999 + str(each % 10) for each in range(31)], "nowhere"]
    body = await whole(engine, messages=HELLO, max_tokens=1, n=128, stop=stop)
    assert len(body["choices"]) == 128


@pytest.mark.parametrize(("prompts", "n", "answered"), [(8, 128, True), (9, 128, False), (1024, 1, True)])
async def test_the_answers_to_all_prompts_of_a_request_have_a_bound(prompts: int, n: int, answered: bool) -> None:
    engine = await started(kv_tokens=1_000_000, slots=1024)
    asked: dict[str, Any] = {"prompt": ["a"] * prompts, "n": n, "max_tokens": 1}
    if answered:
        assert len((await whole(engine, "/v1/completions", **asked))["choices"]) == prompts * n
    else:
        error = await refused(engine, "/v1/completions", **asked)
        assert error["param"] == "prompt"
        assert error["message"] == "'prompt' must ask for at most 1024 answers, but is 9 prompts with 128 choices each"


@pytest.mark.parametrize("body", [b"{broken", b"[1]", b'"text"', b"\xff", b"[" * 100_000])
async def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    engine = await started()
    head, data, _ = await ask(engine, CHAT, body)
    assert head.status == 400
    assert "JSON" in json.loads(data)["error"]["message"]


async def test_an_unknown_path_is_not_found_and_the_model_is_listed() -> None:
    engine = await started()
    head, data, _ = await ask(engine, "/v1/embeddings", {})
    assert (head.status, json.loads(data)["error"]["type"]) == (404, "not_found_error")
    assert [model["object"] for model in (await whole(engine, "/v1/models"))["data"]] == ["model"]


async def test_who_leaves_frees_the_slot_and_the_cache() -> None:
    engine = await started(slots=1, speed=1.0)
    call = EngineCall(CHAT, json.dumps({"messages": HELLO, "stream": True, "ignore_eos": True}).encode())
    first, second = engine.generate(call), engine.generate(call)
    assert isinstance(await anext(first), Head)
    assert isinstance(await anext(first), Delta)
    assert isinstance(await anext(second), Head)
    assert (await engine.statistics())["waiting"] == 1
    await first.aclose()
    assert isinstance(await anext(second), Delta)
    third = asyncio.ensure_future(whole(engine, messages=HELLO))
    await asyncio.sleep(0)
    assert (await engine.statistics())["waiting"] == 1
    third.cancel()
    with pytest.raises(asyncio.CancelledError):
        await third
    await second.aclose()
    numbers = await engine.statistics()
    assert (numbers["running"], numbers["waiting"], numbers["kv_tokens_used"]) == (0, 0, 0)


async def test_a_stopped_engine_fails_those_who_wait_and_those_who_come() -> None:
    engine = await started(speed=0.001)
    waiting = asyncio.ensure_future(whole(engine, messages=HELLO))
    await asyncio.sleep(0)
    assert (await engine.statistics())["waiting"] == 1
    await engine.stop()
    with pytest.raises(EngineError, match="stopped"):
        await waiting
    with pytest.raises(EngineError, match="stopped"):
        await engine.check()
    with pytest.raises(EngineError, match="stopped"):
        await whole(engine, messages=HELLO)


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_each_token_says_when_it_was_made_if_that_is_asked_for(path: str) -> None:
    engine = await started()
    asked: dict[str, Any] = {"messages": HELLO} if path == CHAT else {"prompt": "hello"}
    begun = time.monotonic_ns()
    streamed = await events(engine, path, **asked, max_tokens=5, ignore_eos=True, timings_per_token=True)
    times = [event["timings"]["emitted_ns"] for event in streamed if "timings" in event]
    assert len(times) == 5
    assert begun <= times[0]
    assert times == sorted(times)
    assert times[-1] <= time.monotonic_ns()


async def test_all_streams_of_a_step_get_their_token_in_one_turn_of_the_loop() -> None:
    engine = await started(slots=8)
    turns: list[list[int]] = [[] for _ in range(8)]
    turn = 0

    def count() -> None:
        nonlocal turn
        turn += 1
        if not all(len(mine) == 20 for mine in turns):
            asyncio.get_running_loop().call_soon(count)

    async def read(mine: list[int]) -> None:
        call = EngineCall(
            CHAT, json.dumps({"messages": HELLO, "stream": True, "max_tokens": 20, "ignore_eos": True}).encode()
        )
        async for item in engine.generate(call):
            if isinstance(item, Delta):
                assert item.tokens == 1
                mine.append(turn)

    count()
    await asyncio.gather(*(read(mine) for mine in turns))
    assert all(mine == turns[0] for mine in turns)


def test_a_step_that_takes_no_time_is_over_in_the_next_turn_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = 0
    begin_step = Simulation.begin_step

    def count(self: Simulation, now: float) -> None:
        nonlocal begun
        begun += 1
        begin_step(self, now)

    monkeypatch.setattr(Simulation, "begin_step", count)

    async def ask_often() -> None:
        engine = await started(speed=1.0, prefill_tokens_per_s=1e9, decode_step_s=0.0)
        for _ in range(20):
            await whole(engine, messages=HELLO, max_tokens=5)

    # Whose clock is the one of replicas.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask_often())
    # A turn for each token, and one after the last.
    assert begun <= 20 * 8


async def test_text_becomes_tokens_and_text_again() -> None:
    engine = await started()
    text = "Grüße, 世界! 🎉\n\tindented"
    tokens = await engine.tokenize(text)
    assert await engine.detokenize(tokens) == text
    assert json.loads((await ask(engine, "/tokenize", {"content": text}))[1]) == {"tokens": tokens}
    assert json.loads((await ask(engine, "/detokenize", {"tokens": tokens}))[1]) == {"content": text}
    head, data, _ = await ask(engine, "/detokenize", {"tokens": [3]})
    assert head.status == 400
    assert "3 is no token" in json.loads(data)["error"]["message"]


async def test_a_chats_prompt_is_told_and_has_the_tokens_that_are_counted() -> None:
    engine = await started()
    prompt = json.loads((await ask(engine, "/apply-template", {"messages": HELLO}))[1])["prompt"]
    usage = (await whole(engine, messages=HELLO, max_tokens=1))["usage"]
    assert len(await engine.tokenize(prompt)) == usage["prompt_tokens"]
    head, _, _ = await ask(engine, "/apply-template", {"messages": []})
    assert head.status == 400


@given(text=st.text())
def test_any_text_has_tokens_that_are_it(text: str) -> None:
    numbers = [number(part) for part in pieces(text)]
    assert text_of(numbers) == text
    assert all(0 < one < 2**53 for one in numbers)


@given(one=st.integers(-10, 2**60))
def test_a_number_is_a_token_or_refused(one: int) -> None:
    try:
        text = piece(one)
    except ValueError:
        return
    assert number(text) == one


@given(text=st.text(), cut=st.integers(0, 40), seed=st.integers(-(2**70), 2**70))
def test_an_author_goes_on_where_another_left_off(text: str, cut: int, seed: int) -> None:
    first = Author(text, seed=seed, mean_tokens=10)
    begun = text + b"".join(first.word() for _ in range(cut)).decode()
    second = Author(begun, seed=seed, mean_tokens=10)
    assert first.wants_to_end() == second.wants_to_end()
    assert [first.word() for _ in range(10)] == [second.word() for _ in range(10)]
