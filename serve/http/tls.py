"""Does what a server's TLS options name exist, and does it fit together? Asked before anything listens."""

from __future__ import annotations

import os
from dataclasses import replace

from .http_options import HTTPOptions


def located(options: HTTPOptions) -> HTTPOptions:
    """The same with whole paths: who loads the files may run in another folder."""

    def whole(path: str | None) -> str | None:
        return path and os.path.abspath(path)

    return replace(
        options,
        ssl_keyfile=whole(options.ssl_keyfile),
        ssl_certfile=whole(options.ssl_certfile),
        ssl_ca_certs=whole(options.ssl_ca_certs),
    )


def trouble_with(options: HTTPOptions) -> str:
    """Why TLS cannot be served with these files, or "". Loads them as the server does."""
    if not options.ssl_certfile:
        return ""
    for name in ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs"):
        path: str | None = getattr(options, name)
        if path:
            try:
                with open(path, "rb") as file:
                    file.read(1)
            except OSError as error:
                return f"{name} {path!r} cannot be read: {error.strerror or error}"
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    asked = False

    def password() -> str:
        nonlocal asked
        asked = True
        return options.ssl_keyfile_password or ""

    key = options.ssl_keyfile or options.ssl_certfile
    try:
        context.load_cert_chain(options.ssl_certfile, options.ssl_keyfile, password)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        if asked and not options.ssl_keyfile_password:
            return f"the key in {key!r} is encrypted: set ssl_keyfile_password"
        if asked:
            return f"the key in {key!r} cannot be decrypted with ssl_keyfile_password: {reason}"
        if reason == "KEY_VALUES_MISMATCH":
            return f"the key in {key!r} is not that of the certificate in {options.ssl_certfile!r}"
        if not options.ssl_keyfile:
            return f"{key!r} does not hold both a certificate and its key: set ssl_keyfile ({reason})"
        return f"ssl_certfile {options.ssl_certfile!r} and ssl_keyfile {key!r} cannot be loaded: {reason}"
    if options.ssl_ca_certs:
        try:
            context.load_verify_locations(options.ssl_ca_certs)
        except OSError as error:
            return f"ssl_ca_certs {options.ssl_ca_certs!r} cannot be loaded: {getattr(error, 'reason', None) or error}"
    return ""
