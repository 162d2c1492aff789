"""A side that hides its processes leaves none behind. In a process of its own, which becomes a subreaper."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
from pathlib import Path
from loadtests import processes

processes.become_subreaper()
# Twice detached: a child of a child that has ended, in a session of its own, deaf to SIGINT and SIGTERM.
hidden = "trap '' INT TERM; echo started; exec sleep 1000"
command = ["sh", "-c", 'setsid sh -c "$1" & read -r line', "sh", hidden]
with processes.started(command, variables={}, log=Path(sys.argv[1]), folder=Path("/"), talks=True) as process:
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == "started\\n"
    used = processes.memory_of(processes.descendants())
    assert used.processes == 2 and used.pss > 0, used
    process.stdin.write("\\n")
    process.stdin.flush()
    process.wait(10)
    assert len(processes.descendants()) == 1
assert processes.descendants() == []
print("nothing left")
"""


def test_a_detached_process_is_counted_and_ended(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "log")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.stdout == "nothing left\n", done.stderr
