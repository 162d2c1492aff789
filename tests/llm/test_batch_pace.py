"""How many requests of batches are in hand before a queue that refuses some."""

import asyncio
from collections.abc import Callable

from actorrt.serve.llm.batches.places import Pace, Place, Places


async def turn() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_refusal_leaves_the_places_that_are_held_and_answers_bring_the_others_back() -> None:
    pace = Pace(16)
    for held in range(15, 4, -1):
        pace.refused(held)
    assert pace.allowed == 5
    for _ in range(5):
        pace.answered()
    assert pace.allowed == 5
    for allowed in range(6, 17):
        pace.answered()
        assert pace.allowed == allowed
    pace.answered()
    assert pace.allowed == 16
    pace.refused(0)
    assert pace.allowed == 1


async def test_requests_before_a_queue_with_little_room_are_seldom_refused() -> None:
    """The queue takes six; each is answered in the turn of an event that is set below."""
    places, room, left = Places(64), 6, 600
    running: list[asyncio.Event] = []
    refused = answered = 0

    async def make() -> None:
        nonlocal refused, answered
        place = await places.take()
        while len(running) >= room:
            refused += 1
            place.refused(0.01)
            await turn()
            await place.take_again()
        running.append(end := asyncio.Event())
        await end.wait()
        running.remove(end)
        place.answered()
        place.give_back()
        answered += 1

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(make()) for _ in range(left)]
        while not all(task.done() for task in tasks):
            await turn()
            if running:
                running[0].set()
    assert answered == left
    # All but six of the first 64, and then one in as many answers as run.
    assert refused <= 58 + left / room + 1


async def test_where_none_is_held_no_place_is_given_before_the_pause_is_over() -> None:
    places = Places(4)
    place = await places.take()
    loop, due = asyncio.get_running_loop(), list[Callable[[], object]]()
    call_later = loop.call_later
    loop.call_later = lambda delay, callback, *args, context=None: (  # type: ignore[method-assign]
        due.append(lambda: callback(*args)) or call_later(3600, lambda: None)
    )
    try:
        place.refused(30)
    finally:
        loop.call_later = call_later  # type: ignore[method-assign]
    waiting = [asyncio.create_task(places.take()) for _ in range(2)]
    await turn()
    assert not any(task.done() for task in waiting)
    due[0]()
    await turn()
    # One is enough to see whether there is room again.
    assert [task.done() for task in waiting] == [True, False]
    waiting[0].result().answered()
    waiting[0].result().give_back()
    assert isinstance(await waiting[1], Place)


async def test_who_gives_up_as_its_turn_comes_leaves_its_place_to_the_next() -> None:
    places = Places(1)
    held = await places.take()
    first, second, third = (asyncio.create_task(places.take()) for _ in range(3))
    await turn()
    second.cancel()
    held.give_back()
    first.cancel()
    await turn()
    assert first.cancelled()
    assert second.cancelled()
    assert isinstance(await third, Place)
