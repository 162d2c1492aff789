"""Start the handwritten-digits example and load it with locust for a while.

    python loadtests/load.py [--users 16] [--seconds 20]

locust is installed into an environment of its own under .bench/. Its exit status is ours: 1 where a request failed.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from loadtests import processes, venvs
from loadtests.http_side import Server, free_port, wait_for_200
from loadtests.running import RunError, last_words

_START_LIMIT_S: Final = 60.0
_LEAVE_S: Final = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--seconds", type=int, default=20)
    given = parser.parse_args()
    console = Console()
    try:
        with console.status("installing locust"):
            python = venvs.install("locust")
    except venvs.InstallError as error:
        console.print(f"locust could not be installed: {error}")
        return 1
    processes.become_subreaper()
    port = free_port()
    log = venvs.FOLDER / "digits.log"
    serve = [str(Path(sys.executable).parent / "actorrt"), "serve", "digits:app", "--port", str(port)]
    serve += ["--app-dir", str(venvs.ROOT / "examples")]
    with processes.started(serve, variables={}, log=log, folder=venvs.ROOT, talks=False) as process:
        ready = Server(lambda run, port: [], path="/-/healthz")
        try:
            wait_for_200(process, port, ready, time.perf_counter() + _START_LIMIT_S)
        except RunError as error:
            console.print(f"{error}: {last_words(log)}")
            return 1
        return load(python, port, given.users, given.seconds)


def load(python: Path, port: int, users: int, seconds: int) -> int:
    command = [str(python), "-m", "locust", "--headless", "--only-summary"]
    command += ["--locustfile", str(venvs.ROOT / "loadtests" / "locustfile.py")]
    command += ["--host", f"http://127.0.0.1:{port}", "--run-time", f"{seconds}s"]
    command += ["--users", str(users), "--spawn-rate", str(users)]
    return subprocess.run(command, timeout=seconds + _LEAVE_S, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
