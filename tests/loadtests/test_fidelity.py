"""How far the simulator is from real replicas: the fit of the engine, and what is said of a record."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadtests.llm import fidelity
from loadtests.llm.fidelity_replay import BEFORE, compared, fitted, in_order, replayed

TRUTH = replace(BEFORE, prefill_tokens_per_s=300.0, decode_step_s=0.018, decode_step_per_request_s=0.004)


def crowd(count: int, prompt: int, tokens: int) -> list[dict[str, Any]]:
    """What replicas of TRUTH would be noted to have done."""
    asked = [
        {"asked_at": 0.0, "prompt_tokens": prompt + 24, "cached_tokens": 24, "tokens": tokens} for _ in range(count)
    ]
    return [{**one, **seen} for one, seen in zip(asked, replayed(asked, "ours", TRUTH, 2), strict=True)]


def test_the_fit_finds_the_engine_that_made_the_crowds() -> None:
    found = fitted([crowd(1, 60, 12), crowd(1, 6, 24), crowd(8, 6, 24)], 2, BEFORE)
    for name in ("prefill_tokens_per_s", "decode_step_s", "decode_step_per_request_s"):
        assert math.isclose(getattr(found, name), getattr(TRUTH, name), rel_tol=0.25), (name, found)


def test_a_replay_of_what_the_model_itself_did_has_no_error() -> None:
    record = {"busy": {"policy": "ours", "requests": [crowd(6, 40, 10)]}}
    table = compared(record, ["busy"], TRUTH, 2)
    assert "time to first token 0%, time a token 0%, end to end 0%" in table


def test_the_policies_are_put_in_order_by_both() -> None:
    quick, slow = crowd(2, 20, 8), crowd(8, 90, 8)
    record = {
        "mixed": {"policy": "ours", "requests": [quick]},
        "mixed round-robin": {"policy": "round-robin", "requests": [slow]},
    }
    assert "Real: ours < round-robin; simulated: ours < round-robin." in in_order(
        record, ["ours", "round-robin"], TRUTH, 2
    )


def test_a_record_that_lacks_a_run_is_told_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps({name: {} for name in fidelity.runs() if name not in ("busy", "mixed round-robin")}))
    monkeypatch.setattr("sys.argv", ["fidelity", "compare", str(path)])
    with pytest.raises(SystemExit):
        fidelity.main()
    assert "has no record of busy, mixed round-robin" in capsys.readouterr().err
