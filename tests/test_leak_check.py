"""The leak check of conftest.py finds each kind of leftover and names it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

LEAKS = """
import asyncio, os, subprocess, sys, threading
from pathlib import Path

def test_nothing():
    pass

async def test_nothing_async():
    await asyncio.sleep(0)

def test_process():
    # Its parent ends first, so that it is nobody's child any more.
    code = "import os, signal\\nif os.fork() == 0: signal.pause()"
    subprocess.run([sys.executable, "-c", code], check=True)

def test_session():
    session = Path(os.environ["ACTORRT_TEMP_DIR"]) / f"actorrt-{os.getuid()}" / "session_1"
    (session / "logs").mkdir(parents=True)
    (session / "left.sock").touch()

def test_memfd():
    os.memfd_create("left")

def test_thread():
    threading.Thread(target=threading.Event().wait, name="actorrt-loop", daemon=True).start()

async def test_task():
    asyncio.get_running_loop().left = asyncio.create_task(asyncio.Event().wait(), name="left-task")
    await asyncio.sleep(0)
"""


def test_each_kind_of_leftover_fails_the_test_that_left_it(tmp_path: Path) -> None:
    conftest = Path(__file__).with_name("conftest.py").read_text(encoding="utf-8")
    (tmp_path / "conftest.py").write_text(conftest.replace("SETTLE_S: Final = 10.0", "SETTLE_S: Final = 0.1"))
    (tmp_path / "test_leaks.py").write_text(LEAKS)
    shutil.copy(Path(__file__).parent.parent / "pyproject.toml", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "ACTORRT_TEMP_DIR"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    report = done.stdout
    assert "7 passed" in report, report
    for name in ("process", "session", "memfd", "thread", "task"):
        assert f"ERROR test_leaks.py::test_{name} - " in report, report
    for name in ("nothing", "nothing_async"):
        assert f"ERROR test_leaks.py::test_{name} - " not in report, report
    assert "session file session_1/left.sock" in report
    assert "/memfd:left" in report
    assert "actorrt-loop" in report
    assert "left-task" in report
