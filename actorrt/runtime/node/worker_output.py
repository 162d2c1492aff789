"""What workers print: read from their pipes on the node's loop, kept in files that rotate, shown to their driver.

Memory is bounded whatever a worker prints. A flood is slowed down by reading only so much in a moment; a driver that
does not keep up does not slow its workers, it misses lines and is told how many. Files get every byte.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final, Protocol

from actorrt.config import Settings
from actorrt.core.loglines import Line, LineSplitter, MarkFinder, dropped, printable
from actorrt.types import Employer, JobKey, ProcessId
from actorrt.wire.messages import LogLines

from ..base.log_file import LogFile

CHUNK: Final = 64 * 1024
# Lines are sent together once in this time.
TICK_S: Final = 0.05
# What is read of one stream in a tick.
BYTES_A_TICK: Final = 1024 * 1024
# Lines of one worker that wait for the next tick, or for its driver; and their bytes.
MAX_PENDING: Final = 4096
MAX_PENDING_BYTES: Final = BYTES_A_TICK
LINES_A_MESSAGE: Final = 512
# A prompt or a progress bar is shown though its line has not ended.
PARTIAL_LINE_S: Final = 0.3
# The name of a worker that has not said yet what it runs.
NEWBORN: Final = "worker"
# What is read of a stream at its end, when nobody may be left who could fill it: more than a pipe holds.
LAST_BYTES: Final = 1024 * 1024


class Source(Protocol):
    """A worker, as far as its output is concerned."""

    @property
    def process(self) -> ProcessId: ...
    @property
    def employer(self) -> Employer: ...
    @property
    def pid(self) -> int: ...


class Listener(Protocol):
    """A driver that wants to see lines: its link."""

    @property
    def congested(self) -> bool: ...

    def send(self, message: LogLines, /) -> None: ...


class WorkerOutputs:
    """The output of all workers of a node. Runs on its loop; nothing here waits."""

    def __init__(self, folder: str, settings: Settings, listener_of: Callable[[Employer], Listener | None]) -> None:
        """`listener_of(employer)` is asked anew each time: programs end before their workers do."""
        self._loop = asyncio.get_running_loop()
        self._folder = folder
        self._settings = settings
        self._listener_of = listener_of
        self._outputs: dict[ProcessId, _Output] = {}
        self._busy: set[_Output] = set()
        self._tick: asyncio.TimerHandle | None = None

    def open(self, worker: Source) -> tuple[int, int]:
        """Pipes for a worker that is about to be forked: the ends to write to, which are the caller's to close."""
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        try:
            err_read, err_write = os.pipe2(os.O_CLOEXEC)
        except OSError:
            os.close(out_read)
            os.close(out_write)
            raise
        os.set_blocking(out_read, False)
        os.set_blocking(err_read, False)
        self._outputs[worker.process] = _Output(worker, (out_read, err_read))
        return out_write, err_write

    def born(self, worker: Source) -> None:
        """The worker runs and has its pid."""
        output = self._outputs[worker.process]
        stem = os.path.join(self._folder, f"worker-{worker.process.hex()}-{worker.pid}")
        size, count = self._settings.log_rotation_bytes, self._settings.log_rotation_count
        for fd, is_error in zip(output.fds, (False, True), strict=True):
            file = LogFile(f"{stem}.{'err' if is_error else 'out'}", size, count)
            output.streams.append(_Stream(self, output, fd, is_error, file))

    def abandon(self, worker: Source) -> None:
        """It was not forked."""
        output = self._outputs.pop(worker.process, None)
        if output is not None:
            for fd in output.fds:
                os.close(fd)

    def rename(self, worker: Source, name: str) -> None:
        """What it runs now, for the prefix of its lines."""
        output = self._outputs.get(worker.process)
        if output is not None:
            if output.name != NEWBORN:
                self._forward(output)  # what is here already was printed under the old name
            output.rename(name)

    def flush(self, job: JobKey) -> None:
        """Read and send what the workers of a job have printed so far, whether their driver keeps up or not."""
        for output in list(self._outputs.values()):
            if output.worker.employer.job == job:
                self._drain(output)

    def ended(self, worker: Source) -> None:
        """It has ended: what it printed last is read and sent, and all is closed."""
        output = self._outputs.get(worker.process)
        if output is None:
            return
        if not output.streams:
            self.abandon(worker)
            return
        del self._outputs[worker.process]
        self._drain(output)
        for stream in output.streams:
            stream.close()
        self._busy.discard(output)

    async def close(self) -> None:
        for output in list(self._outputs.values()):
            self.ended(output.worker)
        if self._tick is not None:
            self._tick.cancel()

    # ---- for streams

    def is_shown(self, output: _Output) -> bool:
        return self._listener_of(output.worker.employer) is not None

    def next_tick(self, output: _Output) -> None:
        """Something is to be done for this worker at the next tick."""
        self._busy.add(output)
        if self._tick is None:
            self._tick = self._loop.call_later(TICK_S, self._on_tick)

    def _on_tick(self) -> None:
        self._tick = None
        busy, self._busy = self._busy, set()
        for output in busy:
            self._forward(output)
            for stream in output.streams:
                stream.go_on()
            if output.pending:
                self.next_tick(output)

    def _drain(self, output: _Output) -> None:
        for stream in output.streams:
            left = LAST_BYTES
            while left > 0 and (count := stream.read()):
                left -= count
                self._forward(output)
            stream.show_rest()
        # There may be no next time; and it is bounded, so that a link that is late may take it too.
        self._forward(output, even_if_late=True)

    def _forward(self, output: _Output, even_if_late: bool = False) -> None:
        """Send what is pending, if there is a driver and it keeps up."""
        listener = self._listener_of(output.worker.employer)
        if listener is None:
            output.clear()
            return
        if output.note_whether_late(listener) and not even_if_late:
            return
        name, pid = output.name, output.worker.pid
        lines: list[Line] = [(who or name, pid, is_error, printable(line)) for who, is_error, line in output.pending]
        if output.missed:
            lines.append(dropped(name, pid, output.missed))
        output.clear()
        for start in range(0, len(lines), LINES_A_MESSAGE):
            listener.send(LogLines(lines[start : start + LINES_A_MESSAGE]))


class _Output:
    """One worker's."""

    __slots__ = ("_late", "fds", "missed", "name", "pending", "pending_bytes", "streams", "worker")

    def __init__(self, worker: Source, fds: tuple[int, int]) -> None:
        self.worker = worker
        self.fds = fds
        self.name = NEWBORN
        self.streams: list[_Stream] = []
        # Who has printed it, "" if that is not known; whether to stderr; and the line.
        self.pending: list[tuple[str, bool, bytes]] = []
        self.pending_bytes = 0
        self.missed = 0
        self._late: Listener | None = None

    @property
    def is_late(self) -> bool:
        """Its driver did not keep up at the last tick."""
        return self._late is not None

    def note_whether_late(self, listener: Listener) -> bool:
        self._late = listener if listener.congested else None
        return self.is_late

    def rename(self, name: str) -> None:
        self.name = name

    @property
    def is_full(self) -> bool:
        return len(self.pending) >= MAX_PENDING or self.pending_bytes >= MAX_PENDING_BYTES

    def add(self, name: str, is_error: bool, lines: list[bytes]) -> None:
        for line in lines:
            # Where the driver keeps up, the pipe is left alone for a while instead.
            if self.is_late and self.is_full:
                self.missed += 1
            else:
                self.pending.append((name, is_error, line))
                self.pending_bytes += len(line)

    def clear(self) -> None:
        self.pending.clear()
        self.pending_bytes = 0
        self.missed = 0


class _Stream:
    """One pipe of a worker: read, written to its file, cut into lines."""

    def __init__(self, owner: WorkerOutputs, output: _Output, fd: int, is_error: bool, file: LogFile) -> None:
        self._owner = owner
        self._output = output
        self._fd = fd
        self._is_error = is_error
        self._file = file
        self._splitter = LineSplitter()
        self._marks = MarkFinder()
        # Who has printed what comes now, once it says so.
        self._name = ""
        self._loop = asyncio.get_running_loop()
        self._left = BYTES_A_TICK
        self._last_read = 0.0
        self._partial: asyncio.TimerHandle | None = None
        self._loop.add_reader(fd, self._readable)

    def _readable(self) -> None:
        self._left -= self.read()
        if self._fd < 0:
            return
        output = self._output
        if self._left <= 0 or (output.is_full and not output.is_late):
            self._loop.remove_reader(self._fd)
            self._owner.next_tick(output)

    def read(self) -> int:
        """Take one chunk if there is one; how many bytes it had."""
        if self._fd < 0:
            return 0
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return 0
        except OSError:
            data = b""
        if not data:
            self.close()
            return 0
        for name, part in self._marks.feed(data):
            self._take(name, part)
        if self._splitter.pending and self._owner.is_shown(self._output):
            self._last_read = self._loop.time()
            if self._partial is None:
                self._partial = self._loop.call_later(PARTIAL_LINE_S, self._look_at_partial)
        return len(data)

    def _take(self, name: str | None, data: bytes) -> None:
        """Keep and show what `name` has printed; None: the same as before."""
        shown = self._owner.is_shown(self._output)
        if name is not None and name != self._name:
            # Whose line has not ended does not go on in another's.
            rest = self._splitter.flush()
            if shown:
                self._show(rest)
            self._name = name
        if not data:
            return
        self._file.write(data)
        lines = self._splitter.feed(data)
        if shown:
            self._show(lines)

    def go_on(self) -> None:
        """A new tick: there is room again."""
        self._left = BYTES_A_TICK
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._readable)

    def show_rest(self) -> None:
        """Show a line that has not ended."""
        self._show(self._splitter.flush())

    def close(self) -> None:
        if self._partial is not None:
            self._partial.cancel()
            self._partial = None
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._file.close()
        self.show_rest()

    def _show(self, lines: list[bytes]) -> None:
        if lines:
            self._output.add(self._name, self._is_error, lines)
            self._owner.next_tick(self._output)

    def _look_at_partial(self) -> None:
        self._partial = None
        if not self._splitter.pending:
            return
        quiet = self._loop.time() - self._last_read
        if quiet >= PARTIAL_LINE_S:
            self.show_rest()
        else:
            self._partial = self._loop.call_later(PARTIAL_LINE_S - quiet, self._look_at_partial)
