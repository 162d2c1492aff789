"""A call as its caller sees it, from `.remote()` to its outcome.

The arguments are pickled here, refs among them are noted and waited for, and outcomes become entries. Where a call
goes is decided in tasks.py and actors.py; when it is sent again and when it ends, in core/calls.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

from actorrt import exceptions
from actorrt.config import Settings
from actorrt.core import call_errors
from actorrt.core.call_terms import CallTerms, Limit, RetryOn
from actorrt.core.calls import AWAY, ENDED, HERE, NO_WISH, Action, CallLife, Event, Wish
from actorrt.core.item_numbers import next_item
from actorrt.core.object_state import PENDING, PRESENT, RAISED, REMOTE, SHARED
from actorrt.types import NO_PROCESS, ProcessId
from actorrt.wire import codec
from actorrt.wire.codec import Serialized
from actorrt.wire.messages import (
    CANCELLED,
    ERROR,
    FAILED,
    GIVEN_BACK,
    INLINE,
    NO_ACTOR,
    SEGMENT,
    STREAM_END,
    WITHDRAWN,
    ActorCall,
    Cancel,
    Item,
    ItemValue,
    Outcome,
    Slots,
    StartActor,
    TaskCall,
    Value,
)

from ..base.explain import explain_unpicklable
from .entries import Entry
from .generators import Consumer, Stream, StreamedValues
from .references import ObjectRef
from .segments_client import SegmentsClient

if TYPE_CHECKING:
    from ..links.link import Link

# Outcomes that say nothing of what the code of a call has done.
CAME_BACK: Final = frozenset({GIVEN_BACK, NO_ACTOR})
# What a callee says of a call of which no value and no error comes.
_EVENTS: Final = {CANCELLED: Event.STOPPED, WITHDRAWN: Event.WITHDRAWN}
# The place of a whole argument list that is too large to travel inside its call.
ALL_ARGUMENTS: Final = -1
# The place of what a call only has to be behind: its value is not filled in anywhere.
BEHIND: Final = -2


# (place, entry) of arguments whose values are waited for.
Waiting = list[tuple[int | str, Entry]]


class Arguments(NamedTuple):
    """Pickled arguments: the payload, the refs at top level still to be resolved, and what has to stay alive."""

    payload: bytes
    slots: Slots | None = None
    waiting: Waiting | None = None
    pins: list[Any] | None = None


class CalledValues(StreamedValues, Protocol):
    """The objects of the process that makes a call."""

    def put_segment(self, serialized: Serialized) -> Entry: ...
    def settle(self, entry: Entry, value: Value, call: Any, index: int = 0) -> None: ...
    async def settled(self, entry: Entry) -> None: ...


class Caller(Consumer, Protocol):
    """The process that makes a call, as far as a call asks it."""

    process: ProcessId
    settings: Settings

    @property
    def objects(self) -> CalledValues: ...
    @property
    def segments(self) -> SegmentsClient: ...

    def cancel_call(self, call: Any, force: bool, recursive: bool) -> None: ...
    def pause_call(self, call: Any) -> None: ...


class Batch:
    """What the outcomes of one frame have in common: it is done once for all of them."""

    __slots__ = ("by_actor", "by_lease", "given_back", "is_single")

    def __init__(self, is_single: bool = False) -> None:
        # There is no other outcome in the frame.
        self.is_single = is_single
        # How many calls each actor has answered.
        self.by_actor: dict[Any, int] = {}
        # The same for tasks, and those that came back unbegun.
        self.by_lease: dict[int, int] = {}
        self.given_back: list[tuple[Call, int]] = []


class Home(Protocol):
    """Who sends the calls of one kind, and hears what becomes of them; on the runtime loop."""

    def replied(self, link: Link, call: Call, data: bytes, batch: Batch) -> None:
        """One inline value came: the common outcome."""

    def ended(self, link: Link, call: Call, batch: Batch) -> None:
        """Any other outcome of its code came, and is about to end it: it is under way no more."""

    def again(self, link: Link, call: Call, batch: Batch) -> None:
        """The same, and it is to be sent again."""

    def came_back(self, link: Link, call: Call, outcome: Outcome, batch: Batch) -> None:
        """Its callee has not begun it, or does not have its actor."""

    def cancel(self, call: Call, force: bool) -> Action:
        """The caller of a call wants it cancelled: what to do with it now."""
        ...

    def late(self, call: Call, limit: Limit) -> Action:
        """A limit of a call is over: what to do with it now."""
        ...

    def resume(self, call: Call) -> None:
        """The pause of a call is over: it goes again."""


class Nowhere:
    """The home of a call that is not sent from here: it stands for arguments that are waited for, or runs here."""

    def replied(self, link: Link, call: Call, data: bytes, batch: Batch) -> None: ...
    def ended(self, link: Link, call: Call, batch: Batch) -> None: ...
    def again(self, link: Link, call: Call, batch: Batch) -> None: ...
    def came_back(self, link: Link, call: Call, outcome: Outcome, batch: Batch) -> None: ...

    def cancel(self, call: Call, force: bool) -> Action:
        return call.on_cancel(force)

    def late(self, call: Call, limit: Limit) -> Action:
        return call.on_late(limit)

    def resume(self, call: Call) -> None: ...


_NOWHERE: Final = Nowhere()


class Call(CallLife):
    """One call that this process made. What its life asks for is done here: `succeed` or `heard` with what its
    callee says; `fail` and `end_with` with what this process says."""

    __slots__ = (
        "__weakref__",
        "code",
        "entries",
        "entry",
        "home",
        "incarnation",
        "left",
        "link",
        "message",
        "name",
        "pins",
        "pipe",
        "runtime",
        "stream",
        "target",
        "waiting",
    )

    def __init__(
        self,
        runtime: Caller,
        message: ActorCall | TaskCall | StartActor,
        target: Any,
        name: str,
        attempts_left: int = 0,
        terms: RetryOn | CallTerms = False,
        arguments: Arguments | None = None,
        returns: int = 1,
        window: int | None = None,
        pipe: Any = None,
        code: Any = None,
        home: Home = _NOWHERE,
    ) -> None:
        """`window`: it streams, and may be so many items ahead. Its results have the numbers from `message.seq` on."""
        # As CallLife begins, and no call more for each call.
        self.state = HERE
        self.wish = NO_WISH
        self.attempts_left = attempts_left
        self.terms = terms
        self.may_have_run = False
        self.deaths = 0
        self.runtime = runtime
        self.message = message
        self.target = target
        self.name = name
        self.link: Any = None
        self.pins: list[Any] | None
        # Refs among the arguments whose values are not there yet.
        self.waiting: Waiting | None
        if arguments is None:
            self.pins = self.waiting = None
        else:
            self.pins, self.waiting = arguments.pins, arguments.waiting
        # Who takes the bytes that come beside the call; the caller's end of its pipe once there is one.
        self.pipe = pipe
        # Which life of its actor it was sent to.
        self.incarnation = -1
        # Large values of attempts that failed behind them. Those of the next attempt take their places, if it has any.
        self.left: list[Value] | None = None
        # What a task runs: it is known, and can be sent again, as long as the call may need it.
        self.code = code
        self.home = home
        owner = runtime.process
        self.entry = Entry(owner, message.seq, PENDING, self)
        # All return values, where there is more than one.
        self.entries: list[Entry] | None = None
        if returns > 1:
            others = range(message.seq + 1, message.seq + returns)
            self.entries = [self.entry, *(Entry(owner, seq, PENDING, self) for seq in others)]
        self.stream = None if window is None else Stream(self, window)

    @property
    def number(self) -> int:
        """It grows with each call of this process."""
        return self.message.seq

    def all_entries(self) -> list[Entry]:
        return [self.entry] if self.entries is None else self.entries

    def cancel(self, force: bool) -> None:
        """Cancel it, and what it has called in turn; on the runtime loop."""
        self.runtime.cancel_call(self, force, True)

    async def settled(self) -> None:
        """Return once it has its outcome; on the runtime loop."""
        await self.runtime.objects.settled(self.entry)

    def push(self, link: Link) -> None:
        """Queue it for its callee at the other end of `link`, for the first time or again."""
        self.link = link
        self.state = AWAY
        seq = self.message.seq
        link.inflight[seq] = self
        stream = self.stream
        if stream is None:
            link.push(self.message)
        else:
            stream.push(link)
        if self.wish:
            link.push(Cancel(seq, self.wish is Wish.FORCE))

    # ---- what its callee says

    def succeed(self, data: bytes) -> None:
        """One inline value came: the common outcome."""
        if self.state is ENDED:
            return
        self.state = ENDED
        self.pins = None
        if self.left is not None:
            self._free_left()
        if self.stream is not None:
            self._end_stream(None)
        self.entry.settle(PRESENT, data)

    def value_came(self, data: bytes) -> None:
        """The same for a plain call whose life has ended with that already."""
        self.pins = None
        self.entry.settle(PRESENT, data)

    @property
    def is_plain(self) -> bool:
        """Whether its value is all that is awaited of it, and nothing has to be let go of with it."""
        return self.stream is None and self.left is None

    def heard(self, link: Link, outcome: Outcome, batch: Batch) -> None:
        """Any other outcome came over `link`."""
        home = self.home
        if outcome.kind in CAME_BACK:
            home.came_back(link, self, outcome, batch)
            return
        match action := self.came(outcome):
            case Action.WAIT:
                link.inflight[outcome.seq] = self
            case Action.AGAIN:
                self._keep_left(outcome.values[1:])
                home.again(link, self, batch)
            case Action.PAUSE:
                self._keep_left(outcome.values[1:])
                home.ended(link, self, batch)
                self.runtime.pause_call(self)
            case _:
                home.ended(link, self, batch)
                self._end(action, outcome)

    def came(self, outcome: Outcome) -> Action:
        """What becomes of it, now that its code has come to an end there."""
        if outcome.kind == FAILED:
            return self.raised(partial(_error_in, outcome))
        return self.on(_EVENTS.get(outcome.kind, Event.ANSWERED))

    def _end(self, action: Action, outcome: Outcome) -> None:
        match action:
            case Action.SETTLE if outcome.kind == STREAM_END:
                self.pins = None
                self._end_stream(None)
                self.entry.settle(PRESENT, codec.serialize(None).data)
            case Action.SETTLE:
                self._settle(outcome.values)
                self.pins = None
                self._free_left()
            case Action.FAIL:
                # A generator may have given some of its values before: those come behind the error.
                self._settle(outcome.values[1:])
                self.end_with(outcome.values[0].data)
            case Action.END_CANCELLED:
                self.end_cancelled()
            case _:
                self._unwanted(outcome.values)

    def _keep_left(self, values: Sequence[Value]) -> None:
        for value in self._unwanted(values):
            if value.kind == SEGMENT:
                self.left = [*(self.left or ()), value]

    def _settle(self, values: Sequence[Value]) -> None:
        for index, (entry, value) in enumerate(zip(self.all_entries(), values, strict=False)):
            self.runtime.objects.settle(entry, value, self, index)

    def _unwanted(self, values: Sequence[Value]) -> Sequence[Value]:
        """Nobody gets these values. Who made them is told that what they name may go."""
        for index, value in enumerate(values):
            self.runtime.objects.settle(Entry(NO_PROCESS, 0), value, self, index)
        return values

    # ---- what this process says

    def fail(self, error: BaseException | bytes) -> None:
        """Nothing will come of it, for this reason; nothing happens if it has ended."""
        if self.on(Event.GIVEN_UP) is Action.FAIL:
            self.end_with(error)

    def cancelled(self) -> None:
        """Nothing will come of it, since its caller does not want it; nothing happens if it has ended."""
        self.fail(exceptions.TaskCancelledError(self.name))

    def end_cancelled(self) -> None:
        """For the actions END_CANCELLED and CUT."""
        limit, terms = self.ended_by, self.terms
        if limit is None or not isinstance(terms, CallTerms):
            self.end_with(exceptions.TaskCancelledError(self.name))
        else:
            self.end_with(call_errors.late(self.name, terms, limit))

    def end_with(self, error: BaseException | bytes) -> None:
        """For the actions that end it with an error: the waiters get this one."""
        self.pins = None
        stream = self.stream
        self._end_stream(error)
        for entry in self.all_entries():
            entry.settle(RAISED, error)
        self._free_left()
        if self.link is not None and isinstance(error, exceptions.ActorrtError):
            # It may have laid its values into shared memory before it came to its end.
            if stream is not None:
                stream.cut_off()
            for entry in self.all_entries():
                self.runtime.segments.free(entry.owner, entry.seq)

    def _free_left(self) -> None:
        if self.left is not None:
            here = {entry.seq for entry in self.all_entries() if entry.state == SHARED}
            for value in self.left:
                if value.seq not in here:
                    self.runtime.segments.free(value.owner, value.seq)
            self.left = None

    def _end_stream(self, error: BaseException | bytes | None) -> None:
        # It knows this call, and whoever takes its items has it: the two would be left to the collector.
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.end(error)

    def take_item(self, item: Item | ItemValue) -> None:
        stream = self.stream
        if stream is not None and not self.done:
            if isinstance(item, Item):
                came: Entry | bytes = item.data
            else:
                came = entry = self.runtime.objects.new_entry()
                if item.value.kind == SEGMENT:
                    entry.seq = item.value.seq
                    stream.next_large = next_item(entry.seq)
                self.runtime.objects.settle(entry, item.value, self, item.index)
            # A producer that runs again begins with the items that are here already.
            if item.index >= stream.came:
                stream.add(came)


def _error_in(outcome: Outcome) -> BaseException | None:
    try:
        return codec.deserialize(outcome.values[0].data)
    except Exception:
        return None


def pack_arguments(runtime: Caller, what: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """Pickle the arguments of a call to `what`.

    Raises NotSerializableError that names the argument, and RuntimeError if the value of a ref can never come here.
    """
    waiting: Waiting = []
    pins: list[Any] = []
    plain: list[Any] = list(args)
    for index, value in enumerate(args):
        if type(value) is ObjectRef:
            waiting.append((index, _entry_of(cast(ObjectRef[Any], value))))
            plain[index] = None
    named = kwargs
    if kwargs:
        named = dict(kwargs)
        for key, value in kwargs.items():
            if type(value) is ObjectRef:
                waiting.append((key, _entry_of(cast(ObjectRef[Any], value))))
                named[key] = None
    for _, entry in waiting:
        if not entry.done:
            runtime.check_mine(entry)
    try:
        serialized = codec.serialize([tuple(plain), named] if named else tuple(plain))
    except Exception as error:
        raise explain_unpicklable(what, args, kwargs, error) from error
    pins += serialized.refs
    slots: Slots | None = None
    if serialized.nbytes > runtime.settings.inline_limit:
        entry = runtime.objects.put_segment(serialized)
        pins.append(entry)
        payload = b""
        if entry.done:
            slots = [(ALL_ARGUMENTS, entry.data)]
        else:
            waiting.append((ALL_ARGUMENTS, entry))
    else:
        payload = codec.pack(serialized)
    pins += [entry for _, entry in waiting]
    return Arguments(payload, slots, waiting or None, pins or None)


def arguments_of(runtime: Caller, what: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """The same, and plain arguments by the fast way; a maker of many calls writes that out."""
    payload = codec.dumps_call(args, kwargs, runtime.settings.inline_limit)
    return pack_arguments(runtime, what, args, kwargs) if payload is None else Arguments(payload)


def _entry_of(ref: ObjectRef[Any]) -> Entry:
    return ref._entry  # pyright: ignore[reportPrivateUsage]  the two are one idea in two files


def unpack_arguments(payload: bytes | memoryview) -> tuple[list[Any], dict[str, Any]]:
    """The callee's side of `pack_arguments`, before the slots are filled in."""
    args, kwargs = split_arguments(codec.deserialize(payload))
    return list(args), kwargs or {}


def split_arguments(value: Any) -> tuple[Sequence[Any], dict[str, Any] | None]:
    """What was pickled for a call: a tuple of arguments, or a list of that tuple and the keyword arguments."""
    return (value[0], value[1]) if type(value) is list else (value, None)  # pyright: ignore[reportUnknownVariableType]


def value_of(entry: Entry) -> Value:
    """What travels for an entry that is done."""
    if entry.state == PRESENT:
        return Value(INLINE, entry.data)
    if entry.state == SHARED:
        value: Value = entry.data
        return Value(SEGMENT, b"", value.owner, value.seq, value.size, None, value.node, value.home)
    return Value(ERROR, error_bytes(entry.data))


def error_bytes(error: BaseException | bytes) -> bytes:
    """An error in its pickled form. What cannot travel keeps its class name, text and traceback."""
    if isinstance(error, bytes):
        return error
    with contextlib.suppress(Exception):
        return _checked(error)
    text = error.traceback_text if isinstance(error, exceptions.TaskError) else ""
    cause = error.cause if isinstance(error, exceptions.TaskError) else error
    stand_in = exceptions.UnserializableException(type(cause).__name__, exceptions.text_of(cause, text), text)
    for make in (lambda: exceptions.pack(cause, _can_go), lambda: stand_in):
        with contextlib.suppress(Exception):
            told = make()
            if isinstance(error, exceptions.TaskError):
                told = exceptions.TaskError(error.function, error.pid, error.actor, text, told)
            return _checked(told)
    return codec.pack(codec.serialize(stand_in))


def _checked(error: BaseException) -> bytes:
    data = codec.pack(codec.serialize(error))
    # Many an exception pickles and cannot be made again from that.
    codec.deserialize(data)
    return data


def _can_go(value: object) -> bool:
    try:
        codec.deserialize(codec.pack(codec.serialize(value)))
    except Exception:
        return False
    return True


def when_resolved(call: Call, go: Callable[[Call], None], later: Callable[[Callable[[], None]], None]) -> bool:
    """Wait for the refs among the arguments. False if they are all there already (then `go` was not called).

    `later` runs a function on the runtime loop; `go(call)` is called there once the last value came. A ref that failed
    fails the call with its error.
    """
    pending = [entry for _, entry in call.waiting or () if not entry.done]
    if not pending:
        return False
    left = len(pending)

    def arrived(_: Entry) -> None:
        later(one_more)

    def one_more() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            go(call)

    for entry in pending:
        if entry.state == REMOTE:
            call.runtime.request(entry)
        if not entry.add_waiter(arrived):
            arrived(entry)
    return True


def fill_slots(call: Call) -> bool:
    """Put the values that were waited for into the message. False: one was an error, and the call failed with it."""
    waiting, call.waiting = call.waiting, None
    if waiting:
        slots: Slots = list(call.message.slots or ())
        for place, entry in waiting:
            if place == BEHIND:
                continue
            if entry.state == RAISED:
                call.fail(entry.data)
                return False
            slots.append((place, value_of(entry)))
        call.message.slots = slots or None
    return True


def behind_retries(arguments: Arguments, target: object) -> Arguments:
    """Have a call wait for calls to the same actor that may yet be repeated, if it can come to wait for them itself.

    Refs inside of its arguments travel as refs. If it waited for one of them in its method, the repetition of the call
    that brings it could not start: the actor runs one call at a time.
    """
    looked_at: set[Call] = set()
    waiting: Waiting = list(arguments.waiting or ())
    # Those that stand for arguments themselves, pinned as entries, are waited for in any case.
    look: list[Any] = [pin for pin in arguments.pins or () if type(pin) is ObjectRef]
    while look:
        one: Any = look.pop()
        entry: Any = _entry_of(cast("ObjectRef[Any]", one)) if type(one) is ObjectRef else one
        other: Call | None = entry.call if type(entry) is Entry else None
        if other is None or other in looked_at:
            continue
        looked_at.add(other)
        if other.target is target and other.may_be_repeated:
            waiting.append((BEHIND, entry))
        else:
            look += other.pins or ()
    return arguments._replace(waiting=waiting or None)
