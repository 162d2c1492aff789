"""What a caller that blocks has run, wherever it is called."""

import asyncio
import threading

import pytest

from actorrt.serve.base.background import run_from_here


async def where() -> str:
    await asyncio.sleep(0)
    return threading.current_thread().name


async def wrong() -> None:
    raise LookupError("wrong")


def test_without_a_loop_it_runs_in_the_callers_thread() -> None:
    assert run_from_here(where()) == threading.current_thread().name
    with pytest.raises(LookupError):
        run_from_here(wrong())


async def test_on_a_loop_as_in_a_notebook_it_runs_in_another_thread() -> None:
    assert run_from_here(where()) != threading.current_thread().name
    with pytest.raises(LookupError):
        run_from_here(wrong())
