"""Say what went wrong, in classes that a program can tell apart and that survive the trip to another process.

    ActorrtError
    ├── TaskError                     the user's own code raised; it is also an instance of what was raised
    ├── TaskCancelledError            the call was cancelled
    ├── GetTimeoutError               (TimeoutError) the value was not there in time; the call goes on
    ├── CallTimeoutError              (TimeoutError) the call did not keep to a limit of its own, and was cancelled
    ├── WorkerCrashedError            the process that ran the task is gone
    ├── NodeDiedError                 the machine's node is gone
    ├── OutOfMemoryError              the process was killed for its memory
    ├── ActorError
    │   ├── ActorDiedError            the actor is gone and will not come back
    │   ├── ActorUnavailableError     the actor cannot be reached now, later perhaps
    │   └── PendingCallsLimitExceeded the actor has `max_pending_calls` calls already
    ├── ActorAlreadyExistsError       (ValueError) the name is taken
    ├── ActorNotFoundError            (ValueError) no actor has that name
    ├── ObjectLostError               every copy of the value is gone
    │   ├── ObjectFreedError          its last reference had been dropped
    │   └── OwnerDiedError            the process that owned it ended
    ├── ObjectStoreFullError          neither memory nor disk has room
    ├── HeadUnavailableError          the head, which keeps names, did not answer in time
    ├── RuntimeEnvSetupError          a worker with that environment could not be made
    ├── TaskUnschedulableError        no machine can ever run it
    ├── ActorUnschedulableError       the same for an actor
    ├── TaskPlacementGroupRemoved     the placement group that it was to run in is gone
    ├── ActorPlacementGroupRemoved    the same for an actor
    ├── PlacementGroupError           (ValueError) a placement group that cannot be, or is not there
    ├── NotSentError                  the call never left this process: safe to repeat
    ├── NotSerializableError          (TypeError) a value that cannot be sent
    ├── UnserializableException       stands for an error that could not be sent: its text and traceback
    └── LinkError                     a peer spoke a protocol that this process does not

Each class keeps its fields in `args`; the text is made when it is asked for. Nothing here decides when to raise.
"""

import builtins
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from functools import lru_cache
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, Final, cast


def _is_error(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, BaseException)


class ActorrtError(Exception):
    """Every error of actorrt's own."""


class TaskError(ActorrtError):
    """A remote function or method raised. `cause` is what it raised; the remote traceback is a note of this error.

    What a caller sees is `as_instanceof_cause()`: caught by `except TaskError` and by `except ValueError` alike, if
    the cause is a ValueError. You do not get this when the process died under the call: that is `WorkerCrashedError`
    or `ActorDiedError`.

    `function` names the code, `Counter.incr` for a method; `pid` is the process it ran in, `actor` the actor as people
    read it, or None.
    """

    function: str
    pid: int
    actor: str | None
    traceback_text: str
    cause: BaseException

    def __init__(self, function: str, pid: int, actor: str | None, traceback_text: str, cause: BaseException) -> None:
        super().__init__(function, pid, actor, traceback_text, cause)
        self.function, self.pid, self.actor = function, pid, actor
        self.traceback_text, self.cause = traceback_text, cause
        self.add_note(f"remote traceback, {self._where}, process {pid}:\n{traceback_text.rstrip()}")

    def __str__(self) -> str:
        return f"{self._where} raised in process {self.pid}: {type(self.cause).__name__}: {text_of(self.cause)}"

    @property
    def _where(self) -> str:
        return f"{self.function} of {self.actor}" if self.actor else self.function

    def as_instanceof_cause(self) -> "TaskError":
        """The same error as an instance of a class that is both TaskError and the cause's own class.

        It has the cause's text, `args` and attributes. The TaskError itself comes back where the cause is no Exception
        (KeyboardInterrupt), would end an iteration (StopIteration), or has a class that cannot be mixed or made.
        """
        root = self.root_cause
        if not isinstance(root, Exception) or isinstance(root, StopIteration | StopAsyncIteration | TaskError):
            return self
        args = _args(root)
        try:
            dual_class = _dual_class(type(root))
            try:
                # That of MemoryError takes only classes that have it as their first base.
                make = BaseException.__new__ if dual_class.__new__ is MemoryError.__new__ else dual_class.__new__
                dual = make(dual_class, *args)
            except TypeError:
                # It wants what `args` does not have.
                dual = _native(dual_class).__new__(dual_class, *args)
        except Exception:  # the user's class decides whether it can be subclassed and made; it may refuse in any way
            return self
        notes = [*_notes(root), *_notes(self)]
        _fill(dual, args, _slots(root), {**_state(root), **vars(self), "_original": self, "__notes__": notes})
        _chain(dual, root.__cause__, root.__context__, root.__suppress_context__)
        return dual

    def __reduce__(self) -> tuple[Any, ...]:
        fields = (self.function, self.pid, self.actor, self.traceback_text)
        return _rebuild, (False, *fields, pack(self.cause)), {"__notes__": self.__notes__}

    def __copy__(self) -> "TaskError":
        made = TaskError(self.function, self.pid, self.actor, self.traceback_text, self.cause)
        made.__notes__ = _notes(self)
        return made

    @property
    def root_cause(self) -> BaseException:
        """What the innermost task raised, if tasks waited for tasks; else `cause`."""
        cause = self.cause
        while isinstance(cause, TaskError):
            cause = cause.cause
        return cause


class _Dual(TaskError):
    """Marks the classes that `as_instanceof_cause` makes."""

    # The user's class may have properties named like our fields, so that they are read from here.
    _original: TaskError

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Not that of the cause: it may count, log, or ask for arguments that are gone."""

    def __str__(self) -> str:
        return text_of(self._original.root_cause, self._original.traceback_text)

    def __copy__(self) -> TaskError:
        return copy(self._original).as_instanceof_cause()

    def __reduce__(self) -> tuple[Any, ...]:
        _, (_, *fields), _ = self._original.__reduce__()
        return _rebuild, (True, *fields)

    @property
    def root_cause(self) -> BaseException:
        return self._original.root_cause

    def as_instanceof_cause(self) -> TaskError:
        return self


def _rebuild(dual: bool, function: str, pid: int, actor: str | None, text: str, cause: BaseException) -> TaskError:
    made = TaskError(function, pid, actor, text, cause)
    return made.as_instanceof_cause() if dual else made


class _Packed(Exception):
    """A user's exception on its way: its parts, since many a class cannot be made again from its `args`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _open, self.args


def _open(
    kind: type[BaseException],
    args: tuple[Any, ...],
    slots: dict[str, object],
    state: dict[str, object],
    cause: BaseException | None,
    context: BaseException | None,
    suppress_context: bool,
) -> BaseException:
    native = _native(kind)
    made: BaseException = kind(*args) if kind is native else native.__new__(kind, *args)
    _fill(made, args, slots, state)
    _chain(made, cause, context, suppress_context)
    return made


def pack(error: BaseException, keep: Callable[[object], bool] | None = None) -> BaseException:
    """An exception in its parts, with those inside of it, for pickle; pickle makes it whole again at the other end.

    One whose class pickles in a way of its own goes that way. With `keep` none does, and of each only those parts go
    that `keep` says True of: an argument is its text then, an attribute is left out, and where the class cannot go an
    UnserializableException says what it was.
    """
    return cast("BaseException", _pack(error, keep, _Above()))


# How deep an error is looked into: an error of a long chain of causes must not take the interpreter's whole stack.
_MAX_DEPTH: Final = 32


class _Above(set[int]):
    """The ids of what lies around a value that is packed; and each error that was, since many may refer to it."""

    def __init__(self) -> None:
        super().__init__()
        # With the error, so that its id stays its own.
        self.packed: dict[int, tuple[BaseException, BaseException]] = {}


def _pack(value: Any, keep: Callable[[object], bool] | None, above: _Above) -> Any:
    if isinstance(value, BaseException) and id(value) in above.packed:
        return above.packed[id(value)][1]
    if id(value) in above or len(above) > _MAX_DEPTH:
        return None if not isinstance(value, BaseException) else UnserializableException(*_said(value), "")
    if isinstance(value, BaseException):
        above.add(id(value))
        try:
            packed = _parts(value, keep, above)
            above.packed[id(value)] = value, packed
            return packed
        finally:
            above.discard(id(value))
    kind = cast("type[Any]", type(value))
    if kind in (list, tuple, dict) and value:
        above.add(id(value))
        try:
            if kind is dict:
                return {key: _pack(inner, keep, above) for key, inner in value.items()}
            return cast(Any, kind)(_pack(inner, keep, above) for inner in value)
        finally:
            above.discard(id(value))
    return value if keep is None or keep(value) else _Left(value)


class _Left:
    """In place of a value that cannot go."""

    def __init__(self, value: object) -> None:
        self.text = shown(value)


def _parts(error: BaseException, keep: Callable[[object], bool] | None, above: _Above) -> BaseException:
    kind = type(error)
    if issubclass(kind, TaskError | UnserializableException):
        return error if keep is None or keep(error) else UnserializableException(*_said(error), "")
    as_inherited = kind.__reduce__ in _C_REDUCERS and kind.__reduce_ex__ is object.__reduce_ex__
    if keep is None and not as_inherited:
        return error
    if keep is not None and not keep(kind):
        return UnserializableException(*_said(error), "")
    chain = _context_of(error)
    args = tuple(_text_in(_pack(arg, keep, above)) for arg in _args(error))
    slots = {name: _pack(value, keep, above) for name, value in _slots(error).items()}
    state = {name: _pack(value, keep, above) for name, value in _state(error).items()}
    return _Packed(
        kind,
        args,
        {name: value for name, value in slots.items() if type(value) is not _Left},
        {name: value for name, value in state.items() if type(value) is not _Left},
        *(_pack(linked, keep, above) for linked in chain),
        error.__suppress_context__,
    )


def _context_of(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    cause, context = error.__cause__, error.__context__
    # What is not shown is not sent: it may hold anything.
    return cause, None if error.__suppress_context__ or context is cause else context


def _text_in(value: Any) -> Any:
    """The value, with text in place of what was left out."""
    if type(value) is _Left:
        return value.text
    if type(value) in (list, tuple):
        return type(value)(_text_in(inner) for inner in value)
    if type(value) is dict:
        found = cast("dict[Any, Any]", value)
        return {key: _text_in(inner) for key, inner in found.items()}
    return value


def _chain(error: BaseException, cause: BaseException | None, context: BaseException | None, suppress: bool) -> None:
    for name, value in (("__cause__", cause), ("__context__", context), ("__suppress_context__", suppress)):
        BaseException.__setattr__(error, name, value)


def _said(error: BaseException) -> tuple[str, str]:
    return type(error).__name__, text_of(error)


def text_of(error: BaseException, otherwise: str = "") -> str:
    """What an error says of itself, whatever its class does; else what the end of its traceback, `otherwise`, says."""
    try:
        return str(error)
    except Exception as raised:
        said = otherwise.rstrip().rpartition("\n")[2].partition(": ")[2]
        return (
            said
            if said and said != "<exception str() failed>"
            else f"<its text cannot be had: {type(raised).__name__}>"
        )


def shown(value: object) -> str:
    """The `repr` of any value, whatever its class does."""
    try:
        return repr(value)
    except Exception:
        return f"<{type(value).__name__}>"


# The exceptions written in C that pickle in a way of their own: they add what their constructor takes.
_C_REDUCERS: Final = tuple({kind.__reduce__ for kind in vars(builtins).values() if _is_error(kind)})
# What an error refers to that is none of its facts: it may be all that an actor has.
_NOT_SENT: Final = frozenset({(AttributeError, "obj"), (BaseExceptionGroup, "exceptions")})


def _native(kind: type[BaseException]) -> Any:
    """The nearest base that Python itself brings."""
    base: Any = kind
    while base.__module__ != "builtins":
        base = base.__base__
    return base


def _notes(error: BaseException) -> list[Any]:
    """Its notes, whatever the user has put into their place: Python shows what is no list of them as one."""
    try:
        notes = getattr(error, "__notes__", ())
    except Exception:  # a property of the user's, which may raise anything
        return []
    return list(cast(Any, notes)) if isinstance(notes, list | tuple) else [notes]


def _args(error: BaseException) -> tuple[Any, ...]:
    # Past a class that has a property of that name.
    return vars(BaseException)["args"].__get__(error)


def _state(error: BaseException) -> dict[str, Any]:
    return vars(BaseException)["__dict__"].__get__(error)


# Bounded: classes of a notebook's old cells must not live on for ever.
@lru_cache(maxsize=256)
def _dual_class(cause: type[Exception]) -> type[_Dual]:
    name = f"TaskError({cause.__name__})"
    return type(name, (_Dual, cause), {"__module__": __name__, "__qualname__": name, "__doc__": cause.__doc__})


def _slots(error: BaseException) -> dict[str, object]:
    """What does not lie in the instance's dictionary, also in classes written in C: OSError.errno."""
    found: dict[str, object] = {}
    for base in type(error).__mro__[: -len(BaseException.__mro__)]:
        for name, member in cast("Mapping[str, object]", vars(base)).items():
            if (base, name) in _NOT_SENT or name.startswith("__"):
                continue
            if isinstance(member, MemberDescriptorType | GetSetDescriptorType):
                with suppress(AttributeError):  # unset
                    found[name] = getattr(error, name)
    return found


def _fill(error: BaseException, args: tuple[Any, ...], slots: dict[str, object], state: dict[str, object]) -> None:
    # Past `__setattr__`, which a frozen dataclass refuses.
    for name, value in slots.items():
        with suppress(AttributeError, TypeError, ValueError):  # read only
            # One that is None is unset, and an OSError with a name that is None would speak of a file None.
            if value is not None:
                BaseException.__setattr__(error, name, value)
    vars(BaseException)["args"].__set__(error, args)
    vars(error).update(state)


class TaskCancelledError(ActorrtError):
    """The call was cancelled, before or while it ran. `task` names it."""

    def __init__(self, task: str) -> None:
        super().__init__(task)
        self.task = task

    def __str__(self) -> str:
        return f"{self.task} was cancelled"


class GetTimeoutError(ActorrtError, TimeoutError):
    """The value was not there within `timeout` seconds (None: it was only looked at). Nothing was cancelled."""

    def __init__(self, what: str, timeout: float | None = None) -> None:
        super().__init__(what, timeout)
        self.what, self.timeout = what, timeout

    def __str__(self) -> str:
        return f"{self.what} is not there yet" + (f" after {self.timeout:g} s" if self.timeout is not None else "")


class CallTimeoutError(ActorrtError, TimeoutError):
    """The call `what` has not kept to a limit that its options name, and was cancelled for that.

    `limit` is the option, "timeout_s" or "start_timeout_s", `seconds` its value. If `may_have_run` is false it had not
    begun, and can be repeated.
    """

    def __init__(self, what: str, limit: str, seconds: float, may_have_run: bool = True) -> None:
        super().__init__(what, limit, seconds, may_have_run)
        self.what, self.limit, self.seconds, self.may_have_run = what, limit, seconds, may_have_run

    def __str__(self) -> str:
        missed = "begun" if self.limit == "start_timeout_s" else "ended"
        ran = "it may have run" if self.may_have_run else "it had not started"
        return f"{self.what} has not {missed} within its {self.limit} of {self.seconds:g} s, and was cancelled ({ran})"


class _ProcessEnded(ActorrtError):
    def __init__(self, what: str, cause: str, may_have_run: bool = True) -> None:
        super().__init__(what, cause, may_have_run)
        self.what, self.cause, self.may_have_run = what, cause, may_have_run

    def __str__(self) -> str:
        ran = "it may have run" if self.may_have_run else "it had not started"
        return f"{self._happened()}: {self.cause} ({ran})"

    def _happened(self) -> str:
        return f"the worker of {self.what} died"


class WorkerCrashedError(_ProcessEnded):
    """The process that had the task `what` ended: `cause` is its signal or exit code.

    You get this after the last of `max_retries` attempts, or once three workers in a row have died under it.
    """


class OutOfMemoryError(_ProcessEnded):
    """The process that had the task `what` was killed because memory ran out, as the kernel or our own monitor says."""

    def _happened(self) -> str:
        return f"the worker of {self.what} ran out of memory"


class NodeDiedError(ActorrtError):
    """The supervising process of a machine is gone, and with it the machine's workers."""

    def __init__(self, node: str, cause: str) -> None:
        super().__init__(node, cause)
        self.node, self.cause = node, cause

    def __str__(self) -> str:
        return f"node {self.node} died: {self.cause}"


class ActorError(ActorrtError):
    """Something is wrong with an actor; `actor` is its class and id as people read it."""

    actor: str


class ActorDiedError(ActorError):
    """The actor ended before it answered and will not be restarted.

    `phase` is what it was doing ("starting", "running incr"), `cause` why it ended. If `may_have_run` is false the call
    had not reached it and can be repeated on another actor.
    """

    def __init__(self, actor: str, phase: str, cause: str, may_have_run: bool = True) -> None:
        super().__init__(actor, phase, cause, may_have_run)
        self.actor, self.phase, self.cause, self.may_have_run = actor, phase, cause, may_have_run

    def __str__(self) -> str:
        ran = "the call may have run" if self.may_have_run else "the call did not run"
        return f"actor {self.actor} died while {self.phase}: {self.cause} ({ran})"


class ActorUnavailableError(ActorError):
    """The actor cannot be reached now: it restarts, or the link to it broke. The call may have run."""

    def __init__(self, actor: str, cause: str, may_have_run: bool = True) -> None:
        super().__init__(actor, cause, may_have_run)
        self.actor, self.cause, self.may_have_run = actor, cause, may_have_run

    def __str__(self) -> str:
        ran = "the call may have run" if self.may_have_run else "the call did not run"
        return f"actor {self.actor} is unavailable: {self.cause} ({ran})"


class PendingCallsLimitExceeded(ActorError):
    """The call was refused since `limit` calls to the actor are pending. It did not run."""

    def __init__(self, actor: str, limit: int) -> None:
        super().__init__(actor, limit)
        self.actor, self.limit = actor, limit

    def __str__(self) -> str:
        return f"actor {self.actor} has {self.limit} pending calls, its max_pending_calls"


class ActorAlreadyExistsError(ActorrtError, ValueError):
    """A living actor has this name in this namespace. `get_if_exists=True` takes that one instead."""

    def __init__(self, name: str, namespace: str) -> None:
        super().__init__(name, namespace)
        self.name, self.namespace = name, namespace

    def __str__(self) -> str:
        return f"an actor named {self.name!r} exists in namespace {self.namespace!r}"


class ActorNotFoundError(ActorrtError, ValueError):
    """No living actor has this name in this namespace."""

    def __init__(self, name: str, namespace: str) -> None:
        super().__init__(name, namespace)
        self.name, self.namespace = name, namespace

    def __str__(self) -> str:
        return f"there is no actor named {self.name!r} in namespace {self.namespace!r}"


class ObjectLostError(ActorrtError):
    """Every copy of the value is gone and it cannot be made again. `object` is its id in hex."""

    def __init__(self, object: str, cause: str) -> None:
        super().__init__(object, cause)
        self.object, self.cause = object, cause

    def __str__(self) -> str:
        return f"object {self.object} is lost: {self.cause}"


class ObjectFreedError(ObjectLostError):
    """The runtime freed the value, since no process held a reference to it any more."""


class OwnerDiedError(ObjectLostError):
    """The process that owned the value ended."""


class ObjectStoreFullError(ActorrtError):
    """There is no room for `size` more bytes, in memory up to `limit` or on the disk it spills to."""

    def __init__(self, size: int, limit: int, cause: str) -> None:
        super().__init__(size, limit, cause)
        self.size, self.limit, self.cause = size, limit, cause

    def __str__(self) -> str:
        return f"no room for an object of {self.size:,} bytes, the limit is {self.limit:,}: {self.cause}"


class HeadUnavailableError(ActorrtError):
    """The head, which keeps names, did not answer in time; later it may. Whether a claim was granted is not known.

    You do not get this because a head has ended: another is started, and asked again.
    """

    def __init__(self, question: str, waited_s: float, state: str) -> None:
        super().__init__(question, waited_s, state)
        self.question, self.waited_s, self.state = question, waited_s, state

    def __str__(self) -> str:
        return (
            f"the head, which keeps names, has not answered {self.question} for {self.waited_s:g} s: {self.state}; "
            "ACTORRT_HEAD_TIMEOUT_S is how long it is waited for"
        )


class RuntimeEnvSetupError(ActorrtError):
    """A worker with the asked-for runtime_env could not be started."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause

    def __str__(self) -> str:
        return f"the runtime_env could not be set up: {self.cause}"


class _Unschedulable(ActorrtError):
    def __init__(self, what: str, shape: Mapping[str, float], missing: str) -> None:
        super().__init__(what, dict(shape), missing)
        self.what, self.shape, self.missing = what, dict(shape), missing

    def __str__(self) -> str:
        asked = ", ".join(f"{amount:g} {name}" for name, amount in sorted(self.shape.items()))
        return f"{self.what} asks for {asked or 'nothing'}, and no machine can give it: {self.missing}"


class TaskUnschedulableError(_Unschedulable):
    """No machine of the cluster has the resources in `shape`, free or taken; `missing` names what lacks."""


class ActorUnschedulableError(_Unschedulable):
    """No machine of the cluster has the resources in `shape`, free or taken; `missing` names what lacks."""


class _PlacementGroupRemoved(ActorrtError):
    def __init__(self, what: str, group: str, cause: str) -> None:
        super().__init__(what, group, cause)
        self.what, self.group, self.cause = what, group, cause

    def __str__(self) -> str:
        return f"{self.what} was to run in placement group {self.group}, which is gone: {self.cause}"


class TaskPlacementGroupRemoved(_PlacementGroupRemoved):
    """The placement group that the task was to run in was removed. `group` is its id in hex."""


class ActorPlacementGroupRemoved(_PlacementGroupRemoved):
    """The placement group that the actor was to run in was removed. `group` is its id in hex."""


class PlacementGroupError(ActorrtError, ValueError):
    """There is no such placement group, or can be none. `group` is its name, or its id in hex."""

    def __init__(self, group: str, cause: str) -> None:
        super().__init__(group, cause)
        self.group, self.cause = group, cause

    def __str__(self) -> str:
        return f"placement group {self.group}: {self.cause}"


class NotSentError(ActorrtError):
    """The call never left this process, so that repeating it is safe."""

    def __init__(self, what: str, cause: str) -> None:
        super().__init__(what, cause)
        self.what, self.cause = what, cause

    def __str__(self) -> str:
        return f"{self.what} was not sent: {self.cause}"


class NotSerializableError(ActorrtError, TypeError):
    """`what` (an argument, a result) cannot be pickled; `member` is the path to the part of it that refuses, or ""."""

    def __init__(self, what: str, member: str, cause: str) -> None:
        super().__init__(what, member, cause)
        self.what, self.member, self.cause = what, member, cause

    def __str__(self) -> str:
        where = f" because of {self.member}" if self.member else ""
        return f"{self.what} cannot be sent to another process{where}: {self.cause}"


class UnserializableException(ActorrtError):
    """Stands in for an error that could not be pickled or unpickled: its class, its text and its traceback."""

    def __init__(self, class_name: str, text: str, traceback_text: str) -> None:
        super().__init__(class_name, text, traceback_text)
        self.class_name, self.text, self.traceback_text = class_name, text, traceback_text

    def __str__(self) -> str:
        return f"{self.class_name}: {self.text} (the error itself could not be sent)"


class LinkError(ActorrtError):
    """A peer sent what it must not, or speaks another version. The link is closed."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause

    def __str__(self) -> str:
        return self.cause
