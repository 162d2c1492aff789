"""What `simulate.py` is asked for and cannot do it says in a sentence, before it runs anything."""

import json
from pathlib import Path
from typing import Any

import pytest

from loadtests.simulation import command, probe
from loadtests.simulation.engine_model import EngineModel

SMALL = ("--workload", "sessions", "--policy", "fifo", "--requests", "100", "--replicas", "2", "--processes", "1")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--json", "/nonexist/x.json"), "--json /nonexist/x.json cannot be written: there is no folder /nonexist"),
        (("--plot", "/nonexist/x.svg"), "--plot /nonexist/x.svg cannot be written: there is no folder /nonexist"),
        (("--markdown", "/nonexist/x"), "--markdown /nonexist/x cannot be written: there is no folder /nonexist"),
        (("--json", "/"), "--json / is a folder: name a file"),
        (
            ("--fit", "http://h", "--engine", "/nonexist/e"),
            "--engine /nonexist/e cannot be written: there is no folder",
        ),
        (("--rate", "1e-300"), "100 requests at 1e-300 a second take 1e+302 s of virtual time, and a run a week"),
        (("--rate", "1e-320"), "of virtual time, and a run a week (604,800 s) at most"),
        (("--rate", "1e300"), "--workload sessions has 10,000 requests a second at most, not 1e+300"),
        (("--load", "1e-300"), "of virtual time, and a run a week"),
        (("--seeds", "1,1"), "--seeds '1,1' names a run twice"),
        (("--seeds", "3,-3"), "--seeds must be zero or more, not -3"),
        (("--seeds", "1000000"), "--seeds must name 1,000 runs at most, not 1,000,000"),
        (("--kv-tokens", "5"), "a replica with 5 tokens has no block of 16"),
        (("--kv-tokens", "-5"), "kv_tokens of an engine must be a number from 1e-09 on, not -5"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    asked: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def compare(*_: Any) -> None:
        raise AssertionError("it runs")

    monkeypatch.setattr(command, "compare", compare)
    assert command.main([*SMALL, *asked]) == 2
    shown = capsys.readouterr().err.splitlines()[-1]
    assert shown.startswith("simulate.py: ")
    assert said in shown


def test_a_file_that_may_not_be_written_any_more_is_said_in_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    def compare(*_: Any) -> dict[str, list[dict[str, float]]]:
        folder.rmdir()
        return {}

    monkeypatch.setattr(command, "compare", compare)
    monkeypatch.setattr(command.table, "show", lambda *_: None)
    assert command.main([*SMALL, "--rate", "5", "--json", str(folder / "x.json")]) == 2
    assert "x.json cannot be written or read: No such file or directory" in capsys.readouterr().err


def test_what_a_replica_holds_and_how_many_deaths_there_are_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tmp_path / "found.json"
    asked = [*SMALL, "--rate", "5", "--seeds", "1", "--kv-tokens", "20000", "--failures", "5", "--json", str(found)]
    assert command.main(asked) == 0
    assert json.loads(found.read_text())["plan"]["model"]["kv_tokens"] == 20_000
    assert "5 deaths" in capsys.readouterr().out


def test_slots_that_were_not_measured_are_said_to_be_assumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tmp_path / "engine.json"
    for slots, said in ((32, ", 32 slots assumed (so many streams ran at once"), (8, ", 8 slots, ")):
        monkeypatch.setattr(probe, "fit", lambda *_, slots=slots: EngineModel(slots=slots))
        assert command.main(["--fit", "http://h", "--engine", str(engine)]) == 0
        assert said in capsys.readouterr().out
