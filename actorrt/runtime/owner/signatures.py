"""How `.remote(...)` looks to a type checker: the parameters of the code, where each of the first eight may be a ref.

There is nothing here at run time. A ref that is given by name is not known to the checker; give it by position.
"""

from __future__ import annotations

from typing import Concatenate, ParamSpec, Protocol, TypeVar, overload

from .references import ObjectRef

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
G = TypeVar("G")
H = TypeVar("H")


class Submit(Protocol[P, R_co]):
    """Takes what `P` says, or refs to it, and gives `R_co`. Raises TypeError for arguments that do not fit."""

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...
    @overload
    def __call__(
        self: Submit[Concatenate[A, Q], R],
        a: A | ObjectRef[A],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> R: ...
    @overload
    def __call__(
        self: Submit[Concatenate[A, B, Q], R],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> R: ...
    @overload
    def __call__(
        self: Submit[Concatenate[A, B, C, Q], R],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        c: C | ObjectRef[C],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> R: ...
    @overload
    def __call__(
        self: Submit[Concatenate[A, B, C, D, Q], R],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        c: C | ObjectRef[C],
        d: D | ObjectRef[D],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> R: ...
    @overload
    def __call__(
        self: Submit[Concatenate[A, B, C, D, E, Q], R],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        c: C | ObjectRef[C],
        d: D | ObjectRef[D],
        e: E | ObjectRef[E],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> R: ...
    @overload
    def __call__(
        self: Submit[Concatenate[A, B, C, D, E, F, Q], R],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        c: C | ObjectRef[C],
        d: D | ObjectRef[D],
        e: E | ObjectRef[E],
        f: F | ObjectRef[F],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> R: ...
    @overload
    def __call__(
        self: Submit[Concatenate[A, B, C, D, E, F, G, Q], R],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        c: C | ObjectRef[C],
        d: D | ObjectRef[D],
        e: E | ObjectRef[E],
        f: F | ObjectRef[F],
        g: G | ObjectRef[G],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> R: ...
    @overload
    def __call__(
        self: Submit[Concatenate[A, B, C, D, E, F, G, H, Q], R],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        c: C | ObjectRef[C],
        d: D | ObjectRef[D],
        e: E | ObjectRef[E],
        f: F | ObjectRef[F],
        g: G | ObjectRef[G],
        h: H | ObjectRef[H],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> R: ...
