"""Whoever works on a batch dies: nothing that was answered is asked again, lost, or there twice."""

import asyncio
import json
import os
import resource
import signal
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actorrt import serve
from actorrt.serve.llm.front import Front
from actorrt.serve.routing.broadcast import ask_all

from ..conftest import StartServer, _processes
from .batch_app import BatchClient, chat, line, run_scripted_batches

JSON = ["head", 200, "application/json"]
SAID = [JSON, ["say", '{"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 1}}', 1]]
HELLO = [{"role": "user", "content": "hello"}]
# So many have their answer before anybody is killed, and so many wait then.
DONE, RUNNING, LINES = 30, 4, 60
NAME = "dies"


class MortalFront(Front):
    async def pid(self) -> int:
        return os.getpid()


class App:
    """Two fronts, and a model that writes down how often it is asked what."""

    def __init__(self, url: str, folder: Path) -> None:
        self.client = BatchClient(url)
        self.folder, self.counts = folder / "kept", folder / "counts"
        self.counts.mkdir()

    def create(self) -> str:
        """All but the first wait until they are told to go on."""
        requests: list[str] = []
        for number in range(LINES):
            counted = ["fail", str(self.counts / str(number)), 0, 500, ""]
            waits = [["wait", "go"]] if number >= DONE else []
            script = [counted, *waits, *SAID]
            requests.append(line(str(number), model="scripted", messages=HELLO, script=script))
        return self.client.create(requests)["id"]

    def asked(self) -> Counter[int]:
        """How often each request came to the model."""
        return Counter({int(path.name): path.stat().st_size for path in self.counts.iterdir()})

    def until_all_wait(self, id: str) -> None:
        while self.client.until(id, "in_progress")["request_counts"]["completed"] < DONE:
            pass
        while len(self.asked()) < DONE + RUNNING:
            pass

    def go(self) -> None:
        while not any(answer is None for answer in ask("scripted", "tell", "go").values()):
            pass

    def owner(self, id: str) -> str:
        """The replica of the front that works on it."""
        with sqlite3.connect(self.folder / "batches.sqlite") as database:
            (owner,) = database.execute("SELECT owner FROM batches WHERE id = ?", (id,)).fetchone()
        database.close()
        return owner.partition(" ")[0]

    def check(self, id: str) -> None:
        """All is there once, and what had its answer was not asked again."""
        batch = self.client.ended(id)
        assert batch["status"] == "completed"
        assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
        output, errors = self.client.answers(batch)
        assert errors == []
        assert [each["custom_id"] for each in output] == [str(number) for number in range(LINES)]
        assert batch["usage"]["output_tokens"] == LINES
        times = self.asked()
        assert [times[number] for number in range(DONE)] == [1] * DONE
        assert all(1 <= times[number] <= 2 for number in range(DONE, LINES))


def ask(deployment: str, method: str, *args: Any) -> dict[str, Any]:
    return asyncio.run(ask_all(serve.get_deployment_handle(deployment, NAME), method, *args, timeout_s=20))


def fronts() -> dict[str, int]:
    """Their processes."""
    while True:
        found = {id: pid for id, pid in ask("front", "pid").items() if isinstance(pid, int)}
        if len(found) == 2:
            return found


@pytest.fixture
def app(serve_url: str, tmp_path: Path) -> Iterator[App]:
    url = run_scripted_batches(
        serve_url, NAME, tmp_path / "kept", MortalFront, num_replicas=2, lease_s=1, concurrency_unqueued=RUNNING
    )
    made = App(url, tmp_path)
    with made.client.http:
        yield made
    serve.delete(NAME)


@pytest.mark.parametrize("who", ["owner", "other", "both"])
def test_when_a_front_is_killed_its_batch_is_gone_on_with(app: App, who: str) -> None:
    id = app.create()
    app.until_all_wait(id)
    owner = app.owner(id)
    for front, pid in fronts().items():
        if who == "both" or (front == owner) == (who == "owner"):
            os.kill(pid, signal.SIGKILL)
    if who != "other":
        while max(app.asked().values()) < 2:
            pass  # another one has it
    app.go()
    app.check(id)
    again = [number for number, times in app.asked().items() if times > 1]
    assert len(again) == (0 if who == "other" else RUNNING)


def test_of_a_front_that_stood_still_nothing_is_written_any_more(app: App) -> None:
    id = app.create()
    app.until_all_wait(id)
    pid = fronts()[app.owner(id)]
    os.kill(pid, signal.SIGSTOP)
    try:
        while len([number for number, times in app.asked().items() if times > 1]) < RUNNING:
            pass  # another one has it
        app.go()  # both get their answers
    finally:
        os.kill(pid, signal.SIGCONT)
    app.check(id)


def test_when_the_models_replica_is_killed_its_requests_are_made_again(app: App) -> None:
    id = app.create()
    app.until_all_wait(id)
    deadly = {"model": "scripted", "messages": HELLO, "script": [["die"]]}
    assert app.client.http.post("/v1/chat/completions", json=deadly).status_code >= 500
    while max(app.asked().values()) < 2:
        pass
    app.go()
    app.check(id)


def test_a_batch_is_cancelled_at_whichever_front_that_is_asked(app: App) -> None:
    ids = [app.create() for _ in range(4)]
    for id in ids:
        response = app.client.http.post(f"/v1/batches/{id}/cancel")
        assert response.json()["status"] in ("cancelling", "cancelled")
    for id in ids:
        batch = app.client.ended(id)
        assert batch["status"] == "cancelled"
        output, errors = app.client.answers(batch)
        assert len(output) + len(errors) == batch["request_counts"]["total"] == LINES


def test_a_disk_that_is_full_is_507_and_what_waits_for_it_goes_on_when_it_has_room(app: App) -> None:
    """The limit of a process's files stands for the disk's."""
    id = app.create()
    app.until_all_wait(id)
    pids = list(fronts().values())
    before = resource.prlimit(pids[0], resource.RLIMIT_FSIZE)
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (5_000_000, before[1]))
    large = "x" * 6_000_000
    refused = app.client.upload(large)
    assert refused.status_code == 507
    assert refused.json()["error"]["code"] == "insufficient_storage"
    assert refused.headers["x-should-retry"] == "false"
    assert app.client.upload("x" * 1000).status_code == 200
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, before[1]))
    app.go()
    assert app.client.http.get("/v1/models").status_code == 200
    while app.client.upload("x").status_code == 200:
        pass
    assert app.client.get(id)["status"] == "in_progress"
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
    app.check(id)
    assert app.client.upload(large).status_code == 200


PROGRAM = """
from actorrt.serve.llm import BatchConfig, FrontConfig, LLMConfig, SimulatedEngine, build_openai_app

model = LLMConfig(model_id="fake", engine=SimulatedEngine(decode_step_s=0.004))
app = build_openai_app(model, FrontConfig(batches=BatchConfig(folder="kept", lease_s=1)))
"""


def test_when_all_of_actorrt_serve_is_killed_the_next_one_goes_on(start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "batching.py").write_text(PROGRAM, encoding="utf-8")
    before = _processes()
    client = BatchClient(start_server("batching:app").url)
    with client.http:
        id = client.create([chat(str(number)) for number in range(400)])["id"]
        while client.until(id, "in_progress")["request_counts"]["completed"] < 100:
            pass
        for process in _processes() - before:
            try:
                os.kill(int(process.partition(":")[0]), signal.SIGKILL)
            except ProcessLookupError:
                continue
    database = sqlite3.connect(tmp_path / "kept" / "batches.sqlite")
    written = dict(database.execute("SELECT line, output FROM answers WHERE batch = ?", (id,)).fetchall())
    database.close()
    assert 100 <= len(written) < 400
    with (client := BatchClient(start_server("batching:app").url)).http:
        batch = client.ended(id)
        assert batch["request_counts"] == {"total": 400, "completed": 400, "failed": 0}
        output, _ = client.answers(batch)
        assert [each["custom_id"] for each in output] == [str(number) for number in range(400)]
        # What was written is what is there: it was not asked again.
        assert all(output[number - 1] == json.loads(data) for number, data in written.items())
        usage = [each["response"]["body"]["usage"]["completion_tokens"] for each in output]
        assert batch["usage"]["output_tokens"] == sum(usage)
        assert client.http.get(f"/v1/files/{batch['input_file_id']}").status_code == 200
