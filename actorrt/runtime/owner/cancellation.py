"""The caller of a call wants it cancelled: the wish finds the call wherever it is by then."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from actorrt.core.call_terms import Limit
from actorrt.core.calls import Action, State
from actorrt.types import ProcessId
from actorrt.wire.messages import AnyMessage, Cancel, CancelObject

from ..base.loop_thread import LoopThread
from ..links.link import Link
from .actors import Actors
from .calls import Call
from .entries import Entry


class Cancellation:
    """Cancels the calls of one process, and has those of others cancelled by their callers."""

    def __init__(
        self,
        process: ProcessId,
        thread: LoopThread,
        actors: Actors,
        tell_owner: Callable[[ProcessId, AnyMessage], None],
    ) -> None:
        self._process = process
        self._thread = thread
        self._actors = actors
        self._tell_owner = tell_owner

    def object(self, entry: Entry, force: bool, recursive: bool) -> None:
        """Cancel the call that an object comes from, if that is not this process's; from any thread."""
        if not entry.done and entry.owner != self._process:
            message = CancelObject(entry.seq, force, recursive)
            self._thread.run_soon(partial(self._tell_owner, entry.owner, message))

    def call(self, call: Call, force: bool, recursive: bool) -> None:
        """Cancel a call of this process; from any thread. Raises ValueError for an actor's call with force."""
        if force and call.home is self._actors and not self._thread.on_own_thread():
            raise ValueError("force=True ends the process of a task; for an actor's call there is actorrt.kill(actor)")
        link: Link | None = call.link
        if call.state is State.AWAY and link is not None and not link.closed:
            # From this thread, so that it does not overtake, and is not overtaken by, what this thread calls.
            call.ask(force)
            link.post(Cancel(call.message.seq, force, recursive))
            # It may have come back from there meanwhile.
            self._thread.run_soon(partial(self._if_moved, call, link, force, recursive))
        else:
            self._thread.run_soon(partial(self.here, call, force, recursive))

    def _if_moved(self, call: Call, link: Link, force: bool, recursive: bool) -> None:
        if call.state is not State.AWAY or call.link is not link:
            self.here(call, force, recursive)

    def here(self, call: Call, force: bool, recursive: bool) -> None:
        """Cancel a call wherever it is; runtime loop."""
        match call.home.cancel(call, force):
            case Action.END_CANCELLED:
                call.end_cancelled()
            case Action.SEND_CANCEL if not call.link.closed:
                call.link.send(Cancel(call.message.seq, force, recursive))
            case _:
                pass

    def late(self, call: Call, limit: Limit) -> None:
        """A limit of a call is over, wherever it is; runtime loop."""
        match action := call.home.late(call, limit):
            case Action.END_CANCELLED:
                call.end_cancelled()
            case Action.CUT | Action.WITHDRAW:
                if not call.link.closed:
                    call.link.send(Cancel(call.message.seq, unbegun=action is Action.WITHDRAW))
                if action is Action.CUT:
                    call.end_cancelled()
            case _:
                pass
