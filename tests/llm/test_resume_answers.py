"""Answers that are put together from several runs: cut anywhere, they say what an undisturbed one says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.serve.llm.engines.interface import Delta, EngineCall
from actorrt.serve.llm.resume.answer import CannotGoOnError, Runs
from actorrt.serve.llm.resume.choices import ChoicesAnswer
from actorrt.serve.llm.resume.events import event, events
from actorrt.serve.llm.resume.messages import MessagesAnswer
from actorrt.serve.llm.resume.responses import ResponsesAnswer

WORDS = ["one", " two", " three", ", fo", "ur", " €", "\n\n", ' "six"', " seven", "."]
TEXT = "".join(WORDS)
PROMPT_TOKENS = 7


def tokens_of(text: str) -> list[str]:
    """The words that a text begins to be made of, however it was cut at their ends."""
    found: list[str] = []
    for word in WORDS:
        if not text:
            break
        assert text.startswith(word), text
        found.append(word)
        text = text[len(word) :]
    assert not text
    return found


# What an engine does that continues a last message of the assistant: each gives the events of the rest.


def rest_after(begun: str, limit: int | None) -> tuple[list[str], bool]:
    rest = WORDS[len(tokens_of(begun)) :]
    return (rest, False) if limit is None or limit >= len(rest) else (rest[:limit], True)


def chat(call: EngineCall, run: int) -> Iterator[Delta]:
    body = json.loads(call.body)
    last = body["messages"][-1]
    begun = last["content"] if last["role"] == "assistant" else ""
    given = json.loads(REQUESTS["chat"].body)["messages"][-1]
    words, cut = rest_after(begun, body.get("max_tokens"))
    same = {"id": f"chatcmpl-{run}", "object": "chat.completion.chunk", "created": run, "model": "m"}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        return event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **same, "extra": run})

    assert given["role"] == "user"
    yield Delta(chunk({"role": "assistant", "content": None}))
    for word in words:
        yield Delta(chunk({"content": word}), 1)
    yield Delta(chunk({}, "length" if cut else "stop"))
    if (body.get("stream_options") or {}).get("include_usage"):
        prompt = PROMPT_TOKENS + len(tokens_of(begun))
        usage = {"prompt_tokens": prompt, "completion_tokens": len(words), "total_tokens": prompt + len(words)}
        yield Delta(event({"choices": [], **same, "usage": usage}))
    yield Delta(b"data: [DONE]\n\n")


def completions(call: EngineCall, run: int) -> Iterator[Delta]:
    body = json.loads(call.body)
    begun = body["prompt"].removeprefix("Count: ")
    words, cut = rest_after(begun, body.get("max_tokens"))
    same = {"id": f"cmpl-{run}", "object": "text_completion", "created": run, "model": "m"}
    for word in words:
        choice = {"index": 0, "text": word, "logprobs": None, "finish_reason": None}
        yield Delta(event({"choices": [choice], **same}), 1)
    end = {"index": 0, "text": "", "logprobs": None, "finish_reason": "length" if cut else "stop"}
    prompt = PROMPT_TOKENS + len(tokens_of(begun))
    usage = {"prompt_tokens": prompt, "completion_tokens": len(words), "total_tokens": prompt + len(words)}
    yield Delta(event({"choices": [end], **same, "usage": usage}))
    yield Delta(b"data: [DONE]\n\n")


def messages(call: EngineCall, run: int) -> Iterator[Delta]:
    body = json.loads(call.body)
    last = body["messages"][-1]
    words, cut = rest_after(last["content"] if last["role"] == "assistant" else "", body["max_tokens"])

    def said(kind: str, tokens: int = 0, **facts: Any) -> Delta:
        return Delta(event({"type": kind, **facts}, kind), tokens)

    start = {"id": f"msg_{run}", "type": "message", "role": "assistant", "content": [], "usage": {"input_tokens": 7}}
    yield said("message_start", message=start)
    yield said("content_block_start", index=0, content_block={"type": "text", "text": ""})
    for word in words:
        yield said("content_block_delta", 1, index=0, delta={"type": "text_delta", "text": word})
    yield said("content_block_stop", index=0)
    reason = {"stop_reason": "max_tokens" if cut else "end_turn", "stop_sequence": None}
    yield said("message_delta", delta=reason, usage={"output_tokens": len(words)})
    yield said("message_stop")


def responses(call: EngineCall, run: int) -> Iterator[Delta]:
    body = json.loads(call.body)
    last = body["input"][-1] if isinstance(body["input"], list) else {}
    begun = last["content"][0]["text"] if last.get("role") == "assistant" else ""
    words, _ = rest_after(begun, None)
    number = 0
    about = {"id": f"resp_{run}", "object": "response", "created_at": run}
    item = {"id": f"item_{run}", "type": "message", "role": "assistant"}
    # As llama.cpp does: the whole text includes what the request ended with.
    part = {"type": "output_text", "text": begun + "".join(words), "annotations": []}

    def said(kind: str, tokens: int = 0, **facts: Any) -> Delta:
        nonlocal number
        number += 1
        return Delta(event({"type": kind, "sequence_number": number - 1, **facts}, kind), tokens)

    yield said("response.created", response={**about, "status": "in_progress"})
    yield said("response.in_progress", response={**about, "status": "in_progress"})
    yield said("response.output_item.added", item={**item, "content": []})
    yield said("response.content_part.added", item_id=item["id"], part={**part, "text": ""})
    for word in words:
        yield said("response.output_text.delta", 1, item_id=item["id"], delta=word)
    yield said("response.output_text.done", item_id=item["id"], text=part["text"])
    yield said("response.content_part.done", item_id=item["id"], part=part)
    yield said("response.output_item.done", item={**item, "content": [part]})
    prompt = PROMPT_TOKENS + len(tokens_of(begun))
    usage = {"input_tokens": prompt, "output_tokens": len(words), "total_tokens": prompt + len(words)}
    whole = {**about, "status": "completed", "output": [{**item, "content": [part]}], "usage": usage}
    yield said("response.completed", response=whole)


def request(path: str, **body: Any) -> EngineCall:
    return EngineCall(f"/v1/{path}", json.dumps({"model": "m", "stream": True, **body}).encode(), True)


QUESTION = [{"role": "user", "content": "count"}]
REQUESTS = {
    "chat": request("chat/completions", messages=QUESTION, stream_options={"include_usage": True}),
    "chat, no usage": request("chat/completions", messages=QUESTION),
    "chat, limited": request(
        "chat/completions", messages=QUESTION, max_tokens=6, stream_options={"include_usage": True}
    ),
    "completions": request("completions", prompt="Count: "),
    "completions, limited": request("completions", prompt=["Count: "][0], max_tokens=6),
    "messages": request("messages", messages=QUESTION, max_tokens=100),
    "messages, limited": request("messages", messages=QUESTION, max_tokens=6),
    "responses": request("responses", input="count"),
}
ENGINES: dict[str, tuple[Callable[[EngineCall], Runs], Callable[[EngineCall, int], Iterator[Delta]]]] = {
    "chat": (ChoicesAnswer, chat),
    "completions": (ChoicesAnswer, completions),
    "messages": (MessagesAnswer, messages),
    "responses": (ResponsesAnswer, responses),
}


def answered(name: str, cuts: list[int]) -> tuple[list[bytes], int]:
    """What the client gets where each run breaks after so many of its events; and how many runs it took."""
    make, engine = ENGINES[name.partition(",")[0]]
    call: EngineCall | bytes = REQUESTS[name]
    answer = make(REQUESTS[name])
    got: list[bytes] = []
    run = 0
    while True:
        assert isinstance(call, EngineCall)
        left = cuts[run] if run < len(cuts) else 10_000
        for delta in engine(call, run):
            if not left:
                break
            left -= 1
            got.append(answer.take(delta))
        answer.read_kept()
        if answer.done:
            return got, run
        run += 1
        call = answer.again()
        if isinstance(call, bytes):
            got.append(call)
            assert answer.done
            return got, run


def without_runs(data: bytes) -> list[Any]:
    """The events, without what differs from run to run."""
    found: list[Any] = []
    for each in events(data):
        value = each.value()
        if value is not None:
            value.pop("extra", None)
        found.append(each.data if value is None else value)
    return found


@pytest.mark.parametrize("name", REQUESTS)
@given(cuts=st.lists(st.integers(0, 16), max_size=4))
def test_an_answer_cut_anywhere_is_the_undisturbed_one(name: str, cuts: list[int]) -> None:
    undisturbed, runs = answered(name, [])
    assert runs == 0
    got, _ = answered(name, cuts)
    whole = b"".join(got)
    for prefix in (rb"chatcmpl-", rb'"cmpl-', rb"msg_", rb"resp_", rb"item_"):
        assert len(set(re.findall(prefix + rb"\d+", whole))) <= 1, "the client sees one answer"
    expected = json.loads(json.dumps(without_runs(b"".join(undisturbed)), default=bytes.decode))
    seen = json.loads(json.dumps(without_runs(whole), default=bytes.decode))
    assert anonymous(seen) == anonymous(expected)


def anonymous(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: "*" if key in ("id", "item_id", "created", "created_at") else anonymous(each)
            for key, each in value.items()
        }
    return [anonymous(each) for each in value] if isinstance(value, list) else value


def test_what_a_replay_says_differently_is_an_error() -> None:
    call = request("chat/completions", messages=QUESTION, n=2)
    answer = ChoicesAnswer(call)

    def chunk(index: int, text: str) -> Delta:
        return Delta(
            event({"id": "a", "choices": [{"index": index, "delta": {"content": text}, "finish_reason": None}]}), 1
        )

    for index, text in ((0, "he"), (1, "good"), (0, "llo"), (1, " day")):
        answer.take(chunk(index, text))
    assert answer.again() == call
    assert answer.take(chunk(0, "hello")) == b""
    assert b'" there"' in answer.take(chunk(0, " there"))
    assert answer.take(chunk(1, "go")) == b""
    with pytest.raises(CannotGoOnError):
        answer.take(chunk(1, "lf"))


def test_tool_calls_are_replayed_and_their_pieces_come_once() -> None:
    call = request("chat/completions", messages=QUESTION, tools=[{}])
    answer = ChoicesAnswer(call)

    def chunk(tool: dict[str, Any], run: int) -> Delta:
        delta = {"tool_calls": [{"index": 0, **tool}]}
        return Delta(event({"id": run, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}), 1)

    def run(number: int) -> list[Delta]:
        start = {"id": f"call_{number}", "type": "function", "function": {"name": "add", "arguments": ""}}
        pieces = [{"function": {"arguments": piece}} for piece in ('{"a"', ":1", ',"b":', "2}")]
        return [chunk(each, number) for each in (start, *pieces)]

    got = [answer.take(delta) for delta in run(0)[:3]]
    assert answer.again() == call
    got += [answer.take(delta) for delta in run(1)]
    said = [
        value["choices"][0]["delta"]["tool_calls"][0]
        for each in events(b"".join(got))
        if (value := each.value()) is not None
    ]
    assert "".join(each["function"].get("arguments", "") for each in said) == '{"a":1,"b":2}'
    assert [each["id"] for each in said if "id" in each] == ["call_0"]


def test_of_a_long_answer_little_is_kept_and_it_goes_on() -> None:
    answer = ChoicesAnswer(request("chat/completions", messages=QUESTION))
    size = 0
    for number in range(10_000):
        choice = {"index": 0, "delta": {"content": f"{number} "}, "finish_reason": None}
        delta = Delta(event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice]}), 1)
        size += len(delta.data)
        assert answer.take(delta) is delta.data
        assert answer.held < 100_000
    assert size > 1_000_000
    call = answer.again()
    assert isinstance(call, EngineCall)
    assert json.loads(call.body)["messages"][-1]["content"] == "".join(f"{number} " for number in range(10_000))


def said(text: str, tokens: int = 1, index: int = 0, **more: Any) -> Delta:
    return Delta(event({"id": "a", "choices": [{"index": index, "text": text, "finish_reason": None, **more}]}), tokens)


def test_of_several_prompts_none_is_taken_for_all() -> None:
    """The first is answered, and the others were not begun."""
    for prompt in (["a", "b"], [[1], [2]]):
        call = request("completions", prompt=prompt)
        answer = ChoicesAnswer(call)
        answer.take(said("x"))
        answer.take(said("", 0, finish_reason="stop"))
        assert answer.again() == call
        assert answer.take(said("x")) == b""
        assert b'"y"' in answer.take(said("y", index=1))
    # One prompt, in tokens.
    answer = ChoicesAnswer(request("completions", prompt=[1, 2]))
    answer.take(said("x"))
    answer.take(said("", 0, finish_reason="stop"))
    assert answer.again() == b"data: [DONE]\n\n"


def test_tokens_that_came_in_one_event_are_counted_and_taken_off_the_limit_that_counts() -> None:
    body = {"prompt": "p", "max_tokens": 3, "max_completion_tokens": 20}
    answer = ChoicesAnswer(request("completions", **body))
    answer.take(said("one two"))
    answer.take(said(" three four five"))
    rest = answer.again(5)
    assert isinstance(rest, EngineCall)
    assert json.loads(rest.body)["max_completion_tokens"] == 15
    usage = {"prompt_tokens": 6, "completion_tokens": 2, "total_tokens": 8}
    end = json.loads(answer.take(Delta(event({"id": "b", "choices": [], "usage": usage})))[6:])
    assert end["usage"] == {"prompt_tokens": 1, "completion_tokens": 7, "total_tokens": 8}
    # A tokenizer that finds fewer than there were events is mistaken.
    answer = ChoicesAnswer(request("completions", prompt="p", n_predict=20, max_tokens=3))
    for _ in range(6):
        answer.take(said("x"))
    rest = answer.again(2)
    assert isinstance(rest, EngineCall)
    assert json.loads(rest.body)["n_predict"] == 14


def test_what_a_rest_says_of_a_token_without_text_is_kept() -> None:
    answer = ChoicesAnswer(request("completions", prompt="p", logprobs=1))
    answer.take(said("x"))
    assert isinstance(answer.again(), EngineCall)
    assert b"token_logprobs" in answer.take(said("", logprobs={"token_logprobs": [-1.0]}))


def test_a_tool_call_that_is_replayed_in_larger_pieces_keeps_its_id() -> None:
    answer = ChoicesAnswer(request("chat/completions", messages=QUESTION, tools=[{}]))

    def call(id: str, arguments: str) -> Delta:
        function = {"name": "add", "arguments": arguments}
        delta = {"tool_calls": [{"index": 0, "id": id, "type": "function", "function": function}]}
        return Delta(event({"id": id, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}), 1)

    answer.take(call("first", ""))
    answer.again()
    choice = json.loads(answer.take(call("second", '{"a"'))[6:])["choices"][0]
    assert choice["delta"]["tool_calls"] == [{"index": 0, "function": {"arguments": '{"a"'}}]
