"""The answer to a call by a handle: `DeploymentResponse` for one value, `DeploymentResponseGenerator` for a stream.

A response is made at once and sent when the router has a replica for it. It may be sent more than once, as long as no
replica has started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import operator
import re
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Sequence
from enum import Enum
from functools import partial
from typing import Any, Final, Generic, NoReturn, TypeVar, cast

from actorrt import ObjectRef, ObjectRefGenerator, cancel, exceptions

from ..base.nested import take_out
from ..base.request_context import RequestContext
from ..declaration.handle_options import HandleOptions
from ..exceptions import RequestCancelledError, RequestStoppedError
from ..policies.policy import Cost, Grant, check_count
from .router import Router
from .target import Target

T_co = TypeVar("T_co", covariant=True)

# One lock for all: it is held for a few instructions, and a lock each would be the largest part of a response.
_lock: Final = threading.Lock()
# So many arguments stand in front of the caller's own (see `_message`).
HEAD: Final = 3


class _ByCaller(Enum):
    CANCELLED = "CANCELLED"


class _Reading(Enum):
    """How far who reads a stream is."""

    NOT_BEGUN = "NOT_BEGUN"
    BEGUN = "BEGUN"  # a value has come
    CLOSED = "CLOSED"  # it wants no more


class _Call:
    """What both kinds of response share: arguments that may be responses themselves, sending, and the end."""

    __slots__ = (
        "__weakref__",
        "_args",
        "_cancelled",
        "_context",
        "_done",
        "_error",
        "_kwargs",
        "_nested",
        "_options",
        "_router",
        "_unresolved",
        "_waiters",
        "request_id",
    )

    def __init__(
        self,
        router: Router,
        options: HandleOptions,
        request_id: str,
        context: RequestContext | None,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self._router = router
        self._options = options
        self.request_id = request_id
        self._context = context
        self._args: Sequence[Any] = args
        self._kwargs = kwargs
        self._nested: list[DeploymentResponse[Any]] = []
        self._error: BaseException | None = None
        self._done = False
        # By its caller; or the error by which its router has stopped it.
        self._cancelled: _ByCaller | RequestStoppedError | None = None
        self._waiters: list[Callable[[], object]] | None = None
        self._unresolved = 0
        if context is not None:
            context.add(self)

    @property
    def cost(self) -> Cost:
        """What it takes of a replica, as its caller has said."""
        return self._options.cost

    def call(self) -> tuple[Sequence[Any], dict[str, Any]]:
        """Its arguments, for a router that asks what it takes."""
        return self._args, self._kwargs

    def start(self) -> None:
        """Submit it, once the responses among its arguments have arrived. BackPressureError if it is refused now."""
        self._nested, self._args, self._kwargs = take_out(DeploymentResponse, self._args, self._kwargs)
        responses: list[DeploymentResponse[Any]] = self._nested + [
            each for each in (*self._args, *self._kwargs.values()) if isinstance(each, DeploymentResponse)
        ]
        if not responses:
            self._submit()
            return
        self._unresolved = len(responses)
        for response in responses:
            response.when_done(partial(self._argument_done, response))

    def _argument_done(self, response: DeploymentResponse[Any]) -> None:
        with _lock:
            self._unresolved -= 1
            last = self._unresolved == 0
        if response.failure() is not None:
            self.fail(response.failure())
        elif last and not self._done:
            try:
                self._submit()
            except Exception as error:
                self.fail(error)

    def _submit(self) -> None:
        try:
            self._router.submit(self)
        except BaseException:
            self._finish(None)
            raise

    def _message(self) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of the actor call: responses as refs, so that their values go straight to the replica."""
        head = [self._options.method_name, self.request_id, len(self._nested), *(each.ref() for each in self._nested)]
        args = [_as_ref(each) for each in self._args]
        return head + args, {key: _as_ref(each) for key, each in self._kwargs.items()}

    def _in_words_of_the_caller(self, error: Exception, tagged: bool) -> Exception:
        """Count the arguments as the caller does, without those that stand in front: of `_message`, and a tag."""
        if isinstance(error, exceptions.NotSerializableError):
            counted = re.fullmatch(r"argument (\d+) of (.*)", error.what)
            if counted is not None:
                number = int(counted[1]) - HEAD - len(self._nested) - tagged
                return exceptions.NotSerializableError(f"argument {number} of {counted[2]}", error.member, error.cause)
        return error

    def send(self, target: Target, grant: Grant) -> None:
        raise NotImplementedError

    def fail(self, error: BaseException | None) -> None:
        self._finish(error)

    def _finish(self, error: BaseException | None) -> None:
        with _lock:
            if self._done:
                return
            self._error = error
            self._done = True
            waiters, self._waiters = self._waiters, None
        if not self._may_start_again():
            self._args, self._kwargs, self._nested = (), {}, []
        if self._context is not None:
            self._context.children.discard(self)
        for waiter in waiters or ():
            waiter()

    def _may_start_again(self) -> bool:
        """Its arguments are still needed although it is done."""
        return False

    def when_done(self, waiter: Callable[[], object]) -> None:
        """Call `waiter()` once it is done, on whatever thread that is; now if it is done already."""
        with _lock:
            if not self._done:
                if self._waiters is None:
                    self._waiters = [waiter]
                else:
                    self._waiters.append(waiter)
                return
        waiter()

    def failure(self) -> BaseException | None:
        """Why there is no value, once it is done."""
        return self._error

    def cancelled(self) -> bool:
        """Whether `cancel` was called in time."""
        return self._cancelled is _ByCaller.CANCELLED

    async def _wait(self) -> None:
        if self._done:
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self.when_done(partial(_complete, loop, future))
        try:
            await future
        except asyncio.CancelledError:
            self.cancel()
            raise

    async def until_done(self) -> None:
        """Return when it has been answered; a stream when it was sent. It goes on if this is cancelled."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self.when_done(partial(_complete, loop, future))
        await future

    def cancel(self) -> None:
        raise NotImplementedError

    def stop(self, error: RequestStoppedError) -> None:
        """Its router wants its place back: it ends with this error, unless it has ended."""
        raise NotImplementedError

    def _was_cancelled(self) -> RequestCancelledError | RequestStoppedError:
        if isinstance(self._cancelled, RequestStoppedError):
            return self._cancelled
        return RequestCancelledError(str(self._router.deployment), self.request_id)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a response is passed on as an argument of another handle's call, itself or inside of lists, tuples and "
            "dicts; elsewhere await it first, and take the items of a stream"
        )


class DeploymentResponse(_Call, Generic[T_co]):
    """The value that a call by a handle will give.

    `await response` or `response.result()` gives it, or raises what user code raised. Passed to another call it is not
    fetched here. A waiter that is cancelled cancels it.
    """

    __slots__ = ("_ref",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._ref: ObjectRef[Any] | None = None

    def send(self, target: Target, grant: Grant) -> None:
        args, kwargs = self._message()
        if (tag := grant.tag) is not None:
            args.insert(0, tuple(tag))
        try:
            ref: ObjectRef[Any] = target.call(self._options.method_name, tag is not None).remote(*args, **kwargs)
        except Exception as error:  # an argument that cannot be pickled
            self._router.released(grant)
            self._finish(self._in_words_of_the_caller(error, tag is not None))
            return
        self._ref = ref
        ref.add_done_callback(partial(self._settled, target, grant), here=True)
        if self._cancelled:
            cancel(ref)

    def _settled(self, target: Target, grant: Grant, ref: ObjectRef[Any]) -> None:
        error = ref.exception()
        if self._cancelled or isinstance(error, exceptions.TaskCancelledError):
            # Also where the request's code has caught its cancellation, and gave a value or another error.
            self._finish(self._was_cancelled())
            self._router.released(grant)
        elif error is None:
            self._finish(None)
            self._router.released(grant)
        elif (final := self._router.failed(self, target, grant, error)) is not None:
            self._finish(final)

    def __await__(self) -> Generator[Any, None, T_co]:
        return self._value().__await__()

    async def _value(self) -> T_co:
        try:
            await self._wait()
            return await self.ref()
        finally:
            del self  # the error's traceback holds this frame

    def ref(self) -> ObjectRef[T_co]:
        """The ref behind a response that is done. Raises its error."""
        try:
            if self._error is not None:
                raise self._error
            assert self._ref is not None
            return self._ref
        finally:
            del self  # the error's traceback holds this frame

    # As asyncio's futures have them, for `asyncio.wait` and those who use what it gives.

    def done(self) -> bool:
        """True once there is a value, or an error."""
        return self._done

    def exception(self) -> BaseException | None:
        """The error of a response that is done, or None. Raises GetTimeoutError if it is not done."""
        if not self._done:
            raise exceptions.GetTimeoutError(f"the response of {self._router.deployment}")
        return self._error

    def add_done_callback(self, callback: Callable[[DeploymentResponse[T_co]], object]) -> None:
        """Have `callback(response)` called once it is done: on the running loop, or where it is found done."""
        run = partial(callback, self)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.when_done(run)
        else:
            self.when_done(partial(_call_on, loop, run))

    def remove_done_callback(self, callback: Callable[[DeploymentResponse[T_co]], object]) -> int:
        """Take back what `add_done_callback` was given; how often it was."""
        with _lock:
            before = self._waiters or []
            self._waiters = [waiter for waiter in before if not _is_made_of(waiter, partial(callback, self))]
            return len(before) - len(self._waiters)

    def result(self, *, timeout_s: float | None = None) -> T_co:
        """Block until the value is there. GetTimeoutError after `timeout_s`; RuntimeError on a loop if it is not."""
        if not self._done:
            _refuse_on_loop("result()", "await the response")
        arrived = threading.Event()
        self.when_done(arrived.set)
        if not arrived.wait(timeout_s):
            raise exceptions.GetTimeoutError(f"the response of {self._router.deployment}", timeout_s or 0.0)
        return self.ref().peek()

    def cancel(self) -> None:
        """Cancel the request and all that it asked for. Without effect once it is done."""
        if self._done:
            return
        self._cancelled = _ByCaller.CANCELLED
        if self._router.withdraw(self) or self._ref is None:
            self._finish(self._was_cancelled())
        else:
            cancel(self._ref)

    def stop(self, error: RequestStoppedError) -> None:
        if not self._done and not self._cancelled and self._ref is not None:
            self._cancelled = error
            cancel(self._ref)


class DeploymentResponseGenerator(_Call, Generic[T_co]):
    """The values of a generator method, as they come: `async for` or `for`. It cannot be passed to another call.

    A consumer that is cancelled in `async for`, in its body too, ends the stream at its source.
    """

    # Nothing is done when it is dropped, for that may happen within any step of any thread: the generator ends its
    # source by itself, and with the call its slot comes back.
    __slots__ = ("_batch", "_generator", "_given", "_grant", "_reading", "_target")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # `_done` here means that it was sent, or will not be: values can be asked for.
        self._generator: ObjectRefGenerator[Any] | None = None
        self._target: Target | None = None
        # The slot at the replica, until somebody has given it back.
        self._grant = _Held()
        self._given: Grant | None = None
        self._batch: deque[Any] = deque()
        self._reading = _Reading.NOT_BEGUN

    def send(self, target: Target, grant: Grant) -> None:
        args, kwargs = self._message()
        if (tag := grant.tag) is not None:
            args.insert(0, tuple(tag))
        call = target.call_stream(self._options.method_name, tag is not None)
        try:
            generator: ObjectRefGenerator[Any] = call.remote(*args, **kwargs)
        except Exception as error:
            self._router.released(grant)
            self._finish(self._in_words_of_the_caller(error, tag is not None))
            return
        self._generator, self._target, self._grant = generator, target, _Held((grant,))
        self._given = grant
        generator.end.add_done_callback(partial(_give_back, self._router, self._grant), here=True)
        if self._cancelled:
            cancel(generator)
        self._finish(None)

    @property
    def given(self) -> Grant | None:
        """The right by which it was sent last, for a router that is asked for it again."""
        return self._given

    @property
    def queue_ms(self) -> int | None:
        """How long it has waited for its replica, in milliseconds, where its router knows that."""
        return None if self._given is None else self._given.queue_ms

    @property
    def waits(self) -> bool:
        """Whether it was not sent to a replica yet: none has room for it."""
        return not self._done

    def _may_start_again(self) -> bool:
        # As long as no value has come, the replica may turn out to have refused it.
        return self._generator is not None

    def _started(self) -> None:
        if self._reading is _Reading.NOT_BEGUN:
            self._reading = _Reading.BEGUN
        self._args, self._kwargs, self._nested = (), {}, []

    def _release(self) -> None:
        _give_back(self._router, self._grant)

    def _judge(self, error: BaseException) -> BaseException | None:
        """None: it did not start there, and was sent elsewhere or waits."""
        target = self._target
        if self._cancelled or isinstance(error, exceptions.TaskCancelledError):
            self._release()
            return self._was_cancelled()
        if target is None:
            self._release()
            return error
        self._generator = self._target = None
        self._done = False
        return self._router.failed(self, target, _taken(self._grant), error)

    def __aiter__(self) -> AsyncIterator[T_co]:
        return _AsyncFor(self)

    async def __anext__(self) -> T_co:
        if not self._batch:
            self._batch.extend(await self.next_values())
            if not self._batch:
                raise StopAsyncIteration
        return self._batch.popleft()

    async def next_values(self) -> list[T_co]:
        """All values that are there, at least one; `[]` at the end. A waiter that is cancelled ends the stream."""
        if self._batch:
            taken = list(self._batch)
            self._batch.clear()
            return taken
        while True:
            if not self._done:
                await self._wait()
            if self._reading is _Reading.CLOSED:
                return []
            if self._error is not None:
                raise self._error
            if self._generator is None:
                return []
            try:
                batch = await self._generator.next_values()
            except asyncio.CancelledError:
                self.cancel()
                raise
            except StopAsyncIteration:
                batch = []
            except Exception as error:
                self._raise_final(self._judge(error))
                continue
            if not batch:
                self._release()
            elif self._reading is _Reading.NOT_BEGUN:
                self._started()
            return batch

    def _raise_final(self, error: BaseException | None) -> None:
        if error is not None:
            self._finish(error)
            raise error

    def __iter__(self) -> Iterator[T_co]:
        _refuse_on_loop("for", "use async for")
        return self

    def __next__(self) -> T_co:
        while True:
            arrived = threading.Event()
            self.when_done(arrived.set)
            arrived.wait()
            if self._reading is _Reading.CLOSED:
                raise StopIteration
            if self._error is not None:
                raise self._error
            if self._generator is None:
                raise StopIteration
            try:
                value: T_co = next(self._generator).peek()
                self._started()
                return value
            except StopIteration:
                self._release()
                raise
            except Exception as error:
                self._raise_final(self._judge(error))

    def report_used(self, used: Cost) -> None:
        """Say what the request has really used so far: its router learns it when the stream ends at its source.

        The last word before that counts. Without one the request has used its cost.
        """
        if not isinstance(cast(object, used), Cost):
            raise TypeError(f"used must be a Cost, not {type(used).__name__}")
        self._grant.used = used
        if not self._grant and (given := self._given) is not None:
            # Its source had ended before who reads it has come to that end.
            given.settle(used)

    def report_progress(self, tokens: int) -> None:
        """Say that so many tokens of the answer have come, for a router that counts them; other routers ignore it."""
        check_count("tokens", tokens)
        for grant in self._grant:
            grant.progress(tokens)

    def cancel(self) -> None:
        """End the stream at its source, with all that it asked for."""
        if self._cancelled:
            return
        self._cancelled = _ByCaller.CANCELLED
        if self._router.withdraw(self) or self._generator is None:
            self._finish(self._was_cancelled())
        else:
            cancel(self._generator)
            self._release()

    def stop(self, error: RequestStoppedError) -> None:
        # What has come already is given first.
        if not self._cancelled and self._generator is not None:
            self._cancelled = error
            cancel(self._generator)

    def close(self) -> None:
        """The same, and nothing more is given. Waits for nothing."""
        self._reading = _Reading.CLOSED
        self._batch.clear()
        if not self._done or self._grant:
            self.cancel()

    async def aclose(self) -> None:
        """The same, and wait until the source has cleaned up, as any asynchronous generator."""
        self.close()
        if self._generator is not None:
            await self._generator.aclose()


class _AsyncFor(Generic[T_co]):
    """What one `async for` iterates over: it goes when that loop is left.

    If its task is being cancelled then, nobody will take the rest, though the stream may live on in a variable.
    """

    __slots__ = ("_stream",)

    def __init__(self, stream: DeploymentResponseGenerator[T_co]) -> None:
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[T_co]:
        return self

    def __anext__(self) -> Coroutine[Any, Any, T_co]:
        return self._stream.__anext__()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __del__(self) -> None:
        try:
            task = asyncio.current_task()
        except RuntimeError:
            return
        if task is not None and task.cancelling():
            # Not now: this may happen within any step of this thread.
            task.get_loop().call_soon(self._stream.cancel)


class _Held(list[Grant]):
    """The grant of a stream until somebody has given it back, and what the caller knows of its use."""

    used: Cost | None = None


def _taken(held: _Held) -> Grant | None:
    """The grant, for the first of all threads that takes it."""
    try:
        return held.pop()
    except IndexError:
        return None


def _give_back(router: Router, held: _Held, _: object = None) -> None:
    if (found := _taken(held)) is not None:
        router.released(found, held.used)


def _as_ref(value: Any) -> Any:
    return cast("DeploymentResponse[Any]", value).ref() if isinstance(value, DeploymentResponse) else value


def _complete(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
    try:
        here = asyncio.get_running_loop() is loop
    except RuntimeError:
        here = False
    if here:
        # To wake a loop that runs costs two system calls and a turn.
        _set(future)
        return
    try:
        loop.call_soon_threadsafe(_set, future)
    except RuntimeError:
        return  # the loop is closed, and with it whoever waited


def _call_on(loop: asyncio.AbstractEventLoop, run: Callable[[], object]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(run)


def _is_made_of(waiter: Any, wanted: partial[object]) -> bool:
    """Whether `add_done_callback` has made this waiter of the same callback."""
    run: Any = waiter.args[1] if getattr(waiter, "func", None) is _call_on else waiter
    # A callback that is a partial function itself has become one with its argument.
    return (
        getattr(run, "func", None) == wanted.func
        and len(run.args) == len(wanted.args)
        and all(map(operator.is_, run.args, wanted.args))
    )


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _refuse_on_loop(what: str, instead: str) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(f"{what} would block the running event loop: {instead}")
