"""Take results as they come, from sync code. In a coroutine `asyncio.as_completed(refs)` does it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Literal, Protocol, TypeVar, overload

from actorrt import ObjectRef, get, wait

T = TypeVar("T")
A_contra = TypeVar("A_contra", contravariant=True)
T_co = TypeVar("T_co", covariant=True)


class Submits(Protocol[A_contra, T_co]):
    """A remote function, or a method of an actor, that takes one argument."""

    @property
    def remote(self) -> Callable[[A_contra], ObjectRef[T_co]]: ...


@overload
def as_completed(refs: Iterable[ObjectRef[T]], *, yield_obj_refs: Literal[True]) -> Iterator[ObjectRef[T]]: ...
@overload
def as_completed(refs: Iterable[ObjectRef[T]], *, yield_obj_refs: Literal[False] = False) -> Iterator[T]: ...
def as_completed(refs: Iterable[ObjectRef[Any]], *, yield_obj_refs: bool = False) -> Iterator[Any]:
    """The values, or the refs, in the order in which they are done. An error is raised in its turn."""
    pending = list(dict.fromkeys(refs))
    while pending:
        done, pending = _split(pending)
        for ref in done:
            yield ref if yield_obj_refs else get(ref)


@overload
def map_unordered(
    fn: Submits[T, T_co], items: Iterable[T], *, backpressure_size: int = 100, yield_obj_refs: Literal[True]
) -> Iterator[ObjectRef[T_co]]: ...
@overload
def map_unordered(
    fn: Submits[T, T_co], items: Iterable[T], *, backpressure_size: int = 100, yield_obj_refs: Literal[False] = False
) -> Iterator[T_co]: ...
def map_unordered(
    fn: Submits[Any, Any], items: Iterable[Any], *, backpressure_size: int = 100, yield_obj_refs: bool = False
) -> Iterator[Any]:
    """Call `fn.remote` on each item and give what comes back, as it comes.

    The first calls are made at once. At most `backpressure_size` calls are under way; the items are taken as there is
    room.
    """
    if backpressure_size < 1:
        raise ValueError(f"backpressure_size must be at least 1, not {backpressure_size}")
    source = iter(items)
    pending = [fn.remote(item) for item in islice(source, backpressure_size)]
    return _as_they_come(fn, source, pending, yield_obj_refs)


def _as_they_come(
    fn: Submits[Any, Any], source: Iterator[Any], pending: list[ObjectRef[Any]], yield_obj_refs: bool
) -> Iterator[Any]:
    while pending:
        done, pending = _split(pending)
        pending.extend(fn.remote(item) for item in islice(source, len(done)))
        for ref in done:
            yield ref if yield_obj_refs else get(ref)


def _split(pending: list[ObjectRef[Any]]) -> tuple[list[ObjectRef[Any]], list[ObjectRef[Any]]]:
    """Wait for one, and take all that are done by then."""
    wait(pending, num_returns=1)
    done: list[ObjectRef[Any]] = []
    rest: list[ObjectRef[Any]] = []
    for ref in pending:
        (done if ref.done() else rest).append(ref)
    return done, rest
