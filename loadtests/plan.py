"""Which sides run which workload, in which order, and what is left once `--rows` and `--peers` have chosen. Pure."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from loadtests.catalogue import OURS, ROUTER_REPLICAS, ROWS, Row
from loadtests.sides import BEFORE, SIDES


@dataclass(frozen=True, slots=True)
class Workload:
    """A group of measures that one run of one side gives together.

    `server` says that the side is an HTTP server under load from outside, not a script that measures itself.
    `rounds` bounds how often it is repeated: a figure that takes minutes is not taken five times.
    """

    key: str
    gives: tuple[str, ...]
    sides: tuple[str, ...]
    server: bool = False
    # The same, of language models.
    llm: bool = False
    rounds: int | None = None
    in_quick: bool = True
    limit_s: float = 180.0


_SERVERS: Final = (
    OURS,
    "uvicorn",
    "ray_serve_haproxy",
    "ray_serve_throughput",
    "ray_serve",
    "mosec",
    "litserve",
)

WORKLOADS: Final[tuple[Workload, ...]] = (
    Workload(
        "calls",
        ("calls.one_at_a_time", "calls.in_flight", "calls.sync_actor"),
        (OURS, "aiohttp_link", "xoscar", "ray", "dask"),
    ),
    Workload("inner_calls", ("inner_calls.one_at_a_time", "inner_calls.in_flight"), (OURS, "one_loop", "ray")),
    Workload("tasks", ("tasks.one_at_a_time", "tasks.in_flight"), (OURS, "process_pool", "ray", "dask")),
    Workload(
        "objects",
        (
            "objects.put_small",
            "objects.get_small",
            "objects.get_10k_refs",
            "objects.submit_and_wait",
            "objects.waits",
            "objects.waits_on_done",
        ),
        (OURS, "ray"),
    ),
    Workload("large_put", ("large.first", "large.repeated"), (OURS, "memcpy", "ray")),
    Workload("startup", ("startup.first_task",), (OURS, "ray", "dask")),
    Workload("memory", ("memory.after_init",), (OURS, "ray")),
    Workload("coroutine_actors", ("coroutine_actors.seconds", "coroutine_actors.kb"), (OURS,)),
    Workload("process_actors", ("process_actors.rate", "process_actors.mb"), (OURS, "ray")),
    Workload(
        "http",
        (
            "serve.first_200",
            "serve.memory",
            "http.c1",
            "http.c1_p50",
            "http.c16",
            "http.c16_p99",
            "http.c64",
            "http.c64_p99",
            "streams.c1",
            "streams.c16",
            "streams.delay_p50",
            "streams.delay_p99",
        ),
        _SERVERS,
        server=True,
    ),
    Workload(
        "bodies",
        (
            "bodies.get_100k",
            "bodies.get_1m",
            "bodies.get_10m",
            "bodies.post_1m",
            "bodies.post_10m",
            "bodies.memory",
        ),
        (OURS, "uvicorn", "ray_serve_haproxy", "ray_serve"),
        server=True,
    ),
    Workload("llm_tokens", ("llm.tokens_c64",), (OURS, "uvicorn_llm"), llm=True),
    Workload("llm_delays", ("llm.ttft_p50", "llm.ttft_p95", "llm.held_p99"), (OURS, "uvicorn_llm"), llm=True),
    Workload("llm_whole", ("llm.whole_c16",), (OURS, "vllm_router", "smg"), llm=True),
    Workload("llm_llamacpp", ("llm.llamacpp_c4",), (OURS, "llamacpp"), llm=True),
    Workload("llm_chat", ("llm.first_answer", "llm.memory"), (OURS, "llamacpp"), llm=True),
    Workload(
        "llm_queue",
        ("llm_queue.tokens_c64", "llm_queue.ttft_p50", "llm_queue.ttft_p95"),
        (OURS, "power_of_two"),
        llm=True,
    ),
    Workload(
        "queue_decisions",
        ("queue_decisions.rate", "queue_decisions.p50", "queue_decisions.p99"),
        (OURS, "ray_serve_queue"),
    ),
    *(
        Workload(
            f"router_{replicas}",
            tuple(
                f"router.{name}_{replicas}"
                for name in ("throughput", "latency_p50", "latency_p99", "busy_p25", "busy_p50", "busy_p75", "refusals")
            ),
            (OURS, "power_of_two", "ray_serve", "ray_serve_queue"),
            in_quick=replicas < 10,
            limit_s=300.0,
        )
        for replicas in ROUTER_REPLICAS
    ),
    Workload(
        "million_actors",
        ("million_actors.seconds", "million_actors.kb"),
        (OURS,),
        rounds=1,
        in_quick=False,
        limit_s=420.0,
    ),
)


_ROUNDS_OF_SHOWN: Final = 2


@dataclass(frozen=True, slots=True)
class Step:
    """One run of one side."""

    round: int
    workload: Workload
    side: str


def choose_rows(wanted: Collection[str]) -> tuple[Row, ...]:
    """The rows named, all of them for none; ValueError names one that is not there."""
    known = [row.key for row in ROWS]
    for key in wanted:
        if key not in known:
            raise ValueError(f"no row {key!r}; there are {', '.join(known)}")
    return tuple(row for row in ROWS if not wanted or row.key in wanted)


def choose_sides(wanted: Collection[str]) -> tuple[str, ...]:
    """The sides named, all of them for none; ValueError names one that is not there.

    An earlier revision is not among them: it runs where its own option asks for it.
    """
    known = [name for name in SIDES if name != BEFORE]
    for name in wanted:
        if name not in known:
            raise ValueError(f"no peer {name!r}; there are {', '.join(known)}")
    return tuple(name for name in known if not wanted or name in wanted)


def choose_workloads(rows: Sequence[Row], sides: Collection[str], *, quick: bool) -> tuple[Workload, ...]:
    """The workloads that those rows need, each with the chosen sides that can run it."""
    needed = {bound.measure for row in rows for bound in row.bounds}
    chosen = (
        replace(workload, sides=tuple(side for side in _with_before(workload.sides) if side in sides))
        for workload in WORKLOADS
        if needed.intersection(workload.gives) and (workload.in_quick or not quick)
    )
    return tuple(workload for workload in chosen if workload.sides)


def _with_before(sides: Sequence[str]) -> Iterator[str]:
    """The sides, with the earlier revision right after the present one."""
    for side in sides:
        yield side
        if side == OURS:
            yield BEFORE


def steps(workloads: Sequence[Workload], rounds: int) -> Iterator[Step]:
    """All runs in order: workload by workload, in each round every side once.

    The order of the sides turns round every other time, so that a machine that grows slower or faster favours nobody.
    A side whose figures are only shown, since no bound compares with them, runs in the first two rounds alone.
    """
    for workload in workloads:
        compared = {bound.against for row in ROWS for bound in row.bounds if bound.theirs in workload.gives}
        compared |= {OURS, BEFORE}
        for number in range(min(rounds, workload.rounds or rounds)):
            for side in workload.sides if number % 2 == 0 else workload.sides[::-1]:
                if side in compared or number < _ROUNDS_OF_SHOWN:
                    yield Step(number, workload, side)
