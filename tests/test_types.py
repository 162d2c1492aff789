import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.types import (
    ActorID,
    BaseID,
    FunctionID,
    JobID,
    NodeID,
    ObjectID,
    OwnedID,
    PlacementGroupID,
    ProcessId,
    TaskID,
    UniqueID,
    WorkerID,
)

KINDS: list[type[BaseID]] = [
    ActorID, FunctionID, JobID, NodeID, ObjectID, PlacementGroupID, TaskID, UniqueID, WorkerID,
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_an_id_survives_hex_and_pickle(kind: type[BaseID], data: st.DataObject) -> None:
    binary = data.draw(st.binary(min_size=kind.SIZE, max_size=kind.SIZE))
    made = kind(binary)
    for copy in (kind.from_hex(made.hex()), pickle.loads(pickle.dumps(made))):
        assert type(copy) is kind
        assert copy == made
        assert hash(copy) == hash(made)
        assert copy.binary() == binary
    assert made.is_nil() == (made == kind.nil())


def test_ids_of_different_kinds_are_never_equal() -> None:
    assert ObjectID(bytes(16)) != TaskID(bytes(16))
    assert len({kind.nil() for kind in KINDS}) == len(KINDS)


@given(first=st.binary(min_size=16, max_size=16), second=st.binary(min_size=16, max_size=16))
def test_ids_of_one_kind_are_ordered_by_their_bytes(first: bytes, second: bytes) -> None:
    assert (ObjectID(first) < ObjectID(second)) == (first < second)
    assert (ObjectID(first) >= ObjectID(second)) == (first >= second)


def test_ids_of_different_kinds_have_no_order() -> None:
    with pytest.raises(TypeError):
        sorted([ObjectID(bytes(16)), TaskID(bytes(16))])


@given(owner=st.binary(min_size=8, max_size=8), number=st.integers(0, 2**64 - 1))
def test_an_owned_id_gives_its_owner_and_number_back(owner: bytes, number: int) -> None:
    made: OwnedID = ObjectID.of(ProcessId(owner), number)
    assert (made.owner, made.number) == (owner, number)


def test_an_id_of_the_wrong_size_or_type_is_refused() -> None:
    with pytest.raises(ValueError, match="ObjectID takes 16 bytes, not 3"):
        ObjectID(b"abc")
    with pytest.raises(TypeError, match="ObjectID takes bytes, not str"):
        ObjectID("abc")  # pyright: ignore[reportArgumentType]
