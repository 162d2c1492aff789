"""How a call that runs in this worker is cancelled, and what it has called in turn.

The call comes first: otherwise the outcome of what it has called takes it into its `finally` blocks, and the
interruption hits those. What has been called until then follows when its code was interrupted, or after LATE_S if its
code, which may block, has not been by then. It is interrupted once: its parent, its group and its user may all cancel
it, and what its `finally` blocks call is left in peace.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Final

from actorrt.wire.messages import Cancel

from ..links.running import Child, RunningCall

# What a cancelled call has called is cancelled after so long, if its own code could not be interrupted until then.
LATE_S: Final = 0.05


def cancel_calls(calls: list[Child], force: bool) -> None:
    """Cancel what a cancelled call has called in turn; on the runtime loop."""
    for call in calls:
        call.cancel(force)


def end_by_force(run: RunningCall, message: Cancel) -> None:
    """End this process if that is asked for, and the call is a task that has it to itself; on the runtime loop."""
    if message.force and run.actor is None and run.lease:
        if message.recursive:
            cancel_calls(run.living_children(), True)
        os.kill(os.getpid(), signal.SIGKILL)


def reach_later(loop: asyncio.AbstractEventLoop, run: RunningCall, force: bool, runs: Callable[[], bool]) -> None:
    """Cancel what a call has called so far even if its code is not interrupted for a while; on the runtime loop.

    `runs`: whether the call has not ended.
    """
    children = run.living_children()
    if children:
        loop.call_later(LATE_S, _reach, children, force, runs)


def _reach(children: list[Child], force: bool, runs: Callable[[], bool]) -> None:
    if runs():
        cancel_calls(children, force)
