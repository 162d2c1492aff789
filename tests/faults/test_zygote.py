"""The zygote and its client with real processes. Every wait is for an event: a pidfd, a line, an end of file."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from actorrt.runtime.base.process_watch import watch_pid
from actorrt.runtime.machine.process import describe_exit, kill_process, private_bytes, process_state
from actorrt.runtime.machine.zygote_client import ForkError, ZygoteClient, ZygoteLostError

PROGRAM = Path(__file__).parent / "programs" / "zygote.py"
DEADLINE_S = 30


@dataclass
class Zygote:
    client: ZygoteClient
    exits: dict[int, int] = field(default_factory=dict)
    lost: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, text: str, **kwargs: object) -> tuple[int, Output]:
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        try:
            pid = await self.client.fork(text.encode(), stdout_fd=out_write, stderr_fd=err_write, **kwargs)  # type: ignore[arg-type]
        except BaseException:
            os.close(out_read)
            os.close(err_read)
            raise
        finally:
            os.close(out_write)
            os.close(err_write)
        return pid, Output(await reader(out_read), await reader(err_read))

    async def exit_of(self, pid: int) -> int:
        async with asyncio.timeout(DEADLINE_S):
            while pid not in self.exits:
                self.changed.clear()
                await self.changed.wait()
        return self.exits[pid]


@dataclass
class Output:
    out: asyncio.StreamReader
    err: asyncio.StreamReader

    async def line(self) -> str:
        async with asyncio.timeout(DEADLINE_S):
            return (await self.out.readline()).decode().rstrip("\n")

    async def rest(self) -> tuple[str, str]:
        async with asyncio.timeout(DEADLINE_S):
            return (await self.out.read()).decode(), (await self.err.read()).decode()


async def reader(fd: int) -> asyncio.StreamReader:
    loop = asyncio.get_running_loop()
    stream = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(fd, "rb", buffering=0))
    return stream


async def gone(pid: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await watch_pid(pid)


@pytest.fixture
async def zygote() -> AsyncIterator[Zygote]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.set_inheritable(True)
    pid = os.posix_spawn(sys.executable, [sys.executable, str(PROGRAM), str(theirs.fileno())], os.environ)  # noqa: ASYNC221
    theirs.close()

    def on_exit(pid: int, status: int) -> None:
        assert pid not in made.exits
        made.exits[pid] = status
        made.changed.set()

    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    made = Zygote(ZygoteClient(ours, pid, on_exit=on_exit, on_lost=lost.set_result), lost=lost)
    yield made
    await made.client.close()
    assert not made.client.pids
    assert process_state(pid) is None


async def test_a_worker_starts_with_its_environment_folder_input_and_output(zygote: Zygote, tmp_path: Path) -> None:
    text = """
import os, sys
print(os.environ["COLOUR"], os.getcwd(), os.getpgid(0) == os.getpid(), repr(sys.stdin.read()))
print("to the other pipe", file=sys.stderr)
"""
    pid, output = await zygote.run(text, env={"COLOUR": "blue"}, cwd=str(tmp_path))
    assert await zygote.exit_of(pid) == 0
    assert await output.rest() == (f"blue {tmp_path} True ''\n", "to the other pipe\n")


async def test_a_worker_knows_that_it_prints_into_a_pipe(zygote: Zygote) -> None:
    text = "import sys; print(*(s.seekable() or s.isatty() or s.fileno() for s in (sys.stdout, sys.stderr)))"
    assert await (await zygote.run(text))[1].rest() == ("1 2\n", "")


async def test_a_worker_holds_no_descriptor_but_its_own(zygote: Zygote) -> None:
    _, output = await zygote.run("import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))")
    # The fourth is the listing's own.
    assert await output.line() == "[0, 1, 2, 3]"


async def test_a_worker_has_the_default_signal_handlers(zygote: Zygote) -> None:
    text = """
import signal
print(*(signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGCHLD)), signal.set_wakeup_fd(-1))
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, signal.pthread_sigmask(signal.SIG_BLOCK, ()))
"""
    _, output = await zygote.run(text)
    assert await output.line() == f"{signal.SIG_DFL} {signal.SIG_DFL} -1"
    assert await output.line() == "True set()"


async def test_two_workers_draw_different_random_numbers(zygote: Zygote) -> None:
    outputs = [(await zygote.run("import random; print(random.random())"))[1] for _ in range(2)]
    assert await outputs[0].line() != await outputs[1].line()


async def test_lines_arrive_while_the_worker_runs_on(zygote: Zygote) -> None:
    pid, output = await zygote.run("import signal; print('here'); signal.pause()")
    assert await output.line() == "here"
    assert zygote.client.kill(pid)
    assert describe_exit(await zygote.exit_of(pid)) == "killed by signal 9 (SIGKILL)"
    assert not zygote.client.kill(pid)


@pytest.mark.parametrize(
    ("text", "code", "error"),
    [
        ("raise SystemExit", 0, ""),
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit('words')", 1, "words\n"),
        ("import os; os._exit(7)", 7, ""),
    ],
)
async def test_an_exit_code_is_reported(zygote: Zygote, text: str, code: int, error: str) -> None:
    pid, output = await zygote.run(text)
    assert os.waitstatus_to_exitcode(await zygote.exit_of(pid)) == code
    assert (await output.rest())[1] == error


async def test_an_exception_prints_its_traceback_and_runs_no_exit_handler_of_the_zygote(zygote: Zygote) -> None:
    pid, output = await zygote.run("import sys; sys.stdout.write('no newline'); 1 / 0")
    assert os.waitstatus_to_exitcode(await zygote.exit_of(pid)) == 1
    out, err = await output.rest()
    assert out == "no newline"
    assert err.endswith("ZeroDivisionError: division by zero\n")
    assert "Traceback" in err


async def test_a_worker_whose_folder_cannot_be_entered_runs_in_the_root_and_says_so(zygote: Zygote) -> None:
    pid, output = await zygote.run("import os; print(os.getcwd())", cwd="/nowhere/at/all")
    assert os.waitstatus_to_exitcode(await zygote.exit_of(pid)) == 0
    out, err = await output.rest()
    assert out == "/\n"
    assert "/nowhere/at/all" in err


async def test_what_a_worker_has_started_ends_with_it(zygote: Zygote) -> None:
    text = """
import subprocess
print(subprocess.Popen(["sleep", "1000"]).pid)
"""
    pid, output = await zygote.run(text)
    child = int(await output.line())
    assert await zygote.exit_of(pid) == 0
    await gone(child)


async def test_closing_ends_every_worker_and_its_daemons(zygote: Zygote) -> None:
    text = """
import subprocess, signal
# In a session of its own, and left by its parent: the group kill misses it.
subprocess.run(["sh", "-c", "setsid sleep 1000 & echo $!"])
signal.pause()
"""
    pid, output = await zygote.run(text)
    daemon = int(await output.line())
    await zygote.client.close()
    assert describe_exit(zygote.exits[pid]) == "killed by signal 9 (SIGKILL)"
    await gone(daemon)
    with pytest.raises(ForkError):
        await zygote.run("print('too late')")


async def test_a_worker_is_reported_after_its_fork_returned_and_only_once(zygote: Zygote) -> None:
    # The fixture's callback refuses a second report.
    runs = [await zygote.run("pass") for _ in range(20)]
    statuses = [await zygote.exit_of(pid) for pid, _ in runs]
    assert statuses == [0] * 20


async def test_many_forks_at_once_each_get_a_worker(zygote: Zygote) -> None:
    runs = await asyncio.gather(*(zygote.run(f"print({number})") for number in range(40)))
    assert [await output.line() for _, output in runs] == [str(number) for number in range(40)]
    assert len({pid for pid, _ in runs}) == 40


async def test_a_cancelled_fork_leaves_no_worker(zygote: Zygote) -> None:
    signal_text = "import signal; signal.pause()"
    forks = [asyncio.ensure_future(zygote.run(signal_text)) for _ in range(24)]
    await asyncio.sleep(0)  # some are sent now, the rest wait for their turn
    for fork in forks[::2]:
        fork.cancel()
    results = await asyncio.gather(*forks, return_exceptions=True)
    kept = [result[0] for result in results if isinstance(result, tuple)]
    assert len(kept) == 12
    # The zygote answers in order: after this fork, every cancelled one has been killed.
    pid, _ = await zygote.run("pass")
    await zygote.exit_of(pid)
    for pid in set(zygote.client.pids).difference(kept):
        await gone(pid)
    assert all(process_state(pid) is not None for pid in kept)
    assert set(zygote.exits).isdisjoint(kept)
    assert len(zygote.exits) == 1


async def test_a_fork_cancelled_after_its_answer_leaves_no_worker(zygote: Zygote) -> None:
    fork = asyncio.ensure_future(zygote.run("import signal; signal.pause()"))
    await asyncio.sleep(0)
    # The loop stands still until the answer is there, then answer and cancellation come in one turn.
    assert select.select([zygote.client._sock], [], [], DEADLINE_S)[0]
    zygote.client._readable()
    (pid,) = zygote.client.pids
    fork.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fork
    await gone(pid)
    assert pid not in zygote.exits


async def test_a_request_that_is_too_large_is_refused_by_size(zygote: Zygote) -> None:
    with pytest.raises(ValueError, match="must fit into 131072 bytes"):
        await zygote.run("#" * 200_000)
    pid, _ = await zygote.run("#" * 100_000)
    assert await zygote.exit_of(pid) == 0


async def test_the_death_of_the_zygote_fails_forks_and_ends_workers(zygote: Zygote) -> None:
    pid, output = await zygote.run("import signal; print('up'); signal.pause()")
    assert await output.line() == "up"
    kill_process(zygote.client.zygote_pid, signal.SIGSTOP)
    waiting = asyncio.ensure_future(zygote.run("pass"))
    await asyncio.sleep(0)
    kill_process(zygote.client.zygote_pid, signal.SIGKILL)
    with pytest.raises(ZygoteLostError, match=r"has ended: killed by signal 9 \(SIGKILL\)"):
        await waiting
    assert describe_exit(await zygote.exit_of(pid)) == "killed by signal 9 (SIGKILL)"
    async with asyncio.timeout(DEADLINE_S):
        assert "killed by signal 9" in await zygote.lost
    await gone(pid)
    with pytest.raises(ZygoteLostError):
        await zygote.run("pass")


async def test_a_worker_shares_most_of_its_memory(zygote: Zygote) -> None:
    pid, output = await zygote.run("import signal; print('up'); signal.pause()")
    await output.line()
    assert private_bytes(pid) < 8 << 20
