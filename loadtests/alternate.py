"""Set the present revision beside an earlier one batch by batch, for what is too short to tell apart by rounds.

    python loadtests/alternate.py --before REVISION [--batch BATCH] [--pairs N] [--starts N]

Both run at the same time, each in processes of its own, and do a batch of the same size by turns: whatever makes the
machine slow for seconds slows both down. Every start begins with new processes, whose places in memory and on the CPUs
are a matter of luck. Printed are the medians, and how much faster the present one is: the median of the pairs' own
ratios, by start and of all.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from loadtests import processes, revision, venvs
from loadtests.running import last_words
from loadtests.sides import BEFORE, OURS, SIDES
from loadtests.workloads.turns import BATCHES

_SIDES: Final = (BEFORE, OURS)


class NoAnswer(Exception):
    """A side ended before it answered."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", metavar="REVISION", required=True, help="a commit of this repository")
    parser.add_argument("--batch", choices=list(BATCHES), default="calls", help="of what (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=100, metavar="N", help="batches of a side by start (%(default)s)")
    parser.add_argument("--starts", type=int, default=5, metavar="N", help="%(default)s by default")
    given = parser.parse_args()
    if min(given.pairs, given.starts) < 1:
        parser.error("--pairs and --starts are 1 at least")
    try:
        revision.install(revision.resolve(given.before))
    except (ValueError, venvs.InstallError) as error:
        parser.error(str(error))
    processes.become_subreaper()
    size, every = BATCHES[given.batch], list[tuple[float, float]]()
    for start in range(given.starts):
        try:
            pairs = measure(given.batch, given.pairs)
        except NoAnswer as error:
            print(error, file=sys.stderr)
            return 1
        every += pairs
        print(f"start {start + 1}: {told(pairs, size)}", flush=True)
    print(f"all: {told(every, size)}")
    return 0


def measure(batch: str, pairs: int) -> list[tuple[float, float]]:
    """Seconds of the batches, those of the earlier revision first in each pair. Raises NoAnswer."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        sides = [_Side(side, batch, folder, stack) for side in _SIDES]
        for side in sides:
            side.answer()
        found: list[tuple[float, float]] = []
        for number in range(pairs):
            order = sides if number % 2 else sides[::-1]
            seconds = [side.take() for side in order]
            before, now = seconds if number % 2 else seconds[::-1]
            found.append((before, now))
        return found


class _Side:
    def __init__(self, name: str, batch: str, folder: Path, stack: ExitStack) -> None:
        self._title, self._log = SIDES[name].title, folder / f"{name}.log"
        if name == BEFORE:
            python, root = venvs.python_in(BEFORE), revision.FOLDER
        else:
            python, root = Path(sys.executable), venvs.ROOT
        command = [str(python), "-m", "loadtests.workloads.turns", OURS, batch]
        self._process: subprocess.Popen[str] = stack.enter_context(
            processes.started(command, variables={}, log=self._log, folder=root, talks=True)
        )
        assert self._process.stdin is not None
        # It ends with its input.
        stack.callback(self._process.stdin.close)

    def answer(self) -> float:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                return float(line)
            except ValueError:
                continue  # its own chatter
        raise NoAnswer(f"{self._title} ended before it answered: {last_words(self._log)}")

    def take(self) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self.answer()


def told(pairs: Sequence[tuple[float, float]], size: int) -> str:
    before, now = (statistics.median(each) for each in zip(*pairs, strict=True))
    ratio = statistics.median(before / now for before, now in pairs)
    return f"{size / now:,.0f} a second, before {size / before:,.0f}; {ratio:.3f} times as fast"


if __name__ == "__main__":
    sys.exit(main())
