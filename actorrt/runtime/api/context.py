"""What a program may ask about its surroundings: the process, task or actor it runs in, and the pipe of its call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from actorrt.wire.frames import TO_CALLER

from ..links.pipes import FIRST_ROOM, Pipe, PipeReceiver
from ..links.running import NOT_ASKED, running_call
from ..owner.handles import ActorHandle
from . import program


class RuntimeContext:
    """Facts about the process, task or actor in which it is asked."""

    @property
    def namespace(self) -> str:
        return program.runtime().membership.namespace

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
        return program.runtime().membership.employer.job.hex()

    def get_node_id(self) -> str:
        return program.runtime().membership.node_id.hex()

    def get_worker_id(self) -> str:
        return program.runtime().process.hex()

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
        runtime = program.runtime()
        return {name: units / 10_000 for name, units in runtime.tenancy.assigned.items()}

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        return {"GPU": list(program.runtime().program.gpus)}

    def get_session_name(self) -> str:
        return program.runtime().session.rstrip("/").rsplit("/", 1)[-1]

    def get_temp_dir(self) -> str:
        return program.runtime().session

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Have `callback()` called when the coroutine call that this code belongs to is cancelled.

        That is when its cancellation reaches it, on its loop, whether or not its code lets it pass. A later callback
        takes the place of an earlier one. Outside of a call nothing happens.
        """
        run = running_call.get()
        if run is not None:
            run.tells(callback)

    def is_canceled(self) -> bool:
        """True once somebody asked to cancel the call that this code belongs to."""
        run = running_call.get()
        return run is not None and (run.cancelled or run.asked is not NOT_ASKED)


def _instance() -> Any:
    run = running_call.get()
    if run is not None:
        return run.actor
    runtime = program.maybe_runtime()
    return None if runtime is None else runtime.tenancy.actor


def get_runtime_context() -> RuntimeContext:
    """Where am I? See RuntimeContext."""
    program.runtime()
    return RuntimeContext()


def call_pipe(receiver: PipeReceiver | None = None) -> Pipe:
    """The end of the running call's pipe that belongs to its method. RuntimeError outside of a call.

    For coroutine methods: the pipe ends when the method does. What is written is lost if the caller takes no bytes.
    """
    run = running_call.get()
    if run is None:
        raise RuntimeError("there is no call here that could have a pipe")
    pipe: Pipe | None = run.pipe
    if pipe is None:
        runtime = program.maybe_runtime()
        find_turns = None if runtime is None else runtime.program.user_side.pipe_turns
        pipe = Pipe(run.link, run.seq, receiver, TO_CALLER, FIRST_ROOM, find_turns)
        run.link.pipes[run.seq] = pipe
        run.opens(pipe)
    return pipe
