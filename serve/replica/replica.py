"""A replica: the actor that runs one copy of a deployment's code, in a process of its own.

It keeps to `max_ongoing_requests` itself, because several routers send to it: what is too much is refused before it
starts, and the router tries elsewhere. Requests come by `http` from proxies and by `call` from handles.
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
import itertools
import logging
import os
import pickle
from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from actorrt import ActorHandle, call_pipe, exit_actor, get_runtime_context, method

from ..base import connection
from ..base.background import spawn
from ..base.nested import put_back
from ..base.refusals import DRAINING, FULL, OUTDATED, ReplicaRefusedError
from ..base.request_context import HookContext, ReplicaContext, RequestContext, current_request, set_replica_context
from ..base.user_errors import exit_error, in_a_line, is_end, with_frames
from ..capacity_queue.config import LOAD, OFFER
from ..capacity_queue.current_lease import current_lease
from ..capacity_queue.engine_loads import EngineLoads
from ..capacity_queue.messages import Offer, Tag, incarnation_of
from ..capacity_queue.offers import checked
from ..capacity_queue.running import RunningLeases
from ..exceptions import PlainError
from ..http.incoming import Incoming
from ..http.listener import fetch
from ..http.loan import CHANNEL_SHIFT, FRAMING, LEAST_LENT, NOT_LENT, Borrower, Writing
from ..http.request_head import REQUEST_ID, scope_of
from ..http.responses import Large, queue_line
from ..http.unavailable import unavailable_in
from ..http.websocket_rules import CLOSE
from .byte_channel import ByteChannel
from .incoming_body import IncomingBody
from .lifecycle import ReplicaState
from .thread_iteration import iterate_in_thread
from .user_code import CLOSE_S, Kind, UserCode
from .websocket_run import WebsocketRun

if TYPE_CHECKING:
    from .reply import Replier

logger = logging.getLogger("actorrt.serve.replica")

# Responses that are all made, and whose clients are slow to take them, together: those of more keep their places among
# the requests.
CARRIED_BYTES: Final = 256 * 1024 * 1024
# Requests that are cancelled when their replica stops may clean up for so long: a part of STOP_TIMEOUT_S.
CLEAN_UP_S: Final = 3.0
# Python looks up the members of an enum slowly, and each request asks for this one.
RUNNING: Final = ReplicaState.RUNNING
# What user code has called as it ended is waited for that long.
HOOKS_S: Final = 2.0
# A capacity queue is told of what begins and ends here at most so often.
LEASES_EVERY_S: Final = 0.05


class ReplicaSettings(NamedTuple):
    """What the controller tells a replica before it starts. All of it is plain data but the two pickles."""

    app: str
    deployment: str
    replica: str
    code: bytes
    config: bytes
    max_ongoing: int
    config_version: str
    first_try: bool


def _log_websocket(context: RequestContext, error: BaseException) -> None:
    if (unavailable := unavailable_in(error)) is not None:
        logger.info("a websocket, request %s: %s", context.request_id, unavailable)
    else:
        logger.error("a websocket failed, request %s:\n%s", context.request_id, with_frames(error))


class Replica:
    """All methods but those for requests are called by the controller."""

    def __init__(self, controller: ActorHandle[Any]) -> None:
        connection.set_controller(controller)
        self._code: UserCode
        self._replier: Replier
        self._max_ongoing = 1
        self._ongoing = 0
        # Requests that nobody waits for any more and whose threads go on: there is no room for others in their place.
        self._left = 0
        # Responses that were begun and whose rest no proxy has taken yet; the requests may have ended.
        self._carrying = 0
        self._carried_bytes = 0
        self._state = ReplicaState.STARTING
        self._config_version = ""
        self._changed = asyncio.Event()
        self._numbers = itertools.count(1)
        # Requests by HTTP that are here, each with a place among those that may run at once.
        self._requests: dict[int, Incoming] = {}
        self._websockets: dict[str, WebsocketRun] = {}
        self._call_streams: set[asyncio.Task[Any]] = set()
        # By which proxies lend their clients' sockets.
        self._channels: dict[int, Borrower] = {}
        # Who it is, and what its constructor and its end call.
        self._context = ReplicaContext("", "", "")
        self._hooks = HookContext()
        self._end_task: asyncio.Task[None] | None = None
        # What a capacity queue let run here, and the requests of it that came by HTTP, by their keys.
        self._leases: RunningLeases
        self._leased: dict[int, Tag] = {}
        self._follower: object = None

    # Its life.

    async def where(self) -> tuple[int, str]:
        """Process and node: answered as soon as there is a process."""
        return os.getpid(), get_runtime_context().get_node_id()

    async def until_death(self) -> None:
        """Never returns: the call fails when the replica's process is gone, and that is how others learn of it."""
        await asyncio.get_running_loop().create_future()

    @method(may_block=True)
    async def start(self, settings: ReplicaSettings) -> str:
        """Construct user code. "" if it is ready to serve, else why not."""
        # Starlette is loaded here and not with this module, which the controller loads too.
        from .reply import Replier

        self._max_ongoing = settings.max_ongoing
        self._code = UserCode(settings.max_ongoing, self._on_left)
        self._replier = Replier(self._code, settings.deployment, self._note_change)
        self._leases = RunningLeases(incarnation_of(settings.replica))
        context = self._context = ReplicaContext(settings.app, settings.deployment, settings.replica)
        current_request.set(self._hooks)
        try:
            await self._code.construct(settings.code, lambda: set_replica_context(context), self._hooks)
            set_replica_context(replace(context, servable_object=self._code.instance))
            await self._code.reconfigure(pickle.loads(settings.config))
            await self._code.check_health()
        except Exception as error:
            if settings.first_try and not isinstance(error, PlainError):
                # The next tries most likely end the same way.
                told = with_frames(error).replace("Traceback (most recent call last):\n", "")
                logger.error("%s of application %s could not start:\n%s", settings.deployment, settings.app, told)
            return in_a_line(error)
        if self._state is ReplicaState.STARTING:
            self._state = RUNNING
        self._config_version = settings.config_version
        return ""

    async def reconfigure(self, config: bytes, max_ongoing: int, config_version: str) -> str:
        """Take a new configuration while serving. "" if it was taken."""
        try:
            await self._code.reconfigure(pickle.loads(config))
        except Exception as error:
            logger.error("a new user_config was refused:\n%s", with_frames(error))
            return in_a_line(error)
        self._max_ongoing = max_ongoing
        self._code.have_threads(max_ongoing)
        self._config_version = config_version
        self._note_change()
        return ""

    async def check_health(self) -> str:
        """ "" if user code is well."""
        try:
            await self._code.check_health()
        except Exception as error:
            return in_a_line(error)
        return ""

    async def drain(self) -> None:
        """Refuse new requests and return when those that are here have ended, with what they do in the background, and
        their responses been taken away.
        """
        if self._state is not ReplicaState.STOPPING:
            self._state = ReplicaState.DRAINING
        self._note_change()
        while self._ongoing or self._carrying or self._replier.busy:
            self._changed.clear()
            await self._changed.wait()

    @method(may_block=True)
    async def stop(self, limit_s: float = CLOSE_S) -> None:
        """Cancel what still runs and let user code clean up, for `limit_s` in all. Asked twice, it is done once."""
        if self._end_task is None:
            # Its end does not hang on who asked for it: a controller may be restarted meanwhile.
            self._end_task = spawn(self._end_code(limit_s))
        await asyncio.shield(self._end_task)

    async def _end_code(self, limit_s: float) -> None:
        loop = asyncio.get_running_loop()
        end_by = loop.time() + limit_s
        self._state = ReplicaState.STOPPING
        current_request.set(self._hooks)
        cancelled: list[asyncio.Task[Any]] = [*self._replier.cancel_all(), *self._code.cancel_all()]
        for run in self._websockets.values():
            cancelled += run.go_away()
        for task in self._call_streams:
            task.cancel()
            cancelled.append(task)
        if cancelled:
            logger.warning(
                "replica %s cuts off what has not ended within graceful_shutdown_timeout_s: "
                "%d requests, websockets or background tasks",
                self._context.replica_id,
                len(cancelled),
            )
            # How they clean up needs what `close` takes away.
            await asyncio.wait(cancelled, timeout=CLEAN_UP_S)
        # User code may still ask where it is; the instance is not held by that.
        set_replica_context(self._context)
        await self._code.close(max(0.0, end_by - loop.time()))

    async def leave(self, limit_s: float) -> None:
        """End the process as a program ends: its atexit handlers run, and what was called by then is sent."""
        current_request.set(self._hooks)
        try:
            async with asyncio.timeout(limit_s):
                # In a thread: they may run a loop of their own, and wait for calls that need this one.
                await asyncio.to_thread(atexit._run_exitfuncs)  # pyright: ignore[reportPrivateUsage]
        except TimeoutError:
            logger.warning("atexit handlers of replica %s are cut off", self._context.replica_id)
        if not await self._hooks.settled(HOOKS_S):
            logger.warning("calls that replica %s made as it ended have no answer yet", self._context.replica_id)
        exit_actor()

    async def until_free(self) -> None:
        """Return when there is room for a request: a router that was refused waits for this."""
        while self._ongoing + self._left >= self._max_ongoing and self._state is RUNNING:
            self._changed.clear()
            await self._changed.wait()

    async def state(self) -> tuple[ReplicaState, str]:
        """What it does, and with which configuration: a new controller asks."""
        is_known = self._state in (RUNNING, ReplicaState.DRAINING)
        return self._state, self._config_version if is_known else ""

    # Requests.

    def _refusal(self) -> int:
        if self._state is not RUNNING:
            return DRAINING
        return FULL if self._ongoing + self._left >= self._max_ongoing else 0

    def _end(self) -> None:
        self._ongoing -= 1
        self._note_change()

    def _on_left(self, change: int) -> None:
        self._left += change
        self._note_change()

    def _note_change(self) -> None:
        self._changed.set()

    async def http(self, head: bytes, body: bytes | None, framing: int, key: int) -> Any:
        """Finished bytes; or (bytes, whether the connection ends); or why it was refused.

        Flat values, for speed. `body` None: it comes by the call's pipe. A large response goes there, too, or to its
        client's socket, and what is given then is its end. No other request has the same `key`. Above the bits of
        `framing` itself stands the number of the channel that lends sockets; 0: there is none.
        """
        if refusal := self._refusal():
            return refusal
        return await self._http(head, body, framing, key, b"")

    async def _http(self, head: bytes, body: bytes | None, framing: int, key: int, also: bytes) -> Any:
        """`also`: lines of the response's head."""
        self._ongoing += 1
        lines = head.split(b"\n")
        context = RequestContext(lines[REQUEST_ID].decode("latin-1"))
        current_request.set(context)
        if body is None:
            parts = IncomingBody.of(lines)
            request = Incoming.in_parts(parts.next_part, parts.close)
        else:
            request = Incoming(body)
        self._requests[key] = request
        try:
            ended = partial(self._request_ended, key)
            answer = await self._replier.answer(lines, request, framing & FRAMING, ended, also)
        except asyncio.CancelledError:
            context.cancel_children()
            raise
        if isinstance(answer, bytes):
            return answer
        if isinstance(answer, Large):
            if not answer.close and call_pipe().write_with_reply(answer.head, answer.body):
                return answer.tail
            return await self._send(answer, self._channels.get(framing >> CHANNEL_SHIFT), key)
        first, channel, close = answer
        if channel is None:
            return first, close
        # Who cancels this call from now on tells the code that its client has gone, and that may take its time.
        context.answers = True
        return await self._send_parts(first, channel, close)

    async def http_leased(self, tag: tuple[Any, ...], head: bytes, body: bytes | None, framing: int, key: int) -> Any:
        """The same with a capacity queue's lease."""
        lease = Tag(*tag)
        if refusal := self._refusal():
            return refusal
        if not self._leases.begin(lease):
            return OUTDATED
        self._leased[key] = lease
        self._note_change()
        return await self._http(head, body, framing, key, queue_line(lease.queue_ms))

    def _request_ended(self, key: int) -> None:
        """The last byte of its response is known."""
        if self._leased and (lease := self._leased.pop(key, None)) is not None:
            self._leases.end(lease)
        self._requests.pop(key).end()
        self._ongoing -= 1
        self._changed.set()

    async def http_gone(self, key: int) -> bool:
        """Nobody waits for this request's response any more. True if its code hears that, and may end by itself."""
        request = self._requests.get(key)
        if request is None:
            return False
        request.end()
        return self._replier.has_grace(request)

    async def http_code_ended(self, key: int) -> bool:
        """Return once this request needs no place any more, although its client has not taken all of its response.

        It keeps its place while too much is carried for such clients.
        """
        while key in self._requests or self._carried_bytes > CARRIED_BYTES:
            self._changed.clear()
            await self._changed.wait()
        return True

    async def _send(self, answer: Large, channel: Borrower | None, key: int) -> tuple[bytes, bool]:
        """A whole response as fast as its client takes it: to the client's socket, if that is lent, or by the pipe."""
        self._carrying += 1
        self._carried_bytes += len(answer.body)
        try:
            if channel is not None and len(answer.body) >= LEAST_LENT:
                fd = await channel.claim(key, answer.head[9:12])
                if fd != NOT_LENT:
                    await Writing(fd, answer.head, answer.body, answer.tail).done()
                    return b"", answer.close
            pipe = call_pipe()
            pipe.write(answer.head, answer.body)
            await pipe.drained()
        finally:
            self._carrying -= 1
            self._carried_bytes -= len(answer.body)
            self._note_change()
        return answer.tail, answer.close

    async def http_fetch_channel(self, name: str) -> int:
        """Have a channel by which a proxy lends its clients' sockets: its number; 0 if this is another machine."""
        try:
            channel = await asyncio.to_thread(fetch, name)
        except OSError:
            return 0
        number = next(self._numbers)
        self._channels[number] = Borrower(channel, partial(self._channels.pop, number, None))
        return number

    async def _send_parts(self, first: bytes, channel: ByteChannel, close: bool) -> bytes | tuple[bytes, bool]:
        """The same for a response that is made in parts: each leaves as it is made, with those of other responses."""
        self._carrying += 1
        try:
            pipe = call_pipe()
            pipe.write_with_turn(first)
            try:
                await channel.flow_into(pipe)
            except (asyncio.CancelledError, GeneratorExit):
                raise
            except BaseException:
                # What was made before is the client's.
                await pipe.drained()
                raise
            if (held := pipe.held) and (close or not pipe.write_with_reply()):
                # The code has ended: what a slow client leaves here is held for it alone.
                self._carried_bytes += held
                try:
                    await pipe.drained()
                finally:
                    self._carried_bytes -= held
        finally:
            self._carried(channel)
        return (b"", True) if close else b""

    def _carried(self, channel: ByteChannel) -> None:
        """Nobody takes any more from this response."""
        channel.abandon()
        self._carrying -= 1
        self._note_change()

    async def websocket(self, head: bytes, key: str, tag: tuple[Any, ...] | None = None) -> AsyncGenerator[Any]:
        """What the application sends to a client, or why it was refused. Messages come by `websocket_message`.

        `tag`: of a capacity queue's lease.
        """
        if refusal := self._refusal():
            yield refusal
            return
        if self._code.asgi is None:
            yield {"type": CLOSE, "code": 1000, "reason": "this deployment takes no websockets"}
            return
        lease = None if tag is None else Tag(*tag)
        if lease is not None:
            if not self._leases.begin(lease):
                yield OUTDATED
                return
            self._note_change()
        self._ongoing += 1
        lines = head.split(b"\n")
        context = RequestContext(lines[REQUEST_ID].decode("latin-1"))
        current_request.set(context)
        scope = {**scope_of(lines), "state": dict(self._code.state)}
        run = WebsocketRun(self._code.asgi, scope, partial(_log_websocket, context), context.cancel_children)
        self._websockets[key] = run
        events = run.events()
        try:
            async for event in events:
                yield event
        finally:
            del self._websockets[key]
            context.cancel_children()
            try:
                await events.aclose()
            finally:
                if lease is not None:
                    self._leases.end(lease)
                self._end()

    async def websocket_message(self, key: str, message: dict[str, Any]) -> bool:
        """A client's message, once the application has taken the one before. False if it has ended."""
        run = self._websockets.get(key)
        return run is not None and await run.put(message)

    async def call(self, method: str, request_id: str, nested: int, /, *args: Any, **kwargs: Any) -> Any:
        """A call by a handle. The first `nested` arguments are values that belong inside the others."""
        self._refuse_call()
        self._ongoing += 1
        context = RequestContext(request_id)
        current_request.set(context)
        try:
            if nested:
                args, kwargs = put_back(args[:nested], args[nested:], kwargs)
            found = self._code.method(method)
            if found.kind in (Kind.GENERATOR, Kind.ASYNC_GENERATOR):
                raise TypeError(f"{method} is a generator: call it by handle.options(stream=True)")
            result = await self._code.call(found, args, kwargs)
            if inspect.isgenerator(result) or inspect.isasyncgen(result):
                raise TypeError(f"{method} returned a generator: call it by handle.options(stream=True)")
            return result
        except asyncio.CancelledError:
            context.cancel_children()
            raise
        except SystemExit as error:
            raise exit_error(error) from error
        finally:
            self._end()

    async def call_leased(
        self, tag: tuple[Any, ...], method: str, request_id: str, nested: int, /, *args: Any, **kwargs: Any
    ) -> Any:
        """The same with a capacity queue's lease."""
        lease = self._begin_lease(tag)
        try:
            return await self.call(method, request_id, nested, *args, **kwargs)
        finally:
            self._leases.end(lease)

    def _begin_lease(self, tag: tuple[Any, ...]) -> Tag:
        self._refuse_call()
        lease = Tag(*tag)
        if not self._leases.begin(lease):
            raise ReplicaRefusedError(OUTDATED)
        self._note_change()
        current_lease.set(lease)
        return lease

    async def leases(self, epoch: int) -> AsyncGenerator[tuple[Any, ...]]:
        """For a capacity queue of this epoch: all leases that run here, then which begin and end, until it goes."""
        leases = self._leases
        offer = await self._said_to_hold()
        first = leases.snapshot(epoch, offer)
        running = tuple(tuple(tag) for tag in first.running)
        yield (first.epoch, first.incarnation, None if offer is None else tuple(offer), running, first.credits)
        if epoch < leases.epoch:
            return
        leases.is_followed = True
        follower = self._follower = object()
        self._changed.set()  # for the follower before this one, which ends
        loads = EngineLoads(self._note_change)
        asks = spawn(self._ask_load(loads))
        try:
            while True:
                await asyncio.sleep(LEASES_EVERY_S)
                while not (leases.has_news or loads.has_news) and self._follower is follower:
                    self._changed.clear()
                    await self._changed.wait()
                if self._follower is not follower:
                    return
                if (load := loads.take()) is not None:
                    yield tuple(load)
                report = leases.report()
                yield (report.begun, report.ended, tuple(tuple(tag) for tag in report.unknown), report.rooms)
        finally:
            asks.cancel()
            if self._follower is follower:
                leases.is_followed = False

    async def fence_leases(self, epoch: int, numbers: list[int]) -> tuple[tuple[int, int, int], ...]:
        """Let nothing more begin by these leases and credits of a capacity queue; what runs by them."""
        return self._leases.fence(epoch, numbers)

    async def _said_to_hold(self) -> Offer | None:
        """What the deployment's code says that it holds; None: it says nothing."""
        try:
            method = self._code.method(OFFER)
        except AttributeError:
            return None
        try:
            return checked(await self._code.call(method, (), {}))
        except BaseException as error:
            if isinstance(error, Exception) or is_end(error):
                raise
            # It would end more than this question.
            raise RuntimeError(in_a_line(error)) from error

    async def _ask_load(self, loads: EngineLoads) -> None:
        """Hear again and again what the deployment's code says that its engine has, if it says that."""
        try:
            method = self._code.method(LOAD)
        except AttributeError:
            return
        await loads.ask(lambda: self._code.call(method, (), {}))

    async def aside(self, method: str, /, *args: Any) -> Any:
        """A call that takes no place among the requests: what is asked of the replica itself, also if it is full."""
        current_request.set(HookContext())
        return await self._code.call(self._code.method(method), args, {})

    async def call_stream(
        self, method: str, request_id: str, nested: int, /, *args: Any, **kwargs: Any
    ) -> AsyncGenerator[Any]:
        """The same for a method that is a generator."""
        return self._values(None, method, request_id, nested, args, kwargs)

    async def call_stream_leased(
        self, tag: tuple[Any, ...], method: str, request_id: str, nested: int, /, *args: Any, **kwargs: Any
    ) -> AsyncGenerator[Any]:
        """The same with a capacity queue's lease."""
        return self._values(tag, method, request_id, nested, args, kwargs)

    async def _values(
        self,
        tag: tuple[Any, ...] | None,
        method: str,
        request_id: str,
        nested: int,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> AsyncGenerator[Any]:
        # One generator with and without a lease: a second one around it would be a step more for each value. The lease
        # begins in here, since the code of one that is closed before its first value never runs.
        lease = None
        if tag is None:
            self._refuse_call()
        else:
            lease = self._begin_lease(tag)
        self._ongoing += 1
        context = RequestContext(request_id)
        current_request.set(context)
        stream: Any = None
        task = asyncio.current_task()
        try:
            if nested:
                args, kwargs = put_back(args[:nested], args[nested:], kwargs)
            result = await self._code.call(self._code.method(method), args, kwargs)
            if hasattr(result, "__aiter__"):
                stream = result
            elif hasattr(result, "__next__"):
                stream = iterate_in_thread(result, self._code.threads, on_left=self._code.left)
            else:
                raise TypeError(
                    f"{method} returned {type(result).__name__}, which is no generator: call it without stream=True"
                )
            if task is not None:
                self._call_streams.add(task)
            async for item in stream:
                yield item
        except SystemExit as error:
            raise exit_error(error) from error
        except (asyncio.CancelledError, GeneratorExit):
            context.cancel_children()
            raise
        finally:
            try:
                # How it cleans up is part of the request.
                if stream is not None and hasattr(stream, "aclose"):
                    await stream.aclose()
            finally:
                if lease is not None:
                    self._leases.end(lease)
                self._end()
                if task is not None:
                    self._call_streams.discard(task)

    def _refuse_call(self) -> None:
        if refusal := self._refusal():
            raise ReplicaRefusedError(refusal)
