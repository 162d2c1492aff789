"""The line that the log has for each request."""

import re
from typing import Any

import pytest

from actorrt.serve.llm import FrontConfig

from .conftest import run_scripted
from .scripted import chunk

USAGE = '{"prompt_tokens":10,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":4}}'


def test_each_request_is_a_line_with_its_tokens(serve_url: str, capfd: pytest.CaptureFixture[str]) -> None:
    app = run_scripted(serve_url, "logged", FrontConfig(access_log=True))
    script: list[Any] = [
        ["head", 200, "text/event-stream"],
        ["say", chunk("a"), 1],
        ["say", chunk("b") + chunk(finish="length").replace('": "', '":"'), 1],
        ["say", f'data: {{"choices":[],"usage":{USAGE}}}\n\n', 0],
    ]
    with app.client:
        app.client.headers["x-request-id"] = "r1"
        assert app.chat(*script, stream=True).status_code == 200
        app.client.headers["x-request-id"] = "r2"
        assert app.client.get("/v1/no%0Asuch%20status=200%20tenant=you").status_code == 404
        app.client.headers["x-request-id"] = 'r3 status=200 "'
        assert app.client.get("/v1/models/none").status_code == 404
    said = ""
    while "request=r2" not in said or '"r3' not in said:
        said += capfd.readouterr().err
    (line,) = re.findall(r"POST .*request=r1.*", said)
    assert line.startswith(
        "POST /v1/chat/completions request=r1 status=200 tenant=default model=scripted "
        "prompt_tokens=10 cached_tokens=4 tokens=2 finish=length first_token_s="
    )
    # Nothing that a client says makes a line, or a fact, of its own.
    assert re.search(r"GET /v1/no%0Asuch%20status=200%20tenant=you request=r2 status=404 .*total_s=", said)
    assert r'GET /v1/models/none request="r3 status=200 \"" status=404 ' in said
