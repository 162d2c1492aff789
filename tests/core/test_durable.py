"""What a head was told is written is there for the next head, and a head whose store was taken over answers nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actorrt.core.durable import (
    FORMAT,
    NOBODY,
    Durable,
    Entry,
    Mark,
    Snapshot,
    StoreRefusedError,
    Verdict,
    VersionConflictError,
    Write,
    judge,
    key_of,
    key_parts,
    take_over,
)

EMPTY = Snapshot(0, "", NOBODY, {})


class Disk:
    """A store in memory, as both real ones are."""

    def __init__(self) -> None:
        self.snapshot = EMPTY

    def write(self, write: Write) -> Mark:
        found = self.snapshot
        if found.mark != write.expected or write.mark == write.expected:
            return found.mark
        entries = {} if write.whole else dict(found.entries)
        for key, entry in write.changes.items():
            if entry is None:
                entries.pop(key, None)
            else:
                entries[key] = entry
        self.snapshot = Snapshot(FORMAT, "blue", write.mark, entries)
        return write.mark


class Head:
    def __init__(self, disk: Disk, writer: str) -> None:
        write = take_over(disk.snapshot, "blue", writer)
        assert judge(write, disk.write(write)) is Verdict.WRITTEN
        self.durable = Durable(write.mark, disk.snapshot.entries)


@given(st.lists(st.text()), st.lists(st.text()))
def test_a_key_says_its_parts_and_no_two_lists_of_parts_give_one(parts: list[str], others: list[str]) -> None:
    key = key_of("name", *parts)
    assert key_parts(key) == ("name", *parts)
    assert (key == key_of("name", *others)) == (parts == others)


def test_a_store_of_another_cluster_or_a_newer_format_is_refused_in_one_sentence() -> None:
    with pytest.raises(
        StoreRefusedError, match="it is the store of cluster 'blue', not of 'green': give `--name blue`"
    ):
        take_over(Snapshot(FORMAT, "blue", Mark(1, 1, "a"), {}), "green", "b")
    with pytest.raises(StoreRefusedError, match="written by a newer actorrt"):
        take_over(Snapshot(FORMAT + 1, "blue", Mark(1, 1, "a"), {}), "blue", "b")


def test_versions_grow_and_a_change_of_another_one_is_refused() -> None:
    durable = Durable(Mark(1, 0, "a"), {})
    assert durable.put("k", b"1", expected=0) == 1
    assert durable.put("k", b"2", expected=1) == 2
    with pytest.raises(VersionConflictError, match="'k' is at version 2, not at 1"):
        durable.put("k", b"3", expected=1)
    with pytest.raises(VersionConflictError):
        durable.drop("k", expected=1)
    assert durable.get("k") == Entry(2, b"2")
    assert durable.drop("k", expected=2)
    assert not durable.drop("k")
    assert durable.listed("") == []


def test_a_write_whose_answer_was_lost_is_sent_again_as_it_was() -> None:
    disk = Disk()
    durable = Head(disk, "a").durable
    durable.put("k", b"1")
    first = durable.next()
    disk.write(first)
    durable.put("l", b"2")
    assert durable.next() is first
    assert durable.answered(first, disk.write(first)) is Verdict.WRITTEN
    assert disk.snapshot.entries == {"k": Entry(1, b"1")}
    second = durable.next()
    assert durable.answered(second, disk.write(second)) is Verdict.WRITTEN
    assert disk.snapshot.entries == {"k": Entry(1, b"1"), "l": Entry(1, b"2")}


def test_the_older_of_two_heads_is_fenced_at_its_next_look_and_writes_nothing_more() -> None:
    disk = Disk()
    old = Head(disk, "a").durable
    new = Head(disk, "b").durable
    look = old.next()
    assert old.answered(look, disk.write(look)) is Verdict.FENCED
    old.put("k", b"old")
    write = old.next()
    assert old.answered(write, disk.write(write)) is Verdict.FENCED
    assert disk.snapshot.entries == {}
    look = new.next()
    assert new.answered(look, disk.write(look)) is Verdict.WRITTEN


@pytest.mark.parametrize("left", ["nothing", "an old copy"])
def test_a_store_that_has_forgotten_gets_all_again(left: str) -> None:
    disk = Disk()
    durable = Head(disk, "a").durable
    before = disk.snapshot
    durable.put("k", b"1")
    write = durable.next()
    durable.answered(write, disk.write(write))
    whole = disk.snapshot.entries
    disk.snapshot = EMPTY if left == "nothing" else before
    look = durable.next()
    assert durable.answered(look, disk.write(look)) is Verdict.FORGOTTEN
    write = durable.next()
    assert write.whole
    assert durable.answered(write, disk.write(write)) is Verdict.WRITTEN
    assert disk.snapshot.entries == whole


class TwoHeads(RuleBasedStateMachine):
    """Heads come and take the store over, others go on and do not know; requests and answers are lost, or come late."""

    @initialize()
    def begin(self) -> None:
        self.disk = Disk()
        self.heads: list[Durable] = [Head(self.disk, "0").durable]
        self.fenced: set[int] = set()
        # Of each head, writes that were sent, and whose effect or answer is still to come.
        self.sent: list[tuple[int, Write]] = []
        self.answers: list[tuple[int, Write, Mark]] = []
        # What a head was told is written, by the head and the order.
        self.acknowledged: dict[str, Entry | None] = {}
        self.count = 0

    @rule()
    def another_head(self) -> None:
        if len(self.heads) < 5:
            self.heads.append(Head(self.disk, str(len(self.heads))).durable)

    @rule(head=st.integers(0), key=st.sampled_from("abc"), drops=st.booleans())
    def change(self, head: int, key: str, drops: bool) -> None:
        index = head % len(self.heads)
        self.count += 1
        if drops:
            self.heads[index].drop(key)
        else:
            self.heads[index].put(key, str(self.count).encode())

    @rule(head=st.integers(0))
    def send(self, head: int) -> None:
        index = head % len(self.heads)
        if index not in self.fenced:
            self.sent.append((index, self.heads[index].next()))

    @precondition(lambda self: self.sent)
    @rule(which=st.integers(0), lost=st.booleans(), twice=st.booleans())
    def store_reads(self, which: int, lost: bool, twice: bool) -> None:
        index, write = self.sent[which % len(self.sent)]
        if not twice:
            self.sent.remove((index, write))
        if not lost:
            self.answers.append((index, write, self.disk.write(write)))

    @precondition(lambda self: self.answers)
    @rule(lost=st.booleans())
    def head_reads(self, lost: bool) -> None:
        """The answer to what it waits for; one that it waits for no more is dropped with its connection."""
        index, write, found = self.answers.pop(0)
        durable = self.heads[index]
        if lost or index in self.fenced or durable.next() != write:
            return
        newest = index == len(self.heads) - 1
        verdict = durable.answered(write, found)
        if verdict is Verdict.FENCED:
            assert not newest, "the newest is never fenced"
            self.fenced.add(index)
        elif verdict is Verdict.WRITTEN and write.changes:
            # It may be told so late, when another head has the store by now; that one has read it.
            for key, entry in write.changes.items():
                if newest:
                    self.acknowledged[key] = entry
        else:
            assert verdict is Verdict.WRITTEN, "nothing forgets here"

    @invariant()
    def what_was_acknowledged_by_the_newest_is_there(self) -> None:
        if not hasattr(self, "disk"):
            return
        newest = self.heads[-1]
        for key in self.acknowledged:
            stored = self.disk.snapshot.entries.get(key)
            # The store has what the newest head has, or what it had when it wrote last; never what an older one wrote.
            assert self.disk.snapshot.mark.writer == str(len(self.heads) - 1)
            if newest.statistics().unwritten == 0:
                assert stored == newest.get(key)


TwoHeads.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestTwoHeads = TwoHeads.TestCase
