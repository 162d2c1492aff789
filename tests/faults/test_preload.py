"""Modules that workers are born with: imported by the zygote, also by a later one, and no worker depends on that."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest

import actorrt

# By value, so that workers need not import this module, and pytest with it.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

FINE = """
import os
pid = os.getpid()
with open(os.environ["TOLD"], "w") as told:
    told.write(f"{pid}\\n")
"""
STARTS_A_THREAD = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""
ENDS = "raise SystemExit('no licence')"


class Told:
    """What the module writes as it is imported: the pid of the process that imports it."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path

    async def next(self) -> int:
        async with asyncio.timeout(60):
            return int(await asyncio.to_thread(self.path.read_text))


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    for name, text in {"born_with": FINE, "starts_a_thread": STARTS_A_THREAD, "ends_at_once": ENDS}.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    made = Told(tmp_path / "told")
    monkeypatch.setenv("TOLD", str(made.path))
    yield made
    actorrt.shutdown()


@actorrt.remote(num_cpus=0)
def imported_by() -> tuple[int, int]:
    """Who has imported the module that this worker has, and whose child the worker is."""
    return sys.modules["born_with"].pid, os.getppid()


@actorrt.remote(num_cpus=1)
class Runs:
    def pid(self) -> int:
        return os.getpid()


async def test_workers_are_born_with_what_init_was_told(told: Told) -> None:
    actorrt.init(num_cpus=2, preload_modules=["born_with"])
    zygote = await told.next()
    assert await imported_by.remote() == (zygote, zygote)


async def test_a_later_zygote_imports_it_too(told: Told) -> None:
    actorrt.init(num_cpus=2, preload_modules=["born_with"])
    first = await told.next()
    os.kill(first, signal.SIGKILL)
    second = await told.next()
    assert second != first
    assert await imported_by.remote() == (second, second)


@pytest.mark.parametrize(
    ("module", "why"),
    [
        ("no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("ends_at_once", "SystemExit: no licence"),
        ("starts_a_thread", "its import starts threads (1), which no fork takes along"),
    ],
)
async def test_a_module_that_cannot_be_preloaded_is_named_and_costs_no_worker(
    told: Told, module: str, why: str
) -> None:
    context = actorrt.init(num_cpus=2, preload_modules=[module, "born_with"])
    await told.next()
    # Its fork is answered after what was imported before.
    assert await Runs.remote().pid.remote()
    warnings = Path(context["session_dir"], "logs", "node.err").read_text()
    assert f"workers are not born with {module}, and import it where they need it: {why}" in warnings


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ("numpy", TypeError, "preload_modules must be a list of names of modules, not 'numpy'"),
        ([1], TypeError, "preload_modules must be a list of names of modules"),
        (["a b"], ValueError, "preload_modules must be a list of names of modules, not .'a b'."),
        ([""], ValueError, "preload_modules must be a list of names of modules"),
    ],
)
def test_what_is_no_list_of_names_is_refused(given: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        actorrt.init(preload_modules=given)
    assert not actorrt.is_initialized()
