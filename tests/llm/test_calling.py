"""What came together of a model's answer is one delta for all that is done with it, and what a capacity queue hears of
it.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.serve.capacity_queue.messages import QueueUse
from actorrt.serve.exceptions import ReplicaUnavailableError
from actorrt.serve.llm.calling import QueuedAnswer, ReplicaAnswer, open_call
from actorrt.serve.llm.costs import ModelCost
from actorrt.serve.llm.engines.interface import Delta, EngineCall, Head
from actorrt.serve.llm.usage import Usage, finish_in
from actorrt.serve.policies.policy import ONE_REQUEST, Cost

DELTAS = st.lists(st.tuples(st.binary(), st.integers(0, 9)), max_size=9)
HEAD = (200, (("content-type", "text/event-stream"),))
CALL = EngineCall("/v1/chat/completions", b"{}", stream=True)


class Stream:
    """What a replica gives, by what lies there together each time."""

    waits = False

    def __init__(self, *batches: list[Any]) -> None:
        self._batches = list(batches)
        self.closed = 0
        self.progress: list[int] = []
        self.used: list[Cost] = []

    def report_progress(self, tokens: int) -> None:
        self.progress.append(tokens)

    def report_used(self, used: Cost) -> None:
        self.used.append(used)

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


class Sizes:
    def __init__(self) -> None:
        self.sizes = self
        self.learnt: list[int] = []

    def learn(self, cost: ModelCost, tokens: int) -> None:
        self.learnt.append(tokens)


async def test_of_an_answer_without_usage_a_capacity_queue_hears_at_its_end_how_many_tokens_came() -> None:
    # Those that came after the stream's end at its source are nobody's progress any more.
    stream = Stream([(b"a", 1)], [(b"b", 3)])
    served: Any = Sizes()
    answer = QueuedAnswer(stream, Head(*HEAD), [], served, ModelCost())  # type: ignore[arg-type]
    answer.report_used(Cost(tokens=99))
    assert stream.used == []
    await taken(answer)
    answer.report_used(Cost(tokens=99))
    assert stream.used == [QueueUse(tokens=4)]
    answer.report_usage(Usage(7, 5, 2), "stop")
    answer.report_used(Cost(tokens=99))
    assert stream.used[1:] == [QueueUse(tokens=5, cached=2, is_whole=True)]


async def test_a_capacity_queue_hears_of_tokens_once_for_all_that_came_together() -> None:
    stream = Stream([(b"a", 1), (b"b", 1), (b"c", 0)], [(b"d", 0)], [(b"e", 3)])
    served: Any = Sizes()
    answer = QueuedAnswer(stream, Head(*HEAD), [], served, ModelCost())  # type: ignore[arg-type]
    await taken(answer)
    assert stream.progress == [2, 5]
    assert stream.used == []


async def test_what_an_engine_says_that_an_answer_took_is_told_and_learnt_once() -> None:
    stream = Stream()
    served: Any = Sizes()
    answer = QueuedAnswer(stream, Head(*HEAD), [], served, ModelCost())  # type: ignore[arg-type]
    answer.report_used(Cost(tokens=99))
    answer.report_usage(Usage(30, 5, 16), None)
    for _ in range(2):
        answer.report_usage(Usage(30, 6, 16), "stop")
    assert stream.used == [QueueUse(tokens=5, cached=16), QueueUse(tokens=6, cached=16, is_whole=True)]
    assert served.learnt == [30]


@pytest.mark.parametrize("space", [b"", b" "])
def test_why_an_answer_ended_is_found_behind_events_that_do_not_say_it(space: bytes) -> None:
    event = b'data: {"choices":[{"delta":{},"finish_reason":%bnull}]}\n\n' % space
    assert finish_in(event * 3) is None
    assert finish_in(event * 3 + event.replace(b"null", b'"length"') + event) == "length"
