"""Small cases of the simulator: traces, seeds, policies, what is measured, and a whole run of it."""

import json
import math
from pathlib import Path
from random import Random

import pytest

from loadtests.simulation import command, traces
from loadtests.simulation.engine_model import EngineModel
from loadtests.simulation.fairness import Fairness, fair_shares, jain
from loadtests.simulation.fleet import Failure, Fleet
from loadtests.simulation.intervals import interval
from loadtests.simulation.policies.catalogue import POLICIES, USUAL
from loadtests.simulation.requests import Arrival, Request
from loadtests.simulation.runs import Plan, run, saturation
from loadtests.simulation.sampling import requests, sample
from loadtests.simulation.traces import TraceError

MODEL = EngineModel(
    prefill_tokens_per_s=1000.0, decode_step_s=0.01, chunk_tokens=100, slots=4, kv_tokens=2000, hash_tokens=64
)
DICE = Random(7)
ARRIVALS = [
    Arrival(
        number * 0.05,
        DICE.randrange(20, 300),
        DICE.randrange(1, 90),
        tuple(range(number % 5 * 100, number % 5 * 100 + 3)),
    )
    for number in range(300)
]
ARRIVALS = [arrival._replace(chain=arrival.chain[: arrival.prompt // 64]) for arrival in ARRIVALS]
PLAN = Plan(MODEL, replicas=3, rate=8.0, count=150)


def test_azures_rows_are_read(tmp_path: Path) -> None:
    file = tmp_path / "azure.csv"
    file.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:04.0319600,3180,8\n2023-11-16 18:17:03.5319600,48,10\n"
    )
    first, second = traces.read(file)
    assert (first.at, first.prompt, first.output) == (0.0, 48, 10)
    assert second.at == pytest.approx(0.5)


def test_mooncakes_rows_are_read_with_their_whole_blocks(tmp_path: Path) -> None:
    file = tmp_path / "mooncake.jsonl"
    rows = [
        {"timestamp": 3000, "input_length": 1100, "output_length": 5, "hash_ids": [4, 5, 6]},
        {"timestamp": 1000, "input_length": 512, "output_length": 0, "hash_ids": [4]},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    first, second = traces.read(file)
    assert (first.chain, first.output) == ((4,), 1)
    assert (second.at, second.chain) == (2.0, (4, 5))


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "no trace that is known"), ("hello\n", "begins with 'hello"), ('{"timestamp": 1}\n', "damaged: KeyError"),
     ("TIMESTAMP,ContextTokens,GeneratedTokens\nx,1,2\n", "damaged"),
     ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "has no requests")],
)  # fmt: skip
def test_what_is_no_trace_is_said_to_be_none(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "trace"
    file.write_text(text)
    with pytest.raises(TraceError, match=said):
        traces.read(file)


def test_a_trace_is_found_by_its_name_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "AzureLLMInferenceTrace_conv.csv"
    file.write_text("")
    assert traces.find("azure-conv", tmp_path) == file
    monkeypatch.setenv(traces.FOLDER_VARIABLE, str(tmp_path))
    assert traces.find("azure-conv", None) == file
    with pytest.raises(TraceError, match="AzurePublicDataset"):
        traces.find("azure-code", None)


def test_a_sample_has_the_rate_and_a_prompt_of_a_later_lap_is_not_cached() -> None:
    found = sample(ARRIVALS, 1000, 20.0, Random(1))
    assert len(found) == 1000
    assert found[0].at == 0.0
    assert found[-1].at == pytest.approx(999 / 20)
    assert [arrival.at for arrival in found] == sorted(arrival.at for arrival in found)
    laps = {hash >> 40 for arrival in found for hash in arrival.chain}
    assert len(laps) > 2
    assert sample(ARRIVALS, 50, 20.0, Random(2)) != sample(ARRIVALS, 50, 20.0, Random(1))


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_brings_all_requests_to_their_end_whatever_dies(policy: str) -> None:
    dice = Random(3)
    wanted = requests(sample(ARRIVALS, 150, 10.0, dice), dice, routers=2)
    fleet = Fleet(MODEL, 3, 2, Random(4))
    made = POLICIES[policy].make(fleet, 0.1)
    fleet.run(made, wanted, [Failure(3.0, 0, 2.0), Failure(6.0, 2, 3.0), Failure(6.5, 0, 1.0)])
    assert all(request.ended >= request.first >= request.arrived for request in wanted)
    assert sum(request.output for request in wanted) == fleet.given_tokens
    assert any(request.attempts > 1 for request in wanted)
    assert made.over_admitted == 0
    for engine in fleet.engines:
        assert engine.kv.used == 0
        assert not engine.running


def test_a_run_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    assert run(ARRIVALS, PLAN, "ours", 1) == run(ARRIVALS, PLAN, "ours", 1)
    assert run(ARRIVALS, PLAN, "ours", 1) != run(ARRIVALS, PLAN, "ours", 2)


def test_saturation_is_where_a_queue_grows() -> None:
    rate = saturation(ARRIVALS, MODEL, 3)
    below, above = (
        run(ARRIVALS, Plan(MODEL, 3, rate * load, 300), "fifo", 1)["ttft_p50"] for load in (0.5, 2.0)
    )  # fmt: skip
    assert above > 5 * below
    assert saturation(ARRIVALS, MODEL, 30) == pytest.approx(10 * saturation(ARRIVALS, MODEL, 3), rel=0.5)


def test_a_deadline_has_the_queue_refuse_what_would_wait_too_long() -> None:
    rate = 2 * saturation(ARRIVALS, MODEL, 3)
    patient = run(ARRIVALS, Plan(MODEL, 3, rate, 300), "ours", 1)
    hasty = run(ARRIVALS, Plan(MODEL, 3, rate, 300, deadline_s=1.0), "ours", 1)
    assert patient["refused_share"] == 0.0
    assert 0.2 < hasty["refused_share"] < 0.8
    assert hasty["goodput"] > patient["goodput"]


def test_the_gap_of_two_tenants_counts_only_while_both_wait() -> None:
    fairness = Fairness(["a", "b"])
    first, second, third = (
        Request(number, Arrival(0.0, 100, 50, tenant=tenant)) for number, tenant in enumerate("aba")
    )  # fmt: skip
    fairness.waits(first, 0.0)
    fairness.served(first, 100, 10, 0.5)
    assert fairness.largest_gap() == 0.0
    fairness.waits(second, 1.0)
    fairness.served(first, 0, 40, 1.5)
    assert fairness.largest_gap() == 60.0
    fairness.left(first, 2.0)
    fairness.served(first, 0, 50, 2.5)
    fairness.waits(third, 3.0)
    fairness.served(third, 7, 0, 3.5)
    assert fairness.largest_gap() == 60.0
    assert fairness.bound(1000, 0) == 4000.0


def test_shares_are_fair_by_weight_and_none_gets_more_than_it_wants() -> None:
    assert fair_shares([10.0, 100.0, 100.0], 70.0, [1.0, 1.0, 2.0]) == pytest.approx([10.0, 20.0, 40.0])
    assert jain([1.0, 1.0, 1.0]) == 1.0
    assert jain([1.0, 0.0, 0.0, 0.0]) == 0.25


def test_an_interval_is_students() -> None:
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half == pytest.approx(2.484, abs=0.001)
    assert math.isnan(interval([1.0]).half)


def test_the_command_prints_a_table_and_writes_what_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "small.csv"
    lines = [f"2023-11-16 18:17:{number % 60:02}.{number:03},{100 + number},{5 + number % 20}" for number in range(120)]
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(lines) + "\n")
    written, page = tmp_path / "runs.json", tmp_path / "table.md"
    arguments = [str(trace), "--policy", "fifo,ours", "--requests", "100", "--seeds", "2", "--processes", "1"]
    assert command.main([*arguments, "--json", str(written), "--markdown", str(page)]) == 0
    shown = capsys.readouterr().out
    assert "2 seeds" in shown
    assert "TTFT p90, s" in shown
    found = json.loads(written.read_text())
    assert [len(found["runs"][policy]) for policy in ("fifo", "ours")] == [2, 2]
    assert page.read_text().splitlines()[2].startswith("| fifo |")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "there is no trace 'nowhere'"),
        ([], "name a trace"),
        (["x", "--policy", "best"], "there is no policy 'best'"),
        (["x", "--replicas", "0"], "--replicas must be at least 1"),
        (["x", "--rate", "-1"], "--rate must be above 0"),
        (["x", "--seeds", "a"], "--seeds is a number of runs"),
        (["x", "--columns", "speed"], "there is no measure 'speed'"),
        (["x", "--engine", "/nowhere.json"], "cannot be read"),
    ],
)
def test_a_mistake_is_a_sentence(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.startswith("simulate.py: ")
    assert "Traceback" not in shown


def test_what_is_compared_by_default_is_there() -> None:
    assert "ours" in USUAL
    assert not any(name.startswith("ours-no-") for name in USUAL)
