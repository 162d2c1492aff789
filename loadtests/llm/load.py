"""Load the chat example with simulated engines for a minute, and print what its users saw.

    python loadtests/llm/load.py [--users 32] [--seconds 60] [--replicas 2] [--folder .bench/load] [-- LOCUST OPTIONS]

The options after `--` go to loadtests/llm/locustfile.py: `-- --help` lists them. The folder gets figures.json, CSV
files by tenant, request and second, and load.svg. locust and matplotlib are installed into environments of their own
under .bench/. The exit status is not 0 if an answer failed or was cut short, or if the load generator was the
bottleneck.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from loadtests import processes, venvs
from loadtests.http_side import Server, free_port, wait_for_200
from loadtests.running import RunError, last_words

_START_LIMIT_S: Final = 60.0
_LEAVE_S: Final = 90.0
_TENANTS: Final = "alice,bob"
_HEADS: Final = {
    "tenant": "tenant",
    "answered": "answered",
    "refused": "refused",
    "failed": "failed",
    "truncated": "truncated",
    "ttft_p50_ms": "TTFT p50 ms",
    "ttft_p95_ms": "p95 ms",
    "tpot_p50_ms": "TPOT p50 ms",
    "tpot_p95_ms": "p95 ms",
    "gap_p99_ms": "gap p99 ms",
    "tokens_per_s": "tokens/s",
    "requests_per_s": "requests/s",
    "goodput_per_s": "good/s",
    "cached_share": "cached",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=venvs.FOLDER / "load")
    parser.add_argument("locust", nargs="*", metavar="LOCUST OPTIONS")
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 180)
    try:
        with console.status("installing locust and matplotlib"):
            locust, matplotlib = venvs.install("locust"), venvs.install("matplotlib")
    except venvs.InstallError as error:
        console.print(f"the load could not be prepared: {error}")
        return 1
    processes.become_subreaper()
    given.folder.mkdir(parents=True, exist_ok=True)
    (given.folder / "figures.json").unlink(missing_ok=True)
    port = free_port()
    log = given.folder / "server.log"
    serve = [str(Path(sys.executable).parent / "actorrt"), "serve", "loadtests.servers.chat_app:graph"]
    serve += ["--port", str(port), "--app-dir", str(venvs.ROOT)]
    settings = {"CHAT_APP": json.dumps({"replicas": given.replicas, "tenants": _TENANTS.split(",")})}
    with processes.started(serve, variables=settings, log=log, folder=venvs.ROOT, talks=False) as process:
        try:
            wait_for_200(
                process, port, Server(lambda run, port: [], path="/health"), time.perf_counter() + _START_LIMIT_S
            )
        except RunError as error:
            console.print(f"{error}: {last_words(log)}")
            return 1
        status = load(locust, port, given)
    reported = report(given.folder, matplotlib, console)
    return status or reported


def load(python: Path, port: int, given: argparse.Namespace) -> int:
    command = [str(python), "-m", "locust", "--headless", "--only-summary", "--csv", str(given.folder / "locust")]
    command += ["--locustfile", str(Path(__file__).with_name("locustfile.py"))]
    command += ["--host", f"http://127.0.0.1:{port}", "--run-time", f"{given.seconds}s"]
    command += ["--users", str(given.users), "--spawn-rate", str(given.users)]
    command += ["--tenants", _TENANTS, "--report", str(given.folder), *given.locust]
    try:
        return subprocess.run(command, timeout=given.seconds + _LEAVE_S, check=False).returncode
    except subprocess.TimeoutExpired:
        print(f"load: locust did not end within {given.seconds + _LEAVE_S:.0f} s", file=sys.stderr)
        return 1


def report(folder: Path, matplotlib: Path, console: Console) -> int:
    file = folder / "figures.json"
    if not file.exists():
        return 0
    figures = json.loads(file.read_text())
    console.print(table(figures))
    picture = folder / "load.svg"
    drawn = subprocess.run(
        [str(matplotlib), str(Path(__file__).with_name("chart.py")), str(folder), str(picture)], check=False
    )
    if drawn.returncode != 0:
        console.print("no picture was drawn")
        return 1
    console.print(f"figures and picture: {folder}", soft_wrap=True)
    return 0


def table(figures: dict[str, Any]) -> Table:
    options = figures["options"]
    title = (
        f"{figures['seconds']:.0f} s; good: TTFT up to {options['ttft_target_ms']:g} ms and TPOT up to "
        f"{options['tpot_target_ms']:g} ms; {options['common']:.0%} of each prompt is common to all"
    )
    shown = Table(*_HEADS.values(), title=title)
    for row in figures["tenants"]:
        shown.add_row(*("" if row[key] is None else str(row[key]) for key in _HEADS))
    return shown


if __name__ == "__main__":
    sys.exit(main())
