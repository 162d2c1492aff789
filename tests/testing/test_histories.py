"""Histories in virtual time: that they keep what is promised, and that a seed gives the same one each time."""

import os
import subprocess
import sys

import pytest

from actorrt.runtime.links.link import Link
from actorrt.runtime.owner.actor_places import ActorPlaces
from actorrt.runtime.owner.calls import Call
from actorrt.testing.__main__ import main
from actorrt.testing.histories import history

# Of 1932 a link to the node ends before its driver has joined.
SEEDS = (*range(60), 1932)
TELL = "from actorrt.testing.histories import history; print(history({}).story())"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_history_keeps_what_is_promised(seed: int) -> None:
    outcome = history(seed)
    assert outcome.broken == [], outcome.story()


def test_the_histories_hold_what_they_are_for() -> None:
    counts = sum((history(seed).counts for seed in range(40)), start=history(40).counts)
    rare = {"cuts", "resumes", "stops", "slow", "partitions", "crashes", "streams", "raised", "cancelled"}
    assert [kind for kind in rare if counts[kind] < 5] == []
    assert counts["values"] > counts["calls"] / 2


@pytest.mark.parametrize("seed", [3, 12, 16])
def test_a_seed_tells_the_same_story_in_any_process(seed: int) -> None:
    stories = {
        subprocess.run(
            [sys.executable, "-c", TELL.format(seed)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "77")
    }
    assert len(stories) == 1


def test_a_seed_tells_the_same_story_after_others() -> None:
    first = history(12).story()
    for seed in range(5):
        history(seed)
    assert history(12).story() == first


def test_a_seed_of_the_environment_is_run_alone_and_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEED", "3")
    assert main([]) == 0
    told = capsys.readouterr().out
    assert "\nseed 3: " in told
    assert history(3).story(0) in told
    # What is asked for by hand counts more.
    assert main(["--seed", "4"]) == 0
    assert "\nseed 4: " in capsys.readouterr().out
    monkeypatch.setenv("SEED", "all")
    with pytest.raises(SystemExit):
        main([])
    assert "--seed: invalid int value: 'all'" in capsys.readouterr().err


def test_a_task_that_fails_and_is_asked_by_nobody_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(places: ActorPlaces, link: Link, under_way: list[Call]) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ActorPlaces, "link_lost", fails)
    broken = [line for seed in range(10) for line in history(seed).broken]
    assert [line for line in broken if "never retrieved" in line and "ZeroDivisionError" in line]
