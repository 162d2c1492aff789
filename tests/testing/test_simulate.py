"""What a user's own program may do in virtual time, and what it is told where that cannot be."""

import asyncio
import contextvars
import gc
import os
import queue
import random
import secrets
import subprocess
import threading
import time
import uuid
from typing import Any

import pytest

import actorrt
from actorrt import exceptions
from actorrt.runtime.owner import current
from actorrt.testing import Faults, Simulation, simulate, story_of
from actorrt.wire.messages import Facts, Query


@actorrt.remote
class Ledger:
    def __init__(self) -> None:
        self._total = 0

    async def add(self, amount: int) -> int:
        await asyncio.sleep(60)
        self._total += amount
        return self._total

    async def broken(self) -> None:
        raise ValueError("no such amount")

    async def in_thread(self) -> None:
        await asyncio.to_thread(len, "abc")


@actorrt.remote
async def square(value: int) -> int:
    await asyncio.sleep(1)
    return value * value


@actorrt.remote
def plain() -> None: ...


def test_hours_of_a_program_pass_in_a_moment() -> None:
    async def scenario(simulation: Simulation) -> None:
        ledger = Ledger.remote()
        assert [await ledger.add.remote(2) for _ in range(100)] == list(range(2, 202, 2))
        assert await square.remote(7) == 49
        assert 6000 < simulation.time < 6100

    began = time.monotonic()
    simulate(scenario, seeds=[1], limit_s=10_000)
    assert time.monotonic() - began < 20


def test_an_actor_that_is_crashed_comes_back_as_its_options_say() -> None:
    async def scenario(simulation: Simulation) -> None:
        lasting = Ledger.options(max_restarts=1, max_task_retries=1).remote()
        mortal = Ledger.remote()
        await asyncio.gather(lasting.add.remote(1), mortal.add.remote(1))
        under_way = [lasting.add.remote(5), mortal.add.remote(5)]
        await asyncio.sleep(simulation.random.uniform(0, 59))
        simulation.crash(lasting)
        assert await under_way[0] == 5
        with pytest.raises(exceptions.ActorDiedError):
            await under_way[1]

    simulate(scenario, seeds=range(20))


def test_links_that_are_cut_and_processes_that_are_stopped_end_no_call() -> None:
    async def scenario(simulation: Simulation) -> None:
        ledgers = [Ledger.options(num_cpus=0.1).remote() for _ in range(3)]
        for _ in range(5):
            await asyncio.gather(*(ledger.add.remote(1) for ledger in ledgers))
            simulation.cut(ledgers[0])
            simulation.stop(ledgers[1], 3.0)
            simulation.slow(ledgers[2], 1.0)
            simulation.part(ledgers[2], ledgers[0], 1.0)

    simulate(scenario, seeds=range(10), faults=Faults(cuts=1.0))


def test_a_failing_seed_is_named_with_its_story_and_fails_again() -> None:
    async def scenario(simulation: Simulation) -> None:
        simulation.note("the dice fall")
        assert simulation.random.random() < 0.8, "the dice fell so"

    with pytest.raises(AssertionError, match=r"seed \d+: AssertionError: the dice fell so") as found:
        simulate(scenario)
    assert "driver 1 -> node: Ask 1: JoinDriver" in str(found.value)
    assert isinstance(found.value.__cause__, AssertionError)
    seed = int(str(found.value).split()[1].rstrip(":"))
    with pytest.raises(AssertionError, match=f"seed {seed}: "):
        simulate(scenario, seeds=[seed])
    for earlier in range(seed):
        simulate(scenario, seeds=[earlier])
    assert "driver 1: the dice fall" in story_of(scenario, 0)


def test_a_seed_is_the_same_alone_and_after_others() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=3)

    class Found:
        pass

    @actorrt.remote
    async def find() -> tuple[type[Found], contextvars.ContextVar[int]]:
        return Found, variable

    async def scenario(simulation: Simulation) -> None:
        await find.remote()
        worker = Ledger.options(num_cpus=1).remote()
        await worker.add.remote(1)

    # The class and the variable are given their keys in the first.
    assert story_of(scenario, 1) == story_of(scenario, 1)


def test_histories_of_one_seed_do_not_take_the_classes_of_others_for_their_own() -> None:
    def scenario_of(word: str) -> Any:
        class Given:
            said = word

        @actorrt.remote
        class Speaker:
            async def say(self) -> tuple[str, type[Given]]:
                return word, Given

        async def scenario(simulation: Simulation) -> None:
            said, given = await Speaker.remote().say.remote()
            assert said == given.said == word

        return scenario

    scenarios = [scenario_of(word) for word in ("one", "two", "three")]
    for scenario in scenarios * 2:
        simulate(scenario, seeds=[0, 1])


def test_a_program_that_waits_for_ever_is_told_where() -> None:
    async def scenario(simulation: Simulation) -> None:
        await asyncio.Event().wait()

    with pytest.raises(AssertionError, match=r"has not ended by .*scenario, line"):
        simulate(scenario, seeds=[0], limit_s=100)


def test_a_program_that_goes_round_in_circles_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("world", "simulation"):
        monkeypatch.setattr(f"actorrt.testing.{module}.MOST_TURNS", 50_000)

    async def scenario(simulation: Simulation) -> None:
        while True:  # noqa: ASYNC110 - that is the mistake
            await asyncio.sleep(0)

    with pytest.raises(AssertionError, match=r"50,000 turns in 0\.\d+ s of virtual time: driver 1 in .*scenario"):
        simulate(scenario, seeds=[0])


@actorrt.remote
class Stubborn:
    def __init__(self) -> None:
        self.cancelled = 0

    async def stay(self) -> str:
        while True:
            try:
                await asyncio.sleep(60.0)
            except asyncio.CancelledError:
                self.cancelled += 1
            else:
                return "nobody waits for this"


def test_whoever_calls_an_actor_that_ends_waits_for_none_of_its_code_that_goes_on() -> None:
    async def scenario(simulation: Simulation) -> None:
        actor = Stubborn.remote()
        stays = actor.stay.remote()
        await asyncio.sleep(1.0)
        ends = simulation.time
        await simulation.kill(actor)
        with pytest.raises(exceptions.ActorDiedError, match=r"killed by actorrt\.kill"):
            await stays
        assert simulation.time - ends < 5.0
        # What its code brings in the end is nobody's.
        await asyncio.sleep(600.0)
        assert await Stubborn.remote().stay.remote()

    simulate(scenario, seeds=range(5))


def test_errors_of_actors_are_those_of_the_user() -> None:
    async def scenario(simulation: Simulation) -> None:
        with pytest.raises(ValueError, match="no such amount"):
            await Ledger.remote().broken.remote()

    simulate(scenario, seeds=range(3))


async def _plain(simulation: Simulation) -> None:
    await plain.remote()


async def _thread(simulation: Simulation) -> None:
    await Ledger.remote().in_thread.remote()


async def _own_thread(simulation: Simulation) -> None:
    threading.Thread(target=len).start()


async def _wait_for_thread(simulation: Simulation) -> None:
    threading.Event().wait(60)


async def _queue(simulation: Simulation) -> None:
    queue.Queue[int]().get()


async def _subprocess(simulation: Simulation) -> None:
    subprocess.run(["true"], check=True)  # noqa: ASYNC221 - it is refused


async def _sleep(simulation: Simulation) -> None:
    time.sleep(1)  # noqa: ASYNC251  it is what is refused


async def _get(simulation: Simulation) -> None:
    actorrt.get(square.remote(3))


async def _named(simulation: Simulation) -> None:
    Ledger.options(name="ledger").remote()


async def _socket(simulation: Simulation) -> None:
    await asyncio.open_connection("127.0.0.1", 9)


@pytest.mark.filterwarnings("ignore:get.. blocks the event loop")
@pytest.mark.parametrize(
    ("scenario", "sentence"),
    [
        (_plain, "plain is a plain function: code in a thread cannot run in virtual time"),
        (_thread, "code in a thread cannot run in virtual time"),
        (_own_thread, "code in a thread cannot run in virtual time"),
        (_wait_for_thread, "this waits for another thread"),
        (_queue, "this waits for another thread"),
        (_subprocess, "virtual time has no sockets, pipes, signals or processes"),
        (_sleep, "time.sleep stops its thread"),
        (_get, "this would block its thread"),
        (_named, "this would block its thread"),
        (_socket, "virtual time has no sockets"),
    ],
)
def test_what_cannot_run_in_virtual_time_says_so(scenario: Any, sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        simulate(scenario, seeds=[0])


def test_a_crash_of_what_is_not_there_is_a_lookup_error() -> None:
    async def scenario(simulation: Simulation) -> None:
        with pytest.raises(LookupError, match="there is no process 'worker 9'; these workers live: none"):
            simulation.crash("worker 9")

    simulate(scenario, seeds=[0])


def test_a_process_with_a_session_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(simulation: Simulation) -> None:
        # As a program with a session would do it.
        simulate(scenario, seeds=[0])

    with pytest.raises(AssertionError, match="a session would not survive"):
        simulate(scenario, seeds=[0])


def test_faults_that_would_kill_the_scenario_are_refused() -> None:
    with pytest.raises(ValueError, match="would end the scenario itself"):
        simulate(_plain, seeds=[0], faults=Faults(driver_crashes=1.0))


def test_what_would_show_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="seeds is empty"):
        simulate(_plain, seeds=[])
    wrong: Any = 3
    with pytest.raises(TypeError, match=r"faults must be Faults\(...\), as Faults\(cuts=2.0\), not 3"):
        simulate(_plain, seeds=[0], faults=wrong)


def test_a_crash_that_would_end_the_scenario_is_refused() -> None:
    async def scenario(simulation: Simulation) -> None:
        for name in ("node", "driver 1"):
            with pytest.raises(ValueError, match=f"a crash of '{name}' would end the scenario itself"):
                simulation.crash(name)
        simulation.crash("head")

    simulate(scenario, seeds=[0])


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
def test_a_time_that_is_none_is_refused(seconds: float) -> None:
    async def scenario(simulation: Simulation) -> None:
        ledger = Ledger.remote()
        await ledger.add.remote(1)
        for act in (
            lambda: simulation.stop(ledger, seconds),
            lambda: simulation.slow(ledger, seconds),
            lambda: simulation.part(ledger, "head", seconds),
            lambda: simulation.inject(Faults(cuts=1.0), seconds),
        ):
            with pytest.raises(ValueError, match="seconds must be a number, at least 0, not"):
                act()
        with pytest.raises(ValueError, match="factor must be more than 0, not -2"):
            simulation.slow(ledger, 1.0, -2)
        with pytest.raises(ValueError, match="would end the scenario itself"):
            simulation.inject(Faults(driver_crashes=1.0), 1.0)
        # None of them has done anything.
        assert await ledger.add.remote(1) == 2

    simulate(scenario, seeds=[0])


def test_a_scenario_has_no_session_to_shut_down() -> None:
    async def shuts_down() -> None:
        with pytest.raises(RuntimeError, match="a simulation's cluster ends with its scenario"):
            actorrt.shutdown()

    async def scenario(simulation: Simulation) -> None:
        await shuts_down()
        await actorrt.remote(shuts_down).remote()
        assert await square.remote(3) == 9

    simulate(scenario, seeds=[0])
    # Behind it, the system's own is back.
    actorrt.shutdown()


def test_the_clock_is_the_systems_again_behind_it() -> None:
    async def scenario(simulation: Simulation) -> None:
        assert time.monotonic() == simulation.time
        await asyncio.sleep(5)

    before = time.monotonic
    simulate(scenario, seeds=[0])
    assert time.monotonic is before
    assert threading.Thread.start.__module__ == "threading"


def _drawn() -> dict[str, Any]:
    """What the clocks and dice of the standard library say at this moment."""
    random.seed()
    return {
        "wall clock": (time.time(), time.time_ns(), time.clock_gettime(time.CLOCK_REALTIME)),
        "clock": (time.monotonic(), time.monotonic_ns(), time.perf_counter_ns(), time.clock_gettime(1)),
        "work": (time.process_time(), time.thread_time_ns()),
        "date": (time.localtime(), time.gmtime(), time.ctime(), time.asctime(), time.strftime("%H:%M:%S")),
        "dice": (random.random(), random.Random().random(), random.SystemRandom().random()),
        "bytes": (os.urandom(8), os.getrandom(8), secrets.token_hex(8)),
        "ids": (uuid.uuid1(), uuid.uuid4()),
    }


def test_a_seed_decides_what_the_clocks_and_dice_of_the_standard_library_say() -> None:
    said: list[dict[str, Any]] = []

    async def scenario(simulation: Simulation) -> None:
        await asyncio.sleep(90)
        said.append(_drawn())
        assert time.time_ns() - time.monotonic_ns() == round(time.time() - time.monotonic()) * 10**9
        assert time.gmtime() == time.gmtime(time.time())

    before = uuid.getnode(), time.localtime, random.Random.seed
    simulate(scenario, seeds=[3, 3, 4])
    assert (uuid.getnode(), time.localtime, random.Random.seed) == before
    assert abs(time.time_ns() / 1e9 - time.time()) < 5
    assert said[0] == said[1]
    assert not any(said[0][name] == said[2][name] for name in ("dice", "bytes", "ids"))


def test_what_is_under_way_when_a_scenario_fails_ends_with_its_history() -> None:
    ends: list[float] = []

    @actorrt.remote
    class Patient:
        async def wait(self) -> None:
            try:
                await asyncio.sleep(3000)
            finally:
                ends.append(time.time())

    async def scenario(simulation: Simulation) -> None:
        patients = [Patient.remote() for _ in range(3)]
        under_way = [patient.wait.remote() for patient in patients]
        await asyncio.sleep(10)
        assert not under_way

    # The error keeps the scenario's frames, as pytest keeps it to the end of its session.
    with pytest.raises(AssertionError) as kept:
        simulate(scenario, seeds=[1])
    assert [round(end) for end in ends] == [1_700_000_010] * 3  # the history's clock
    del kept
    gc.collect()
    assert len(ends) == 3


def test_ctrl_c_in_a_scenario_goes_to_whoever_runs_it() -> None:
    async def scenario(simulation: Simulation) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(scenario)


def test_a_node_names_the_process_that_does_not_answer_within_a_second() -> None:
    async def scenario(simulation: Simulation) -> None:
        stopped, well = (Ledger.options(num_cpus=0.1).remote() for _ in range(2))
        await asyncio.gather(stopped.add.remote(1), well.add.remote(1))
        simulation.stop(stopped, 30)
        began = simulation.time
        answer: Facts = await current.runtime().node.ask(Query("statistics"))
        assert simulation.time - began < 2
        troubles = [(each["role"], each["trouble"]) for each in answer.data["processes"]]
        assert troubles.count(("worker", "")) == 1
        assert sum(trouble.startswith("it has not answered for 1 s: ") for _, trouble in troubles) == 1
        assert troubles[-1] == ("head", "")
        assert answer.data["node"]["workers"]["leases"] == 2

    simulate(scenario, seeds=range(20))
