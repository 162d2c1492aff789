"""What the states, events and actions of the tables are made of. No I/O."""

from __future__ import annotations

from enum import Enum


class Label(Enum):
    """An enum whose members are quick to look up: each is hashed by what it is, where Enum hashes a name by a call of
    Python code, and a row of a table is found by two of them."""

    __hash__ = object.__hash__
