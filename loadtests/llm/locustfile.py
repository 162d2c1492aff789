"""Users of a language model: each asks by OpenAI's protocol, reads the stream as it comes, and asks again.

Runs under locust, which has an environment of its own; `python loadtests/llm/load.py` starts a server and this. Tokens
are counted by the answers' usage; nothing is tokenized here. Time to first token, time per output token and the gaps
between tokens are rows of their own in locust's tables, and the report folder gets figures.json, tenants.csv,
requests.csv and seconds.csv. The run fails if an answer did, or if the load generator was the bottleneck.
"""
# pyright: basic, reportMissingImports=false

import csv
import json
import sys
import time
from collections import Counter
from itertools import count
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import gevent
from locust import HttpUser, constant, events, task
from locust.exception import StopUser

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from loadtests.llm.own_loop import OwnLoop
from loadtests.llm.prompts import Prompts
from loadtests.llm.stream import Seen
from loadtests.llm.tally import Tallies, Targets

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_REQUESTS = 20_000
REFUSALS = (429, 503)
NAP_S = 0.02
CONNECT_S, SILENT_S = 5.0, 60.0


class Load:
    """One run: what is asked, and all that came of it."""

    def __init__(self, options: Any) -> None:
        self.options = options
        self.prompts = Prompts(options.prompt_words, options.common)
        self.tallies = Tallies(Targets(options.ttft_target_ms / 1000, options.tpot_target_ms / 1000))
        self.tenants = [tenant for tenant in options.tenants.split(",") if tenant] or ["default"]
        self.users = count()
        self.tokens_by_second: Counter[int] = Counter()
        self.requests: list[tuple[Any, ...]] = []
        self.own_loop = OwnLoop(time.perf_counter, time.process_time)
        self.began = time.perf_counter()
        self.watch = gevent.spawn(self._watch)

    def _watch(self) -> None:
        while True:
            planned = time.perf_counter() + NAP_S
            gevent.sleep(NAP_S)
            self.own_loop.woke(planned, time.perf_counter())

    def report(self) -> dict[str, Any]:
        self.watch.kill()
        seconds = time.perf_counter() - self.began
        figures = {
            "seconds": round(seconds, 2),
            "options": {key: value for key, value in vars(self.options).items() if key in OPTIONS},
            "tenants": self.tallies.table(seconds),
            "bottleneck": self.own_loop.verdict(),
        }
        if (folder := self.options.report) is not None:
            self._write(Path(folder), figures)
        return figures

    def _write(self, folder: Path, figures: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
        with (folder / "tenants.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, figures["tenants"][0].keys())
            table.writeheader()
            table.writerows(figures["tenants"])
        with (folder / "requests.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(REQUEST_COLUMNS)
            rows.writerows(self.requests)
        with (folder / "seconds.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("second", "events_with_text"))
            rows.writerows(sorted(self.tokens_by_second.items()))


OPTIONS: dict[str, tuple[Any, str]] = {
    "model": ("simulated", "the model that is asked"),
    "prompt_words": (200, "words of a prompt"),
    "common": (0.5, "share of a prompt, from its beginning, that all prompts have in common"),
    "max_tokens": (100, "tokens of an answer at most"),
    "tenants": ("", "names, separated by commas; each asks with the key sk-NAME"),
    "ttft_target_ms": (500.0, "time to first token that goodput wants"),
    "tpot_target_ms": (50.0, "time per output token that goodput wants"),
    "think_s": (0.0, "seconds between an answer and a user's next question"),
    "random_seed": (1, "where the prompts' words come from"),
    "report": (None, "folder for the figures and CSV files"),
}
REQUEST_COLUMNS = (
    "asked_at_s", "tenant", "outcome", "ttft_ms", "tpot_ms", "gap_max_ms", "total_ms", "prompt_tokens", "cached_tokens",
    "completion_tokens", "finish_reason",
)  # fmt: skip
load: Load


@events.init_command_line_parser.add_listener
def options(parser: Any) -> None:
    for name, (default, told) in OPTIONS.items():
        kind = str if default is None else type(default)
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default, help=told)


@events.init.add_listener
def only_this_machine(environment: Any, **_: Any) -> None:
    host = environment.host or LanguageModelUser.host
    if urlsplit(host).hostname not in LOOPBACK:
        raise SystemExit(f"{host} is not on this machine: only {', '.join(LOOPBACK)} are loaded")
    if environment.parsed_options.processes or environment.parsed_options.master or environment.parsed_options.worker:
        raise SystemExit("this load runs in one process: its figures are of all its requests together")


@events.test_start.add_listener
def begin(environment: Any, **_: Any) -> None:
    global load
    load = Load(environment.parsed_options)


@events.test_stop.add_listener
def end(environment: Any, **_: Any) -> None:
    figures = load.report()
    everyone = figures["tenants"][-1]
    wrong = [f"{everyone[what]} answers {what}" for what in ("failed", "truncated") if everyone[what]]
    if not everyone["answered"]:
        wrong.append("nothing was answered")
    if figures["bottleneck"]:
        wrong.append(figures["bottleneck"])
    for sentence in wrong:
        print(f"load: {sentence}", file=sys.stderr)
    environment.process_exit_code = 1 if wrong else 0


class LanguageModelUser(HttpUser):
    host = "http://127.0.0.1:8000"
    wait_time = constant(0)

    def on_start(self) -> None:
        # Answers are read as they come, through no proxy that the environment names.
        self.client.trust_env = False
        number = next(load.users)
        self.tenant = load.tenants[number % len(load.tenants)]
        self.chance = Random(f"{load.options.random_seed} {number}")
        self.sent = 0

    @task
    def ask(self) -> None:
        self.sent += 1
        if self.sent > MOST_REQUESTS:
            raise StopUser
        given = load.options
        body = {
            "model": given.model,
            "messages": [{"role": "user", "content": load.prompts.draw(self.chance)}],
            "max_tokens": given.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        headers = {"Authorization": f"Bearer sk-{self.tenant}"} if given.tenants else {}
        seen = Seen(time.perf_counter())
        with self.client.post(
            "/v1/chat/completions",
            json=body,
            headers=headers,
            stream=True,
            catch_response=True,
            timeout=(CONNECT_S, SILENT_S),
        ) as answer:
            outcome = self._read(answer, seen)
        self._record(seen, outcome)
        gevent.sleep(given.think_s)

    def _read(self, answer: Any, seen: Seen) -> str:
        if answer.status_code in REFUSALS:
            load.tallies.refused(self.tenant)
            answer.success()
            # As a client that does what it is told.
            gevent.sleep(min(float(answer.headers.get("Retry-After", 1)), 10.0))
            return "refused"
        if answer.status_code != 200:
            load.tallies.failed(self.tenant)
            answer.failure(f"status {answer.status_code}: {answer.text[:100]}" if answer.status_code else "no answer")
            return "failed"
        try:
            while data := answer.raw.read1():
                now = time.perf_counter()
                before = seen.last_at
                seen.feed(data, now)
                if seen.last_at != before:
                    load.tokens_by_second[int(now - load.began)] += 1
        except Exception as error:
            # Whatever ends the reading is the stream's end: what is missing in it is found below.
            seen.error = None if seen.done else f"the stream broke: {error!r}"
        load.tallies.add(self.tenant, seen)
        if seen.error is not None:
            answer.failure(seen.error)
            return "failed"
        if seen.truncated:
            answer.failure("the stream ended without its end")
            return "truncated"
        answer.success()
        return "answered"

    def _record(self, seen: Seen, outcome: str) -> None:
        now = time.perf_counter()
        load.requests.append(
            (
                round(seen.asked_at - load.began, 4),
                self.tenant,
                outcome,
                _ms(seen.ttft),
                _ms(seen.tpot),
                _ms(max(seen.gaps, default=None)),
                _ms(now - seen.asked_at),
                seen.prompt_tokens,
                seen.cached_tokens,
                seen.completion_tokens,
                seen.finish_reason,
            )
        )
        rows = {"time to first token": seen.ttft, "time per output token": seen.tpot}
        rows["longest gap"] = max(seen.gaps, default=None)
        for name, value in rows.items():
            if value is not None:
                self.environment.events.request.fire(
                    request_type="TOKENS",
                    name=f"{name} ({self.tenant})",
                    response_time=value * 1000,
                    response_length=seen.completion_tokens or 0,
                    exception=None,
                    context={},
                )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
