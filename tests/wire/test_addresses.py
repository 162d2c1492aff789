"""An address names a socket of a session's folder, and cannot lead out of it."""

import pytest

from actorrt.types import Address, Place, ProcessId
from actorrt.wire.addresses import place_on, socket_name, unix_address

PROCESS = ProcessId(bytes.fromhex("0123456789abcdef"))
NODE = ProcessId(bytes(8))


def test_a_process_listens_at_a_socket_that_is_named_after_it() -> None:
    assert socket_name(unix_address(PROCESS)) == "0123456789abcdef.sock"


def test_a_place_says_the_process_its_node_and_its_address() -> None:
    assert place_on(NODE, PROCESS) == Place(PROCESS, NODE, Address("unix:0123456789abcdef.sock"))


@pytest.mark.parametrize(
    "address", ["", "unix:", "tcp:host:1", "unix:../a.sock", "unix:/tmp/a.sock", "unix:a\0b", "a.sock"]
)
def test_any_other_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is no address of a socket"):
        socket_name(Address(address))
