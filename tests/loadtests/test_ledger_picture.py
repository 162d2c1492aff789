"""What the picture of a line's ledger shows is right."""

from loadtests.simulation.ledger_picture import drive


def test_a_line_never_gives_more_than_its_limit_and_has_all_back_at_the_end() -> None:
    drawn = drive()
    sums = [sum(map(sum, debits)) for debits in zip(*drawn.debits.values(), strict=True)]
    assert 0.9 * drawn.fill_tokens < max(sums) <= drawn.fill_tokens
    assert (sums[-1], drawn.backlog[-1], drawn.waiting[-1]) == (0, 0, 0)
    assert all(any(prompt for prompt, _, _ in debits) for debits in drawn.debits.values())


def test_who_is_first_waits_for_its_room_and_nobody_passes_it_there() -> None:
    begun = drive().begun
    assert list(begun) == ["A", "B", "C", "D", "E"]
    assert begun["B"] < begun["C"] < begun["D"] < begun["E"]
