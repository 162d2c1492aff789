"""Keep an engine's process up: wait until it answers, watch it, and start it again, with growing pauses, if it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

from .engine_process import EngineProcess, Launch
from .interface import EngineDiedError, EngineError
from .openai_http import OpenAIHttp
from .silence import Look, Silence

logger = logging.getLogger("actorrt.serve.replica")

# It is asked whether it answers this often: at first, and when it takes long.
_FIRST_POLL_S: Final = 0.02
_POLL_S: Final = 0.25
_ANSWER_S: Final = 5.0
# When to tell how long it has been waited for; then every so often.
_TELL_AT_S: Final = (1.0, 3.0, 6.0, 12.0, 30.0)
_TELL_EVERY_S: Final = 30.0
_MOST_PAUSE_S: Final = 30.0
# One that has lived so long is started again at once.
_LIVED_S: Final = 60.0
# Connections break a little before a process is known to be gone.
_BREAK_S: Final = 0.5
# A free port that somebody else takes before the engine does.
_PORTS_TRIED: Final = 3
# After so many restarts that failed in a row, the replica is ill.
_ILL_AFTER: Final = 3


class EngineKeeper:
    """`launch` says how to start it, anew each time; `prepare` is awaited with each that answers, before requests.

    `progress` asks it, within so many seconds, for what `Look.progress` is. One that does nothing for `stall_timeout_s`
    seconds while requests wait in it is killed, and started again as any that ends; None: never.
    """

    def __init__(
        self,
        name: str,
        launch: Callable[[], Launch],
        prepare: Callable[[OpenAIHttp], Awaitable[None]],
        progress: Callable[[OpenAIHttp, float], Awaitable[str | None]],
        *,
        start_timeout_s: float,
        stop_timeout_s: float,
        stall_timeout_s: float | None,
        health_path: str,
        keep_alive: bool,
    ) -> None:
        self._name = name
        self._launch = launch
        self._prepare = prepare
        self._progress = progress
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._stall_timeout_s = stall_timeout_s
        self._health_path = health_path
        self._keep_alive = keep_alive
        self._http: OpenAIHttp | None = None
        self._process: EngineProcess | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._trouble: EngineError | None = None
        self._failures = 0
        self.restarts = 0

    @property
    def pid(self) -> int:
        """Of the engine; 0: there is none now."""
        return self._process.pid if self._process is not None and not self._process.ended.done() else 0

    @property
    def log(self) -> Path:
        """Where what it prints is written."""
        return self._launch().log

    @property
    def is_started(self) -> bool:
        return self._task is not None

    async def start(self) -> None:
        """Returns when it answers. EngineError with its last words if it does not come up."""
        if self._task is not None:
            raise EngineError(f"the engine of {self._name} was started before")
        self._trouble = None
        self._failures = self.restarts = 0
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = self._task = asyncio.create_task(self._keep(first))
        try:
            await first
        except BaseException as error:
            self._trouble = error if isinstance(error, EngineError) else None
            if self._task is task:
                await self.stop()
            raise

    async def stop(self) -> None:
        """End it, in whatever state it is; afterwards it may be started again."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            self._set(None)
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                task.cancel()  # no more waiting for it to end by itself
                raise

    async def http(self) -> OpenAIHttp:
        """Where it answers. Waits while it is started again; EngineError if that has failed, or it was stopped."""
        while (http := self._http) is None:
            if self._task is None:
                raise EngineError(f"the engine of {self._name} is stopped")
            if self._trouble is not None:
                raise self._trouble
            await self._changed.wait()
        return http

    async def lost(self, http: OpenAIHttp) -> bool:
        """Whether the engine that answered there has ended; `http` then gives the next one."""
        process = self._process
        if self._http is http and process is not None:
            await asyncio.wait([process.ended], timeout=_BREAK_S)
            while self._http is http and process.ended.done():
                await self._changed.wait()
        return self._http is not http

    async def explain(self, error: EngineError) -> EngineError:
        """What a request is told that failed with `error`: if the engine has ended, how, and its last words."""
        process = self._process
        if process is not None:
            await asyncio.wait([process.ended], timeout=_BREAK_S)
            if process.ended.done():
                return EngineDiedError(
                    f"the engine of {self._name} ended as it answered, {process.ended.result()}{_quoted(process)}"
                )
        return error

    async def check(self, idle: bool) -> None:
        """EngineError if it is not up and nobody is about to bring it up, or does not answer although it is idle."""
        if self._task is None:
            raise self._trouble or EngineError(f"the engine of {self._name} is stopped")
        if self._failures >= _ILL_AFTER and self._trouble is not None:
            raise self._trouble
        http = self._http
        if http is None:
            return
        try:
            status, _ = await http.ask("GET", self._health_path, timeout_s=_ANSWER_S)
        except EngineError:
            # Some have as many threads as requests, and none to spare. One that has ended is started again.
            if idle and self._http is http and self.pid:
                raise
            return
        if status >= 500 and self._http is http:
            raise EngineError(f"the engine of {self._name} answers {status} to {self._health_path}")

    def _set(self, http: OpenAIHttp | None) -> None:
        self._http = http
        self._changed.set()
        self._changed = asyncio.Event()

    async def _keep(self, first: asyncio.Future[None]) -> None:
        loop = asyncio.get_running_loop()
        pause = 0.5
        while True:
            since = loop.time()
            ended = ""
            try:
                async with self._running():
                    self._trouble, self._failures = None, 0
                    if not first.done():
                        first.set_result(None)
                    assert self._process is not None
                    ended = await asyncio.shield(self._process.ended)
                    ended = f"has ended, {ended}{_quoted(self._process)}"
            except Exception as error:
                trouble = error if isinstance(error, EngineError) else EngineError(f"{type(error).__name__}: {error}")
                if not first.done():
                    first.set_exception(trouble)
                    return
                self._failures += 1
                self._trouble = trouble
                self._set(None)
                ended = f"could not be started again: {trouble}"
            except asyncio.CancelledError:
                if not first.done():
                    first.set_exception(EngineError(f"the engine of {self._name} was stopped as it started"))
                raise
            pause = 0.5 if loop.time() - since > _LIVED_S else min(2 * pause, _MOST_PAUSE_S)
            self.restarts += 1
            logger.warning("the engine of %s %s; it is started again in %.1f s", self._name, ended, pause)
            await asyncio.sleep(pause)

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncGenerator[None]:
        """Up to where it answers, and down again."""
        http: OpenAIHttp | None = None
        watch: asyncio.Task[None] | None = None
        try:
            http = await self._bring_up()
            await self._prepare(http)
            self._set(http)
            if self._process is not None and self._stall_timeout_s is not None:
                watch = asyncio.create_task(self._end_if_it_hangs(self._process, http, Silence(self._stall_timeout_s)))
            yield
        finally:
            if watch is not None:
                watch.cancel()
            self._set(None)
            process = self._process
            try:
                if process is not None:
                    await process.stop(self._stop_timeout_s)
            finally:
                if http is not None:
                    await http.close()

    async def _end_if_it_hangs(self, process: EngineProcess, http: OpenAIHttp, silence: Silence) -> None:
        loop = asyncio.get_running_loop()
        looked, heard = loop.time(), http.heard
        while True:
            await asyncio.sleep(silence.pause_s)
            look = Look(http.waiting > 0, http.heard != heard)
            heard = http.heard
            if silence.must_ask(look.waits, look.heard):
                answers = await self._answers(http, min(_ANSWER_S, silence.pause_s))
                progress = await self._progress(http, min(_ANSWER_S, silence.pause_s))
                look = look._replace(heard=http.heard != heard, answers=answers, progress=progress)
            now = loop.time()
            passed, looked = now - looked, now
            if silence.is_hung(look, passed):
                process.kill(
                    f"killed as it hung: nothing was heard of it for {silence.lasts_s:.3g} s (stall_timeout_s) with "
                    f"{http.waiting} requests in it"
                )
                return

    async def _answers(self, http: OpenAIHttp, timeout_s: float) -> bool:
        try:
            status, _ = await http.ask("GET", self._health_path, timeout_s=timeout_s)
        except EngineError:
            return False
        return status < 500

    async def _bring_up(self) -> OpenAIHttp:
        for tries in range(1, _PORTS_TRIED + 1):
            launch = self._launch()
            if launch.port and await _is_taken(launch.port):
                raise EngineError(f"port {launch.port} is taken by another process; give the engine a free one")
            launch.log.parent.mkdir(parents=True, exist_ok=True)
            claim = _claim(launch.port)
            if claim is None:
                if tries < _PORTS_TRIED:
                    continue
                raise EngineError(f"port {launch.port} is another engine's on this machine; give this one its own")
            try:
                process = self._process = await EngineProcess.start(launch)
            except BaseException:
                claim.close()
                raise
            process.ended.add_done_callback(partial(_give_back, claim))
            http = OpenAIHttp(port=launch.port, unix_socket=launch.unix_socket, keep_alive=self._keep_alive)
            try:
                await self._until_it_answers(process, http)
            except BaseException as error:
                await http.close()
                await process.stop(0)
                lost_port = launch.port and isinstance(error, EngineError) and await _is_taken(launch.port)
                if lost_port and tries < _PORTS_TRIED:
                    continue
                raise
            return http
        raise AssertionError

    async def _until_it_answers(self, process: EngineProcess, http: OpenAIHttp) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        poll = _FIRST_POLL_S
        tell_at = iter(_TELL_AT_S)
        tell = next(tell_at)
        while True:
            waited = loop.time() - began
            if process.ended.done():
                raise EngineError(
                    f"the engine of {self._name} ended as it started, {process.ended.result()}{_quoted(process)}"
                )
            with contextlib.suppress(EngineError):
                status, _ = await http.ask("GET", self._health_path, timeout_s=_ANSWER_S)
                if status == 200 and not process.ended.done():
                    return
            if waited > self._start_timeout_s:
                raise EngineError(
                    f"the engine of {self._name} did not answer {self._health_path} within "
                    f"{self._start_timeout_s:g} s (start_timeout_s){_quoted(process)}"
                )
            if waited > tell:
                last = process.last_words(1)
                logger.warning(
                    "waiting for the engine of %s: %.0f s%s",
                    self._name,
                    waited,
                    f", its last line: {last}" if last else "",
                )
                tell = next(tell_at, tell + _TELL_EVERY_S)
            await asyncio.wait([process.ended], timeout=poll)
            poll = min(poll * 1.2, _POLL_S)


def _quoted(process: EngineProcess) -> str:
    words = process.last_words()
    return f"; its last words: {words}" if words else "; it printed nothing"


async def _is_taken(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def _claim(port: int) -> socket.socket | None:
    """What says to the engines of this machine that a port is taken, from before one listens there until it is closed.

    None: it is another's. Two that listen at the same port (SO_REUSEPORT) would each get requests of the other.
    """
    claim = socket.socket(socket.AF_UNIX)
    try:
        if port:
            claim.bind(f"\0actorrt-engine-port-{port}")
    except OSError:
        claim.close()
        return None
    return claim


def _give_back(claim: socket.socket, _: object) -> None:
    claim.close()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
