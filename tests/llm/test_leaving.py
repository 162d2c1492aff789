"""A client that leaves ends its request at the engine, wherever that was."""

import time
from typing import Any

import httpx
import pytest

from .conftest import ScriptedApp
from .scripted import chunk

EVENTS = ["head", 200, "text/event-stream"]
# By then the engine is told: the figure is 0.1 s, of a machine that has nothing else to do.
SOON_S = 1.0


@pytest.mark.parametrize(
    ("name", "script", "stream"),
    [
        ("before the head", [["wait", "never"]], True),
        ("after the head", [EVENTS, ["wait", "never"]], True),
        ("in the midst", [EVENTS, ["say", chunk("a"), 1], ["wait", "never"]], True),
        ("not streamed", [["head", 200, "application/json"], ["say", "{", 1], ["wait", "never"]], False),
    ],
)
def test_who_leaves_frees_the_engine(scripted_app: ScriptedApp, name: str, script: list[Any], stream: bool) -> None:
    request = scripted_app.request(*script, stream=stream, user=name)
    # A connection of its own, which is closed while the answer is not complete.
    with httpx.Client(timeout=httpx.Timeout(20, read=0.3), trust_env=False) as client:
        with (
            pytest.raises(httpx.ReadTimeout),
            client.stream("POST", f"{scripted_app.url}/v1/chat/completions", json=request) as response,
        ):
            for _ in response.iter_bytes():
                pass
        scripted_app.until(f"{name} began")
    left = time.monotonic()
    scripted_app.until(f"{name} ended")
    assert time.monotonic() - left < SOON_S
    assert scripted_app.chat(["head", 200, "application/json"], ["say", "{}", 0]).status_code == 200
