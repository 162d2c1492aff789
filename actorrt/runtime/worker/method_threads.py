"""Methods that are marked to run in a thread, so that they may block while their actor's loop goes on."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, cast

from actorrt.wire.messages import STREAM_END, ActorCall, AnyMessage, Outcome

from ..links.running import RunningCall
from ..owner.outcomes import serialize_result
from ..owner.snapshots import take_snapshot
from .executor import ActorExit
from .thread_gate import END, ThreadGate

if TYPE_CHECKING:
    from .loop_executor import LoopExecutor

# For all actors of a loop; how many calls of its own each runs at once is bounded by its concurrency.
THREADS: Final = 256


class MethodThreads:
    """The threads of a LoopExecutor. The outcome is made in the thread too: large values block nobody."""

    def __init__(self, executor: LoopExecutor) -> None:
        self._executor = executor
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="actorrt-method")

    async def run(
        self, run: RunningCall, call: ActorCall, method: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> AnyMessage:
        """Call a method. Cancelled, it goes on to its end in its thread, where it can look at `is_canceled()`."""
        if call.credits:
            run.gate = ThreadGate(run.gate.left, _nothing)
        context = contextvars.copy_context()
        work = self._pool.submit(context.run, self._outcome, run, call, method, args, kwargs)
        future = asyncio.wrap_future(work, loop=self._executor.loop)
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError:
                if work.cancel():
                    raise
                if call.credits:
                    run.gate.cancel()
        return future.result()

    def _outcome(
        self, run: RunningCall, call: ActorCall, method: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> AnyMessage:
        outcomes = self._executor.outcomes
        try:
            result = method(*args, **kwargs)
            if run.asked:
                return outcomes.cancelled(run.seq)
            if call.credits:
                return self._stream(run, result)
            pickled = outcomes.pickled(run, result, call.returns)
            for one in pickled:
                take_snapshot(one)
            return outcomes.success(run, pickled)
        except (ActorExit, SystemExit):
            raise
        except KeyboardInterrupt as error:
            return outcomes.cancelled(run.seq) if run.cancelled else outcomes.failure(run, error)
        except BaseException as error:
            return self._executor.failure(run, error)

    def _stream(self, run: RunningCall, result: Any) -> AnyMessage:
        if not isinstance(result, Iterable):
            raise TypeError(f"{run.name} should stream and returned {type(result).__name__}, which is no generator")
        items = cast("Iterable[Any]", result)
        index = 0
        try:
            values = iter(items)
            while True:
                # First: the code between two values belongs to the later one.
                run.gate.take()
                if (value := next(values, END)) is END:
                    break
                # As it is now: the loop goes on.
                serialized = serialize_result(value, run.name)
                take_snapshot(serialized)
                run.link.post(self._executor.outcomes.item_of(run, index, serialized))
                index += 1
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
        if run.asked:
            return self._executor.outcomes.cancelled(run.seq)
        return Outcome(run.seq, STREAM_END, count=index)


def _nothing(_: bool) -> None: ...
