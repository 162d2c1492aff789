"""What runs here: the call that this code belongs to, and what a program may ask about its surroundings."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from . import current

if TYPE_CHECKING:
    from ..api.handles import ActorHandle
    from ..links.link import Link
    from ..owner.calls import Call

_COMPACT_AT: Final = 64


class RunningCall:
    """A call that this process executes for another. `cancelled` is set once it is to end, whoever wants that."""

    __slots__ = (
        "actor",
        "asked",
        "cancelled",
        "children",
        "forcing",
        "gate",
        "interrupted",
        "lease",
        "link",
        "name",
        "next_large",
        "on_cancel",
        "pipe",
        "seq",
        "started",
        "task",
    )

    # Not there before somebody asks to be told: no call pays for it.
    on_cancel: Callable[[], object]
    # Of a stream: the number of its next item that is laid into shared memory.
    next_large: int

    def __init__(self, link: Link, seq: int, name: str, actor: Any = None, lease: int = 0) -> None:
        self.link = link
        self.seq = seq
        self.name = name
        # The actor's Instance, if it is an actor's call.
        self.actor = actor
        self.lease = lease
        self.task: Any = None
        # Credits of a stream, while it runs.
        self.gate: Any = None
        # The method's end of the call's pipe, if it has asked for it.
        self.pipe: Any = None
        self.cancelled = False
        # Its caller has cancelled it; and, for a coroutine, its code has been told so at its await. What such code
        # returns all the same, nobody gets.
        self.asked = False
        self.interrupted = False
        self.started = False
        self.children: list[weakref.ref[Call]] | None = None
        # Whether its cancellation reaches its children (else None), and with force.
        self.forcing: bool | None = None

    def add_child(self, call: Call) -> None:
        children = self.children
        if children is None:
            children = self.children = []
        elif len(children) >= _COMPACT_AT and len(children) % _COMPACT_AT == 0:
            children[:] = [ref for ref in children if (child := ref()) is not None and not child.done]
        children.append(weakref.ref(call))

    def living_children(self) -> list[Call]:
        return [child for ref in self.children or () if (child := ref()) is not None and not child.done]


running_call: ContextVar[RunningCall | None] = ContextVar("actorrt_running_call", default=None)


class RuntimeContext:
    """Facts about the process, task or actor in which it is asked."""

    @property
    def namespace(self) -> str:
        return current.runtime().namespace

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """True in an actor that was restarted."""
        instance = _instance()
        return bool(instance is not None and instance.incarnation > 0)

    @property
    def current_actor(self) -> ActorHandle[Any]:
        """A handle to the actor that this code belongs to. Raises RuntimeError outside of an actor."""
        instance = _instance()
        if instance is None:
            raise RuntimeError("this code does not run in an actor")
        return instance.own_handle()

    def get_job_id(self) -> str:
        return f"{current.runtime().job:08x}"

    def get_node_id(self) -> str:
        return current.runtime().node_id.hex()

    def get_worker_id(self) -> str:
        return current.runtime().process.hex()

    def get_task_id(self) -> str | None:
        run = running_call.get()
        return None if run is None else f"{run.link.peer.hex()}{run.seq:016x}"

    def get_task_name(self) -> str | None:
        run = running_call.get()
        return None if run is None else run.name

    get_task_function_name = get_task_name

    def get_actor_id(self) -> str | None:
        instance = _instance()
        return None if instance is None else instance.actor.hex()

    def get_actor_name(self) -> str | None:
        """The name given by `options(name=...)`, "" if it has none; None outside of an actor."""
        instance = _instance()
        return None if instance is None else instance.public_name

    def get_assigned_resources(self) -> dict[str, float]:
        """What the task or actor has for itself, such as `{"CPU": 1.0}`."""
        runtime = current.runtime()
        return {name: units / 10_000 for name, units in runtime.assigned.items()}

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        return {"GPU": list(current.runtime().gpus)}

    def get_session_name(self) -> str:
        return current.runtime().session.rstrip("/").rsplit("/", 1)[-1]

    def get_temp_dir(self) -> str:
        return current.runtime().session

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Have `callback()` called when the coroutine call that this code belongs to is cancelled.

        That is when its cancellation reaches it, on its loop, whether or not its code lets it pass. A later callback
        takes the place of an earlier one. Outside of a call nothing happens.
        """
        run = running_call.get()
        if run is not None:
            run.on_cancel = callback

    def is_canceled(self) -> bool:
        """True once somebody asked to cancel the call that this code belongs to."""
        run = running_call.get()
        return run is not None and (run.cancelled or run.asked)


def _instance() -> Any:
    run = running_call.get()
    if run is not None:
        return run.actor
    runtime = current.maybe_runtime()
    return None if runtime is None else runtime.only_actor


def get_runtime_context() -> RuntimeContext:
    """Where am I? See RuntimeContext."""
    current.runtime()
    return RuntimeContext()
