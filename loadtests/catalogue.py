"""What is measured, and what is wanted: the measures, and the rows of the table with their bounds.

Data only. Which side runs which workload is in plan.py; how figures become verdicts is in report.py.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

OURS: Final = "actorrt"
# Of the child in the comparison of routers.
ROUTER_REPLICAS: Final = (8, 32)


class Relation(Enum):
    """How our figure is set beside the other one."""

    TIMES = "times"  # ours / theirs
    OVER = "over"  # ours - theirs
    ALONE = "alone"  # ours by itself


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure that a workload gives, with its unit."""

    title: str
    unit: str
    more_is_better: bool = True


@dataclass(frozen=True, slots=True)
class Bound:
    """What one row wants of one measure: `at_least` is the duty, `aim` the ambition; either may be missing."""

    measure: str
    at_least: float | None
    aim: float | None
    against: str | None = None
    relation: Relation = Relation.ALONE
    # The measure of the other side, where it is not the same one.
    their_measure: str | None = None

    @property
    def theirs(self) -> str:
        return self.their_measure or self.measure


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table of wishes; its key is what `--rows` takes."""

    key: str
    title: str
    bounds: tuple[Bound, ...]


def _of_router(replicas: int) -> Iterator[tuple[str, Measure]]:
    """Requests of about a second each through a parent to so many children, whose places are all taken."""
    title = f"parent to {replicas} children"
    yield "throughput", Measure(f"{title}: requests in a second, p50", "1/s")
    yield "latency_p50", Measure(f"{title}: latency, p50", "s", more_is_better=False)
    yield "latency_p99", Measure(f"{title}: latency, p99", "s", more_is_better=False)
    for quarter in ("p25", "p50", "p75"):
        yield f"busy_{quarter}", Measure(f"{title}: utilisation of a child in a second, {quarter}", "%")
    yield "refusals", Measure(f"{title}: requests that children refused, of 1,000", "", more_is_better=False)


MEASURES: Final[Mapping[str, Measure]] = {
    "calls.one_at_a_time": Measure("async actor calls, one at a time", "1/s"),
    "calls.in_flight": Measure("async actor calls, 1,000 in flight", "1/s"),
    "calls.sync_actor": Measure("sync actor calls, 1,000 in flight", "1/s"),
    "inner_calls.one_at_a_time": Measure("calls between coroutine actors, one at a time", "1/s"),
    "inner_calls.in_flight": Measure("calls between coroutine actors, 1,000 in flight", "1/s"),
    "tasks.one_at_a_time": Measure("`def` tasks, one at a time", "1/s"),
    "tasks.in_flight": Measure("`def` tasks, 1,000 in flight", "1/s"),
    "objects.put_small": Measure("put of a small value", "1/s"),
    "objects.get_small": Measure("get of a small local value", "1/s"),
    "objects.get_10k_refs": Measure("get of an object holding 10,000 refs", "1/s"),
    "objects.submit_and_wait": Measure("submit 1,000 tasks and wait on them one by one", "rounds/s"),
    "objects.waits": Measure("the same, the waits alone", "rounds/s"),
    "objects.waits_on_done": Measure("wait on 1,000 refs one by one, all of them done", "rounds/s"),
    "large.first": Measure("put of an 800 MB array, first", "GB/s"),
    "large.repeated": Measure("put of an 800 MB array, repeated", "GB/s"),
    "startup.first_task": Measure("`import` to first task result", "s", more_is_better=False),
    "memory.after_init": Measure("memory of all processes after init (PSS)", "MB", more_is_better=False),
    "coroutine_actors.seconds": Measure("100,000 coroutine actors created and called", "s", more_is_better=False),
    "coroutine_actors.kb": Measure("memory of each of 100,000 coroutine actors (PSS)", "KB", more_is_better=False),
    "million_actors.seconds": Measure("1,000,000 coroutine actors created and called", "s", more_is_better=False),
    "million_actors.kb": Measure("memory of each of 1,000,000 coroutine actors (PSS)", "KB", more_is_better=False),
    "process_actors.rate": Measure("process actors created and called", "1/s"),
    "process_actors.mb": Measure("private memory of each process actor", "MB", more_is_better=False),
    "http.c1": Measure('HTTP "ok", 1 connection', "req/s"),
    "http.c1_p50": Measure('HTTP "ok", 1 connection, p50', "ms", more_is_better=False),
    "http.c16": Measure('HTTP "ok", 16 connections', "req/s"),
    "http.c16_p99": Measure('HTTP "ok", 16 connections, p99', "ms", more_is_better=False),
    "http.c64": Measure('HTTP "ok", 64 connections', "req/s"),
    "http.c64_p99": Measure('HTTP "ok", 64 connections, p99', "ms", more_is_better=False),
    "streams.c1": Measure("100-chunk streams, 1 connection", "streams/s"),
    "streams.c16": Measure("100-chunk streams, 16 connections", "streams/s"),
    "streams.delay_p50": Measure("delay of a chunk, 16 paced streams, p50", "ms", more_is_better=False),
    "streams.delay_p99": Measure("delay of a chunk, 16 paced streams, p99", "ms", more_is_better=False),
    "bodies.get_100k": Measure("responses of 100 KB, 16 connections", "req/s"),
    "bodies.get_1m": Measure("responses of 1 MB, 4 connections", "req/s"),
    "bodies.get_10m": Measure("responses of 10 MB, 4 connections", "req/s"),
    "bodies.post_1m": Measure("requests of 1 MB, 4 connections", "req/s"),
    "bodies.post_10m": Measure("requests of 10 MB, 4 connections", "req/s"),
    "bodies.memory": Measure(
        "growth of the server's memory under 64 connections of 1 MB bodies (PSS)", "MB", more_is_better=False
    ),
    "serve.first_200": Measure("start of the server to its first 200", "s", more_is_better=False),
    "serve.memory": Measure("memory of the server with one replica (PSS)", "MB", more_is_better=False),
    "llm.tokens_c64": Measure("streamed tokens, an event each, 64 streams", "tokens/s"),
    "llm.ttft_p50": Measure("time to first token, 1 client, p50", "ms", more_is_better=False),
    "llm.ttft_p95": Measure("time to first token, 1 client, p95", "ms", more_is_better=False),
    "llm.held_p99": Measure(
        "a token from the engine to the client, 64 streams of 25 a second, p99", "ms", more_is_better=False
    ),
    "llm.whole_c16": Measure("chat completions of 8 tokens, not streamed, 16 clients", "req/s"),
    "llm.llamacpp_c4": Measure("tokens of llama.cpp, 4 slots, 4 clients", "tokens/s"),
    "llm_queue.tokens_c64": Measure("streamed tokens, an event each, 64 streams, by the queue", "tokens/s"),
    "llm_queue.ttft_p50": Measure("time to first token by the queue, 1 client, p50", "ms", more_is_better=False),
    "llm_queue.ttft_p95": Measure("time to first token by the queue, 1 client, p95", "ms", more_is_better=False),
    "queue_decisions.rate": Measure("places taken and given back, 4 routers with 16 requests each", "1/s"),
    "queue_decisions.p50": Measure("from asking for a place to having it, p50", "ms", more_is_better=False),
    "queue_decisions.p99": Measure("from asking for a place to having it, p99", "ms", more_is_better=False),
    "llm.first_answer": Measure("start of the chat example to its first answer", "s", more_is_better=False),
    "llm.memory": Measure("memory of the chat example (PSS)", "MB", more_is_better=False),
    **{f"router.{name}_{replicas}": measure for replicas in ROUTER_REPLICAS for name, measure in _of_router(replicas)},
}


def _times(measure: str, against: str, at_least: float | None, aim: float | None) -> Bound:
    return Bound(measure, at_least, aim, against, Relation.TIMES)


ROWS: Final[tuple[Row, ...]] = (
    Row(
        "calls_in_flight",
        "async actor calls, 1,000 in flight, from a sync driver",
        (
            _times("calls.in_flight", "aiohttp_link", 0.5, 1.5),
            _times("calls.in_flight", "ray", 25, 80),
            _times("calls.in_flight", "xoscar", 6, 20),
        ),
    ),
    Row(
        "calls_one_at_a_time",
        "the same, one at a time",
        (
            _times("calls.one_at_a_time", "aiohttp_link", 0.6, 1.2),
            _times("calls.one_at_a_time", "ray", 5, 10),
            _times("calls.one_at_a_time", "xoscar", 2, 4),
        ),
    ),
    Row(
        "inner_calls",
        "calls between coroutine actors of one worker, 1,000 in flight; one at a time",
        (
            Bound("inner_calls.in_flight", None, 500_000),
            _times("inner_calls.in_flight", "one_loop", None, None),
            _times("inner_calls.in_flight", "ray", 10, None),
            _times("inner_calls.one_at_a_time", "one_loop", None, None),
            _times("inner_calls.one_at_a_time", "ray", 2, None),
        ),
    ),
    Row(
        "tasks_in_flight",
        "`def` tasks, 1,000 in flight",
        (
            _times("tasks.in_flight", "process_pool", 4, 15),
            _times("tasks.in_flight", "ray", 15, 60),
        ),
    ),
    Row(
        "tasks_one_at_a_time",
        "`def` task, one at a time",
        (
            _times("tasks.one_at_a_time", "process_pool", 1, 2),
            _times("tasks.one_at_a_time", "ray", 6, 12),
        ),
    ),
    Row("put_small", "put of a small value", (_times("objects.put_small", "ray", 20, 50),)),
    Row(
        "waits",
        "submit 1,000 tasks and wait on them one by one; the waits alone",
        (
            _times("objects.submit_and_wait", "ray", 10, 30),
            _times("objects.waits", "ray", 50, 200),
        ),
    ),
    Row(
        "put_large",
        "put of an 800 MB array: first; repeated",
        (
            _times("large.first", "memcpy", 1.3, 1.8),
            _times("large.repeated", "memcpy", 0.6, 0.9),
        ),
    ),
    Row("startup", "`import` to first task result", (Bound("startup.first_task", 0.8, 0.55),)),
    Row("memory", "memory of all processes after init (PSS)", (Bound("memory.after_init", 120, 80),)),
    Row(
        "coroutine_actors",
        "100,000 coroutine actors created and called once; 1,000,000",
        (
            Bound("coroutine_actors.seconds", 20, None),
            Bound("coroutine_actors.kb", 3, 1.5),
            Bound("million_actors.seconds", None, 60),
            Bound("million_actors.kb", None, 1.5),
        ),
    ),
    Row(
        "process_actors",
        "process actors created and called; private memory of each",
        (
            Bound("process_actors.rate", 50, 80),
            Bound("process_actors.mb", 10, 7),
        ),
    ),
    Row(
        "http_ok",
        'HTTP "ok", 16 connections',
        (
            _times("http.c16", "uvicorn", 0.65, 1.2),
            _times("http.c16", "ray_serve_haproxy", 4, 8),
        ),
    ),
    Row(
        "http_p50",
        'HTTP "ok", one connection: p50 over bare uvicorn',
        (Bound("http.c1_p50", 0.25, 0.08, "uvicorn", Relation.OVER),),
    ),
    Row(
        "streams",
        "100-chunk stream, 16 connections; p99 delay added per chunk",
        (
            _times("streams.c16", "uvicorn", 1.0, 2.0),
            Bound("streams.delay_p99", None, None, "uvicorn", Relation.OVER),
        ),
    ),
    Row(
        "large_responses",
        "responses of 100 KB; 1 MB; 10 MB",
        (
            _times("bodies.get_100k", "uvicorn", 0.6, 0.8),
            _times("bodies.get_1m", "uvicorn", 0.55, 0.8),
            _times("bodies.get_10m", "uvicorn", 0.5, 0.9),
            _times("bodies.get_10m", "ray_serve_haproxy", None, None),
        ),
    ),
    Row(
        "large_requests",
        "requests of 1 MB; 10 MB",
        (
            _times("bodies.post_1m", "uvicorn", 0.55, 0.9),
            _times("bodies.post_10m", "uvicorn", 0.8, 1.5),
            _times("bodies.post_10m", "ray_serve_haproxy", None, None),
        ),
    ),
    Row(
        "large_bodies_memory",
        "memory of the server under 64 connections of 1 MB bodies",
        (Bound("bodies.memory", 64, 32),),
    ),
    Row(
        "serve_start",
        "`actorrt serve` to first 200; memory of everything with one replica (PSS)",
        (
            Bound("serve.first_200", 2, 1.2),
            Bound("serve.memory", 250, 150),
        ),
    ),
    Row(
        "llm_tokens",
        "streamed tokens of a simulated model, 64 streams",
        (
            Bound("llm.tokens_c64", 60_000, 150_000),
            _times("llm.tokens_c64", "uvicorn_llm", 0.8, 1.5),
        ),
    ),
    Row(
        "llm_delays",
        "over the engine's own server: time to first token; time a token is held back at a pace",
        (
            Bound("llm.ttft_p50", 2, 0.7, "uvicorn_llm", Relation.OVER),
            Bound("llm.ttft_p95", 4, 1.5, "uvicorn_llm", Relation.OVER),
            Bound("llm.held_p99", 3, 1, "uvicorn_llm", Relation.OVER),
        ),
    ),
    Row(
        "llm_whole",
        "chat completions of 8 tokens before the same server",
        (
            _times("llm.whole_c16", "vllm_router", 0.3, 0.6),
            _times("llm.whole_c16", "smg", 0.3, 0.6),
        ),
    ),
    Row(
        "llm_llamacpp",
        "tokens of llama.cpp beside its own server",
        (_times("llm.llamacpp_c4", "llamacpp", 0.95, 1.0),),
    ),
    Row(
        "llm_chat",
        "the chat example over its engine alone: start to the first answer; memory",
        (
            Bound("llm.first_answer", 2.5, 1.5, "llamacpp", Relation.OVER),
            Bound("llm.memory", 200, 120, "llamacpp", Relation.OVER),
        ),
    ),
    Row(
        "llm_queue",
        "the capacity queue over the same front with power of two: time to first token; tokens of 64 streams",
        (
            Bound("llm_queue.ttft_p50", 1, None, "power_of_two", Relation.OVER),
            Bound("llm_queue.ttft_p95", None, None, "power_of_two", Relation.OVER),
            _times("llm_queue.tokens_c64", "power_of_two", 0.95, 1.0),
        ),
    ),
    Row(
        "queue_decisions",
        "places of a capacity queue taken and given back, 4 routers with 16 requests each",
        (
            _times("queue_decisions.rate", "ray_serve_queue", 60, None),
            Bound("queue_decisions.p50", None, None, "ray_serve_queue", Relation.OVER),
            Bound("queue_decisions.p99", None, None, "ray_serve_queue", Relation.OVER),
        ),
    ),
    *(
        Row(
            f"router_{replicas}",
            f"parent to {replicas} children at full load, by the capacity queue",
            (
                Bound(f"router.busy_p50_{replicas}", 95, None),
                Bound(f"router.refusals_{replicas}", 0, None),
                *(
                    _times(f"router.throughput_{replicas}", peer, None, None)
                    for peer in ("power_of_two", "ray_serve", "ray_serve_queue")
                ),
            ),
        )
        for replicas in ROUTER_REPLICAS
    ),
)
