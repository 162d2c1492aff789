"""The socket that clients connect to: bound by the controller, handed to each proxy, and open while there is none.

A descriptor, of that or of any other socket, goes to another process of the same user by a Unix socket without a file,
whose name is a secret.
"""

from __future__ import annotations

import array
import os
import secrets
import socket
import struct
import threading
from typing import Final

# Clients that connect while a proxy is being replaced wait here.
BACKLOG: Final = 2048
# A process that was told where a descriptor is to be had fetches it within this time.
FETCH_S: Final = 5.0


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; OSError with a sentence if the address is taken or not of this machine."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        why = os.strerror(error.errno or 0) or str(error)
        raise OSError(error.errno, f"cannot listen on {host} port {port}: {why}") from None
    return listener


def lend(lent: socket.socket) -> str:
    """Where one other process can fetch a duplicate of it, for a few seconds."""
    name = f"actorrt-{secrets.token_hex(16)}"
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        door.bind(f"\0{name}")
        door.listen(1)
        door.settimeout(FETCH_S)
        duplicate = lent.dup()
    except BaseException:
        door.close()
        raise
    threading.Thread(target=_hand_out, args=(door, duplicate), name="serve-lend", daemon=True).start()
    return name


def _hand_out(door: socket.socket, lent: socket.socket) -> None:
    with door, lent:
        try:
            peer, _ = door.accept()
            with peer:
                _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
                if uid == os.geteuid():
                    peer.settimeout(FETCH_S)
                    socket.send_fds(peer, [b"x"], [lent.fileno()])
        except OSError:
            return  # the other process has gone, and learns it by its own error if it has not


def fetch(name: str) -> socket.socket:
    """The socket that another process lends. Blocks shortly; OSError if it is not to be had any more."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.settimeout(FETCH_S)
        door.connect(f"\0{name}")
        room = socket.CMSG_LEN(array.array("i").itemsize)
        # By recvmsg: socket.recv_fds would let the children of this process inherit it.
        _, controls, _, _ = door.recvmsg(1, room, socket.MSG_CMSG_CLOEXEC)
    for level, kind, data in controls:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            (fd,) = array.array("i", data)
            lent = socket.socket(fileno=fd)
            lent.setblocking(False)
            return lent
    raise OSError("the process that lends the socket has gone")
