"""Events are cut where they end, whatever the pieces they come in, and their tokens counted without reading them."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.serve.llm.engines import whole_events
from actorrt.serve.llm.engines.whole_events import WholeEvents, tokens_in, tokens_of_answer

EVENT = st.binary(min_size=1, max_size=30).map(lambda data: b"data: " + data.replace(b"\n", b"").replace(b"\r", b""))


@given(events=st.lists(EVENT), ending=st.sampled_from([b"\n\n", b"\r\n\r\n"]), cuts=st.lists(st.integers(0, 300)))
def test_any_split_gives_whole_events_and_all_bytes(events: list[bytes], ending: bytes, cuts: list[int]) -> None:
    stream = b"".join(event + ending for event in events)
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    whole = WholeEvents()
    given_out: list[bytes] = []
    for start, end in itertools.pairwise(places):
        piece = whole.feed(stream[start:end])
        assert piece == b"" or piece.endswith(ending)
        given_out.append(piece)
        # Nothing that is whole is kept back.
        assert b"".join(given_out).count(ending) == stream[:end].count(ending)
    assert b"".join(given_out) == stream
    assert whole.end() == b""


def test_an_event_without_its_end_is_given_at_the_end() -> None:
    whole = WholeEvents()
    assert whole.feed(b"data: 1\n\ndata: [DONE]\n") == b"data: 1\n\n"
    assert whole.end() == b"data: [DONE]\n\n"


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize(
    ("path", "event", "tokens"),
    [
        ("/v1/chat/completions", {"choices": [{"delta": {"role": "assistant", "content": ""}}]}, 0),
        ("/v1/chat/completions", {"choices": [{"delta": {"content": 'she said "content":"x"'}}]}, 1),
        ("/v1/chat/completions", {"choices": [{"delta": {"reasoning_content": "so"}}]}, 1),
        ("/v1/chat/completions", {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "{"}}]}}]}, 1),
        ("/v1/chat/completions", {"choices": [{"delta": {}, "finish_reason": "stop"}]}, 0),
        ("/v1/completions", {"choices": [{"text": "a"}]}, 1),
        ("/v1/completions", {"choices": [{"text": ""}]}, 0),
        ("/v1/responses", {"type": "response.output_text.delta", "delta": "a"}, 1),
        ("/v1/responses", {"type": "response.output_text.done", "text": "a"}, 0),
        ("/v1/messages", {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}}, 1),
        ("/v1/messages", {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, 0),
    ],
)
def test_tokens_are_the_events_that_bring_text(path: str, event: dict[str, object], tokens: int, compact: bool) -> None:
    text = json.dumps(event, separators=(",", ":") if compact else None).encode()
    assert tokens_in(path, b"data: " + text + b"\n\n") == tokens


def test_an_answers_tokens_are_those_of_its_usage() -> None:
    assert tokens_of_answer(b'{"usage": {"prompt_tokens": 3, "completion_tokens": 17}}') == 17
    assert tokens_of_answer(b'{"usage":{"input_tokens":3,"output_tokens":18}}') == 18
    assert tokens_of_answer(b'{"error": {}}') == 0


@pytest.mark.parametrize("ending", [b"\n\n", b"\r\n\r\n"])
def test_an_event_is_there_with_its_last_byte(ending: bytes) -> None:
    for cut in range(1, len(ending)):
        events = WholeEvents()
        assert events.feed(b"data: a" + ending[:cut]) == b""
        assert events.feed(ending[cut:]) == b"data: a" + ending


def test_an_event_without_end_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_events, "MOST_BYTES", 100)
    events = WholeEvents()
    events.feed(b"x" * 90)
    with pytest.raises(ValueError, match="more than 100 bytes"):
        events.feed(b"x" * 20)
