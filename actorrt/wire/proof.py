"""What is said first over a connection between machines: each side proves that it has the token of the cluster.

Four lines, and nothing else is read before they are through. The token itself is never sent::

    dialler:   actorrt/0003 <nonce: 32 hex digits> LF
    listener:  actorrt/0003 <nonce> LF
    dialler:   proof <64 hex digits> LF
    listener:  proof <64 hex digits> LF            or, in place of either line:  refused <a sentence> LF

A proof is the HMAC-SHA256, with the token as its key, of who speaks, both nonces, and the certificate that the listener
has shown where the connection is encrypted (RFC 5929, tls-server-end-point): who stands in between has another one.

The dialler proves first, so that a port that anybody can dial gives away nothing that depends on the token. Nothing
here waits; nonces are the caller's.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from typing import Final

from .versions import why_not_protocol

NONCE_BYTES: Final = 16
# No line is longer; so many bytes are all that is held of who has proved nothing.
LINE_LIMIT: Final = 256
OTHER_TOKEN: Final = "the token of the cluster is another one: give both sides the same"
NOT_ACTORRT: Final = "what comes over the connection is not what a process of actorrt says"
SPEAKS_TLS: Final = "one side speaks TLS and the other does not: give both the same ACTORRT_TLS_* settings"
# How a record of TLS begins: of a handshake, or an alert.
_TLS: Final = (b"\x16\x03", b"\x15\x03")
_REFUSED: Final = b"refused "
_PROOF: Final = b"proof "
_GREETING: Final = b"actorrt/"
_PROTOCOL_DIGITS: Final = 4
_DIGEST_DIGITS: Final = 64
_HEX: Final = frozenset(b"0123456789abcdef")


class Stage(enum.Enum):
    """What comes next from the other side."""

    NONCE = "its nonce"
    PROOF = "its proof"
    PROVEN = "whatever it wants"
    REFUSED = "nothing: one of the two has refused"


class _Side:
    """One of the two sides, for one connection."""

    _me: bytes
    _other: bytes

    def __init__(self, token: str, protocol: int, version: str, nonce: bytes, binding: bytes) -> None:
        """`binding`: the listener's certificate as both sides see it; empty without one."""
        self._token = token.encode()
        self._protocol = protocol
        self._version = version
        self._nonce = nonce
        self._binding = binding
        self._held = b""
        self._nonces = b""
        self.stage = Stage.NONCE
        # With REFUSED: a sentence, never empty.
        self.why = ""

    @property
    def is_proven(self) -> bool:
        return self.stage is Stage.PROVEN

    @property
    def room(self) -> int:
        """So many bytes may be read, and no more."""
        return LINE_LIMIT - len(self._held)

    def heard(self, data: bytes) -> bytes:
        """Bytes have come; what to answer. Look at `stage` behind it."""
        self._held += data
        line, ends, rest = self._held.partition(b"\n")
        if not ends and len(self._held) < LINE_LIMIT:
            # What can be no line of ours is refused at once: its other bytes are not waited for.
            return b"" if self._begins_well() else self._refuse(self._what_else())
        if not ends or rest:
            # Each side waits for the other: nobody sends two lines at once.
            return self._refuse(self._what_else())
        self._held = b""
        if line.startswith(_REFUSED):
            self.stage = Stage.REFUSED
            self.why = _sentence(line.removeprefix(_REFUSED)) or NOT_ACTORRT
            return b""
        return self._take_nonce(line) if self.stage is Stage.NONCE else self._take_proof(line)

    def _begins_well(self) -> bool:
        wanted = _GREETING if self.stage is Stage.NONCE else _PROOF
        return any(begins[: len(self._held)] == self._held[: len(begins)] for begins in (wanted, _REFUSED))

    def _what_else(self) -> str:
        return SPEAKS_TLS if self._held.startswith(_TLS) else NOT_ACTORRT

    def _refuse(self, why: str) -> bytes:
        self.stage, self.why = Stage.REFUSED, why
        return _REFUSED + why.encode()[: LINE_LIMIT - len(_REFUSED) - 1] + b"\n"

    def _take_nonce(self, line: bytes) -> bytes:
        protocol, space, nonce = line.removeprefix(_GREETING).partition(b" ")
        number_is_one = len(protocol) == _PROTOCOL_DIGITS and protocol.isdigit()
        if not (line.startswith(_GREETING) and space and number_is_one and _is_hex(nonce, 2 * NONCE_BYTES)):
            return self._refuse(NOT_ACTORRT)
        if why := why_not_protocol(self._protocol, self._version, int(protocol), f"of the {self._other.decode()}"):
            return self._refuse(why)
        return self._answer_nonce(bytes.fromhex(nonce.decode()))

    def _take_proof(self, line: bytes) -> bytes:
        proof = line.removeprefix(_PROOF)
        if not line.startswith(_PROOF) or not _is_hex(proof, _DIGEST_DIGITS):
            return self._refuse(NOT_ACTORRT)
        if not hmac.compare_digest(proof, self._proof_of(self._other)):
            return self._refuse(OTHER_TOKEN)
        self.stage = Stage.PROVEN
        return self._answer_proof()

    def _answer_nonce(self, theirs: bytes) -> bytes:
        raise NotImplementedError

    def _answer_proof(self) -> bytes:
        raise NotImplementedError

    def _greeting(self) -> bytes:
        return b"%b%04d %b\n" % (_GREETING, self._protocol, self._nonce.hex().encode())

    def _my_proof(self) -> bytes:
        return _PROOF + self._proof_of(self._me) + b"\n"

    def _proof_of(self, who: bytes) -> bytes:
        said = b"%b %b %b" % (who, self._nonces, self._binding)
        return hmac.new(self._token, said, hashlib.sha256).hexdigest().encode()


class Listening(_Side):
    """The side that was dialled."""

    _me, _other = b"listener", b"dialler"

    def _answer_nonce(self, theirs: bytes) -> bytes:
        self._nonces = theirs + self._nonce
        self.stage = Stage.PROOF
        return self._greeting()

    def _answer_proof(self) -> bytes:
        return self._my_proof()


class Dialling(_Side):
    """The side that dials, and speaks first."""

    _me, _other = b"dialler", b"listener"

    def first(self) -> bytes:
        """What to say before anything has come."""
        return self._greeting()

    def _answer_nonce(self, theirs: bytes) -> bytes:
        self._nonces = self._nonce + theirs
        self.stage = Stage.PROOF
        return self._my_proof()

    def _answer_proof(self) -> bytes:
        return b""


def _is_hex(text: bytes, size: int) -> bool:
    return len(text) == size and _HEX.issuperset(text)


def _sentence(said: bytes) -> str:
    """What the other side says, as people may read it: nothing in it moves a cursor."""
    return "".join(each for each in said.decode("utf-8", "replace") if each.isprintable())
