"""Loads the handwritten-digits example: every user posts the PNG of a seven and expects that digit back.

Runs under locust, which has an environment of its own; `python loadtests/load.py` starts the example and this. Users
stop after a bounded number of requests, and only a server on this machine is ever loaded.
"""
# pyright: basic, reportMissingImports=false

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from locust import HttpUser, constant, events, task
from locust.exception import StopUser

PICTURE = (Path(__file__).resolve().parent.parent / "examples" / "seven.png").read_bytes()
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_REQUESTS = 20_000


@events.init.add_listener
def only_this_machine(environment: Any, **_: Any) -> None:
    host = environment.host or DigitsUser.host
    if urlsplit(host).hostname not in LOOPBACK:
        raise SystemExit(f"{host} is not on this machine: only {', '.join(LOOPBACK)} are loaded")


class DigitsUser(HttpUser):
    host = "http://127.0.0.1:8000"
    wait_time = constant(0)

    def on_start(self) -> None:
        self.sent = 0

    @task
    def seven(self) -> None:
        self.sent += 1
        if self.sent > MOST_REQUESTS:
            raise StopUser
        with self.client.post("/", data=PICTURE, headers={"Content-Type": "image/png"}, catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"status {answer.status_code}")
            elif answer.json().get("digit") != 7:
                answer.failure(f"not a seven: {answer.text[:100]}")
