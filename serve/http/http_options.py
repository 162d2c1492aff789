"""How a proxy listens and what it allows its clients."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from ..base.unknown_names import unknown
from .forwarded_headers import TrustedServers
from .root_path import check_root_path


@dataclass(frozen=True, slots=True)
class HTTPOptions:
    """Seconds and bytes. `port=0` takes any free port; None for `request_timeout_s` means no limit.

    `root_path` is what a server in front of this one answers under: applications see it in front of each path, whether
    that server takes it off or not. With `ssl_certfile`, whose key may lie in the same file or in `ssl_keyfile`, TLS is
    served. X-Forwarded-Proto and X-Forwarded-For are believed of `forwarded_allow_ips`: addresses and networks with
    commas between them, "*" for every server, "" for none. None: what the environment variable FORWARDED_ALLOW_IPS says
    where Serve is started, else 127.0.0.1.

    The last six bound what a client can hold on to: a head longer than `max_header_bytes` is answered 431, a request
    that is not complete after `request_read_timeout_s` 408, and a client that reads nothing of its response for
    `stalled_client_timeout_s` is cut off. A body of up to `inline_body_bytes` is read before the request is routed, of
    a longer one at most `body_window_bytes` are held. A longer one has a replica while it comes, from when so much of
    it is there. `request_read_timeout_s` then bounds the time without a byte of it, and where fewer than
    `least_body_rate` bytes a second came in such a time, before the response has begun, the request is answered 408; 0
    means any rate. `request_timeout_s` alone bounds the whole.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    root_path: str = ""
    request_timeout_s: float | None = None
    keep_alive_timeout_s: float = 90.0
    ssl_keyfile: str | None = None
    ssl_certfile: str | None = None
    ssl_keyfile_password: str | None = None
    ssl_ca_certs: str | None = None
    access_log: bool = False
    forwarded_allow_ips: str | None = None
    max_header_bytes: int = 64 * 1024
    request_read_timeout_s: float = 10.0
    stalled_client_timeout_s: float = 60.0
    inline_body_bytes: int = 64 * 1024
    body_window_bytes: int = 256 * 1024
    least_body_rate: int = 1000

    def __post_init__(self) -> None:
        for name in ("host", "root_path"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name} must be a str, not {type(getattr(self, name)).__name__}")
        for name in ("ssl_keyfile", "ssl_certfile", "ssl_keyfile_password", "ssl_ca_certs", "forwarded_allow_ips"):
            value: object = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{name} must be a str or None, not {type(value).__name__}")
        for name in ("ssl_keyfile", "ssl_keyfile_password", "ssl_ca_certs"):
            if getattr(self, name) and not self.ssl_certfile:
                raise ValueError(f"{name} needs ssl_certfile beside it: without a certificate there is no TLS")
        if self.forwarded_allow_ips is not None:
            TrustedServers(self.forwarded_allow_ips)
        check_root_path(self.root_path)
        for name in ("port", "max_header_bytes", "inline_body_bytes", "body_window_bytes", "least_body_rate"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} must be an int, not {type(value).__name__}")
            if value < 0:
                raise ValueError(f"{name} must not be negative: {value}")
        if self.port > 65535:
            raise ValueError(f"port must be at most 65535, not {self.port}")
        for name in ("request_timeout_s", "keep_alive_timeout_s", "request_read_timeout_s", "stalled_client_timeout_s"):
            value = getattr(self, name)
            if value is None and name == "request_timeout_s":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
            if not 0 < value < float("inf"):
                raise ValueError(f"{name} must be more than zero, not {value}")

    @classmethod
    def parse(cls, given: "HTTPOptions | Mapping[str, Any] | None") -> Self:
        """From what a user gave. ValueError names an unknown option and the nearest known one."""
        if given is None:
            return cls()
        if isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            raise TypeError(f"http_options must be HTTPOptions or a dict, not {type(given).__name__}")
        known = [each.name for each in fields(cls)]
        for name in given:
            if name not in known:
                raise ValueError(
                    unknown("HTTP option", name, known, ("middlewares", "location", "num_cpus", "root_url"))
                )
        return cls(**given)
