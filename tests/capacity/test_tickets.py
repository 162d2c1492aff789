"""A ticket keeps the place of a first arrival, for who has it, once, and cannot be made."""

from __future__ import annotations

import random
from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest

from actorrt.serve.capacity import tickets as module
from actorrt.serve.capacity.tickets import VALID_S, First, Tickets

KEY = bytes(range(32))
INF = float("inf")


def arrived(tickets: Tickets, ticket: str, tenant: str, now: float) -> float:
    first = tickets.first(ticket, tenant, now)
    assert first is None or first.place == INF
    return now if first is None else first.arrived


def test_a_retry_has_the_place_of_its_first_arrival_and_keeps_it_when_refused_again() -> None:
    tickets = Tickets(KEY)
    first = tickets.issue("t", First(10.0, INF), 12.0)
    assert arrived(tickets, first, "t", 20.0) == 10.0
    again = tickets.issue("t", First(10.0, INF), 20.0)
    assert arrived(tickets, again, "t", 20.0 + VALID_S) == 10.0


def test_a_ticket_counts_once_for_its_tenant_and_for_a_time() -> None:
    tickets = Tickets(KEY)
    assert arrived(tickets, tickets.issue("t", First(1.0, INF), 2.0), "u", 3.0) == 3.0
    one = tickets.issue("t", First(1.0, INF), 2.0)
    assert arrived(tickets, one, "t", 3.0) == 1.0
    assert arrived(tickets, one, "t", 4.0) == 4.0
    late = tickets.issue("t", First(1.0, INF), 2.0)
    assert arrived(tickets, late, "t", 3.0 + VALID_S) == 3.0 + VALID_S


def test_a_ticket_that_was_changed_or_is_of_another_queue_is_none() -> None:
    tickets, dice = Tickets(KEY), random.Random(1)
    assert arrived(tickets, Tickets(KEY[::-1]).issue("t", First(1.0, INF), 2.0), "t", 3.0) == 3.0
    for _ in range(500):
        whole = bytearray(urlsafe_b64decode(tickets.issue("t", First(100.0, INF), 101.0)))
        whole[dice.randrange(len(whole))] ^= 1 << dice.randrange(8)
        assert arrived(tickets, urlsafe_b64encode(whole).decode(), "t", 102.0) == 102.0


@pytest.mark.parametrize("text", ["", "x", "é" * 64, "A" * 64, "-" * 10_000, "!" * 64, "=" * 64, "\x00" * 64])
def test_what_is_no_ticket_is_none(text: str) -> None:
    assert arrived(Tickets(KEY), text, "t", 7.0) == 7.0


def test_no_ticket_gives_a_place_in_the_future() -> None:
    tickets = Tickets(KEY)
    assert arrived(tickets, tickets.issue("t", First(50.0, INF), 50.0), "t", 40.0) == 40.0


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_USED", 10)
    tickets = Tickets(KEY)
    found = [arrived(tickets, tickets.issue("t", First(1.0, INF), 2.0), "t", 3.0) for _ in range(15)]
    assert found == [1.0] * 10 + [3.0] * 5
    later = 4.0 + VALID_S
    assert arrived(tickets, tickets.issue("t", First(1.0, INF), later), "t", later) == 1.0


@pytest.mark.parametrize("wrong", [b"", b"short", bytes(65)])
def test_a_key_of_another_length_is_refused(wrong: bytes) -> None:
    with pytest.raises(ValueError, match="16 to 64 bytes"):
        Tickets(wrong)
