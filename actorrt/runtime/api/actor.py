"""`Actor`, the base of classes whose handles have types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from ..owner.handles import ActorMethod
    from ..owner.references import ObjectRef


class Actor:
    """Base of a class whose handles offer, and type checkers know, what is marked `@method` and nothing else.

    An actor's class need not derive from it: without, every method is offered, and handles are typed `Any`.
    """

    __slots__ = ()
    __actorrt_only_marked__: ClassVar[bool] = True

    if TYPE_CHECKING:
        __ray_ready__: ActorMethod[[], bool, ObjectRef[bool]]
        __ray_terminate__: ActorMethod[[], None, ObjectRef[None]]
        __ray_call__: ActorMethod[..., Any, ObjectRef[Any]]
