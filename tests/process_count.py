"""How many tests start a process or a socket: `make test faults ARGS=--count-processes` says so after each.

A test counts if it, or a fixture that it uses, forks, spawns, binds or connects. A pair of sockets that are made
together does not count: it is memory.
"""

import sys
from collections import defaultdict
from collections.abc import Generator, Sequence
from typing import Final

import pytest

EVENTS: Final = frozenset(
    {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system"}
    | {"socket.bind", "socket.connect"}
)
PROPERTY: Final = "starts a process or a socket"


class ProcessCount:
    """Runs in each process of pytest; the one that prints the summary has the reports of all."""

    def __init__(self) -> None:
        self._seen = 0
        self._fixtures: set[object] = set()
        self._by_file: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
        sys.addaudithook(self._note)

    def _note(self, event: str, _: object) -> None:
        if event in EVENTS:
            self._seen += 1

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> Generator[None, object, object]:
        before = self._seen
        made = yield
        if self._seen > before:
            self._fixtures.add(fixturedef)
        return made

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        before = self._seen
        try:
            return (yield)
        finally:
            # pytest has no public way to the fixtures that a test uses.
            used: dict[str, Sequence[object]] = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
            if self._seen > before or any(each in self._fixtures for found in used.values() for each in found):
                item.user_properties.append((PROPERTY, True))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            counts = self._by_file[report.nodeid.partition("::")[0]]
            counts[0] += 1
            counts[1] += any(name == PROPERTY for name, _ in report.user_properties)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        counts = self._by_file
        tests, with_processes = (sum(each[index] for each in counts.values()) for index in (0, 1))
        if not tests:
            return
        terminalreporter.section("tests that start a process or a socket")
        for path in sorted(counts, key=lambda path: -counts[path][1]):
            if counts[path][1]:
                terminalreporter.write_line(f"{counts[path][1]:5} of {counts[path][0]:5}  {path}")
        terminalreporter.write_line(f"{with_processes:5} of {tests:5}: {with_processes / tests:.1%}")
