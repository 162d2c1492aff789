"""What came together of a model's answer is one delta for all that is done with it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.serve.exceptions import ReplicaUnavailableError
from actorrt.serve.llm.calling import ReplicaAnswer, open_call
from actorrt.serve.llm.engines.interface import Delta, EngineCall, Head
from actorrt.serve.policy import ONE_REQUEST, Cost

DELTAS = st.lists(st.tuples(st.binary(), st.integers(0, 9)), max_size=9)
HEAD = (200, (("content-type", "text/event-stream"),))
CALL = EngineCall("/v1/chat/completions", b"{}", stream=True)


class Stream:
    """What a replica gives, by what lies there together each time."""

    waits = False

    def __init__(self, *batches: list[Any]) -> None:
        self._batches = list(batches)
        self.closed = 0

    async def next_values(self) -> list[Any]:
        batch = self._batches.pop(0) if self._batches else []
        if batch and isinstance(batch[0], Exception):
            raise batch[0]
        return batch

    def close(self) -> None:
        self.closed += 1


class Model:
    """As much of `Served` as a call needs."""

    def __init__(self, stream: Stream) -> None:
        self.generate = self.config = self.handle = self
        self.is_queued = False
        self.queue_timeout_s = 60.0
        self.deployment_name = "m"
        self._stream = stream

    def options(self, cost: Cost) -> Model:
        return self

    def remote(self, call: EngineCall) -> Stream:
        return self._stream


async def opened(stream: Stream) -> Any:
    model: Any = Model(stream)
    return await open_call(model, CALL, ONE_REQUEST)


async def taken(answer: Any) -> list[list[Delta]]:
    found: list[list[Delta]] = []
    while values := await answer.take():
        found.append(values)
    return found


@given(first=DELTAS, batches=st.lists(DELTAS.filter(bool), max_size=4))
async def test_no_byte_and_no_token_is_lost_and_what_lay_there_is_one(
    first: list[tuple[bytes, int]], batches: list[list[tuple[bytes, int]]]
) -> None:
    answer = await opened(Stream([HEAD, *first], *batches))
    assert answer.head == Head(*HEAD)
    assert isinstance(answer.head, Head)
    came = [each for each in (first, *batches) if each]
    found = await taken(answer)
    assert all(type(delta) is Delta for values in found for delta in values)
    assert [len(values) for values in found] == [1] * len(came)
    assert [values[0].data for values in found] == [b"".join(data for data, _ in each) for each in came]
    assert [values[0].tokens for values in found] == [sum(tokens for _, tokens in each) for each in came]


async def test_a_delta_that_came_alone_keeps_its_bytes_uncopied() -> None:
    data = b"data: 1\n\n"
    answer = await opened(Stream([HEAD], [(data, 1)]))
    ((delta,),) = await taken(answer)
    assert delta.data is data


async def test_an_answer_without_a_head_is_one_of_a_replica_that_went() -> None:
    with pytest.raises(ReplicaUnavailableError, match="its answer ended before it began"):
        await opened(Stream())


async def test_what_fails_before_the_head_closes_the_call() -> None:
    stream = Stream([ReplicaUnavailableError("m", "r", "it died")])
    with pytest.raises(ReplicaUnavailableError, match="it died"):
        await opened(stream)
    assert stream.closed == 1


async def test_who_closes_an_answer_closes_the_call() -> None:
    stream = Stream([HEAD])
    answer = await opened(stream)
    assert isinstance(answer, ReplicaAnswer)
    assert stream.closed == 0
    answer.close()
    assert stream.closed == 1
