"""What the pickler by value adds to cloudpickle, whichever version that is; and plain values beside it."""

from __future__ import annotations

import copyreg
import dataclasses
import pickle
import types
from collections.abc import Iterator
from typing import Any

import pytest

from actorrt.wire import by_value, codec


def back(value: Any) -> Any:
    return codec.deserialize(codec.pack(codec.serialize(value)))


def test_code_keeps_its_file_also_where_cloudpickle_leaves_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    table: dict[type, Any] = by_value._CloudPickler._dispatch_table
    reduce = table[types.CodeType]

    def without_file(code: types.CodeType) -> tuple[Any, tuple[Any, ...]]:
        made, facts = reduce(code)
        return made, tuple("<dynamic-code>" if fact == code.co_filename else fact for fact in facts)

    monkeypatch.setitem(table, types.CodeType, without_file)
    made = pickle.loads(by_value.dumps(lambda: 1))
    assert made.__code__.co_filename == __file__
    assert made() == 1


def test_sentinels_of_modules_are_themselves_in_plain_values() -> None:
    assert back(dataclasses.MISSING) is dataclasses.MISSING
    assert back([{"a": dataclasses.KW_ONLY}])[0]["a"] is dataclasses.KW_ONLY


class Registered:
    def __init__(self, number: int) -> None:
        self.number = number


@pytest.fixture
def registered() -> Iterator[None]:
    yield
    copyreg.dispatch_table.pop(Registered, None)


@pytest.mark.usefixtures("registered")
def test_what_a_user_registers_with_copyreg_counts_also_after_the_first_object() -> None:
    assert back(Registered(1)).number == 1
    copyreg.pickle(Registered, lambda value: (Registered, (value.number + 1,)))  # type: ignore[arg-type]
    assert back(Registered(1)).number == 2


class Settings:
    """Has state, and lies in a module: an argument like any other, which its receiver may change."""

    def __init__(self) -> None:
        self.debug = False


SETTINGS = Settings()


def test_an_object_with_state_goes_by_value() -> None:
    made = back(SETTINGS)
    assert made is not SETTINGS
    assert made.debug is False
