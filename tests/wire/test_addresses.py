"""An address names a socket of a session's folder, a host and a port, or both, and cannot lead out of the folder."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorrt.types import Address, Place, ProcessId
from actorrt.wire.addresses import (
    Endpoint,
    Ways,
    endpoint_in,
    endpoint_of,
    is_loopback,
    is_wildcard,
    open_address,
    place_on,
    ports_in,
    tcp_address,
    unix_address,
    ways_of,
)

PROCESS = ProcessId(bytes.fromhex("0123456789abcdef"))
NODE = ProcessId(bytes(8))
SOCKET = "0123456789abcdef.sock"
ENDPOINTS = st.builds(
    Endpoint,
    st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str), st.just("head.example.org")),
    st.integers(1, 65_535),
)


def test_a_process_listens_at_a_socket_that_is_named_after_it() -> None:
    assert ways_of(unix_address(PROCESS)) == Ways(SOCKET, None)


def test_a_place_says_the_process_its_node_and_its_address() -> None:
    assert place_on(NODE, PROCESS) == Place(PROCESS, NODE, Address(f"unix:{SOCKET}"))
    there = open_address(PROCESS, Endpoint("10.0.0.7", 4000))
    assert place_on(NODE, PROCESS, there) == Place(PROCESS, NODE, Address(f"unix:{SOCKET}@10.0.0.7:4000"))


@given(ENDPOINTS)
def test_an_endpoint_comes_back_out_of_every_address_that_holds_it(endpoint: Endpoint) -> None:
    assert ways_of(open_address(PROCESS, endpoint)) == Ways(SOCKET, endpoint)
    assert ways_of(tcp_address(endpoint)) == Ways("", endpoint)
    assert endpoint_of(tcp_address(endpoint)) == endpoint == endpoint_in(str(endpoint))


def test_a_path_is_no_endpoint() -> None:
    assert endpoint_of("/tmp/actorrt/session/a.sock") is None


@pytest.mark.parametrize("address", ["", "unix:", "unix:../a.sock", "unix:/tmp/a.sock", "unix:a\0b", "a.sock"])
def test_any_other_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="is no address of a socket"):
        ways_of(Address(address))


@pytest.mark.parametrize(
    "text",
    ["", "host", "host:", ":1", "::1:80", "[::1]", "a b:1", "host:port", "host:0", "host:65536", "h:-1", "h:\u00b2"],
)
def test_what_is_no_endpoint_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no address: write host:port|is not a number from 1 to 65535"):
        endpoint_in(text)
    with pytest.raises(ValueError):
        ways_of(Address(f"unix:{SOCKET}@{text}"))


@given(st.text())
def test_no_text_gives_anything_but_ways_or_a_value_error(text: str) -> None:
    for begins in ("", "unix:", f"unix:{SOCKET}@", "tcp:"):
        try:
            ways = ways_of(Address(begins + text))
        except ValueError:
            continue
        assert "/" not in ways.socket
        assert ways.socket or ways.endpoint


@pytest.mark.parametrize(
    ("text", "ports"),
    [("", range(1)), ("80", range(80, 81)), ("20000-20002", range(20_000, 20_003)), (" 1 - 2 ", range(1, 3))],
)
def test_a_range_of_ports(text: str, ports: range) -> None:
    assert ports_in(text) == ports


@pytest.mark.parametrize("text", ["-", "a", "0", "5-", "-5", "9-8", "1-65536", "1-2-3"])
def test_what_is_no_range_of_ports_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no range of ports: write 20000-20100"):
        ports_in(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_is_the_same_machine(host: str) -> None:
    assert is_loopback(host)
    assert not is_wildcard(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_wildcard_is_every_address_and_none_to_dial(host: str) -> None:
    assert is_wildcard(host)
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["10.0.0.1", "fe80::1", "head.example.org"])
def test_any_other_host_is_seen_by_other_machines(host: str) -> None:
    assert not is_loopback(host)
    assert not is_wildcard(host)
