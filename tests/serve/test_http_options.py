from typing import Any

import pytest

from actorrt.serve.http.http_options import HTTPOptions


def test_options_come_as_such_or_as_a_dict() -> None:
    assert HTTPOptions.parse(None) == HTTPOptions.parse({}) == HTTPOptions()
    assert HTTPOptions.parse({"port": 0}).port == 0
    given = HTTPOptions(host="::1")
    assert HTTPOptions.parse(given) is given


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ({"prot": 1}, ValueError, "unknown HTTP option 'prot'; did you mean 'port'?"),
        ({"middlewares": []}, ValueError, "HTTP option 'middlewares' is not supported yet"),
        ({"port": "1"}, TypeError, "port must be an int, not str"),
        ({"port": 70000}, ValueError, "port must be at most 65535"),
        ({"max_header_bytes": -1}, ValueError, "max_header_bytes must not be negative"),
        ({"host": None}, TypeError, "host must be a str"),
        ({"keep_alive_timeout_s": 0}, ValueError, "keep_alive_timeout_s must be more than zero"),
        ({"request_timeout_s": "1"}, TypeError, "request_timeout_s must be a number of seconds"),
        ([], TypeError, "http_options must be HTTPOptions or a dict, not list"),
    ],
)
def test_a_wrong_option_is_refused_by_name(given: Any, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind) as refused:
        HTTPOptions.parse(given)
    assert said in str(refused.value)
