"""What is known of a decorated function or class: its code, how it is called, and its bytes for workers.

Definitions are shared by everything that was made from them with other options. Nothing is submitted here.
"""

from __future__ import annotations

import hashlib
import inspect
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial, partialmethod, singledispatchmethod
from types import MappingProxyType
from typing import Any, ClassVar, Final, Self, cast

import msgspec

from actorrt.core.arity import ANYTHING, Arity
from actorrt.core.options import MethodOptions
from actorrt.types import NO_FUNCTION, FunctionKey

from . import shipping
from .explain import explain_code

FUNCTION_ID_SIZE: Final = 16
MARK: Final = "__actorrt_method__"
"""The attribute of a function in which `@method` leaves its MethodOptions."""
ONLY_MARKED: Final = "__actorrt_only_marked__"
"""The attribute of a class whose handles offer what is marked, and nothing else: see api/actor.py."""


class Definition:
    """Code with a name, pickled once. `function_id` is a hash of `blob`, the bytes that `shipping.load` takes."""

    __slots__ = ("__weakref__", "_blob", "_code", "_id", "mark", "name")
    # What came from other processes and is still in use, so that it is unpickled once.
    _restored: ClassVar[weakref.WeakValueDictionary[tuple[bytes, tuple[Any, ...]], Any]]

    def __init_subclass__(cls) -> None:
        cls._restored = weakref.WeakValueDictionary()

    def __init__(self, code: Callable[..., Any] | None, name: str, *facts: Any, blob: bytes = b"") -> None:
        self.name = name
        self._code = code
        self._blob = blob
        self._id = NO_FUNCTION
        # Set once it has been sent: it goes with this object, see shipped.py.
        self.mark: object = None

    @property
    def code(self) -> Any:
        """The function or class itself; one that came from another process is unpickled now."""
        if self._code is None:
            self._code = shipping.load(self._blob)
        return self._code

    @property
    def blob(self) -> bytes:
        if not self._blob:
            under_way = _pickling.under_way
            under_way.add(self)
            try:
                self._blob = shipping.ship(self._code or self.code)
            except Exception as error:
                raise explain_code(self.name, self._code, error) from error
            finally:
                under_way.discard(self)
        return self._blob

    @property
    def function_id(self) -> FunctionKey:
        if not self._id:
            self._id = FunctionKey(hashlib.blake2b(self.blob, digest_size=FUNCTION_ID_SIZE).digest())
        return self._id

    def _facts(self) -> tuple[Any, ...]:
        """What `_restore` takes beside code, name and blob."""
        raise NotImplementedError

    @classmethod
    def _restore(cls, code: Callable[..., Any] | None, name: str, blob: bytes, facts: tuple[Any, ...]) -> Self:
        key = (blob, facts)
        made = cls._restored.get(key) if blob else None
        if made is None:
            made = cls(code, name, *facts, blob=blob)
            if blob:
                cls._restored[key] = made
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        # Code that refers to itself by its decorated name is in the middle of being pickled: the pickler knows it.
        if self in _pickling.under_way:
            return self._restore, (self._code, self.name, b"", self._facts())
        return self._restore, (None, self.name, self.blob, self._facts())


class _Pickling(threading.local):
    def __init__(self) -> None:
        self.under_way: set[Definition] = set()


_pickling = _Pickling()


class RemoteFunctionDef(Definition):
    """A remote function."""

    __slots__ = ("arity", "is_async", "is_generator")

    def __init__(
        self,
        code: Callable[..., Any] | None,
        name: str,
        is_async: bool,
        is_generator: bool,
        arity: Arity,
        *,
        blob: bytes = b"",
    ) -> None:
        super().__init__(code, name, blob=blob)
        self.is_async = is_async
        self.is_generator = is_generator
        self.arity = arity

    @classmethod
    def of(cls, code: Callable[..., Any]) -> RemoteFunctionDef:
        is_async, is_generator = kind_of(code)
        return cls(code, _title(code), is_async, is_generator, Arity.of(code))

    def _facts(self) -> tuple[Any, ...]:
        return self.is_async, self.is_generator, self.arity


class MethodSpec(msgspec.Struct, frozen=True):
    """One method of an actor class, with the options of its `@method`."""

    name: str
    is_async: bool
    is_generator: bool
    arity: Arity
    options: MethodOptions

    @property
    def thread(self) -> bool:
        return self.options.thread

    @property
    def concurrency_group(self) -> str | None:
        return self.options.concurrency_group


class ActorInterface:
    """What a handle offers: methods by name, and the names of the concurrency groups. Handles share it."""

    __slots__ = ("__weakref__", "_blob", "class_name", "groups", "methods")

    def __init__(self, class_name: str, methods: Iterable[MethodSpec], groups: Iterable[str] = ()) -> None:
        self.class_name = class_name
        self.methods: Mapping[str, MethodSpec] = MappingProxyType({spec.name: spec for spec in methods})
        self.groups = tuple(groups)
        self._blob = b""

    def __reduce__(self) -> tuple[Any, ...]:
        if not self._blob:
            self._blob = shipping.by_value((self.class_name, tuple(self.methods.values()), self.groups))
        return _interface, (self._blob,)


@lru_cache(maxsize=1024)
def _interface(blob: bytes) -> ActorInterface:
    made = ActorInterface(*shipping.load(blob))
    made._blob = blob
    return made


class ActorClassDef(Definition):
    """An actor class. `has_async` decides where its actors live."""

    __slots__ = ("arity", "form", "has_async", "interface", "never_repeated")

    def __init__(
        self,
        code: Callable[..., Any] | None,
        name: str,
        has_async: bool,
        arity: Arity,
        interface: ActorInterface,
        *,
        blob: bytes = b"",
    ) -> None:
        super().__init__(code, name, blob=blob)
        self.has_async = has_async
        self.arity = arity
        self.interface = interface
        # What its last actors had in common: see owner/actor_creation.py.
        self.form: object = None
        # A method with `retry_exceptions` that leaves the number of repetitions to its actor.
        self.never_repeated = next(
            (
                name
                for name, spec in interface.methods.items()
                if spec.options.retry_exceptions and spec.options.max_task_retries is None
            ),
            None,
        )

    @classmethod
    def of(cls, code: type[Any], groups: Iterable[str] = ()) -> ActorClassDef:
        """ValueError if a method names a concurrency group that is not in `groups`."""
        return _actor_class(code, tuple(groups))

    @property
    def methods(self) -> Mapping[str, MethodSpec]:
        return self.interface.methods

    def _facts(self) -> tuple[Any, ...]:
        return self.has_async, self.arity, self.interface


# Kept: an actor that asks for its own handle asks for this. Not many: each keeps its class, and what that captured.
@lru_cache(maxsize=16)
def _actor_class(code: type[Any], groups: tuple[str, ...]) -> ActorClassDef:
    specs = method_specs(code)
    for spec in specs.values():
        group = spec.concurrency_group
        if group is not None and group not in groups:
            raise ValueError(
                f"{_title(code)}.{spec.name} is in the concurrency group {group!r}, which is not among the "
                f"concurrency_groups of the class: {', '.join(groups) or 'there are none'}"
            )
    only_marked = hasattr(code, ONLY_MARKED)
    offered = (spec for spec in specs.values() if not only_marked or _mark_of(code, spec.name))
    interface = ActorInterface(_title(code), offered, groups)
    has_async = any(spec.is_async for spec in specs.values()) or any(
        inspect.iscoroutinefunction(getattr(code, name, None)) for name in ("__init__", "__del__")
    )
    for spec in specs.values():
        if spec.thread and not has_async:
            raise ValueError(
                f"{_title(code)}.{spec.name} is marked thread=True, which is for actors that have async def methods: "
                "the methods of this one run in a thread anyway, in as many as its max_concurrency says"
            )
    return ActorClassDef(code, interface.class_name, has_async, Arity.of(code), interface)


def method_specs(cls: type) -> dict[str, MethodSpec]:
    """Every method that a class has, inherited ones included, without the special ones but `__call__`."""
    specs: dict[str, MethodSpec] = {}
    for name in dir(cls):
        if name.startswith("__") and name.endswith("__") and (name != "__call__" or not _defines_call(cls)):
            continue
        found = inspect.getattr_static(cls, name)
        code: Any = getattr(found, "__func__", found)
        if isinstance(found, partialmethod | singledispatchmethod):
            code, run = getattr(cls, name), cast("Any", found).func
        else:
            run = code
        if not (callable(code) and inspect.isroutine(code)):
            continue
        is_async, is_generator = kind_of(run)
        options = _mark_of(cls, name) or (_STREAMING if is_generator else _PLAIN)
        arity = Arity.of(code, bound=not isinstance(found, staticmethod))
        specs[name] = MethodSpec(name, is_async, is_generator, arity, options)
    return specs


READY: Final = "__actorrt_ready__"
CALL: Final = "__actorrt_call__"
TERMINATE: Final = "__actorrt_terminate__"
"""Methods that every actor has: answer True once it was made; call a function with the instance; end after what was
called before."""

_PLAIN: Final = MethodOptions()
_STREAMING: Final = MethodOptions(num_returns="streaming")
BUILT_IN: Final[Mapping[str, MethodSpec]] = {
    name: MethodSpec(name, False, False, arity, _PLAIN)
    for name, arity in ((READY, Arity(())), (CALL, ANYTHING), (TERMINATE, Arity(())))
}


def kind_of(code: Any) -> tuple[bool, bool]:
    """Whether it is asynchronous, and whether it is a generator."""
    function: Any = code
    if not inspect.isroutine(cast(object, code)) and type(code) is not partial:
        function = cast(Any, type(code)).__call__  # an object that is called as a function
    is_async_generator = inspect.isasyncgenfunction(function)
    return (
        is_async_generator or inspect.iscoroutinefunction(function),
        is_async_generator or inspect.isgeneratorfunction(function),
    )


def _title(code: Any) -> str:
    """The name that people know: without the functions that it is defined in."""
    while isinstance(code, partial):
        code = cast("partial[Any]", code).func
    name: str = getattr(code, "__qualname__", "") or getattr(code, "__name__", "") or type(code).__qualname__
    return name.rpartition("<locals>.")[2]


def _defines_call(cls: type) -> bool:
    return any("__call__" in vars(base) for base in cls.__mro__)


def _mark_of(cls: type, name: str) -> MethodOptions | None:
    found = inspect.getattr_static(cls, name)
    return getattr(getattr(found, "__func__", found), MARK, None)
