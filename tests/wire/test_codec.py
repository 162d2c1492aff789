"""Values come back as they were, arrays without a copy; what is named inside a value is noted while it is pickled."""

from __future__ import annotations

import pickle
import threading
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy

from actorrt.wire import codec

ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary()
)
VALUES = st.recursive(
    ATOMS,
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
ARRAYS = of_numpy.arrays(
    of_numpy.integer_dtypes() | of_numpy.floating_dtypes() | of_numpy.boolean_dtypes(),
    of_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6),
)


class Named:
    """Stands for a ref: it says so while it is pickled."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.collected: bool | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        self.collected = codec.note_ref(self)
        return Named, (self.name,)


def back(value: Any) -> Any:
    return codec.deserialize(codec.pack(codec.serialize(value)))


@given(VALUES)
def test_a_value_comes_back_as_it_was(value: Any) -> None:
    assert back(value) == value


@given(st.lists(ARRAYS, max_size=4))
def test_arrays_come_back_as_they_were(arrays: list[Any]) -> None:
    for before, after in zip(arrays, back(arrays), strict=True):
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after, before)


@given(args=st.lists(VALUES, max_size=4), kwargs=st.dictionaries(st.text(), VALUES, max_size=3))
def test_the_fast_way_for_arguments_agrees_with_the_slow_one(args: list[Any], kwargs: dict[str, Any]) -> None:
    data = codec.dumps_call(tuple(args), kwargs, 1 << 30)
    atoms = all(type(value) in codec.ATOMS for value in (*args, *kwargs.values()))
    assert (data is not None) == atoms
    if data is not None:
        assert codec.deserialize(data) == ([tuple(args), kwargs] if kwargs else tuple(args))


@pytest.mark.parametrize(
    "args",
    [(b"x" * 1001,), ("x" * 1001,), (10**2500,), (b"x" * 400, "y" * 400, b"z" * 400), (1,) * 600],
    ids=["bytes", "text", "number", "several", "many"],
)
def test_no_fast_way_leads_past_the_limit(args: tuple[Any, ...]) -> None:
    assert codec.dumps_call(args, {}, 1000) is None
    assert codec.dumps_call((), {f"a{i}": one for i, one in enumerate(args)}, 1000) is None
    assert codec.dumps_call((), {}, 1000) is not None


@pytest.mark.parametrize("value", [b"x" * 20_000, "x" * 20_000, 10**100_000], ids=["bytes", "text", "number"])
def test_no_fast_way_for_results_that_may_be_large(value: Any) -> None:
    assert codec.dumps_atom(value) is None


HOLDING_A_REF = st.recursive(
    st.builds(Named, st.text()),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.tuples(VALUES, inner)
        | st.dictionaries(st.text(), inner, min_size=1, max_size=3)
        | st.tuples(ARRAYS, inner)
    ),
    max_leaves=6,
)


@given(HOLDING_A_REF)
def test_what_holds_a_ref_is_known_by_a_byte_of_its_pickle(value: Any) -> None:
    assert codec.NAMES_A_CALL in codec.pack(codec.serialize(value))


@pytest.mark.parametrize("value", [(b"x", None, 3, "y", 1.5), [(True,), {"a": [1, 2]}]])
def test_plain_data_names_no_call(value: Any) -> None:
    assert codec.NAMES_A_CALL not in codec.pack(codec.serialize(value))


def test_large_arrays_are_views_of_the_payload_that_nobody_can_write_to() -> None:
    array = np.arange(100_000)
    serialized = codec.serialize({"a": array})
    assert len(serialized.data) < 1000
    assert serialized.nbytes > array.nbytes
    payload = codec.pack(serialized)
    loaded = codec.deserialize(payload)["a"]
    assert np.shares_memory(loaded, np.frombuffer(payload, np.uint8))
    assert not loaded.flags.writeable


def test_what_is_named_inside_is_noted_and_nothing_else() -> None:
    one, two = Named("one"), Named("two")
    assert codec.serialize([one, {"x": (two,)}]).refs == [one, two]
    assert (one.collected, two.collected) == (True, True)
    assert codec.serialize([1, "one"]).refs == []


def test_outside_of_a_call_nobody_collects() -> None:
    one = Named("one")
    pickle.dumps(one)
    assert one.collected is False


def test_a_value_that_is_pickled_while_another_is_keeps_its_own_notes() -> None:
    inner: list[Any] = []

    class Nested:
        def __reduce__(self) -> tuple[Any, ...]:
            inner.append(codec.serialize(Named("inner")).refs)
            return str, ("nested",)

    outer = Named("outer")
    found = codec.serialize([Nested(), outer])
    assert found.refs == [outer]
    assert [[one.name for one in refs] for refs in inner] == [["inner"]] * len(inner)


def test_threads_note_apart() -> None:
    names = [f"{number}" for number in range(8)]
    found: dict[str, list[str]] = {}
    together = threading.Barrier(len(names))

    def pickle_one(name: str) -> None:
        together.wait()
        for _ in range(50):
            found[name] = [ref.name for ref in codec.serialize([Named(name), [1] * 100]).refs]

    threads = [threading.Thread(target=pickle_one, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {name: [name] for name in names}


def test_a_function_made_here_comes_back() -> None:
    factor = 3
    assert back(lambda x: x * factor)(4) == 12


@pytest.mark.parametrize("value", [threading.Lock(), [threading.Lock()], {"a": (1, threading.Lock())}])
def test_what_cannot_be_pickled_raises_what_pickle_raises(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        codec.serialize(value)


class Pair(NamedTuple):
    left: int
    right: int


@pytest.mark.parametrize("value", [(b"text", 1), (), ("a", None, 1.5, True), b"bytes", 7])
def test_an_item_of_plain_values_is_pickled_as_any_value_is(value: object) -> None:
    assert codec.dumps_item(value) == codec.pack(codec.serialize(value))


@pytest.mark.parametrize("value", [(b"a" * 20_000, 1), ("a" * 20_000,), tuple(range(5)), (1, [2]), [1], Pair(1, 2)])
def test_an_item_that_may_be_large_or_more_than_plain_is_left_to_others(value: object) -> None:
    assert codec.dumps_item(value) is None
