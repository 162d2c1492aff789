"""`actorrt why` and the queues in `actorrt status`, of a session that serves one request at a time."""

import http.client
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import actorrt
from actorrt import serve


def _run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("actorrt")), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


def _ask(url: str, name: str, answers: dict[str, int]) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    connection.request("GET", "/", headers={"x-request-id": name})
    answers[name] = connection.getresponse().status
    connection.close()


def test_a_request_that_waits_is_told_apart_from_one_that_runs(start_server: Any, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import asyncio, os\n"
        "from actorrt import serve\n"
        "@serve.deployment(max_ongoing_requests=1, request_router='capacity_queue')\n"
        "class Slow:\n"
        "    async def __call__(self, request):\n"
        f"        while not os.path.exists({str(tmp_path / 'go')!r}):\n"
        "            await asyncio.sleep(0.01)\n"
        "app = Slow.bind()\n"
    )
    url = start_server("slow:app").url
    answers: dict[str, int] = {}
    threads = [threading.Thread(target=_ask, args=(url, name, answers)) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    with actorrt.init("auto"):
        while (tenant := (serve.queues()[0].tenants or {}).get("")) is None or tenant.waiting != 1:
            pass
    (queue,) = json.loads(_run("status", "--json").stdout)["queues"]
    assert queue["tenants"][""]["waiting"] == 1
    said = sorted(_run("why", name).stdout for name in ("one", "other"))
    assert said[0].startswith("default#Slow: it has waited for ")
    assert "every replica is full" in said[0]
    assert said[1].startswith("default#Slow: it runs at replica Slow-")
    odd = _run("why", "\udcff")
    assert (odd.returncode, odd.stdout) == (1, "")
    assert "no request has the id '\\udcff': it is not UTF-8" in odd.stderr
    assert "Traceback" not in odd.stderr
    shown = _run("status").stdout
    assert "capacity queue of default#Slow, in requests: 1 admitted, 0 refused" in shown
    assert "1 request of no tenant waits" in shown
    (tmp_path / "go").touch()
    for thread in threads:
        thread.join()
    assert set(answers.values()) == {200}
    gone = _run("why", "one")
    assert gone.returncode != 0
    assert "no capacity queue knows of a request one" in gone.stderr
