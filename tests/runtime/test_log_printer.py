"""Printing on the driver's side, with streams of the test's own in place of the terminal."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import threading

import pytest

from actorrt.core.loglines import Line, dropped
from actorrt.runtime.api import log_printer
from actorrt.runtime.api.log_printer import MAX_WAITING, LogPrinter

OUT: Line = ("Counter", 123, False, "hello")
ERR: Line = ("Counter", 123, True, "oh")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_go_to_the_stream_that_they_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    printer = LogPrinter()
    printer([OUT, ERR])
    printer.close()
    assert capsys.readouterr() == ("(Counter pid=123) hello\n", "(Counter pid=123) oh\n")


def test_a_terminal_gets_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    printer = LogPrinter()
    printer([OUT])
    printer.close()
    assert terminal.getvalue().startswith("\033[")


def test_equal_lines_of_several_workers_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    printer = LogPrinter()
    printer([("w", pid, False, "same") for pid in range(1, 9)])
    printer.close()
    assert capsys.readouterr().out == "(w pid=1) same\n(w pid=8) same [repeated 7x]\n"


def test_it_can_be_told_not_to(capsys: pytest.CaptureFixture[str]) -> None:
    printer = LogPrinter(deduplicate=False)
    printer([("w", pid, False, "same") for pid in (1, 2)])
    printer.close()
    assert capsys.readouterr().out == "(w pid=1) same\n(w pid=2) same\n"


def test_an_encoding_without_the_character_shows_its_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    printer = LogPrinter()
    printer([("w", 1, False, "né")])
    printer.close()
    assert raw.getvalue() == b"(w pid=1) n\\xe9\n"


@pytest.mark.parametrize("stream", [None, "closed"])
def test_a_stream_that_is_not_there_is_no_error(monkeypatch: pytest.MonkeyPatch, stream: str | None) -> None:
    gone = io.StringIO()
    gone.close()
    monkeypatch.setattr(sys, "stdout", None if stream is None else gone)
    printer = LogPrinter()
    printer([OUT])
    printer.close()


def test_a_terminal_that_stands_still_holds_up_nobody_and_misses_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read, write = os.pipe()
    text: list[bytes] = []

    def reader() -> None:
        while data := os.read(read, 65536):
            text.append(data)

    with open(write, "w", encoding="utf-8") as stuck:
        monkeypatch.setattr(sys, "stdout", stuck)
        printer = LogPrinter(deduplicate=False)
        for _ in range(5):
            printer([("w", 1, False, "x" * 10)] * MAX_WAITING)
            # What its node had to leave out already is counted too, though there is no room for that line either.
            printer([dropped("w", 1, 1000)])
        assert len(printer._waiting) <= MAX_WAITING
        # Somebody reads again: what was kept comes out, and the rest is counted.
        thread = threading.Thread(target=reader)
        thread.start()
        printer.close()
    thread.join()
    os.close(read)
    missed = sum(map(int, re.findall(r"\[(\d+) lines dropped", capsys.readouterr().err)))
    assert missed > 0
    assert missed + b"".join(text).count(b"\n") == 5 * (MAX_WAITING + 1000)


def test_what_comes_after_the_end_is_ignored() -> None:
    printer = LogPrinter()
    printer.close()
    printer([OUT])
    assert printer._thread is None


def test_the_end_gives_up_on_a_terminal_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_printer, "STUCK_AFTER_S", 0.05)
    read, write = os.pipe()
    with open(write, "w", encoding="utf-8") as stuck:
        monkeypatch.setattr(sys, "stdout", stuck)
        printer = LogPrinter(deduplicate=False)
        printer([("w", 1, False, "x" * 1000)] * 1000)
        printer.close()
        assert printer._thread is not None
        assert printer._thread.is_alive()
        os.close(read)  # the write that hangs fails now
        printer._thread.join()
        # What is left in its buffer can go nowhere.
        with contextlib.suppress(BrokenPipeError):
            stuck.flush()
        monkeypatch.undo()
        with contextlib.suppress(BrokenPipeError):
            stuck.close()
