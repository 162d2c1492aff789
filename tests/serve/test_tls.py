"""A proxy with TLS: its files are looked at before anything listens.

The keys in tls/ are for these tests alone; that of key-encrypted.pem is key.pem's, its password is "secret".
"""

import os
import shutil
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from actorrt import serve
from actorrt.serve.http.http_options import HTTPOptions
from actorrt.serve.http.tls import trouble_with

FILES = Path(__file__).parent / "tls"
CERTIFICATE, KEY, ENCRYPTED = (str(FILES / f"{name}.pem") for name in ("certificate", "key", "key-encrypted"))


@pytest.mark.parametrize(
    "given",
    [
        {"ssl_keyfile": KEY},
        {"ssl_keyfile_password": "secret"},
        {"ssl_ca_certs": CERTIFICATE},
        {"ssl_keyfile": KEY, "ssl_certfile": ""},
    ],
)
def test_what_needs_a_certificate_is_refused_without_one(given: Any) -> None:
    with pytest.raises(ValueError, match=r"needs ssl_certfile beside it"):
        HTTPOptions.parse(given)


@pytest.mark.parametrize("name", ["ssl_keyfile", "ssl_certfile", "ssl_keyfile_password", "ssl_ca_certs"])
def test_options_for_tls_are_text(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be a str or None, not PosixPath"):
        HTTPOptions.parse({name: FILES})


def _garbage(folder: Path) -> str:
    path = folder / "garbage.pem"
    path.write_text("this is no certificate")
    return str(path)


def _unreadable(folder: Path) -> str:
    path = folder / "unreadable.pem"
    shutil.copy(KEY, path)
    path.chmod(0)
    return str(path)


BAD: list[tuple[str, Callable[[Path], dict[str, str]], str]] = [
    (
        "missing certificate",
        lambda _: {"ssl_certfile": "/nowhere/c.pem", "ssl_keyfile": KEY},
        "'/nowhere/c.pem' cannot",
    ),
    (
        "missing key",
        lambda _: {"ssl_certfile": CERTIFICATE, "ssl_keyfile": "/nowhere/k.pem"},
        "'/nowhere/k.pem' cannot",
    ),
    ("no key", lambda _: {"ssl_certfile": CERTIFICATE}, "does not hold both a certificate and its key"),
    (
        "a folder",
        lambda it: {"ssl_certfile": CERTIFICATE, "ssl_keyfile": str(it)},
        "ssl_keyfile .* cannot be read: Is a",
    ),
    ("garbage", lambda it: {"ssl_certfile": _garbage(it), "ssl_keyfile": KEY}, r"garbage.pem' .* cannot be loaded"),
    (
        "a key that is none",
        lambda it: {"ssl_certfile": CERTIFICATE, "ssl_keyfile": _garbage(it)},
        r"garbage.pem' cannot be",
    ),
    (
        "another's key",
        lambda _: {"ssl_certfile": CERTIFICATE, "ssl_keyfile": str(FILES / "key-expired.pem")},
        "is not that",
    ),
    (
        "no password",
        lambda _: {"ssl_certfile": CERTIFICATE, "ssl_keyfile": ENCRYPTED},
        "is encrypted: set ssl_keyfile_pass",
    ),
    (
        "wrong password",
        lambda _: {"ssl_certfile": CERTIFICATE, "ssl_keyfile": ENCRYPTED, "ssl_keyfile_password": "x"},
        "cannot be decrypted with ssl_keyfile_password",
    ),
    (
        "no authorities",
        lambda it: {"ssl_certfile": CERTIFICATE, "ssl_keyfile": KEY, "ssl_ca_certs": _garbage(it)},
        r"ssl_ca_certs .*garbage.pem' cannot be loaded",
    ),
]


@pytest.mark.parametrize(("given", "said"), [each[1:] for each in BAD], ids=[each[0] for each in BAD])
def test_files_that_cannot_be_served_with_are_named(given: Any, said: str, tmp_path: Path) -> None:
    import re

    assert re.search(said, trouble_with(HTTPOptions.parse(given(tmp_path))))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads all files")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    options = HTTPOptions(ssl_certfile=CERTIFICATE, ssl_keyfile=_unreadable(tmp_path))
    assert "unreadable.pem' cannot be read: Permission denied" in trouble_with(options)


@pytest.fixture
def _served(node: None) -> Iterator[None]:
    yield
    serve.shutdown()


@pytest.mark.usefixtures("_served")
def test_nothing_listens_with_files_that_cannot_be_served_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    for given in ({"ssl_certfile": CERTIFICATE}, {"ssl_certfile": "/nowhere/c.pem", "ssl_keyfile": KEY}):
        with pytest.raises(ValueError, match=r"certificate.pem|/nowhere/c.pem"):
            serve.start({"port": port, **given})
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=20)

    @serve.deployment
    def scheme(request: Any) -> str:
        return str(request.url)

    # Where the program runs is not where the proxy does.
    shutil.copy(CERTIFICATE, tmp_path / "both.pem")
    with (tmp_path / "both.pem").open("a") as both:
        both.write(Path(KEY).read_text())
    monkeypatch.chdir(tmp_path)
    url = serve.start({"port": port, "ssl_certfile": "both.pem"})
    serve.run(scheme.bind())
    assert url == f"https://127.0.0.1:{port}"
    assert httpx.get(url + "/x", verify=False, timeout=20).text == url + "/x"


@pytest.mark.usefixtures("_served")
@pytest.mark.parametrize(
    "given",
    [
        {"ssl_certfile": CERTIFICATE, "ssl_keyfile": ENCRYPTED, "ssl_keyfile_password": "secret"},
        # A certificate whose time is over is its owner's business; a client that cares refuses it.
        {"ssl_certfile": str(FILES / "certificate-expired.pem"), "ssl_keyfile": str(FILES / "key-expired.pem")},
    ],
    ids=["encrypted", "expired"],
)
def test_what_can_be_loaded_is_served_with(given: Any) -> None:
    url = serve.start({"port": 0, **given})
    assert httpx.get(url + "/-/routes", verify=False, timeout=20).text == "{}"
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + "/-/routes", verify=ssl.create_default_context(), timeout=20)
