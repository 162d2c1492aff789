"""The token's file, and what is said where the settings for other machines do not fit together."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import msgspec
import pytest

from actorrt.config import Settings
from actorrt.exceptions import LinkError
from actorrt.runtime.links.access import Access

from .machines import ENCRYPTED, MUTUAL, PLAIN


def with_file(path: Path) -> Access:
    return Access(Settings(host="10.0.0.1", token_file=str(path)))


def test_a_token_is_made_once_and_only_its_user_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "token"
    assert with_file(path).token == ""
    made = with_file(path).make_token()
    assert len(made) >= 40
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert with_file(path).make_token() == with_file(path).token == made
    assert os.listdir(path.parent) == ["token"]


def test_many_that_start_at_once_have_one_token(tmp_path: Path) -> None:
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.append(with_file(tmp_path / "token").make_token())) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 16
    assert len(set(made)) == 1


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    with_file(path).make_token()
    path.chmod(0o640)
    with pytest.raises(LinkError, match=r"other users can read the token's file .*: chmod 600 it"):
        with_file(path).check()


def test_a_token_that_is_easily_guessed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="the token in ACTORRT_TOKEN is no good one: it has at least 16 characters"):
        _ = Access(Settings(token="secret")).token
    path = tmp_path / "token"
    path.write_text("")
    path.chmod(0o600)
    with pytest.raises(LinkError, match="is no good one"):
        _ = with_file(path).token


def test_a_token_that_is_given_comes_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    with_file(path).make_token()
    given = Access(Settings(token=PLAIN.token, token_file=str(path)))
    assert given.token == given.make_token() == PLAIN.token


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ports": "many"}, "ACTORRT_PORTS: 'many' is no range of ports: write 20000-20100"),
        ({"tls_key": ""}, "who listens with TLS shows a certificate: set ACTORRT_TLS_CERT and ACTORRT_TLS_KEY"),
        ({"tls_cert": "/nowhere"}, "ACTORRT_TLS_CERT: '/nowhere' cannot be read: No such file or directory"),
        ({"tls_key": MUTUAL.tls_key}, "is not that of the certificate in"),
        ({"tls_ca": ENCRYPTED.tls_key}, "ACTORRT_TLS_CA: .* cannot be loaded"),
        ({"tls_cert": __file__}, "cannot be loaded"),
    ],
)
def test_settings_that_do_not_fit_are_named_in_one_sentence(changes: dict[str, str], said: str) -> None:
    with pytest.raises(LinkError, match=said) as refused:
        Access(msgspec.structs.replace(ENCRYPTED, **changes)).check()
    assert "\n" not in str(refused.value)


def test_in_the_clear_nothing_of_tls_is_read() -> None:
    access = Access(PLAIN)
    access.check()
    assert access.to_listen is access.to_dial is None
    assert access.binding == b""
