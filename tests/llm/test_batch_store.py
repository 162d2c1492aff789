"""The records of files and batches in SQLite: who sees what, who owns what, and what goes when."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actorrt.serve.llm.batches.database import Database, StorageError
from actorrt.serve.llm.batches.file_records import UPLOAD_S, TooManyError
from actorrt.serve.llm.batches.outputs import Tokens
from actorrt.serve.llm.batches.records import Batch, File
from actorrt.serve.llm.batches.states import Event, Status, WrongEventError
from actorrt.serve.llm.batches.store import Done, LostError, Store, Waiting

NOW = 1_000_000
# Bytes of all files of a tenant.
MOST = 1_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "batches.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    made = Store(path)
    yield made
    made.close()


def a_file(id: str, tenant: str = "t", expires_at: int | None = None, purpose: str = "batch") -> File:
    return File(id, tenant, purpose, "name", 10, NOW, expires_at)


def a_batch(id: str, tenant: str = "t", file: str = "f") -> Batch:
    return Batch(id, tenant, Status.VALIDATING, "/v1/chat/completions", file, "24h", NOW, NOW + 86400)


def with_batches(store: Store, *ids: str, tenant: str = "t") -> None:
    if store.file(tenant, f"f-{tenant}", NOW) is None:
        store.keep_file(a_file(f"f-{tenant}", tenant), MOST)
    for id in ids:
        assert store.add_batch(a_batch(id, tenant, f"f-{tenant}"), NOW, most_open=100, most=1000)


def claimed(store: Store, owner: str, now: float = NOW, most: int = 10, which: Waiting = Waiting.ANY) -> list[str]:
    return [batch.id for batch in store.claim(owner, now, 10, most, which)]


def done(line: int, good: bool = True, output: bytes = b"x\n") -> Done:
    return Done(line, good, output, Tokens(1, 2, 3, 4))


def test_what_is_written_is_there_for_who_opens_it_next(store: Store, path: Path) -> None:
    store.begin_file(a_file("f"), 10)
    assert store.file("t", "f", NOW) is None  # it is still coming
    store.keep_file(a_file("f"), MOST)
    other = Store(path)
    assert other.file("t", "f", NOW) == a_file("f")
    assert other.used_bytes("t") == 10
    other.close()


def test_a_tenant_has_so_many_files_those_that_come_included(store: Store) -> None:
    store.begin_file(a_file("a"), 2)
    store.keep_file(a_file("b"), MOST)
    with pytest.raises(TooManyError):
        store.begin_file(a_file("c"), 2)
    store.begin_file(a_file("d", "other"), 2)
    store.give_up_file("a")
    store.begin_file(a_file("c"), 2)


def test_files_that_come_at_the_same_time_are_no_more_bytes_than_may_be(store: Store) -> None:
    store.begin_file(a_file("a"), 10)
    store.begin_file(a_file("b"), 10)
    store.keep_file(a_file("a"), 19)
    with pytest.raises(TooManyError):
        store.keep_file(a_file("b"), 19)
    assert store.file("t", "b", NOW) is None
    store.keep_file(a_file("c", "other"), 19)


def test_a_file_that_has_expired_is_gone_before_its_bytes_are(store: Store) -> None:
    store.keep_file(a_file("f", expires_at=NOW + 5), MOST)
    assert store.file("t", "f", NOW + 4) is not None
    assert store.file("t", "f", NOW + 5) is None
    assert store.files("t", NOW + 5, limit=9, after=None, newest_first=True, purpose=None) == []
    assert not store.delete_file("t", "f", NOW + 5)
    assert store.files_to_remove(NOW + 4) == []
    assert store.files_to_remove(NOW + 5) == ["f"]
    assert store.files_to_remove(NOW + 5) == ["f"]  # until it is said that they are
    store.forget_files(["f"])
    assert store.files_to_remove(NOW + 5) == []


def test_who_deletes_what_he_lists_page_by_page_comes_to_its_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(6):
        store.keep_file(a_file(f"f{number}"), MOST)

    def page(after: str | None, limit: int = 2) -> list[str] | None:
        found = store.files("t", NOW, limit=limit, after=after, newest_first=True, purpose=None)
        return None if found is None else [file.id for file in found]

    def delete(*ids: str) -> None:
        for id in ids:
            assert store.delete_file("t", id, NOW)
        store.forget_files(store.files_to_remove(NOW))

    assert page(None) == ["f5", "f4"]
    delete("f5", "f4")
    assert page("f4") == ["f3", "f2"]
    assert store.used_bytes("t") == 40
    store.begin_file(a_file("f6"), most_files=5)  # what has gone does not count
    with pytest.raises(TooManyError):
        store.begin_file(a_file("f7"), most_files=5)
    monkeypatch.setattr("actorrt.serve.llm.batches.file_records.MOST_LEFT", 2)
    delete("f3")
    assert page("f4") is None
    assert page("f3") is None
    delete("f2")
    assert page("f2") is None


def test_the_bytes_of_a_deleted_file_stay_while_an_open_batch_reads_them(store: Store) -> None:
    with_batches(store, "b")
    claimed(store, "me")
    assert store.delete_file("t", "f-t", NOW)
    assert store.file("t", "f-t", NOW) is None
    assert store.files_to_remove(NOW) == []
    store.refused("me", "b", b"null", NOW)
    assert store.files_to_remove(NOW) == ["f-t"]


def test_an_upload_that_stands_still_for_a_day_is_nobodys(store: Store) -> None:
    store.begin_file(a_file("f"), 10)
    assert store.files_to_remove(NOW + UPLOAD_S - 1) == []
    assert store.files_to_remove(NOW + UPLOAD_S) == ["f"]


def test_only_what_is_here_can_be_made_a_batch_of(store: Store) -> None:
    assert not store.add_batch(a_batch("b"), NOW, most_open=9, most=9)
    store.keep_file(a_file("f", "other"), MOST)
    assert not store.add_batch(a_batch("b"), NOW, most_open=9, most=9)


def test_a_tenant_has_so_many_open_batches(store: Store) -> None:
    with_batches(store, "a", "b")
    claimed(store, "me")
    with pytest.raises(TooManyError):
        store.add_batch(a_batch("c", file="f-t"), NOW, most_open=2, most=1000)
    with_batches(store, "other", tenant="u")
    store.refused("me", "a", b"null", NOW)
    assert store.add_batch(a_batch("c", file="f-t"), NOW, most_open=2, most=1000)


def test_of_batches_that_have_ended_the_newest_are_kept_and_of_open_ones_all(store: Store) -> None:
    with_batches(store, "a", "b", "c")
    claimed(store, "me")
    for id in ("b", "c"):
        store.refused("me", id, b"null", NOW)
    assert store.add_batch(a_batch("d", file="f-t"), NOW, most_open=9, most=2)
    shown = store.batches("t", limit=9, after=None)
    assert shown is not None
    assert [each.id for each in shown] == ["d", "c", "a"]


def test_of_two_owners_one_has_a_batch_until_its_lease_is_over(store: Store, path: Path) -> None:
    other = Store(path)
    with_batches(store, "b")
    assert claimed(store, "me") == ["b"]
    assert claimed(other, "you", NOW + 9) == []
    assert store.renew("me", ["b"], NOW + 9, 10) == {"b": Status.VALIDATING}
    assert not other.has_open(NOW + 18)
    assert claimed(other, "you", NOW + 18) == []
    assert other.has_open(NOW + 19)
    assert claimed(other, "you", NOW + 19) == ["b"]
    # Who has lost it does not get it back, nor is he heard.
    assert store.renew("me", ["b"], NOW + 19, 10) == {}
    with pytest.raises(LostError):
        store.record("me", "b", [done(1)])
    for lost in (
        lambda: store.validated("me", "b", 1, "m", NOW),
        lambda: store.refused("me", "b", b"null", NOW),
        lambda: store.happened("me", "b", Event.DONE, NOW),
        lambda: store.finish("me", "b", Event.WRITTEN, NOW, None, None),
        lambda: store.own("me", "b"),
    ):
        with pytest.raises(LostError):
            lost()
    store.release("me", ["b"])
    assert claimed(store, "me", NOW + 20) == []
    other.release("you", ["b"])
    assert claimed(store, "me", NOW + 20) == ["b"]
    other.close()


def test_who_has_the_fewest_batches_at_work_is_next(store: Store) -> None:
    with_batches(store, "a1", "a2", "a3")
    with_batches(store, "b1", tenant="u")
    assert claimed(store, "me", most=1) == ["a1"]
    assert claimed(store, "me", most=1) == ["b1"]
    assert claimed(store, "me", most=5) == ["a2", "a3"]


def test_what_was_cancelled_or_is_over_can_be_claimed_alone(store: Store) -> None:
    with_batches(store, "a", "b", "c")
    assert not store.has_open(NOW, Waiting.ENDING)
    store.cancel("t", "b", NOW)
    assert store.has_open(NOW, Waiting.ENDING)
    assert claimed(store, "me", NOW, 10, Waiting.ENDING) == ["b"]
    assert not store.has_open(NOW, Waiting.ENDING)
    over = NOW + 86400
    store.renew("me", ["b"], over, 10)
    assert claimed(store, "me", over, 1, Waiting.ENDING) == ["a"]
    assert claimed(store, "me", over, 9, Waiting.ENDING) == ["c"]


def test_the_first_of_each_tenant_can_be_claimed_alone(store: Store) -> None:
    with_batches(store, "a1", "a2", tenant="a")
    with_batches(store, "b1", "b2", tenant="b")
    with_batches(store, "c1", "c2", tenant="c")
    assert claimed(store, "me", most=1) == ["a1"]
    assert claimed(store, "me", most=10, which=Waiting.FIRST) == ["b1", "c1"]
    assert not store.has_open(NOW, Waiting.FIRST)
    assert store.has_open(NOW)
    store.release("me", ["b1"])
    assert claimed(store, "you", most=10, which=Waiting.FIRST) == ["b1"]


def test_an_answer_counts_once(store: Store) -> None:
    with_batches(store, "b")
    claimed(store, "me")
    store.validated("me", "b", 3, "m", NOW)
    store.record("me", "b", [done(1), done(2, good=False)])
    store.record("me", "b", [done(1, good=False, output=b"again\n"), done(3)])
    batch = store.own("me", "b")
    assert (batch.total, batch.completed, batch.failed) == (3, 2, 1)
    assert (batch.input_tokens, batch.cached_tokens, batch.output_tokens, batch.reasoning_tokens) == (3, 6, 9, 12)
    assert store.lines_done("b") == {1, 2, 3}
    assert store.answers("b", 0, 9, good=True) == [(1, b"x\n"), (3, b"x\n")]
    assert store.answers("b", 1, 9, good=True) == [(3, b"x\n")]


def test_a_batch_that_ends_has_its_files_and_no_answers_any_more(store: Store) -> None:
    with_batches(store, "b")
    claimed(store, "me")
    store.validated("me", "b", 3, "m", NOW + 1)
    store.record("me", "b", [done(1)])
    store.happened("me", "b", Event.OVER, NOW + 2)
    output = a_file("o", purpose="batch_output")
    # Its row may have gone meanwhile.
    store.finish("me", "b", Event.CUT_SHORT, NOW + 3, output, None)
    batch = store.batch("t", "b")
    assert batch is not None
    assert (batch.status, batch.completed, batch.failed) == (Status.EXPIRED, 1, 2)
    assert (batch.in_progress_at, batch.finalizing_at, batch.expired_at) == (NOW + 1, NOW + 2, NOW + 3)
    assert (batch.output_file_id, batch.error_file_id) == ("o", None)
    assert store.file("t", "o", NOW) == output
    assert store.lines_done("b") == set()
    assert claimed(store, "you", NOW + 100) == []
    assert [(each.status, each.batches) for each in store.counts()] == [("expired", 1)]
    store.give_room_back()


def test_a_batch_is_cancelled_once_and_not_when_it_has_ended(store: Store) -> None:
    with_batches(store, "b")
    claimed(store, "me")
    assert store.cancel("u", "b", NOW) is None
    first = store.cancel("t", "b", NOW)
    assert first is not None
    assert (first.status, first.cancelling_at) == (Status.CANCELLING, NOW)
    assert store.cancel("t", "b", NOW + 5) == first
    assert store.renew("me", ["b"], NOW, 10) == {"b": Status.CANCELLING}
    # Its validation ends later.
    assert store.validated("me", "b", 2, "m", NOW + 6).status is Status.CANCELLING
    store.finish("me", "b", Event.CUT_SHORT, NOW + 7, None, None)
    with pytest.raises(WrongEventError):
        store.cancel("t", "b", NOW + 8)


def test_pages_go_on_behind_what_has_been_deleted(store: Store) -> None:
    for number in range(6):
        store.keep_file(a_file(f"f{number}", purpose="batch" if number % 2 else "batch_output"), MOST)

    def page(**asked: Any) -> list[str]:
        given = {"limit": 9, "after": None, "newest_first": False, "purpose": None, **asked}
        return [file.id for file in store.files("t", NOW, **given) or []]

    assert page() == [f"f{number}" for number in range(6)]
    assert page(newest_first=True, limit=2) == ["f5", "f4"]
    assert page(purpose="batch") == ["f1", "f3", "f5"]
    store.delete_file("t", "f2", NOW)
    assert page(after="f2") == ["f3", "f4", "f5"]
    assert store.files("u", NOW, limit=9, after="f1", newest_first=True, purpose=None) is None
    with_batches(store, "b1", "b2")
    found = store.batches("t", limit=9, after=None)
    assert found is not None
    assert [batch.id for batch in found] == ["b2", "b1"]
    assert store.batches("t", limit=9, after="none") is None


async def test_a_file_that_is_no_database_is_said_and_opened_again_when_it_is_gone(tmp_path: Path) -> None:
    database = Database(str(tmp_path))
    database.path.write_bytes(b"no database" * 1000)
    with pytest.raises(StorageError) as failed:
        await database.do(Store.counts)
    assert failed.value.problem.status == 500
    assert str(tmp_path) in str(failed.value)
    assert str(tmp_path) not in failed.value.problem.message
    database.path.unlink()
    assert await database.do(Store.counts) == []
    await database.close()


async def test_a_folder_that_cannot_even_be_looked_into_is_said_as_what_cannot_be_read(tmp_path: Path) -> None:
    assert not await Database(str(tmp_path)).is_there()
    database = Database(str(tmp_path / ("x" * 300)))
    with pytest.raises(StorageError):
        await database.is_there()


async def test_a_database_that_another_process_holds_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorrt.serve.llm.batches.tables._BUSY_S", 0.01)
    database = Database(str(tmp_path))
    await database.do(Store.counts)
    other = sqlite3.connect(database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError) as failed:
        await database.do(Store.cancel, "t", "b", NOW)
    assert (failed.value.problem.status, failed.value.problem.retry_after_s) == (503, 1)
    other.execute("ROLLBACK")
    assert await database.do(Store.cancel, "t", "b", NOW) is None
    other.close()
    await database.close()


async def test_a_disk_that_is_full_is_507(tmp_path: Path) -> None:
    database = Database(str(tmp_path))
    # SQLite's own limit stands for the disk's.
    await database.do(lambda store: store._db.execute("PRAGMA max_page_count = 12").fetchall())
    with pytest.raises(StorageError) as failed:
        for number in range(1000):
            await database.do(Store.keep_file, a_file(f"f{number}" * 100), MOST)
    assert failed.value.problem.status == 507
    assert failed.value.problem.code == "insufficient_storage"
    await database.do(lambda store: store._db.execute("PRAGMA max_page_count = 10000").fetchall())
    await database.do(Store.keep_file, a_file("next"), MOST)
    await database.close()
