"""The model of time: who gets a token when, who holds what, and that nobody is forgotten."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.serve.llm.engines.simulation import Pace, Running, Simulation

PACE = Pace(
    prefill_tokens_per_s=1000.0,
    decode_step_s=0.01,
    decode_step_per_request_s=0.001,
    chunk_tokens=100,
    slots=4,
    kv_tokens=400,
    block_tokens=10,
)


def keys(prompt: int, start: int = 0, block: int = 10) -> tuple[int, ...]:
    """Of a prompt that begins like all others with the same start."""
    return tuple(range(start + 1, start + 1 + prompt // block))


def drive(simulation: Simulation, answers: dict[Running, int], now: float = 0.0) -> dict[Running, list[float]]:
    """Run until all have their answers; when each token came."""
    came: dict[Running, list[float]] = {request: [] for request in answers}
    simulation.begin_step(now)
    while (ends := simulation.ends_at) is not None:
        assert ends >= now
        now = ends
        for request in simulation.end_step(now):
            came[request].append(now)
            assert request.generated == len(came[request])
            if request.generated == answers[request]:
                simulation.finish(request)
        assert simulation.cache.used + simulation.cache.idle <= simulation.cache.blocks
        assert len(simulation.running) <= simulation.pace.slots
        simulation.begin_step(now)
    return came


def test_a_prompt_is_read_at_its_rate_and_then_each_step_gives_a_token() -> None:
    simulation = Simulation(PACE)
    alone = Running(50, keys(50))
    simulation.submit(alone)
    assert drive(simulation, {alone: 3})[alone] == pytest.approx([0.05, 0.06, 0.07])


def test_each_further_request_makes_the_step_longer_by_as_much() -> None:
    simulation = Simulation(replace(PACE, prefill_tokens_per_s=1e9))
    batch = [Running(1, ()) for _ in range(3)]
    for request in batch:
        simulation.submit(request)
    came = drive(simulation, dict.fromkeys(batch, 2))
    assert [came[request] for request in batch] == [pytest.approx([0.0, 0.012], abs=1e-6)] * 3


def test_a_long_prompt_is_read_in_chunks_between_which_others_get_their_tokens() -> None:
    simulation = Simulation(PACE)
    decoding, long = Running(1, ()), Running(300, keys(300))
    simulation.submit(decoding)
    simulation.begin_step(0.0)
    simulation.submit(long)
    came = drive(simulation, {decoding: 10, long: 1})
    # Three chunks, in each of which there is a decoding step.
    assert came[long] == pytest.approx([0.001 + 3 * (0.1 + 0.01)])
    assert came[decoding][1:4] == pytest.approx([0.111, 0.221, 0.331])


def test_a_slot_that_is_missing_is_waited_for_in_the_order_of_arrival() -> None:
    simulation = Simulation(replace(PACE, slots=1))
    first, second, third = (Running(10, keys(10, 100 * n)) for n in range(3))
    for request in (first, second, third):
        simulation.submit(request)
    came = drive(simulation, dict.fromkeys((first, second, third), 2))
    assert came[first][-1] < came[second][0] < came[second][-1] < came[third][0]


def test_a_prompt_that_begins_like_an_earlier_one_is_read_from_there_on() -> None:
    simulation = Simulation(PACE)
    first, second = Running(55, keys(55)), Running(75, (*keys(50), 90, 91))
    simulation.submit(first)
    drive(simulation, {first: 1})
    simulation.submit(second)
    came = drive(simulation, {second: 1})
    assert second.cached == 50
    assert came[second] == pytest.approx([0.025])


def test_of_a_prompt_that_is_known_as_a_whole_the_last_block_is_read() -> None:
    simulation = Simulation(PACE)
    first, same = Running(50, keys(50)), Running(50, keys(50))
    for request in (first, same):
        simulation.submit(request)
        drive(simulation, {request: 1})
    assert same.cached == 40


def test_an_answer_can_be_what_a_later_prompt_begins_with() -> None:
    simulation = Simulation(PACE)
    first = Running(10, keys(10))
    simulation.submit(first)
    simulation.begin_step(0.0)
    while first.generated != 20:
        assert simulation.ends_at is not None
        simulation.end_step(simulation.ends_at)
        if first.generated == 20:
            simulation.finish(first, (2, 3))
        simulation.begin_step(0.0)
    second = Running(35, keys(35))
    simulation.submit(second)
    drive(simulation, {second: 1})
    assert second.cached == 30


def test_the_youngest_is_preempted_when_the_cache_is_full_and_comes_back() -> None:
    simulation = Simulation(replace(PACE, kv_tokens=50))
    old, young = Running(15, (1,)), Running(15, (2,))
    simulation.submit(old)
    simulation.submit(young)
    came = drive(simulation, {old: 20, young: 20})
    assert simulation.preemptions >= 1
    assert len(came[old]) == len(came[young]) == 20
    assert came[old][-1] < came[young][-1]
    assert simulation.cache.used == 0


def test_what_cannot_fit_is_refused_at_once() -> None:
    simulation = Simulation(replace(PACE, kv_tokens=50))
    for prompt in (0, 50):
        with pytest.raises(ValueError, match="does not fit"):
            simulation.submit(Running(prompt, ()))
    simulation.submit(Running(49, ()))


def test_a_late_call_is_made_up_for_unless_it_is_late_by_more_than_a_step() -> None:
    simulation = Simulation(replace(PACE, prefill_tokens_per_s=1e12))
    simulation.submit(Running(1, ()))
    simulation.begin_step(0.0)
    simulation.end_step(0.0)
    simulation.begin_step(0.0)
    simulation.end_step(0.013)
    simulation.begin_step(0.013)
    assert simulation.ends_at == pytest.approx(0.02)
    assert simulation.lost_s == 0
    simulation.end_step(0.05)
    simulation.begin_step(0.05)
    assert simulation.ends_at == pytest.approx(0.06)
    assert simulation.lost_s == pytest.approx(0.03)


REQUESTS = st.lists(
    st.tuples(st.integers(1, 120), st.integers(1, 60), st.integers(0, 2), st.integers(0, 40), st.booleans()),
    min_size=1,
    max_size=12,
)


@given(requests=REQUESTS, slots=st.integers(1, 5), chunk=st.integers(1, 150), kv=st.integers(18, 60))
def test_each_request_gets_each_token_once_and_nothing_stays_held(
    requests: list[tuple[int, int, int, int, bool]], slots: int, chunk: int, kv: int
) -> None:
    simulation = Simulation(replace(PACE, slots=slots, chunk_tokens=chunk, kv_tokens=10 * kv))
    arrivals = sorted(
        ((step, Running(prompt, keys(prompt, 1000 * family)), answer, left)
         for prompt, answer, family, step, left in requests),
        key=lambda arrival: arrival[0],
    )  # fmt: skip
    answers = {request: answer for _, request, answer, _ in arrivals}
    leaves = {request for _, request, _, left in arrivals if left}
    came = dict.fromkeys(answers, 0)
    finished: set[Running] = set()
    step, now = 0, 0.0
    while len(finished) < len(answers):
        for at, request, _, _ in arrivals:
            if at == step:
                simulation.submit(request)
        step += 1
        simulation.begin_step(now)
        if simulation.ends_at is None:
            assert not simulation.waiting
            continue
        assert simulation.ends_at >= now
        now = simulation.ends_at
        for request in simulation.end_step(now):
            came[request] += 1
            if came[request] == answers[request] or (request in leaves and came[request] > 3):
                simulation.finish(request)
                finished.add(request)
        # A client that leaves before its first token.
        for request in leaves & set(simulation.waiting) - finished:
            if step % 7 == 0:
                simulation.finish(request)
                finished.add(request)
        assert simulation.cache.used + simulation.cache.idle <= simulation.cache.blocks
        assert len(simulation.running) <= slots
    assert all(came[request] == answers[request] for request in answers if request not in leaves)
    assert simulation.cache.used == 0
    assert not simulation.running
    assert not simulation.waiting


@given(first=st.integers(1, 200), same=st.integers(0, 200), second=st.integers(1, 200))
def test_what_is_cached_is_the_longest_common_beginning_in_blocks(first: int, same: int, second: int) -> None:
    simulation = Simulation(replace(PACE, kv_tokens=1000))
    same = min(same, first, second)
    before = Running(first, keys(first))
    after = Running(second, (*keys(same), *range(5000, 5000 + second // 10 - same // 10)))
    for request in (before, after):
        simulation.submit(request)
        drive(simulation, {request: 1})
    assert after.cached == min(same // 10 * 10, (second - 1) // 10 * 10)
    read = math.ceil((second - after.cached) / 100)
    assert read >= 1
