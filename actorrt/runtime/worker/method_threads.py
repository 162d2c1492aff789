"""Methods that are marked to run in a thread, so that they may block while their actor's loop goes on."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, cast

from actorrt.core.outcome import LEAVES
from actorrt.wire.messages import STREAM_END, ActorCall, AnyMessage, Outcome

from ..links.running import NOT_ASKED, RunningCall
from ..owner.outcomes import Outcomes, serialize_result
from ..owner.snapshots import take_snapshot
from .executor import OWN_ERRORS, ended
from .thread_gate import END, ThreadGate

# For all actors of a loop; how many calls of its own each runs at once is bounded by its concurrency.
THREADS: Final = 256


class MethodThreads:
    """The threads of one loop. The outcome is made in the thread too: large values block nobody."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outcomes: Outcomes) -> None:
        self._loop = loop
        self._outcomes = outcomes
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="actorrt-method")

    async def run(
        self, run: RunningCall, call: ActorCall, method: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> AnyMessage:
        """Call a method. Cancelled, it goes on to its end in its thread, where it can look at `is_canceled()`."""
        if call.credits:
            run.streams(ThreadGate(run.gate.left, _nothing), run.next_large)
        context = contextvars.copy_context()
        work = self._pool.submit(context.run, self._outcome, run, call, method, args, kwargs)
        future = asyncio.wrap_future(work, loop=self._loop)
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
        outcomes = self._outcomes
        try:
            result = method(*args, **kwargs)
            if run.asked is not NOT_ASKED:
                return outcomes.cancelled(run.seq)
            if call.credits:
                return self._stream(run, result)
            pickled = outcomes.pickled(run, result, call.returns)
            for one in pickled:
                take_snapshot(one)
            return outcomes.success(run, pickled)
        except BaseException as error:
            end = OWN_ERRORS.end_of(error, run.cancelled)
            outcome = None if end is LEAVES else ended(outcomes, run, end, error)
            if outcome is None:
                raise  # on the loop, where its actor is
            return outcome

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
                run.link.post(self._outcomes.item_of(run, index, serialized))
                index += 1
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
        if run.asked is not NOT_ASKED:
            return self._outcomes.cancelled(run.seq)
        return Outcome(run.seq, STREAM_END, count=index)


def _nothing(_: bool) -> None: ...
