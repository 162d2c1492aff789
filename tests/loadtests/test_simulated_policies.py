"""Small cases of the simulator: traces, seeds, policies, what is measured, and a whole run of it."""

import json
import math
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from loadtests.simulation import command, pages, sessions, traces
from loadtests.simulation.engine_model import EngineModel, ModelError
from loadtests.simulation.fairness import Fairness, fair_shares, jain
from loadtests.simulation.fit import Seen, fitted
from loadtests.simulation.fleet import Failure, Fleet
from loadtests.simulation.intervals import interval
from loadtests.simulation.policies.catalogue import POLICIES, SPLIT, USUAL
from loadtests.simulation.policies.credits import MESSAGE_S
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


def test_azures_rows_of_2024_name_their_zone(tmp_path: Path) -> None:
    file = tmp_path / "azure.csv"
    rows = "2024-05-10 00:00:00.009930+00:00,2162,5\r\n2024-05-10 00:00:01+00:00,2399,6\r\n"
    # With a mark before it, as some editors write.
    file.write_bytes(f"\ufeffTIMESTAMP,ContextTokens,GeneratedTokens\r\n{rows}".encode())
    first, second = traces.read(file)
    assert (first.prompt, second.prompt) == (2162, 2399)
    assert second.at == pytest.approx(0.99007)


def test_rows_like_mooncakes_need_no_hashes(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text('{"timestamp": 0, "input_length": 1100, "output_length": 5}\n')
    (found,) = traces.read(file)
    assert (found.prompt, found.chain) == (1100, ())


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


ROW = '{"timestamp": 0, "input_length": 1, "output_length": 1}'


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "no trace that is known"), ("hello\n", "begins with 'hello"), ('{"timestamp": 1}\n', "line 1: KeyError"),
     (f"{ROW}\n\n{ROW.replace('0', 'NaN')}\n", "line 3: ValueError: a time must be finite, not nan"),
     (f'{ROW}\n{{"timestamp": 1, "in', "line 2: JSONDecodeError"),
     ("TIMESTAMP,ContextTokens,GeneratedTokens\nx,1,2\n", "line 2: ValueError"),
     ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "has no requests")],
)  # fmt: skip
def test_what_is_no_trace_is_said_to_be_none(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "trace"
    file.write_text(text)
    with pytest.raises(TraceError, match=said):
        traces.read(file)


def test_servegens_clients_send_as_often_and_as_much_as_their_tables_say(tmp_path: Path) -> None:
    clients = tmp_path / "servegen_x_clients.csv"
    clients.write_text(
        "client,window_start_s,rate_rps,cv,pattern,param1,param2\n0,600,2.0,1,Gamma,0.5,9\n1,600,0.5,3,Weibull,0.5,9\n"
        "0,0,9.0,1,Gamma,1,1\n"
    )
    with pytest.raises(TraceError, match="no table of tokens"):
        traces.read(clients)
    quantiles = tmp_path / "servegen_x_token_quantiles.csv"
    quantiles.write_text(
        "client,field,mean,p1,p5,p10,p25,p50,p75,p90,p95,p99\n"
        "0,input_tokens,5,10,20,30,40,50,60,70,80,90\n0,output_tokens,5,1,1,1,2,2,2,3,3,3\n"
    )
    found = traces.read(clients)
    count = sum(arrival.tenant == "client 0" for arrival in found)
    assert 900 < count < 1500
    assert 150 < len(found) - count < 500
    assert all(10 <= arrival.prompt <= 90 and 1 <= arrival.output <= 3 for arrival in found)
    assert traces.read(clients) == found


def test_a_turn_of_a_conversation_begins_with_all_that_was_said_before() -> None:
    found = sessions.make(400, 5.0, seed=3)
    assert 300 < len(found) < 500
    last: dict[str, Arrival] = {}
    turns = 0
    for arrival in found:
        before = last.get(arrival.session)
        if before is not None:
            turns += 1
            assert arrival.at > before.at
            assert arrival.prompt > before.prompt + before.output
            spoken = (*before.chain, *before.answer)
            assert arrival.chain[: len(spoken)] == spoken
        assert len(arrival.chain) == arrival.prompt // 512
        assert len(arrival.chain) + len(arrival.answer) == (arrival.prompt + arrival.output) // 512
        last[arrival.session] = arrival
    assert turns > 100


def test_a_model_is_fitted_to_what_was_seen() -> None:
    truth = EngineModel(
        prefill_tokens_per_s=2000.0, decode_step_s=0.02, decode_step_per_request_s=0.003,
        decode_step_per_context_token_s=1e-6, overhead_s=0.01, slots=6,
    )  # fmt: skip
    seen = Seen(
        [(tokens, 0.01 + tokens / 2000) for tokens in (30, 200, 900)],
        [(count, context, truth.decode_s(count, context)) for count, context in ((1, 40), (2, 80), (4, 160), (1, 900))],
        6,
    )
    found = fitted(seen, EngineModel())
    assert [getattr(found, name) for name in ("prefill_tokens_per_s", "overhead_s", "slots")] == pytest.approx(
        [2000.0, 0.01, 6]
    )
    assert found.decode_s(3, 500) == pytest.approx(truth.decode_s(3, 500))


def test_how_often_a_stream_goes_on_while_a_prompt_is_read_says_how_much_a_step_reads() -> None:
    truth = EngineModel(
        prefill_tokens_per_s=100.0, decode_step_s=0.02, decode_step_per_request_s=0.01, overhead_s=0.0, slots=4,
        decode_step_per_context_token_s=0.0, chunk_tokens=8, batch_tokens=8, read_step_s=0.01,
    )  # fmt: skip
    gap = truth.step_s(7, 1, 0)
    seen = Seen(
        [(tokens, tokens / 8 * truth.step_s(8, 0, 0)) for tokens in (80, 800)],
        [(count, count * 40, truth.decode_s(count, 0)) for count in (1, 2, 4)],
        4,
        [(700, 100 * gap, gap), (350, 50 * gap, gap)],
    )
    found = fitted(seen, EngineModel())
    assert (found.chunk_tokens, found.batch_tokens) == (8, 8)
    assert found.prefill_tokens_per_s == pytest.approx(100.0)
    assert found.read_step_s == pytest.approx(0.01)


def test_what_was_seen_of_no_engine_is_no_model() -> None:
    with pytest.raises(ModelError, match="not read in more time"):
        fitted(Seen([(10, 2.0), (100, 1.0)], [(1, 10, 0.1)], 1), EngineModel())
    with pytest.raises(ModelError, match="two lengths"):
        fitted(Seen([(10, 2.0)], [(1, 10, 0.1)], 1), EngineModel())


def test_requests_of_the_batch_band_run_beside_the_others_and_are_not_waited_for() -> None:
    found = run(ARRIVALS, Plan(MODEL, 3, 4.0, 150, batch=400), "ours", 1)
    assert found["requests"] == 135
    assert found["batch_left"] > 0
    assert found["batch_tokens_per_s"] > 0


def test_a_higher_class_takes_the_slot_of_one_that_has_not_begun() -> None:
    model = EngineModel(prefill_tokens_per_s=1000.0, slots=2, chunk_tokens=100, kv_tokens=2000)
    arrivals = [Arrival(0.0, 900, 5, band=3), Arrival(0.1, 900, 5, band=3), Arrival(0.2, 900, 5, band=3),
                Arrival(0.3, 300, 5, band=0)]  # fmt: skip
    wanted = [Request(number, arrival) for number, arrival in enumerate(arrivals)]
    fleet = Fleet(model, 1, 1, Random(1))
    fleet.run(POLICIES["classes"].make(fleet, 0.0), wanted)
    assert wanted[3].first < wanted[2].first


def test_held_requests_of_tenants_go_to_the_one_that_was_given_least() -> None:
    model = EngineModel(prefill_tokens_per_s=100.0, slots=8, chunk_tokens=100, kv_tokens=20000)
    arrivals = [Arrival(0.001 * number, 500, 2, tenant="many") for number in range(6)]
    arrivals.append(Arrival(0.1, 500, 2, tenant="few"))
    wanted = [Request(number, arrival) for number, arrival in enumerate(arrivals)]
    fleet = Fleet(model, 1, 1, Random(1))
    fleet.run(POLICIES["sticky"].make(fleet, 0.0), wanted)
    assert wanted[6].first < wanted[1].first


def test_where_a_prompt_was_read_it_goes_again_but_not_to_one_that_is_full() -> None:
    chain = tuple(range(8))
    arrivals = [Arrival(0.0, 520, 2, chain), *(Arrival(20.0, 520, 2, chain) for _ in range(200))]
    for policy, replicas in (("prefix-only", 1), ("shortest-uncached", 3)):
        wanted = [Request(number, arrival) for number, arrival in enumerate(arrivals)]
        fleet = Fleet(MODEL, 3, 1, Random(1))
        fleet.run(POLICIES[policy].make(fleet, 0.0), wanted)
        assert len({request.replica for request in wanted}) == replicas
        assert wanted[1].replica == wanted[0].replica


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


def test_a_prompt_is_read_by_one_replica_and_answered_by_another() -> None:
    model = replace(MODEL, handover_per_token_s=0.001)
    arrivals = [Arrival(0.0, 250, 20, (1, 2, 3)), Arrival(10.0, 260, 20, (1, 2, 3, 4))]
    wanted = [Request(number, arrival) for number, arrival in enumerate(arrivals)]
    fleet = Fleet(model, 2, 1, Random(1))
    fleet.run(POLICIES[SPLIT].make(fleet, 0.0), wanted)
    first, second = wanted
    # Read in three chunks, handed over, and the last token of the prompt is read once more.
    assert first.first == pytest.approx(0.25 + 0.25 + 0.001)
    assert first.ended - first.first == pytest.approx(19 * 0.01, rel=0.01)
    assert (first.cached, second.cached) == (0, 3 * 64)
    assert {request.replica for request in wanted} == {1}
    assert fleet.read_tokens == 250 + 260 - 3 * 64


def test_where_others_read_no_answer_waits_for_a_prompt() -> None:
    together, apart = (run(ARRIVALS, PLAN, policy, 2) for policy in ("ours", SPLIT))
    assert apart["itl_p99"] < together["itl_p99"] / 2
    assert apart["over_admission"] == 0


def test_short_prompts_go_by_credits_until_somebody_waits_and_nothing_is_given_twice() -> None:
    plan = replace(PLAN, model=replace(MODEL, slots=16, kv_tokens=30_000), routers=2, rate=5.0)
    light, heavy = run(ARRIVALS, plan, "ours-credits", 3), run(ARRIVALS, replace(plan, rate=300.0), "ours-credits", 3)
    assert light["by_credit"] > 0.05
    assert 0 < light["stranded_mean"] <= light["stranded_most"] <= light["stranded_bound"]
    assert heavy["by_credit"] < light["by_credit"]
    assert light["over_admission"] == heavy["over_admission"] == 0
    assert light["good_share"] + light["refused_share"] <= 1


def test_to_ask_a_queue_in_another_process_takes_two_messages() -> None:
    plan = replace(PLAN, rate=0.5, count=100)
    here, apart = run(ARRIVALS, plan, "ours", 3), run(ARRIVALS, plan, "ours-apart", 3)
    assert apart["ttft_p50"] == pytest.approx(here["ttft_p50"] + 2 * MESSAGE_S, abs=1e-6)


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
    plot = tmp_path / "plot.svg"
    assert command.main([*arguments, "--json", str(written), "--markdown", str(page), "--plot", str(plot)]) == 0
    assert "goodput, req/s" in plot.read_text()
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
        (
            ["x", "--policy", "ours-split", "--prefill", "8"],
            "--prefill must be above 0 and below --replicas (8), not 8",
        ),
        (["x", "--policy", "ours", "--prefill", "2"], "--prefill is for the policy ours-split alone"),
        (["x", "--policy", "ours-split", "--replicas", "1"], "ours-split needs two replicas at least"),
        (["x", "--rate", "-1"], "--rate must be above 0"),
        (["x", "--seeds", "a"], "--seeds is a number of runs"),
        (["x", "--columns", "speed"], "there is no measure 'speed'"),
        (["--fit", "http://127.0.0.1:9", "--engine", "x"], "cannot be measured"),
        (["--fit", "http://127.0.0.1:9"], "name one"),
        (["--workload", "sessions", "mooncake"], "leave out 'mooncake'"),
        (["x", "--plot", "x.txt"], "--plot draws"),
        (["x", "--engine", "/nowhere.json"], "cannot be read"),
    ],
)
def test_a_mistake_is_a_sentence(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(arguments) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.startswith("simulate.py: ")
    assert "Traceback" not in shown


def test_the_tables_go_between_the_marks_of_their_page() -> None:
    runs = {
        policy: [dict.fromkeys(("ttft_p90", "goodput", "tokens_per_s"), value * seed) for seed in (1, 2)]
        for policy, value in (("ours", 2.0), ("fifo", 4.0), ("shortest-requests", 5.0))
    }
    text = pages.render({"mooncake at 0.7": runs, "mooncake at 1.3": runs}, {"mooncake": 5.0})
    assert "| p90 TTFT, mooncake at 0.7 | 0.5 ± 0 | fifo |" in text
    assert "| goodput, mooncake at 1.3 | 0.4 ± 0 | shortest-requests |" in text
    assert pages.put_into(f"a\n{pages.BEGIN}\nold\n{pages.END}\nb", text).count("old") == 0
    with pytest.raises(ValueError, match="simulated"):
        pages.put_into("a page", text)


def test_what_is_compared_by_default_is_there() -> None:
    assert "ours" in USUAL
    assert not any(name.startswith("ours-") for name in USUAL)
