"""A table that forgets the oldest."""

from actorrt.core.recent import Recent, RecentSet


def test_the_oldest_are_forgotten_and_the_newest_are_known() -> None:
    recent: Recent[int, str] = Recent(3)
    for number in range(1000):
        recent.put(number, str(number))
    recent.put(997, "again")
    recent.put(1000, "1000")
    assert len(recent) == 3
    assert [recent.get(number) for number in (998, 999, 997, 1000)] == [None, "999", "again", "1000"]


def test_a_set_of_the_recent_knows_what_it_holds() -> None:
    recent: RecentSet[bytes] = RecentSet(2)
    for name in (b"a", b"b", b"a", b"c"):
        recent.add(name)
    assert (b"a" in recent, b"b" in recent, b"c" in recent, len(recent)) == (True, False, True, 2)
