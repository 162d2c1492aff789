"""What the capacity queue is told of a call: the tokens of what the model reads, and by which blocks it is known."""

from __future__ import annotations

import json
from typing import Any

import pytest

from actorrt.serve.capacity_queue.messages import QueueCost
from actorrt.serve.llm.costs import ModelCost, cost_of, with_more
from actorrt.serve.llm.demand import PromptSizes, queue_cost_of
from actorrt.serve.llm.engines.interface import EngineCall

LONG = "word " * 2000
SHORT = [{"role": "user", "content": "hello"}]


def cost(fields: dict[str, Any]) -> ModelCost:
    return cost_of(fields, model="m", tenant="t")


def told(fields: dict[str, Any], path: str = "/v1/chat/completions", sizes: PromptSizes | None = None) -> QueueCost:
    return queue_cost_of(EngineCall(path, json.dumps(fields).encode()), sizes or PromptSizes(), cost(fields))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
@pytest.mark.parametrize("name", ["metadata", "response_format", "grammar"])
@pytest.mark.parametrize("is_last", [True, False])
def test_what_a_model_does_not_read_counts_nothing_wherever_it_stands(path: str, name: str, is_last: bool) -> None:
    alone = {"messages": SHORT}
    other = {name: LONG}
    asked = told({**alone, **other} if is_last else {**other, **alone}, path)
    assert asked == told(alone, path)
    assert (asked.tokens, asked.chain) == (7, ())


def test_what_it_reads_counts_wherever_it_stands() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": LONG}}]
    texts: list[dict[str, Any]] = [{"tools": tools}, {"system": LONG}, {"instructions": LONG}, {"functions": tools}]
    for text in texts:
        behind, before = told({"messages": SHORT, **text}), told({**text, "messages": SHORT})
        assert behind.tokens == before.tokens >= len(LONG) // 4


def test_a_picture_is_no_text() -> None:
    url = "data:image/png;base64," + "A" * 100_000
    content = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    asked = told({"messages": [{"role": "user", "content": content}]})
    assert (asked.tokens < 20, asked.chain) == (True, ())


def test_two_prompts_that_begin_alike_have_their_first_blocks_in_common() -> None:
    first = [{"role": "user", "content": LONG}]
    more = [*first, {"role": "assistant", "content": "yes"}, {"role": "user", "content": LONG[::-1]}]
    one, other = told({"messages": first, "user": "a"}), told({"temperature": 1, "messages": more, "user": "b"})
    blocks = len(LONG) // 2048
    assert one.chain[:blocks] == other.chain[:blocks]
    assert len(other.chain) >= 2 * blocks


def test_ids_of_tokens_are_as_many_as_they_are_whatever_was_learnt() -> None:
    sizes = PromptSizes()
    read = {"messages": [{"role": "user", "content": LONG}]}
    for _ in range(200):
        sizes.learn(cost(read), 2000)
    assert abs(told(read, sizes=sizes).tokens - 2000) < 20
    ids = {"prompt": [1000] * 3000}
    assert told(ids, "/v1/completions", sizes).tokens == 3001
    assert len(told(ids, "/v1/completions", sizes).chain) == 3000 * 6 // 2048
    # Of a prompt of ids nothing can be learnt.
    before = sizes.bytes_per_token
    sizes.learn(cost(ids), 3000)
    assert sizes.bytes_per_token == before


def test_an_answer_that_goes_on_elsewhere_is_read_there_with_what_came() -> None:
    call = EngineCall("/v1/chat/completions", b"")
    grown = with_more(cost({"messages": SHORT}), 4000)
    assert isinstance(grown, ModelCost)
    assert queue_cost_of(call, PromptSizes(), grown).tokens == 1007
    assert grown.tokens == cost({"messages": SHORT}).tokens
