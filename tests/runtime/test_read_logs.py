"""Logs are found by the process that has printed them, and read to their ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from actorrt.runtime.machine import read_logs
from actorrt.runtime.machine.session_folder import LOGS

ONE, TWO = "a" * 16, "ab" * 8


@pytest.fixture
def session(tmp_path: Path) -> str:
    folder = tmp_path / LOGS
    folder.mkdir()
    for name in (f"worker-{ONE}-12.out", f"worker-{ONE}-12.err", f"worker-{TWO}-13.out", f"worker-{TWO}-13.out.1"):
        (folder / name).write_text(f"of {name}\nlast", encoding="utf-8")
    (folder / "node.err").write_text("", encoding="utf-8")
    return str(tmp_path)


def test_a_log_is_found_by_pid_and_by_the_first_digits_of_an_id(session: str) -> None:
    names = read_logs.names(session)
    assert read_logs.of_process(names, "13", "out") == f"worker-{TWO}-13.out"
    assert read_logs.of_process(names, "aaa", "err") == f"worker-{ONE}-12.err"
    assert read_logs.of_process(names, "node", "out") == "node.err"
    assert read_logs.of_process(names, "ff", "out") is None
    assert read_logs.of_process(names, "", "out") is None
    with pytest.raises(ValueError, match="'a' begins the ids of 2 workers"):
        read_logs.of_process(names, "a", "out")


def test_logs_are_told_apart_by_what_they_are(session: str) -> None:
    kinds = read_logs.kinds(read_logs.names(session))
    assert {kind: len(names) for kind, names in kinds.items()} == {"node": 1, "worker_out": 3, "worker_err": 1}
    assert read_logs.names(session, "-12.") == [f"worker-{ONE}-12.err", f"worker-{ONE}-12.out"]
    assert read_logs.names("/nowhere") == []


def test_lines_are_read_from_the_end_or_the_beginning(session: str) -> None:
    name = f"worker-{ONE}-12.out"
    assert list(read_logs.lines(session, name, follow=False, tail=-1)) == [f"of {name}", "last"]
    assert list(read_logs.lines(session, name, follow=False, tail=1)) == ["last"]
    assert list(read_logs.lines(session, name, follow=False, tail=0)) == []


def test_what_is_no_log_is_a_sentence(session: str) -> None:
    for name in ("node.out", "../session.json", "/etc/passwd", read_logs.name_of(ONE, 2**22 + 1, "out")):
        with pytest.raises(ValueError, match=r"there is no log .* in this session: list_logs\(\) names them"):
            read_logs.lines(session, name, follow=True, tail=-1)


def test_a_worker_that_has_printed_nothing_yet_has_an_empty_log(session: str) -> None:
    name = read_logs.name_of("c" * 16, os.getpid(), "out")
    assert list(read_logs.lines(session, name, follow=False, tail=-1)) == []
