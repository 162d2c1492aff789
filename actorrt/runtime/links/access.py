"""What this process shows to other machines, and what it asks of them: the cluster's token, and certificates.

Each part is read from its file when it is needed first: a process that talks over Unix sockets alone needs none.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import ssl
import tempfile
from functools import cached_property
from typing import Final

from actorrt.config import Settings
from actorrt.exceptions import LinkError
from actorrt.wire.addresses import is_loopback, ports_in

LEAST_TOKEN: Final = 16
_TOKEN_BYTES: Final = 32
_MOST_TOKEN_BYTES: Final = 4096
_TOKEN_FILE: Final = "~/.actorrt/token"
_NEEDS_TOKEN: Final = (
    "ACTORRT_HOST={} lets other machines connect, and that takes a token: give this process the cluster's in {} "
    "(`actorrt start --head` makes one) or in ACTORRT_TOKEN"
)


class Access:
    """The settings for links between machines. What is wrong with them raises LinkError with one sentence."""

    def __init__(self, settings: Settings) -> None:
        self.host = settings.host
        self._settings = settings

    @property
    def silence_s(self) -> float:
        return self._settings.link_silence_s

    @property
    def token_file(self) -> str:
        return os.path.expanduser(self._settings.token_file or _TOKEN_FILE)

    @cached_property
    def ports(self) -> range:
        try:
            return ports_in(self._settings.ports)
        except ValueError as error:
            raise LinkError(f"ACTORRT_PORTS: {error}") from None

    @cached_property
    def token(self) -> str:
        """That of the cluster; empty where there is none, which is good enough among processes of one machine."""
        if given := self._settings.token.strip():
            return _checked(given, "ACTORRT_TOKEN")
        return _read(self.token_file)

    def make_token(self) -> str:
        """The same; a new one, in its file, if there is none."""
        if not self.token:
            _make(self.token_file)
            del self.token
        return self.token

    def check(self) -> None:
        """Whether this process may listen as it is told to. Raises LinkError."""
        if self.host and not is_loopback(self.host) and not self.token:
            raise LinkError(_NEEDS_TOKEN.format(self.host, self.token_file))
        _ = self.ports, self.to_listen

    # ---- certificates

    @property
    def is_encrypted(self) -> bool:
        return bool(self._settings.tls_cert or self._settings.tls_ca)

    @cached_property
    def to_listen(self) -> ssl.SSLContext | None:
        """How this process speaks to those who dial it; None: in the clear."""
        if not self.is_encrypted:
            return None
        given = self._settings
        if not given.tls_cert or not given.tls_key:
            raise LinkError("who listens with TLS shows a certificate: set ACTORRT_TLS_CERT and ACTORRT_TLS_KEY")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0
        self._show(context)
        if given.tls_ca:
            self._trust(context, given.tls_ca, "ACTORRT_TLS_CA")
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    @cached_property
    def to_dial(self) -> ssl.SSLContext | None:
        """How this process speaks to those whom it dials."""
        if not self.is_encrypted:
            return None
        given = self._settings
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # The machines of a cluster go by addresses that change. What a proof is bound to is the certificate itself.
        context.check_hostname = False
        if given.tls_ca:
            self._trust(context, given.tls_ca, "ACTORRT_TLS_CA")
        else:
            self._trust(context, given.tls_cert, "ACTORRT_TLS_CERT")
        if given.tls_cert and given.tls_key:
            self._show(context)
        return context

    @cached_property
    def binding(self) -> bytes:
        """What stands for the certificate of this process in a proof."""
        if self.to_listen is None:
            return b""
        with open(self._settings.tls_cert, encoding="ascii", errors="replace") as file:
            text = file.read()
        begins = text.index(ssl.PEM_HEADER)
        ends = text.index(ssl.PEM_FOOTER, begins) + len(ssl.PEM_FOOTER)
        return binding_of(ssl.PEM_cert_to_DER_cert(text[begins:ends]))

    def _show(self, context: ssl.SSLContext) -> None:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        certificate, key = self._settings.tls_cert, self._settings.tls_key
        for name, path in (("ACTORRT_TLS_CERT", certificate), ("ACTORRT_TLS_KEY", key)):
            _must_be_readable(name, path)
        try:
            context.load_cert_chain(certificate, key, _no_password)
        except (OSError, ValueError) as error:
            if _reason(error) == "KEY_VALUES_MISMATCH":
                raise LinkError(f"the key in {key!r} is not that of the certificate in {certificate!r}") from None
            raise LinkError(
                f"the certificate {certificate!r} and its key {key!r} cannot be loaded: {_reason(error)}"
            ) from None

    @staticmethod
    def _trust(context: ssl.SSLContext, path: str, name: str) -> None:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        _must_be_readable(name, path)
        try:
            context.load_verify_locations(path)
        except OSError as error:
            raise LinkError(f"{name}: {path!r} cannot be loaded: {_reason(error)}") from None


UNIX_ONLY: Final = Access(Settings())


def binding_of(certificate: bytes) -> bytes:
    """What stands for a certificate (DER) in a proof."""
    return hashlib.sha256(certificate).digest()


def _no_password() -> str:
    raise ValueError("it is encrypted: give a key without a password, in a file that only this user reads")


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or error)


def _must_be_readable(name: str, path: str) -> None:
    try:
        with open(path, "rb") as file:
            file.read(1)
    except OSError as error:
        raise LinkError(f"{name}: {path!r} cannot be read: {error.strerror or error}") from None


# ---- the token's file


def _checked(token: str, where: str) -> str:
    if len(token) < LEAST_TOKEN or not token.isprintable():
        raise LinkError(f"the token in {where} is no good one: it has at least {LEAST_TOKEN} characters, all printable")
    return token


def _read(path: str) -> str:
    """The token in a file; empty if there is no file."""
    try:
        with open(path, encoding="utf-8") as file:
            others = os.fstat(file.fileno()).st_mode & 0o077
            token = file.read(_MOST_TOKEN_BYTES).strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise LinkError(
            f"the token's file {path!r} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    if others:
        raise LinkError(f"other users can read the token's file {path!r}: chmod 600 it, and make another token")
    return _checked(token, repr(path))


def _make(path: str) -> None:
    """A new token in a file, unless somebody makes one at the same moment: then that one."""
    folder = os.path.dirname(path) or "."
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        made, temporary = tempfile.mkstemp(prefix=".token-", dir=folder)
        try:
            with open(made, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(_TOKEN_BYTES) + "\n")
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            os.unlink(temporary)
    except OSError as error:
        raise LinkError(f"the token cannot be kept in {path!r}: {error.strerror or error}") from None
