"""The engine of the simulator: in closed form it does what actorrt's simulated engine does step by step."""

import math
from dataclasses import replace
from heapq import heappop, heappush
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.serve.llm.engines.simulation import Pace, Running, Simulation
from loadtests.simulation.engine import Engine, Heard
from loadtests.simulation.engine_model import EngineModel, ModelError, load, save
from loadtests.simulation.fleet import Fleet
from loadtests.simulation.kv_blocks import KvBlocks
from loadtests.simulation.policies.catalogue import POLICIES
from loadtests.simulation.requests import Arrival, Request

MODEL = EngineModel(
    prefill_tokens_per_s=1000.0,
    decode_step_s=0.01,
    decode_step_per_request_s=0.001,
    decode_step_per_context_token_s=0.0,
    chunk_tokens=100,
    slots=4,
    kv_tokens=400,
    block_tokens=10,
    hash_tokens=10,
)


def chain(prompt: int, family: int, block: int = 10) -> tuple[int, ...]:
    return tuple(range(1000 * family, 1000 * family + prompt // block))


def times_of(model: EngineModel, arrivals: list[Arrival]) -> dict[int, tuple[float, float]]:
    """When each request had its first and its last token."""
    engine = Engine(model)
    requests = [Request(number, arrival) for number, arrival in enumerate(arrivals)]
    waiting = list(requests)
    ends: list[tuple[float, int, int]] = []
    count = 0
    while waiting or ends:
        count += 1
        if waiting and (not ends or waiting[0].arrived <= ends[0][0]):
            request = waiting.pop(0)
            if engine.submit(request, request.arrived):
                heappush(ends, (engine.ends_at, count, engine.plan))
                continue
            if engine.ends_at < math.inf:
                continue
            engine.begin(request.arrived)
        else:
            at, _, plan = heappop(ends)
            if plan != engine.plan:
                continue
            for what, request in engine.settle():
                if what is Heard.FIRST:
                    request.first = at
                elif what is Heard.END:
                    request.ended = at
                    request.first = at if math.isnan(request.first) else request.first
            engine.begin(at)
        if engine.ends_at < math.inf:
            heappush(ends, (engine.ends_at, count, engine.plan))
        assert 0 <= engine.kv.used <= engine.kv.used + engine.kv.idle <= engine.kv.blocks
        assert len(engine.running) <= model.slots
    assert engine.kv.used == engine.decoding == engine.context == 0
    assert not engine.running
    return {request.number: (request.first, request.ended) for request in requests}


def step_by_step(model: EngineModel, arrivals: list[Arrival]) -> dict[int, tuple[float, float]]:
    """The same by actorrt's simulated engine."""
    engine = Simulation(
        Pace(
            model.prefill_tokens_per_s, model.decode_step_s, model.decode_step_per_request_s, model.chunk_tokens,
            model.slots, model.kv_tokens, model.block_tokens,
        )
    )  # fmt: skip
    waiting = [(arrival, Running(arrival.prompt, arrival.chain)) for arrival in arrivals]
    wanted = {request: (number, arrival) for number, (arrival, request) in enumerate(waiting)}
    found: dict[int, tuple[float, float]] = {}
    while waiting or engine.ends_at is not None:
        if waiting and (engine.ends_at is None or waiting[0][0].at <= engine.ends_at):
            arrival, request = waiting.pop(0)
            engine.submit(request)
            engine.begin_step(arrival.at)
            continue
        at = engine.ends_at
        assert at is not None
        for request in engine.end_step(at):
            number, arrival = wanted[request]
            found[number] = (found.get(number, (at, at))[0], at)
            if request.generated == arrival.output:
                engine.finish(request, arrival.answer)
        engine.begin_step(at)
    return found


ARRIVALS = st.lists(
    st.tuples(st.integers(0, 3000), st.integers(1, 120), st.integers(1, 60), st.integers(0, 2)), min_size=1, max_size=14
)


@given(given=ARRIVALS, slots=st.integers(1, 5), chunk=st.integers(1, 150), kv=st.integers(19, 60))
def test_many_steps_at_once_give_each_token_when_single_steps_do(
    given: list[tuple[int, int, int, int]], slots: int, chunk: int, kv: int
) -> None:
    model = replace(MODEL, slots=slots, chunk_tokens=chunk, kv_tokens=10 * kv)
    # No two things in the same moment: which comes first then is not promised.
    arrivals = [
        Arrival(at / 1000 + number * 1.37e-6, prompt, output, chain(prompt, family))
        for number, (at, prompt, output, family) in enumerate(sorted(given))
    ]
    closed, single = times_of(model, arrivals), step_by_step(model, arrivals)
    assert closed.keys() == single.keys()
    for number, times in closed.items():
        assert times == pytest.approx(single[number], abs=1e-9)


@given(given=ARRIVALS, kv=st.integers(19, 60))
def test_blocks_are_kept_where_hashes_span_several(given: list[tuple[int, int, int, int]], kv: int) -> None:
    model = replace(MODEL, kv_tokens=10 * kv, block_tokens=5, decode_step_per_context_token_s=1e-5)
    arrivals = [
        Arrival(at / 1000, prompt, output, chain(prompt, family), tuple(range(-number * 100 - 10, -number * 100)))
        for number, (at, prompt, output, family) in enumerate(sorted(given))
    ]
    for first, ended in times_of(model, arrivals).values():
        assert first <= ended < math.inf


def test_steps_get_longer_with_what_the_batch_has_in_its_cache() -> None:
    model = replace(MODEL, decode_step_per_context_token_s=0.001, kv_tokens=4000)
    ((first, ended),) = times_of(model, [Arrival(0.0, 50, 4)]).values()
    assert first == pytest.approx(0.05)
    assert ended - first == pytest.approx(3 * 0.01 + 0.001 * (51 + 52 + 53))


def test_what_an_engine_has_read_it_does_not_read_again() -> None:
    model = replace(MODEL, kv_tokens=4000)
    times = times_of(model, [Arrival(0.0, 100, 2, chain(100, 1)), Arrival(10.0, 120, 2, chain(120, 1))])
    assert times[1][0] - 10 == pytest.approx(0.02)


def test_an_answer_is_what_a_later_prompt_begins_with() -> None:
    model = replace(MODEL, kv_tokens=4000)
    whole = chain(200, 1)
    times = times_of(model, [Arrival(0.0, 100, 50, whole[:10], whole[10:15]), Arrival(10.0, 160, 2, whole[:16])])
    assert times[1][0] - 10 == pytest.approx(0.01)


def test_an_engine_that_dies_gives_back_what_it_had_with_the_tokens_so_far() -> None:
    engine = Engine(replace(MODEL, kv_tokens=4000))
    requests = [Request(number, Arrival(0.0, 20, 100)) for number in range(6)]
    for request in requests:
        engine.submit(request, 0.0)
    engine.begin(0.0)
    for _ in range(2):
        at = engine.ends_at
        engine.settle()
        engine.begin(at)
    had = engine.stop()
    assert set(had) == set(requests)
    assert [request.generated for request in requests[4:]] == [0, 0]
    assert all(request.generated > 0 for request in requests[:4])
    assert engine.kv.used == engine.kv.idle == 0


def test_the_blocks_that_nobody_uses_go_the_longest_unused_first() -> None:
    kv = KvBlocks(blocks=6, per_hash=2)
    for hash in (1, 2, 3):
        assert kv.take((), 2)
        assert kv.name((hash,)) == 1
        kv.release((hash,), 0)
    assert kv.take((1,), 0)
    kv.release((1,), 0)
    assert kv.take((), 2)
    assert [kv.known((hash,), 1) for hash in (1, 2, 3)] == [1, 0, 1]
    assert not kv.take((1, 3), 1)
    assert (kv.used, kv.idle, kv.private) == (2, 4, 2)


def test_a_model_is_read_as_it_was_written(tmp_path) -> None:
    file = tmp_path / "engine.json"
    save(MODEL, file)
    assert load(file) == MODEL


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no JSON"),
        ("[]", "no model of an engine"),
        ('{"speed": 3}', "speed"),
        ('{"slots": 0}', "slots"),
        ('{"chunk_tokens": 1.5}', "chunk_tokens"),
        ('{"block_tokens": 100}', "multiple"),
        ('{"decode_step_s": 0, "decode_step_per_request_s": 0}', "some time"),
        ('{"prefill_tokens_per_s": NaN}', "prefill_tokens_per_s"),
    ],
)
def test_a_file_that_is_no_model_is_said_to_be_none(tmp_path, text: str, said: str) -> None:
    file = tmp_path / "engine.json"
    file.write_text(text)
    with pytest.raises(ModelError, match=said):
        load(file)


def test_what_is_given_in_a_step_leaves_less_to_be_read_where_a_batch_holds_both() -> None:
    model = replace(MODEL, chunk_tokens=8, batch_tokens=8, read_step_s=0.002)
    alone = times_of(model, [Arrival(0.0, 16, 1)])
    # Two steps, each of which reads 8 tokens.
    assert alone[0][0] == pytest.approx(2 * (0.008 + 0.002))
    beside = times_of(model, [Arrival(0.0, 8, 40), Arrival(0.0101, 16, 1)])
    # The step under way ends, then 7, 7 and 2 are read.
    began = 0.010 + 0.010
    assert beside[1][0] == pytest.approx(began + 2 * (0.007 + 0.010) + 0.002 + 0.010)


def test_engines_of_one_machine_slow_each_other_down_while_both_work() -> None:
    model = replace(MODEL, slower_beside=0.5)
    long, short = Request(0, Arrival(0.0, 100, 21)), Request(1, Arrival(0.1001, 100, 1))
    fleet = Fleet(model, 2, 1, Random(1))
    fleet.run(POLICIES["shortest-requests"].make(fleet, 0.0), [long, short])
    assert long.replica != short.replica
    assert short.first - short.arrived == pytest.approx(0.1 * 1.5)
    # A step of 10 ms begins before the other does, and the next ones end 5 ms later each, until that has ended.
    assert long.ended - long.first == pytest.approx(20 * 0.010 + 10 * 0.005)


def test_a_batch_of_less_than_its_slots_is_no_engine() -> None:
    with pytest.raises(ModelError, match="batch_tokens"):
        replace(MODEL, batch_tokens=MODEL.slots - 1)
