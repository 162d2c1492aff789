"""What ended sessions leave, how much of it, and that nothing else is ever touched."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from actorrt.config import Settings
from actorrt.runtime.machine import session_logs
from actorrt.runtime.machine.session_folder import INFO, begin, if_ended, node_of, sessions_folder
from actorrt.runtime.machine.session_logs import KEPT_SESSIONS, retire, sweep


def session(folder: Path, log: bytes = b"said\n", alive: bool = False) -> tuple[Path, int]:
    """A session that is locked by this process as long as the descriptor is open; closed, it has ended."""
    node = os.urandom(8)
    path, mark = begin(str(folder), node, {"node": node.hex()})
    made = Path(path)
    (made / "logs" / "node.err").write_bytes(log)
    (made / "spill").mkdir()
    (made / "spill" / "123-456.spill").write_bytes(b"x")
    (made / f"{node.hex()}.at").write_bytes(b"x" * 16)
    with socket.socket(socket.AF_UNIX) as listening:
        fd = os.open(made, os.O_PATH)
        listening.bind(f"/proc/self/fd/{fd}/{node.hex()}.sock")
        os.close(fd)
    if not alive:
        os.close(mark)
    return made, mark


def renamed(made: Path, number: int) -> Path:
    """Ended sessions of one second are in no order; this gives them one."""
    other = made.with_name(f"2026010{number}-000000-1-{number:016x}")
    facts = json.loads((made / INFO).read_text())
    (made / INFO).write_text(json.dumps({**facts, "session": other.name}))
    return made.rename(other)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_only_the_mark_and_the_logs_of_an_ended_session_stay(tmp_path: Path) -> None:
    one, _ = session(tmp_path)
    retire(str(one))
    retire(str(one))
    assert everything(one) == ["logs", "logs/node.err", "session.json"]
    assert (one / "logs" / "node.err").read_bytes() == b"said\n"


def test_a_session_in_which_nothing_was_written_goes_whole(tmp_path: Path) -> None:
    one, _ = session(tmp_path, log=b"")
    retire(str(one))
    retire(str(one))
    assert names(tmp_path) == []


def test_the_oldest_logs_go_and_a_running_session_stays(tmp_path: Path) -> None:
    running, mark = session(tmp_path, alive=True)
    running = renamed(running, 0)
    before = everything(running)
    ended = [renamed(session(tmp_path)[0], number) for number in range(1, 9)]
    for one in ended:
        retire(str(one))
    assert names(tmp_path) == [running.name, *(one.name for one in ended[-KEPT_SESSIONS:])]
    assert everything(running) == before
    os.close(mark)


def test_large_logs_go_sooner_but_the_last_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_logs, "KEPT_BYTES", 10)
    ended = [renamed(session(tmp_path, log=b"x" * 6)[0], number) for number in range(3)]
    for one in ended:
        retire(str(one))
    assert names(tmp_path) == [ended[2].name]
    last = renamed(session(tmp_path, log=b"x" * 60)[0], 3)
    retire(str(last))
    assert names(tmp_path) == [last.name]


def test_a_sweep_takes_sessions_of_which_nobody_holds_the_lock(tmp_path: Path) -> None:
    lives, mark = session(tmp_path, alive=True)
    before = everything(lives)
    killed, _ = session(tmp_path)
    sweep(str(tmp_path))
    assert everything(lives) == before
    assert everything(killed) == ["logs", "logs/node.err", "session.json"]
    os.close(mark)
    sweep(str(tmp_path))
    assert everything(lives) == ["logs", "logs/node.err", "session.json"]


def no_mark(made: Path) -> None:
    (made / INFO).unlink()


def another_boot(made: Path) -> None:
    facts = json.loads((made / INFO).read_text())
    (made / INFO).write_text(json.dumps({**facts, "boot": "ce8dbd80-7f1d-4d0e-9b5f-7d1a2c3b4d5e"}))


def unlocked_file_system(made: Path) -> None:
    facts = json.loads((made / INFO).read_text())
    (made / INFO).write_text(json.dumps({**facts, "locked": False}))


def mark_of_another(made: Path) -> None:
    facts = json.loads((made / INFO).read_text())
    (made / INFO).write_text(json.dumps({**facts, "session": "20260101-000000-1-0123456789abcdef"}))


def not_json(made: Path) -> None:
    (made / INFO).write_bytes(b"\xff{")


def a_list(made: Path) -> None:
    (made / INFO).write_text("[]")


def mark_is_a_link(made: Path) -> None:
    (made / INFO).rename(made / "elsewhere.json")
    (made / INFO).symlink_to(made / "elsewhere.json")


def mark_is_a_fifo(made: Path) -> None:
    (made / INFO).unlink()
    os.mkfifo(made / INFO)


def another_name(made: Path) -> None:
    made.rename(made.with_name("my-experiments"))


@pytest.mark.parametrize(
    "change",
    [
        no_mark,
        another_boot,
        unlocked_file_system,
        mark_of_another,
        not_json,
        a_list,
        mark_is_a_link,
        mark_is_a_fifo,
        another_name,
    ],
)
def test_a_sweep_leaves_what_is_not_surely_an_ended_session(tmp_path: Path, change: Callable[[Path], None]) -> None:
    change(session(tmp_path)[0])
    before = everything(tmp_path)
    sweep(str(tmp_path))
    assert everything(tmp_path) == before


def test_no_file_of_the_users_is_touched_in_or_beside_or_behind_a_session(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    (theirs / "logs").mkdir(parents=True)
    (theirs / "logs" / "node.err").write_text("precious")
    folder = tmp_path / "sessions"
    folder.mkdir()
    (folder / "notes.txt").write_text("precious")
    # Behind a link that is named as a session, with a mark to match.
    ended, _ = session(theirs)
    (folder / ended.name).symlink_to(ended)
    one, _ = session(folder)
    for path in ("results.csv", "model.sock", "0123456789abcdef.sock", "spill/cache.bin", "logs/mine.txt"):
        (one / path).write_text("precious")
    (one / "data").symlink_to(theirs)
    two, _ = session(folder, log=b"")
    (two / "logs" / "node.err").unlink()
    (two / "logs").rmdir()
    (two / "logs").symlink_to(theirs / "logs")
    (two / "kept.txt").write_text("precious")
    behind = everything(theirs)
    sweep(str(folder))
    retire(str(one))
    retire(str(folder / ended.name))
    assert everything(theirs) == behind
    assert (folder / "notes.txt").exists()
    assert {"results.csv", "model.sock", "0123456789abcdef.sock", "spill", "data"} < set(names(one))
    assert names(one / "spill") == ["cache.bin"]
    assert {"mine.txt", "node.err"} == set(names(one / "logs"))
    assert names(two) == ["kept.txt", "logs"]
    # Also when its logs are too old to be kept.
    for _ in range(KEPT_SESSIONS + 1):
        retire(str(session(folder)[0]))
    assert (one / "results.csv").exists()
    assert "mine.txt" in names(one / "logs")


def test_sweeps_that_meet_do_each_thing_once_and_spare_the_sessions_that_begin(tmp_path: Path) -> None:
    for _ in range(8):
        session(tmp_path, log=b"")
    failed: list[BaseException] = []
    begun: list[tuple[Path, int]] = []

    def run() -> None:
        try:
            for _ in range(20):
                made, mark = session(tmp_path, alive=True)
                sweep(str(tmp_path))
                assert (made / INFO).exists()
                assert len(names(made)) == 5
                begun.append((made, mark))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len(names(tmp_path)) == len(begun) == 80
    for _, mark in begun:
        os.close(mark)


def test_where_the_file_system_has_no_locks_only_its_own_processes_end_a_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(fd: int, operation: int) -> NoReturn:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", no_locks)
        made, mark = session(tmp_path, alive=True)
    before = everything(made)
    sweep(str(tmp_path))
    assert everything(made) == before
    os.close(mark)
    sweep(str(tmp_path))
    assert everything(made) == before
    retire(str(made))
    assert everything(made) == ["logs", "logs/node.err", "session.json"]


def test_an_ended_session_is_held_by_who_looks_at_it(tmp_path: Path) -> None:
    made, _ = session(tmp_path)
    with if_ended(str(made)) as first, if_ended(str(made)) as second:
        assert first is not None
        assert second is None
    with if_ended(str(made)) as again:
        assert again is not None


def test_a_session_is_named_after_its_node(tmp_path: Path) -> None:
    made, mark = session(tmp_path, alive=True)
    assert f"{node_of(str(made) + '/').hex()}.sock" in names(made)
    os.close(mark)
    with pytest.raises(ValueError, match="no session's folder"):
        node_of(str(tmp_path))


def test_sessions_lie_in_a_folder_of_their_own_that_only_the_user_may_look_into(tmp_path: Path) -> None:
    settings = Settings(temp_dir=str(tmp_path / "a" / "b"))
    folder = Path(sessions_folder(settings))
    assert folder == tmp_path / "a" / "b" / f"actorrt-{os.getuid()}"
    folder.chmod(0o755)
    (tmp_path / "a" / "b").chmod(0o755)
    assert sessions_folder(settings) == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o755


def test_a_link_in_the_place_of_that_folder_is_refused_and_what_it_leads_to_left_alone(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir(mode=0o755)
    (tmp_path / f"actorrt-{os.getuid()}").symlink_to(work)
    with pytest.raises(OSError, match="ACTORRT_TEMP_DIR"):
        sessions_folder(Settings(temp_dir=str(tmp_path)))
    assert work.stat().st_mode & 0o777 == 0o755
    (tmp_path / f"actorrt-{os.getuid()}").unlink()
    (tmp_path / f"actorrt-{os.getuid()}").write_text("a file")
    with pytest.raises(OSError, match="ACTORRT_TEMP_DIR"):
        sessions_folder(Settings(temp_dir=str(tmp_path)))


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a folder away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / f"actorrt-{os.getuid()}").mkdir()
    os.chown(tmp_path / f"actorrt-{os.getuid()}", 65534, 65534)
    with pytest.raises(PermissionError, match="another user"):
        sessions_folder(Settings(temp_dir=str(tmp_path)))
