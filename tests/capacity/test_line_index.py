"""The index finds the best line, or nearly, by a number of looks that does not grow with the number of lines."""

from __future__ import annotations

import random

import pytest

from actorrt.serve.capacity.credit_messages import Room
from actorrt.serve.capacity.ledger import Ledger, Placed
from actorrt.serve.capacity.need import LineFacts, LineId, Need
from actorrt.serve.capacity.share import Share

FACTS = LineFacts(kv_tokens=100_000, slots=64, prefill_rate=10_000.0)


def loaded(lines: int, seed: int, per_line: int = 20) -> tuple[Ledger, random.Random]:
    """Lines with requests that come and go, as under load."""
    dice = random.Random(seed)
    ledger = Ledger(epoch=1)
    for number in range(lines):
        ledger.set_line(LineId(str(number)), FACTS, 1)
    running: list[int] = []
    for _ in range(lines * per_line):
        need = Need(int(dice.lognormvariate(6, 1)), int(dice.lognormvariate(5, 1)))
        if (placed := ledger.find(need, chance=dice.random())) is not None:
            running.append(ledger.admit(placed, need, "r").id.number)
        if len(running) > lines * 8:
            ledger.release(running.pop(dice.randrange(len(running))))
        elif running:
            ledger.progress(dice.choice(running), 1)
    return ledger, dice


@pytest.mark.parametrize("lines", [8, 100, 1000])
def test_a_decision_takes_the_same_looks_for_any_number_of_lines_and_is_near_the_best(lines: int) -> None:
    ledger, dice = loaded(lines, seed=7)
    before, gaps = ledger.looks, list[float]()
    for _ in range(200):
        need = Need(int(dice.lognormvariate(6, 1)), int(dice.lognormvariate(5, 1)))
        placed = ledger.find(need, chance=dice.random())
        possible = [line for line in ledger.lines.values() if line.admits(need.tokens)]
        assert (placed is not None) == bool(possible)
        if placed is not None:
            best = min((line.backlog + need.prompt + 1) * (line.running + 1) for line in possible)
            gaps.append((placed.line.backlog + need.prompt + 1) * (placed.line.running + 1) / best)
    assert (ledger.looks - before) / 200 <= FACTS.slots + 16
    assert sum(gaps) / len(gaps) < 1.01


def test_equal_lines_are_drawn_from_evenly() -> None:
    ledger = Ledger(epoch=1)
    for number in range(10):
        ledger.set_line(LineId(str(number)), FACTS, 1)
    dice = random.Random(1)
    drawn = [ledger.find(Need(1, 1), chance=dice.random()) for _ in range(1000)]
    counts = {
        str(n): sum(placed is not None and placed.line.id.replica == str(n) for placed in drawn) for n in range(10)
    }
    assert min(counts.values()) > 60


def test_a_line_that_barely_fits_among_many_that_do_not_is_found() -> None:
    ledger = Ledger(epoch=1)
    for number in range(50):
        ledger.set_line(LineId(str(number)), FACTS, 1)
        # All of one cell: one request each, and room between 32,768 and 65,535.
        line = ledger.lines[LineId(str(number))]
        ledger.admit(Placed(line, 0), Need(0, 40_000 if number == 37 else 45_000), "r")
    found = ledger.find(Need(0, 49_000))
    assert found is not None
    assert found.line.id.replica == "37"
    assert ledger.find(Need(0, 51_000)) is None


def busy(slots: dict[str, int]) -> Ledger:
    """Lines by their slots, more than are looked at one by one, each with a request whose prompt is read."""
    ledger = Ledger(epoch=1)
    need = Need(10, 10)
    for name, most in slots.items():
        ledger.set_line(LineId(name), LineFacts(100_000, most, 10_000.0), 1)
    for line in list(ledger.lines.values()):
        ledger.progress(ledger.admit(Placed(line, need.prompt), need, "r").number, 1)
    return ledger


def test_a_small_line_does_not_hide_that_a_large_one_has_room_for_a_low_band() -> None:
    ledger = busy({"small": 8} | {f"large {number}": 64 for number in range(9)})
    found = ledger.find(Need(10, 10), share=Share(0.7, 0.125, 0.0))
    assert found is not None
    assert found.line.slots == 64


def test_a_line_that_others_alone_use_is_empty_for_a_low_band_too() -> None:
    ledger = busy({str(number): 8 for number in range(10)})
    empty = list(ledger.lines.values())[-1]
    ledger.release(next(iter(empty.leases)))
    ledger.set_others(empty.id, Room(10, 1))
    found = ledger.find(Need(10, 10), share=Share(0.7, 0.125, 0.0))
    assert found is not None
    assert found.line is empty
