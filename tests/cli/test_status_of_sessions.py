"""`actorrt status` where several sessions run."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from actorrt.runtime.machine.process import children_of


def _run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("actorrt")), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


@pytest.fixture(scope="module")
def two_sessions(start_shared_server: Any, tmp_path_factory: pytest.TempPathFactory) -> list[int]:
    """Two commands that serve an application of the same name; their pids, the newer one first."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "models.py").write_text(
        "import os\n"
        "from actorrt.serve.llm import LLMConfig, SimulatedEngine, build_openai_app\n"
        "app = build_openai_app(LLMConfig(model_id=os.environ['MODEL'], engine=SimulatedEngine()))\n"
    )
    pids: list[int] = []
    for model in ("older", "newer"):
        os.environ["MODEL"] = model
        pids.insert(0, start_shared_server("models:app", cwd=folder).process.pid)
    del os.environ["MODEL"]
    return pids


def test_each_session_is_shown_with_its_program_and_can_be_chosen(two_sessions: list[int]) -> None:
    newer, older = two_sessions
    shown = _run("status")
    assert shown.returncode == 0, shown.stderr
    for pid, model in ((newer, "newer"), (older, "older")):
        assert re.search(rf"^began .*, pid {pid}: .*serve models:app", shown.stdout, re.MULTILINE)
        assert re.search(rf"^{model} +simulated ", shown.stdout, re.MULTILINE)
    facts = json.loads(_run("status", "--json").stdout)
    assert [(each["pid"], each["models"][0]["model"]) for each in facts["sessions"]] == [
        (newer, "newer"),
        (older, "older"),
    ]
    assert facts["models"][0]["model"] == "newer"
    address = facts["sessions"][1]["address"]
    for chosen in (address, os.path.basename(address), str(older)):
        (only,) = json.loads(_run("status", "--json", "--address", chosen).stdout)["sessions"]
        assert only["pid"] == older
    newest = _run("status", "--address", "auto").stdout
    assert "newer" in newest
    assert "\nolder" not in newest
    assert "1 other session runs here" in newest
    wrong = _run("status", "--address", "nowhere")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("actorrt: no session is 'nowhere'; there are ")
    assert _run("status", "--address", "2").stderr.startswith("actorrt: more than one session begins with '2'")


def test_a_session_that_does_not_answer_hides_no_other(two_sessions: list[int]) -> None:
    newer, _ = two_sessions
    (node,) = children_of(newer)
    os.kill(node, signal.SIGSTOP)
    try:
        began = time.monotonic()
        shown = _run("status")
        took = time.monotonic() - began
    finally:
        os.kill(node, signal.SIGCONT)
    # It is waited for 5 s, and not as long as a program waits for one that starts.
    assert took < 30
    assert shown.returncode == 0
    assert "it does not answer: " in shown.stdout
    assert re.search(r"^older +simulated ", shown.stdout, re.MULTILINE)
