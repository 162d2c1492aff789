"""What other threads have due on a loop is done there, whatever the code of one callback does."""

import asyncio

import pytest

from actorrt.runtime.base.loop_bridge import bridge_to


def test_a_callback_that_leaves_takes_nothing_along_that_is_due_behind_it() -> None:
    loop = asyncio.new_event_loop()
    done: list[int] = []
    try:
        bridge = bridge_to(loop)
        bridge.call(exit)
        bridge.call(lambda: done.append(1))
        with pytest.raises(SystemExit):
            loop.run_forever()
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()
    assert done == [1]


def test_an_error_of_a_callback_is_logged_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    done: list[int] = []

    def cancelled() -> None:
        raise asyncio.CancelledError

    try:
        bridge = bridge_to(loop)
        for callback in (cancelled, lambda: 1 / 0, lambda: done.append(1)):
            bridge.call(callback)
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()
    assert done == [1]
    assert len(caplog.records) == 2
