"""What a load of a language model is told by its streams, and what it makes of it."""

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.llm.own_loop import OwnLoop
from loadtests.llm.prompts import Prompts
from loadtests.llm.stream import Seen
from loadtests.llm.tally import Gaps, Tallies, Targets, quantile

USAGE = {"prompt_tokens": 20, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 5}}


def event(**told: Any) -> bytes:
    return b"data: " + json.dumps(told).encode() + b"\n\n"


def chat(delta: dict[str, Any], reason: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "delta": delta, "finish_reason": reason}])


ROLE = chat({"role": "assistant", "content": None})
STREAM = (
    ROLE,
    chat({"content": "one"}),
    b": ping\n\n",
    chat({"content": " two"}),
    chat({"content": " three"}),
    chat({}, "length"),
    event(choices=[], usage=USAGE),
    b"data: [DONE]\n\n",
)


def seen(parts: tuple[bytes, ...], begin: float = 0.0) -> Seen:
    found = Seen(begin)
    for second, part in enumerate(parts):
        found.feed(part, begin + second)
    return found


def test_times_are_those_of_text_and_counts_those_of_the_usage() -> None:
    found = seen(STREAM)
    assert (found.ttft, found.gaps) == (1, [2, 1])
    assert found.tpot == 1.5
    assert (found.prompt_tokens, found.completion_tokens, found.cached_tokens) == (20, 3, 5)
    assert (found.finish_reason, found.truncated, found.error) == ("length", False, None)


@given(cuts=st.lists(st.integers(0, len(b"".join(STREAM))), max_size=12))
def test_it_does_not_matter_where_the_bytes_are_cut(cuts: list[int]) -> None:
    data = b"".join(STREAM)
    ends = [*sorted(cuts), len(data)]
    parts = tuple(data[begin:end] for begin, end in zip([0, *ends], ends, strict=False))
    found, whole = seen(parts), seen(STREAM)
    assert (found.completion_tokens, found.finish_reason, found.done, found.truncated) == (
        whole.completion_tokens, whole.finish_reason, True, False
    )  # fmt: skip


@pytest.mark.parametrize("missing", [5, 6, 7])
def test_a_stream_without_its_end_is_truncated(missing: int) -> None:
    assert seen(STREAM[:missing] + STREAM[missing + 1 :]).truncated


def test_an_error_in_the_stream_is_an_error_and_not_a_cut() -> None:
    found = seen((*STREAM[:3], event(error={"message": "the engine failed"})))
    assert (found.error, found.truncated) == ("the engine failed", False)
    assert seen((*STREAM[:3], b"data: {broken\n\n")).error


def test_prompts_have_their_share_in_common_and_are_each_their_own() -> None:
    prompts, chance = Prompts(40, 0.5), Random(3)
    drawn = [prompts.draw(chance).split(" ") for _ in range(50)]
    assert all(len(words) == 40 and words[:20] == drawn[0][:20] for words in drawn)
    assert len({words[20] for words in drawn}) == 50
    assert Prompts(10, 1).draw(Random(1)) == Prompts(10, 1).draw(Random(2))
    with pytest.raises(ValueError, match="0 to 1"):
        Prompts(10, 1.5)


@given(gaps=st.lists(st.floats(1e-5, 100), min_size=1, max_size=200), share=st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_quantile_of_gaps_is_right_but_for_two_percent(gaps: list[float], share: float) -> None:
    counted = Gaps()
    counted.add(gaps[: len(gaps) // 2])
    counted.add(gaps[len(gaps) // 2 :])
    found, exact = counted.quantile(share), quantile(gaps, share)
    assert found is not None
    assert exact is not None
    assert exact <= found * (1 + 1e-9) <= exact * 1.021


def test_nothing_has_no_quantile() -> None:
    assert Gaps().quantile(0.99) is None
    assert quantile([], 0.5) is None


def test_goodput_counts_what_keeps_to_both_targets_by_tenant_and_together() -> None:
    tallies = Tallies(Targets(ttft=1.0, tpot=1.5))
    late = (b"", *STREAM)
    tallies.add("a", seen(STREAM))
    tallies.add("a", seen(late))
    tallies.add("b", seen(STREAM))
    tallies.add("b", seen(STREAM[:4]))
    tallies.add("b", seen((ROLE, event(error={"message": "no"}))))
    tallies.refused("b")
    tallies.failed("b")
    a, b, both = tallies.table(2.0)
    assert (a["tenant"], a["answered"], a["goodput_per_s"], a["tokens_per_s"]) == ("a", 2, 0.5, 3.0)
    assert (b["answered"], b["truncated"], b["failed"], b["refused"], b["goodput_per_s"]) == (1, 1, 2, 1, 0.5)
    assert (both["tenant"], both["answered"], both["requests_per_s"], both["cached_share"]) == ("all", 3, 1.5, 0.25)
    assert (a["ttft_p50_ms"], a["ttft_p95_ms"], a["tpot_p50_ms"]) == (1000, 2000, 1500)


class Machine:
    wall = cpu = 0.0


@pytest.mark.parametrize(
    ("late", "cpu", "says"),
    [(0.001, 5.0, None), (0.03, 5.0, "30 ms late"), (0.001, 9.5, "95% of its core")],
)
def test_a_generator_that_was_the_bottleneck_says_so(late: float, cpu: float, says: str | None) -> None:
    machine = Machine()
    own = OwnLoop(lambda: machine.wall, lambda: machine.cpu)
    for number in range(100):
        own.woke(number, number + (late if number % 50 == 0 else 0.0005))
    machine.wall, machine.cpu = 10.0, cpu
    verdict = own.verdict()
    if says is None:
        assert verdict is None
    else:
        assert verdict is not None
        assert says in verdict


def test_one_late_timer_in_a_thousand_is_forgiven() -> None:
    own = OwnLoop(lambda: 1.0, lambda: 0.0)
    for number in range(1000):
        own.woke(number, number + (0.5 if number == 7 else 0.0))
    assert own.verdict() is None
