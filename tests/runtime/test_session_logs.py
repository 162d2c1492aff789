"""What ended sessions leave, and how much of it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from actorrt.runtime import session_logs
from actorrt.runtime.session_logs import KEPT_SESSIONS, YOUNG_S, retire, sweep


def session(folder: Path, name: str, log: bytes = b"said\n", pid: int | None = None) -> Path:
    made = folder / name
    (made / "logs").mkdir(parents=True)
    (made / "logs" / "node.err").write_bytes(log)
    (made / "session.json").write_text(json.dumps({"pid": os.getpid() if pid is None else pid}))
    (made / "spill").mkdir()
    (made / "spill" / "object").write_bytes(b"x")
    return made


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_only_the_logs_of_an_ended_session_stay(tmp_path: Path) -> None:
    one = session(tmp_path, "1")
    retire(str(one))
    retire(str(one))
    assert names(one) == ["logs"]
    assert (one / "logs" / "node.err").read_bytes() == b"said\n"


def test_a_session_in_which_nothing_was_written_goes_whole(tmp_path: Path) -> None:
    one = session(tmp_path, "1", log=b"")
    retire(str(one))
    retire(str(one))
    assert names(tmp_path) == []


def test_the_oldest_logs_go_and_a_running_session_stays(tmp_path: Path) -> None:
    running = session(tmp_path, "0")
    for number in range(1, 9):
        retire(str(session(tmp_path, str(number))))
    assert names(tmp_path) == ["0", *(str(number) for number in range(9 - KEPT_SESSIONS, 9))]
    assert len(names(running)) == 3


def test_large_logs_go_sooner_but_the_last_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_logs, "KEPT_BYTES", 10)
    for number in range(3):
        retire(str(session(tmp_path, str(number), log=b"x" * 6)))
    assert names(tmp_path) == ["2"]
    retire(str(session(tmp_path, "3", log=b"x" * 60)))
    assert names(tmp_path) == ["3"]


def test_a_sweep_takes_sessions_of_which_no_process_is_left(tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    old = YOUNG_S + 10
    for name, pid in (("driver-lives", os.getpid()), ("node-lives", ended.pid), ("killed", ended.pid)):
        made = session(tmp_path, name, pid=pid)
        os.utime(made, (made.stat().st_atime - old, made.stat().st_mtime - old))
    session(tmp_path, "young", pid=ended.pid)
    sweep(str(tmp_path), lambda path: path.endswith("node-lives"))
    assert {name: len(names(tmp_path / name)) for name in names(tmp_path)} == {
        "driver-lives": 3,
        "killed": 1,
        "node-lives": 3,
        "young": 3,
    }
