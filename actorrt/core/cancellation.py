"""How a call that runs is cancelled, perhaps several times and by several others, as its callee decides it. No I/O.

Its code is interrupted once: its parent, its group and its user may all cancel it, and its `finally` blocks are left in
peace. What it has called until then is cancelled with it if one of them wants that, and by force if one of them does.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import auto
from typing import Final

from .labels import Label


class State(Label):
    RUNNING = auto()
    # It is to end; what it has called is left alone.
    ALONE = auto()
    # What it has called is to end with it.
    TREE = auto()
    # The same, and the processes of tasks may be ended for that.
    TREE_BY_FORCE = auto()


class Reach(Label):
    """How far a cancellation reaches."""

    ALONE = auto()
    TREE = auto()
    TREE_BY_FORCE = auto()


class Action(Label):
    NOTHING = auto()
    # Interrupt its code, and then cancel what it has called, as far as its state says.
    INTERRUPT = auto()
    # It was interrupted before: cancel what it has called.
    REACH = auto()


S, R, A = State, Reach, Action

TABLE: Final[Mapping[tuple[State, Reach], tuple[State, Action]]] = {
    (S.RUNNING, R.ALONE): (S.ALONE, A.INTERRUPT),
    (S.RUNNING, R.TREE): (S.TREE, A.INTERRUPT),
    (S.RUNNING, R.TREE_BY_FORCE): (S.TREE_BY_FORCE, A.INTERRUPT),
    (S.ALONE, R.ALONE): (S.ALONE, A.NOTHING),
    (S.ALONE, R.TREE): (S.TREE, A.REACH),
    (S.ALONE, R.TREE_BY_FORCE): (S.TREE_BY_FORCE, A.REACH),
    (S.TREE, R.ALONE): (S.TREE, A.NOTHING),
    (S.TREE, R.TREE): (S.TREE, A.NOTHING),
    (S.TREE, R.TREE_BY_FORCE): (S.TREE_BY_FORCE, A.REACH),
    **{(S.TREE_BY_FORCE, reach): (S.TREE_BY_FORCE, A.NOTHING) for reach in Reach},
}

# To look a member up in its class costs more than the rest of what a call that nobody cancels does here.
RUNNING: Final = State.RUNNING
ALONE: Final = State.ALONE
TREE_BY_FORCE: Final = State.TREE_BY_FORCE


def reach_of(recursive: bool, force: bool) -> Reach:
    """How far a cancellation reaches by what its caller says."""
    if not recursive:
        return Reach.ALONE
    return Reach.TREE_BY_FORCE if force else Reach.TREE
